/* sample.c - the conformance cases that every op, layer and loss carries, for whoever runs them. */
#include "context.h"
#include "schema.h"
#include <string.h>

bool td_sample_case(const td_opts *options, const char *who, td_samples *sample, uint32_t i, void *opts, td_tensor **in,
                    uint32_t *n_in)
{
    if (tdi_failed() || !sample) return false;
    const tdi_schema *schema = options->n ? tdi_schema_of(options, who) : NULL;
    if (tdi_failed()) return false;
    if (schema) memcpy(opts, schema->image, schema->out_size);
    memset(in, 0, *n_in * sizeof(td_tensor *));
    td_sample s = {opts, in, *n_in};
    bool more = sample(i, &s) && !tdi_failed();
    *n_in = s.n_in;
    return more;
}

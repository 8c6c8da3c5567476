/* run.h - one run of one op, as the files of the waist hand it on. */
#ifndef TIDE_RUN_H
#define TIDE_RUN_H
#include "autograd.h"
#include "dispatch.h"
#include <string.h>
#include "plan.h"

enum { FEW = 8 }; /* places that need no heap */

/* One run of one op. iv holds the inputs as infer and the kernel see them, tmp the casts and dense copies among them. */
typedef struct {
    tdi_op *op;
    td_context *ctx;
    td_device *dev;
    td_tensor *const *in, *const *into;
    const void *attr;
    uint32_t n_in, n_list, n_out;
    td_dtype compute;
    bool wants_grad;
    const td_view **iv;
    uint8_t *marks;
    td_tensor **tmp;
    uint32_t n_tmp;
    td_view number[FEW]; /* plain numbers in the compute dtype */
    double number_data[FEW];
    uint32_t n_number;
    td_tensor **out;
    const td_view **ov;
    uint64_t random[2];
} tdi_runner;

/** Whether two views have the same extents. */
static inline bool tdi_same_dims(const td_view *a, const td_view *b)
{
    if (a->nd != b->nd) return false;
    for (int32_t i = 0; i < a->nd; i++)
        if (a->dim[i] != b->dim[i]) return false;
    return true;
}

/** The short way: true where it was taken, *ok then says whether it went well and *out is the result, owned by the scope. */
bool tdi_run_alike(tdi_op *op, td_context *ctx, td_tensor *const *in, uint32_t n, const void *attr, td_tensor **out,
                   bool *ok);
/** Runs the chosen kernel: the one place where kernels are called. op, ctx, dev, attr, inputs and outputs of r are set. */
bool tdi_call_kernel(tdi_runner *r, const tdi_choice *c, td_dtype compute);
/** The view of a plain number in a dtype; its value goes to data. */
void tdi_number_as(const td_view *from, td_dtype dt, td_view *to, double *data);
/** Whether two views have the same dtype, extents, strides, flags and layout: all that a kernel is told but the address. */
static inline bool tdi_same_layout(const td_view *a, const td_view *b)
{
    if (a->dt != b->dt || a->flags != b->flags || a->layout != b->layout || !tdi_same_dims(a, b)) return false;
    return !memcmp(a->stride, b->stride, (size_t)a->nd * sizeof *a->stride);
}

/** Runs kernel or decomposition without recording. */
bool tdi_compute(tdi_runner *r);
/** Runs a view op: outputs share the storage of input 0. */
bool tdi_run_view(tdi_runner *r);
/** The op in simpler ops, recorded if gradients are on. The results replace r->out. */
bool tdi_run_decompose(tdi_runner *r);
/** A dense temporary with t's values in dtype dt, held until the run ends. */
td_tensor *tdi_converted(tdi_runner *r, const td_tensor *t, td_dtype dt);
/** Releases outputs from one on. */
void tdi_drop_outputs(tdi_runner *r, uint32_t from);

/* in_place.c */
/** Whether the given outputs may be written: not broadcast, no leaf, the result's shape and dtype. */
bool tdi_check_into(const tdi_runner *r);
/** The same for inputs marked &. */
bool tdi_check_written_inputs(const tdi_runner *r);
/** After a run: storages that it wrote have a new version. */
void tdi_bump_versions(const tdi_runner *r, bool recorded);
/** Whether the kernel may write straight into a given output: dtype and strides suit it, and no input would be overwritten
 *  before it is read. */
bool tdi_may_write_into(const tdi_runner *r, const td_kernel *k, const td_tensor *to, td_dtype dt);

#endif

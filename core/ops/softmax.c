/* softmax.c - softmax and log_softmax along one axis. Subtracting the greatest element leaves the result as it is and
 * keeps exp from overflowing (Goodfellow et al., Deep Learning, section 4.1). */
#include "common.h"

static bool along_axis(const char *op, td_infer *q, int64_t axis)
{
    return tdi_float_ok(op, q->compute) && tdi_real_axis(op, axis, q->in[0]) >= 0;
}

static td_tensor *shifted(td_tensor *x, int64_t axis) { return td_sub(x, td_amax(x, td_dims(axis), true)); }

static bool softmax_infer(td_infer *q)
{
    const td_softmax_attr *a = q->attr;
    return along_axis("softmax", q, a->axis);
}

static bool softmax_decompose(const td_call *c, td_tensor **out)
{
    const td_softmax_attr *a = c->attr;
    td_tensor *x = c->in[0];
    if (td_numel(x)) {
        td_tensor *e = td_exp(shifted(x, a->axis));
        out[0] = td_div(e, td_sum(e, td_dims(a->axis), true));
    } else {
        out[0] = td_copy(x);
    }
    return out[0] != NULL;
}

/* y (g - sum(g y)) */
static bool softmax_backward(const td_call *c, td_tensor *const *gout, td_tensor **gin, uint64_t need)
{
    const td_softmax_attr *a = c->attr;
    td_tensor *y = c->out[0], *g = gout[0];
    (void)need;
    gin[0] = td_mul(y, td_sub(g, td_sum(td_mul(g, y), td_dims(a->axis), true)));
    return gin[0] != NULL;
}

static bool softmax_sample(uint32_t i, td_sample *s)
{
    td_softmax_attr *a = s->opts;
    s->in[0] = i == 0 ? tdi_normal(td_dims(3, 4)) : tdi_normal(td_dims(2, 3, 2));
    a->axis = i == 0 ? -1 : 1;
    return i < 2;
}

static bool log_softmax_infer(td_infer *q)
{
    const td_log_softmax_attr *a = q->attr;
    return along_axis("log_softmax", q, a->axis);
}

static bool log_softmax_decompose(const td_call *c, td_tensor **out)
{
    const td_log_softmax_attr *a = c->attr;
    td_tensor *x = c->in[0];
    if (td_numel(x)) {
        td_tensor *d = shifted(x, a->axis);
        out[0] = td_sub(d, td_log(td_sum(td_exp(d), td_dims(a->axis), true)));
    } else {
        out[0] = td_copy(x);
    }
    return out[0] != NULL;
}

/* g - exp(y) sum(g) */
static bool log_softmax_backward(const td_call *c, td_tensor *const *gout, td_tensor **gin, uint64_t need)
{
    const td_log_softmax_attr *a = c->attr;
    td_tensor *g = gout[0];
    (void)need;
    gin[0] = td_sub(g, td_mul(td_exp(c->out[0]), td_sum(g, td_dims(a->axis), true)));
    return gin[0] != NULL;
}

static bool log_softmax_sample(uint32_t i, td_sample *s)
{
    td_log_softmax_attr *a = s->opts;
    s->in[0] = i == 0 ? tdi_normal(td_dims(3, 4)) : tdi_normal(td_dims(2, 3, 2));
    a->axis = i == 0 ? -1 : 1;
    return i < 2;
}

const td_op tdi_op_softmax = {TD_ROW_softmax,
                              .save_out = 1,
                              .flags = TD_OP_BWD_DIFF,
                              .infer = softmax_infer,
                              .backward = softmax_backward,
                              .decompose = softmax_decompose,
                              .sample = softmax_sample};
const td_op tdi_op_log_softmax = {TD_ROW_log_softmax,
                                  .save_out = 1,
                                  .flags = TD_OP_BWD_DIFF,
                                  .infer = log_softmax_infer,
                                  .backward = log_softmax_backward,
                                  .decompose = log_softmax_decompose,
                                  .sample = log_softmax_sample};

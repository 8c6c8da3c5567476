/* dropout.c - zeros at random (Srivastava et al. 2014).
 * An element is kept where its 32-bit word, word i for the i-th element in row-major order, is at least floor(p 2^32):
 * integer arithmetic, so that every backend draws the same mask. p = 0 keeps all, p = 1 none. */
#include "common.h"

static double scale(double p) { return p < 1 ? 1 / (1 - p) : 0; }

/* x / (1 - p) where the mask is set; a NaN or infinity that is dropped leaves no trace */
static td_tensor *masked(td_tensor *x, td_tensor *mask, double p)
{
    return td_where(mask, td_mul(x, td_number(scale(p))), td_number(0));
}

static bool dropout_infer(td_infer *q)
{
    const td_dropout_attr *a = q->attr;
    if (!tdi_float_ok("dropout", q->compute)) return false;
    if (!(a->p >= 0 && a->p <= 1)) return td_fail("dropout: p: expected a probability in 0..1, got %g", a->p);
    q->out[1]->dt = TD_BOOL;
    return true;
}

static bool dropout_decompose(const td_call *c, td_tensor **out)
{
    const td_dropout_attr *a = c->attr;
    td_tensor *bits = td_random_bits(td_shape(c->in[0]));
    out[1] = td_ge(bits, td_integer((int64_t)(a->p * 4294967296.0)));
    out[0] = masked(c->in[0], out[1], a->p);
    return out[0] != NULL;
}

static bool dropout_backward(const td_call *c, td_tensor *const *gout, td_tensor **gin, uint64_t need)
{
    const td_dropout_attr *a = c->attr;
    (void)need;
    if (!gout[0]) return true;
    gin[0] = masked(gout[0], c->out[1], a->p);
    return gin[0] != NULL;
}

static bool dropout_sample(uint32_t i, td_sample *s)
{
    td_dropout_attr *a = s->opts;
    s->in[0] = tdi_normal(td_dims(4, 5));
    if (i > 0) a->p = i == 1 ? 0.2 : 1;
    return i < 3;
}

/* The mask is a constant of the derivative, so a backward that uses it may be differentiated. */
const td_op tdi_op_dropout = {TD_ROW_dropout,
                              .save_out = 2,
                              .flags = TD_OP_RNG | TD_OP_BWD_DIFF | TD_OP_GOUT_NULL,
                              .infer = dropout_infer,
                              .backward = dropout_backward,
                              .decompose = dropout_decompose,
                              .sample = dropout_sample};

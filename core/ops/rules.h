/* rules.h - what several files of op definitions share: dtype and shape rules, short expressions, sample values. */
#ifndef TIDE_OPS_RULES_H
#define TIDE_OPS_RULES_H
#include "ops.h"

/** Ops whose attributes are alike share functions, which read them through one struct. */
#define TDI_SAME_LAYOUT(shared, attr, last)                                                         \
    static_assert(sizeof(shared) == sizeof(attr) && offsetof(shared, last) == offsetof(attr, last), \
                  #attr " must have the fields of " #shared)

/* ---- dtype rules ---- */

/** One output like input 0; integers and bools are computed as f32. */
bool tdi_infer_float(td_infer *i);
/** Integers and bools are computed as f32: sets compute and the dtype of output 0. */
void tdi_compute_float(td_infer *i);
/** Integers and bools are computed as i64: sets compute and the dtype of output 0. */
void tdi_compute_wide(td_infer *i);
/** Refuses bool. */
bool tdi_want_numbers(const char *op, const td_infer *i);
/** Refuses everything but floats. */
bool tdi_want_float(const char *op, const td_infer *i);

/* ---- shape rules ---- */

/** Output 0 has the broadcast shape of inputs 0 and 1 and dtype compute. */
bool tdi_infer_binary(const char *op, td_infer *i);
/** Output 0 has a given shape and dtype, which become those of the computation; refuses what no memory can hold. */
bool tdi_infer_shape(const char *op, td_infer *i, td_ints shape, td_dtype dt);
/** Output 0 is input 0 without the axes, or with extent 1 there; its dtype is compute. */
bool tdi_infer_reduce(const char *op, td_infer *i, td_ints axes, bool keepdim);
/** The same for one axis, for all outputs. */
bool tdi_infer_reduce_one(const char *op, td_infer *i, int64_t axis, bool keepdim);
/** Takes the axes in mask out of out's dims, or sets them to 1. */
void tdi_drop_axes(td_view *out, uint32_t mask, bool keepdim);
/** Refuses a reduction over no elements, which has no result. */
bool tdi_want_elements(const char *op, const td_view *x, uint32_t mask);

/** The axes of an option that infer has accepted, as bits. */
uint32_t tdi_mask(td_ints axes, const td_tensor *x);
/** Elements of x that become one when the axes in mask are reduced. */
int64_t tdi_count(const td_view *x, uint32_t mask);

/* ---- expressions ---- */

/** k x, x + k, k - x */
static inline td_tensor *tdi_times(td_tensor *x, double k) { return td_mul(x, td_number(k)); }
static inline td_tensor *tdi_plus(td_tensor *x, double k) { return td_add(x, td_number(k)); }
static inline td_tensor *tdi_from(double k, td_tensor *x) { return td_sub(td_number(k), x); }
/** A 0-dim zero that leaves tensors of dtype dt as they are. */
td_tensor *tdi_zero(td_dtype dt);
/** x where the mask is not set, else 0. */
static inline td_tensor *tdi_cut(td_tensor *mask, td_tensor *x) { return td_where(mask, tdi_zero(td_dtype_of(x)), x); }
/** Whether t is a plain number, which decompose gets as it came. */
static inline bool tdi_plain_number(const td_tensor *t) { return td_view_of(t)->flags & TD_V_NUMBER; }
/** x; a plain number as a 0-dim f32 tensor: for definitions of float ops that ask for x's dtype. */
static inline td_tensor *tdi_real(td_tensor *x) { return tdi_plain_number(x) ? td_cast(x, TD_F32) : x; }
/** x in dtype dt; x itself where it is so already. */
td_tensor *tdi_to(td_tensor *x, td_dtype dt);
/** x under another shape; x itself where it has it already. */
td_tensor *tdi_shaped(td_tensor *x, td_ints shape);
/** Whether an element is not zero, as bools; x itself where it is bool. */
td_tensor *tdi_as_mask(td_tensor *x);

/** What was reduced from x over the axes in mask, with those axes back at extent 1. */
td_tensor *tdi_with_axes(td_tensor *reduced, const td_tensor *x, uint32_t mask);
/** The same, repeated along those axes to the shape of x. */
td_tensor *tdi_spread(td_tensor *reduced, const td_tensor *x, uint32_t mask);

/** Backward of an op with one input and one output, as an expression of x, y and the gradient g of y. */
#define TDI_GRADIENT(op, expression)                                                                    \
    static bool op##_backward(const td_call *c, td_tensor *const *gout, td_tensor **gin, uint64_t need) \
    {                                                                                                   \
        td_tensor *x = c->in[0], *y = c->out[0], *g = gout[0];                                          \
        (void)x, (void)y, (void)g, (void)need;                                                          \
        gin[0] = (expression);                                                                          \
        return gin[0] != NULL;                                                                          \
    }
/** Decompose of an op with one input and one output, as an expression of x. */
#define TDI_DEFINITION(op, expression)                            \
    static bool op##_decompose(const td_call *c, td_tensor **out) \
    {                                                             \
        td_tensor *x = c->in[0];                                  \
        out[0] = (expression);                                    \
        return out[0] != NULL;                                    \
    }
/** Backward of an op that is flat: every gradient is zero. */
bool tdi_no_gradient(const td_call *c, td_tensor *const *gout, td_tensor **gin, uint64_t need);

/* ---- sample values: fixed, so that a failure is found again ---- */

/** f32 between lo and hi, all different; another seed gives others. At most 256 elements. */
td_tensor *tdi_sample(td_ints shape, uint32_t seed, double lo, double hi);
/** f32 of both signs, between 0.25 and 1.75 in magnitude: away from a kink at 0. */
td_tensor *tdi_sample_signed(td_ints shape, uint32_t seed);
/** i64 in 0 .. n - 1, with repetitions. */
td_tensor *tdi_sample_ints(td_ints shape, uint32_t seed, int64_t n);
/** bool, mixed. */
td_tensor *tdi_sample_mask(td_ints shape, uint32_t seed);

/** Cases for functions of one tensor that are smooth on the line: (2, 3), a 0-dim one, (2, 1, 4). */
bool tdi_samples_signed(uint32_t i, td_sample *s);
/** The same with values between 0.3 and 2. */
bool tdi_samples_positive(uint32_t i, td_sample *s);
/** Two tensors that broadcast, values of both signs: (2, 3) with (2, 3), (2, 1) with (3), (2, 3) with 0-dim. */
bool tdi_samples_pair(uint32_t i, td_sample *s);

#endif

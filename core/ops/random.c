/* random.c - random_bits, the one source of randomness, and what is made of it.
 *
 * Word i of random_bits (row-major) is word i % 4 of Philox4x32-10(key = seed, counter = offset + i / 4), from
 * Salmon et al., Parallel random numbers: as easy as 1, 2, 3, SC 2011. n words advance the offset by ceil(n / 4).
 * Kernels that draw directly (rand f32, randn f32, bernoulli) give what these definitions give:
 *   rand f32       (w >> 8) 2^-24                                                    bit for bit
 *   rand f64       ((w1 >> 5) 2^26 + (w2 >> 6)) 2^-53, w1 and w2 from two calls      (no kernel)
 *   bernoulli      w < p 2^32, compared in f64                                       bit for bit
 *   randn f32      words 2k and 2k + 1 give elements 2k and 2k + 1 of the flattened result:
 *                  u1 = ((w[2k] >> 8) + 1) 2^-24      in (0, 1]
 *                  u2 = (w[2k + 1] >> 8) 2^-24        in [0, 1)
 *                  r = sqrt(-2 ln u1), y[2k] = r cos(2 pi u2), y[2k + 1] = r sin(2 pi u2)
 *                  An odd count drops the last sine; its word is counted, but needs no further block of four.
 *   randn f64      the same with 53-bit u1 and u2, from two calls of whole pairs       (no kernel)
 */
#include "rules.h"

static const double TWO_PI = 6.28318530717958647692;

/* ---- words ---- */

static bool random_bits_infer(td_infer *i)
{
    const td_random_bits_attr *a = i->attr;
    return tdi_infer_shape("random_bits", i, a->shape, TD_I64);
}

/* The high bits of fresh words, as i64. */
static td_tensor *high_bits(td_ints shape, int bits)
{
    return td_floor_divide(td_random_bits(shape), td_integer(INT64_C(1) << (32 - bits)));
}

/* 53 bits of two fresh words, as i64. */
static td_tensor *bits53(td_ints shape)
{
    td_tensor *high = high_bits(shape, 27), *low = high_bits(shape, 26);
    return td_add(td_mul(high, td_integer(INT64_C(1) << 26)), low);
}

/* ---- rand ---- */

static bool want_float_dtype(const char *op, td_dtype dt)
{
    return td_dtype_is_float(dt) ||
           td_fail_as(TD_EDTYPE, "%s: dtype: expected a float dtype, got %s", op, td_dtype_name(dt));
}

static bool rand_infer(td_infer *i)
{
    const td_rand_attr *a = i->attr;
    return want_float_dtype("rand", a->dtype) && tdi_infer_shape("rand", i, a->shape, a->dtype);
}

/* As many bits as the dtype's fractions in [0.5, 1) hold, so that no result is rounded up to 1. */
static bool rand_decompose(const td_call *c, td_tensor **out)
{
    const td_rand_attr *a = c->attr;
    int bits = a->dtype == TD_F64 ? 53 : a->dtype == TD_F32 ? 24 : a->dtype == TD_F16 ? 11 : 8;
    td_tensor *w = bits == 53 ? bits53(a->shape) : high_bits(a->shape, bits);
    out[0] = tdi_times(td_cast(w, a->dtype), ldexp(1, -bits));
    return out[0] != NULL;
}

/* ---- randn ---- */

static bool randn_infer(td_infer *i)
{
    const td_randn_attr *a = i->attr;
    return want_float_dtype("randn", a->dtype) && tdi_infer_shape("randn", i, a->shape, a->dtype);
}

static bool randn_decompose(const td_call *c, td_tensor **out)
{
    const td_randn_attr *a = c->attr;
    int64_t n = 1;
    for (int64_t d = 0; d < a->shape.n; d++) n *= a->shape.v[d];
    td_ints pairs = td_dims(n / 2 + n % 2, 2);
    bool wide = a->dtype == TD_F64;
    td_dtype dt = wide ? TD_F64 : TD_F32;
    double unit = ldexp(1, wide ? -53 : -24);
    td_tensor *w = wide ? bits53(pairs) : high_bits(pairs, 24);
    td_tensor *u1 = tdi_times(td_cast(td_add(td_select(w, 1, 0), td_integer(1)), dt), unit);
    td_tensor *u2 = tdi_times(td_cast(td_select(w, 1, 1), dt), unit);
    td_tensor *r = td_sqrt(tdi_times(td_log(u1), -2)), *angle = tdi_times(u2, TWO_PI);
    td_tensor *half[] = {td_mul(r, td_cos(angle)), td_mul(r, td_sin(angle))};
    td_tensor *flat = td_reshape(td_stack(half, 2, 1), td_dims(2 * pairs.v[0]));
    out[0] = tdi_to(td_reshape(td_narrow(flat, 0, 0, n), a->shape), a->dtype);
    return out[0] != NULL;
}

/* ---- randint, randperm ---- */

static bool randint_infer(td_infer *i)
{
    const td_randint_attr *a = i->attr;
    int64_t range, least = INT64_MIN, end = INT64_MAX;
    if (a->low >= a->high)
        return td_fail("randint: high: expected more than low, %lld, got %lld", (long long)a->low, (long long)a->high);
    if (__builtin_sub_overflow(a->high, a->low, &range) || range > INT64_C(1) << 31)
        return td_fail("randint: high: expected at most low + 2^31, got low %lld, high %lld", (long long)a->low,
                       (long long)a->high);
    if (a->dtype == TD_I32) least = INT32_MIN, end = INT64_C(1) << 31;
    if (a->dtype == TD_U8) least = 0, end = 256;
    if (a->dtype == TD_BOOL) least = 0, end = 2;
    if (a->low < least || a->high > end)
        return td_fail("randint: dtype: %s does not hold all of %lld .. %lld", td_dtype_name(a->dtype),
                       (long long)a->low, (long long)a->high - 1);
    return tdi_infer_shape("randint", i, a->shape, a->dtype);
}

/* low + floor(w range / 2^32): w range is below 2^63 */
static bool randint_decompose(const td_call *c, td_tensor **out)
{
    const td_randint_attr *a = c->attr;
    td_tensor *scaled = td_mul(td_random_bits(a->shape), td_integer(a->high - a->low));
    td_tensor *step = td_floor_divide(scaled, td_integer(INT64_C(1) << 32));
    out[0] = tdi_to(td_add(step, td_integer(a->low)), a->dtype);
    return out[0] != NULL;
}

static bool randperm_infer(td_infer *i)
{
    const td_randperm_attr *a = i->attr;
    if (a->n < 0) return td_fail_as(TD_ESHAPE, "randperm: n: expected at least 0, got %lld", (long long)a->n);
    return tdi_infer_shape("randperm", i, td_dims(a->n), TD_I64);
}

/* The order of 63-bit keys: ties, which would favour an order, do not happen. */
static bool randperm_decompose(const td_call *c, td_tensor **out)
{
    const td_randperm_attr *a = c->attr;
    td_ints shape = td_dims(a->n);
    td_tensor *high = td_random_bits(shape), *low = high_bits(shape, 31);
    out[0] = td_argsort(td_add(td_mul(high, td_integer(INT64_C(1) << 31)), low), 0, false);
    return out[0] != NULL;
}

/* ---- bernoulli, multinomial ---- */

static bool bernoulli_infer(td_infer *i) { return tdi_want_float("bernoulli", i); }

static bool bernoulli_decompose(const td_call *c, td_tensor **out)
{
    td_tensor *p = tdi_real(c->in[0]);
    td_tensor *limit = tdi_times(td_cast(p, TD_F64), 0x1p32), *w = td_cast(td_random_bits(td_shape(p)), TD_F64);
    out[0] = td_cast(td_lt(w, limit), td_dtype_of(p));
    return out[0] != NULL;
}

static bool multinomial_infer(td_infer *i)
{
    const td_multinomial_attr *a = i->attr;
    const td_view *p = i->in[0];
    if (!tdi_want_float("multinomial", i)) return false;
    if (p->nd < 1 || p->dim[p->nd - 1] < 1)
        return td_fail_as(TD_ESHAPE, "multinomial: p: expected rows of at least one probability, got shape %s",
                          tdi_shape_text(p));
    if (a->n < 1) return td_fail("multinomial: n: expected at least 1, got %lld", (long long)a->n);
    if (!a->replacement && a->n > p->dim[p->nd - 1])
        return td_fail("multinomial: n: cannot draw %lld of %lld without replacement", (long long)a->n,
                       (long long)p->dim[p->nd - 1]);
    td_ints shape = {p->nd, {0}};
    for (int32_t d = 0; d < p->nd; d++) shape.v[d] = p->dim[d];
    shape.v[p->nd - 1] = a->n;
    td_dtype compute = i->compute;
    bool ok = tdi_infer_shape("multinomial", i, shape, TD_I64);
    i->compute = compute;
    return ok;
}

/* Whether every row is finite, not negative, and has enough positive entries: one read by the host. */
static bool rows_are_good(td_tensor *p, int64_t positive_wanted)
{
    td_ints all = {0, {0}};
    bool good = false;
    td_tensor *fine = td_logical_and(td_ge(p, td_number(0)), td_isfinite(p)), *positive = td_gt(p, td_number(0));
    td_tensor *enough = td_ge(td_sum(positive, td_dims(-1), false), td_integer(positive_wanted));
    td_tensor *verdict = td_logical_and(td_all(fine, all, false), td_all(enough, all, false));
    if (!verdict || !TD->item(verdict, TD_BOOL, &good)) return false;
    return good || td_fail("multinomial: p: expected finite probabilities >= 0, at least %lld of each row above 0",
                           (long long)positive_wanted);
}

/* With replacement: how many running sums are at most u times the whole. */
static td_tensor *draw_with(td_tensor *p, int64_t n)
{
    td_ints shape = td_shape(p);
    int64_t k = shape.v[shape.n - 1];
    shape.v[shape.n - 1] = n;
    td_tensor *sums = td_cumsum(p, -1), *whole = td_narrow(sums, -1, k - 1, 1);
    td_tensor *u = td_mul(td_rand(shape, TD_F64), whole);
    td_tensor *below = td_le(td_unsqueeze(sums, -2), td_unsqueeze(u, -1));
    return td_minimum(td_sum(below, td_dims(-1), false), td_integer(k - 1));
}

/* Without: exponential times of rate p race, and the first n win (Efraimidis & Spirakis 2006). */
static td_tensor *draw_without(td_tensor *p, int64_t n)
{
    td_tensor *values, *index, *wait = td_neg(td_log1p(td_neg(td_rand(td_shape(p), TD_F64))));
    td_tensor *time = td_where(td_gt(p, td_number(0)), td_div(wait, p), td_number(INFINITY));
    return td_topk(time, n, -1, false, &values, &index) ? index : NULL;
}

static bool multinomial_decompose(const td_call *c, td_tensor **out)
{
    const td_multinomial_attr *a = c->attr;
    td_tensor *p = tdi_to(c->in[0], TD_F64);
    if (!rows_are_good(p, a->replacement ? 1 : a->n)) return false;
    out[0] = a->replacement ? draw_with(p, a->n) : draw_without(p, a->n);
    return out[0] != NULL;
}

/* ---- samples ---- */

static const td_ints shapes[] = {{2, {2, 3}}, {1, {5}}, {0, {0}}, {2, {0, 3}}};
enum { N_SHAPES = sizeof shapes / sizeof *shapes };

static bool random_bits_sample(uint32_t i, td_sample *s)
{
    if (i < N_SHAPES) ((td_random_bits_attr *)s->opts)->shape = shapes[i];
    return i < N_SHAPES;
}

static bool rand_sample(uint32_t i, td_sample *s)
{
    if (i < N_SHAPES) ((td_rand_attr *)s->opts)->shape = shapes[i];
    return i < N_SHAPES;
}

static bool randn_sample(uint32_t i, td_sample *s)
{
    if (i < N_SHAPES) ((td_randn_attr *)s->opts)->shape = shapes[i];
    return i < N_SHAPES;
}

static bool randint_sample(uint32_t i, td_sample *s)
{
    static const td_randint_attr cases[] = {
        {0, 10, {2, {2, 3}}, TD_I64},
        {-5, 5, {1, {7}}, TD_F32},
        {0, INT64_C(1) << 31, {0, {0}}, TD_I64},
        {0, 2, {1, {6}}, TD_BOOL},
    };
    if (i >= sizeof cases / sizeof *cases) return false;
    *(td_randint_attr *)s->opts = cases[i];
    return true;
}

static bool randperm_sample(uint32_t i, td_sample *s)
{
    static const int64_t n[] = {5, 1, 0};
    if (i < 3) ((td_randperm_attr *)s->opts)->n = n[i];
    return i < 3;
}

static bool bernoulli_sample(uint32_t i, td_sample *s)
{
    s->in[0] = tdi_sample(i ? td_dims(7) : td_dims(2, 3), i, 0, 1);
    return i < 2;
}

static bool multinomial_sample(uint32_t i, td_sample *s)
{
    td_multinomial_attr *a = s->opts;
    a->replacement = i == 1;
    a->n = i == 1 ? 6 : 3;
    s->in[0] = tdi_sample(i == 2 ? td_dims(4) : td_dims(2, 4), i, 0.1, 1);
    return i < 3;
}

/* ---- rows ---- */

const td_op tdi_op_random_bits = {TD_ROW_random_bits, .flags = TD_OP_PRIM | TD_OP_RNG, .infer = random_bits_infer,
                                  .sample = random_bits_sample};
const td_op tdi_op_rand = {TD_ROW_rand, .flags = TD_OP_RNG, .infer = rand_infer, .decompose = rand_decompose,
                           .sample = rand_sample};
const td_op tdi_op_randn = {TD_ROW_randn, .flags = TD_OP_RNG, .infer = randn_infer, .decompose = randn_decompose,
                            .sample = randn_sample};
const td_op tdi_op_randint = {TD_ROW_randint, .infer = randint_infer, .decompose = randint_decompose,
                              .sample = randint_sample};
const td_op tdi_op_randperm = {TD_ROW_randperm, .infer = randperm_infer, .decompose = randperm_decompose,
                               .sample = randperm_sample};
const td_op tdi_op_bernoulli = {TD_ROW_bernoulli,
                                .flags = TD_OP_RNG | TD_OP_BWD_DIFF,
                                .infer = bernoulli_infer,
                                .backward = tdi_no_gradient,
                                .decompose = bernoulli_decompose,
                                .sample = bernoulli_sample};
const td_op tdi_op_multinomial = {TD_ROW_multinomial, .flags = TD_OP_HOST_SYNC, .infer = multinomial_infer,
                                  .decompose = multinomial_decompose, .sample = multinomial_sample};

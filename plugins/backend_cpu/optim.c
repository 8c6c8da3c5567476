/* optim.c - optimizer steps over lists of parameters, one pass over the memory of each. The formulas are those of the
 * optimizers in plugins/optim, whose step() is the reference; constants are computed in f64 and rounded once.
 * p parameter, g its gradient, the others its state, all of one shape */
#include "strided.h"

/* One step on one element: `body` works on p, g and, if there is state, a, b, c; o is the constants. */
#define STEP(name, T, N, options, body)                                                                          \
    static void name(const st_block *blk)                                                                        \
    {                                                                                                            \
        const options o = *(const options *)blk->ctx;                                                            \
        bool dense = true;                                                                                       \
        for (int k = 0; k < N; k++) dense &= blk->step[k] == (int64_t)sizeof(T);                                 \
        for (int64_t r = 0; r < blk->rows; r++) {                                                                \
            T *q[ST_MAX_OPS];                                                                                    \
            for (int k = 0; k < N; k++) q[k] = (T *)(blk->p[k] + r * blk->row[k]);                               \
            T *const pp = q[0], *const pg = q[1], *const pa = N > 2 ? q[2] : pp;                                 \
            T *const pb = N > 3 ? q[3] : pp, *const pc = N > 4 ? q[4] : pp;                                      \
            if (dense) {                                                                                         \
                _Pragma("omp simd") for (int64_t i = 0; i < blk->n; i++)                                         \
                {                                                                                                \
                    T p = pp[i], g = pg[i], a = N > 2 ? pa[i] : 0, b = N > 3 ? pb[i] : 0, c = N > 4 ? pc[i] : 0; \
                    body pp[i] = p;                                                                              \
                    if (N > 2) pa[i] = a;                                                                        \
                    if (N > 3) pb[i] = b;                                                                        \
                    if (N > 4) pc[i] = c;                                                                        \
                }                                                                                                \
            } else {                                                                                             \
                for (int64_t i = 0; i < blk->n; i++) {                                                           \
                    T *e[5] = {pp, pg, pa, pb, pc};                                                              \
                    for (int k = 0; k < N; k++) e[k] = (T *)((char *)e[k] + i * blk->step[k]);                   \
                    T p = *e[0], g = *e[1], a = N > 2 ? *e[2] : 0, b = N > 3 ? *e[3] : 0, c = N > 4 ? *e[4] : 0; \
                    body *e[0] = p;                                                                              \
                    if (N > 2) *e[2] = a;                                                                        \
                    if (N > 3) *e[3] = b;                                                                        \
                    if (N > 4) *e[4] = c;                                                                        \
                }                                                                                                \
            }                                                                                                    \
        }                                                                                                        \
    }

/* ---- SGD: a is the velocity ---- */

#define SGD(T, suffix)                                                                          \
    typedef struct {                                                                            \
        T sign, decay, lr, momentum, rest; /* rest: 1 - dampening                            */ \
        bool first, nesterov;                                                                   \
    } sgd_##suffix;                                                                             \
    STEP(sgd_plain_##suffix, T, 2, sgd_##suffix, {                                              \
        g = o.sign * g + o.decay * p;                                                           \
        p -= o.lr * g;                                                                          \
    })                                                                                          \
    STEP(sgd_momentum_##suffix, T, 3, sgd_##suffix, {                                           \
        g = o.sign * g + o.decay * p;                                                           \
        a = o.first ? g : o.momentum * a + o.rest * g;                                          \
        p -= o.lr * (o.nesterov ? g + o.momentum * a : a);                                      \
    })
SGD(float, f32)
SGD(double, f64)

/* ---- Adam: a and b are the means of g and of g^2, c the greatest b ---- */

#define ADAM(T, suffix, sqrt_)                                                                         \
    typedef struct {                                                                                   \
        T sign, decay, shrink, rest1, beta2, rest2, root, eps, step; /* root: 1 / sqrt(1 - beta2^t) */ \
    } adam_##suffix;                                                                                   \
    STEP(adam_plain_##suffix, T, 4, adam_##suffix, {                                                   \
        g = o.sign * g + o.decay * p;                                                                  \
        a += o.rest1 * (g - a);                                                                        \
        b = o.beta2 * b + o.rest2 * (g * g);                                                           \
        p = p * o.shrink - o.step * (a / (sqrt_(b) * o.root + o.eps));                                 \
    })                                                                                                 \
    STEP(adam_amsgrad_##suffix, T, 5, adam_##suffix, {                                                 \
        g = o.sign * g + o.decay * p;                                                                  \
        a += o.rest1 * (g - a);                                                                        \
        b = o.beta2 * b + o.rest2 * (g * g);                                                           \
        c = b > c || b != b ? b : c;                                                                   \
        p = p * o.shrink - o.step * (a / (sqrt_(c) * o.root + o.eps));                                 \
    })
ADAM(float, f32, sqrtf)
ADAM(double, f64, sqrt)

/* ---- RMSprop: a is the mean of g^2; the velocity and the mean of g follow, where there are such ---- */

#define RMSPROP(T, suffix, sqrt_)                             \
    typedef struct {                                          \
        T sign, decay, alpha, rest, eps, momentum, lr;        \
    } rmsprop_##suffix;                                       \
    STEP(rmsprop_plain_##suffix, T, 3, rmsprop_##suffix, {    \
        g = o.sign * g + o.decay * p;                         \
        a = o.alpha * a + o.rest * (g * g);                   \
        p -= o.lr * (g / (sqrt_(a) + o.eps));                 \
    })                                                        \
    STEP(rmsprop_momentum_##suffix, T, 4, rmsprop_##suffix, { \
        g = o.sign * g + o.decay * p;                         \
        a = o.alpha * a + o.rest * (g * g);                   \
        b = o.momentum * b + g / (sqrt_(a) + o.eps);          \
        p -= o.lr * b;                                        \
    })                                                        \
    STEP(rmsprop_centered_##suffix, T, 4, rmsprop_##suffix, { \
        g = o.sign * g + o.decay * p;                         \
        a = o.alpha * a + o.rest * (g * g);                   \
        b += o.rest * (g - b);                                \
        p -= o.lr * (g / (sqrt_(a - b * b) + o.eps));         \
    })                                                        \
    STEP(rmsprop_both_##suffix, T, 5, rmsprop_##suffix, {     \
        g = o.sign * g + o.decay * p;                         \
        a = o.alpha * a + o.rest * (g * g);                   \
        c += o.rest * (g - c);                                \
        b = o.momentum * b + g / (sqrt_(a - c * c) + o.eps);  \
        p -= o.lr * b;                                        \
    })
RMSPROP(float, f32, sqrtf)
RMSPROP(double, f64, sqrt)

/* ---- kernels ---- */

/* The last three places: scalars in f64. */
typedef struct {
    double step, lr, decay;
} live;

static live live_of(const td_kargs *k)
{
    const td_view *const *last = k->in + k->n_in - 3;
    return (live){*(const double *)last[0]->p, *(const double *)last[1]->p, *(const double *)last[2]->p};
}

/* All parameters of a call, end to end, as one range of elements. */
typedef struct {
    const td_kargs *k;
    const int *lists;
    int n;
    st_fn *fn;
    const void *options;
} all_of;

static const td_view *operand(const all_of *s, int a, uint32_t i)
{
    return s->k->in[(uint32_t)s->lists[a] * s->k->n_list + i];
}

/* Whether every operand of parameter i lies just as the parameter does, without gaps. */
static bool lies_alike(const all_of *s, uint32_t i)
{
    const td_view *p = operand(s, 0, i);
    bool fits = td_view_dense(p) || st_gapless(p, td_view_numel(p));
    for (int a = 1; fits && a < s->n; a++) {
        const td_view *v = operand(s, a, i);
        fits = v && st_same(p, v);
    }
    return fits;
}

static void step_range(void *ctx, int64_t from, int64_t to)
{
    const all_of *s = ctx;
    int64_t at = 0;
    for (uint32_t i = 0; i < s->k->n_list && at < to; i++) {
        int64_t n = td_view_numel(operand(s, 0, i)), first = from > at ? from - at : 0, end = to - at < n ? to - at : n;
        at += n;
        if (first >= end) continue;
        st_block b = {.n = end - first, .rows = 1, .ctx = s->options};
        for (int a = 0; a < s->n; a++) {
            const td_view *v = operand(s, a, i);
            b.step[a] = (int64_t)td_dtype_size(v->dt);
            b.p[a] = (char *)v->p + first * b.step[a];
        }
        s->fn(&b);
    }
}

/* Runs fn for every parameter, with the lists in the places that `lists` names (0 = p): where all lie dense, with the threads woken
 * once for all of them. */
static bool each(const td_kargs *k, const int *lists, int n, st_fn *fn, const void *options)
{
    all_of all = {k, lists, n, fn, options};
    int64_t total = 0;
    bool dense = true;
    for (uint32_t i = 0; dense && i < k->n_list; i++) {
        dense = lies_alike(&all, i);
        total += dense ? td_view_numel(operand(&all, 0, i)) : 0;
    }
    if (dense) {
        st_share(st_threads(total, ST_MATH), total, step_range, &all);
        return true;
    }
    for (uint32_t i = 0; i < k->n_list; i++) {
        const td_view *v[ST_MAX_OPS];
        for (int a = 0; a < n; a++) v[a] = k->in[(uint32_t)lists[a] * k->n_list + i];
        if (v[0] && v[1]) st_apply(v, n, fn, options, ST_MATH);
    }
    return true;
}

/* Whether list number `list` of k is there for every parameter; optional ones are there or not as a whole. */
static bool present(const td_kargs *k, int list)
{
    for (uint32_t i = 0; i < k->n_list; i++) {
        if (!k->in[(uint32_t)list * k->n_list + i]) return false;
    }
    return true;
}

static bool missing(const char *op, const char *list, const char *option)
{
    return td_fail("%s: expected a tensor of %s for every parameter, as %s is set, got none", op, list, option);
}

#define FILL_FLOATS(type, ...)          \
    const type##_f32 c32 = __VA_ARGS__; \
    const type##_f64 c64 = __VA_ARGS__; \
    const void *c = k->compute == TD_F32 ? (const void *)&c32 : (const void *)&c64;
/* a float constant from an f64 expression, in either struct */
#define PICK(name) (k->compute == TD_F32 ? name##_f32 : name##_f64)

static bool run_sgd_step(const td_kargs *k)
{
    static const int lists[] = {0, 1, 2};
    const td_sgd_step_attr *a = k->attr;
    const live l = live_of(k);
    FILL_FLOATS(sgd, {.sign = a->maximize ? -1 : 1,
                      .decay = l.decay,
                      .lr = l.lr,
                      .momentum = a->momentum,
                      .rest = 1 - a->dampening,
                      .first = l.step <= 1,
                      .nesterov = a->nesterov})
    if (a->momentum == 0) return each(k, lists, 2, PICK(sgd_plain), c);
    if (!present(k, 2)) return missing("sgd_step", "buf", "momentum");
    return each(k, lists, 3, PICK(sgd_momentum), c);
}

static bool run_adam_step(const td_kargs *k)
{
    static const int lists[] = {0, 1, 2, 3, 4};
    const td_adam_step_attr *a = k->attr;
    const live l = live_of(k);
    const double correct1 = 1 - pow(a->beta1, l.step), correct2 = 1 - pow(a->beta2, l.step);
    FILL_FLOATS(adam, {.sign = a->maximize ? -1 : 1,
                       .decay = a->decoupled ? 0 : l.decay,
                       .shrink = a->decoupled ? 1 - l.lr * l.decay : 1,
                       .rest1 = 1 - a->beta1,
                       .beta2 = a->beta2,
                       .rest2 = 1 - a->beta2,
                       .root = 1 / sqrt(correct2),
                       .eps = a->eps,
                       .step = l.lr / correct1})
    if (!a->amsgrad) return each(k, lists, 4, PICK(adam_plain), c);
    if (!present(k, 4)) return missing("adam_step", "vmax", "amsgrad");
    return each(k, lists, 5, PICK(adam_amsgrad), c);
}

static bool run_rmsprop_step(const td_kargs *k)
{
    static const int with_buf[] = {0, 1, 2, 3, 4}, without[] = {0, 1, 2, 4};
    const td_rmsprop_step_attr *a = k->attr;
    const live l = live_of(k);
    FILL_FLOATS(rmsprop, {.sign = a->maximize ? -1 : 1,
                          .decay = l.decay,
                          .alpha = a->alpha,
                          .rest = 1 - a->alpha,
                          .eps = a->eps,
                          .momentum = a->momentum,
                          .lr = l.lr})
    if (a->momentum > 0 && !present(k, 3)) return missing("rmsprop_step", "buf", "momentum");
    if (a->centered && !present(k, 4)) return missing("rmsprop_step", "avg", "centered");
    if (a->momentum > 0 && a->centered) return each(k, with_buf, 5, PICK(rmsprop_both), c);
    if (a->momentum > 0) return each(k, with_buf, 4, PICK(rmsprop_momentum), c);
    if (a->centered) return each(k, without, 4, PICK(rmsprop_centered), c);
    return each(k, with_buf, 3, PICK(rmsprop_plain), c);
}

#define ROW(op) CPU_KERNEL(#op, TD_BITS_FLOAT, TD_K_STRIDED, run_##op)

static const td_kernel rows[] = {ROW(sgd_step), ROW(adam_step), ROW(rmsprop_step)};
CPU_TABLE(optim, rows)

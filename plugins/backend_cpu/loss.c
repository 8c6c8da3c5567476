/* loss.c - softmax_cross_entropy, its gradient, and nll_loss, f32
 *
 * x (N, C, ...) is taken as (n, c, inner), target as (n, inner). With t the target, s the smoothing, w the weights:
 *     loss = -(1 - s) w_t logp_t - s / C sum_c w_c logp_c
 *     gx_j = g (p_j S - q_j w_j),   q_j = (1 - s) [j = t] + s / C,   S = sum_j q_j w_j
 * Both are 0 where t is ignored. Columns of classes are worked off COLUMNS at a time where inner is not 1. */
#include "softmax.h"
#include "strided.h"
#include "vmath.h"

enum { COLUMNS = SOFTMAX_COLUMNS };

typedef struct {
    int64_t n, c, inner;
    const void *target;
    td_dtype dt;
    const float *weight;
    bool has_ignore;
    int64_t ignore;
    float smoothing;
} classes;

static int64_t target_at(const classes *k, int64_t i)
{
    if (k->dt == TD_I64) return ((const int64_t *)k->target)[i];
    if (k->dt == TD_I32) return ((const int32_t *)k->target)[i];
    return ((const uint8_t *)k->target)[i];
}

static bool counts(const classes *k, int64_t t) { return !k->has_ignore || t != k->ignore; }
static float weight_of(const classes *k, int64_t t) { return k->weight ? k->weight[t] : 1.0f; }

static classes read_classes(const td_view *x, const td_view *target, const td_view *weight, bool has_ignore,
                            int64_t ignore, double smoothing)
{
    classes k = {x->dim[0], x->dim[1],       1, target->p, target->dt, weight ? weight->p : NULL, has_ignore,
                 ignore,    (float)smoothing};
    for (int32_t i = 2; i < x->nd; i++) k.inner *= x->dim[i];
    return k;
}

/* Labels in messages are as a Lua user counts: from 1, and what was 0 has arrived as the least integer. */
static bool labels_ok(const char *op, const classes *k)
{
    for (int64_t i = 0; i < k->n * k->inner; i++) {
        int64_t t = target_at(k, i);
        if ((uint64_t)t < (uint64_t)k->c || !counts(k, t)) continue;
        return td_fail("%s: class %lld is outside 1..%lld", op,
                       (long long)(t == INT64_MIN ? 0
                                   : t < 0        ? t
                                                  : t + 1),
                       (long long)k->c);
    }
    return true;
}

/** Loss of one target t, whose log-probabilities are `step` apart. */
static float loss_at(const classes *k, const float *logp, int64_t step, int64_t t)
{
    if (!counts(k, t)) return 0;
    float loss = -weight_of(k, t) * logp[t * step];
    if (k->smoothing > 0) {
        float sum = 0;
        for (int64_t c = 0; c < k->c; c++) sum += weight_of(k, c) * logp[c * step];
        loss = (1 - k->smoothing) * loss - k->smoothing / (float)k->c * sum;
    }
    return loss;
}

static bool run_cross_entropy(const td_kargs *a)
{
    const td_softmax_cross_entropy_attr *o = a->attr;
    classes k = read_classes(a->in[0], a->in[1], a->in[2], o->has_ignore_index, o->ignore_index, o->label_smoothing);
    if (!labels_ok("cross_entropy", &k)) return false;
    const float *x = a->in[0]->p;
    float *loss = a->out[0]->p, *logp = a->out[1]->p;
    int64_t blocks = (k.inner + COLUMNS - 1) / COLUMNS;
#pragma omp parallel for if (k.n * k.c * k.inner > TD_PAR_MIN / 4)
    for (int64_t b = 0; b < k.n * blocks; b++) {
        int64_t row = b / blocks, c0 = b % blocks * COLUMNS, n = k.inner - c0 < COLUMNS ? k.inner - c0 : COLUMNS;
        int64_t at = row * k.c * k.inner + c0;
        if (k.inner == 1) log_softmax_row(logp + at, x + at, k.c);
        else softmax_columns(logp + at, x + at, k.c, k.inner, n, true);
        for (int64_t i = 0; i < n; i++) {
            int64_t p = row * k.inner + c0 + i;
            loss[p] = loss_at(&k, logp + at + i, k.inner, target_at(&k, p));
        }
    }
    return true;
}

/** gx of n columns of one row; gs: g S of each. */
static void gradient_columns(const classes *k, float *gx, const float *logp, const float *g, int64_t first, int64_t n,
                             float all_weights)
{
    float gs[COLUMNS], gq[COLUMNS];
    float share = k->smoothing / (float)k->c;
    for (int64_t i = 0; i < n; i++) {
        int64_t t = target_at(k, first + i);
        bool on = counts(k, t);
        gs[i] = on ? g[i] * ((1 - k->smoothing) * weight_of(k, t) + share * all_weights) : 0;
        gq[i] = on ? g[i] * share : 0;
    }
    for (int64_t c = 0; c < k->c; c++) {
        float w = weight_of(k, c);
#pragma omp simd
        for (int64_t i = 0; i < n; i++) gx[c * k->inner + i] = gs[i] * vm_expf(logp[c * k->inner + i]) - gq[i] * w;
    }
    for (int64_t i = 0; i < n; i++) {
        int64_t t = target_at(k, first + i);
        if (counts(k, t)) gx[t * k->inner + i] -= g[i] * (1 - k->smoothing) * weight_of(k, t);
        else
            for (int64_t c = 0; c < k->c; c++) gx[c * k->inner + i] = 0; /* 0 even where logp is NaN */
    }
}

/** The same for one row of classes that lie side by side. */
static void gradient_row(const classes *k, float *restrict gx, const float *restrict logp, float g, int64_t t,
                         float all_weights)
{
    if (!counts(k, t)) {
        __builtin_memset(gx, 0, (size_t)k->c * sizeof *gx);
        return;
    }
    float share = k->smoothing / (float)k->c, gs = g * ((1 - k->smoothing) * weight_of(k, t) + share * all_weights);
#pragma omp simd
    for (int64_t c = 0; c < k->c; c++) gx[c] = gs * vm_expf(logp[c]);
    for (int64_t c = 0; share > 0 && c < k->c; c++) gx[c] -= g * share * weight_of(k, c);
    gx[t] -= g * (1 - k->smoothing) * weight_of(k, t);
}

static bool run_cross_entropy_backward(const td_kargs *a)
{
    const td_softmax_cross_entropy_backward_attr *o = a->attr;
    classes k = read_classes(a->in[1], a->in[2], a->in[3], o->has_ignore_index, o->ignore_index, o->label_smoothing);
    if (!labels_ok("cross_entropy", &k)) return false;
    const float *g = a->in[0]->p, *logp = a->in[1]->p;
    float *gx = a->out[0]->p, all_weights = 0;
    for (int64_t c = 0; c < k.c; c++) all_weights += weight_of(&k, c);
    int64_t blocks = (k.inner + COLUMNS - 1) / COLUMNS;
#pragma omp parallel for if (k.n * k.c * k.inner > TD_PAR_MIN / 4)
    for (int64_t b = 0; b < k.n * blocks; b++) {
        int64_t row = b / blocks, c0 = b % blocks * COLUMNS, n = k.inner - c0 < COLUMNS ? k.inner - c0 : COLUMNS;
        int64_t at = row * k.c * k.inner + c0, p = row * k.inner + c0;
        if (k.inner == 1) gradient_row(&k, gx + at, logp + at, g[p], target_at(&k, p), all_weights);
        else gradient_columns(&k, gx + at, logp + at, g + p, p, n, all_weights);
    }
    return true;
}

static bool run_nll_loss(const td_kargs *a)
{
    const td_nll_loss_attr *o = a->attr;
    classes k = read_classes(a->in[0], a->in[1], a->in[2], o->has_ignore_index, o->ignore_index, 0);
    if (!labels_ok("nll_loss", &k)) return false;
    const float *logp = a->in[0]->p;
    float *loss = a->out[0]->p;
    for (int64_t i = 0; i < k.n * k.inner; i++)
        loss[i] = loss_at(&k, logp + i / k.inner * k.c * k.inner + i % k.inner, k.inner, target_at(&k, i));
    return true;
}

/* ---- bce_with_logits: c0 is pos_weight - 1 ---- */

VM_INLINE float bce(float x, float t, float extra)
{
    float soft = (x < 0 ? -x : 0) + vm_log1pf(vm_expf(-vm_absf(x))); /* softplus(-x) */
    return x - t * x + (1.0f + extra * t) * soft;
}

/* With pos_weight 1, sigmoid(x) - t. */
VM_INLINE float bce_slope(float x, float t, float extra)
{
    return extra == 0 ? vm_sigmoidf(x) - t : 1.0f - t - (1.0f + extra * t) * vm_sigmoidf(-x);
}

static void bce_block(const st_block *b)
{
    const float extra = *(const float *)b->ctx;
    for (int64_t r = 0; r < b->rows; r++) {
        const char *x = b->p[1] + r * b->row[1], *t = b->p[2] + r * b->row[2];
        char *y = b->p[0] + r * b->row[0];
#pragma omp simd
        for (int64_t i = 0; i < b->n; i++)
            *(float *)(y + i * b->step[0]) =
                bce(*(const float *)(x + i * b->step[1]), *(const float *)(t + i * b->step[2]), extra);
    }
}

static void bce_slope_block(const st_block *b)
{
    const float extra = *(const float *)b->ctx;
    for (int64_t r = 0; r < b->rows; r++) {
        const char *g = b->p[1] + r * b->row[1], *x = b->p[2] + r * b->row[2], *t = b->p[3] + r * b->row[3];
        char *y = b->p[0] + r * b->row[0];
#pragma omp simd
        for (int64_t i = 0; i < b->n; i++)
            *(float *)(y + i * b->step[0]) =
                *(const float *)(g + i * b->step[1]) *
                bce_slope(*(const float *)(x + i * b->step[2]), *(const float *)(t + i * b->step[3]), extra);
    }
}

static bool run_bce_with_logits(const td_kargs *k)
{
    const float extra = (float)(((const td_bce_with_logits_attr *)k->attr)->pos_weight - 1);
    const td_view *v[] = {k->out[0], k->in[0], k->in[1]};
    st_apply(v, 3, bce_block, &extra, 2 * ST_MATH);
    return true;
}

static bool run_bce_with_logits_backward(const td_kargs *k)
{
    const float extra = (float)(((const td_bce_with_logits_backward_attr *)k->attr)->pos_weight - 1);
    const td_view *v[] = {k->out[0], k->in[0], k->in[1], k->in[2]};
    st_apply(v, 4, bce_slope_block, &extra, ST_MATH);
    return true;
}

static const td_kernel rows[] = {
    CPU_KERNEL("softmax_cross_entropy", TD_BIT(TD_F32), 0, run_cross_entropy),
    CPU_KERNEL("softmax_cross_entropy_backward", TD_BIT(TD_F32), 0, run_cross_entropy_backward),
    CPU_KERNEL("nll_loss", TD_BIT(TD_F32), 0, run_nll_loss),
    CPU_KERNEL("bce_with_logits", TD_BIT(TD_F32), TD_K_STRIDED | TD_K_ALIAS_OK, run_bce_with_logits),
    CPU_KERNEL("bce_with_logits_backward", TD_BIT(TD_F32), TD_K_STRIDED | TD_K_ALIAS_OK, run_bce_with_logits_backward),
};
CPU_TABLE(loss, rows)

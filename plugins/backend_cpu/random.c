/* random.c - random words and what is made of them. Element i is made of word i % 4 of Philox4x32-10 with counter
 * offset + i / 4 (Salmon et al., Parallel random numbers: as easy as 1, 2, 3, SC 2011); core/ops/random.c has the
 * definitions.
 *
 * Results are equal to the last bit on every machine and for every number of threads: this file is compiled without
 * contraction of a * b + c, uses the logarithm, sine and cosine of vmath.h, and otherwise only operations that IEEE 754
 * rounds correctly. */
#include "strided.h"
#include "vmath.h"

enum { LANES = 16, PIECE = 1024 }; /* counters at once; words at once, a multiple of 4 LANES */

/* The words of LANES counters from `counter` on. */
static void philox(uint32_t *w, uint64_t key, uint64_t counter)
{
#pragma omp simd
    for (int l = 0; l < LANES; l++) {
        uint64_t at = counter + (uint64_t)l;
        uint32_t c0 = (uint32_t)at, c1 = (uint32_t)(at >> 32), c2 = 0, c3 = 0;
        uint32_t k0 = (uint32_t)key, k1 = (uint32_t)(key >> 32);
#pragma GCC unroll 10
        for (int round = 0; round < 10; round++) {
            uint64_t a = (uint64_t)0xD2511F53u * c0, b = (uint64_t)0xCD9E8D57u * c2;
            c0 = (uint32_t)(b >> 32) ^ c1 ^ k0;
            c2 = (uint32_t)(a >> 32) ^ c3 ^ k1;
            c1 = (uint32_t)b;
            c3 = (uint32_t)a;
            k0 += 0x9E3779B9u;
            k1 += 0xBB67AE85u;
        }
        w[4 * l] = c0;
        w[4 * l + 1] = c1;
        w[4 * l + 2] = c2;
        w[4 * l + 3] = c3;
    }
}

/** Elements from .. from + n - 1 of the result, of which w[0] is the first word; from is a multiple of PIECE. */
typedef void draw_fn(const td_kargs *k, const uint32_t *w, int64_t from, int64_t n, void *ctx);

typedef struct {
    const td_kargs *k;
    draw_fn *fn;
    void *ctx;
    int64_t n;
} drawing;

static void draw_pieces(void *ctx, int64_t p, int64_t end)
{
    const drawing *d = ctx;
    const uint64_t key = d->k->rng.seed_offset[0], counter = d->k->rng.seed_offset[1] + d->k->rng.add;
    uint32_t w[PIECE];
    for (; p < end; p++) {
        int64_t from = p * PIECE, m = d->n - from < PIECE ? d->n - from : PIECE;
        for (int64_t i = 0; i < m; i += 4 * LANES) philox(w + i, key, counter + (uint64_t)(from + i) / 4);
        d->fn(d->k, w, from, m, d->ctx);
    }
}

static bool draw(const td_kargs *k, draw_fn *fn, void *ctx)
{
    drawing d = {k, fn, ctx, td_view_numel(k->out[0])};
    st_share(st_threads(d.n, 2 * ST_MATH), (d.n + PIECE - 1) / PIECE, draw_pieces, &d);
    return true;
}

static void draw_bits(const td_kargs *k, const uint32_t *w, int64_t from, int64_t n, void *ctx)
{
    int64_t *y = (int64_t *)k->out[0]->p + from;
    (void)ctx;
    for (int64_t i = 0; i < n; i++) y[i] = w[i];
}

static void draw_uniform(const td_kargs *k, const uint32_t *w, int64_t from, int64_t n, void *ctx)
{
    float *y = (float *)k->out[0]->p + from;
    (void)ctx;
    for (int64_t i = 0; i < n; i++) y[i] = (float)(int32_t)(w[i] >> 8) * 0x1p-24f;
}

/* Box & Muller 1958. 2 pi u2 = q pi/2 + r with r exact before its one rounding: u2 has 24 bits. */
VM_INLINE void pair(const uint32_t *w, float *even, float *odd)
{
    const float unit = 3.74507038e-7f; /* 2 pi 2^-24 */
    float radius = sqrtf(-2.0f * vm_logf((float)(int32_t)((w[0] >> 8) + 1) * 0x1p-24f)), s, c;
    uint32_t u2 = w[1] >> 8, q = (u2 + (1u << 21)) >> 22;
    vm_sincos_small((float)((int32_t)u2 - (int32_t)(q << 22)) * unit, &s, &c);
    float x = q & 1u ? s : c, y = q & 1u ? c : s;
    *even = radius * vm_float(vm_bits(x) ^ ((q + 1u) & 2u) << 30);
    *odd = radius * vm_float(vm_bits(y) ^ (q & 2u) << 30);
}

static void draw_normal(const td_kargs *k, const uint32_t *w, int64_t from, int64_t n, void *ctx)
{
    float *y = (float *)k->out[0]->p + from, last;
    (void)ctx;
#pragma omp simd
    for (int64_t i = 0; i < n / 2; i++) pair(w + 2 * i, y + 2 * i, y + 2 * i + 1);
    if (n % 2) pair(w + n - 1, y + n - 1, &last);
}

#define DRAW_BERNOULLI(name, T)                                                                \
    static void name(const td_kargs *k, const uint32_t *w, int64_t from, int64_t n, void *ctx) \
    {                                                                                          \
        const T *p = (const T *)k->in[0]->p + from;                                            \
        T *y = (T *)k->out[0]->p + from;                                                       \
        int outside = 0;                                                                       \
        for (int64_t i = 0; i < n; i++) {                                                      \
            outside |= !(p[i] >= 0 && p[i] <= 1);                                              \
            y[i] = (double)w[i] < (double)p[i] * 0x1p32 ? 1 : 0;                               \
        }                                                                                      \
        if (outside) __atomic_store_n((int *)ctx, 1, __ATOMIC_RELAXED);                        \
    }
DRAW_BERNOULLI(draw_bernoulli_f32, float)
DRAW_BERNOULLI(draw_bernoulli_f64, double)

typedef struct {
    uint64_t least; /* words from here on keep their element */
    double scale;
} keeping;

#define DRAW_DROPOUT(name, T)                                                                  \
    static void name(const td_kargs *k, const uint32_t *w, int64_t from, int64_t n, void *ctx) \
    {                                                                                          \
        const keeping *d = ctx;                                                                \
        const T *x = (const T *)k->in[0]->p + from, scale = (T)d->scale;                       \
        T *y = (T *)k->out[0]->p + from;                                                       \
        uint8_t *mask = (uint8_t *)k->out[1]->p + from;                                        \
        const uint32_t least = (uint32_t)d->least, none = d->least > UINT32_MAX;               \
        for (int64_t i = 0; i < n; i++) mask[i] = w[i] >= least && !none;                      \
        for (int64_t i = 0; i < n; i++) y[i] = w[i] >= least && !none ? x[i] * scale : 0;      \
    }
DRAW_DROPOUT(draw_dropout_f32, float)
DRAW_DROPOUT(draw_dropout_f64, double)

/* ---- kernels ---- */

static bool run_random_bits(const td_kargs *k) { return draw(k, draw_bits, NULL); }
static bool run_rand(const td_kargs *k) { return draw(k, draw_uniform, NULL); }
static bool run_randn(const td_kargs *k) { return draw(k, draw_normal, NULL); }

static bool run_bernoulli(const td_kargs *k)
{
    int outside = 0;
    draw(k, k->compute == TD_F32 ? draw_bernoulli_f32 : draw_bernoulli_f64, &outside);
    return !outside || td_fail("bernoulli: expected probabilities from 0 to 1, got one outside");
}

static bool run_dropout(const td_kargs *k)
{
    const double p = ((const td_dropout_attr *)k->attr)->p;
    if (!(p >= 0 && p <= 1)) return td_fail("dropout: p: expected a number from 0 to 1, got %g", p);
    keeping d = {(uint64_t)(p * 0x1p32), p < 1 ? 1 / (1 - p) : 0};
    return draw(k, k->compute == TD_F32 ? draw_dropout_f32 : draw_dropout_f64, &d);
}

#define AGAIN_DROPOUT(T)                                                                       \
    {                                                                                          \
        const T *x = k->in[0]->p, scale = (T)(p < 1 ? 1 / (1 - p) : 0);                        \
        T *y = k->out[0]->p;                                                                   \
        _Pragma("omp parallel for if (n > TD_PAR_MIN)") for (int64_t i = 0; i < n; i++) y[i] = \
            mask[i] ? x[i] * scale : 0;                                                        \
    }

/** y once more, from x and the mask. */
static bool again_dropout(const td_kargs *k)
{
    const double p = ((const td_dropout_attr *)k->attr)->p;
    const int64_t n = td_view_numel(k->out[0]);
    const uint8_t *mask = k->out[1]->p;
    if (k->compute == TD_F32) AGAIN_DROPOUT(float)
    else AGAIN_DROPOUT(double)
    return true;
}

static int64_t again_dropout_reads(const td_kargs *k)
{
    (void)k;
    return 1;
}

static const td_kernel rows[] = {
    CPU_KERNEL("random_bits", TD_BIT(TD_I64), 0, run_random_bits),
    CPU_KERNEL("rand", TD_BIT(TD_F32), 0, run_rand),
    CPU_KERNEL("randn", TD_BIT(TD_F32), 0, run_randn),
    CPU_KERNEL("bernoulli", TD_BITS_FLOAT, 0, run_bernoulli),
    CPU_KERNEL("dropout", TD_BITS_FLOAT, 0, run_dropout, .again = again_dropout, .again_reads = again_dropout_reads),
};
CPU_TABLE(random, rows)

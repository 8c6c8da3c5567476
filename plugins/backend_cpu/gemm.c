/* gemm.c - f32 matrix products with bias and activation, on this backend's own micro kernel: MR rows of C by NV vectors stay in
 * registers over a whole block of the sum (Goto and van de Geijn 2008, "Anatomy of high-performance matrix multiplication").
 *
 * B is packed in panels of NR columns, zeros at the right edge, or read where it lies when its rows are contiguous and each
 * is used few times. A is read where it lies when its rows are contiguous and packed when its columns are. Where B is the
 * longer one of the two to pack and both are read along k (a linear layer's forward with few rows), C^T = B^T A^T is computed.
 *
 *     A (m, k)   B (k, n)   C (m, n)                                                                                      */
#include "gemm.h"
#include "vec.h"
#include "vmath.h"
#include <pthread.h>
#include <stdlib.h>

#if defined __AVX512F__
enum { MR = 12 };
#else
enum { MR = 6 };
#endif
enum { NV = 2, LANES = VEC_F32, NR = NV * LANES };

/* Measured (Zen 3, AVX2). KC: length of a block of the sum, so that a panel of B and MR rows of A lie in L1. NC x KC numbers of B
 * and MC x KC of A lie in L2. FEW_ROWS: up to so many rows of C a contiguous B is not packed. PER_THREAD: m n k that are worth
 * a thread. */
enum { KC = 320, NC = 192, MC = 96, FEW_ROWS = 24, PER_THREAD = 1 << 18 };

typedef struct {
    float a[MC * KC], b[NC * KC];
} scratch;

/* ---- the micro kernel ---- */

/* acc = sum over k of a's column times b's row. down: elements of a's columns are contiguous, else those of its rows. */
VEC_INLINE void sums(const int mr, const int nv, const bool down, vec_f32 (*acc)[NV], int64_t k, const float *a,
                     int64_t lda, const float *b, int64_t ldb)
{
    for (int64_t p = 0; p < k; p++) {
        vec_f32 w[NV];
#pragma GCC unroll 4
        for (int v = 0; v < nv; v++) w[v] = *(const vec_f32 *)(b + p * ldb + v * LANES);
#pragma GCC unroll 16
        for (int r = 0; r < mr; r++) {
            float s = down ? a[p * lda + r] : a[r * lda + p];
#pragma GCC unroll 4
            for (int v = 0; v < nv; v++) acc[r][v] += s * w[v];
        }
    }
}

/* One tile of C: where it is and how it is stored. */
typedef struct {
    float *c;
    int64_t crs, ccs;
    int w;             /* columns                                                    */
    const float *bias; /* first block of the sum: of the tile's columns, or NULL     */
    const float *down; /* the same, of its rows                                      */
    bool first;        /* C does not hold the sum of an earlier block                */
} tile;

VEC_INLINE void micro(const int mr, const int nv, const bool down, int64_t k, const float *a, int64_t lda,
                      const float *b, int64_t ldb, const tile *t)
{
    vec_f32 acc[MR][NV];
    const bool straight = t->ccs == 1 && t->w == nv * LANES;
    float part[MR][NR];
#pragma GCC unroll 16
    for (int r = 0; r < mr; r++) {
        __builtin_prefetch(t->c + r * t->crs, 1);
#pragma GCC unroll 4
        for (int v = 0; v < nv; v++) acc[r][v] = (vec_f32){0};
    }
    sums(mr, nv, down, acc, k, a, lda, b, ldb);
    if (t->first && t->bias) {
#pragma GCC unroll 4
        for (int v = 0; v < nv; v++) {
            vec_f32 s = *(const vec_f32 *)(t->bias + v * LANES);
#pragma GCC unroll 16
            for (int r = 0; r < mr; r++) acc[r][v] += s;
        }
    }
    if (t->first && t->down) {
#pragma GCC unroll 16
        for (int r = 0; r < mr; r++)
#pragma GCC unroll 4
            for (int v = 0; v < nv; v++) acc[r][v] += t->down[r];
    }
    if (straight) {
#pragma GCC unroll 16
        for (int r = 0; r < mr; r++) {
            float *to = t->c + r * t->crs;
#pragma GCC unroll 4
            for (int v = 0; v < nv; v++) {
                vec_f32 *at = (vec_f32 *)(to + v * LANES);
                if (!t->first) acc[r][v] += *at;
                *at = acc[r][v];
            }
        }
        return;
    }
#pragma GCC unroll 16
    for (int r = 0; r < mr; r++)
#pragma GCC unroll 4
        for (int v = 0; v < nv; v++) *(vec_f32 *)(part[r] + v * LANES) = acc[r][v];
    for (int j = 0; j < nv * LANES && j < t->w; j++)
        for (int r = 0; r < mr; r++) {
            float *to = t->c + r * t->crs + j * t->ccs;
            *to = t->first ? part[r][j] : *to + part[r][j];
        }
}

typedef void micro_fn(int64_t k, const float *a, int64_t lda, const float *b, int64_t ldb, const tile *);
#define MICRO(mr, nv)                                                                                                 \
    static void down_##mr##_##nv(int64_t k, const float *a, int64_t lda, const float *b, int64_t ldb, const tile *t)  \
    {                                                                                                                 \
        micro(mr, nv, true, k, a, lda, b, ldb, t);                                                                    \
    }                                                                                                                 \
    static void along_##mr##_##nv(int64_t k, const float *a, int64_t lda, const float *b, int64_t ldb, const tile *t) \
    {                                                                                                                 \
        micro(mr, nv, false, k, a, lda, b, ldb, t);                                                                   \
    }
#define SIZES_6(X, nv) X(1, nv) X(2, nv) X(3, nv) X(4, nv) X(5, nv) X(6, nv)
#if defined __AVX512F__
#define SIZES(X, nv) SIZES_6(X, nv) X(7, nv) X(8, nv) X(9, nv) X(10, nv) X(11, nv) X(12, nv)
#else
#define SIZES(X, nv) SIZES_6(X, nv)
#endif
SIZES(MICRO, 1)
SIZES(MICRO, 2)
#define PLACE_DOWN(mr, nv) down_##mr##_##nv,
#define PLACE_ALONG(mr, nv) along_##mr##_##nv,
static micro_fn *const micros[2][NV][MR] = {{{SIZES(PLACE_ALONG, 1)}, {SIZES(PLACE_ALONG, 2)}},
                                            {{SIZES(PLACE_DOWN, 1)}, {SIZES(PLACE_DOWN, 2)}}};

/* ---- packing ---- */

typedef float vec_4 __attribute__((vector_size(16), aligned(4), may_alias));
typedef int32_t vec_4i __attribute__((vector_size(16)));

/* Four rows of four numbers, turned. */
VEC_INLINE void turn_4(const float *from, int64_t ld, float *to, int64_t to_ld)
{
    vec_4 a = *(const vec_4 *)from, b = *(const vec_4 *)(from + ld), c = *(const vec_4 *)(from + 2 * ld),
          d = *(const vec_4 *)(from + 3 * ld);
    vec_4 ab = __builtin_shuffle(a, b, (vec_4i){0, 4, 1, 5}), cd = __builtin_shuffle(c, d, (vec_4i){0, 4, 1, 5});
    vec_4 ab2 = __builtin_shuffle(a, b, (vec_4i){2, 6, 3, 7}), cd2 = __builtin_shuffle(c, d, (vec_4i){2, 6, 3, 7});
    *(vec_4 *)to = __builtin_shuffle(ab, cd, (vec_4i){0, 1, 4, 5});
    *(vec_4 *)(to + to_ld) = __builtin_shuffle(ab, cd, (vec_4i){2, 3, 6, 7});
    *(vec_4 *)(to + 2 * to_ld) = __builtin_shuffle(ab2, cd2, (vec_4i){0, 1, 4, 5});
    *(vec_4 *)(to + 3 * to_ld) = __builtin_shuffle(ab2, cd2, (vec_4i){2, 3, 6, 7});
}

/* A panel of w <= width vectors of length k, as k rows of `width` numbers; x[j xs + p ps] is number p of vector j. */
VEC_INLINE void pack_panel(const int width, float *to, const float *x, int64_t xs, int64_t ps, int64_t w, int64_t k)
{
    int64_t p = 0;
    if (w == width && ps == 1)
        for (; p + 4 <= k; p += 4) {
            for (int j = 0; j + 4 <= width; j += 4) turn_4(x + j * xs + p, xs, to + p * width + j, width);
            for (int j = width & ~3; j < width; j++)
                for (int q = 0; q < 4; q++) to[(p + q) * width + j] = x[j * xs + p + q];
        }
    for (; p < k; p++)
        for (int j = 0; j < width; j++) to[p * width + j] = j < w ? x[j * xs + p * ps] : 0;
}

/* n vectors in panels. Where number p of all vectors lies in a row, row by row, so that memory is read in order. */
VEC_INLINE void pack(const int width, float *to, const float *x, int64_t xs, int64_t ps, int64_t n, int64_t k)
{
    int64_t whole = xs == 1 ? n / width * width : 0;
    for (int64_t p = 0; whole && p < k; p++)
        for (int64_t j = 0; j < whole; j += width)
            __builtin_memcpy(to + j * k + p * width, x + p * ps + j, (size_t)width * sizeof *to);
    for (int64_t j = whole; j < n; j += width)
        pack_panel(width, to + j * k, x + j * xs, xs, ps, n - j < width ? n - j : width, k);
}
static void pack_b(float *to, const float *b, int64_t bcs, int64_t brs, int64_t n, int64_t k)
{
    pack(NR, to, b, bcs, brs, n, k);
}
static void pack_a(float *to, const float *a, int64_t ars, int64_t acs, int64_t m, int64_t k)
{
    pack(MR, to, a, ars, acs, m, k);
}

/* ---- activations ---- */

#define ROW_OF(expr)                                        \
    {                                                       \
        _Pragma("omp simd") for (int64_t j = 0; j < n; j++) \
        {                                                   \
            const float x = y[j];                           \
            y[j] = (expr);                                  \
        }                                                   \
        return;                                             \
    }

void ISA(cpu_act_row)(gemm_act act, float *y, int64_t n)
{
    switch (act) {
    case GEMM_RELU: ROW_OF(x < 0 ? 0 : x)
    case GEMM_TANH: ROW_OF(vm_tanhf(x))
    case GEMM_SIGMOID: ROW_OF(vm_sigmoidf(x))
    case GEMM_GELU: ROW_OF(0.5f * x * (1.0f + vm_erff(x * 0.707106781f)))
    case GEMM_GELU_TANH: ROW_OF(0.5f * x * (1.0f + vm_tanhf(0.797884561f * (x + 0.044715f * x * x * x))))
    default: return;
    }
}

/* Bias and sums are in these rows and columns of C; where C has an activation its rows are contiguous. */
static void finish(const sgemm_args *g, int64_t i, int64_t m, int64_t j, int64_t n)
{
    if (g->act == GEMM_AS_IS) return;
    for (int64_t r = i; r < i + m; r++) {
        float *y = g->c + r * g->crs + j;
        if (g->pre) __builtin_memcpy(g->pre + r * g->crs + j, y, (size_t)n * sizeof *y);
        ISA(cpu_act_row)(g->act, y, n);
    }
}

/* ---- one thread ---- */

static int64_t even_parts(int64_t whole, int64_t most, int64_t step)
{
    int64_t parts = (whole + most - 1) / most, piece = parts ? (whole + parts - 1) / parts : whole;
    return (piece + step - 1) / step * step;
}

typedef struct {
    const sgemm_args *g;
    const float *row_bias; /* of a turned product */
    scratch *s;
    int64_t kc;
    bool direct; /* B is read where it lies */
} walk;

/* Rows i .. i + m by columns j .. j + n of C, summed over p .. p + k. */
static void block(const walk *w, int64_t i, int64_t m, int64_t j, int64_t n, int64_t p, int64_t k)
{
    const sgemm_args *g = w->g;
    const float *a = g->a + i * g->ars + p * g->acs;
    const bool down = g->acs != 1;
    if (down) pack_a(w->s->a, a, g->ars, g->acs, m, k);
    tile t = {.crs = g->crs, .ccs = g->ccs, .first = p == 0};
    float edge[NR] = {0};
    for (int64_t c = 0; c < n; c += NR) {
        t.w = n - c < NR ? (int)(n - c) : NR;
        int nv = t.w <= LANES ? 1 : 2;
        const float *b = w->s->b + c * k;
        int64_t ldb = NR;
        if (w->direct && t.w == nv * LANES) {
            b = g->b + p * g->brs + (j + c);
            ldb = g->brs;
        } else if (w->direct) {
            pack_panel(NR, w->s->b, g->b + p * g->brs + (j + c), 1, g->brs, t.w, k);
            b = w->s->b;
        }
        t.bias = g->bias ? g->bias + j + c : NULL;
        if (t.bias && t.w < NR) {
            for (int q = 0; q < t.w; q++) edge[q] = t.bias[q];
            t.bias = edge;
        }
        for (int64_t r = 0; r < m; r += MR) {
            int mr = m - r < MR ? (int)(m - r) : MR;
            t.c = g->c + (i + r) * g->crs + (j + c) * g->ccs;
            t.down = w->row_bias ? w->row_bias + i + r : NULL;
            if (down) micros[1][nv - 1][mr - 1](k, w->s->a + r * k, MR, b, ldb, &t);
            else micros[0][nv - 1][mr - 1](k, a + r * g->ars, g->ars, b, ldb, &t);
        }
    }
}

static void product(const sgemm_args *g, const float *row_bias, scratch *s)
{
    walk w = {g, row_bias, s, even_parts(g->k, KC, 8), g->bcs == 1 && g->m <= FEW_ROWS};
    if (g->k == 0) w.kc = 1;
    int64_t nc = even_parts(g->n, NC, NR), mc = even_parts(g->m, MC, MR);
    for (int64_t j = 0; j < g->n; j += nc) {
        int64_t n = g->n - j < nc ? g->n - j : nc;
        for (int64_t p = 0; p == 0 || p < g->k; p += w.kc) {
            int64_t k = g->k - p < w.kc ? g->k - p : w.kc;
            if (!w.direct) pack_b(s->b, g->b + p * g->brs + j * g->bcs, g->bcs, g->brs, n, k);
            for (int64_t i = 0; i < g->m; i += mc) {
                int64_t m = g->m - i < mc ? g->m - i : mc;
                block(&w, i, m, j, n, p, k);
                if (p + w.kc >= g->k && g->ccs == 1 && !row_bias) finish(g, i, m, j, n);
            }
        }
    }
}

/* C^T = B^T A^T: where C's columns are contiguous; and where both are read along k and B is the longer one to pack. */
static bool better_turned(const sgemm_args *g)
{
    if (g->ccs != 1) return g->crs == 1;
    return g->acs == 1 && g->brs == 1 && g->bcs != 1 && g->k >= 128 && g->m < g->n;
}

/* One a thread, which goes when the thread ends. */
static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_key_t key;
static bool have_key;
static void make_key(void) { have_key = pthread_key_create(&key, free) == 0; }

static scratch *own_scratch(void)
{
    pthread_once(&once, make_key);
    scratch *s = have_key ? pthread_getspecific(key) : NULL;
    if (s || !have_key || !(s = malloc(sizeof *s))) return s;
    if (pthread_setspecific(key, s) == 0) return s;
    free(s);
    return NULL;
}

bool ISA(cpu_sgemm_here)(const sgemm_args *g)
{
    scratch *s = own_scratch();
    if (!s) return false;
    if (better_turned(g)) {
        sgemm_args t = {.m = g->n,
                        .n = g->m,
                        .k = g->k,
                        .a = g->b,
                        .b = g->a,
                        .c = g->c,
                        .ars = g->bcs,
                        .acs = g->brs,
                        .brs = g->acs,
                        .bcs = g->ars,
                        .crs = g->ccs,
                        .ccs = g->crs};
        product(&t, g->bias, s);
        finish(g, 0, g->m, 0, g->n);
    } else {
        product(g, NULL, s);
        if (g->ccs != 1) finish(g, 0, g->m, 0, g->n);
    }
    return true;
}

/* ---- several threads: a grid of blocks of C, each a product of its own ---- */

/* Rows of the grid: each block packs its rows of A and its columns of B, so their sum should be small. */
static int grid_rows(const sgemm_args *g, int threads)
{
    int best = 1;
    double least = INFINITY;
    for (int rows = 1; rows <= threads; rows++) {
        double h = (double)g->m / rows, w = (double)g->n / (threads / rows);
        if (threads % rows || (rows > 1 && h < MR) || h + w >= least) continue;
        least = h + w;
        best = rows;
    }
    return best;
}

/* Start of part i of n parts of an extent, on a multiple of step. */
static int64_t part_start(int64_t extent, int i, int n, int64_t step)
{
    int64_t piece = ((extent + n - 1) / n + step - 1) / step * step;
    return i * piece < extent ? i * piece : extent;
}

static bool part(const sgemm_args *g, int t, int threads)
{
    int rows = grid_rows(g, threads), columns = threads / rows;
    int64_t i = part_start(g->m, t / columns, rows, 16), j = part_start(g->n, t % columns, columns, NR);
    sgemm_args q = *g;
    q.m = part_start(g->m, t / columns + 1, rows, 16) - i;
    q.n = part_start(g->n, t % columns + 1, columns, NR) - j;
    if (q.m <= 0 || q.n <= 0) return true;
    q.a += i * g->ars;
    q.b += j * g->bcs;
    q.c += i * g->crs + j * g->ccs;
    if (q.pre) q.pre += i * g->crs + j * g->ccs;
    if (q.bias) q.bias += j;
    return ISA(cpu_sgemm_here)(&q);
}

bool ISA(cpu_sgemm)(const sgemm_args *g, int n)
{
    double work = 0;
    int failed = 0;
    for (int i = 0; i < n; i++) work += (double)g[i].m * (double)g[i].n * (double)g[i].k;
    int threads = work < 2 * PER_THREAD ? 1 : cpu_threads();
    if (threads > 1 && threads > work / PER_THREAD) threads = (int)(work / PER_THREAD);
    if (threads == 1) {
        for (int i = 0; i < n; i++) failed |= !ISA(cpu_sgemm_here)(&g[i]);
    } else {
#pragma omp parallel for num_threads(threads) schedule(static) reduction(| : failed)
        for (int t = 0; t < threads; t++)
            for (int i = 0; i < n; i++) failed |= !part(&g[i], t, threads);
    }
    return !failed || td_fail_as(TD_ENOMEM, "matmul: out of memory");
}

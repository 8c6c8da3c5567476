/* matmul.c - matrix products: matmul with broadcast batch axes, bmm, and linear, which adds a bias. f32 goes to gemm.c; f64, products
 * with a vector, and on processors without AVX2 all large products to OpenBLAS (blas.c), transposed operands as they lie; tiny
 * products and odd strides of f64 to small_gemm.h; integers, which wrap around, to a plain loop.    A (M, K)   B (K, N)   C (M, N) */
#include "gemm.h"
#include "strided.h"
#include "vec.h"

/* Strides in elements; any operand may be transposed or spaced out. */
typedef struct {
    int64_t m, n, k;
    const void *a, *b, *bias; /* bias: NULL, or a row that is added to each row of C */
    void *c;
    int64_t ars, acs, brs, bcs, crs, ccs, bias_step;
} gemm_args;

/* Measured: TINY is the greatest m n k for small_gemm, where it and OpenBLAS take the same time; with one row or one
 * column BLAS wins from TINY_VECTOR on, and up to there plain dot products do. DEEP: rows of a panel. SHARE: m n k
 * that are worth a thread; products of a batch that have WHOLE each get all threads one after the other. MOST_THREADS:
 * OpenBLAS has memory for so many calls at once. */
enum { TINY = 1024, TINY_VECTOR = 64, DEEP = 128, SHARE = 1 << 18, WHOLE = 1 << 23, MOST_THREADS = 64 };

/* Threads for so many products a b + c. */
static int threads_for(double mnk)
{
    if (mnk < 2 * SHARE) return 1;
    int threads = cpu_threads();
    if (threads > MOST_THREADS) threads = MOST_THREADS;
    return threads < mnk / SHARE ? threads : (int)(mnk / SHARE);
}

/* Products of up to 8 columns take short vectors, the others those of the instruction set. */
typedef float short_f32 __attribute__((vector_size(16), aligned(4), may_alias));
typedef double short_f64 __attribute__((vector_size(32), aligned(8), may_alias));
enum { SHORT = 4 };

#define REAL float
#define VEC vec_f32
#define LANES VEC_F32
#define G(name) name##_f32
#include "small_gemm.h"
#undef VEC
#undef LANES
#undef G
#define VEC short_f32
#define LANES SHORT
#define G(name) name##_short_f32
#include "small_gemm.h"
#undef REAL
#undef VEC
#undef LANES
#undef G
#define REAL double
#define VEC vec_f64
#define LANES VEC_F64
#define G(name) name##_f64
#include "small_gemm.h"
#undef VEC
#undef LANES
#undef G
#define VEC short_f64
#define LANES SHORT
#define G(name) name##_short_f64
#include "small_gemm.h"
#undef REAL
#undef VEC
#undef LANES
#undef G

/* ---- a few dot products, and integers ---- */

#define DOTS(name, T)                                                                         \
    static void name(const gemm_args *g)                                                      \
    {                                                                                         \
        const T *bias = g->bias;                                                              \
        for (int64_t i = 0; i < g->m; i++) {                                                  \
            for (int64_t j = 0; j < g->n; j++) {                                              \
                const T *a = (const T *)g->a + i * g->ars, *b = (const T *)g->b + j * g->bcs; \
                T s = bias ? bias[j * g->bias_step] : 0;                                      \
                for (int64_t p = 0; p < g->k; p++) s += a[p * g->acs] * b[p * g->brs];        \
                ((T *)g->c)[i * g->crs + j * g->ccs] = s;                                     \
            }                                                                                 \
        }                                                                                     \
    }
DOTS(dots_f32, float)
DOTS(dots_f64, double)

#define INT_GEMM(name, T, U)                                                                                     \
    static void name(const gemm_args *g)                                                                         \
    {                                                                                                            \
        for (int64_t i = 0; i < g->m; i++) {                                                                     \
            const T *a = (const T *)g->a + i * g->ars, *bias = g->bias;                                          \
            T *c = (T *)g->c + i * g->crs;                                                                       \
            for (int64_t j = 0; j < g->n; j++) c[j * g->ccs] = bias ? bias[j * g->bias_step] : 0;                \
            for (int64_t p = 0; p < g->k; p++) {                                                                 \
                const U s = (U)a[p * g->acs];                                                                    \
                const T *b = (const T *)g->b + p * g->brs;                                                       \
                for (int64_t j = 0; j < g->n; j++) c[j * g->ccs] = (T)((U)c[j * g->ccs] + s * (U)b[j * g->bcs]); \
            }                                                                                                    \
        }                                                                                                        \
    }
INT_GEMM(gemm_i64, int64_t, uint64_t)
INT_GEMM(gemm_i32, int32_t, uint32_t)
INT_GEMM(gemm_u8, uint8_t, uint32_t)

/* ---- one product ---- */

static void gemm_strided(td_dtype dt, const gemm_args *g)
{
    bool narrow = g->n <= 2 * SHORT;
    switch (dt) {
    case TD_F32: (narrow ? small_gemm_short_f32 : small_gemm_f32)(g); break;
    case TD_F64: (narrow ? small_gemm_short_f64 : small_gemm_f64)(g); break;
    case TD_I64: gemm_i64(g); break;
    case TD_I32: gemm_i32(g); break;
    default: gemm_u8(g); break;
    }
}

typedef struct {
    td_dtype dt;
    const gemm_args *g;
} rows_task;

static void gemm_rows(void *ctx, int64_t from, int64_t to)
{
    const rows_task *t = ctx;
    const int64_t size = (int64_t)td_dtype_size(t->dt);
    gemm_args part = *t->g;
    part.m = to - from;
    part.a = (const char *)part.a + from * part.ars * size;
    part.c = (char *)part.c + from * part.crs * size;
    if (part.m > 0) gemm_strided(t->dt, &part);
}

/* The same by rows of C on several threads. */
static void gemm_strided_shared(td_dtype dt, const gemm_args *g)
{
    rows_task t = {dt, g};
    st_share(threads_for((double)g->m * (double)g->n * (double)g->k), g->m, gemm_rows, &t);
}

/* How BLAS would read a matrix of r rows and c columns: as it lies, or transposed; false if neither. */
static bool readable(int64_t r, int64_t c, int64_t rs, int64_t cs, bool *t, int64_t *ld)
{
    if ((cs == 1 || c == 1) && (rs >= c || r == 1)) {
        *t = false;
        *ld = r == 1 ? c : rs;
        return true;
    }
    if ((rs == 1 || r == 1) && (cs >= r || c == 1)) {
        *t = true;
        *ld = c == 1 ? r : cs;
        return true;
    }
    return false;
}

static void fill_bias(td_dtype dt, const gemm_args *g)
{
    for (int64_t i = 0; i < g->m; i++) {
        for (int64_t j = 0; j < g->n; j++) {
            int64_t to = i * g->crs + j * g->ccs, from = j * g->bias_step;
            if (dt == TD_F32) ((float *)g->c)[to] = ((const float *)g->bias)[from];
            else ((double *)g->c)[to] = ((const double *)g->bias)[from];
        }
    }
}

/* Whether gemm.c is the one to take: it is 1.05 to 1.7 times as fast as OpenBLAS up to HUGE_PRODUCT and a few percent slower beyond
 * it (Zen 3, AVX2, one thread). With SSE2 OpenBLAS may know better instructions than we were built with. */
enum { HUGE_PRODUCT = 1 << 28 };
static bool ours(td_dtype dt, const gemm_args *g, bool vector)
{
#if defined __AVX2__
    return dt == TD_F32 && !vector && g->bias_step <= 1 && g->m * g->n <= HUGE_PRODUCT / (g->k ? g->k : 1);
#else
    (void)dt, (void)g, (void)vector;
    return false;
#endif
}

static bool gemm_f32(const gemm_args *g)
{
    sgemm_args s = {.m = g->m,
                    .n = g->n,
                    .k = g->k,
                    .a = g->a,
                    .b = g->b,
                    .c = g->c,
                    .ars = g->ars,
                    .acs = g->acs,
                    .brs = g->brs,
                    .bcs = g->bcs,
                    .crs = g->crs,
                    .ccs = g->ccs,
                    .bias = g->bias};
    return ISA(cpu_sgemm)(&s, 1);
}

static bool is_vector(const gemm_args *g) { return g->m == 1 || g->n == 1; }

static bool tiny(const gemm_args *g)
{
    int64_t most = is_vector(g) ? TINY_VECTOR : TINY;
    return g->m <= most && g->n <= most && g->k <= most && g->m * g->n * g->k <= most;
}

static bool gemm(td_dtype dt, const gemm_args *g)
{
    bool ta, tb, tc;
    int64_t lda, ldb, ldc;
    if (g->m == 0 || g->n == 0) return true;
    const bool vector = is_vector(g);
    if (dt <= TD_F64 && tiny(g)) {
        bool few = vector || (g->n < SHORT && g->m * g->n * g->k <= TINY_VECTOR);
        if (few) (dt == TD_F32 ? dots_f32 : dots_f64)(g);
        else gemm_strided(dt, g);
        return true;
    }
    if (ours(dt, g, vector)) return gemm_f32(g);
    if (dt > TD_F64 || !readable(g->m, g->k, g->ars, g->acs, &ta, &lda) ||
        !readable(g->k, g->n, g->brs, g->bcs, &tb, &ldb) || !readable(g->m, g->n, g->crs, g->ccs, &tc, &ldc)) {
        gemm_strided_shared(dt, g);
        return true;
    }
    if (g->bias) fill_bias(dt, g);
    double beta = g->bias ? 1 : 0;
    if (tc) /* C^T = B^T A^T */
        return cpu_gemm(dt, !tb, !ta, g->n, g->m, g->k, 1, g->b, ldb, g->a, lda, beta, g->c, ldc);
    return cpu_gemm(dt, ta, tb, g->m, g->n, g->k, 1, g->a, lda, g->b, ldb, beta, g->c, ldc);
}

static gemm_args plainly(const sgemm_args *g)
{
    return (gemm_args){.m = g->m,
                       .n = g->n,
                       .k = g->k,
                       .a = g->a,
                       .b = g->b,
                       .bias = g->bias,
                       .c = g->c,
                       .ars = g->ars,
                       .acs = g->acs,
                       .brs = g->brs,
                       .bcs = g->bcs,
                       .crs = g->crs,
                       .ccs = g->ccs,
                       .bias_step = 1};
}

bool ISA(cpu_products_here)(const sgemm_args *g, int n)
{
    for (int i = 0; i < n; i++) {
        gemm_args a = plainly(&g[i]);
        if (!a.m || !a.n || !a.k || tiny(&a) || !ours(TD_F32, &a, is_vector(&a))) return false;
    }
    return true;
}

bool ISA(cpu_products)(const sgemm_args *g, int n)
{
    if (ISA(cpu_products_here)(g, n)) return ISA(cpu_sgemm)(g, n);
    for (int i = 0; i < n; i++) {
        gemm_args a = plainly(&g[i]);
        if (!gemm(TD_F32, &a)) return false;
        if (g[i].act == GEMM_AS_IS) continue;
        if (g[i].pre) __builtin_memcpy(g[i].pre, g[i].c, (size_t)(g[i].m * g[i].n) * sizeof *g[i].c);
        ISA(cpu_act_row)(g[i].act, g[i].c, g[i].m * g[i].n);
    }
    return true;
}

/* ---- batches ---- */

/* Axes in front of the matrices, outermost first, with the strides of A, B and C; 0 where one is broadcast. */
typedef struct {
    int nd;
    int64_t dim[TD_MAX_DIM], a[TD_MAX_DIM], b[TD_MAX_DIM], c[TD_MAX_DIM], total;
} batch_axes;

static void add_axis(batch_axes *x, int64_t dim, int64_t a, int64_t b, int64_t c)
{
    if (dim == 1) return;
    x->total *= dim;
    int last = x->nd - 1;
    if (x->nd && x->a[last] == a * dim && x->b[last] == b * dim && x->c[last] == c * dim) x->dim[last] *= dim;
    else x->dim[x->nd++] = dim;
    last = x->nd - 1;
    x->a[last] = a;
    x->b[last] = b;
    x->c[last] = c;
}

/* A batch of A with one B is one taller matrix, if its rows and those of C go on evenly. */
static void fold_batch(gemm_args *g, batch_axes *x)
{
    int last = x->nd - 1;
    while (last >= 0 && x->b[last] == 0 &&
           (g->m == 1 || (x->a[last] == g->m * g->ars && x->c[last] == g->m * g->crs))) {
        if (g->m == 1) {
            g->ars = x->a[last];
            g->crs = x->c[last];
        }
        if (g->ars == 0) return; /* A is the same each time: nothing is gained, and BLAS cannot read it */
        g->m *= x->dim[last];
        x->total /= x->dim[last];
        x->nd = last--;
    }
}

static gemm_args at_batch(const gemm_args *g, const batch_axes *x, int64_t i, int64_t size)
{
    gemm_args one = *g;
    int64_t a = 0, b = 0, c = 0;
    for (int d = x->nd - 1; d >= 0; d--) {
        int64_t at = i % x->dim[d];
        i /= x->dim[d];
        a += at * x->a[d];
        b += at * x->b[d];
        c += at * x->c[d];
    }
    one.a = (const char *)g->a + a * size;
    one.b = (const char *)g->b + b * size;
    one.c = (char *)g->c + c * size;
    return one;
}

typedef struct {
    td_dtype dt;
    const gemm_args *g;
    const batch_axes *x;
    int failed;
} batch_task;

static void gemm_range(void *ctx, int64_t i, int64_t end)
{
    batch_task *t = ctx;
    for (; i < end; i++) {
        gemm_args one = at_batch(t->g, t->x, i + 1, (int64_t)td_dtype_size(t->dt));
        if (!gemm(t->dt, &one)) __atomic_store_n(&t->failed, 1, __ATOMIC_RELAXED);
    }
}

/* The first product on this thread, for it is the one that may fail to load BLAS; the others side by side if they are
 * many and small. */
static bool gemm_batch(td_dtype dt, gemm_args *g, batch_axes *x)
{
    if (x->total == 0) return true;
    if (x->nd) fold_batch(g, x);
    if (x->nd == 0) return gemm(dt, g);
    double each = (double)g->m * (double)g->n * (double)g->k;
    gemm_args first = at_batch(g, x, 0, (int64_t)td_dtype_size(dt));
    if (!gemm(dt, &first)) return false;
    batch_task t = {dt, g, x, 0};
    st_share(each < WHOLE ? threads_for(each * (double)x->total) : 1, x->total - 1, gemm_range, &t);
    return !t.failed;
}

/* ---- kernels ---- */

/* Extent and stride of v's axis i, counted from the end; extent 1 and stride 0 where there is none. */
static int64_t dim_at(const td_view *v, int i) { return i < v->nd ? v->dim[v->nd - 1 - i] : 1; }
static int64_t stride_at(const td_view *v, int i)
{
    return i < v->nd && v->dim[v->nd - 1 - i] != 1 ? v->stride[v->nd - 1 - i] : 0;
}

static bool run_matmul(const td_kargs *k)
{
    const td_view *a = k->in[0], *b = k->in[1], *c = k->out[0];
    int row = a->nd > 1, column = b->nd > 1; /* whether C has rows, columns */
    gemm_args g = {.a = a->p, .b = b->p, .c = c->p};
    batch_axes x;
    x.nd = 0;
    x.total = 1;
    g.k = dim_at(a, 0);
    g.acs = stride_at(a, 0);
    g.m = row ? dim_at(a, 1) : 1;
    g.ars = row ? stride_at(a, 1) : 0;
    g.n = column ? dim_at(b, 0) : 1;
    g.bcs = column ? stride_at(b, 0) : 0;
    g.brs = stride_at(b, column);
    g.ccs = column ? stride_at(c, 0) : 0;
    g.crs = row ? stride_at(c, column) : 0;
    for (int i = c->nd - row - column - 1; i >= 0; i--)
        add_axis(&x, dim_at(c, i + row + column), row ? stride_at(a, i + 2) : 0, column ? stride_at(b, i + 2) : 0,
                 stride_at(c, i + row + column));
    return gemm_batch(k->compute, &g, &x);
}

/* B is w^T; the axes of x but the last are rows or batches of rows. */
static bool run_linear(const td_kargs *k)
{
    const td_view *a = k->in[0], *w = k->in[1], *bias = k->n_in > 2 ? k->in[2] : NULL, *c = k->out[0];
    gemm_args g = {.a = a->p, .b = w->p, .c = c->p, .bias = bias ? bias->p : NULL, .m = 1};
    batch_axes x;
    x.nd = 0;
    x.total = 1;
    g.k = dim_at(a, 0);
    g.acs = stride_at(a, 0);
    g.n = dim_at(w, 1);
    g.bcs = stride_at(w, 1);
    g.brs = stride_at(w, 0);
    g.ccs = stride_at(c, 0);
    g.bias_step = bias ? stride_at(bias, 0) : 0;
    for (int i = c->nd - 1; i >= 1; i--) add_axis(&x, dim_at(c, i), stride_at(a, i), 0, stride_at(c, i));
    return gemm_batch(k->compute, &g, &x);
}

#define NUMBERS (TD_BITS_FLOAT | TD_BITS_INT)

static const td_kernel rows[] = {
    CPU_KERNEL("matmul", NUMBERS, TD_K_STRIDED, run_matmul),
    CPU_KERNEL("bmm", NUMBERS, TD_K_STRIDED, run_matmul),
    CPU_KERNEL("linear", NUMBERS, TD_K_STRIDED, run_linear),
};
CPU_TABLE(matmul, rows)

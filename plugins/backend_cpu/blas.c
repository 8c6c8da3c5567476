/* blas.c - matrix products by OpenBLAS, which is loaded at the first of them, so that starting up stays quick. It must
 * be the build on OpenMP: then its threads are those of our own loops, and OMP_NUM_THREADS holds for both. */
#include "cpu.h"
#include <dlfcn.h>
#include <omp.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifndef TIDE_OPENBLAS_PATH
#define TIDE_OPENBLAS_PATH "libopenblas.so.0"
#endif

/* CBLAS's row-major order, and transposition or none. */
enum { ROW_MAJOR = 101, AS_IS = 111, TRANSPOSED = 112 };
/* What openblas_get_parallel answers. */
enum { SEQUENTIAL, PTHREADS, OPENMP };

typedef void sgemm_fn(int order, int ta, int tb, int m, int n, int k, float alpha, const float *a, int lda,
                      const float *b, int ldb, float beta, float *c, int ldc);
typedef void dgemm_fn(int order, int ta, int tb, int m, int n, int k, double alpha, const double *a, int lda,
                      const double *b, int ldb, double beta, double *c, int ldc);
typedef void sgemv_fn(int order, int t, int m, int n, float alpha, const float *a, int lda, const float *x, int incx,
                      float beta, float *y, int incy);
typedef void dgemv_fn(int order, int t, int m, int n, double alpha, const double *a, int lda, const double *x, int incx,
                      double beta, double *y, int incy);

static struct {
    sgemm_fn *sgemm;
    dgemm_fn *dgemm;
    sgemv_fn *sgemv;
    dgemv_fn *dgemv;
    char error[512]; /* empty when loaded */
} blas;

int cpu_threads(void) { return omp_in_parallel() ? 1 : omp_get_max_threads(); }

/* ---- loading ---- */

static bool symbol(void *lib, const char *path, const char *name, void *fn)
{
    void *p = dlsym(lib, name);
    memcpy(fn, &p, sizeof p); /* ISO C has no cast from an object pointer to a function pointer */
    if (!p) snprintf(blas.error, sizeof blas.error, "%s has no function %s", path, name);
    return p != NULL;
}

static bool usable(void *lib, const char *path)
{
    static const char *const kinds[] = {"sequential", "pthreads", "OpenMP"};
    int (*get_parallel)(void);
    if (!symbol(lib, path, "openblas_get_parallel", &get_parallel)) return false;
    int kind = get_parallel();
    if (kind != OPENMP) {
        snprintf(blas.error, sizeof blas.error,
                 "expected the OpenMP build, %s is the %s build (Debian: apt-get install libopenblas-openmp-dev, or "
                 "set TIDE_OPENBLAS to its path)",
                 path, kind >= SEQUENTIAL && kind <= PTHREADS ? kinds[kind] : "unknown");
        return false;
    }
    return symbol(lib, path, "cblas_sgemm", &blas.sgemm) && symbol(lib, path, "cblas_dgemm", &blas.dgemm) &&
           symbol(lib, path, "cblas_sgemv", &blas.sgemv) && symbol(lib, path, "cblas_dgemv", &blas.dgemv);
}

static bool try_path(const char *path)
{
    void *lib = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!lib) {
        const char *why = dlerror();
        snprintf(blas.error, sizeof blas.error, "%s", why ? why : path);
        return false;
    }
    if (usable(lib, path)) {
        blas.error[0] = 0;
        return true;
    }
    dlclose(lib);
    return false;
}

/* A path that the user has given is the only one tried. */
static void load(void)
{
    const char *given = getenv("TIDE_OPENBLAS");
    if (given && *given) try_path(given);
    else if (!try_path(TIDE_OPENBLAS_PATH)) try_path("libopenblas.so.0");
}

static bool loaded(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, load);
    return !blas.error[0] || td_fail_as(TD_EDEVICE, "cpu: OpenBLAS cannot be used: %s", blas.error);
}

/* ---- products ---- */

/* C = beta C; with beta 0 whatever C held. */
static void scale(td_dtype dt, int64_t m, int64_t n, double beta, void *c, int64_t ldc)
{
    for (int64_t i = 0; beta != 1 && i < m; i++) {
        float *f = (float *)c + i * ldc;
        double *d = (double *)c + i * ldc;
        for (int64_t j = 0; j < n; j++) {
            if (dt == TD_F32) f[j] = beta == 0 ? 0 : (float)beta * f[j];
            else d[j] = beta == 0 ? 0 : beta * d[j];
        }
    }
}

/* y = alpha op(A) x + beta y, A stored (rows, cols). With beta 0 y is cleared: not every BLAS ignores a NaN in it. */
static void gemv(td_dtype dt, bool t, int64_t rows, int64_t cols, double alpha, const void *a, int64_t lda,
                 const void *x, int64_t incx, double beta, void *y, int64_t incy)
{
    int trans = t ? TRANSPOSED : AS_IS, m = (int)rows, n = (int)cols, ld = (int)lda, ix = (int)incx, iy = (int)incy;
    if (beta == 0) scale(dt, t ? cols : rows, 1, 0, y, incy);
    if (dt == TD_F32) blas.sgemv(ROW_MAJOR, trans, m, n, (float)alpha, a, ld, x, ix, (float)beta, y, iy);
    else blas.dgemv(ROW_MAJOR, trans, m, n, alpha, a, ld, x, ix, beta, y, iy);
}

/* A product; all sizes fit an int, m, n, k > 0. */
typedef struct {
    td_dtype dt;
    bool ta, tb;
    int64_t m, n, k, lda, ldb, ldc;
    const void *a, *b;
    void *c;
    double alpha, beta;
} product;

static void gemm(const product *p)
{
    int ta = p->ta ? TRANSPOSED : AS_IS, tb = p->tb ? TRANSPOSED : AS_IS;
    int m = (int)p->m, n = (int)p->n, k = (int)p->k, lda = (int)p->lda, ldb = (int)p->ldb, ldc = (int)p->ldc;
    if (n == 1) { /* A times a column */
        gemv(p->dt, p->ta, p->ta ? k : m, p->ta ? m : k, p->alpha, p->a, lda, p->b, p->tb ? 1 : ldb, p->beta, p->c,
             ldc);
    } else if (m == 1) { /* a row times B, as B^T times a column */
        gemv(p->dt, !p->tb, p->tb ? n : k, p->tb ? k : n, p->alpha, p->b, ldb, p->a, p->ta ? lda : 1, p->beta, p->c, 1);
    } else if (p->dt == TD_F32) {
        blas.sgemm(ROW_MAJOR, ta, tb, m, n, k, (float)p->alpha, p->a, lda, p->b, ldb, (float)p->beta, p->c, ldc);
    } else {
        blas.dgemm(ROW_MAJOR, ta, tb, m, n, k, p->alpha, p->a, lda, p->b, ldb, p->beta, p->c, ldc);
    }
}

/* ---- threads: a grid of blocks of C, each a product of its own on one thread ----
 * OpenBLAS's own threads take part from 64 x 64 x 64 on, where waking them costs more than they save, and wait for each
 * other several times in a product, by spinning. */

/* Least m n k for a thread; calls at once for which OpenBLAS has memory. */
enum { PER_THREAD = 1 << 19, MOST_THREADS = 64 };

static int threads_for(const product *p, int most)
{
    double worth = (double)p->m * (double)p->n * (double)p->k / PER_THREAD;
    if (most > MOST_THREADS) most = MOST_THREADS;
    return most < worth ? most : worth < 1 ? 1 : (int)worth;
}

/* Rows of the grid: each block packs its rows of A and its columns of B, so their sum should be small. */
static int grid_rows(const product *p, int threads)
{
    int best = 1;
    double least = INFINITY;
    for (int rows = 1; rows <= threads; rows++) {
        double h = (double)p->m / rows, w = (double)p->n / (threads / rows);
        if (threads % rows || (rows > 1 && h < 8) || h + w >= least) continue;
        least = h + w;
        best = rows;
    }
    return best;
}

/* Start of part i of n parts of an extent, on a multiple of 16. */
static int64_t part_start(int64_t extent, int i, int n)
{
    int64_t piece = ((extent + n - 1) / n + 15) & ~(int64_t)15;
    return i * piece < extent ? i * piece : extent;
}

static void gemm_grid(const product *p, int threads)
{
    int rows = grid_rows(p, threads), columns = threads / rows;
    int64_t size = (int64_t)td_dtype_size(p->dt);
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int t = 0; t < threads; t++) {
        int64_t i = part_start(p->m, t / columns, rows), j = part_start(p->n, t % columns, columns);
        product q = *p;
        q.m = part_start(p->m, t / columns + 1, rows) - i;
        q.n = part_start(p->n, t % columns + 1, columns) - j;
        q.a = (const char *)p->a + i * (p->ta ? 1 : p->lda) * size;
        q.b = (const char *)p->b + j * (p->tb ? p->ldb : 1) * size;
        q.c = (char *)p->c + (i * p->ldc + j) * size;
        if (q.m > 0 && q.n > 0) gemm(&q);
    }
}

static void gemm_threaded(const product *p)
{
    int most = cpu_threads(), threads = threads_for(p, most);
    if (threads > 1) {
        gemm_grid(p, threads);
    } else if (most > 1) { /* OpenBLAS asks for this number at each call */
        omp_set_num_threads(1);
        gemm(p);
        omp_set_num_threads(most);
    } else {
        gemm(p);
    }
}

/* A row stride as OpenBLAS wants it: at least the width, even if there is but one row; 0 if it does not fit an int. */
static int64_t stride_for(int64_t rows, int64_t width, int64_t ld)
{
    if (rows <= 1 || ld < width) ld = width;
    return ld > INT32_MAX ? 0 : ld;
}

bool cpu_gemm(td_dtype dt, bool ta, bool tb, int64_t m, int64_t n, int64_t k, double alpha, const void *a, int64_t lda,
              const void *b, int64_t ldb, double beta, void *c, int64_t ldc)
{
    enum { MOST = 1 << 30 }; /* OpenBLAS counts in ints: greater extents go in pieces */
    if (m <= 0 || n <= 0) return true;
    if (k <= 0) {
        scale(dt, m, n, beta, c, ldc);
        return true;
    }
    if (!loaded()) return false;
    int64_t ra = ta ? k : m, wa = ta ? m : k, rb = tb ? n : k, wb = tb ? k : n;
    if (wa <= MOST && ra <= MOST && wb <= MOST && rb <= MOST) {
        lda = stride_for(ra, wa, lda);
        ldb = stride_for(rb, wb, ldb);
        ldc = stride_for(m, n, ldc);
        if (!lda || !ldb || !ldc) return td_fail("matmul: expected rows at most 2^31 - 1 elements apart");
        gemm_threaded(&(product){dt, ta, tb, m, n, k, lda, ldb, ldc, a, b, c, alpha, beta});
        return true;
    }
    int64_t size = (int64_t)td_dtype_size(dt);
    int64_t *longest = m >= n && m >= k ? &m : n >= k ? &n : &k, whole = *longest;
    for (int64_t at = 0; at < whole; at += MOST) { /* cut the longest extent; the others are cut in the calls */
        *longest = whole - at < MOST ? whole - at : MOST;
        const char *pa = a, *pb = b;
        char *pc = c;
        if (longest == &m) pa += at * (ta ? 1 : lda) * size, pc += at * ldc * size;
        else if (longest == &n) pb += at * (tb ? ldb : 1) * size, pc += at * size;
        else pa += at * (ta ? lda : 1) * size, pb += at * (tb ? 1 : ldb) * size;
        double keep = longest == &k && at > 0 ? 1 : beta;
        if (!cpu_gemm(dt, ta, tb, m, n, k, alpha, pa, lda, pb, ldb, keep, pc, ldc)) return false;
    }
    return true;
}

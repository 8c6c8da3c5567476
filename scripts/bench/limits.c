/* limits.c - what this machine can do at best, for scripts/bench/run.sh: lines of "NAME LIBRARY VALUE UNIT".
 * Fused multiply-adds in registers, the triad of STREAM (McCalpin 1995), and matrix products and convolutions by the libraries alone.
 * Threads are those of OpenMP (OMP_NUM_THREADS). Every figure is the best of several short runs: a limit, not an average.
 *     usage: limits [seconds for each figure] */
#include "limits.h"
#include <dlfcn.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#if defined(__AVX512F__)
enum { LANES = 16 };
#elif defined(__AVX__)
enum { LANES = 8 };
#else
enum { LANES = 4 };
#endif
typedef float vec __attribute__((vector_size(LANES * sizeof(float))));

/* ---- fused multiply-adds: twelve chains, more than the pipelines are deep ---- */

enum { CHAINS = 12, TURNS = 1 << 18 };

static void fma_chains(void *arg)
{
    float *sum = arg;
#pragma omp parallel
    {
        vec a[CHAINS], m = {0}, add = {0};
        for (int l = 0; l < LANES; l++) m[l] = 0.999f, add[l] = 1e-3f;
        for (int k = 0; k < CHAINS; k++) a[k] = add * (float)k;
        for (int i = 0; i < TURNS; i++)
#pragma GCC unroll 12
            for (int k = 0; k < CHAINS; k++) a[k] = a[k] * m + add;
        float s = 0;
        for (int k = 0; k < CHAINS; k++) s += a[k][0];
#pragma omp atomic
        *sum += s;
    }
}

/* ---- triad ---- */

enum { TRIAD = 1 << 24 };

static void triad(void *arg)
{
    float **v = arg, *restrict a = v[0];
    const float *restrict b = v[1], *restrict c = v[2];
#pragma omp parallel for simd
    for (size_t i = 0; i < TRIAD; i++) a[i] = b[i] + 3.0f * c[i];
}

/* ---- matrix products ---- */

typedef void cblas_sgemm_fn(int order, int ta, int tb, int m, int n, int k, float alpha, const float *a, int lda,
                            const float *b, int ldb, float beta, float *c, int ldc);
typedef struct {
    const char *name;
    int m, k, n;
    float *a, *b, *c;
    cblas_sgemm_fn *sgemm;
} product;

static void by_blas(void *arg)
{
    const product *p = arg;
    p->sgemm(101, 111, 111, p->m, p->n, p->k, 1, p->a, p->k, p->b, p->n, 0, p->c, p->n);
}

static void by_onednn(void *arg)
{
    const product *p = arg;
    onednn_sgemm(p->m, p->n, p->k, p->a, p->b, p->c);
}

static cblas_sgemm_fn *open_blas(void)
{
    const char *path = getenv("TIDE_OPENBLAS");
    void *lib = dlopen(path ? path : TIDE_OPENBLAS_PATH, RTLD_NOW | RTLD_LOCAL);
    cblas_sgemm_fn *f = NULL;
    if (lib) *(void **)(void *)&f = dlsym(lib, "cblas_sgemm");
    if (!f) fprintf(stderr, "limits: no OpenBLAS: %s\n", dlerror());
    return f;
}

static void products(double seconds)
{
    static const product shapes[] = {{.name = "matmul_512", .m = 512, .k = 512, .n = 512},
                                     {.name = "matmul_mlp", .m = 64, .k = 784, .n = 256},
                                     {.name = "sgemm_2048", .m = 2048, .k = 2048, .n = 2048}};
    cblas_sgemm_fn *sgemm = open_blas();
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        product p = shapes[i];
        double gflop = 2e-9 * p.m * p.k * p.n;
        p.a = numbers((size_t)p.m * (size_t)p.k);
        p.b = numbers((size_t)p.k * (size_t)p.n);
        p.c = numbers((size_t)p.m * (size_t)p.n);
        p.sgemm = sgemm;
        if (sgemm) printf("%s OpenBLAS %.4g GFLOP/s\n", p.name, gflop / best_time(by_blas, &p, seconds));
        if (have_onednn()) printf("%s oneDNN %.4g GFLOP/s\n", p.name, gflop / best_time(by_onednn, &p, seconds));
        fflush(stdout);
        free(p.a);
        free(p.b);
        free(p.c);
    }
}

int main(int argc, char **argv)
{
    double seconds = argc > 1 ? atof(argv[1]) : 0.3;
    int threads = omp_get_max_threads();
    float sum = 0;
    double flops = 2.0 * CHAINS * LANES * TURNS * threads;
    printf("fma - %.4g GFLOP/s\n", 1e-9 * flops / best_time(fma_chains, &sum, seconds));
    float *v[3] = {numbers(TRIAD), numbers(TRIAD), numbers(TRIAD)};
    printf("triad - %.4g GB/s\n", 3e-9 * sizeof(float) * TRIAD / best_time(triad, v, seconds));
    fflush(stdout);
    for (int i = 0; i < 3; i++) free(v[i]);
    products(seconds);
    onednn_convolutions(seconds);
    return sum == 0.12345f; /* so that the chains are not dropped */
}

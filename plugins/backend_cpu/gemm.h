/* gemm.h - what the f32 matrix products of gemm.c take, for the files of one instruction set.    A (m, k)   B (k, n)   C (m, n) */
#ifndef TIDE_CPU_GEMM_H
#define TIDE_CPU_GEMM_H
#include "cpu.h"

/** What is done to a sum before it is stored; the order is that of the option `activation` of linear_act. */
typedef enum { GEMM_AS_IS, GEMM_RELU, GEMM_TANH, GEMM_SIGMOID, GEMM_GELU, GEMM_GELU_TANH } gemm_act;

/** C = act(A B + bias). Any strides, in elements; a or b may be transposed by them. With act the rows of C are contiguous. */
typedef struct {
    int64_t m, n, k;
    const float *a, *b;
    float *c;
    int64_t ars, acs, brs, bcs, crs, ccs;
    const float *bias; /* NULL, or n numbers next to each other                      */
    gemm_act act;
    float *pre;  /* NULL, or where A B + bias goes as well, laid out as C; with act            */
    float *sums; /* NULL, or m numbers: sums of A's rows; ars is 1 then, acs is not, crs > ccs */
} sgemm_args;

/** Rows of a matrix that products read, made by the thread that needs them: make(ctx, from, to) makes those from .. to - 1. */
typedef struct {
    void (*make)(const void *ctx, int64_t from, int64_t to);
    const void *ctx;
    int64_t rows;
} gemm_made;

/** On this thread alone; false without an error where there is no memory for its scratch. */
bool ISA(cpu_sgemm_here)(const sgemm_args *);
/** n products, none of which reads what another writes, on as many threads as pay, woken once. */
bool ISA(cpu_sgemm)(const sgemm_args *, int n);
/** The same, with rows that are made first; they are those of the A of g[0] if `its_rows`. */
bool ISA(cpu_sgemm_made)(const gemm_made *, bool its_rows, const sgemm_args *g, int n);
/** Whether these products are best done here; with made rows or sums they must be. */
bool ISA(cpu_products_here)(const sgemm_args *, int n);
/** One or two such products by whatever is fastest for their sizes; with act or pre the rows of C lie without gaps. */
bool ISA(cpu_products)(const sgemm_args *, int n);
/** y = act(y), for n numbers next to each other. */
void ISA(cpu_act_row)(gemm_act act, float *y, int64_t n);

#endif

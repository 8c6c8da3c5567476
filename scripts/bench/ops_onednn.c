/* ops_onednn.c - oneDNN 2 alone on pooling, batch norm and matrix products, for scripts/bench/ops.lua, which says what is timed: lines
 * "KIND ORDER N C H W KERNEL STRIDE PADDING" on standard input, each answered by the microseconds of a call, or 0 where oneDNN has
 * no such primitive. ORDER is nchw or nhwc; a matmul takes N, C, H as its m, k, n. Threads are those of OpenMP.
 *     usage: ops_onednn SECONDS <LINES */
#include "limits.h"
#include <oneapi/dnnl/dnnl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_ARGS = 8 };

static dnnl_engine_t engine;
static dnnl_stream_t stream;

typedef struct {
    dnnl_primitive_t primitive;
    dnnl_exec_arg_t arg[MOST_ARGS];
    float *data[MOST_ARGS];
    int n;
} job;

static void run(void *arg)
{
    job *j = arg;
    dnnl_primitive_execute(j->primitive, stream, j->n, j->arg);
    dnnl_stream_wait(stream);
}

/* One operand of a primitive: its name, and where its description tells of it. */
typedef struct {
    int name;
    dnnl_query_t which;
    int index;
} operand;

static void add(job *j, const_dnnl_primitive_desc_t pd, operand o)
{
    const dnnl_memory_desc_t *md = dnnl_primitive_desc_query_md(pd, o.which, o.index);
    if (!md || !dnnl_memory_desc_get_size(md)) return;
    int i = j->n++;
    j->data[i] = numbers(dnnl_memory_desc_get_size(md) / sizeof(float) + 1);
    if (o.name == DNNL_ARG_WORKSPACE) memset(j->data[i], 0, dnnl_memory_desc_get_size(md));
    for (size_t k = 0; o.name == DNNL_ARG_VARIANCE && k < dnnl_memory_desc_get_size(md) / sizeof(float); k++)
        j->data[i][k] = 1;
    j->arg[i].arg = o.name;
    if (dnnl_memory_create(&j->arg[i].memory, md, engine, j->data[i])) abort();
}

/* Microseconds of the primitive that desc describes; takes the hint, which is that of the forward pass. */
static double time_of(const void *desc, const_dnnl_primitive_desc_t hint, const operand *o, int n, double seconds)
{
    dnnl_primitive_desc_t pd;
    job j = {.n = 0};
    if (dnnl_primitive_desc_create(&pd, desc, NULL, engine, hint)) return 0;
    if (dnnl_primitive_create(&j.primitive, pd)) return 0;
    for (int i = 0; i < n; i++) add(&j, pd, o[i]);
    double t = best_time(run, &j, seconds);
    dnnl_primitive_destroy(j.primitive);
    dnnl_primitive_desc_destroy(pd);
    for (int i = 0; i < j.n; i++) {
        dnnl_memory_destroy(j.arg[i].memory);
        free(j.data[i]);
    }
    return 1e6 * t;
}

typedef struct {
    char kind[32], order[8];
    long n, c, h, w, kernel, stride, padding;
} line;

static double pooling(const line *l, dnnl_format_tag_t tag, double seconds)
{
    long oh = (l->h + 2 * l->padding - l->kernel) / l->stride + 1,
         ow = (l->w + 2 * l->padding - l->kernel) / l->stride + 1;
    dnnl_dims_t xd = {l->n, l->c, l->h, l->w}, yd = {l->n, l->c, oh, ow}, k = {l->kernel, l->kernel},
                s = {l->stride, l->stride}, p = {l->padding, l->padding},
                r = {(oh - 1) * l->stride + l->kernel - l->h - l->padding,
                     (ow - 1) * l->stride + l->kernel - l->w - l->padding};
    dnnl_memory_desc_t x, y;
    dnnl_memory_desc_init_by_tag(&x, 4, xd, dnnl_f32, tag);
    dnnl_memory_desc_init_by_tag(&y, 4, yd, dnnl_f32, tag);
    dnnl_alg_kind_t alg = strstr(l->kind, "max") ? dnnl_pooling_max : dnnl_pooling_avg_exclude_padding;
    dnnl_pooling_desc_t d, b;
    if (dnnl_pooling_forward_desc_init(&d, dnnl_forward_training, alg, &x, &y, s, k, p, r)) return 0;
    static const operand forward[] = {{DNNL_ARG_SRC, dnnl_query_src_md, 0},
                                      {DNNL_ARG_DST, dnnl_query_dst_md, 0},
                                      {DNNL_ARG_WORKSPACE, dnnl_query_workspace_md, 0}};
    static const operand backward[] = {{DNNL_ARG_DIFF_DST, dnnl_query_diff_dst_md, 0},
                                       {DNNL_ARG_DIFF_SRC, dnnl_query_diff_src_md, 0},
                                       {DNNL_ARG_WORKSPACE, dnnl_query_workspace_md, 0}};
    if (!strstr(l->kind, "grad")) return time_of(&d, NULL, forward, 3, seconds);
    dnnl_primitive_desc_t hint;
    if (dnnl_pooling_backward_desc_init(&b, alg, &x, &y, s, k, p, r) ||
        dnnl_primitive_desc_create(&hint, &d, NULL, engine, NULL))
        return 0;
    double t = time_of(&b, hint, backward, 3, seconds);
    dnnl_primitive_desc_destroy(hint);
    return t;
}

/* With scale, shift and a relu. */
static double batch_norm(const line *l, dnnl_format_tag_t tag, double seconds)
{
    dnnl_dims_t xd = {l->n, l->c, l->h, l->w};
    dnnl_memory_desc_t x;
    dnnl_memory_desc_init_by_tag(&x, 4, xd, dnnl_f32, tag);
    unsigned flags = dnnl_use_scaleshift | dnnl_fuse_norm_relu;
    dnnl_batch_normalization_desc_t d, b;
    if (dnnl_batch_normalization_forward_desc_init(&d, dnnl_forward_training, &x, 1e-5f, flags)) return 0;
    static const operand forward[] = {{DNNL_ARG_SRC, dnnl_query_src_md, 0},
                                      {DNNL_ARG_DST, dnnl_query_dst_md, 0},
                                      {DNNL_ARG_MEAN, dnnl_query_dst_md, 1},
                                      {DNNL_ARG_VARIANCE, dnnl_query_dst_md, 2},
                                      {DNNL_ARG_SCALE_SHIFT, dnnl_query_weights_md, 0},
                                      {DNNL_ARG_WORKSPACE, dnnl_query_workspace_md, 0}};
    static const operand backward[] = {{DNNL_ARG_SRC, dnnl_query_src_md, 0},
                                       {DNNL_ARG_MEAN, dnnl_query_src_md, 1},
                                       {DNNL_ARG_VARIANCE, dnnl_query_src_md, 2},
                                       {DNNL_ARG_DIFF_DST, dnnl_query_diff_dst_md, 0},
                                       {DNNL_ARG_SCALE_SHIFT, dnnl_query_weights_md, 0},
                                       {DNNL_ARG_DIFF_SRC, dnnl_query_diff_src_md, 0},
                                       {DNNL_ARG_DIFF_SCALE_SHIFT, dnnl_query_diff_weights_md, 0},
                                       {DNNL_ARG_WORKSPACE, dnnl_query_workspace_md, 0}};
    if (!strstr(l->kind, "grad")) return time_of(&d, NULL, forward, 6, seconds);
    dnnl_primitive_desc_t hint;
    if (dnnl_batch_normalization_backward_desc_init(&b, dnnl_backward, &x, &x, 1e-5f, flags) ||
        dnnl_primitive_desc_create(&hint, &d, NULL, engine, NULL))
        return 0;
    double t = time_of(&b, hint, backward, 8, seconds);
    dnnl_primitive_desc_destroy(hint);
    return t;
}

static double matmul(const line *l, double seconds)
{
    dnnl_dims_t ad = {l->n, l->c}, bd = {l->c, l->h}, cd = {l->n, l->h};
    dnnl_memory_desc_t a, b, c;
    dnnl_memory_desc_init_by_tag(&a, 2, ad, dnnl_f32, dnnl_ab);
    dnnl_memory_desc_init_by_tag(&b, 2, bd, dnnl_f32, dnnl_ab);
    dnnl_memory_desc_init_by_tag(&c, 2, cd, dnnl_f32, dnnl_ab);
    static const operand o[] = {{DNNL_ARG_SRC, dnnl_query_src_md, 0},
                                {DNNL_ARG_WEIGHTS, dnnl_query_weights_md, 0},
                                {DNNL_ARG_DST, dnnl_query_dst_md, 0}};
    dnnl_matmul_desc_t d;
    return dnnl_matmul_desc_init(&d, &a, &b, NULL, &c) ? 0 : time_of(&d, NULL, o, 3, seconds);
}

int main(int argc, char **argv)
{
    double seconds = argc > 1 ? atof(argv[1]) : 0.1;
    line l;
    if (dnnl_engine_create(&engine, dnnl_cpu, 0) || dnnl_stream_create(&stream, engine, dnnl_stream_default_flags))
        return 1;
    while (scanf("%31s %7s %ld %ld %ld %ld %ld %ld %ld", l.kind, l.order, &l.n, &l.c, &l.h, &l.w, &l.kernel, &l.stride,
                 &l.padding) == 9) {
        dnnl_format_tag_t tag = strcmp(l.order, "nhwc") ? dnnl_nchw : dnnl_nhwc;
        double t = strstr(l.kind, "pool")   ? pooling(&l, tag, seconds)
                   : strstr(l.kind, "norm") ? batch_norm(&l, tag, seconds)
                                            : matmul(&l, seconds);
        printf("%.4g\n", t);
        fflush(stdout);
    }
    return 0;
}

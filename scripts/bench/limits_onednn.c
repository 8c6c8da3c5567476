/* limits_onednn.c - oneDNN alone, on the shapes of the benchmark: 3x3 convolutions in the layouts that it chooses itself, so without
 * the cost of reordering. For the C interface of version 2, which Debian 12 has. */
#include "limits.h"
#include <stdint.h>
#include <stdio.h>

#ifdef HAVE_ONEDNN
#include <oneapi/dnnl/dnnl.h>
#endif

#if defined(HAVE_ONEDNN) && DNNL_VERSION_MAJOR == 2

bool have_onednn(void) { return true; }

void onednn_sgemm(int m, int n, int k, const float *a, const float *b, float *c)
{
    dnnl_sgemm('N', 'N', m, n, k, 1.0f, a, k, b, n, 0.0f, c, n);
}

typedef struct {
    dnnl_primitive_t primitive;
    dnnl_stream_t stream;
    dnnl_exec_arg_t arg[3];
} job;

static void run(void *arg)
{
    job *j = arg;
    dnnl_primitive_execute(j->primitive, j->stream, 3, j->arg);
    dnnl_stream_wait(j->stream);
}

static dnnl_engine_t engine;
static dnnl_stream_t stream;

static bool memory_for(dnnl_exec_arg_t *arg, int name, const_dnnl_primitive_desc_t pd, dnnl_query_t which)
{
    const dnnl_memory_desc_t *md = dnnl_primitive_desc_query_md(pd, which, 0);
    arg->arg = name;
    void *p = numbers(dnnl_memory_desc_get_size(md) / sizeof(float) + 1); /* for the life of this short program */
    return dnnl_memory_create(&arg->memory, md, engine, p) == dnnl_success;
}

/* The primitive of a description with its three memories, timed; 0 where oneDNN refuses. */
static double time_of(const void *desc, const_dnnl_primitive_desc_t hint, const int name[3],
                      const dnnl_query_t which[3], dnnl_primitive_desc_t *pd, double seconds)
{
    job j = {.stream = stream};
    if (dnnl_primitive_desc_create(pd, desc, NULL, engine, hint) != dnnl_success) return 0;
    if (dnnl_primitive_create(&j.primitive, *pd) != dnnl_success) return 0;
    for (int i = 0; i < 3; i++)
        if (!memory_for(&j.arg[i], name[i], *pd, which[i])) return 0;
    double t = best_time(run, &j, seconds);
    dnnl_primitive_destroy(j.primitive);
    return t;
}

static void convolution(const char *name, int64_t n, int64_t c, int64_t k, int64_t size, double seconds)
{
    dnnl_dims_t xd = {n, c, size, size}, wd = {k, c, 3, 3}, yd = {n, k, size, size}, stride = {1, 1}, pad = {1, 1};
    dnnl_memory_desc_t x, w, y;
    dnnl_memory_desc_init_by_tag(&x, 4, xd, dnnl_f32, dnnl_format_tag_any);
    dnnl_memory_desc_init_by_tag(&w, 4, wd, dnnl_f32, dnnl_format_tag_any);
    dnnl_memory_desc_init_by_tag(&y, 4, yd, dnnl_f32, dnnl_format_tag_any);
    const double gflop = 2e-9 * (double)(n * c * k * 9 * size * size);
    const dnnl_query_t fwd[] = {dnnl_query_src_md, dnnl_query_weights_md, dnnl_query_dst_md};
    const dnnl_query_t bwd_x[] = {dnnl_query_diff_dst_md, dnnl_query_weights_md, dnnl_query_diff_src_md};
    const dnnl_query_t bwd_w[] = {dnnl_query_src_md, dnnl_query_diff_dst_md, dnnl_query_diff_weights_md};
    const int fwd_args[] = {DNNL_ARG_SRC, DNNL_ARG_WEIGHTS, DNNL_ARG_DST};
    const int bwd_x_args[] = {DNNL_ARG_DIFF_DST, DNNL_ARG_WEIGHTS, DNNL_ARG_DIFF_SRC};
    const int bwd_w_args[] = {DNNL_ARG_SRC, DNNL_ARG_DIFF_DST, DNNL_ARG_DIFF_WEIGHTS};
    dnnl_convolution_desc_t d;
    dnnl_primitive_desc_t forward = NULL, other = NULL;
    static const struct {
        dnnl_alg_kind_t kind;
        const char *library;
    } ways[] = {{dnnl_convolution_direct, "oneDNN"}, {dnnl_convolution_winograd, "oneDNN,Winograd"}};
    for (int i = 0; i < 2; i++) {
        if (dnnl_convolution_forward_desc_init(&d, dnnl_forward_training, ways[i].kind, &x, &w, NULL, &y, stride, pad,
                                               pad))
            continue;
        double t = time_of(&d, NULL, fwd_args, fwd, &other, seconds);
        if (t > 0) printf("%s %s %.4g GFLOP/s\n", name, ways[i].library, gflop / t);
        if (i == 0) forward = other;
        else if (t > 0) dnnl_primitive_desc_destroy(other);
    }
    if (!forward) return;
    if (!dnnl_convolution_backward_data_desc_init(&d, dnnl_convolution_direct, &x, &w, &y, stride, pad, pad)) {
        double t = time_of(&d, forward, bwd_x_args, bwd_x, &other, seconds);
        if (t > 0) printf("%s_grad_x oneDNN %.4g GFLOP/s\n", name, gflop / t);
    }
    if (!dnnl_convolution_backward_weights_desc_init(&d, dnnl_convolution_direct, &x, &w, NULL, &y, stride, pad, pad)) {
        double t = time_of(&d, forward, bwd_w_args, bwd_w, &other, seconds);
        if (t > 0) printf("%s_grad_w oneDNN %.4g GFLOP/s\n", name, gflop / t);
    }
    fflush(stdout);
}

void onednn_convolutions(double seconds)
{
    if (dnnl_engine_create(&engine, dnnl_cpu, 0) || dnnl_stream_create(&stream, engine, dnnl_stream_default_flags))
        return;
    convolution("conv_16", 32, 16, 16, 32, seconds);
    convolution("conv_32", 32, 32, 32, 16, seconds);
    convolution("conv_64", 32, 64, 64, 8, seconds);
}

#else

bool have_onednn(void) { return false; }

void onednn_sgemm(int m, int n, int k, const float *a, const float *b, float *c)
{
    (void)m, (void)n, (void)k, (void)a, (void)b, (void)c;
}

void onednn_convolutions(double seconds) { (void)seconds; }

#endif

/* flops.c - floating-point operations of ops whose work is known by their shapes. A multiply-add counts as two, as in the papers. */
#include "profile.h"
#include <string.h>

static double numel(const td_view *v) { return v ? (double)td_view_numel(v) : 0; }
static double last(const td_view *v) { return v->nd ? (double)v->dim[v->nd - 1] : 1; }

/* a (.., K) b: two for each term of each element */
static double product(const td_kargs *a) { return 2 * numel(a->out[0]) * last(a->in[0]); }

/* Each element of y takes a kernel (C/groups, kh, kw) of w; the transpose spreads each element of x by one. */
static double kernel_size(const td_view *w) { return numel(w) / (w->dim[0] ? (double)w->dim[0] : 1); }
static double convolution(const td_kargs *a) { return 2 * numel(a->out[0]) * kernel_size(a->in[1]); }
static double transposed(const td_kargs *a) { return 2 * numel(a->in[0]) * kernel_size(a->in[1]); }
static double weight_grad(const td_kargs *a) { return 2 * numel(a->in[1]) * kernel_size(a->out[0]); }

/* One for each element of the result. */
static double elementwise(const td_kargs *a) { return numel(a->out[0]); }

static const struct {
    const char *op;
    double (*flops)(const td_kargs *);
} known[] = {{"matmul", product},
             {"linear", product},
             {"conv2d", convolution},
             {"conv_transpose2d", transposed},
             {"conv2d_weight_grad", weight_grad},
             {"add", elementwise},
             {"sub", elementwise},
             {"mul", elementwise},
             {"div", elementwise},
             {"relu", elementwise}};

double tdi_flops(const char *op, const td_kargs *a)
{
    if (!a->n_out) return 0;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (!strcmp(known[i].op, op)) return known[i].flops(a);
    return 0;
}

/* flops.c - floating-point operations of ops whose work is known by their shapes. A multiply-add counts as two, as in the papers. */
#include "profile.h"
#include <string.h>
#include <tide/ops.h>

static double numel(const td_view *v) { return v ? (double)td_view_numel(v) : 0; }
static double last(const td_view *v) { return v->nd ? (double)v->dim[v->nd - 1] : 1; }

/* a (.., K) b: two for each term of each element */
static double product(const td_kargs *a) { return 2 * numel(a->out[0]) * last(a->in[0]); }

/* Each element of y takes a kernel (C/groups, kh, kw) of w; the transpose spreads each element of x by one. */
static double kernel_size(const td_view *w) { return numel(w) / (w->dim[0] ? (double)w->dim[0] : 1); }
static double convolution(const td_kargs *a) { return 2 * numel(a->out[0]) * kernel_size(a->in[1]); }
static double transposed(const td_kargs *a) { return 2 * numel(a->in[0]) * kernel_size(a->in[1]); }
static double weight_grad(const td_kargs *a) { return 2 * numel(a->in[1]) * kernel_size(a->out[0]); }

/* Those of gx, gw and gb that are wanted have elements. */
static double linear_backward(const td_kargs *a)
{
    double one = 2 * numel(a->in[0]) * last(a->in[1]);
    return one * (numel(a->out[0]) > 0) + one * (numel(a->out[1]) > 0);
}

/* Every step multiplies (N, I) by w_ih and (N, H) by w_hh; its gradients take each product twice. */
static double steps(const td_kargs *a, uint32_t w_ih, double input, double hidden)
{
    double rows = a->in[0]->nd == 3 ? (double)(a->in[0]->dim[0] * a->in[0]->dim[1]) : 0;
    return 2 * rows * (input * numel(a->in[w_ih]) + hidden * numel(a->in[w_ih + 1]));
}
static double lstm(const td_kargs *a) { return steps(a, 3, 1, 1); }
static double lstm_backward(const td_kargs *a) { return steps(a, 3, numel(a->out[0]) > 0 ? 2 : 1, 2); }
static double gru(const td_kargs *a) { return steps(a, 2, 1, 1); }
static double gru_backward(const td_kargs *a) { return steps(a, 2, numel(a->out[0]) > 0 ? 2 : 1, 2); }

/* q k^T and the product with v; a causal mask leaves half. Backward has five products, as it makes q k^T anew (Dao et al. 2022). */
static double attention(const td_view *q, const td_view *k, const td_view *v, bool is_causal)
{
    double pairs = numel(q) / last(q) * (k->nd > 1 ? (double)k->dim[k->nd - 2] : 1);
    return 2 * pairs * (last(q) + last(v)) * (is_causal ? 0.5 : 1);
}
static double attention_forward(const td_kargs *a)
{
    const td_scaled_dot_product_attention_attr *o = a->attr;
    return numel(a->in[0]) > 0 ? attention(a->in[0], a->in[1], a->in[2], o->is_causal) : 0;
}
static double attention_backward(const td_kargs *a)
{
    const td_scaled_dot_product_attention_backward_attr *o = a->attr;
    return numel(a->in[1]) > 0 ? 2.5 * attention(a->in[1], a->in[2], a->in[3], o->is_causal) : 0;
}

/* One for each element of the result. */
static double elementwise(const td_kargs *a) { return numel(a->out[0]); }

static const struct {
    const char *op;
    double (*flops)(const td_kargs *);
} known[] = {{"matmul", product},
             {"linear", product},
             {"linear_act", product},
             {"linear_act_backward", linear_backward},
             {"lstm", lstm},
             {"lstm_backward", lstm_backward},
             {"gru", gru},
             {"gru_backward", gru_backward},
             {"rnn", gru},
             {"rnn_backward", gru_backward},
             {"scaled_dot_product_attention", attention_forward},
             {"scaled_dot_product_attention_backward", attention_backward},
             {"conv2d", convolution},
             {"conv2d_act", convolution},
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

/* multihead_attention.c - attention in heads side by side (Vaswani et al. 2017, arXiv:1706.03762)
 *     q, k, v = thirds of in_proj_weight times query, key, value     y = out_proj(heads of softmax(q k^T / sqrt(D)) v)
 * query (T, N, E)   key, value (S, N, E), or (N, ., E) where batch first   H heads of D = E / H   y like query */
#include <math.h>
#include <tide/plugin.h>

typedef struct {
    int64_t embed_dim, num_heads;
    bool bias, batch_first, is_causal;
    double dropout;
} options;
static const td_opt opts[] = {
    TD_OPT(options, embed_dim, TD_O_INT, NULL, ">= 1, <= 16777216", "features of query, key, value and y"),
    TD_OPT(options, num_heads, TD_O_INT, NULL, ">= 1", "heads; divides embed_dim"),
    TD_OPT(options, bias, TD_O_BOOL, "true", NULL, "whether the projections have biases"),
    TD_OPT(options, batch_first, TD_O_BOOL, "false", NULL, "query and y (N, T, E) instead of (T, N, E)"),
    TD_OPT(options, is_causal, TD_O_BOOL, "false", NULL, "whether step i of query sees only steps 1..i of key"),
    TD_OPT(options, dropout, TD_O_NUM, "0", ">= 0, <= 1",
           "probability of a zero in place of a weight of attention, in training"),
};

static bool init(td_module *self, const void *given)
{
    const options *o = given;
    char child[96];
    if (o->embed_dim % o->num_heads)
        return td_fail("MultiheadAttention: num_heads: expected a divisor of embed_dim %lld, got %lld",
                       (long long)o->embed_dim, (long long)o->num_heads);
    double bound = sqrt(6.0 / (4.0 * (double)o->embed_dim)); /* Glorot & Bengio 2010, of (3E, E) */
    td_new_param(self, "in_proj_weight", td_dims(3 * o->embed_dim, o->embed_dim), "uniform", -bound, bound);
    if (o->bias) td_new_param(self, "in_proj_bias", td_dims(3 * o->embed_dim), "constant", 0, 0);
    snprintf(child, sizeof child, "{%lld, %lld, bias = %s}", (long long)o->embed_dim, (long long)o->embed_dim,
             o->bias ? "true" : "false");
    td_module *out = td_new_child(self, "out_proj", "Linear", child);
    return out && (!o->bias || td_zeros_into(td_param(out, "bias"), td_dims(o->embed_dim), TD_F32));
}

/* A projection (T, N, E) or (N, T, E) as heads (N, H, T, D). */
static td_tensor *heads(const options *o, td_tensor *p)
{
    p = td_reshape(p, td_dims(td_dim(p, 0), td_dim(p, 1), o->num_heads, o->embed_dim / o->num_heads));
    return td_permute(p, o->batch_first ? td_dims(0, 2, 1, 3) : td_dims(1, 2, 0, 3));
}

/* One third of the projection by itself. */
static td_tensor *project(td_module *self, const options *o, td_tensor *x, int64_t third)
{
    int64_t e = o->embed_dim;
    td_tensor *w = td_narrow(td_param(self, "in_proj_weight"), 0, third * e, e);
    return td_linear(x, w, o->bias ? td_narrow(td_param(self, "in_proj_bias"), 0, third * e, e) : NULL);
}

static bool shape_ok(const options *o, const char *name, td_tensor *x)
{
    return (td_ndim(x) == 3 && td_dim(x, 2) == o->embed_dim) ||
           td_fail_as(TD_ESHAPE, "MultiheadAttention: expected %s (%s, %lld), got %s", name,
                      o->batch_first ? "N, T" : "T, N", (long long)o->embed_dim, td_describe(x).s);
}

/* PyTorch's masks say true for what may not be seen; numbers are added to the scores. Together: what may be seen. */
static td_tensor *joined_mask(td_tensor *attn_mask, td_tensor *padding, int64_t n, int64_t h)
{
    td_tensor *mask = attn_mask, *pad = padding;
    bool numbers = (mask && td_dtype_of(mask) != TD_BOOL) || (pad && td_dtype_of(pad) != TD_BOOL);
    if (mask && td_ndim(mask) == 3) mask = td_reshape(mask, td_dims(n, h, td_dim(mask, 1), td_dim(mask, 2)));
    if (pad) pad = td_reshape(pad, td_dims(td_dim(pad, 0), 1, 1, td_dim(pad, 1)));
    td_tensor *part[] = {mask, pad}, *all = NULL;
    for (int i = 0; i < 2; i++) {
        td_tensor *m = part[i];
        if (!m) continue;
        if (!numbers) m = td_logical_not(m);
        else if (td_dtype_of(m) == TD_BOOL)
            m = td_where(m, td_full(td_dims_n(0, NULL), -INFINITY, TD_F32), td_zeros(td_dims_n(0, NULL), TD_F32));
        all = !all ? m : numbers ? td_add(all, m) : td_logical_and(all, m);
    }
    return all;
}

static bool masks_ok(td_tensor *attn_mask, td_tensor *padding, int64_t n, int64_t h, int64_t t, int64_t s)
{
    if (attn_mask) {
        int nd = td_ndim(attn_mask);
        bool fits = (nd == 2 || (nd == 3 && td_dim(attn_mask, 0) == n * h)) && td_dim(attn_mask, -2) == t &&
                    td_dim(attn_mask, -1) == s;
        if (!fits)
            return td_fail_as(
                TD_ESHAPE, "MultiheadAttention: expected attn_mask (%lld, %lld) or (%lld, %lld, %lld), got %s",
                (long long)t, (long long)s, (long long)(n * h), (long long)t, (long long)s, td_describe(attn_mask).s);
    }
    if (!padding || (td_ndim(padding) == 2 && td_dim(padding, 0) == n && td_dim(padding, 1) == s)) return true;
    return td_fail_as(TD_ESHAPE, "MultiheadAttention: expected key_padding_mask (%lld, %lld), got %s", (long long)n,
                      (long long)s, td_describe(padding).s);
}

/* What dropout keeps, drawn as nn.Dropout draws it: the same on every backend and for any number of threads. */
static td_tensor *drawn(td_ints shape, double p)
{
    return td_ge(td_random_bits(shape), td_integer((int64_t)(p * 4294967296.0)));
}

static td_tensor *attend(td_module *self, const options *o, td_tensor *query, td_tensor *key, td_tensor *value,
                         td_tensor *attn_mask, td_tensor *padding)
{
    td_tensor *q, *k, *v;
    if (key == query && value == query) { /* one product for all three */
        td_tensor *all =
            td_linear(query, td_param(self, "in_proj_weight"), o->bias ? td_param(self, "in_proj_bias") : NULL);
        td_tensor *part[3] = {NULL};
        uint32_t n = 3;
        if (!td_split(all, td_dims(o->embed_dim), 2, part, &n)) return NULL;
        q = heads(o, part[0]), k = heads(o, part[1]), v = heads(o, part[2]);
    } else {
        q = heads(o, project(self, o, query, 0));
        k = heads(o, project(self, o, key, 1));
        v = heads(o, project(self, o, value, 2));
    }
    if (td_failed()) return NULL;
    int64_t n = td_dim(q, 0), t = td_dim(q, 2), s = td_dim(k, 2);
    if (td_dim(k, 0) != n || td_dim(v, 0) != n || td_dim(v, 2) != s)
        return td_fail_as(TD_ESHAPE, "MultiheadAttention: query, key and value do not fit each other: %s, %s and %s",
                          td_describe(query).s, td_describe(key).s, td_describe(value).s);
    if (!masks_ok(attn_mask, padding, n, o->num_heads, t, s)) return NULL;
    td_tensor *mask = joined_mask(attn_mask, padding, n, o->num_heads);
    double p = td_training(self) ? o->dropout : 0;
    td_tensor *kept = p > 0 ? drawn(td_dims(n, o->num_heads, t, s), p) : NULL;
    td_tensor *y = td_scaled_dot_product_attention(q, k, v, mask, kept, o->is_causal, NAN, p);
    y = td_permute(y, o->batch_first ? td_dims(0, 2, 1, 3) : td_dims(2, 0, 1, 3));
    y = td_reshape(y, td_shape(query));
    return td_run_child(self, "out_proj", y);
}

static bool forward(td_module *self, td_tensor *const *in, uint32_t n_in, td_tensor **out)
{
    const options *o = td_options(self);
    td_tensor *query = in[0], *key = in[1] ? in[1] : query, *value = in[2] ? in[2] : key;
    (void)n_in;
    if (!shape_ok(o, "query", query) || !shape_ok(o, "key", key) || !shape_ok(o, "value", value)) return false;
    out[0] = attend(self, o, query, key, value, in[3], in[4]);
    return out[0] != NULL;
}

static bool sample(uint32_t i,
                   td_sample *s) /* self attention; another key, no bias; causal, batch first, padding; dropout */
{
    *(options *)s->opts = (options){4, 2, i != 1, i == 2, i == 2, i == 3 ? 0.5 : 0};
    s->in[0] = td_randn(td_dims(3, 2, 4), TD_F32);
    if (i == 1) s->in[1] = td_randn(td_dims(4, 2, 4), TD_F32);
    if (i == 2) s->in[4] = td_from_data(TD_BOOL, td_dims(3, 2), (const unsigned char[]){0, 0, 0, 1, 0, 0});
    return i < 4;
}

static const td_layer multihead_attention = {
    .size = sizeof multihead_attention,
    .kind = TD_LAYER,
    .name = "MultiheadAttention",
    .doc = "Attention in num_heads heads (Vaswani et al. 2017) of query (T, N, embed_dim) to key and value (S, N, "
           "embed_dim): key left out is query, value left out is key. attn_mask (T, S) or (N num_heads, T, S) and "
           "key_padding_mask (N, S), as PyTorch's, are true for what may not be seen, or numbers that are added to the "
           "scores. Parameters as PyTorch's: in_proj_weight, uniform in +-sqrt(6 / (4 embed_dim)), in_proj_bias, 0, "
           "and out_proj, a Linear whose bias starts at 0. dropout drops weights of attention, after the softmax.",
    .opts = TD_OPTS(options, opts),
    .in = "query key? value? attn_mask?~ key_padding_mask?~",
    .out = "y",
    .init = init,
    .forward = forward,
    .sample = sample,
};
static bool reg(void) { return td_add_layer(&multihead_attention); }
TD_PLUGIN("multihead_attention", "1.0", "MIT", "layer:MultiheadAttention", reg, NULL)

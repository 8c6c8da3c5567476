/* onednn.c - an overlay plugin for the device "cpu": conv2d, conv2d_act, conv_transpose2d (as the gradient for the input that it is) and
 * conv2d_weight_grad by oneDNN 2, f32.    Letters: N batch, C O channels, G groups, H W planes
 *
 * The library is loaded when a convolution first runs that it may be the best for; where it is missing, one line on stderr
 * says so and the backend's own kernels serve. Its build on OpenMP shares our pool and obeys its number of threads.
 *
 * oneDNN is at home in layouts of its own (channels in blocks of a vector, or innermost). A plan holds the primitive that
 * oneDNN itself prefers and the reorders from our layout and back, whose buffers lie in the workspace; channels-last images
 * are handed over as they are. What oneDNN is taken for is a rule of shapes (pays), not a race of timings, so that a script
 * computes the same bits in each run. TIDE_ONEDNN=0 in the environment leaves it out, TIDE_ONEDNN=1 takes it wherever it can
 * compute, and a path there is the library's. In run() oneDNN allocates no buffers, but a little list of arguments. */
#include "onednn_library.h"

/* ---- the problem ---- */

typedef enum { FORWARD, DATA, WEIGHTS } direction;

/** The convolution that a call is, or is a gradient of: src * weights -> dst. */
typedef struct {
    const char *op;
    direction dir;
    const td_view *src, *weights, *dst, *bias;
    int64_t groups;
    bool relu; /* of the result                                                                   */
    dnnl_dims_t stride, padding, dilation; /* two of each                                                */
} problem;

static int64_t pair(const td_ints *l, int i, int64_t none) { return l->n == 0 ? none : l->v[l->n > 1 ? i : 0]; }

static void set_options(problem *p, const td_ints *stride, const td_ints *padding, const td_ints *dilation,
                        int64_t groups)
{
    for (int i = 0; i < 2; i++) {
        p->stride[i] = pair(stride, i, 1);
        p->padding[i] = pair(padding, i, 0);
        p->dilation[i] = pair(dilation, i, 1);
    }
    p->groups = groups;
}

static problem conv2d_problem(const td_kargs *a)
{
    const td_conv2d_attr *o = a->attr;
    problem p = {
        .op = "conv2d", .dir = FORWARD, .src = a->in[0], .weights = a->in[1], .dst = a->out[0], .bias = a->in[2]};
    set_options(&p, &o->stride, &o->padding, &o->dilation, o->groups);
    return p;
}

/* The options of conv2d come first in those of conv2d_act. */
static problem conv2d_act_problem(const td_kargs *a)
{
    problem p = conv2d_problem(a);
    p.op = "conv2d_act";
    p.relu = ((const td_conv2d_act_attr *)a->attr)->activation == TD_CONV2D_ACT_RELU;
    return p;
}

static problem conv_transpose2d_problem(const td_kargs *a)
{
    const td_conv_transpose2d_attr *o = a->attr;
    problem p = {.op = "conv_transpose2d",
                 .dir = DATA,
                 .src = a->out[0],
                 .weights = a->in[1],
                 .dst = a->in[0],
                 .bias = a->in[2]};
    set_options(&p, &o->stride, &o->padding, &o->dilation, o->groups);
    return p;
}

static problem weight_grad_problem(const td_kargs *a)
{
    const td_conv2d_weight_grad_attr *o = a->attr;
    problem p = {.op = "conv2d_weight_grad", .dir = WEIGHTS, .src = a->in[0], .weights = a->out[0], .dst = a->in[1]};
    set_options(&p, &o->stride, &o->padding, &o->dilation, o->groups);
    return p;
}

/** Whether images lie in row-major order, or with channels innermost. */
static bool row_major(const td_view *v)
{
    return v->stride[3] == 1 && v->stride[2] == v->dim[3] && v->stride[1] == v->dim[2] * v->dim[3] &&
           v->stride[0] == v->dim[1] * v->stride[1];
}

static bool channels_last(const td_view *v)
{
    return v->stride[1] == 1 && v->stride[3] == v->dim[1] && v->stride[2] == v->dim[3] * v->stride[3] &&
           v->stride[0] == v->dim[2] * v->stride[2] && v->dim[1] > 1 && v->dim[2] * v->dim[3] > 1;
}

/** The operand that decides the order of the result: the one that is given. */
static const td_view *given(const problem *p) { return p->dir == DATA ? p->dst : p->src; }

/* Extents of v, and strides of a dense image of them in the order of p's operands. */
static void image_places(const problem *p, const td_view *v, dnnl_dims_t dims, dnnl_dims_t s)
{
    memcpy(dims, v->dim, 4 * sizeof *dims);
    if (channels_last(given(p))) {
        s[1] = 1;
        s[3] = v->dim[1];
        s[2] = v->dim[3] * s[3];
        s[0] = v->dim[2] * s[2];
    } else {
        s[3] = 1;
        s[2] = v->dim[3];
        s[1] = v->dim[2] * s[2];
        s[0] = v->dim[1] * s[1];
    }
}

/** Memory descriptors of an operand: as it lies in our tensors, and with the layout left to oneDNN. */
typedef struct {
    dnnl_memory_desc_t ours, any;
} descs;

static bool image_descs(const problem *p, const td_view *v, descs *d)
{
    dnnl_dims_t dims, strides;
    image_places(p, v, dims, strides);
    dnnl_format_tag_t tag = channels_last(given(p)) ? dnnl_nhwc : dnnl_format_tag_any;
    return !lib.memory_desc_init_by_strides(&d->ours, 4, dims, dnnl_f32, strides) &&
           !lib.memory_desc_init_by_tag(&d->any, 4, dims, dnnl_f32, tag);
}

/* Weights (O, C/G, KH, KW) are (G, O/G, C/G, KH, KW) where there are groups. */
static bool weight_descs(const problem *p, descs *d)
{
    const int64_t *w = p->weights->dim;
    dnnl_dims_t dims = {p->groups, w[0] / p->groups, w[1], w[2], w[3]}, strides = {0, 0, w[2] * w[3], w[3], 1};
    strides[1] = w[1] * strides[2];
    strides[0] = dims[1] * strides[1];
    int skip = p->groups == 1;
    if (skip)
        memmove(dims, dims + 1, sizeof dims - sizeof *dims),
            memmove(strides, strides + 1, sizeof strides - sizeof *strides);
    return !lib.memory_desc_init_by_strides(&d->ours, 5 - skip, dims, dnnl_f32, strides) &&
           !lib.memory_desc_init_by_tag(&d->any, 5 - skip, dims, dnnl_f32, dnnl_format_tag_any);
}

/** Gives a primitive's attributes a relu of its result. */
static bool add_relu(dnnl_primitive_attr_t attr)
{
    dnnl_post_ops_t ops;
    if (lib.post_ops_create(&ops)) return false;
    bool fine =
        !lib.post_ops_append_eltwise(ops, 1, dnnl_eltwise_relu, 0, 0) && !lib.primitive_attr_set_post_ops(attr, ops);
    lib.post_ops_destroy(ops);
    return fine;
}

/** The primitive's descriptor, or NULL if oneDNN has none; the caller destroys it. */
static dnnl_primitive_desc_t describe(const problem *p, descs *src, descs *weights, descs *dst,
                                      dnnl_memory_desc_t *bias)
{
    if (!image_descs(p, p->src, src) || !image_descs(p, p->dst, dst) || !weight_descs(p, weights)) return NULL;
    dnnl_dims_t dilates, right;
    for (int i = 0; i < 2; i++) {
        dilates[i] = p->dilation[i] - 1;
        int64_t window = (p->weights->dim[2 + i] - 1) * p->dilation[i] + 1;
        right[i] = (p->dst->dim[2 + i] - 1) * p->stride[i] + window - p->src->dim[2 + i] - p->padding[i];
    }
    dnnl_memory_desc_t *b = NULL;
    dnnl_dims_t channels = {p->dst->dim[1]};
    if (p->bias && !lib.memory_desc_init_by_tag(bias, 1, channels, dnnl_f32, dnnl_x)) b = bias;
    dnnl_convolution_desc_t forward, back;
    dnnl_primitive_attr_t attr = NULL;
    dnnl_primitive_desc_t hint = NULL, desc = NULL;
    if (lib.primitive_attr_create(&attr)) return NULL;
    bool fine = !lib.primitive_attr_set_scratchpad_mode(attr, dnnl_scratchpad_mode_user) &&
                (!p->relu || add_relu(attr)) &&
                !lib.dilated_convolution_forward_desc_init(&forward, dnnl_forward_training, dnnl_convolution_auto,
                                                           &src->any, &weights->any, b, &dst->any, p->stride, dilates,
                                                           p->padding, right) &&
                !lib.primitive_desc_create(&hint, &forward, attr, lib.engine, NULL);
    if (fine && p->dir == DATA)
        fine = !lib.dilated_convolution_backward_data_desc_init(&back, dnnl_convolution_auto, &src->any, &weights->any,
                                                                &dst->any, p->stride, dilates, p->padding, right);
    else if (fine && p->dir == WEIGHTS)
        fine =
            !lib.dilated_convolution_backward_weights_desc_init(&back, dnnl_convolution_auto, &src->any, &weights->any,
                                                                NULL, &dst->any, p->stride, dilates, p->padding, right);
    if (fine && p->dir != FORWARD && lib.primitive_desc_create(&desc, &back, attr, lib.engine, hint)) desc = NULL;
    if (fine && p->dir == FORWARD) desc = hint;
    else if (hint) lib.primitive_desc_destroy(hint);
    lib.primitive_attr_destroy(attr);
    return desc;
}

/* ---- plans ---- */

/** One operand: our memory, and oneDNN's where the layout differs. */
typedef struct {
    dnnl_memory_t ours, inner; /* inner: NULL if ours serves                                    */
    dnnl_primitive_t reorder;  /* ours -> inner, or for a result inner -> ours                  */
    size_t at;                 /* of inner in the workspace                                     */
} operand;

enum { SRC, KERNEL, DST, BIAS, OPERANDS };

typedef struct {
    dnnl_stream_t stream;
    dnnl_primitive_t run;
    operand o[OPERANDS];
    dnnl_memory_t scratch, reorder_scratch;
    size_t scratch_at, size; /* of the workspace                                              */
    int result;
} conv_plan;

static void plan_free(void *plan)
{
    conv_plan *c = plan;
    if (!c) return;
    for (int i = 0; i < OPERANDS; i++) {
        if (c->o[i].reorder) lib.primitive_destroy(c->o[i].reorder);
        if (c->o[i].inner) lib.memory_destroy(c->o[i].inner);
        if (c->o[i].ours) lib.memory_destroy(c->o[i].ours);
    }
    if (c->scratch) lib.memory_destroy(c->scratch);
    if (c->run) lib.primitive_destroy(c->run);
    if (c->stream) lib.stream_destroy(c->stream);
    free(c);
}

/** Room for desc in the workspace. */
static size_t reserve(conv_plan *c, const dnnl_memory_desc_t *desc)
{
    size_t at = c->size;
    c->size += (lib.memory_desc_get_size(desc) + 63) & ~(size_t)63;
    return at;
}

static bool add_operand(conv_plan *c, const char *op, int i, const dnnl_memory_desc_t *ours,
                        const dnnl_memory_desc_t *inner)
{
    operand *o = &c->o[i];
    if (!ok(lib.memory_create(&o->ours, ours, lib.engine, DNNL_MEMORY_NONE), op, "memory")) return false;
    if (lib.memory_desc_equal(ours, inner)) return true;
    bool back = i == c->result;
    dnnl_primitive_desc_t desc;
    if (!ok(lib.memory_create(&o->inner, inner, lib.engine, DNNL_MEMORY_NONE), op, "memory") ||
        !ok(lib.reorder_primitive_desc_create(&desc, back ? inner : ours, lib.engine, back ? ours : inner, lib.engine,
                                              NULL),
            op, "reorder"))
        return false;
    dnnl_status_t s = lib.primitive_create(&o->reorder, desc);
    lib.primitive_desc_destroy(desc);
    o->at = reserve(c, inner);
    return ok(s, op, "reorder");
}

static bool fill_plan(conv_plan *c, const problem *p, dnnl_primitive_desc_t desc, const descs *src,
                      const descs *weights, const descs *dst, const dnnl_memory_desc_t *bias)
{
    static const dnnl_query_t src_md[] = {dnnl_query_src_md, dnnl_query_diff_src_md, dnnl_query_src_md},
                              weights_md[] = {dnnl_query_weights_md, dnnl_query_weights_md, dnnl_query_diff_weights_md},
                              dst_md[] = {dnnl_query_dst_md, dnnl_query_diff_dst_md, dnnl_query_diff_dst_md};
    static const int result[] = {DST, SRC, KERNEL};
    const dnnl_memory_desc_t *scratch = lib.primitive_desc_query_md(desc, dnnl_query_scratchpad_md, 0);
    c->result = result[p->dir];
    c->scratch_at = reserve(c, scratch);
    return ok(lib.stream_create(&c->stream, lib.engine, dnnl_stream_default_flags), p->op, "stream") &&
           ok(lib.primitive_create(&c->run, desc), p->op, "convolution") &&
           ok(lib.memory_create(&c->scratch, scratch, lib.engine, DNNL_MEMORY_NONE), p->op, "memory") &&
           add_operand(c, p->op, SRC, &src->ours, lib.primitive_desc_query_md(desc, src_md[p->dir], 0)) &&
           add_operand(c, p->op, KERNEL, &weights->ours, lib.primitive_desc_query_md(desc, weights_md[p->dir], 0)) &&
           add_operand(c, p->op, DST, &dst->ours, lib.primitive_desc_query_md(desc, dst_md[p->dir], 0)) &&
           (!p->bias || add_operand(c, p->op, BIAS, bias, bias));
}

static bool make_plan(const problem *p, void **plan, size_t *ws_size)
{
    descs src, weights, dst;
    dnnl_memory_desc_t bias;
    dnnl_primitive_desc_t desc = describe(p, &src, &weights, &dst, &bias);
    if (!desc) return td_fail_as(TD_EPLUGIN, "%s: oneDNN: no primitive for this shape", p->op);
    conv_plan *c = calloc(1, sizeof *c);
    bool made = c && fill_plan(c, p, desc, &src, &weights, &dst, &bias);
    if (!c) td_fail_as(TD_ENOMEM, "%s: out of memory", p->op);
    lib.primitive_desc_destroy(desc);
    if (!made) {
        plan_free(c);
        return false;
    }
    *plan = c;
    *ws_size = c->size;
    return true;
}

/* ---- running ---- */

static bool reorder(const conv_plan *c, const char *op, int i)
{
    const operand *o = &c->o[i];
    if (!o->reorder) return true;
    bool back = i == c->result;
    dnnl_exec_arg_t args[] = {{DNNL_ARG_FROM, back ? o->inner : o->ours}, {DNNL_ARG_TO, back ? o->ours : o->inner}};
    return ok(lib.primitive_execute(o->reorder, c->stream, 2, args), op, "reorder");
}

static bool place(const conv_plan *c, const problem *p, int i, const td_view *v, char *ws)
{
    const operand *o = &c->o[i];
    return ok(lib.memory_set_data_handle(o->ours, v->p), p->op, "memory") &&
           (!o->inner || ok(lib.memory_set_data_handle(o->inner, ws + o->at), p->op, "memory")) &&
           (i == c->result || reorder(c, p->op, i));
}

static bool run(const td_kargs *a, const problem *p)
{
    static const int args_of[][OPERANDS] = {{DNNL_ARG_SRC, DNNL_ARG_WEIGHTS, DNNL_ARG_DST, DNNL_ARG_BIAS},
                                            {DNNL_ARG_DIFF_SRC, DNNL_ARG_WEIGHTS, DNNL_ARG_DIFF_DST, 0},
                                            {DNNL_ARG_SRC, DNNL_ARG_DIFF_WEIGHTS, DNNL_ARG_DIFF_DST, 0}};
    const conv_plan *c = a->plan;
    const td_view *views[] = {p->src, p->weights, p->dst, p->bias};
    dnnl_exec_arg_t args[OPERANDS + 1] = {{DNNL_ARG_SCRATCHPAD, c->scratch}};
    int n = 1;
    if (!ok(lib.memory_set_data_handle(c->scratch, (char *)a->ws + c->scratch_at), p->op, "memory")) return false;
    for (int i = 0; i < OPERANDS; i++) {
        if (!views[i]) continue;
        if (!place(c, p, i, views[i], a->ws)) return false;
        args[n++] = (dnnl_exec_arg_t){args_of[p->dir][i], c->o[i].inner ? c->o[i].inner : c->o[i].ours};
    }
    return ok(lib.primitive_execute(c->run, c->stream, n, args), p->op, "convolution") &&
           reorder(c, p->op, c->result) && ok(lib.stream_wait(c->stream), p->op, "convolution");
}

/* ---- what it is taken for ---- */

/** Whether oneDNN is the faster, as measured by scripts/bench/ops.lua against conv.c, conv_pixels.c and winograd.c (Zen 3,
 *  AVX2), reorders included: kernels of 1x1 with many weights, by 15 to 35 %; with a stride, the weight gradient of many
 *  weights (its sums leave our caches), and with channels innermost the weight gradient of 1x1 and the few colours of a
 *  network's first layer, by a third to a half. Elsewhere ours are as fast in its favourite order of axes and faster in others. */
static bool pays(const problem *p)
{
    const int64_t *w = p->weights->dim, c = p->src->dim[1], o = p->dst->dim[1];
    double products = (double)td_view_numel(p->dst) * (double)c;
    bool points = w[2] == 1 && w[3] == 1, strided = p->stride[0] > 1 && p->stride[1] > 1,
         last = channels_last(given(p));
    if (p->groups != 1 || o % 8) return false;
    if (strided && last && p->dir == FORWARD && c <= 4 && w[2] > 3 && w[3] > 3) return true;
    if (c % 8) return false;
    if (points && c * o >= 1 << 16) return products >= 1 << 20;
    if (strided && p->dir == WEIGHTS) return points ? last && c * o < 1 << 14 : c * o >= 1 << 17;
    return false;
}

static bool accepts(const problem *p)
{
    const char *wanted = getenv("TIDE_ONEDNN"), *isa = getenv("TIDE_CPU_ISA");
    if ((wanted && !strcmp(wanted, "0")) || (isa && !strcmp(isa, "plain"))) return false;
    const td_view *v[] = {p->src, p->weights, p->dst};
    for (int i = 0; i < 3; i++)
        for (int k = 0; k < 4; k++)
            if (v[i]->dim[k] < 1 || v[i]->dim[k] > INT32_MAX) return false;
    if (!(wanted && !strcmp(wanted, "1")) && !pays(p)) return false;
    bool last = channels_last(given(p));
    if (!row_major(p->weights) || (p->dir == DATA && p->bias) || (p->bias && p->bias->stride[0] != 1)) return false;
    if (!last && !row_major(given(p))) return false;
    if (p->dir == WEIGHTS && (last ? !channels_last(p->dst) : !row_major(p->dst))) return false;
    if (!loaded()) return false;
    descs src, weights, dst;
    dnnl_memory_desc_t bias;
    dnnl_primitive_desc_t desc = describe(p, &src, &weights, &dst, &bias);
    if (desc) lib.primitive_desc_destroy(desc);
    return desc != NULL;
}

/** A result has channels innermost where the operand has. */
static bool layout_like_given(const td_kargs *a, td_view *const *out)
{
    td_view *y = out[0];
    if (!channels_last(a->in[0])) return true;
    y->stride[1] = 1;
    y->stride[3] = y->dim[1];
    y->stride[2] = y->dim[3] * y->stride[3];
    y->stride[0] = y->dim[2] * y->stride[2];
    return true;
}

#define HOOKS(name)                                                    \
    static bool accepts_##name(const td_kargs *a)                      \
    {                                                                  \
        problem p = name##_problem(a);                                 \
        return accepts(&p);                                            \
    }                                                                  \
    static bool plan_##name(const td_kargs *a, void **plan, size_t *n) \
    {                                                                  \
        problem p = name##_problem(a);                                 \
        return make_plan(&p, plan, n);                                 \
    }                                                                  \
    static bool run_##name(const td_kargs *a)                          \
    {                                                                  \
        problem p = name##_problem(a);                                 \
        return run(a, &p);                                             \
    }
HOOKS(conv2d)
HOOKS(conv2d_act)
HOOKS(conv_transpose2d)
HOOKS(weight_grad)

enum { BEFORE_OURS = 20 };
#define KERNEL_ROW(op_, name, ...)                                                                               \
    {                                                                                                            \
        .size = sizeof(td_kernel), .op = (op_), .device = "cpu", .dtypes = TD_BIT(TD_F32),                       \
        .flags = TD_K_STRIDED | TD_K_CAPTURABLE | TD_K_DETERMINISTIC, .priority = BEFORE_OURS,                   \
        .accepts = accepts_##name, .plan = plan_##name, .plan_free = plan_free, .run = run_##name, ##__VA_ARGS__ \
    }
static const td_kernel rows[] = {
    KERNEL_ROW("conv2d", conv2d, .layout = layout_like_given),
    KERNEL_ROW("conv2d_act", conv2d_act, .layout = layout_like_given),
    KERNEL_ROW("conv_transpose2d", conv_transpose2d, .layout = layout_like_given),
    KERNEL_ROW("conv2d_weight_grad", weight_grad),
};

static bool reg(void)
{
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (!td_add_kernel(&rows[i])) return false;
    return true;
}

TD_PLUGIN("backend_cpu_onednn", "0.1.0", "MIT",
          "kernel:conv2d@cpu kernel:conv2d_act@cpu kernel:conv_transpose2d@cpu kernel:conv2d_weight_grad@cpu", reg,
          NULL)

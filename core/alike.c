/* alike.c - the short way through the waist for most small ops: TD_OP_ALIKE, inputs that are dense f32 or f64 tensors of one shape on
 * one device (or plain numbers beside one), and a kernel that asks nothing. What it does not take goes the whole way. */
#include "plan.h"
#include "run.h"

/* The first tensor among the inputs that others must be like; NULL: not for us. */
static const td_tensor *tensor_among(td_tensor *const *in, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        if (!in[i]) return NULL;
        if (in[i]->st) return in[i]->v.dt <= TD_F64 && !(in[i]->v.flags & TD_V_NUMBER) ? in[i] : NULL;
        if (!tdi_is_number(in[i])) return NULL;
    }
    return NULL;
}

/* Elements of a dense view; 0: none, or not dense. */
static int64_t dense_numel(const td_view *v)
{
    int64_t n = 1;
    if (v->layout) return 0;
    for (int32_t i = v->nd - 1; i >= 0; i--) {
        if (v->dim[i] != 1 && v->stride[i] != n) return 0;
        n *= v->dim[i];
    }
    return n;
}

/* like is dense. */
static bool alike(const td_tensor *t, const td_tensor *like)
{
    if (!t || !t->st || t->st->dev != like->st->dev || t->v.dt != like->v.dt || t->v.flags & TD_V_NUMBER) return false;
    if (t->v.nd != like->v.nd || t->v.layout) return false;
    bool same = true;
    for (int32_t i = 0; i < t->v.nd; i++) {
        if (t->v.dim[i] != like->v.dim[i]) return false;
        same &= t->v.stride[i] == like->v.stride[i];
    }
    return same || td_view_dense(&t->v);
}

/* The kernel that certainly runs; NULL: overlays are still to be looked for, it has questions, or there is none. */
static const td_kernel *plain_kernel(tdi_op *op, const td_device *dev, td_dtype dt)
{
    if (!atomic_load_explicit(&op->overlays_sought[dev->be->id], memory_order_acquire)) return NULL;
    const tdi_chain *chain = atomic_load_explicit(&op->chain[dev->be->id], memory_order_acquire);
    for (uint32_t i = 0; chain && i < chain->n; i++) {
        const td_kernel *k = &chain->k[i]->t;
        if (k->dtypes & TD_BIT(dt)) return k->accepts || k->plan || k->layout ? NULL : k;
    }
    return NULL;
}

static td_tensor *fresh_like(const td_tensor *like, size_t bytes)
{
    td_tensor *t = tdi_tensor_alloc();
    if (!t) return NULL;
    t->v.dt = like->v.dt;
    t->v.nd = like->v.nd;
    memcpy(t->v.dim, like->v.dim, sizeof t->v.dim); /* whole: the compiler needs no call for it */
    memcpy(t->v.stride, like->v.stride, sizeof t->v.stride);
    if (tdi_tensor_give(t, like->st->dev, bytes)) return t;
    tdi_release(t);
    return NULL;
}

bool tdi_run_alike(tdi_op *op, td_context *ctx, td_tensor *const *in, uint32_t n, const void *attr, td_tensor **out,
                   bool *ok)
{
    const td_tensor *like = tensor_among(in, n);
    int64_t numel = like ? dense_numel(&like->v) : 0;
    if (!numel) return false;
    tdi_runner r;
    const td_view *iv[TDI_ALIKE_MAX], *ov[1];
    r.n_number = 0;
    bool wants_grad = false;
    for (uint32_t i = 0; i < n; i++) {
        if (in[i] != like && !alike(in[i], like)) {
            if (!in[i] || !tdi_is_number(in[i])) return false;
            tdi_number_as(&in[i]->v, like->v.dt, &r.number[r.n_number], &r.number_data[r.n_number]);
            iv[i] = &r.number[r.n_number++];
            continue;
        }
        iv[i] = &in[i]->v;
        wants_grad |= tdi_needs_grad(in[i]);
        if (in[i]->is_view && in[i]->node) return false; /* it may be stale */
    }
    td_device *dev = like->st->dev;
    if (!dev->unified && r.n_number) return false;
    wants_grad &= ctx->grad;
    if (wants_grad && !op->t.backward) return false;
    const tdi_choice c = {plain_kernel(op, dev, like->v.dt), NULL, 0, NULL};
    td_tensor *y;
    if (!c.kernel || !(y = fresh_like(like, (size_t)numel * td_dtype_size(like->v.dt))))
        return false; /* short of memory: the whole way says so */
    ov[0] = &y->v;
    r.op = op, r.ctx = ctx, r.dev = dev, r.in = in, r.into = NULL, r.attr = attr, r.n_in = n, r.n_list = 0;
    r.n_out = 1, r.iv = iv, r.ov = ov, r.out = &y;
    *ok = tdi_call_kernel(&r, &c, like->v.dt);
    if (*ok && wants_grad) {
        tdi_recording rec = {.op = op,
                             .in = in,
                             .out = &y,
                             .n_in = n,
                             .n_out = 1,
                             .attr = attr,
                             .random = {ctx->random[0], ctx->random[1]},
                             .alike = true};
        *ok = tdi_record(&rec);
    }
    if (*ok) *ok = (*out = tdi_own(ctx, y)) != NULL;
    else tdi_release(y);
    return true;
}

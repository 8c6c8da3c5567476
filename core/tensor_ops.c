/* tensor_ops.c - what the core does with tensors by ops: copies, moves between devices, assignment. */
#include "autograd.h"
#include "dispatch.h"
#include "plan.h"
#include "trace.h"
#include <string.h>

/* Any op by name, looked up once. */
static tdi_op *named(tdi_op **cache, const char *name)
{
    if (!*cache) *cache = tdi_op_find(name);
    if (!*cache && !tdi_failed()) td_fail_as(TD_ENOKERNEL, "the op %s is not registered", name);
    return *cache;
}

bool tdi_copy_raw(td_tensor *dst, const td_tensor *src)
{
    static tdi_op *copy, *cast;
    td_device *dev = dst->st->dev;
    tdi_op *op = dst->v.dt == src->v.dt ? named(&copy, "copy") : named(&cast, "cast");
    if (!op) return false;
    if (!td_view_numel(&dst->v)) return true;
    td_cast_attr to = {.dtype = dst->v.dt};
    const td_view *in = &src->v, *out = &dst->v;
    td_kargs a = {.n_in = 1,
                  .n_out = 1,
                  .compute = src->v.dt,
                  .in = &in,
                  .out = &out,
                  .attr = &to,
                  .stream = dev->stream,
                  .dev = dev->handle,
                  .ordinal = dev->ordinal};
    tdi_choice c;
    if (!tdi_choose(tdi_ctx(), op, dev, &a, &c)) return false;
    if (!c.kernel)
        return td_fail_as(TD_ENOKERNEL, "%s: no kernel on %s for %s", op->t.name, dev->name, td_dtype_name(src->v.dt));
    a.plan = c.plan;
    if (tdi_ctx()->trace && !tdi_trace_kernel(tdi_ctx(), op, &c, &a, dev, NULL, 0)) return false;
    if (c.kernel->run(&a)) return !tdi_failed();
    return tdi_failed()
               ? false
               : td_fail_as(TD_EPLUGIN, "%s: its kernel on %s failed without saying why", op->t.name, dev->name);
}

td_tensor *tdi_materialize(const td_tensor *number, td_dtype dt, td_device *dev)
{
    td_context *ctx = tdi_ctx();
    td_device *before = ctx->device;
    bool grad = td_grad_enable(false);
    double value = number->v.dt == TD_I64 ? (double)number->num.i : number->num.d;
    ctx->device = dev;
    td_tensor *t = td_full(td_dims_n(0, NULL), value, dt);
    ctx->device = before;
    td_grad_enable(grad);
    return t;
}

td_tensor *td_tensor_dense(td_tensor *t)
{
    if (tdi_failed() || !t) return NULL;
    return td_view_dense(&t->v) ? t : td_copy(t);
}

/* ---- between devices ---- */

typedef struct {
    td_device *from, *to;
} move_attr;

static td_tensor *moved(td_tensor *t, td_device *to);

static bool move_backward(const td_call *c, td_tensor *const *gout, td_tensor **gin, uint64_t need)
{
    (void)need;
    gin[0] = moved(gout[0], ((const move_attr *)c->attr)->from);
    return gin[0] != NULL;
}

static tdi_op move_op = {.t = {.size = sizeof(td_op),
                               .name = "to",
                               .doc = "x on another device",
                               .in = "x",
                               .out = "y",
                               .flags = TD_OP_BWD_DIFF,
                               .attr = {sizeof(move_attr), 0, sizeof(td_opt), NULL},
                               .backward = move_backward},
                         .in = {.n = 1, .name = {"x"}},
                         .out = {.n = 1, .name = {"y"}}};

/* Dense bytes from one device to another: through the host where neither reaches the other. */
static bool copy_between(td_tensor *dst, const td_tensor *src, size_t bytes)
{
    td_device *a = src->st->dev, *b = dst->st->dev;
    if (a->be == b->be && a->be->t.peer)
        return a->be->t.peer(b->handle, b->stream, dst->v.p, a->handle, src->v.p, bytes);
    const td_backend *from = &a->be->t, *to = &b->be->t;
    if (a->unified) return to->copy(b->handle, b->stream, dst->v.p, src->v.p, bytes, TD_H2D);
    if (b->unified)
        return from->copy(a->handle, a->stream, dst->v.p, src->v.p, bytes, TD_D2H) &&
               (!from->stream_sync || from->stream_sync(a->handle, a->stream));
    td_device *host = tdi_device("cpu");
    td_storage *st = host ? tdi_storage_new(host, bytes) : NULL;
    bool ok = st && from->copy(a->handle, a->stream, st->p, src->v.p, bytes, TD_D2H) &&
              (!from->stream_sync || from->stream_sync(a->handle, a->stream)) &&
              to->copy(b->handle, b->stream, dst->v.p, st->p, bytes, TD_H2D) &&
              (!to->stream_sync || to->stream_sync(b->handle, b->stream));
    tdi_storage_release(st);
    return ok;
}

static td_tensor *moved(td_tensor *t, td_device *to)
{
    if (!t || !to || tdi_failed()) return NULL;
    if (tdi_is_number(t)) return tdi_materialize(t, t->v.dt, to);
    if (t->st->dev == to) return t;
    if (tdi_ctx()->trace) return tdi_trace_refuse("a move between devices"), NULL;
    bool grad = td_grad_enable(false);
    td_tensor *src = td_tensor_dense(t), *y = src ? tdi_tensor_alloc() : NULL;
    td_grad_enable(grad);
    if (!y) return NULL;
    y->v.dt = t->v.dt;
    y->v.nd = t->v.nd;
    memcpy(y->v.dim, t->v.dim, sizeof y->v.dim);
    tdi_dense_strides(&y->v);
    size_t bytes = (size_t)td_view_numel(&y->v) * td_dtype_size(y->v.dt);
    bool ok = tdi_tensor_allocate(y, to) && (!bytes || copy_between(y, src, bytes));
    if (ok && grad && tdi_needs_grad(t)) {
        move_attr attr = {t->st->dev, to};
        ok = tdi_record(&(tdi_recording){.op = &move_op, .in = &t, .out = &y, .n_in = 1, .n_out = 1, .attr = &attr});
    }
    if (ok) return tdi_own(tdi_ctx(), y);
    if (!tdi_failed()) td_fail_as(TD_EDEVICE, "to: copying from %s to %s failed", t->st->dev->name, to->name);
    tdi_release(y);
    return NULL;
}

td_tensor *td_tensor_to(td_tensor *t, const char *device)
{
    return tdi_failed() || !t ? NULL : moved(t, tdi_device(device));
}

td_tensor *td_tensor_assign(td_tensor *dst, td_tensor *src)
{
    if (tdi_failed() || !dst || !src) return NULL;
    if (tdi_is_number(dst)) return td_fail("assignment: a plain number cannot be assigned to");
    if (!tdi_is_number(src)) src = moved(src, dst->st->dev);
    if (!src) return NULL;
    bool extra = src->v.nd > dst->v.nd; /* leading axes of extent 1 may go, as in PyTorch */
    for (int32_t i = 0; extra && i < src->v.nd - dst->v.nd; i++)
        if (src->v.dim[i] != 1)
            return td_fail_as(TD_ESHAPE, "assignment: %s does not fit into %s", tdi_describe(src), tdi_describe(dst));
    if (extra) src = td_reshape(src, td_shape(dst));
    td_dtype from = src ? src->v.dt : TD_F32;
    if (src && from != dst->v.dt) src = td_cast(src, dst->v.dt);
    if (src) src = td_expand(src, td_shape(dst));
    return src ? td_copy_into(dst, src) : NULL;
}

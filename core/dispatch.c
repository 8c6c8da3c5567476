/* dispatch.c - the waist: infer shapes, pick the kernel, allocate outputs, run, record. See DESIGN.md, "The waist". */
#include "interrupt.h"
#include "plan.h"
#include "profile.h"
#include "run.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- inputs ---- */

const char *tdi_place_name(const tdi_op *op, uint32_t place, uint32_t n_list)
{
    static __thread char text[48];
    for (uint32_t i = 0; i < op->in.n; i++) {
        bool list = op->in.list >> i & 1;
        uint32_t places = list ? n_list : 1;
        if (place < places) {
            if (!list) return op->in.name[i];
            snprintf(text, sizeof text, "%s[%u]", op->in.name[i], place + 1);
            return text;
        }
        place -= places;
    }
    return "?";
}

static uint8_t marks_of(const tdi_sig *s, uint32_t name)
{
    uint64_t bit = 1ull << name;
    return (uint8_t)((s->optional & bit ? TDI_OPTIONAL : 0) | (s->index & bit ? TDI_INDEX : 0) |
                     (s->mask & bit ? TDI_MASK : 0) | (s->scalar & bit ? TDI_SCALAR : 0) |
                     (s->written & bit ? TDI_WRITTEN : 0));
}

static bool count_places(tdi_runner *r)
{
    const tdi_sig *s = &r->op->in;
    if (!s->list) {
        if (r->n_in == s->n) {
            for (uint32_t i = 0; i < s->n; i++) r->marks[i] = marks_of(s, i);
            return true;
        }
        return td_fail("%s: expected %u inputs (%s), got %u", r->op->t.name, s->n, r->op->t.in, r->n_in);
    }
    uint32_t lists = (uint32_t)__builtin_popcountll(s->list), single = s->n - lists;
    if (r->n_in < single || (r->n_in - single) % lists)
        return td_fail("%s: %u inputs do not fit the signature %s", r->op->t.name, r->n_in, r->op->t.in);
    r->n_list = (r->n_in - single) / lists;
    uint32_t at = 0;
    for (uint32_t i = 0; i < s->n; i++) {
        uint32_t places = s->list >> i & 1 ? r->n_list : 1;
        for (uint32_t k = 0; k < places; k++) r->marks[at++] = marks_of(s, i);
    }
    return true;
}

static bool no_data(const tdi_runner *r, uint32_t i)
{
    const td_tensor *t = r->in[i];
    if (t->stale)
        return td_fail("backward: a tensor %s that %s saved was changed in place afterwards", tdi_describe(t),
                       t->num.saved_by);
    return td_fail_as(TD_EPLUGIN, "%s: the data of input %s was not saved for backward", r->op->t.name,
                      tdi_place_name(r->op, i, r->n_list));
}

static bool check_inputs(tdi_runner *r)
{
    td_device *dev = NULL;
    for (uint32_t i = 0; i < r->n_in; i++) {
        td_tensor *t = r->in[i];
        if (!t) {
            if (!(r->marks[i] & TDI_OPTIONAL))
                return td_fail("%s: input %s is missing", r->op->t.name, tdi_place_name(r->op, i, r->n_list));
            r->iv[i] = NULL;
            continue;
        }
        if (t->shell) return no_data(r, i);
        r->iv[i] = &t->v;
        r->wants_grad |= tdi_needs_grad(t);
        if (!t->st) continue;
        if (dev && t->st->dev != dev)
            return td_fail_as(TD_EDEVICE, "%s: inputs are on different devices: %s and %s", r->op->t.name, dev->name,
                              t->st->dev->name);
        dev = t->st->dev;
    }
    r->dev = dev ? dev : tdi_device_default(r->ctx);
    r->wants_grad &= r->ctx->grad;
    return r->dev != NULL;
}

static bool stale_view(const td_tensor *t)
{
    return t->is_view && t->node && t->st &&
           atomic_load_explicit(&t->st->rebased, memory_order_relaxed) != t->view_version;
}

static bool check_views_fresh(const tdi_runner *r)
{
    for (uint32_t i = 0; i < r->n_in; i++)
        if (r->in[i] && stale_view(r->in[i]))
            return td_fail("%s: input %s is a view whose base was changed in place after the view was taken",
                           r->op->t.name, tdi_place_name(r->op, i, r->n_list));
    return true;
}

/* ---- outputs ---- */

/* Fresh tensor structs, preset for infer: like input 0, in the compute dtype. */
static bool make_outputs(tdi_runner *r)
{
    r->n_out = r->op->out.list ? TD_MAX_OUT : r->op->out.n;
    const td_view *like = r->n_in ? r->iv[0] : NULL;
    for (uint32_t i = 0; i < r->n_out; i++) {
        td_tensor *t = tdi_tensor_alloc();
        if (!t) {
            r->n_out = i;
            return false;
        }
        t->v.dt = r->compute;
        if (like) {
            t->v.nd = like->nd;
            for (int32_t k = 0; k < like->nd; k++) t->v.dim[k] = like->dim[k];
        }
        r->out[i] = t;
        r->ov[i] = &t->v;
    }
    return true;
}

void tdi_drop_outputs(tdi_runner *r, uint32_t from)
{
    for (uint32_t i = from; i < r->n_out; i++) tdi_release(r->out[i]);
    r->n_out = from;
}

static bool infer(tdi_runner *r)
{
    const td_op *op = &r->op->t;
    if (!op->infer) return true;
    td_infer q = {r->n_in,   r->n_list, r->iv, r->attr, r->op->out.list ? 1 : r->n_out, (td_view *const *)r->ov,
                  r->compute};
    uint32_t room = r->n_out;
    if (!op->infer(&q)) {
        if (!tdi_failed()) td_fail_as(TD_EPLUGIN, "%s: its shape rule failed without saying why", op->name);
        return false;
    }
    if (tdi_failed()) return false;
    if (q.n_out > room)
        return td_fail_as(TD_EPLUGIN, "%s: its shape rule asks for %u outputs, at most %u", op->name, q.n_out, room);
    tdi_drop_outputs(r, q.n_out);
    r->compute = q.compute;
    if ((uint32_t)r->compute >= TD_N_DTYPES)
        return td_fail_as(TD_EPLUGIN, "%s: its shape rule gives no dtype", op->name);
    for (uint32_t i = 0; i < r->n_out; i++) {
        const td_view *v = r->ov[i];
        size_t bytes;
        if (v->nd < 0 || v->nd > TD_MAX_DIM || (uint32_t)v->dt >= TD_N_DTYPES)
            return td_fail_as(TD_EPLUGIN, "%s: its shape rule gives output %u %d axes and dtype %d", op->name, i + 1,
                              v->nd, (int)v->dt);
        if (!tdi_view_bytes(op->name, v, &bytes)) return false;
    }
    return true;
}

/* Results that were not written to the given outputs directly go there now. */
static bool deliver(tdi_runner *r)
{
    for (uint32_t i = 0; i < r->n_out; i++) {
        td_tensor *to = r->into[i];
        if (r->ov[i] != &to->v && td_view_numel(&to->v) && !tdi_copy_raw(to, r->out[i])) return false;
        tdi_release(r->out[i]);
        r->out[i] = tdi_keep(to);
    }
    return true;
}

static bool is_differentiable(const tdi_runner *r)
{
    for (uint32_t i = 0; i < r->n_out; i++)
        if (td_dtype_is_float(r->out[i]->v.dt) && !((r->op->out.aux | r->op->out.index) >> i & 1)) return true;
    return false;
}

static bool check_nan(tdi_runner *r)
{
    td_context *ctx = r->ctx;
    bool grad = ctx->grad, bad = false;
    ctx->anomaly = ctx->grad = false;
    tdi_scope_push();
    for (uint32_t i = 0; i < r->n_out && !bad && !ctx->err; i++) {
        if (!td_dtype_is_float(r->out[i]->v.dt) || (r->op->out.aux >> i & 1) || !strcmp(r->op->t.name, "empty"))
            continue;
        td_ints all = {0, {0}};
        td_tensor *any = td_any(td_isnan(r->out[i]), all, false);
        if (any) TD->item(any, TD_BOOL, &bad);
    }
    tdi_scope_pop(NULL);
    ctx->anomaly = true;
    ctx->grad = grad;
    if (bad) td_fail("%s made a NaN", r->op->t.name);
    return !ctx->err;
}

/* ---- the waist ---- */

static bool record(tdi_runner *r)
{
    tdi_recording rec = {.op = r->op,
                         .in = r->in,
                         .out = r->out,
                         .n_in = r->n_in,
                         .n_list = r->n_list,
                         .n_out = r->n_out,
                         .attr = r->attr,
                         .random = {r->random[0], r->random[1]},
                         .in_place = r->into != NULL};
    return tdi_record(&rec);
}

static bool run_op(tdi_runner *r)
{
    const td_op *op = &r->op->t;
    if (!count_places(r) || !check_inputs(r)) return false;
    if (r->wants_grad && !check_views_fresh(r)) return false;
    if (r->op->in.written && !tdi_check_written_inputs(r)) return false;
    r->compute =
        op->flags & TD_OP_NO_PROMOTE && r->n_in && r->iv[0] ? r->iv[0]->dt : tdi_promote(r->iv, r->marks, r->n_in);
    if (!make_outputs(r) || !infer(r)) return false;
    if (r->into && !tdi_check_into(r)) return false;
    r->random[0] = r->ctx->random[0];
    r->random[1] = r->ctx->random[1];
    bool through = false; /* recorded by its parts */
    if (op->flags & TD_OP_VIEW) {
        if (!tdi_run_view(r)) return false;
    } else if (r->wants_grad && !op->backward && op->decompose) {
        through = true;
        if (!tdi_run_decompose(r)) return false;
    } else if (!tdi_compute(r)) {
        return false;
    }
    if (r->into && through) { /* the parts are recorded: the assignment must be, too */
        for (uint32_t i = 0; i < r->n_out; i++)
            if (!td_copy_into(r->into[i], r->out[i])) return false;
        for (uint32_t i = 0; i < r->n_out; i++) {
            tdi_release(r->out[i]);
            r->out[i] = tdi_keep(r->into[i]);
        }
        return true;
    }
    if (r->into && !deliver(r)) return false;
    if (r->ctx->anomaly && !check_nan(r)) return false;
    bool rec = (r->wants_grad || (r->into && r->ctx->grad && r->n_out && r->into[0]->node)) && !through &&
               is_differentiable(r);
    if (rec && !record(r)) return false;
    tdi_bump_versions(r, rec);
    return true;
}

/* An error from within, such as the allocator's or one of a part's, is told as that of the op that was called. */
static void name_op(const td_context *ctx, const char *op)
{
    size_t n = strlen(op);
    bool named = !strncmp(ctx->msg, op, n) && strchr(": ", ctx->msg[n]);
    if (!named && !ctx->recursion && strcmp(ctx->msg, "interrupted")) tdi_error_prefix("%s: ", op);
}

static void blame(const td_context *ctx, const tdi_op *op)
{
    if (!ctx->err) td_fail_as(TD_EPLUGIN, "%s failed without saying why", op->t.name);
    name_op(ctx, op->t.name);
}

/* Any op, by all the steps. */
static bool run_whole(tdi_op *op, td_context *ctx, td_tensor *const *in, uint32_t n_in, const void *attr,
                      td_tensor *const *into, td_tensor **out, uint32_t *n_out)
{
    const td_view *few_iv[FEW], *ov[TD_MAX_OUT];
    td_tensor *few_tmp[FEW + 1], *outs[TD_MAX_OUT];
    uint8_t few_marks[FEW];
    tdi_runner r;
    r.op = op, r.ctx = ctx, r.dev = NULL, r.in = in, r.into = into, r.attr = attr, r.n_in = n_in, r.n_list = 0,
    r.n_out = 0;
    r.wants_grad = false, r.n_tmp = 0, r.n_number = 0, r.out = outs, r.ov = ov;
    void *heap = NULL;
    if (n_in <= FEW) {
        r.iv = few_iv;
        r.tmp = few_tmp;
        r.marks = few_marks;
    } else {
        heap = malloc(n_in * (sizeof *r.iv + sizeof *r.tmp + 1) + sizeof *r.tmp);
        if (!heap) return td_fail_as(TD_ENOMEM, "%s: out of memory", op->t.name);
        r.iv = heap;
        r.tmp = (td_tensor **)(r.iv + n_in);
        r.marks = (uint8_t *)(r.tmp + n_in + 1);
    }
    bool ok = run_op(&r);
    TD_ASSERT(r.n_tmp <= n_in + 1);
    for (uint32_t i = 0; i < r.n_tmp; i++) tdi_release(r.tmp[i]);
    free(heap);
    if (!ok) {
        tdi_drop_outputs(&r, 0);
        blame(ctx, op);
        return false;
    }
    uint32_t room = *n_out;
    *n_out = r.n_out;
    for (uint32_t i = 0; i < r.n_out; i++) {
        if (i >= room || into) {
            if (i < room) out[i] = into[i];
            tdi_release(r.out[i]);
        } else if (!(out[i] = tdi_own(ctx, r.out[i]))) {
            for (uint32_t k = i + 1; k < r.n_out; k++) tdi_release(r.out[k]);
            return false;
        }
    }
    return true;
}

bool tdi_run(tdi_op *op, td_tensor *const *in, uint32_t n_in, const void *attr, td_tensor *const *into, td_tensor **out,
             uint32_t *n_out)
{
    td_context *ctx = tdi_ctx();
    if (ctx->err) return false;
    if (tdi_interrupt_pending() && tdi_interrupt_take()) return false;
    tdi_profile *profile = ctx->profile;
    if (__builtin_expect(profile != NULL, 0)) tdi_profile_enter(profile, op, ctx->walks > 0);
    bool ok;
    if (op->t.flags & TD_OP_ALIKE && !into && n_in == op->in.n && *n_out && !ctx->anomaly && !ctx->decompose &&
        tdi_run_alike(op, ctx, in, n_in, attr, out, &ok)) {
        *n_out = 1;
        if (!ok) blame(ctx, op);
    } else {
        ok = run_whole(op, ctx, in, n_in, attr, into, out, n_out);
    }
    if (__builtin_expect(profile != NULL, 0)) tdi_profile_leave(profile);
    return ok;
}

/* execute.c - runs one op without recording: by the best kernel, or by its decomposition; and views, which run nothing. */
#include "plan.h"
#include "profile.h"
#include "run.h"
#include "trace.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_DEPTH = 128 }; /* nested decompositions */

/* ---- strides of outputs ---- */

/* Whether x fills its memory without gaps in some order of its axes: then results of its shape take the same order. */
static bool permuted_dense(const td_view *x)
{
    int order[TD_MAX_DIM], n = 0;
    for (int i = 0; i < x->nd; i++) {
        if (x->dim[i] == 1) continue;
        int at = n++;
        while (at > 0 && x->stride[order[at - 1]] > x->stride[i]) {
            order[at] = order[at - 1];
            at--;
        }
        order[at] = i;
    }
    int64_t expect = 1;
    for (int k = 0; k < n; k++) {
        if (x->stride[order[k]] != expect) return false;
        expect *= x->dim[order[k]];
    }
    return true;
}

static void choose_strides(td_view *out, const td_view *like, bool strided)
{
    if (strided && like && tdi_same_dims(out, like) && !td_view_dense(like) && permuted_dense(like)) {
        memcpy(out->stride, like->stride, sizeof out->stride);
        for (int32_t i = 0; i < out->nd; i++)
            if (out->dim[i] == 1) out->stride[i] = 1;
    } else {
        tdi_dense_strides(out);
    }
}

/* ---- what the kernel sees ---- */

void tdi_number_as(const td_view *from, td_dtype dt, td_view *to, double *data)
{
    double d = from->dt == TD_I64 ? (double)*(const int64_t *)from->p : *(const double *)from->p;
    int64_t i = from->dt == TD_I64 ? *(const int64_t *)from->p
                                   : (int64_t)(d > 9.2e18    ? INT64_MAX
                                               : d < -9.2e18 ? INT64_MIN
                                               : d == d      ? d
                                                             : 0);
    memset(to, 0, sizeof *to);
    to->dt = dt;
    to->p = data;
    to->flags = TD_V_NUMBER;
    switch (dt) {
    case TD_F32: *(float *)(void *)data = (float)d; break;
    case TD_F64: *data = d; break;
    case TD_I64: *(int64_t *)(void *)data = i; break;
    case TD_I32: *(int32_t *)(void *)data = (int32_t)i; break;
    case TD_U8: *(uint8_t *)(void *)data = (uint8_t)i; break;
    case TD_BOOL: *(uint8_t *)(void *)data = d != 0; break;
    default: break;
    }
}

static td_tensor *hold(tdi_runner *r, td_tensor *t)
{
    if (t) r->tmp[r->n_tmp++] = t;
    return t;
}

/* A dense temporary with t's values in dtype dt. */
td_tensor *tdi_converted(tdi_runner *r, const td_tensor *t, td_dtype dt)
{
    td_tensor *c = tdi_tensor_alloc();
    if (!c) return NULL;
    c->v.dt = dt;
    c->v.nd = t->v.nd;
    memcpy(c->v.dim, t->v.dim, sizeof c->v.dim);
    tdi_dense_strides(&c->v);
    if (tdi_tensor_allocate(c, r->dev) && tdi_copy_raw(c, t)) return hold(r, c);
    tdi_release(c);
    return NULL;
}

/* Casts and makes dense what this kernel cannot take as it is. */
static bool conform(tdi_runner *r, td_dtype compute, bool strided)
{
    for (uint32_t i = 0; i < r->n_in; i++) {
        const td_tensor *t = r->in[i];
        if (!t) continue;
        bool as_is = r->marks[i] & TDI_AS_IS || r->op->t.flags & TD_OP_NO_PROMOTE;
        td_dtype want = as_is ? t->v.dt : compute;
        if (tdi_is_number(t)) {
            bool half = want == TD_F16 || want == TD_BF16;
            if (r->dev->unified && r->n_number < FEW && !half) {
                tdi_number_as(&t->v, want, &r->number[r->n_number], &r->number_data[r->n_number]);
                r->iv[i] = &r->number[r->n_number++];
                continue;
            }
            td_tensor *m = tdi_materialize(t, want, r->dev);
            if (!m) return false;
            r->iv[i] = &m->v;
            continue;
        }
        bool dense = strided || td_view_dense(&t->v);
        if (t->v.dt == want && dense) {
            r->iv[i] = &t->v;
            continue;
        }
        if (r->marks[i] & TDI_WRITTEN)
            return td_fail("%s: %s is written in place, so it must be a dense tensor of dtype %s, got %s",
                           r->op->t.name, tdi_place_name(r->op, i, r->n_list), td_dtype_name(want), tdi_describe(t));
        td_tensor *c = tdi_converted(r, t, want);
        if (!c) return false;
        r->iv[i] = &c->v;
    }
    return true;
}

/* ---- running ---- */

static bool any_elements(const tdi_runner *r)
{
    if (!r->n_out) return true;
    for (uint32_t i = 0; i < r->n_out; i++)
        if (td_view_numel(r->ov[i])) return true;
    return false;
}

static uint64_t words(const tdi_runner *r) { return r->n_out ? ((uint64_t)td_view_numel(r->ov[0]) + 3) / 4 : 0; }

bool tdi_call_kernel(tdi_runner *r, const tdi_choice *c, td_dtype compute)
{
    td_kargs a = {.n_in = r->n_in,
                  .n_out = r->n_out,
                  .n_list = r->n_list,
                  .compute = compute,
                  .in = r->iv,
                  .out = r->ov,
                  .attr = r->attr,
                  .plan = c->plan,
                  .ws_size = c->ws_size,
                  .stream = r->dev->stream,
                  .dev = r->dev->handle,
                  .ordinal = r->dev->ordinal,
                  .rng = {r->ctx->random, 0}};
    td_storage *ws = NULL;
    if (c->ws_size) {
        ws = tdi_storage_new(r->dev, c->ws_size);
        if (!ws) return false;
        a.ws = ws->p;
    }
    tdi_profile *profile = r->ctx->profile;
    bool ok =
        __builtin_expect(!r->ctx->trace, 1) || tdi_trace_kernel(r->ctx, r->op, c, &a, r->dev, r->number, r->n_number);
    ok = ok && (__builtin_expect(profile != NULL, 0) ? tdi_profile_kernel(profile, r->op, c->kernel->run, &a, r->dev)
                                                     : c->kernel->run(&a));
    tdi_storage_release(ws);
    if (!ok && !tdi_failed())
        return td_fail_as(TD_EPLUGIN, "%s: its kernel on %s failed without saying why", r->op->t.name, r->dev->name);
    if (r->op->t.flags & TD_OP_RNG) r->ctx->random[1] += words(r);
    return !tdi_failed();
}

/* half: the dtype of f16/bf16 outputs that the kernel computes as f32; else TD_N_DTYPES. */
static bool run_kernel(tdi_runner *r, const tdi_choice *c, td_dtype compute, td_dtype half)
{
    const td_kernel *k = c->kernel;
    bool strided = k->flags & TD_K_STRIDED;
    if (!conform(r, compute, strided)) return false;
    td_tensor *final[TD_MAX_OUT];
    bool ok = true;
    for (uint32_t i = 0; i < r->n_out && ok; i++) {
        td_tensor *fresh = r->out[i];
        final[i] = NULL;
        choose_strides(&fresh->v, r->n_in ? r->iv[0] : NULL, strided && !(r->op->t.flags & TD_OP_ROW_MAJOR));
        if (k->layout &&
            !k->layout(
                &(td_kargs){
                    .n_in = r->n_in, .n_out = r->n_out, .compute = compute, .in = r->iv, .out = r->ov, .attr = r->attr},
                (td_view *const *)r->ov))
            return false;
        if (r->into && fresh->v.dt != half && tdi_may_write_into(r, k, r->into[i], fresh->v.dt)) {
            r->ov[i] = &r->into[i]->v;
            continue;
        }
        if (fresh->v.dt == half) { /* computed as f32 beside it, then rounded */
            td_tensor *wide = tdi_alias(fresh);
            if (!wide) return false;
            wide->v.dt = compute;
            final[i] = fresh;
            r->out[i] = wide;
            r->ov[i] = &wide->v;
            ok = tdi_tensor_allocate(fresh, r->dev);
        }
        ok = ok && tdi_tensor_allocate(r->out[i], r->dev);
    }
    ok = ok && (!any_elements(r) || tdi_call_kernel(r, c, compute));
    for (uint32_t i = 0; i < r->n_out; i++) {
        if (half == TD_N_DTYPES || !final[i]) continue;
        ok = ok && tdi_copy_raw(final[i], r->out[i]);
        tdi_release(r->out[i]);
        r->out[i] = final[i];
        r->ov[i] = &final[i]->v;
    }
    return ok;
}

/* Inputs as decompose wants them: numbers as they are, the rest in the compute dtype, by ops so that a recording follows. */
static td_tensor *const *promoted_inputs(tdi_runner *r, td_tensor **buf)
{
    for (uint32_t i = 0; i < r->n_in; i++) {
        td_tensor *t = r->in[i];
        bool as_is = !t || r->marks[i] & TDI_AS_IS || r->op->t.flags & TD_OP_NO_PROMOTE || t->v.flags & TD_V_NUMBER;
        buf[i] = as_is || t->v.dt == r->compute ? t : td_cast(t, r->compute);
    }
    return buf;
}

static bool check_decomposed(tdi_runner *r, td_tensor *const *got)
{
    bool open = r->op->t.flags & TD_OP_HOST_SYNC; /* extents may depend on data: infer gives only their number */
    for (uint32_t i = 0; i < r->n_out; i++) {
        if (!got[i]) return td_fail_as(TD_EPLUGIN, "%s: its decomposition gave no output %u", r->op->t.name, i + 1);
        bool fits = open ? got[i]->v.nd == r->ov[i]->nd : tdi_same_dims(&got[i]->v, r->ov[i]);
        if (!fits || got[i]->v.dt != r->ov[i]->dt)
            return td_fail_as(TD_EPLUGIN, "%s: its decomposition gave %s for output %u, its shape rule %s",
                              r->op->t.name, tdi_describe(got[i]), i + 1, tdi_describe(r->out[i]));
    }
    return true;
}

/* The op in simpler ops. The results replace r->out. */
bool tdi_run_decompose(tdi_runner *r)
{
    td_context *ctx = r->ctx;
    td_tensor *got[TD_MAX_OUT] = {NULL}, *few[FEW], **buf = r->n_in <= FEW ? few : malloc(r->n_in * sizeof *buf);
    if (!buf) return td_fail_as(TD_ENOMEM, "%s: out of memory", r->op->t.name);
    if (ctx->recursion >= MAX_DEPTH) {
        if (buf != few) free(buf);
        return td_fail_as(TD_EPLUGIN, "%s: decompositions are nested %d deep: does one lead back to itself?",
                          r->op->t.name, MAX_DEPTH);
    }
    td_device *before = ctx->device; /* what a decomposition creates lies where its inputs do */
    ctx->device = r->dev;
    ctx->recursion++;
    tdi_scope_push();
    td_call c = {r->n_in, r->n_out, r->n_list, promoted_inputs(r, buf), NULL, r->attr};
    if (!tdi_failed() && !r->op->t.decompose(&c, got) && !tdi_failed())
        td_fail_as(TD_EPLUGIN, "%s: its decomposition failed without saying why", r->op->t.name);
    bool ok = !tdi_failed() && check_decomposed(r, got);
    for (uint32_t i = 0; ok && i < r->n_out; i++) {
        tdi_release(r->out[i]);
        /* An input handed through keeps its identity for its owner: the result is another tensor. */
        bool own = true;
        for (uint32_t k = 0; k < r->n_in; k++) own &= got[i] != r->in[k];
        if (tdi_is_number(got[i])) got[i] = tdi_materialize(got[i], got[i]->v.dt, r->dev);
        r->out[i] = !got[i] ? NULL : own ? tdi_keep(got[i]) : tdi_alias(got[i]);
        if (!r->out[i]) {
            tdi_drop_outputs(r, i);
            ok = false;
        } else {
            r->ov[i] = &r->out[i]->v;
        }
    }
    tdi_scope_pop(NULL);
    ctx->recursion--;
    ctx->device = before;
    if (buf != few) free(buf);
    return ok;
}

static bool no_kernel(const tdi_runner *r)
{
    char text[256] = "";
    const tdi_chain *chain = atomic_load_explicit(&r->op->chain[r->dev->be->id], memory_order_acquire);
    for (uint32_t i = 0; chain && i < chain->n; i++) {
        size_t at = strlen(text);
        snprintf(text + at, sizeof text - at, "%s", i ? "; " : "");
        for (int dt = 0; dt < TD_N_DTYPES; dt++) {
            at = strlen(text);
            if (chain->k[i]->t.dtypes & TD_BIT(dt))
                snprintf(text + at, sizeof text - at, " %s", td_dtype_name((td_dtype)dt));
        }
    }
    return td_fail_as(TD_ENOKERNEL, "%s: no kernel on %s for %s, and no decomposition; its kernels there take:%s",
                      r->op->t.name, r->dev->name, td_dtype_name(r->compute), *text ? text : " none");
}

/* Runs kernel or decomposition without recording. */
bool tdi_compute(tdi_runner *r)
{
    const td_op *op = &r->op->t;
    bool half_in = r->compute == TD_F16 || r->compute == TD_BF16;
    tdi_choice c = {NULL, NULL, 0, NULL};
    td_dtype dt = r->compute;
    td_kargs q = {.n_in = r->n_in,
                  .n_out = r->n_out,
                  .n_list = r->n_list,
                  .compute = dt,
                  .in = r->iv,
                  .out = r->ov,
                  .attr = r->attr,
                  .stream = r->dev->stream,
                  .dev = r->dev->handle,
                  .ordinal = r->dev->ordinal};
    bool by_parts = r->ctx->decompose && op->decompose;
    if (!by_parts) {
        if (!tdi_choose(r->ctx, r->op, r->dev, &q, &c)) return false;
        if (!c.kernel && half_in && r->dev->unified && !op->decompose) { /* the CPU's round trip through f32 */
            q.compute = dt = TD_F32;
            if (!tdi_choose(r->ctx, r->op, r->dev, &q, &c)) return false;
        }
    }
    if (c.kernel) return run_kernel(r, &c, dt, dt != r->compute ? r->compute : TD_N_DTYPES);
    if (!op->decompose) return no_kernel(r);
    bool grad = r->ctx->grad;
    r->ctx->grad = false;
    bool ok = tdi_run_decompose(r);
    r->ctx->grad = grad;
    return ok;
}

/* ---- views ---- */

bool tdi_run_view(tdi_runner *r)
{
    td_tensor *base = r->in[0], *held = NULL;
    if (tdi_is_number(base)) {
        base = tdi_materialize(base, r->compute, r->dev);
        if (!base) return false;
        r->iv[0] = &base->v;
    }
    for (int attempt = 0;; attempt++) {
        for (uint32_t i = 0; i < r->n_out; i++) {
            td_view *v = (td_view *)r->ov[i];
            v->dt = base->v.dt;
            v->p = base->v.p;
        }
        td_infer q = {r->n_in, r->n_list, r->iv, r->attr, r->n_out, (td_view *const *)r->ov, r->compute};
        if (r->op->t.view(&q)) break;
        if (tdi_failed()) return false;
        if (attempt) return td_fail_as(TD_EPLUGIN, "%s: cannot view even a dense tensor", r->op->t.name);
        held = base = tdi_converted(r, base, base->v.dt);
        if (!base) return false;
        r->iv[0] = &base->v;
    }
    if (tdi_failed()) return false;
    const char *lo = base->st->p, *hi = lo + base->st->bytes;
    for (uint32_t i = 0; i < r->n_out; i++) {
        td_tensor *t = r->out[i];
        const char *first = t->v.p, *last = first;
        for (int32_t k = 0; k < t->v.nd; k++) {
            if (t->v.stride[k] < 0) return td_fail_as(TD_EPLUGIN, "%s: a view with a negative stride", r->op->t.name);
            if (t->v.dim[k]) last += (t->v.dim[k] - 1) * t->v.stride[k] * (int64_t)td_dtype_size(t->v.dt);
        }
        if (td_view_numel(&t->v) && (first < lo || last + td_dtype_size(t->v.dt) > hi))
            return td_fail_as(TD_EPLUGIN, "%s: its view lies outside the storage of its input", r->op->t.name);
        t->st = tdi_storage_keep(base->st);
        t->is_view = base == r->in[0] && !held;
        t->view_version = atomic_load_explicit(&t->st->rebased, memory_order_relaxed);
        if ((uintptr_t)t->v.p % 64 == 0) t->v.flags |= TD_V_ALIGNED;
    }
    return true;
}

/* node_backward.c - gradients of one node: what it saved, unpacked, and its op's backward, or that of its decomposition. */
#include "dispatch.h"
#include "walk.h"
#include <stdlib.h>
#include <string.h>

/* A saved tensor as backward sees it. With create_graph it is tied to the graph again, so that what is computed from it is recorded. */
static td_tensor *unpack(const td_node *n, const tdi_saved *s, const tdi_edge *e, td_node *self, uint32_t index,
                         bool create)
{
    td_tensor *t = s->t;
    if (!t) return s->present ? tdi_shell(s) : NULL;
    if (t->st && atomic_load_explicit(&t->st->version, memory_order_relaxed) != s->version) {
        td_tensor *gone =
            tdi_shell(s); /* an error only if this backward looks at the data: that of x * 2 for x does not */
        if (!gone) return NULL;
        gone->stale = true;
        gone->num.saved_by = n->op->t.name;
        return gone;
    }
    if (!create || !td_dtype_is_float(t->v.dt)) return t;
    if (e && e->leaf) return e->leaf;
    td_node *made_by = e ? e->node : self;
    if (!made_by) return t;
    td_tensor *tied = tdi_alias(t);
    if (!tied) return NULL;
    tied->node = tdi_node_keep(made_by);
    tied->out_index = e ? e->index : index;
    tied->view_version = t->st ? atomic_load(&t->st->rebased) : 0;
    return tdi_own(tdi_ctx(), tied);
}

bool tdi_frame_new(tdi_frame *f, const td_node *n)
{
    size_t places = 2 * (size_t)(n->n_in + n->n_out);
    f->in = f->few;
    if (places <= TDI_FEW_PLACES) memset(f->few, 0, places * sizeof *f->few);
    else if (!(f->in = calloc(places, sizeof *f->in))) return tdi_walk_no_memory();
    f->gin = f->in + n->n_in;
    f->out = f->gin + n->n_in;
    f->gout = f->out + n->n_out;
    return true;
}

bool tdi_frame_fill(tdi_walk *w, tdi_visit *v, tdi_frame *f)
{
    td_node *n = v->node;
    for (uint32_t i = 0; i < n->n_in; i++) f->in[i] = unpack(n, &n->in[i], &n->edge[i], NULL, 0, w->create);
    for (uint32_t i = 0; i < n->n_out; i++) {
        bool float_out = td_dtype_is_float((td_dtype)n->out[i].dt);
        f->out[i] = unpack(n, &n->out[i], NULL, float_out ? n : NULL, i, w->create);
        f->gout[i] = tdi_gout_of(v)[i];
        if (f->gout[i] || n->op->t.flags & TD_OP_GOUT_NULL || !float_out) continue;
        const tdi_saved *like = &n->out[i];
        f->gout[i] = td_zeros(td_dims_n(like->nd, like->t ? like->t->v.dim : like->dim), (td_dtype)like->dt);
    }
    return !tdi_failed();
}

/* Differentiates the decomposition of the saved inputs instead: for second derivatives of fused backwards. */
static bool by_decomposition(const td_node *n, tdi_frame *f, uint64_t need)
{
    td_context *ctx = tdi_ctx();
    uint64_t random[2] = {ctx->random[0], ctx->random[1]};
    td_tensor *out[TD_MAX_OUT] = {NULL}, *y[TD_MAX_OUT], *seed[TD_MAX_OUT];
    for (uint32_t i = 0; i < n->n_in; i++)
        if (f->in[i] && f->in[i]->stale)
            return td_fail("backward: a tensor %s that %s saved was changed in place afterwards",
                           tdi_describe(f->in[i]), n->op->t.name);
        else if (f->in[i] && f->in[i]->shell)
            return td_fail_as(TD_EPLUGIN, "%s: a second derivative needs input %s, which the op does not save",
                              n->op->t.name, tdi_place_name(n->op, i, n->n_list));
    td_tensor **in = calloc(3 * (size_t)n->n_in + 1, sizeof *in);
    if (!in) return tdi_walk_no_memory();
    td_tensor **x = in + n->n_in, **g = x + n->n_in;
    uint32_t n_y = 0, n_x = 0;
    for (uint32_t i = 0; i < n->n_in; i++) { /* each place a node of its own: mul(x, x) has two partial derivatives */
        bool wanted = f->in[i] && (i >= 64 || need >> i & 1);
        in[i] = wanted ? td_view_as(f->in[i], td_shape(f->in[i])) : f->in[i];
        if (wanted) x[n_x++] = in[i];
    }
    td_call c = {n->n_in, n->n_out, n->n_list, in, NULL, n->attr};
    memcpy(ctx->random, n->random, sizeof n->random); /* the same draws as then */
    bool ok = !tdi_failed() && n->op->t.decompose(&c, out) && !tdi_failed();
    memcpy(ctx->random, random, sizeof random);
    if (!ok && !tdi_failed()) td_fail_as(TD_EPLUGIN, "%s: its decomposition failed without saying why", n->op->t.name);
    for (uint32_t i = 0; ok && i < n->n_out; i++) {
        if (!out[i] || !f->gout[i] || !tdi_needs_grad(out[i])) continue;
        y[n_y] = out[i];
        seed[n_y++] = f->gout[i];
    }
    ok = ok && (!n_y || td_grad(y, seed, n_y, x, n_x, TD_CREATE_GRAPH | TD_ALLOW_UNUSED | TDI_STOP_AT_INPUTS, g));
    for (uint32_t i = 0, k = 0; ok && i < n->n_in; i++)
        if (f->in[i] && (i >= 64 || need >> i & 1)) f->gin[i] = g[k++];
    free(in);
    return ok;
}

bool tdi_node_backward(tdi_walk *w, const td_node *n, tdi_frame *f, uint64_t need)
{
    const td_op *op = &n->op->t;
    td_call c = {n->n_in, n->n_out, n->n_list, f->in, f->out, n->attr};
    if (!op->backward) return td_fail("backward: %s has no gradient", op->name);
    if (w->create && !(op->flags & TD_OP_BWD_DIFF)) {
        if (op->flags & TD_OP_ONCE_DIFF || !op->decompose)
            return td_fail("backward: %s can be differentiated only once", op->name);
        return by_decomposition(n, f, need);
    }
    if (!op->backward(&c, f->gout, f->gin, need) && !tdi_failed())
        return td_fail_as(TD_EPLUGIN, "backward of %s failed without saying why", op->name);
    return !tdi_failed();
}

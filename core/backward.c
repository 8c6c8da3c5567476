/* backward.c - walks the tape from results to leaves. Nodes run in falling order of their sequence numbers: every node that uses
 * a result was recorded after the one that made it, so when a node's turn comes all its gradients are in. No recursion. */
#include "dispatch.h"
#include "plan.h"
#include "profile.h"
#include "trace.h"
#include "walk.h"
#include <stdlib.h>

enum { MAX_NESTED = 64 };

/* ---- adding gradients ---- */

static bool ours_alone(const td_tensor *t)
{
    return t->st && atomic_load(&t->refs) == 1 && atomic_load(&t->st->refs) == 1 && td_view_dense(&t->v) && !t->node;
}

/* *sum += g, where *sum may be NULL. Takes over the reference g. in_place: though others may hold *sum. */
static bool add_up(td_tensor **sum, td_tensor *g, bool create, bool in_place)
{
    if (!*sum) {
        *sum = g;
        return true;
    }
    bool ok;
    if (!create && (ours_alone(*sum) || in_place)) {
        ok = td_add_into(*sum, *sum, g) != NULL;
    } else {
        td_tensor *s = td_add(*sum, g);
        ok = s != NULL;
        if (ok) {
            tdi_keep(s);
            tdi_release(*sum);
            *sum = s;
        }
    }
    tdi_release(g);
    return ok;
}

/* .grad never aliases another gradient: a tensor that anyone else holds is copied. Takes over the reference g. */
static bool add_to_leaf(td_tensor *leaf, td_tensor *g, bool create)
{
    bool traced = tdi_ctx()->trace != NULL; /* the trace holds the gradient, too, and a replay adds in place */
    if (traced && !tdi_trace_grad(leaf, false)) return tdi_release(g), false;
    if (leaf->grad) return add_up(&leaf->grad, g, create, traced && !leaf->grad->node && leaf->grad->st);
    if (ours_alone(g)) {
        leaf->grad = g;
        return true;
    }
    td_tensor *c = td_copy(g);
    if (c) leaf->grad = tdi_keep(c);
    tdi_release(g);
    return c != NULL;
}

/* Gradients come in the dtype and shape of what they belong to. Takes over g; NULL after an error. */
static td_tensor *fitted(const td_node *n, const tdi_saved *like, td_tensor *g)
{
    const int64_t *dim = like->t ? like->t->v.dim : like->dim;
    bool same = g->v.nd == like->nd;
    for (int32_t i = 0; same && i < g->v.nd; i++) same = g->v.dim[i] == dim[i];
    if (!same) {
        td_fail_as(TD_EPLUGIN, "backward of %s: expected a gradient like %s, got %s", n->op->t.name,
                   tdi_describe(tdi_shell(like)), tdi_describe(g));
        tdi_release(g);
        return NULL;
    }
    td_dtype dt = (td_dtype)like->dt;
    if (g->v.dt == dt && !tdi_is_number(g)) return g;
    td_tensor *c = tdi_is_number(g) ? tdi_materialize(g, dt, tdi_device_default(tdi_ctx())) : td_cast(g, dt);
    if (c) tdi_keep(c);
    tdi_release(g);
    return c;
}

static bool is_target(const tdi_target *t, const tdi_edge *e)
{
    return e->node ? t->node == e->node && t->index == e->index : e->leaf && t->leaf == e->leaf;
}

/* Passes a gradient along an edge. Takes over the reference g. */
static bool give(tdi_walk *w, const tdi_edge *e, td_tensor *g)
{
    bool hit = false;
    for (uint32_t i = 0; i < w->n_targets; i++) {
        tdi_target *t = &w->targets[i];
        if (!is_target(t, e)) continue;
        hit = true;
        if (!add_up(&t->grad, tdi_keep(g), w->create, false)) return tdi_release(g), false;
    }
    if (hit && w->stop) {
        tdi_release(g);
        return true;
    }
    if (e->leaf) {
        if (!w->targets) return add_to_leaf(e->leaf, g, w->create);
        tdi_release(g);
        return true;
    }
    bool fresh;
    uint32_t place = tdi_visit_of(w, e->node, &fresh);
    if (place == UINT32_MAX) return tdi_release(g), false;
    tdi_visit *v = &w->v[place];
    if (!v->wanted) {
        tdi_release(g);
        return true;
    }
    if (!v->met && (!tdi_make_gout(v) || !tdi_walk_push(w, place))) return tdi_release(g), false;
    return add_up(&tdi_gout_of(v)[e->index], g, w->create, false);
}

/* ---- one node ---- */

static bool hits_target(const tdi_walk *w, const tdi_edge *e)
{
    for (uint32_t i = 0; i < w->n_targets; i++)
        if (is_target(&w->targets[i], e)) return true;
    return false;
}

static bool edge_wanted(const tdi_walk *w, const tdi_edge *e)
{
    if (!e->node && !e->leaf) return false;
    if (!w->targets) return true;
    if (hits_target(w, e)) return true;
    if (!e->node) return false;
    uint32_t s = *tdi_walk_slot(w, e->node);
    return s && w->v[s - 1].wanted;
}

static bool check_grad_nan(const td_node *n, td_tensor *g)
{
    td_context *ctx = tdi_ctx();
    bool bad = false, grad = ctx->grad;
    td_ints all = {0, {0}};
    ctx->anomaly = ctx->grad = false;
    td_tensor *any = td_any(td_isnan(g), all, false);
    if (any) TD->item(any, TD_BOOL, &bad);
    ctx->anomaly = true;
    ctx->grad = grad;
    if (bad)
        td_fail("backward of %s made a NaN%s%s", n->op->t.name, n->where ? "; it was recorded at " : "",
                n->where ? n->where : "");
    return !tdi_failed();
}

static bool run_in_scope(tdi_walk *w, tdi_visit *v, tdi_frame *f)
{
    td_node *n = v->node;
    uint64_t need = 0;
    bool any = false;
    for (uint32_t i = 0; i < n->n_in; i++) {
        if (!edge_wanted(w, &n->edge[i])) continue;
        any = true;
        if (i < 64) need |= 1ull << i;
    }
    if (!any) return true;
    if (n->freed)
        return td_fail(
            "backward: the graph of %s was released by an earlier backward; give that one retain_graph = true",
            n->op->t.name);
    tdi_scope_push();
    td_context *ctx = tdi_ctx();
    td_device *before = ctx->device; /* what a backward creates lies where its gradients do */
    for (uint32_t i = 0; i < n->n_out; i++)
        if (tdi_gout_of(v)[i]) ctx->device = tdi_tensor_device(tdi_gout_of(v)[i]);
    bool ok = tdi_frame_fill(w, v, f) && tdi_node_backward(w, n, f, need);
    ctx->device = before;
    for (uint32_t i = 0; i < n->n_in; i++) { /* our references, so that a gradient nobody shares can be taken over */
        bool wanted = i >= 64 ? edge_wanted(w, &n->edge[i]) : need >> i & 1;
        f->gin[i] = ok && wanted && f->gin[i] ? tdi_keep(f->gin[i]) : NULL;
    }
    tdi_scope_pop(NULL);
    return ok;
}

static bool run_node(tdi_walk *w, uint32_t place)
{
    tdi_visit v = w->v[place]; /* w->v may move */
    td_node *n = v.node;
    for (uint32_t i = 0; i < n->n_in; i++) /* what the order of the walk rests on */
        TD_ASSERT(!n->edge[i].node || n->edge[i].node->seq < n->seq);
    tdi_frame f;
    bool ok = true;
    for (uint32_t i = 0; n->retain && i < n->n_out && ok; i++)
        if (n->retain[i] && tdi_gout_of(&v)[i] && !w->targets)
            ok = add_to_leaf(n->retain[i], tdi_keep(tdi_gout_of(&v)[i]), w->create);
    if (!ok || !tdi_frame_new(&f, n)) return false;
    ok = run_in_scope(w, &v, &f);
    tdi_free_gout(&w->v[place]);
    tdi_scope_push(); /* for sums that the walk holds itself: the scope of all of it would hold them to its end */
    for (uint32_t i = 0; i < n->n_in; i++) {
        td_tensor *g = f.gin[i];
        if (!g) continue;
        if (!ok) {
            tdi_release(g);
            continue;
        }
        ok = (g = fitted(n, &n->in[i], g)) && (!tdi_ctx()->anomaly || check_grad_nan(n, g));
        if (ok) ok = give(w, &n->edge[i], g);
        else tdi_release(g);
    }
    tdi_scope_pop(NULL);
    if (f.in != f.few) free(f.in);
    if (ok && !w->retain) tdi_node_drop_saved(n);
    return ok;
}

/* ---- which nodes lead to the targets ---- */

static int by_seq(const void *a, const void *b)
{
    uint64_t x = (*(td_node *const *)a)->seq, y = (*(td_node *const *)b)->seq;
    return (x > y) - (x < y);
}

/* Meets every node below the roots and marks those that lead to a target. */
static bool mark_wanted(tdi_walk *w)
{
    for (uint32_t i = 0; i < w->n; i++) { /* w->n grows */
        for (uint32_t k = 0; k < w->v[i].node->n_in; k++) {
            const tdi_edge *e = &w->v[i].node->edge[k];
            td_node *below = w->stop && hits_target(w, e) ? NULL : e->node;
            bool fresh;
            if (below && tdi_visit_of(w, below, &fresh) == UINT32_MAX) return false;
        }
    }
    td_node **order = malloc((w->n + 1) * sizeof *order);
    if (!order) return tdi_walk_no_memory();
    for (uint32_t i = 0; i < w->n; i++) order[i] = w->v[i].node;
    qsort(order, w->n, sizeof *order, by_seq); /* inputs first */
    for (uint32_t i = 0; i < w->n; i++) {
        tdi_visit *v = &w->v[*tdi_walk_slot(w, order[i]) - 1];
        for (uint32_t k = 0; k < order[i]->n_in && !v->wanted; k++) v->wanted = edge_wanted(w, &order[i]->edge[k]);
    }
    free(order);
    return true;
}

/* ---- entries ---- */

static td_tensor *seed_for(td_tensor *y, td_tensor *seed)
{
    if (!seed) {
        if (td_view_numel(&y->v) != 1)
            return td_fail_as(TD_ESHAPE,
                              "backward: the result has shape %s; give a seed, or reduce it to one element first",
                              tdi_describe(y));
        td_context *ctx = tdi_ctx();
        td_device *before = ctx->device;
        ctx->device = tdi_tensor_device(y);
        td_tensor *one = td_ones(td_shape(y), y->v.dt);
        ctx->device = before;
        return one;
    }
    td_tensor *s =
        seed->v.flags & TD_V_NUMBER && y->v.nd == 0 ? tdi_materialize(seed, y->v.dt, tdi_tensor_device(y)) : seed;
    bool same = s && s->v.nd == y->v.nd;
    for (int32_t i = 0; same && i < s->v.nd; i++) same = s->v.dim[i] == y->v.dim[i];
    if (!same)
        return td_fail_as(TD_ESHAPE, "backward: expected a seed like the result, %s, got %s", tdi_describe(y),
                          tdi_describe(seed));
    return s->v.dt == y->v.dt ? s : td_cast(s, y->v.dt);
}

static bool start(tdi_walk *w, td_tensor *const *y, td_tensor *const *seeds, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        if (!y[i]) return td_fail("backward: result %u is missing", i + 1);
        if (!tdi_needs_grad(y[i]))
            return td_fail("backward: %s does not depend on anything that requires a gradient", tdi_describe(y[i]));
        bool fresh;
        if (y[i]->node && tdi_visit_of(w, y[i]->node, &fresh) == UINT32_MAX) return false;
    }
    if (w->targets && !mark_wanted(w)) return false;
    for (uint32_t i = 0; i < n; i++) {
        td_tensor *s = seed_for(y[i], seeds ? seeds[i] : NULL);
        if (!s) return false;
        tdi_edge e = {y[i]->node, y[i]->node ? NULL : y[i], y[i]->out_index};
        if (!give(w, &e, tdi_keep(s))) return false;
    }
    return true;
}

static bool run_walk(tdi_walk *w, td_tensor *const *y, td_tensor *const *seeds, uint32_t n)
{
    td_context *ctx = tdi_ctx();
    bool grad = ctx->grad, ok = false;
    if (ctx->recursion >= MAX_NESTED) return td_fail("backward: nested %d deep", MAX_NESTED);
    tdi_profile *profile = ctx->profile;
    if (profile) tdi_profile_enter(profile, NULL, true);
    ctx->walks++;
    ctx->recursion++;
    ctx->grad = w->create;
    tdi_scope_push();
    ok = start(w, y, seeds, n);
    while (ok && w->heap_n) ok = run_node(w, tdi_walk_pop(w));
    tdi_scope_pop(NULL);
    ctx->grad = grad;
    ctx->recursion--;
    ctx->walks--;
    if (profile) tdi_profile_leave(profile);
    return ok && !tdi_failed();
}

bool td_backward(td_tensor *y, td_tensor *seed, uint32_t flags)
{
    if (tdi_failed()) return false;
    tdi_walk w; /* large: not all of it is cleared */
    tdi_walk_begin(&w);
    w.create = flags & TD_CREATE_GRAPH;
    w.retain = flags & (TD_RETAIN_GRAPH | TD_CREATE_GRAPH);
    w.stop = false;
    w.targets = NULL;
    w.n_targets = 0;
    bool ok = run_walk(&w, &y, &seed, 1);
    tdi_walk_free(&w);
    return ok;
}

bool td_grad(td_tensor *const *outputs, td_tensor *const *seeds, uint32_t n_out, td_tensor *const *inputs,
             uint32_t n_in, uint32_t flags, td_tensor **grads)
{
    if (tdi_failed()) return false;
    tdi_walk w;
    tdi_walk_begin(&w);
    w.create = flags & TD_CREATE_GRAPH;
    w.retain = flags & (TD_RETAIN_GRAPH | TD_CREATE_GRAPH);
    w.stop = flags & TDI_STOP_AT_INPUTS;
    w.targets = calloc(n_in ? n_in : 1, sizeof *w.targets);
    if (!w.targets) return tdi_walk_no_memory();
    w.n_targets = n_in;
    bool ok = true;
    for (uint32_t i = 0; i < n_in && ok; i++) {
        td_tensor *x = inputs[i];
        ok = x && tdi_needs_grad(x);
        if (!ok && !(flags & TD_ALLOW_UNUSED)) td_fail("grad: input %u does not require a gradient", i + 1);
        else if (ok) w.targets[i] = (tdi_target){x->node, x->node ? NULL : x, NULL, x->out_index};
        ok = !tdi_failed();
    }
    ok = ok && run_walk(&w, outputs, seeds, n_out);
    for (uint32_t i = 0; i < n_in; i++) {
        grads[i] = NULL;
        if (!ok) continue;
        td_tensor *g = w.targets[i].grad;
        if (!g && !(flags & TD_ALLOW_UNUSED))
            ok = td_fail("grad: the results do not depend on input %u; allow_unused gives nil for it", i + 1);
        else if (g) grads[i] = tdi_own(tdi_ctx(), tdi_keep(g));
    }
    tdi_walk_free(&w);
    return ok && !tdi_failed();
}

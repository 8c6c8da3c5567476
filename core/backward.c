/* backward.c - walks the tape from results to leaves. Nodes run in falling order of their sequence numbers: every node that uses
 * a result was recorded after the one that made it, so when a node's turn comes all its gradients are in. No recursion. */
#include "autograd.h"
#include "block.h"
#include "dispatch.h"
#include "plan.h"
#include "profile.h"
#include "trace.h"
#include <stdlib.h>
#include <string.h>

enum { MAX_NESTED = 64 };

/* A node that the walk has met. */
typedef struct {
    td_node *node;
    td_tensor *only;  /* its gradient so far, where it has one output */
    td_tensor **many; /* n_out of them, where it has more: a block    */
    bool met;         /* a gradient has come                          */
    bool wanted;      /* leads to an input that was asked for         */
} visit;

/* A target of td_grad: a node's output or a leaf. */
typedef struct {
    td_node *node;
    td_tensor *leaf, *grad;
    uint32_t index;
} target;

enum { FEW_NODES = 32 }; /* a walk of so few needs no memory of its own */

typedef struct {
    visit *v;
    uint32_t n, cap;
    uint32_t *slot; /* open addressing: node -> 1 + place in v */
    uint32_t slots; /* a power of two                          */
    uint32_t *heap; /* places in v, greatest seq first         */
    uint32_t heap_n, heap_cap;
    visit few_v[FEW_NODES];
    uint32_t few_slot[2 * FEW_NODES], few_heap[FEW_NODES];
    target *targets; /* NULL: gradients go to all leaves        */
    uint32_t n_targets;
    bool create, retain;
    bool stop; /* do not look behind the targets          */
} walk;

enum { STOP_AT_INPUTS = 1 << 16 }; /* flag of td_grad, for partial derivatives of one op */

static bool no_memory(void) { return td_fail_as(TD_ENOMEM, "backward: out of memory"); }

/* ---- visits ---- */

static uint32_t *slot_of(const walk *w, const td_node *n)
{
    uint32_t at = (uint32_t)(((uintptr_t)n >> 4) * 0x9e3779b97f4a7c15ull >> 32) & (w->slots - 1);
    while (w->slot[at] && w->v[w->slot[at] - 1].node != n) at = (at + 1) & (w->slots - 1);
    return &w->slot[at];
}

/* All of a walk but its modes. */
static void walk_begin(walk *w)
{
    w->v = w->few_v;
    w->slot = w->few_slot;
    w->heap = w->few_heap;
    w->cap = w->heap_cap = FEW_NODES;
    w->slots = 2 * FEW_NODES;
    memset(w->few_slot, 0, sizeof w->few_slot);
    w->n = w->heap_n = 0;
}

/* A bigger array in place of an old one, which may be the walk's own. */
static void *grown(void *old, const void *own, size_t bytes, size_t more)
{
    if (old != own) return realloc(old, more);
    void *p = malloc(more);
    if (p) memcpy(p, old, bytes);
    return p;
}

static bool grow_slots(walk *w)
{
    uint32_t *old = w->slot, slots = w->slots * 2;
    w->slot = calloc(slots, sizeof *w->slot);
    if (!w->slot) {
        w->slot = old;
        return no_memory();
    }
    w->slots = slots;
    for (uint32_t i = 0; i < w->n; i++) *slot_of(w, w->v[i].node) = i + 1;
    if (old != w->few_slot) free(old);
    return true;
}

/* Place of the node's visit, made where it is new; UINT32_MAX after an error. */
static uint32_t visit_of(walk *w, td_node *n, bool *fresh)
{
    if ((w->n + 1) * 2 > w->slots && !grow_slots(w)) return UINT32_MAX;
    uint32_t *s = slot_of(w, n);
    *fresh = !*s;
    if (*s) return *s - 1;
    if (w->n == w->cap) {
        uint32_t cap = w->cap * 2;
        visit *v = grown(w->v, w->few_v, w->n * sizeof *v, cap * sizeof *v);
        if (!v) return no_memory(), UINT32_MAX;
        w->v = v;
        w->cap = cap;
    }
    w->v[w->n] = (visit){.node = tdi_node_keep(n), .wanted = w->targets == NULL};
    *s = ++w->n;
    return w->n - 1;
}

static uint64_t seq(const walk *w, uint32_t i) { return w->v[i].node->seq; }

static bool heap_push(walk *w, uint32_t place)
{
    if (w->heap_n == w->heap_cap) {
        uint32_t cap = w->heap_cap * 2, *h = grown(w->heap, w->few_heap, w->heap_n * sizeof *h, cap * sizeof *h);
        if (!h) return no_memory();
        w->heap = h;
        w->heap_cap = cap;
    }
    uint32_t at = w->heap_n++;
    while (at && seq(w, w->heap[(at - 1) / 2]) < seq(w, place)) {
        w->heap[at] = w->heap[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    w->heap[at] = place;
    return true;
}

static uint32_t heap_pop(walk *w)
{
    uint32_t top = w->heap[0], last = w->heap[--w->heap_n], at = 0;
    for (;;) {
        uint32_t child = 2 * at + 1;
        if (child >= w->heap_n) break;
        if (child + 1 < w->heap_n && seq(w, w->heap[child + 1]) > seq(w, w->heap[child])) child++;
        if (seq(w, w->heap[child]) <= seq(w, last)) break;
        w->heap[at] = w->heap[child];
        at = child;
    }
    if (w->heap_n) w->heap[at] = last;
    return top;
}

/* n_out gradients */
static td_tensor **gout_of(visit *v) { return v->many ? v->many : &v->only; }

static size_t gout_bytes(const td_node *n) { return n->n_out * sizeof(td_tensor *); }

static bool make_gout(visit *v)
{
    v->met = true;
    if (v->node->n_out <= 1) return true;
    v->many = tdi_block_alloc(gout_bytes(v->node));
    if (v->many) memset(v->many, 0, gout_bytes(v->node));
    return v->many != NULL;
}

static void free_gout(visit *v)
{
    for (uint32_t i = 0; v->met && i < v->node->n_out; i++) tdi_release(gout_of(v)[i]);
    if (v->many) tdi_block_free(v->many, gout_bytes(v->node));
    v->only = NULL;
    v->many = NULL;
    v->met = false;
}

static void walk_free(walk *w)
{
    for (uint32_t i = 0; i < w->n; i++) {
        free_gout(&w->v[i]);
        tdi_node_release(w->v[i].node);
    }
    for (uint32_t i = 0; i < w->n_targets; i++) tdi_release(w->targets[i].grad);
    if (w->v != w->few_v) free(w->v);
    if (w->slot != w->few_slot) free(w->slot);
    if (w->heap != w->few_heap) free(w->heap);
    free(w->targets);
}

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

static bool is_target(const target *t, const tdi_edge *e)
{
    return e->node ? t->node == e->node && t->index == e->index : e->leaf && t->leaf == e->leaf;
}

/* Passes a gradient along an edge. Takes over the reference g. */
static bool give(walk *w, const tdi_edge *e, td_tensor *g)
{
    bool hit = false;
    for (uint32_t i = 0; i < w->n_targets; i++) {
        target *t = &w->targets[i];
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
    uint32_t place = visit_of(w, e->node, &fresh);
    if (place == UINT32_MAX) return tdi_release(g), false;
    visit *v = &w->v[place];
    if (!v->wanted) {
        tdi_release(g);
        return true;
    }
    if (!v->met && (!make_gout(v) || !heap_push(w, place))) return tdi_release(g), false;
    return add_up(&gout_of(v)[e->index], g, w->create, false);
}

/* ---- one node ---- */

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

enum { FEW_PLACES = 24 };

typedef struct {
    td_tensor **in, **out, **gout, **gin, *few[FEW_PLACES];
} frame;

static bool frame_new(frame *f, const td_node *n)
{
    size_t places = 2 * (size_t)(n->n_in + n->n_out);
    f->in = f->few;
    if (places <= FEW_PLACES) memset(f->few, 0, places * sizeof *f->few);
    else if (!(f->in = calloc(places, sizeof *f->in))) return no_memory();
    f->gin = f->in + n->n_in;
    f->out = f->gin + n->n_in;
    f->gout = f->out + n->n_out;
    return true;
}

static bool fill_frame(walk *w, visit *v, frame *f)
{
    td_node *n = v->node;
    for (uint32_t i = 0; i < n->n_in; i++) f->in[i] = unpack(n, &n->in[i], &n->edge[i], NULL, 0, w->create);
    for (uint32_t i = 0; i < n->n_out; i++) {
        bool float_out = td_dtype_is_float((td_dtype)n->out[i].dt);
        f->out[i] = unpack(n, &n->out[i], NULL, float_out ? n : NULL, i, w->create);
        f->gout[i] = gout_of(v)[i];
        if (f->gout[i] || n->op->t.flags & TD_OP_GOUT_NULL || !float_out) continue;
        const tdi_saved *like = &n->out[i];
        f->gout[i] = td_zeros(td_dims_n(like->nd, like->t ? like->t->v.dim : like->dim), (td_dtype)like->dt);
    }
    return !tdi_failed();
}

/* Differentiates the decomposition of the saved inputs instead: for second derivatives of fused backwards. */
static bool by_decomposition(const td_node *n, frame *f, uint64_t need)
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
    if (!in) return no_memory();
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
    ok = ok && (!n_y || td_grad(y, seed, n_y, x, n_x, TD_CREATE_GRAPH | TD_ALLOW_UNUSED | STOP_AT_INPUTS, g));
    for (uint32_t i = 0, k = 0; ok && i < n->n_in; i++)
        if (f->in[i] && (i >= 64 || need >> i & 1)) f->gin[i] = g[k++];
    free(in);
    return ok;
}

static bool call_backward(walk *w, const td_node *n, frame *f, uint64_t need)
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

static bool hits_target(const walk *w, const tdi_edge *e)
{
    for (uint32_t i = 0; i < w->n_targets; i++)
        if (is_target(&w->targets[i], e)) return true;
    return false;
}

static bool edge_wanted(const walk *w, const tdi_edge *e)
{
    if (!e->node && !e->leaf) return false;
    if (!w->targets) return true;
    if (hits_target(w, e)) return true;
    if (!e->node) return false;
    uint32_t s = *slot_of(w, e->node);
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

static bool run_in_scope(walk *w, visit *v, frame *f)
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
        if (gout_of(v)[i]) ctx->device = tdi_tensor_device(gout_of(v)[i]);
    bool ok = fill_frame(w, v, f) && call_backward(w, n, f, need);
    ctx->device = before;
    for (uint32_t i = 0; i < n->n_in; i++) { /* our references, so that a gradient nobody shares can be taken over */
        bool wanted = i >= 64 ? edge_wanted(w, &n->edge[i]) : need >> i & 1;
        f->gin[i] = ok && wanted && f->gin[i] ? tdi_keep(f->gin[i]) : NULL;
    }
    tdi_scope_pop(NULL);
    return ok;
}

static bool run_node(walk *w, uint32_t place)
{
    visit v = w->v[place]; /* w->v may move */
    td_node *n = v.node;
    for (uint32_t i = 0; i < n->n_in; i++) /* what the order of the walk rests on */
        TD_ASSERT(!n->edge[i].node || n->edge[i].node->seq < n->seq);
    frame f;
    bool ok = true;
    for (uint32_t i = 0; n->retain && i < n->n_out && ok; i++)
        if (n->retain[i] && gout_of(&v)[i] && !w->targets)
            ok = add_to_leaf(n->retain[i], tdi_keep(gout_of(&v)[i]), w->create);
    if (!ok || !frame_new(&f, n)) return false;
    ok = run_in_scope(w, &v, &f);
    free_gout(&w->v[place]);
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
static bool mark_wanted(walk *w)
{
    for (uint32_t i = 0; i < w->n; i++) { /* w->n grows */
        for (uint32_t k = 0; k < w->v[i].node->n_in; k++) {
            const tdi_edge *e = &w->v[i].node->edge[k];
            td_node *below = w->stop && hits_target(w, e) ? NULL : e->node;
            bool fresh;
            if (below && visit_of(w, below, &fresh) == UINT32_MAX) return false;
        }
    }
    td_node **order = malloc((w->n + 1) * sizeof *order);
    if (!order) return no_memory();
    for (uint32_t i = 0; i < w->n; i++) order[i] = w->v[i].node;
    qsort(order, w->n, sizeof *order, by_seq); /* inputs first */
    for (uint32_t i = 0; i < w->n; i++) {
        visit *v = &w->v[*slot_of(w, order[i]) - 1];
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

static bool start(walk *w, td_tensor *const *y, td_tensor *const *seeds, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        if (!y[i]) return td_fail("backward: result %u is missing", i + 1);
        if (!tdi_needs_grad(y[i]))
            return td_fail("backward: %s does not depend on anything that requires a gradient", tdi_describe(y[i]));
        bool fresh;
        if (y[i]->node && visit_of(w, y[i]->node, &fresh) == UINT32_MAX) return false;
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

static bool run_walk(walk *w, td_tensor *const *y, td_tensor *const *seeds, uint32_t n)
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
    while (ok && w->heap_n) ok = run_node(w, heap_pop(w));
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
    walk w; /* large: not all of it is cleared */
    walk_begin(&w);
    w.create = flags & TD_CREATE_GRAPH;
    w.retain = flags & (TD_RETAIN_GRAPH | TD_CREATE_GRAPH);
    w.stop = false;
    w.targets = NULL;
    w.n_targets = 0;
    bool ok = run_walk(&w, &y, &seed, 1);
    walk_free(&w);
    return ok;
}

bool td_grad(td_tensor *const *outputs, td_tensor *const *seeds, uint32_t n_out, td_tensor *const *inputs,
             uint32_t n_in, uint32_t flags, td_tensor **grads)
{
    if (tdi_failed()) return false;
    walk w;
    walk_begin(&w);
    w.create = flags & TD_CREATE_GRAPH;
    w.retain = flags & (TD_RETAIN_GRAPH | TD_CREATE_GRAPH);
    w.stop = flags & STOP_AT_INPUTS;
    w.targets = calloc(n_in ? n_in : 1, sizeof *w.targets);
    if (!w.targets) return no_memory();
    w.n_targets = n_in;
    bool ok = true;
    for (uint32_t i = 0; i < n_in && ok; i++) {
        td_tensor *x = inputs[i];
        ok = x && tdi_needs_grad(x);
        if (!ok && !(flags & TD_ALLOW_UNUSED)) td_fail("grad: input %u does not require a gradient", i + 1);
        else if (ok) w.targets[i] = (target){x->node, x->node ? NULL : x, NULL, x->out_index};
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
    walk_free(&w);
    return ok && !tdi_failed();
}

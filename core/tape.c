/* tape.c - recording: each result that needs it holds its node, the node its edges and what backward will need. */
#include "autograd.h"
#include "block.h"
#include "dispatch.h"
#include "plan.h"
#include "trace.h"
#include <stdlib.h>
#include <string.h>

static uint64_t next_in_order(void)
{
    static atomic_uint_fast64_t next = 1;
    if (!TDI_ALONE()) return atomic_fetch_add_explicit(&next, 1, memory_order_relaxed);
    uint64_t seq = atomic_load_explicit(&next, memory_order_relaxed);
    atomic_store_explicit(&next, seq + 1, memory_order_relaxed);
    return seq;
}

/* Name of the signature that a place belongs to. */
static uint32_t name_of(const tdi_sig *s, uint32_t place, uint32_t n_list)
{
    uint32_t i = 0;
    for (; i < s->n; i++) {
        uint32_t places = s->list >> i & 1 ? n_list : 1;
        if (place < places) break;
        place -= places;
    }
    return i;
}

static bool saves_in(const tdi_recording *r, uint32_t i)
{
    uint32_t name = r->op->in.list ? name_of(&r->op->in, i, r->n_list) : i;
    return r->op->t.save_in >> name & 1;
}

static bool saves_out(const tdi_recording *r, uint32_t i) { return r->op->t.save_out >> (r->op->out.list ? 0 : i) & 1; }

/* Extents that shapes without data take. */
static size_t kept_dims(const tdi_recording *r)
{
    size_t n = 0;
    for (uint32_t i = 0; i < r->n_in; i++)
        if (r->in[i] && !saves_in(r, i)) n += (size_t)r->in[i]->v.nd;
    for (uint32_t i = 0; i < r->n_out; i++)
        if (!saves_out(r, i)) n += (size_t)r->out[i]->v.nd;
    return n;
}

/* One block for a node and its arrays: recording costs one pop of a free list. */
static td_node *node_new(const tdi_recording *r, int64_t **dims)
{
    size_t edges = r->n_in * sizeof(tdi_edge), saved = (size_t)(r->n_in + r->n_out) * sizeof(tdi_saved);
    size_t kept = r->alike ? (size_t)r->out[0]->v.nd : kept_dims(r);
    size_t fixed = sizeof(td_node) + edges + saved, size = fixed + kept * sizeof **dims;
    td_node *n = tdi_block_alloc(size);
    if (!n) return NULL;
    memset(n, 0, fixed);
    atomic_init(&n->refs, 1);
    n->size = (uint32_t)size;
    n->edge = (tdi_edge *)(n + 1);
    n->in = (tdi_saved *)(n->edge + r->n_in);
    n->out = n->in + r->n_in;
    *dims = (int64_t *)(n->out + r->n_out);
    n->n_in = r->n_in;
    n->n_out = r->n_out;
    n->seq = next_in_order();
    return n;
}

static bool save(tdi_saved *to, const td_tensor *t, bool data, uint32_t ahead, int64_t **dims)
{
    if (!t) return true;
    to->present = true;
    to->dt = (int16_t)t->v.dt;
    to->nd = (int8_t)t->v.nd;
    if (data) {
        to->t = tdi_alias(t);
        if (t->st) to->version = atomic_load_explicit(&t->st->version, memory_order_relaxed) + ahead;
        return to->t != NULL;
    }
    if (t->v.nd) memcpy(*dims, t->v.dim, (size_t)t->v.nd * sizeof **dims);
    to->dim = *dims;
    *dims += t->v.nd;
    return true;
}

td_tensor *tdi_shell(const tdi_saved *s)
{
    td_tensor *t = tdi_tensor_alloc();
    if (!t) return NULL;
    t->v.dt = (td_dtype)s->dt;
    t->v.nd = s->nd;
    if (s->nd) memcpy(t->v.dim, s->t ? s->t->v.dim : s->dim, (size_t)s->nd * sizeof *s->dim);
    tdi_dense_strides(&t->v);
    t->shell = true;
    return tdi_own(tdi_ctx(), t);
}

static void make_edge(tdi_edge *e, td_tensor *t)
{
    if (!t || !td_dtype_is_float(t->v.dt)) return;
    if (t->node) {
        TD_ASSERT(t->out_index < t->node->n_out);
        e->node = tdi_node_keep(t->node);
        e->index = t->out_index;
    } else if (t->requires_grad) {
        e->leaf = tdi_keep(t);
    }
}

static bool save_all(td_node *n, const tdi_recording *r, int64_t *dims)
{
    for (uint32_t i = 0; i < r->n_in; i++) {
        make_edge(&n->edge[i], r->in[i]);
        if (!save(&n->in[i], r->in[i], saves_in(r, i), 0, &dims)) return false;
    }
    for (uint32_t i = 0; i < r->n_out; i++)
        if (!save(&n->out[i], r->out[i], saves_out(r, i), r->in_place, &dims)) return false;
    return true;
}

/* One input or output of a recording of things alike, whose shape is at dims already. */
static inline bool save_one(tdi_saved *to, const td_tensor *t, bool data, const int64_t *dims)
{
    to->present = true;
    to->dt = (int16_t)t->v.dt;
    to->nd = (int8_t)t->v.nd;
    to->dim = dims;
    if (!data) return true;
    if (t->st) to->version = atomic_load_explicit(&t->st->version, memory_order_relaxed);
    return (to->t = tdi_alias(t)) != NULL;
}

/* The same as save_all, with the shape kept once. */
static bool save_alike(td_node *n, const tdi_recording *r, int64_t *dims)
{
    const td_view *like = &r->out[0]->v;
    uint64_t in = r->op->t.save_in;
    for (int32_t k = 0; k < like->nd; k++) dims[k] = like->dim[k];
    for (uint32_t i = 0; i < r->n_in; i++, in >>= 1) {
        make_edge(&n->edge[i], r->in[i]);
        if (!save_one(&n->in[i], r->in[i], in & 1, dims)) return false;
    }
    return save_one(&n->out[0], r->out[0], r->op->t.save_out & 1, dims);
}

static bool gets_gradient(const tdi_recording *r, uint32_t i)
{
    uint32_t name = r->op->out.list ? 0 : i;
    return td_dtype_is_float(r->out[i]->v.dt) && !((r->op->out.aux | r->op->out.index) >> name & 1);
}

static void note_where(td_node *n)
{
    char text[256] = "";
    tdi_where(text, sizeof text);
    if (*text) n->where = strdup(text);
}

bool tdi_record(const tdi_recording *r)
{
    int64_t *dims;
    td_node *n = node_new(r, &dims);
    if (!n) return false;
    n->op = r->op;
    n->n_list = r->n_list;
    n->random[0] = r->random[0];
    n->random[1] = r->random[1];
    if (r->attr) n->attr = tdi_attr_copy(&r->op->t.attr, r->attr);
    if (tdi_ctx()->anomaly) note_where(n);
    if (tdi_failed() || !(r->alike ? save_alike(n, r, dims) : save_all(n, r, dims))) {
        tdi_node_release(n);
        return false;
    }
    for (uint32_t i = 0; i < r->n_out; i++) {
        if (!gets_gradient(r, i)) continue;
        td_tensor *t = r->out[i];
        td_node *old = t->node;
        if (old) tdi_node_forget(old, t);
        t->node = tdi_node_keep(n);
        t->out_index = i;
        t->requires_grad = false;
        if (t->retains_grad) td_retain_grad(t);
        tdi_node_release(old);
    }
    tdi_node_release(n);
    return true;
}

/* ---- release ---- */

static void release_saved(td_node *n)
{
    for (uint32_t i = 0; i < n->n_in + n->n_out; i++) {
        tdi_release(n->in[i].t); /* in and out are one array */
        n->in[i].t = NULL;
    }
}

static void free_one(td_node *n)
{
    release_saved(n);
    for (uint32_t i = 0; i < n->n_in; i++) {
        tdi_node_release(n->edge[i].node);
        tdi_release(n->edge[i].leaf);
    }
    if (n->attr) tdi_attr_free(&n->op->t.attr, n->attr);
    if (n->retain) free(n->retain);
    if (n->where) free(n->where);
    tdi_block_free(n, n->size);
}

static __thread td_node *waiting __attribute__((tls_model("initial-exec"))); /* that tdi_node_free is to free */
static __thread bool draining __attribute__((tls_model("initial-exec")));

void tdi_node_free(td_node *n)
{
    n->next = waiting;
    waiting = n;
    if (draining) return; /* the outermost call frees it: no recursion along a chain */
    draining = true;
    while (waiting) {
        td_node *first = waiting;
        waiting = first->next;
        free_one(first);
    }
    draining = false;
}

void tdi_node_drop_saved(td_node *n)
{
    release_saved(n);
    n->freed = true;
}

void tdi_node_forget(td_node *n, const td_tensor *t)
{
    if (n->retain && n->retain[t->out_index] == t) n->retain[t->out_index] = NULL;
}

/* ---- what users ask of a tensor ---- */

bool td_needs_grad(const td_tensor *t) { return t && tdi_needs_grad(t); }

bool td_is_leaf(const td_tensor *t) { return t && !t->node; }

bool td_require_grad(td_tensor *t, bool on)
{
    if (tdi_failed() || !t) return false;
    if (t->node)
        return td_fail("requires_grad: only of a leaf; this tensor is the result of %s: use detach()",
                       t->node->op->t.name);
    if (on && !td_dtype_is_float(t->v.dt))
        return td_fail_as(TD_EDTYPE, "requires_grad: only float tensors have gradients, got %s", tdi_describe(t));
    t->requires_grad = on;
    return true;
}

bool td_retain_grad(td_tensor *t)
{
    if (tdi_failed() || !t) return false;
    t->retains_grad = true;
    td_node *n = t->node;
    if (!n) return true;
    if (!n->retain && !(n->retain = calloc(n->n_out, sizeof *n->retain))) return td_fail_as(TD_ENOMEM, "out of memory");
    n->retain[t->out_index] = t;
    return true;
}

td_tensor *td_grad_of(const td_tensor *t)
{
    if (t && tdi_ctx()->trace && !tdi_trace_grad((td_tensor *)(uintptr_t)t, false)) return NULL;
    return t ? t->grad : NULL;
}

bool td_set_grad(td_tensor *t, td_tensor *grad)
{
    if (tdi_failed() || !t) return false;
    if (grad) {
        bool same = grad->v.nd == t->v.nd && grad->v.dt == t->v.dt;
        for (int32_t i = 0; same && i < t->v.nd; i++) same = grad->v.dim[i] == t->v.dim[i];
        if (!same || !grad->st || grad->st->dev != tdi_tensor_device(t))
            return td_fail_as(TD_ESHAPE, "grad: expected a gradient like the tensor, %s, got %s", tdi_describe(t),
                              tdi_describe(grad));
        tdi_keep(grad);
    }
    if (tdi_ctx()->trace && !tdi_trace_grad(t, true)) return tdi_release(grad), false;
    tdi_release(t->grad);
    t->grad = grad;
    return true;
}

const char *td_made_by(const td_tensor *t) { return t && t->node ? t->node->op->t.name : NULL; }

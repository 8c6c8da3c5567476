/* tile.c - chains of element-wise steps, run a tile at a time: what one kernel writes the next one finds in cache, and what
 * nobody else reads needs no memory beyond a tile. One parallel loop for all of them. */
#include "program.h"
#include "run.h"
#include <stdlib.h>
#include <string.h>

/* A chain has at least LEAST elements: below, all of it stays in cache anyway. TILE: elements at a time, 16 KiB of f32. A tile is a
 * multiple of ROWS rows, so that each element is computed by the same vector lanes as in one go: the same bits. */
enum { LEAST = 32768, TILE = 4096, ROWS = 16 };

typedef enum { FULL, ROW, SINGLE } spread;

struct tdi_tile_call {
    td_kargs a;
    bool (*run)(const td_kargs *);
    td_view *view; /* of this thread */
    const td_view **ptr;
    struct {
        bool rows;           /* its first axis counts the tile's rows                                                */
        const td_view *base; /* the bound view of all of it; NULL: p stays (a tile of the scratch)                   */
        int64_t bytes;       /* of one row; 0: each tile reads the same                                              */
    } * move;
    uint32_t n;
};

/* Whether x broadcasts to out as its last axes: *n elements, dense. */
static bool is_row(const td_view *x, const td_view *out, int64_t *n)
{
    if (x->nd > out->nd || !td_view_dense(x)) return false;
    int32_t k = x->nd;
    while (k > 0 && x->dim[k - 1] == out->dim[out->nd - x->nd + k - 1]) k--;
    *n = 1;
    for (int32_t i = k; i < x->nd; i++) *n *= x->dim[i];
    for (int32_t i = 0; i < k; i++)
        if (x->dim[i] != 1) return false;
    return true;
}

/* How an operand lies against a chain's results; *cols: the chain's rows, 0 as long as they are not known. */
static bool spread_of(const tdi_operand *o, const td_view *out, int64_t *cols, spread *how)
{
    int64_t n;
    *how = SINGLE;
    if (o->slot == TDI_NUMBER) return true;
    if (o->slot < 0) return false;
    if (tdi_same_dims(&o->v, out) && td_view_dense(&o->v)) {
        *how = FULL;
        return true;
    }
    if (td_view_numel(&o->v) == 1) return true;
    if (!is_row(&o->v, out, &n) || (*cols && *cols != n) || n > TILE) return false;
    *cols = n;
    *how = ROW;
    return true;
}

/* Whether step i can be part of a chain whose results look like out (NULL: it would be the first). */
static bool joins(const tdi_program *p, uint32_t i, const td_view *out, const td_device *dev, int64_t *cols)
{
    const tdi_step *s = &p->step[i];
    if (s->optimizer || s->n_out != 1 || (s->again && s->choice.kernel->again) || s->choice.plan || s->choice.ws_size ||
        (dev && s->dev != dev))
        return false;
    const uint32_t needed = TD_K_POINTWISE | TD_K_STRIDED;
    if ((s->choice.kernel->flags & needed) != needed || !td_dtype_is_float(s->compute)) return false;
    const tdi_operand *y = &p->operand[s->first + s->n_in];
    if (y->slot < 0 || !td_view_dense(&y->v) || td_view_numel(&y->v) < LEAST) return false;
    if (out && !tdi_same_dims(&y->v, out)) return false;
    int64_t with = *cols;
    spread how;
    for (uint32_t k = 0; k < s->n_in; k++)
        if (!spread_of(&p->operand[s->first + k], &y->v, &with, &how)) return false;
    *cols = with;
    return true;
}

/* Whether the operands of steps first .. last on a slot that one of them writes are all the same view: else tiles would mix. */
static bool keeps_apart(const tdi_program *p, uint32_t first, uint32_t last, uint32_t i)
{
    const tdi_step *s = &p->step[i];
    for (uint32_t k = 0; k <= s->n_in; k++) {
        const tdi_operand *a = &p->operand[s->first + k];
        for (uint32_t j = first; a->slot >= 0 && j <= last; j++) {
            const tdi_step *other = &p->step[j];
            if (p->fate[j] != TDI_EACH) continue;
            for (uint32_t m = 0; m <= other->n_in; m++) {
                const tdi_operand *b = &p->operand[other->first + m];
                bool written = k == s->n_in || m == other->n_in;
                bool same = a->offset == b->offset && tdi_same_dims(&a->v, &b->v) && a->v.dt == b->v.dt;
                if (written && b->slot == a->slot && !same) return false;
            }
        }
    }
    return true;
}

static const td_ext_parallel *loops_of(const td_device *dev)
{
    const td_backend *b = &dev->be->t;
    return dev->unified && !dev->async && b->extension ? b->extension("parallel.v1") : NULL;
}

/* The longest chain that begins with step i. */
static bool chain_from(const tdi_program *p, uint32_t i, tdi_tiles *c)
{
    int64_t cols = 0;
    if (p->fate[i] != TDI_EACH || !joins(p, i, NULL, NULL, &cols) || !keeps_apart(p, i, i, i)) return false;
    const td_device *dev = p->step[i].dev;
    const td_view *out = &p->operand[p->step[i].first + p->step[i].n_in].v;
    *c = (tdi_tiles){.first = i, .last = i, .n = 1, .loops = loops_of(dev), .dev = p->step[i].dev};
    if (!c->loops) return false;
    for (uint32_t k = i + 1; k < p->n_step; k++) {
        if (p->fate[k] != TDI_EACH) continue;
        if (!joins(p, k, out, dev, &cols) || !keeps_apart(p, i, k, k)) break;
        c->last = k;
        c->n++;
    }
    c->cols = cols ? cols : 1;
    c->rows = td_view_numel(out) / c->cols;
    c->tile = TILE / c->cols / ROWS * ROWS;
    if (c->tile < ROWS) c->tile = ROWS;
    return c->n > 1;
}

/* Slots that only one chain touches, whole and dense, are local to it. */
static void find_local(tdi_program *p)
{
    const tdi_trace *t = p->trace;
    for (uint32_t s = 0; s < t->n_slot; s++) p->local[s] = false;
    for (uint32_t c = 0; c < p->n_chain; c++)
        for (uint32_t i = p->chain[c].first; i <= p->chain[c].last; i++) {
            if (p->fate[i] != TDI_EACH) continue;
            const tdi_operand *y = &p->operand[p->step[i].first + p->step[i].n_in];
            if (!y->given && t->slot[y->slot].kind == TDI_PASSING) p->local[y->slot] = true;
        }
    for (uint32_t i = 0, c = 0; i < p->n_step; i++) {
        while (c < p->n_chain && p->chain[c].last < i) c++;
        bool inside = c < p->n_chain && i >= p->chain[c].first;
        if (inside || p->fate[i] == TDI_DEAD || p->step[i].optimizer) continue;
        for (uint32_t k = 0; k < p->step[i].n_in + p->step[i].n_out; k++) {
            int32_t slot = p->operand[p->step[i].first + k].slot;
            if (slot >= 0) p->local[slot] = false;
        }
    }
    for (uint32_t c = 0; c < p->n_chain; c++) /* made in one chain and read in another: not local */
        for (uint32_t i = p->chain[c].first; i <= p->chain[c].last; i++)
            for (uint32_t k = 0; p->fate[i] == TDI_EACH && k < p->step[i].n_in; k++) {
                int32_t slot = p->operand[p->step[i].first + k].slot;
                bool made_here = false;
                for (uint32_t j = p->chain[c].first; slot >= 0 && j < i; j++)
                    made_here |= p->fate[j] == TDI_EACH && p->operand[p->step[j].first + p->step[j].n_in].slot == slot;
                if (slot >= 0 && !made_here) p->local[slot] = false;
            }
}

bool tdi_tiles_find(tdi_program *p)
{
    const tdi_trace *t = p->trace;
    uint32_t cap = 0;
    free(p->chain);
    free(p->local);
    p->chain = NULL;
    p->n_chain = 0;
    p->local = calloc(t->n_slot + 1, sizeof *p->local);
    if (!p->local) return tdi_program_no_memory();
    for (uint32_t i = 0; i < p->n_step; i++) {
        tdi_tiles c;
        if (!chain_from(p, i, &c)) continue;
        if (p->n_chain == cap) {
            tdi_tiles *more = realloc(p->chain, (cap = cap * 2 + 8) * sizeof *more);
            if (!more) return tdi_program_no_memory();
            p->chain = more;
        }
        p->chain[p->n_chain++] = c;
        i = c.last;
    }
    find_local(p);
    return true;
}

/* ---- binding ---- */

/* Places of the local results among the tiles of the scratch; returns how many there are. */
static uint32_t place_local(const tdi_program *p, const tdi_tiles *c, int32_t *slots)
{
    uint32_t n = 0;
    for (uint32_t i = c->first; i <= c->last; i++) {
        if (p->fate[i] != TDI_EACH) continue;
        int32_t slot = p->operand[p->step[i].first + p->step[i].n_in].slot;
        bool seen = !p->local[slot];
        for (uint32_t k = 0; k < n; k++) seen |= slots[k] == slot;
        if (!seen) slots[n++] = slot;
    }
    return n;
}

static size_t tile_bytes(const tdi_tiles *c) { return (size_t)(c->tile * c->cols) * 8; }

/* One operand as a thread sees it: the view of a tile. */
static void bind_operand(const tdi_program *p, const tdi_tiles *c, struct tdi_tile_call *to, uint32_t k,
                         uint32_t operand, const td_view *out, char *local)
{
    const tdi_operand *o = &p->operand[operand];
    int64_t cols = c->cols;
    spread how;
    spread_of(o, out, &cols, &how);
    td_view *v = &to->view[k];
    *v = p->view[operand];
    v->flags &= ~(uint32_t)TD_V_ALIGNED;
    to->move[k].base = &p->view[operand]; /* one value or a row: all tiles read the same, where it lies in this run */
    to->ptr[k] = v;
    if (how == SINGLE) {
        v->nd = 0;
        return;
    }
    v->nd = c->cols == 1 ? 1 : 2;
    v->dim[0] = how == ROW ? 1 : c->tile;
    v->dim[1] = v->stride[0] = c->cols;
    v->stride[1] = 1;
    if (c->cols == 1) v->stride[0] = 1;
    if (how == ROW) return;
    to->move[k].rows = true;
    if (local) {
        to->move[k].base = NULL;
        v->p = local;
        return;
    }
    to->move[k].bytes = c->cols * (int64_t)td_dtype_size(v->dt);
}

static bool bind_thread(const tdi_program *p, tdi_tiles *c, int thread, const int32_t *slots, uint32_t n_local)
{
    char *scratch = n_local ? (char *)c->scratch->p + (size_t)thread * n_local * tile_bytes(c) : NULL;
    struct tdi_tile_call *to = c->thread[thread] = calloc(c->n, sizeof *to);
    if (!to) return tdi_program_no_memory();
    for (uint32_t i = c->first; i <= c->last; i++) {
        if (p->fate[i] != TDI_EACH) continue;
        const tdi_step *s = &p->step[i];
        to->n = s->n_in + 1;
        to->view = calloc(to->n, sizeof *to->view);
        to->ptr = calloc(to->n, sizeof *to->ptr);
        to->move = calloc(to->n, sizeof *to->move);
        if (!to->view || !to->ptr || !to->move) return tdi_program_no_memory();
        const td_view *out = &p->operand[s->first + s->n_in].v;
        for (uint32_t k = 0; k < to->n; k++) {
            int32_t slot = p->operand[s->first + k].slot;
            char *local = NULL;
            for (uint32_t m = 0; m < n_local; m++)
                if (slots[m] == slot) local = scratch + m * tile_bytes(c);
            bind_operand(p, c, to, k, s->first + k, out, local);
        }
        to->run = s->choice.kernel->run;
        to->a = (td_kargs){.n_in = s->n_in,
                           .n_out = 1,
                           .compute = s->compute,
                           .in = to->ptr,
                           .out = to->ptr + s->n_in,
                           .attr = s->attr,
                           .dev = s->dev->handle,
                           .ordinal = s->dev->ordinal};
        to++;
    }
    return true;
}

bool tdi_tiles_bind(tdi_program *p, tdi_tiles *c)
{
    const td_backend *b = &c->dev->be->t;
    const td_ext_threads *threads = b->extension("threads.v1");
    c->n_thread = threads ? threads->threads(0) : 1;
    int32_t *slots = malloc((c->n + 1) * sizeof *slots);
    c->thread = calloc((size_t)c->n_thread, sizeof *c->thread);
    bool ok = (slots && c->thread) || tdi_program_no_memory();
    uint32_t n_local = ok ? place_local(p, c, slots) : 0;
    if (ok && n_local) {
        c->scratch = tdi_storage_new(c->dev, (size_t)c->n_thread * n_local * tile_bytes(c));
        ok = c->scratch != NULL;
    }
    for (int i = 0; ok && i < c->n_thread; i++) ok = bind_thread(p, c, i, slots, n_local);
    free(slots);
    return ok;
}

void tdi_tiles_free(tdi_tiles *c)
{
    for (int i = 0; c->thread && i < c->n_thread; i++) {
        for (uint32_t k = 0; c->thread[i] && k < c->n; k++) {
            free(c->thread[i][k].view);
            free(c->thread[i][k].ptr);
            free(c->thread[i][k].move);
        }
        free(c->thread[i]);
    }
    free(c->thread);
    tdi_storage_release(c->scratch);
}

/* ---- running ---- */

typedef struct {
    const tdi_tiles *c;
    atomic_bool failed;
} tiling;

static void run_tile(void *arg, int64_t i, int thread)
{
    tiling *now = arg;
    const tdi_tiles *c = now->c;
    struct tdi_tile_call *call = c->thread[thread];
    int64_t from = i * c->tile, rows = c->rows - from < c->tile ? c->rows - from : c->tile;
    for (uint32_t k = 0; k < c->n; k++, call++) {
        for (uint32_t m = 0; m < call->n; m++) {
            td_view *v = &call->view[m];
            if (call->move[m].base) v->p = (char *)call->move[m].base->p + from * call->move[m].bytes;
            if (call->move[m].rows) v->dim[0] = rows;
        }
        if (!call->run(&call->a)) atomic_store(&now->failed, true);
    }
}

bool tdi_tiles_run(const tdi_tiles *c)
{
    tiling now = {.c = c};
    c->loops->run((c->rows + c->tile - 1) / c->tile, run_tile, &now);
    if (atomic_load(&now.failed) && !tdi_failed())
        return td_fail_as(TD_EPLUGIN, "capture: an element-wise kernel failed on a tile without saying why");
    return !tdi_failed();
}

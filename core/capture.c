/* capture.c - td_capture_*: which call is recorded, which replayed, and the guards between them. tide/capture.h says what for. */
#include "run.h"
#include "verify.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* MAX_PROGRAMS: recordings held at a time, for other shapes or modes. After PATIENCE recordings in a row that gave nothing, calls
 * run without recording for a while, twice as long each time: recording is slower than just running. */
enum { MAX_PROGRAMS = 8, MAX_WAITING = 4, PATIENCE = 4, FIRST_PAUSE = 16, LONGEST_PAUSE = 4096, MAX_WHY = 512 };

/* What a call is told apart by. */
typedef struct {
    td_view view;
    td_device *dev;
    td_tensor *same;  /* a leaf that wants a gradient: it must be this very tensor. One reference */
    uint32_t shares;  /* the first argument with the same storage: itself, mostly             */
    int64_t distance; /* in bytes, from that one's first element                              */
} guarded;

typedef struct {
    guarded *arg;
    uint32_t n_arg;
    char *key;
    size_t key_size;
    bool grad;
    td_device *device;
    uint64_t mode, data;
} signature;

typedef struct recording {
    struct recording *next;
    signature sig;
    char *key; /* of results */
    size_t key_size;
    tdi_trace *trace;     /* of a call that waits for an equal one; else NULL      */
    tdi_program *program; /* or what it became                                     */
} recording;

struct td_capture {
    td_context *ctx;
    recording *list;    /* those with a program, the last used first */
    recording *waiting; /* calls that wait for an equal one, the last first */
    recording *now;     /* the call that is being recorded           */
    recording *ran;     /* the replay whose results are asked for    */
    td_tensor *const *args;
    uint64_t calls, replays, recordings;
    uint32_t misses, pause, paused;
    bool check, keep_all; /* keep_all: no step runs twice */
    tdi_verify *verify;   /* check mode: what the replay gave, while the call runs once more */
    td_capture_info made;
    char why[MAX_WHY];
};

static _Atomic uint64_t modes, data_changes;

void td_mode_changed(uint64_t id)
{
    uint64_t h = (id ^ id >> 33) * 0xff51afd7ed558ccdull;
    atomic_fetch_xor_explicit(&modes, (h ^ h >> 29) * 0x9e3779b97f4a7c15ull, memory_order_relaxed);
}

void tdi_data_changed(void) { atomic_fetch_add_explicit(&data_changes, 1, memory_order_relaxed); }

bool td_capture_recording(void) { return tdi_ctx()->trace != NULL; }

static bool no_memory(void) { return td_fail_as(TD_ENOMEM, "capture: out of memory"); }

/* ---- signatures ---- */

static uint32_t first_sharer(td_tensor *const *args, uint32_t i)
{
    uint32_t k = 0;
    while (args[k]->st != args[i]->st) k++;
    return k;
}

static bool arg_matches(const guarded *g, td_tensor *const *args, uint32_t i)
{
    const td_tensor *x = args[i];
    if (g->same ? g->same != x : tdi_needs_grad(x)) return false;
    if (g->dev != x->st->dev || !tdi_same_layout(&g->view, &x->v)) return false;
    uint32_t k = first_sharer(args, i);
    return k == g->shares && (k == i || (char *)x->v.p - (char *)args[k]->v.p == g->distance);
}

static bool matches(const signature *s, td_tensor *const *args, uint32_t n, const void *key, size_t size)
{
    const td_context *ctx = tdi_ctx();
    if (s->n_arg != n || s->key_size != size || (size && memcmp(s->key, key, size))) return false;
    if (s->grad != ctx->grad || s->device != ctx->device) return false;
    if (s->mode != atomic_load_explicit(&modes, memory_order_relaxed)) return false;
    for (uint32_t i = 0; i < n; i++)
        if (!arg_matches(&s->arg[i], args, i)) return false;
    return true;
}

static bool fresh(const signature *s) { return s->data == atomic_load_explicit(&data_changes, memory_order_relaxed); }

static bool sign(signature *s, td_tensor *const *args, uint32_t n, const void *key, size_t size)
{
    const td_context *ctx = tdi_ctx();
    s->arg = calloc(n + 1, sizeof *s->arg);
    s->key = malloc(size + 1);
    if (!s->arg || !s->key) return no_memory();
    if (size) memcpy(s->key, key, size);
    s->key_size = size;
    s->grad = ctx->grad;
    s->device = ctx->device;
    s->mode = atomic_load(&modes);
    s->data = atomic_load(&data_changes);
    for (; s->n_arg < n; s->n_arg++) {
        td_tensor *x = args[s->n_arg];
        uint32_t k = first_sharer(args, s->n_arg);
        s->arg[s->n_arg] = (guarded){x->v, x->st->dev, tdi_needs_grad(x) ? tdi_keep(x) : NULL, k,
                                     (char *)x->v.p - (char *)args[k]->v.p};
    }
    return true;
}

static void recording_free(recording *r)
{
    if (!r) return;
    for (uint32_t i = 0; i < r->sig.n_arg; i++) tdi_release(r->sig.arg[i].same);
    free(r->sig.arg);
    free(r->sig.key);
    free(r->key);
    tdi_trace_free(r->trace);
    tdi_program_free(r->program);
    free(r);
}

/* ---- life ---- */

td_capture *td_capture_new(void)
{
    td_context *ctx = tdi_ctx();
    if (ctx->err) return NULL;
    td_capture *c = calloc(1, sizeof *c);
    if (!c) {
        no_memory();
        return NULL;
    }
    const char *mode = getenv("TIDE_CAPTURE");
    c->ctx = ctx;
    c->check = mode && !strcmp(mode, "check");
    c->pause = FIRST_PAUSE;
    snprintf(c->why, sizeof c->why, "it has not been called yet");
    return c;
}

void td_capture_reset(td_capture *c)
{
    for (recording *r = c->list, *next; r; r = next) {
        next = r->next;
        recording_free(r);
    }
    for (recording *r = c->waiting, *next; r; r = next) {
        next = r->next;
        recording_free(r);
    }
    c->list = c->waiting = c->ran = NULL;
    c->misses = c->paused = 0;
    c->pause = FIRST_PAUSE;
}

void td_capture_free(td_capture *c)
{
    if (!c) return;
    td_capture_abandon(c);
    td_capture_reset(c);
    free(c);
}

void td_capture_check(td_capture *c, bool on) { c->check = on; }
void td_capture_recompute(td_capture *c, bool on) { c->keep_all = !on; }

/* ---- a call ---- */

static bool check_args(td_tensor *const *args, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        const td_tensor *x = args[i];
        if (!x || !x->st)
            return td_fail("capture: argument %u: expected a tensor with memory, got %s", i + 1, tdi_describe(x));
        if (x->node)
            return td_fail(
                "capture: argument %u is the result of %s and recorded for gradients, which would end at a replay; "
                "compute it inside the function, or detach() it",
                i + 1, x->node->op->t.name);
    }
    return true;
}

/* The program whose guards hold, moved to the front; those whose tensors have other data now are given up. */
static recording *find(td_capture *c, td_tensor *const *args, uint32_t n, const void *key, size_t size)
{
    for (recording **at = &c->list, *r; (r = *at);) {
        if (!fresh(&r->sig)) {
            *at = r->next;
            recording_free(r);
            continue;
        }
        if (matches(&r->sig, args, n, key, size) && tdi_program_fits(r->program)) {
            *at = r->next;
            r->next = c->list;
            return c->list = r;
        }
        at = &r->next;
    }
    return NULL;
}

static bool begin_recording(td_capture *c, td_tensor *const *args, uint32_t n, const void *key, size_t size)
{
    recording *r = calloc(1, sizeof *r);
    if (!r) return no_memory();
    if (!sign(&r->sig, args, n, key, size) || !(r->trace = tdi_trace_begin(args, n))) {
        recording_free(r);
        return false;
    }
    c->now = r;
    c->recordings++;
    return true;
}

bool td_capture_call(td_capture *c, td_tensor *const *args, uint32_t n, const void *key, size_t size,
                     td_call_mode *mode)
{
    td_context *ctx = tdi_ctx();
    *mode = TD_CALL_EAGER;
    if (ctx->err) return false;
    if (c->ctx != ctx) return td_fail("capture: it belongs to another context than the calling thread's");
    c->calls++;
    c->ran = NULL;
    if (ctx->trace || c->now) { /* inside another captured function: its parts are recorded there */
        snprintf(c->why, sizeof c->why, "it was called while a captured function was being recorded");
        return true;
    }
    if (ctx->anomaly || ctx->decompose) {
        snprintf(c->why, sizeof c->why, "anomaly or decompose mode is on");
        return true;
    }
    if (!check_args(args, n)) return false;
    recording *r = find(c, args, n, key, size);
    if (r && c->check) {
        *mode = TD_CALL_RECORD;
        return tdi_verify_begin(&c->verify, r->program, args) && begin_recording(c, args, n, key, size);
    }
    if (r) {
        c->args = args;
        if (!tdi_program_run(r->program, args)) return false;
        c->ran = r;
        c->replays++;
        *c->why = 0;
        *mode = TD_CALL_REPLAYED;
        return true;
    }
    if (c->paused) {
        c->paused--;
        return true;
    }
    *mode = TD_CALL_RECORD;
    return begin_recording(c, args, n, key, size);
}

/* ---- the end of a recorded call ---- */

static bool check_results(td_tensor *const *results, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        const td_tensor *x = results[i];
        if (x->node && !x->node->freed)
            return td_fail("capture: result %u, of %s, is recorded for gradients, and a replay has no graph: call "
                           "backward inside the "
                           "function, return detach()ed tensors, or run it in no_grad",
                           i + 1, x->node->op->t.name);
    }
    return true;
}

static void miss(td_capture *c)
{
    if (++c->misses < PATIENCE) return;
    c->misses = 0;
    c->paused = c->pause;
    if (c->pause < LONGEST_PAUSE) c->pause *= 2;
}

static bool same_signature(const signature *a, const signature *b)
{
    bool same = a->n_arg == b->n_arg && a->key_size == b->key_size && !memcmp(a->key, b->key, a->key_size) &&
                a->grad == b->grad && a->device == b->device && a->mode == b->mode && a->data == b->data;
    for (uint32_t i = 0; same && i < a->n_arg; i++)
        same = tdi_same_layout(&a->arg[i].view, &b->arg[i].view) && a->arg[i].dev == b->arg[i].dev &&
               a->arg[i].same == b->arg[i].same && a->arg[i].shares == b->arg[i].shares &&
               a->arg[i].distance == b->arg[i].distance;
    return same;
}

/* Takes the call out of those that wait which was made like this one, if there is one. */
static recording *take_like(td_capture *c, const recording *r)
{
    for (recording **at = &c->waiting; *at; at = &(*at)->next) {
        recording *l = *at;
        if (!same_signature(&l->sig, &r->sig)) continue;
        *at = l->next;
        return l;
    }
    return NULL;
}

/* Whether two calls did the same. */
static bool equal_calls(td_capture *c, const recording *before, const recording *r)
{
    if (before->key_size != r->key_size || memcmp(before->key, r->key, r->key_size)) {
        snprintf(c->why, sizeof c->why, "it returned other Lua values than in the call before");
        return false;
    }
    return tdi_trace_equal(before->trace, r->trace, c->why, sizeof c->why);
}

/* Keeps at most max of a list, and frees the rest. */
static void keep_first(recording **at, uint32_t max)
{
    while (*at && max--) at = &(*at)->next;
    while (*at) {
        recording *old = *at;
        *at = old->next;
        recording_free(old);
    }
}

/* The recording becomes a program. Takes over r. */
static bool promote(td_capture *c, recording *r, td_tensor *const *results, uint32_t n)
{
    tdi_trace *t = r->trace;
    r->trace = NULL;
    if (!(r->program = tdi_program_make(t, results, n, !c->keep_all))) {
        recording_free(r);
        return false;
    }
    tdi_program_inform(r->program, &c->made);
    r->next = c->list;
    c->list = r;
    keep_first(&c->list, MAX_PROGRAMS);
    c->misses = 0;
    c->pause = FIRST_PAUSE;
    snprintf(c->why, sizeof c->why, "it was recorded; the next call is replayed");
    return true;
}

bool td_capture_end(td_capture *c, td_tensor *const *results, uint32_t n, const void *key, size_t size)
{
    recording *r = c->now;
    if (!r) return !tdi_failed();
    c->now = NULL;
    bool ok = tdi_trace_end(r->trace) && !tdi_failed() && check_results(results, n);
    r->key = ok ? malloc(size + 1) : NULL;
    ok = ok && (r->key || no_memory());
    if (!ok) {
        tdi_verify_free(&c->verify);
        recording_free(r);
        return false;
    }
    if (size) memcpy(r->key, key, size);
    r->key_size = size;
    if (c->verify) {
        snprintf(c->why, sizeof c->why, "check mode is on");
        ok = tdi_verify_end(&c->verify, r->trace);
        recording_free(r);
        return ok;
    }
    if (*r->trace->unfit) {
        snprintf(c->why, sizeof c->why, "%s", r->trace->unfit);
        miss(c);
        recording_free(r);
        return true;
    }
    recording *before = take_like(c, r);
    bool equal = before && equal_calls(c, before, r);
    if (!before)
        snprintf(c->why, sizeof c->why, "it was recorded for the first time; after two equal calls it is replayed");
    else if (!equal) miss(c);
    recording_free(before);
    if (equal) return promote(c, r, results, n);
    r->next = c->waiting;
    c->waiting = r;
    keep_first(&c->waiting, MAX_WAITING);
    return true;
}

void td_capture_abandon(td_capture *c)
{
    recording *r = c->now;
    if (!r) return;
    c->now = NULL;
    tdi_verify_free(&c->verify);
    snprintf(c->why, sizeof c->why, "the function failed");
    recording_free(r);
}

/* ---- asking ---- */

uint32_t td_capture_results(const td_capture *c) { return c->ran ? c->ran->program->n_result : 0; }

td_tensor *td_capture_result(td_capture *c, uint32_t i)
{
    if (tdi_failed() || !c->ran || i >= c->ran->program->n_result) return NULL;
    return tdi_program_result(c->ran->program, i, c->args);
}

const void *td_capture_result_key(const td_capture *c, size_t *size)
{
    *size = c->ran ? c->ran->key_size : 0;
    return c->ran ? c->ran->key : "";
}

bool td_capture_kernel(const td_capture *c, uint32_t i, char *to, size_t room)
{
    return c->list && tdi_program_describe(c->list->program, i, to, room);
}

void td_capture_inform(const td_capture *c, td_capture_info *info)
{
    *info = c->made;
    info->calls = c->calls;
    info->replays = c->replays;
    info->recordings = c->recordings;
    info->programs = 0;
    for (const recording *r = c->list; r; r = r->next) info->programs++;
    info->why = c->why;
}

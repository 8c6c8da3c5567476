/* profile.c - the profile of a context: a row for each op and direction, and a trace that Chrome and Perfetto show.
 * An op's time is its own: what it calls in turn (a decomposition's parts) is theirs. What no op and no walk of the tape covers
 * is outside: the front end, and the little that the core does between ops. */
#include "profile.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { MAX_FRAMES = 512, MAX_EVENTS = 1 << 20 }; /* frames: deeper nesting than the core allows */

typedef struct {
    uint32_t row;
    double start, below; /* below: of ops that this one called */
} frame;

typedef struct {
    uint32_t row;
    bool kernel;
    double start, time;
    char shape[40];
} event;

struct tdi_profile {
    td_profile_row *row;
    uint32_t n_row, cap_row;
    uint32_t *first; /* by place, see row_of: 1 + row; 0 = none */
    uint32_t n_first;
    frame stack[MAX_FRAMES];
    uint32_t depth, skipped; /* skipped: enters beyond the stack, or without memory */
    double start, ops;
    bool trace;
    event *event;
    uint32_t n_event, cap_event;
    uint64_t lost;
};

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static bool grow(void **v, uint32_t *cap, uint32_t n, size_t size)
{
    if (n < *cap) return true;
    uint32_t more = *cap ? 2 * *cap : 64;
    void *wide = realloc(*v, more * size);
    if (!wide) return false;
    *v = wide;
    *cap = more;
    return true;
}

/* Places: the walks, chains forward and backward, then each op forward and backward. */
enum { WALK = 0, CHAIN = 1, OPS = 3 };

/* The row of a place; UINT32_MAX without memory. */
static uint32_t row_of(tdi_profile *p, uint32_t place, const char *name, bool backward)
{
    if (place >= p->n_first) {
        uint32_t n = place + 64;
        uint32_t *wide = realloc(p->first, n * sizeof *wide);
        if (!wide) return UINT32_MAX;
        memset(wide + p->n_first, 0, (n - p->n_first) * sizeof *wide);
        p->first = wide;
        p->n_first = n;
    }
    if (p->first[place]) return p->first[place] - 1;
    if (!grow((void **)&p->row, &p->cap_row, p->n_row, sizeof *p->row)) return UINT32_MAX;
    p->row[p->n_row] = (td_profile_row){.op = name, .backward = backward};
    return (p->first[place] = ++p->n_row) - 1;
}

static void note(tdi_profile *p, uint32_t row, double start, double time, const td_kargs *a)
{
    if (!p->trace) return;
    if (p->n_event == MAX_EVENTS || !grow((void **)&p->event, &p->cap_event, p->n_event, sizeof *p->event)) {
        p->lost++;
        return;
    }
    event *e = &p->event[p->n_event++];
    *e = (event){.row = row, .kernel = a != NULL, .start = start, .time = time};
    const td_view *v = a && a->n_out ? a->out[0] : a && a->n_in ? a->in[0] : NULL;
    for (int32_t i = 0, at = 0; v && i < v->nd && at < (int32_t)sizeof e->shape; i++)
        at += snprintf(e->shape + at, sizeof e->shape - (size_t)at, i ? ",%lld" : "%lld", (long long)v->dim[i]);
}

static void enter(tdi_profile *p, uint32_t place, const char *name, bool backward)
{
    uint32_t row = p->depth < MAX_FRAMES && !p->skipped ? row_of(p, place, name, backward) : UINT32_MAX;
    if (row == UINT32_MAX) p->skipped++;
    else p->stack[p->depth++] = (frame){row, now(), 0};
}

void tdi_profile_enter(tdi_profile *p, const tdi_op *op, bool backward)
{
    if (op) enter(p, OPS + 2 * op->id + backward, op->t.name, backward);
    else enter(p, WALK, "(the tape)", true);
}

void tdi_profile_enter_chain(tdi_profile *p, bool backward) { enter(p, CHAIN + backward, "(a chain)", backward); }

static void leave(tdi_profile *p, bool kernel)
{
    if (p->skipped) {
        p->skipped--;
        return;
    }
    if (!p->depth) return; /* begun before the profile was */
    frame f = p->stack[--p->depth];
    double time = now() - f.start;
    td_profile_row *r = &p->row[f.row];
    r->calls++;
    r->time += time - f.below;
    if (kernel) r->kernel += time - f.below;
    if (p->depth) p->stack[p->depth - 1].below += time;
    else p->ops += time;
    note(p, f.row, f.start, time, NULL);
}

void tdi_profile_leave(tdi_profile *p) { leave(p, false); }
void tdi_profile_leave_chain(tdi_profile *p) { leave(p, true); }

/* Bytes that the kernel reads or writes at least once: repeated elements (stride 0) count once. */
static uint64_t bytes_of(const td_view *v)
{
    if (!v || v->flags & TD_V_NUMBER) return 0;
    uint64_t n = td_dtype_size(v->dt);
    for (int32_t i = 0; i < v->nd; i++)
        if (v->stride[i] || !v->dim[i]) n *= (uint64_t)v->dim[i];
    return n;
}

bool tdi_profile_kernel(tdi_profile *p, const tdi_op *op, bool (*run)(const td_kargs *), const td_kargs *a,
                        td_device *dev)
{
    double start = now();
    bool ok = run(a) && (!dev->async || tdi_device_sync(dev));
    double time = now() - start;
    uint32_t row = p->depth && !p->skipped ? p->stack[p->depth - 1].row : UINT32_MAX;
    if (row == UINT32_MAX) return ok;
    td_profile_row *r = &p->row[row];
    r->kernel += time;
    for (uint32_t i = 0; i < a->n_in; i++) r->bytes += bytes_of(a->in[i]);
    for (uint32_t i = 0; i < a->n_out; i++) r->bytes += bytes_of(a->out[i]);
    if (op) r->flops += tdi_flops(op->t.name, a);
    note(p, row, start, time, a);
    return ok;
}

void tdi_profile_free(tdi_profile *p)
{
    if (!p) return;
    free(p->row);
    free(p->first);
    free(p->event);
    free(p);
}

/* ---- the trace file: https://www.chromium.org/developers/how-tos/trace-event-profiling-tool, "complete" events in µs ---- */

static bool write_trace(const tdi_profile *p, const char *path, double end)
{
    FILE *f = fopen(path, "w");
    if (!f) return td_fail("profile: %s: %s", path, strerror(errno));
    fprintf(f, "{\"displayTimeUnit\": \"ms\", \"traceEvents\": [\n");
    fprintf(f, "{\"name\": \"profile\", \"ph\": \"X\", \"ts\": 0, \"dur\": %.3f, \"pid\": 1, \"tid\": 1}",
            1e6 * (end - p->start));
    for (uint32_t i = 0; i < p->n_event; i++) {
        const event *e = &p->event[i];
        const td_profile_row *r = &p->row[e->row]; /* names of ops are checked at registration: no quotes in them */
        const char *direction = r->backward ? "backward" : "forward";
        fprintf(f,
                ",\n{\"name\": \"%s%s\", \"cat\": \"%s\", \"ph\": \"X\", \"ts\": %.3f, \"dur\": %.3f, \"pid\": 1, "
                "\"tid\": 1",
                r->op, e->kernel ? " kernel" : "", direction, 1e6 * (e->start - p->start), 1e6 * e->time);
        if (*e->shape) fprintf(f, ", \"args\": {\"shape\": \"%s\"}", e->shape);
        fputc('}', f);
    }
    fprintf(f, "\n], \"otherData\": {\"lost\": \"%llu\"}}\n", (unsigned long long)p->lost);
    bool ok = !ferror(f);
    if (fclose(f) || !ok) return td_fail("profile: %s: %s", path, strerror(errno));
    return true;
}

/* ---- public ---- */

bool td_profile_start(bool trace)
{
    td_context *ctx = tdi_ctx();
    if (tdi_failed()) return false;
    if (ctx->profile) return td_fail("profile: one is being taken already");
    tdi_profile *p = calloc(1, sizeof *p);
    if (!p) return td_fail_as(TD_ENOMEM, "profile: out of memory");
    p->trace = trace;
    p->start = now();
    ctx->profile = p;
    return true;
}

static int slowest_first(const void *a, const void *b)
{
    const td_profile_row *x = a, *y = b;
    return (x->time < y->time) - (x->time > y->time);
}

bool td_profile_stop(const char *trace_path, void (*see)(void *arg, const td_profile_row *), void *arg,
                     td_profile_total *total)
{
    td_context *ctx = tdi_ctx();
    tdi_profile *p = ctx->profile;
    if (total) *total = (td_profile_total){0, 0, 0};
    if (!p) return td_fail("profile: none is being taken");
    if (p->depth) return td_fail("profile: it cannot end within an op"); /* a finalizer, run because memory was short */
    double end = now();
    ctx->profile = NULL;
    bool ok = !trace_path || write_trace(p, trace_path, end);
    if (p->n_row) qsort(p->row, p->n_row, sizeof *p->row, slowest_first);
    for (uint32_t i = 0; see && i < p->n_row; i++)
        if (p->row[i].calls) see(arg, &p->row[i]);
    if (total) *total = (td_profile_total){end - p->start, end - p->start - p->ops, p->lost};
    tdi_profile_free(p);
    return ok;
}

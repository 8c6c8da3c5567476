/* sort.c - sort, argsort and topk along one axis
 *
 * Every element becomes an unsigned key whose order is the one that is wanted: signs are turned so that negative numbers come
 * first, -0 is 0, a NaN is greater than all, and for a descending order all bits are flipped. A key of 4 bytes and the place
 * of its element make one 8-byte word (key in front), so words are all different and any method sorts stably; keys of 8 bytes
 * have the place beside them. Long lines are sorted by radix, a byte at a time from the lowest (Knuth, The Art of Computer
 * Programming 3, section 5.2.5), short ones by insertion and merging; topk keeps the k least in a heap (5.2.3). */
#include "cpu.h"
#include <string.h>

enum { RUN = 16, RADIX_MIN = 1024 }; /* runs sorted by insertion; from RADIX_MIN on radix is faster than merging */

/** A pair, for keys of 8 bytes. */
typedef struct {
    uint64_t key, at;
} wide;

/* ---- keys ---- */

static uint32_t key_f32(float x)
{
    uint32_t u;
    x += 0.0f; /* -0 becomes 0 */
    memcpy(&u, &x, sizeof u);
    if (x != x) return UINT32_MAX;
    return u >> 31 ? ~u : u | 0x80000000u;
}

static uint64_t key_f64(double x)
{
    uint64_t u;
    x += 0.0;
    memcpy(&u, &x, sizeof u);
    if (x != x) return UINT64_MAX;
    return u >> 63 ? ~u : u | 0x8000000000000000u;
}

/** Keys of a line of n elements that lie `step` apart. flip: descending. */
static void narrow_keys(uint64_t *to, const td_view *x, int64_t from, int64_t step, int64_t n, bool flip)
{
    uint32_t mask = flip ? UINT32_MAX : 0;
    for (int64_t i = 0; i < n; i++) {
        int64_t e = from + i * step;
        uint32_t k;
        if (x->dt == TD_F32) k = key_f32(((const float *)x->p)[e]);
        else if (x->dt == TD_I32) k = (uint32_t)((const int32_t *)x->p)[e] ^ 0x80000000u;
        else k = ((const uint8_t *)x->p)[e];
        to[i] = (uint64_t)(k ^ mask) << 32 | (uint32_t)i;
    }
}

static void wide_keys(wide *to, const td_view *x, int64_t from, int64_t step, int64_t n, bool flip)
{
    uint64_t mask = flip ? UINT64_MAX : 0;
    for (int64_t i = 0; i < n; i++) {
        int64_t e = from + i * step;
        if (x->dt == TD_F64) to[i].key = key_f64(((const double *)x->p)[e]) ^ mask;
        else if (x->dt == TD_I64) to[i].key = ((uint64_t)((const int64_t *)x->p)[e] ^ 0x8000000000000000u) ^ mask;
        else { /* 4 bytes and more elements than 32 bits count */ uint64_t one;
            narrow_keys(&one, x, e, 1, 1, false);
            to[i].key = (one >> 32) ^ mask;
        }
        to[i].at = (uint64_t)i;
    }
}

static bool narrow_less(const uint64_t *a, const uint64_t *b) { return *a < *b; }
static bool wide_less(const wide *a, const wide *b) { return a->key < b->key || (a->key == b->key && a->at < b->at); }

#define ELEM uint64_t
#define S(name) narrow_##name
#define LESS(a, b) narrow_less(a, b)
#define BYTES 4
#define BYTE(e, b) ((e) >> (32 + 8 * (b)) & 255)
#include "sort_methods.h"
#undef ELEM
#undef S
#undef LESS
#undef BYTES
#undef BYTE
#define ELEM wide
#define S(name) wide_##name
#define LESS(a, b) wide_less(a, b)
#define BYTES 8
#define BYTE(e, b) ((e).key >> (8 * (b)) & 255)
#include "sort_methods.h"
#undef ELEM
#undef S
#undef LESS
#undef BYTES
#undef BYTE

/* ---- lines ---- */

/** Lines of `n` elements along an axis, of whose order the first `k` places are wanted. */
typedef struct {
    const td_view *x;
    const td_view *values, *index; /* either may be NULL */
    int64_t outer, n, inner, k;
    bool flip;
} lines;

/* Whether elements and places fit in 8 bytes together. */
static bool is_narrow(const td_view *x, int64_t n) { return td_dtype_size(x->dt) <= 4 && n <= UINT32_MAX; }

static size_t line_bytes(const td_view *x, int64_t n)
{
    return (2 * (size_t)n * (is_narrow(x, n) ? sizeof(uint64_t) : sizeof(wide)) + 63) & ~(size_t)63;
}

/* Element i of the sorted line to its place in the results. */
static void put(const lines *l, int64_t to, int64_t from)
{
    if (l->index) ((int64_t *)l->index->p)[to] = from;
}

#define PUT_VALUES(type)               \
    for (int64_t i = 0; i < l->k; i++) \
    ((type *)l->values->p)[to + i * l->inner] = ((const type *)l->x->p)[from + places[i * l->inner] * l->inner]

/** One line: o, c its place around the axis. */
static void do_line(const lines *l, int64_t o, int64_t c, void *ws)
{
    int64_t from = o * l->n * l->inner + c, to = o * l->k * l->inner + c;
    bool all = l->k == l->n;
    if (is_narrow(l->x, l->n)) {
        uint64_t *v = ws, *tmp = v + l->n;
        narrow_keys(v, l->x, from, l->inner, l->n, l->flip);
        v = all ? narrow_sort(v, tmp, l->n) : narrow_least(v, tmp, l->n, l->k);
        for (int64_t i = 0; i < l->k; i++) put(l, to + i * l->inner, (int64_t)(uint32_t)v[i]);
    } else {
        wide *v = ws, *tmp = v + l->n;
        wide_keys(v, l->x, from, l->inner, l->n, l->flip);
        v = all ? wide_sort(v, tmp, l->n) : wide_least(v, tmp, l->n, l->k);
        for (int64_t i = 0; i < l->k; i++) put(l, to + i * l->inner, (int64_t)v[i].at);
    }
    if (!l->values) return;
    const int64_t *places = (const int64_t *)l->index->p + to;
    size_t size = td_dtype_size(l->x->dt);
    if (size == 4) PUT_VALUES(uint32_t);
    else if (size == 8) PUT_VALUES(uint64_t);
    else PUT_VALUES(uint8_t);
}

/* The plan is the number of threads that the workspace is for, as a pointer that nobody follows. */
static bool plan_lines(const td_kargs *a, int64_t axis, void **plan, size_t *ws_size)
{
    const td_view *x = a->in[0];
    int64_t n = x->dim[axis < 0 ? axis + x->nd : axis], lines_of_x = n ? td_view_numel(x) / n : 0;
    int threads = td_view_numel(x) < TD_PAR_MIN ? 1 : cpu_threads();
    if (threads > lines_of_x) threads = lines_of_x > 1 ? (int)lines_of_x : 1;
    *plan = (void *)(intptr_t)threads;
    *ws_size = (size_t)threads * line_bytes(x, n);
    return true;
}

static bool run_lines(const td_kargs *a, int64_t axis, bool flip, const td_view *values, const td_view *index)
{
    const td_view *x = a->in[0];
    if (axis < 0) axis += x->nd;
    lines l = {.x = x,
               .values = values,
               .index = index,
               .outer = 1,
               .n = x->dim[axis],
               .inner = 1,
               .k = index->dim[axis],
               .flip = flip};
    for (int32_t i = 0; i < x->nd; i++) {
        if (i < axis) l.outer *= x->dim[i];
        if (i > axis) l.inner *= x->dim[i];
    }
    int threads = (int)(intptr_t)a->plan < cpu_threads() ? (int)(intptr_t)a->plan : cpu_threads();
    size_t each = line_bytes(x, l.n);
#pragma omp parallel for num_threads(threads) if (threads > 1) schedule(static, 1)
    for (int t = 0; t < threads; t++)
        for (int64_t i = t * (l.outer * l.inner) / threads; i < (t + 1) * (l.outer * l.inner) / threads; i++)
            do_line(&l, i / l.inner, i % l.inner, (char *)a->ws + (size_t)t * each);
    return true;
}

static bool plan_sort(const td_kargs *a, void **plan, size_t *ws)
{
    return plan_lines(a, ((const td_sort_attr *)a->attr)->axis, plan, ws);
}

static bool run_sort(const td_kargs *a)
{
    const td_sort_attr *o = a->attr;
    return run_lines(a, o->axis, o->descending, a->out[0], a->out[1]);
}

static bool plan_argsort(const td_kargs *a, void **plan, size_t *ws)
{
    return plan_lines(a, ((const td_argsort_attr *)a->attr)->axis, plan, ws);
}

static bool run_argsort(const td_kargs *a)
{
    const td_argsort_attr *o = a->attr;
    return run_lines(a, o->axis, o->descending, NULL, a->out[0]);
}

static bool plan_topk(const td_kargs *a, void **plan, size_t *ws)
{
    return plan_lines(a, ((const td_topk_attr *)a->attr)->axis, plan, ws);
}

static bool run_topk(const td_kargs *a)
{
    const td_topk_attr *o = a->attr;
    return run_lines(a, o->axis, o->largest, a->out[0], a->out[1]);
}

static const td_kernel rows[] = {
    CPU_KERNEL("sort", TD_BITS_ALL, 0, run_sort, .plan = plan_sort),
    CPU_KERNEL("argsort", TD_BITS_ALL, 0, run_argsort, .plan = plan_argsort),
    CPU_KERNEL("topk", TD_BITS_ALL, 0, run_topk, .plan = plan_topk),
};
CPU_TABLE(sort, rows)

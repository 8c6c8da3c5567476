/* index.c - slices by index along one axis: index_select embedding index_copy index_add; elements by index: gather scatter
 * scatter_add; and nonzero_n.
 *
 * A tensor is (outer, extent, inner) around its axis. Where elements only move, they are bytes of any dtype; where they are
 * added, the order is that of the indices, for the sum's bits must not depend on threads: so threads share outer, or inner. */
#include "index.h"
#include "vec.h"
#include <string.h>

enum { ANY = TD_BITS_ALL | TD_BIT(TD_F16) | TD_BIT(TD_BF16), PAR_BYTES = 4 * TD_PAR_MIN };

static int64_t real_axis(int64_t axis, const td_view *v) { return axis < 0 ? axis + v->nd : axis; }

/** Product of the extents of axes first .. last - 1. */
static int64_t extent_of(const td_view *v, int64_t first, int64_t last)
{
    int64_t n = 1;
    for (int64_t i = first; i < last; i++) n *= v->dim[i];
    return n;
}

/** The whole of x to y, which has as many bytes. */
static void copy_all(const td_view *y, const td_view *x)
{
    int64_t n = td_view_numel(x) * (int64_t)td_dtype_size(x->dt), parts = n > 16 * PAR_BYTES ? cpu_threads() : 1;
#pragma omp parallel for if (parts > 1)
    for (int64_t i = 0; i < parts; i++) {
        int64_t begin = i * n / parts, end = (i + 1) * n / parts;
        memcpy((char *)y->p + begin, (const char *)x->p + begin, (size_t)(end - begin));
    }
}

/* ---- index_select, embedding, index_copy: whole slices move ---- */

/** Slices of `bytes` bytes: slice k of each outer part to or from place i[k], in an axis of `extent`. */
typedef struct {
    char *to;
    const char *from;
    const td_view *i;
    int64_t outer, n, extent, bytes;
} slices;

#define SLICES_OF(type)                                                            \
    for (int64_t k = 0; k < s->n; k++) {                                           \
        int64_t at = index_at(s->i, k);                                            \
        if (put) ((type *)(void *)to)[at] = ((const type *)(const void *)from)[k]; \
        else ((type *)(void *)to)[k] = ((const type *)(const void *)from)[at];     \
    }

VEC_INLINE void move_outer(const slices *s, int64_t o, const bool put)
{
    char *to = s->to + o * (put ? s->extent : s->n) * s->bytes;
    const char *from = s->from + o * (put ? s->n : s->extent) * s->bytes;
    if (s->bytes == 4) {
        SLICES_OF(uint32_t)
    } else if (s->bytes == 8) {
        SLICES_OF(uint64_t)
    } else if (s->bytes == 1) {
        SLICES_OF(uint8_t)
    } else {
        for (int64_t k = 0; k < s->n; k++) {
            int64_t at = index_at(s->i, k);
            if (put) memcpy(to + at * s->bytes, from + k * s->bytes, (size_t)s->bytes);
            else memcpy(to + k * s->bytes, from + at * s->bytes, (size_t)s->bytes);
        }
    }
}

/** Reads slices. With one outer part threads share the indices: no two write to the same place. */
static void take_slices(const slices *s)
{
    int64_t work = s->outer * s->n * s->bytes;
    if (s->outer == 1) {
#pragma omp parallel for if (work > PAR_BYTES)
        for (int64_t k = 0; k < s->n; k++)
            memcpy(s->to + k * s->bytes, s->from + index_at(s->i, k) * s->bytes, (size_t)s->bytes);
        return;
    }
#pragma omp parallel for if (work > PAR_BYTES)
    for (int64_t o = 0; o < s->outer; o++) move_outer(s, o, false);
}

static bool select_slices(const td_kargs *a, const char *op, int64_t axis)
{
    const td_view *x = a->in[0], *i = a->in[1];
    if (!indices_ok(op, i, x->dim[axis])) return false;
    slices s = {a->out[0]->p,
                x->p,
                i,
                extent_of(x, 0, axis),
                td_view_numel(i),
                x->dim[axis],
                extent_of(x, axis + 1, x->nd) * (int64_t)td_dtype_size(x->dt)};
    take_slices(&s);
    return true;
}

static bool run_index_select(const td_kargs *a)
{
    return select_slices(a, "index_select", real_axis(((const td_index_select_attr *)a->attr)->axis, a->in[0]));
}

static bool run_embedding(const td_kargs *a) { return select_slices(a, "embedding", 0); }

static bool run_index_copy(const td_kargs *a)
{
    const td_view *x = a->in[0], *i = a->in[1];
    int64_t axis = real_axis(((const td_index_copy_attr *)a->attr)->axis, x);
    if (!indices_ok("index_copy", i, x->dim[axis])) return false;
    copy_all(a->out[0], x);
    slices s = {a->out[0]->p,
                a->in[2]->p,
                i,
                extent_of(x, 0, axis),
                td_view_numel(i),
                x->dim[axis],
                extent_of(x, axis + 1, x->nd) * (int64_t)td_dtype_size(x->dt)};
#pragma omp parallel for if (s.outer > 1 && s.outer * s.n * s.bytes > PAR_BYTES)
    for (int64_t o = 0; o < s.outer; o++) move_outer(&s, o, true);
    return true;
}

/* ---- index_add ---- */

#define ADDS(X) X(f32, float) X(f64, double) X(i64, uint64_t) X(i32, uint32_t) X(u8, uint8_t) /* unsigned: wraps */

/* Elements c .. c + m of every slice of one outer part. */
#define ADD_SLICES(name, type)                                                                                     \
    static void add_slices_##name(void *y, const void *src, const td_view *i, int64_t n, int64_t inner, int64_t c, \
                                  int64_t m)                                                                       \
    {                                                                                                              \
        for (int64_t k = 0; k < n; k++) {                                                                          \
            type *restrict to = (type *)y + index_at(i, k) * inner + c;                                            \
            const type *restrict from = (const type *)src + k * inner + c;                                         \
            for (int64_t j = 0; j < m; j++) to[j] = (type)(to[j] + from[j]);                                       \
        }                                                                                                          \
    }
ADDS(ADD_SLICES)
static void add_slices_bool(void *y, const void *src, const td_view *i, int64_t n, int64_t inner, int64_t c, int64_t m)
{
    for (int64_t k = 0; k < n; k++)
        for (int64_t j = c; j < c + m; j++)
            ((uint8_t *)y)[index_at(i, k) * inner + j] |= ((const uint8_t *)src)[k * inner + j];
}

typedef void add_fn(void *y, const void *src, const td_view *i, int64_t n, int64_t inner, int64_t c, int64_t m);

static bool run_index_add(const td_kargs *a)
{
    static add_fn *const add[] = {[TD_F32] = add_slices_f32, [TD_F64] = add_slices_f64, [TD_I64] = add_slices_i64,
                                  [TD_I32] = add_slices_i32, [TD_U8] = add_slices_u8,   [TD_BOOL] = add_slices_bool};
    const td_view *x = a->in[0], *i = a->in[1];
    int64_t axis = real_axis(((const td_index_add_attr *)a->attr)->axis, x), n = td_view_numel(i);
    if (!indices_ok("index_add", i, x->dim[axis])) return false;
    copy_all(a->out[0], x);
    int64_t outer = extent_of(x, 0, axis), inner = extent_of(x, axis + 1, x->nd), size = (int64_t)td_dtype_size(x->dt);
    int64_t parts = outer * n * inner * size > PAR_BYTES && outer < cpu_threads() ? cpu_threads() : 1; /* of inner */
    if (parts > inner / 16) parts = inner >= 16 ? inner / 16 : 1;
#pragma omp parallel for if (outer * n * inner * size > PAR_BYTES && outer * parts > 1)
    for (int64_t t = 0; t < outer * parts; t++) {
        int64_t o = t / parts, c = t % parts * inner / parts, m = (t % parts + 1) * inner / parts - c;
        char *to = (char *)a->out[0]->p + o * x->dim[axis] * inner * size;
        add[x->dt](to, (const char *)a->in[2]->p + o * n * inner * size, i, n, inner, c, m);
    }
    return true;
}

/* ---- gather, scatter, scatter_add: i has as many axes as x, and lies within it but for the axis ---- */

/** One row of i (its last axis): element j meets x at base + j step + i[j] axis_step, all in elements. */
typedef struct {
    int64_t rows, n, step, axis_step, axis;
} walk;

static walk walk_of(const td_view *x, const td_view *i, int64_t axis)
{
    walk w = {extent_of(i, 0, i->nd - 1), i->dim[i->nd - 1], axis == i->nd - 1 ? 0 : 1, extent_of(x, axis + 1, x->nd),
              axis};
    return w;
}

/** Where row r of i begins in x. */
static int64_t walk_base(const walk *w, const td_view *x, const td_view *i, int64_t r)
{
    int64_t base = 0, stride = x->dim[x->nd - 1];
    for (int32_t k = i->nd - 2; k >= 0; k--) {
        if (k != w->axis) base += r % i->dim[k] * stride;
        r /= i->dim[k];
        stride *= x->dim[k];
    }
    return base;
}

/** Rows of i that threads may take apart where something is written by index: those with different places in front of the axis.
 *  With none in front, one thread does it all. */
static int64_t walk_runs(const walk *w, const td_view *i)
{
    return w->axis == i->nd - 1 ? w->rows : extent_of(i, 0, w->axis);
}

#define WALK_ROW(type, lhs, op, rhs)                                                \
    for (int64_t j = 0; j < w->n; j++) {                                            \
        int64_t at = base + j * w->step + index_at(i, r * w->n + j) * w->axis_step; \
        int64_t here = r * w->n + j;                                                \
        (void)here;                                                                 \
        ((type *)to)[lhs] op((const type *)from)[rhs];                              \
    }

static void gather_row(void *to, const void *from, const td_view *i, const walk *w, int64_t r, int64_t base,
                       size_t size)
{
    if (size == 4) {
        WALK_ROW(uint32_t, here, =, at)
    } else if (size == 8) {
        WALK_ROW(uint64_t, here, =, at)
    } else if (size == 2) {
        WALK_ROW(uint16_t, here, =, at)
    } else {
        WALK_ROW(uint8_t, here, =, at)
    }
}

static void scatter_row(void *to, const void *from, const td_view *i, const walk *w, int64_t r, int64_t base,
                        size_t size)
{
    if (size == 4) {
        WALK_ROW(uint32_t, at, =, here)
    } else if (size == 8) {
        WALK_ROW(uint64_t, at, =, here)
    } else if (size == 2) {
        WALK_ROW(uint16_t, at, =, here)
    } else {
        WALK_ROW(uint8_t, at, =, here)
    }
}

static void scatter_add_row(void *to, const void *from, const td_view *i, const walk *w, int64_t r, int64_t base,
                            td_dtype dt)
{
    switch (dt) {
    case TD_F32: WALK_ROW(float, at, +=, here) break;
    case TD_F64: WALK_ROW(double, at, +=, here) break;
    case TD_I64: WALK_ROW(uint64_t, at, +=, here) break; /* unsigned: wraps */
    case TD_I32: WALK_ROW(uint32_t, at, +=, here) break;
    case TD_U8: WALK_ROW(uint8_t, at, +=, here) break;
    default: WALK_ROW(uint8_t, at, |=, here)
    }
}

static bool run_gather(const td_kargs *a)
{
    const td_view *x = a->in[0], *i = a->in[1];
    int64_t axis = real_axis(((const td_gather_attr *)a->attr)->axis, x);
    if (!indices_ok("gather", i, x->dim[axis])) return false;
    walk w = walk_of(x, i, axis);
    size_t size = td_dtype_size(x->dt);
#pragma omp parallel for if (w.rows > 1 && w.rows * w.n > TD_PAR_MIN)
    for (int64_t r = 0; r < w.rows; r++) gather_row(a->out[0]->p, x->p, i, &w, r, walk_base(&w, x, i, r), size);
    return true;
}

static bool write_by_index(const td_kargs *a, const char *op, int64_t axis, bool add)
{
    const td_view *x = a->in[0], *i = a->in[1], *y = a->out[0];
    axis = real_axis(axis, x);
    if (!indices_ok(op, i, x->dim[axis])) return false;
    copy_all(y, x);
    if (!td_view_numel(i)) return true;
    walk w = walk_of(x, i, axis);
    int64_t runs = walk_runs(&w, i), per = w.rows / runs;
    size_t size = td_dtype_size(x->dt);
#pragma omp parallel for if (runs > 1 && w.rows * w.n > TD_PAR_MIN)
    for (int64_t t = 0; t < runs; t++)
        for (int64_t r = t * per; r < (t + 1) * per; r++) {
            int64_t base = walk_base(&w, x, i, r);
            if (add) scatter_add_row(y->p, a->in[2]->p, i, &w, r, base, x->dt);
            else scatter_row(y->p, a->in[2]->p, i, &w, r, base, size);
        }
    return true;
}

static bool run_scatter(const td_kargs *a)
{
    return write_by_index(a, "scatter", ((const td_scatter_attr *)a->attr)->axis, false);
}

static bool run_scatter_add(const td_kargs *a)
{
    return write_by_index(a, "scatter_add", ((const td_scatter_add_attr *)a->attr)->axis, true);
}

/* ---- nonzero_n ---- */

static bool is_set(const void *p, td_dtype dt, int64_t i)
{
    switch (dt) {
    case TD_F32: return ((const float *)p)[i] != 0;
    case TD_F64: return ((const double *)p)[i] != 0;
    case TD_F16:
    case TD_BF16: return (((const uint16_t *)p)[i] & 0x7fff) != 0;
    case TD_I64: return ((const int64_t *)p)[i] != 0;
    case TD_I32: return ((const int32_t *)p)[i] != 0;
    default: return ((const uint8_t *)p)[i] != 0;
    }
}

static bool run_nonzero_n(const td_kargs *a)
{
    const td_view *x = a->in[0];
    int64_t n = ((const td_nonzero_n_attr *)a->attr)->n, total = td_view_numel(x), found = 0, *to = a->out[0]->p;
    for (int64_t i = 0; i < total && found < n; i++) {
        if (!is_set(x->p, x->dt, i)) continue;
        int64_t rest = i;
        for (int32_t k = x->nd - 1; k >= 0; k--) {
            to[found * x->nd + k] = rest % x->dim[k];
            rest /= x->dim[k];
        }
        found++;
    }
    return found == n || td_fail("nonzero_n: n: expected at most the %lld elements that are not zero, got %lld",
                                 (long long)found, (long long)n);
}

static const td_kernel rows[] = {
    CPU_KERNEL("index_select", ANY, 0, run_index_select),
    CPU_KERNEL("embedding", ANY, TD_K_CHEAP, run_embedding),
    CPU_KERNEL("index_copy", ANY, 0, run_index_copy),
    CPU_KERNEL("index_add", TD_BITS_ALL, 0, run_index_add),
    CPU_KERNEL("gather", ANY, 0, run_gather),
    CPU_KERNEL("scatter", ANY, 0, run_scatter),
    CPU_KERNEL("scatter_add", TD_BITS_ALL, 0, run_scatter_add),
    CPU_KERNEL("nonzero_n", ANY, 0, run_nonzero_n),
};
CPU_TABLE(index, rows)

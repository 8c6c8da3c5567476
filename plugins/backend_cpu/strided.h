/* strided.h - walks several views of one shape together, as few long loops as their strides allow.
 *
 * Operand 0 gives the shape, the others are broadcast to it. Axes are sorted so that operand 0 is walked in memory
 * order, adjacent ones are merged where every operand allows it, and what is left goes to a function in blocks of
 * `rows` rows of `n` elements. All strides are in bytes, so operands may differ in dtype. */
#ifndef TIDE_BACKEND_CPU_STRIDED_H
#define TIDE_BACKEND_CPU_STRIDED_H
#include "cpu.h"

#define ST_INLINE static inline __attribute__((unused))
#define ST_ONCE static __attribute__((unused, noinline)) /* large: one copy a file */

enum { ST_MAX_OPS = 6 };

/** What an inner function works on: element j of row r of operand k lies at p[k] + r row[k] + j step[k]. */
typedef struct {
    char *p[ST_MAX_OPS];
    int64_t step[ST_MAX_OPS], row[ST_MAX_OPS];
    int64_t n, rows;
    const void *ctx; /* the caller's */
} st_block;
typedef void st_fn(const st_block *);

/** Merged axes, outermost first; there is always one, so that the last is the inner loop. */
typedef struct {
    int nd, n_op;
    int64_t total, dim[TD_MAX_DIM], stride[ST_MAX_OPS][TD_MAX_DIM];
    char *p[ST_MAX_OPS];
} st_iter;

/** Merges axes i and i + 1 where the outer one continues the inner one in every operand. */
ST_INLINE void st_merge(st_iter *it)
{
    int last = 0;
    for (int i = 1; i < it->nd; i++) {
        bool joins = true;
        for (int k = 0; k < it->n_op; k++) joins &= it->stride[k][last] == it->stride[k][i] * it->dim[i];
        if (!joins) last++;
        it->dim[last] = joins ? it->dim[last] * it->dim[i] : it->dim[i];
        for (int k = 0; k < it->n_op; k++) it->stride[k][last] = it->stride[k][i];
    }
    it->nd = last + 1;
}

/** Sorts the axes, greatest stride of operand 0 first, by insertion: there are few, mostly in order. */
ST_INLINE void st_sort(st_iter *it)
{
    for (int i = 1; i < it->nd; i++) {
        for (int j = i; j > 0 && it->stride[0][j - 1] < it->stride[0][j]; j--) {
            int64_t d = it->dim[j];
            it->dim[j] = it->dim[j - 1];
            it->dim[j - 1] = d;
            for (int k = 0; k < it->n_op; k++) {
                int64_t s = it->stride[k][j];
                it->stride[k][j] = it->stride[k][j - 1];
                it->stride[k][j - 1] = s;
            }
        }
    }
}

ST_ONCE void st_init(st_iter *it, const td_view *const *v, int n_op)
{
    const td_view *o = v[0];
    int64_t size[ST_MAX_OPS];
    it->nd = 0;
    it->n_op = n_op;
    it->total = 1;
    for (int k = 0; k < n_op; k++) {
        it->p[k] = (char *)v[k]->p;
        size[k] = (int64_t)td_dtype_size(v[k]->dt);
    }
    for (int i = 0; i < o->nd; i++) {
        if (o->dim[i] == 1) continue;
        it->dim[it->nd] = o->dim[i];
        it->total *= o->dim[i];
        for (int k = 0; k < n_op; k++) {
            int a = i - (o->nd - v[k]->nd); /* the same axis, counted from the end */
            it->stride[k][it->nd] = a < 0 || v[k]->dim[a] == 1 ? 0 : v[k]->stride[a] * size[k];
        }
        it->nd++;
    }
    if (it->nd == 0) {
        it->nd = 1;
        it->dim[0] = 1;
        for (int k = 0; k < n_op; k++) it->stride[k][0] = size[k];
        return;
    }
    st_sort(it);
    st_merge(it);
}

/** Rows first .. first + count - 1, elements from .. from + n - 1 of each. */
ST_ONCE void st_walk(const st_iter *it, st_fn *fn, const void *ctx, int64_t first, int64_t count, int64_t from,
                     int64_t n)
{
    int in = it->nd - 1, mid = in - 1; /* blocks run along mid */
    int64_t at[TD_MAX_DIM] = {0}, left = first;
    st_block b = {.n = n, .rows = 1, .ctx = ctx};
    for (int k = 0; k < it->n_op; k++) {
        b.p[k] = it->p[k] + from * it->stride[k][in];
        b.step[k] = it->stride[k][in];
        b.row[k] = mid >= 0 ? it->stride[k][mid] : 0;
    }
    for (int i = mid; i >= 0; i--) {
        at[i] = left % it->dim[i];
        left /= it->dim[i];
        for (int k = 0; k < it->n_op; k++) b.p[k] += at[i] * it->stride[k][i];
    }
    while (count > 0) {
        if (mid >= 0) b.rows = it->dim[mid] - at[mid] < count ? it->dim[mid] - at[mid] : count;
        fn(&b);
        count -= b.rows;
        if (count <= 0) return;
        for (int k = 0; k < it->n_op; k++) b.p[k] -= at[mid] * b.row[k];
        at[mid] = 0;
        for (int i = mid - 1; i >= 0; i--) { /* count on: the next value of the outer axes */
            for (int k = 0; k < it->n_op; k++) b.p[k] += it->stride[k][i];
            if (++at[i] < it->dim[i]) break;
            for (int k = 0; k < it->n_op; k++) b.p[k] -= at[i] * it->stride[k][i];
            at[i] = 0;
        }
    }
}

/** What an element costs, in about 0.1 ns: to move or add, to compute a function of vmath.h, to call the C library. */
enum { ST_MOVE = 1, ST_MATH = 4, ST_CALL = 40 };

/**
 * Threads for n elements of a cost: each has TD_PAR_MIN elements of cost ST_MATH at least, 10 us, for that is what it
 * costs to wake it and to wait for it when waiting threads sleep (measured: 8 us; 1 us when they spin).
 */
ST_INLINE int st_threads(int64_t n, int cost)
{
    int64_t most = n / TD_PAR_MIN * cost / ST_MATH;
    if (most <= 1) return 1;
    int threads = cpu_threads();
    return threads < most ? threads : (int)most;
}

/** Work on units from .. to - 1. */
typedef void st_range_fn(void *ctx, int64_t from, int64_t to);

/** Gives each thread a range of the units; with one thread no parallel region is entered, which alone costs 0.2 us. */
ST_INLINE void st_share(int threads, int64_t units, st_range_fn *fn, void *ctx)
{
    if (threads == 1) {
        fn(ctx, 0, units);
        return;
    }
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int t = 0; t < threads; t++) fn(ctx, units * t / threads, units * (t + 1) / threads);
}

/* Rows of an iteration, each cut into parts of `piece` elements. */
typedef struct {
    const st_iter *it;
    st_fn *fn;
    const void *ctx;
    int64_t parts, piece;
} st_pieces;

ST_INLINE void st_walk_pieces(void *ctx, int64_t u, int64_t end)
{
    const st_pieces *s = ctx;
    int64_t n = s->it->dim[s->it->nd - 1];
    if (s->parts == 1) {
        st_walk(s->it, s->fn, s->ctx, u, end - u, 0, n);
        return;
    }
    for (; u < end; u++) {
        int64_t from = u % s->parts * s->piece;
        st_walk(s->it, s->fn, s->ctx, u / s->parts, 1, from, n - from < s->piece ? n - from : s->piece);
    }
}

/** Runs fn over all blocks, on several threads if that pays. */
ST_ONCE void st_for(const st_iter *it, st_fn *fn, const void *ctx, int cost)
{
    int64_t n = it->dim[it->nd - 1], rows = n ? it->total / n : 0, parts = 1, piece = n;
    int threads = st_threads(it->total, cost);
    if (threads > 1 && rows < 4 * threads) {
        parts = (4 * threads + rows - 1) / rows;
        piece = ((n + parts - 1) / parts + 63) & ~(int64_t)63;
        parts = (n + piece - 1) / piece;
    }
    st_pieces s = {it, fn, ctx, parts, piece};
    st_share(threads, rows * parts, st_walk_pieces, &s);
}

/** Whether the elements of v, which do not overlap, fill one range of memory. */
ST_INLINE bool st_gapless(const td_view *v, int64_t n)
{
    int64_t span = 1;
    for (int i = 0; i < v->nd; i++) span += (v->dim[i] - 1) * v->stride[i];
    return span == n;
}

/** Whether v has the shape and the strides of o. */
ST_INLINE bool st_same(const td_view *o, const td_view *v)
{
    if (o->nd != v->nd) return false;
    for (int i = 0; i < o->nd; i++) {
        if (o->dim[i] != v->dim[i] || (o->stride[i] != v->stride[i] && o->dim[i] != 1)) return false;
    }
    return true;
}

/** Splits one long row over threads. */
ST_ONCE void st_row(const st_block *b, int n_op, st_fn *fn, int threads)
{
    int64_t piece = ((b->n + threads - 1) / threads + 63) & ~(int64_t)63;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int t = 0; t < threads; t++) {
        st_block part = *b;
        int64_t from = t * piece;
        if (from >= b->n) continue;
        part.n = b->n - from < piece ? b->n - from : piece;
        for (int k = 0; k < n_op; k++) part.p[k] += from * part.step[k];
        fn(&part);
    }
}

/**
 * Runs fn over the elements of v[0] and, broadcast to it, of v[1] .. v[n_op - 1].
 * One element, and operands that are single elements or lie just as v[0] does, take the shortest way.
 */
ST_ONCE void st_apply(const td_view *const *v, int n_op, st_fn *fn, const void *ctx, int cost)
{
    const td_view *o = v[0];
    int64_t n = td_view_numel(o);
    st_block b;
    b.n = n;
    b.rows = 1;
    b.ctx = ctx;
    bool plain = n == 1 || st_gapless(o, n);
    for (int k = 0; plain && k < n_op; k++) {
        b.p[k] = (char *)v[k]->p;
        b.row[k] = 0;
        b.step[k] = (int64_t)td_dtype_size(v[k]->dt);
        if (k == 0 || n == 1 || st_same(o, v[k])) continue;
        if (td_view_numel(v[k]) == 1) b.step[k] = 0;
        else plain = false;
    }
    if (plain) {
        int threads = st_threads(n, cost);
        if (threads == 1) fn(&b);
        else st_row(&b, n_op, fn, threads);
        return;
    }
    st_iter it;
    st_init(&it, v, n_op);
    if (it.total > 0) st_for(&it, fn, ctx, cost);
}

#endif

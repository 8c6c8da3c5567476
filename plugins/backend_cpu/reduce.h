/* reduce.h - how a reduction walks its input; reduce.c has what it does with the elements (a fold).
 *
 * Axes are split into kept and reduced ones, each set sorted by the input's strides and merged. Where the innermost
 * axis is a reduced one, each result folds lines; where it is a kept one, 1024 neighbouring results fold rows together.
 * Work that is long but has few results is cut into segments, whose number depends on the sizes alone: the bits of a
 * result do not depend on the number of threads. */
#ifndef TIDE_BACKEND_CPU_REDUCE_H
#define TIDE_BACKEND_CPU_REDUCE_H
#include "strided.h"

/** What is known of the elements so far: a number of the fold's kind. */
typedef union {
    double d;
    int64_t i;
    uint64_t u; /* sums and products of integers, which wrap around */
} rd_acc;

typedef struct {
    rd_acc unit; /* of no elements                                                                        */
    /** a = a folded with n elements, step bytes apart. */
    void (*line)(rd_acc *a, const char *p, td_dtype dt, int64_t step, int64_t n);
    /** a[0 .. n - 1] folded with `rows` rows of n elements. */
    void (*rows)(rd_acc *a, const char *p, td_dtype dt, int64_t row, int64_t rows, int64_t step, int64_t n);
    void (*join)(rd_acc *a, const rd_acc *b);
    /** Writes a result; count is the number of elements folded. */
    void (*store)(char *to, const rd_acc *a, int64_t count);
} rd_fold;

enum { RD_BLOCK = 1024, RD_SEGMENT = 16384, RD_PARTS = 64, RD_ROOM = 1024, RD_ROWS_ROOM = 8 * RD_BLOCK };

typedef struct {
    const rd_fold *fold;
    td_dtype dt;
    const char *x;
    char *y;
    int nk, nr;                                               /* merged axes that are kept, reduced */
    int64_t kdim[TD_MAX_DIM], kx[TD_MAX_DIM], ky[TD_MAX_DIM]; /* kept: extents, bytes in x and in y */
    int64_t rdim[TD_MAX_DIM], rx[TD_MAX_DIM];
    int64_t kept, count; /* results, elements of each */
} rd_plan;

/* Inserts an axis before those of smaller stride; sy is NULL for reduced axes. */
ST_INLINE void rd_insert(int *n, int64_t *dim, int64_t *sx, int64_t *sy, int64_t d, int64_t x, int64_t y)
{
    int i = (*n)++;
    for (; i > 0 && sx[i - 1] < x; i--) {
        dim[i] = dim[i - 1];
        sx[i] = sx[i - 1];
        if (sy) sy[i] = sy[i - 1];
    }
    dim[i] = d;
    sx[i] = x;
    if (sy) sy[i] = y;
}

ST_INLINE void rd_merge(int *n, int64_t *dim, int64_t *sx, int64_t *sy)
{
    int last = 0;
    for (int i = 1; i < *n; i++) {
        bool joins = sx[last] == sx[i] * dim[i] && (!sy || sy[last] == sy[i] * dim[i]);
        if (!joins) last++;
        dim[last] = joins ? dim[last] * dim[i] : dim[i];
        sx[last] = sx[i];
        if (sy) sy[last] = sy[i];
    }
    if (*n) *n = last + 1;
}

/** reduced: bit i = axis i of x; y keeps them with extent 1 or not at all. */
ST_INLINE void rd_init(rd_plan *p, const td_view *y, const td_view *x, uint32_t reduced)
{
    int64_t size = (int64_t)td_dtype_size(x->dt), ysize = (int64_t)td_dtype_size(y->dt);
    bool keepdim = y->nd == x->nd;
    int j = 0;
    p->dt = x->dt;
    p->x = x->p;
    p->y = y->p;
    p->nk = p->nr = 0;
    p->kept = p->count = 1;
    for (int i = 0; i < x->nd; i++) {
        if (reduced >> i & 1u) {
            p->count *= x->dim[i];
            if (x->dim[i] != 1) rd_insert(&p->nr, p->rdim, p->rx, NULL, x->dim[i], x->stride[i] * size, 0);
        } else {
            int64_t sy = y->stride[keepdim ? i : j] * ysize;
            j++;
            p->kept *= x->dim[i];
            if (x->dim[i] != 1) rd_insert(&p->nk, p->kdim, p->kx, p->ky, x->dim[i], x->stride[i] * size, sy);
        }
    }
    rd_merge(&p->nk, p->kdim, p->kx, p->ky);
    rd_merge(&p->nr, p->rdim, p->rx, NULL);
    if (p->nr == 0 || p->count == 0) { /* a line of one element, or of none */
        p->nr = 1;
        p->rdim[0] = p->count;
        p->rx[0] = size;
    }
}

/** Offset of element i of some axes, in bytes, and the axes' counters. */
ST_INLINE int64_t rd_seek(int n, const int64_t *dim, const int64_t *stride, int64_t i, int64_t *at)
{
    int64_t off = 0;
    for (int a = n - 1; a >= 0; a--) {
        at[a] = i % dim[a];
        i /= dim[a];
        off += at[a] * stride[a];
    }
    return off;
}

/** Counts on: the change of the offset. */
ST_INLINE int64_t rd_next(int n, const int64_t *dim, const int64_t *stride, int64_t *at)
{
    int64_t off = 0;
    for (int a = n - 1; a >= 0; a--) {
        off += stride[a];
        if (++at[a] < dim[a]) break;
        off -= dim[a] * stride[a];
        at[a] = 0;
    }
    return off;
}

/** Folds segment s of S of the reduced elements at x: of the outer reduced axes if there are any, else of the line. */
ST_INLINE void rd_fold_segment(const rd_plan *p, rd_acc *a, const char *x, int64_t s, int64_t S)
{
    int in = p->nr - 1;
    int64_t n = p->rdim[in], step = p->rx[in], at[TD_MAX_DIM];
    if (in == 0) {
        int64_t from = n * s / S, to = n * (s + 1) / S;
        p->fold->line(a, x + from * step, p->dt, step, to - from);
        return;
    }
    int64_t lines = p->count / n, from = lines * s / S, to = lines * (s + 1) / S;
    x += rd_seek(in, p->rdim, p->rx, from, at);
    for (; from < to; from++) {
        p->fold->line(a, x, p->dt, step, n);
        x += rd_next(in, p->rdim, p->rx, at);
    }
}

/** Segments that the elements of one result are cut into. */
ST_INLINE int64_t rd_segments(const rd_plan *p)
{
    int64_t most = p->nr == 1 ? p->rdim[0] : p->count / p->rdim[p->nr - 1];
    int64_t s = p->count / RD_SEGMENT;
    if (s > most) s = most;
    return s < 1 ? 1 : s > RD_PARTS ? RD_PARTS : s;
}

/** Results from .. to - 1, one after the other. */
ST_INLINE void rd_lines_range(const rd_plan *p, int64_t from, int64_t to)
{
    int64_t kx[TD_MAX_DIM], ky[TD_MAX_DIM], S = rd_segments(p);
    const char *x = p->x + rd_seek(p->nk, p->kdim, p->kx, from, kx);
    char *y = p->y + rd_seek(p->nk, p->kdim, p->ky, from, ky);
    for (; from < to; from++) {
        rd_acc a = p->fold->unit;
        for (int64_t s = 0; s < S; s++) {
            rd_acc part = p->fold->unit;
            rd_fold_segment(p, S == 1 ? &a : &part, x, s, S);
            if (S > 1) p->fold->join(&a, &part);
        }
        p->fold->store(y, &a, p->count);
        x += rd_next(p->nk, p->kdim, p->kx, kx);
        y += rd_next(p->nk, p->kdim, p->ky, ky);
    }
}

ST_INLINE void rd_lines_task(void *ctx, int64_t from, int64_t to) { rd_lines_range(ctx, from, to); }

typedef struct {
    const rd_plan *p;
    rd_acc *part;
    int64_t S;
} rd_parts;

ST_INLINE void rd_parts_task(void *ctx, int64_t t, int64_t end)
{
    const rd_parts *r = ctx;
    for (; t < end; t++) {
        int64_t at[TD_MAX_DIM];
        rd_acc a = r->p->fold->unit;
        rd_fold_segment(r->p, &a, r->p->x + rd_seek(r->p->nk, r->p->kdim, r->p->kx, t / r->S, at), t % r->S, r->S);
        r->part[t] = a;
    }
}

/** Few results of many elements: threads share segments, whose folds are joined in order. */
ST_INLINE void rd_lines_shared(const rd_plan *p, int64_t S, int threads)
{
    rd_acc part[RD_ROOM];
    rd_parts r = {p, part, S};
    st_share(threads, p->kept * S, rd_parts_task, &r);
    for (int64_t q = 0; q < p->kept; q++) {
        int64_t at[TD_MAX_DIM];
        rd_acc a = p->fold->unit;
        for (int64_t s = 0; s < S; s++) p->fold->join(&a, &part[q * S + s]);
        p->fold->store(p->y + rd_seek(p->nk, p->kdim, p->ky, q, at), &a, p->count);
    }
}

ST_INLINE void rd_lines(rd_plan *p)
{
    int threads = st_threads(p->kept * p->count, ST_MOVE);
    int64_t S = rd_segments(p);
    if (threads > 1 && p->kept < 4 * threads && S > 1 && p->kept * S <= RD_ROOM) rd_lines_shared(p, S, threads);
    else st_share(threads, p->kept, rd_lines_task, p);
}

/** Folds segment s of S of the rows at x into n neighbouring results. */
ST_INLINE void rd_fold_rows(const rd_plan *p, rd_acc *a, const char *x, int64_t n, int64_t s, int64_t S)
{
    int in = p->nr - 1;
    int64_t rows = p->rdim[in], row = p->rx[in], step = p->kx[p->nk - 1], at[TD_MAX_DIM];
    int64_t total = p->count, from = total * s / S, to = total * (s + 1) / S;
    for (int64_t i = 0; i < n; i++) a[i] = p->fold->unit;
    x += rd_seek(p->nr, p->rdim, p->rx, from, at);
    while (from < to) {
        int64_t run = rows - at[in] < to - from ? rows - at[in] : to - from;
        p->fold->rows(a, x, p->dt, row, run, step, n);
        from += run;
        x += (run - 1) * row;
        at[in] += run - 1;
        x += rd_next(p->nr, p->rdim, p->rx, at);
    }
}

/** A block of n <= RD_BLOCK results that are neighbours along the innermost kept axis. */
typedef struct {
    const rd_plan *p;
    const char *x;
    char *y;
    int64_t n, S;
    rd_acc *a; /* S times n */
} rd_block;

ST_INLINE rd_block rd_block_at(const rd_plan *p, int64_t b, rd_acc *a, int64_t S)
{
    int in = p->nk - 1;
    int64_t at[TD_MAX_DIM], width = p->kdim[in], blocks = (width + RD_BLOCK - 1) / RD_BLOCK;
    int64_t from = b % blocks * RD_BLOCK;
    rd_block k = {p, NULL, NULL, width - from < RD_BLOCK ? width - from : RD_BLOCK, S, a};
    k.x = p->x + rd_seek(in, p->kdim, p->kx, b / blocks, at) + from * p->kx[in];
    k.y = p->y + rd_seek(in, p->kdim, p->ky, b / blocks, at) + from * p->ky[in];
    return k;
}

ST_INLINE void rd_block_store(const rd_block *k)
{
    for (int64_t i = 0; i < k->n; i++) {
        for (int64_t s = 1; s < k->S; s++) k->p->fold->join(&k->a[i], &k->a[s * k->n + i]);
        k->p->fold->store(k->y + i * k->p->ky[k->p->nk - 1], &k->a[i], k->p->count);
    }
}

ST_INLINE void rd_segments_task(void *ctx, int64_t s, int64_t end)
{
    const rd_block *k = ctx;
    for (; s < end; s++) rd_fold_rows(k->p, k->a + s * k->n, k->x, k->n, s, k->S);
}

ST_INLINE void rd_blocks_task(void *ctx, int64_t b, int64_t end)
{
    rd_acc a[RD_BLOCK];
    for (; b < end; b++) {
        rd_block k = rd_block_at(ctx, b, a, 1);
        rd_fold_rows(k.p, a, k.x, k.n, 0, 1);
        rd_block_store(&k);
    }
}

ST_INLINE void rd_rows(rd_plan *p)
{
    int64_t width = p->kdim[p->nk - 1], blocks = p->kept / width * ((width + RD_BLOCK - 1) / RD_BLOCK);
    int threads = st_threads(p->kept * p->count, ST_MOVE);
    int64_t S = blocks >= 8 ? 1 : p->count * (width < RD_BLOCK ? width : RD_BLOCK) / RD_SEGMENT;
    if (S > p->count) S = p->count;
    if (S <= 1) {
        st_share(threads, blocks, rd_blocks_task, p);
        return;
    }
    rd_acc a[RD_ROWS_ROOM];
    int64_t most = RD_ROWS_ROOM / (width < RD_BLOCK ? width : RD_BLOCK);
    if (S > most) S = most;
    if (S > RD_PARTS) S = RD_PARTS;
    for (int64_t b = 0; b < blocks; b++) { /* few blocks: threads share the segments of each */
        rd_block k = rd_block_at(p, b, a, S);
        st_share(threads, S, rd_segments_task, &k);
        rd_block_store(&k);
    }
}

/** y = fold of x over the axes in reduced. */
static void rd_run(const td_view *y, const td_view *x, uint32_t reduced, const rd_fold *fold)
{
    rd_plan p;
    rd_init(&p, y, x, reduced);
    p.fold = fold;
    if (p.kept == 0) return;
    if (p.count == 0 || p.nk == 0 || p.rx[p.nr - 1] <= p.kx[p.nk - 1]) rd_lines(&p);
    else rd_rows(&p);
}

#endif

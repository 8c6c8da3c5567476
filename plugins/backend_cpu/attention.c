/* attention.c - scaled_dot_product_attention and its gradient, f32, tile by tile: no T x S matrix in memory (Dao et al.
 * 2022, arXiv:2205.14135), softmax by running maxima and sums (Milakov & Gimelshein 2018, arXiv:1805.02867), and in the
 * gradient the probabilities again from the logarithms of the sums. The formulas stand in core/ops/attention.c.
 *
 * q, y (T, D and E) of one head, k (S, D) and v (S, E) of the head that it looks at: rows any distance apart, elements of
 * a row side by side. A tile is some keys by ROWS rows of q, side by side, so that maxima and sums of the rows lie in
 * lanes of vectors, and k, v and the gradients are read and written where they lie. A head, or in the gradient the heads
 * that share one of k and v, is one thread's, so results do not depend on the number of threads. */
#include "cpu.h"
#include "tile_gemm.h"
#include "vmath.h"
#include <string.h>

/* ROWS: a multiple of what a product holds in registers, and of a vector. WIDEST: the greatest D and E; up to about 64 a
 * tile and its operands fit the first level of cache. SHARE: multiply-adds that are worth waking a thread for. */
enum { ROWS = 8 * TG_ROWS, KEYS = 96, KEYS_BACK = 48, WIDEST = 256, SHARE = 1 << 18 };
static_assert(ROWS % VEC_F32 == 0, "a tile is whole vectors wide");
enum { ROWS_PACKED = (ROWS + TG_COLUMNS - 1) / TG_COLUMNS * TG_COLUMNS, WIDE_PACKED = WIDEST + TG_COLUMNS };

/** What is to be done. In a call the views' leading axes, all but the last three, count as one; h: heads of q. */
typedef struct {
    const td_view *q, *k, *v, *mask, *kept;
    int64_t batch, h, shared, group, t, s, d, e; /* shared: heads of k and v; group: heads of q to each */
    float scale, more;                           /* more: what a weight that dropout keeps is multiplied with */
    bool causal;
} problem;

/** One head: its rows and how far they are apart. */
typedef struct {
    float *p;
    int64_t apart;
} lines;

/** The mask of one head: bool or f32, NULL for none. */
typedef struct {
    const void *p;
    bool numbers;
    int64_t row, key; /* strides */
} head_mask;

static problem read_problem(const td_view *q, const td_view *k, const td_view *v, const td_view *mask, bool causal,
                            bool has_scale, double scale)
{
    int32_t nd = q->nd;
    problem a = {.q = q, .k = k, .v = v, .mask = mask, .batch = 1, .h = 1, .shared = 1, .group = 1, .causal = causal};
    a.t = q->dim[nd - 2], a.s = k->dim[nd - 2], a.d = q->dim[nd - 1], a.e = v->dim[nd - 1];
    for (int32_t i = 0; i < nd - 3; i++) a.batch *= q->dim[i];
    if (nd > 2) {
        a.h = q->dim[nd - 3];
        a.shared = k->dim[nd - 3];
        a.group = a.shared ? a.h / a.shared : 1;
    }
    a.scale = has_scale ? (float)scale : a.d > 0 ? 1.0f / sqrtf((float)a.d) : 1.0f;
    return a;
}

static problem with_dropout(problem a, const td_view *kept, double dropout)
{
    a.kept = kept;
    a.more = dropout < 1 ? (float)(1 / (1 - dropout)) : 0;
    return a;
}

/** How far into v batch b and head h lie; v is aligned at its last axis with nd axes, those of extent 1 repeat. */
static int64_t place_of(const td_view *v, const td_view *like, int64_t b, int64_t h)
{
    int32_t ahead = like->nd - v->nd;
    int64_t at = 0;
    for (int32_t i = like->nd - 3; i >= 0; i--) {
        int64_t index = h;
        if (i < like->nd - 3) {
            index = b % like->dim[i];
            b /= like->dim[i];
        }
        if (i >= ahead && v->dim[i - ahead] != 1) at += index * v->stride[i - ahead];
    }
    return at;
}

static lines head_of(const td_view *v, int64_t b, int64_t h)
{
    return (lines){(float *)v->p + place_of(v, v, b, h), v->stride[v->nd - 2]};
}

static head_mask mask_of(const problem *a, const td_view *m, int64_t b, int64_t h)
{
    if (!m) return (head_mask){NULL};
    int64_t at = place_of(m, a->q, b, h);
    head_mask to = {(const char *)m->p + at * (int64_t)td_dtype_size(m->dt), m->dt == TD_F32, 0, 0};
    if (m->nd > 0 && m->dim[m->nd - 1] != 1) to.key = m->stride[m->nd - 1];
    if (m->nd > 1 && m->dim[m->nd - 2] != 1) to.row = m->stride[m->nd - 2];
    return to;
}

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

/** Whole vectors for n rows: the lanes of a tile beyond its rows hold what harms nobody. */
static int64_t whole(int64_t n) { return (n + VEC_F32 - 1) / VEC_F32 * VEC_F32; }

/** z + mask for a tile of keys key .. key + n by rows row .. row + rows, -inf where a row may not look. */
static void mask_tile(const problem *a, const head_mask *m, float *z, int64_t key, int64_t n, int64_t row, int64_t rows)
{
    for (int64_t j = 0; j < n; j++) {
        float *restrict to = z + j * ROWS;
        int64_t at = row * m->row + (key + j) * m->key, before = a->causal ? least(key + j - row, rows) : 0;
        if (m->p && m->numbers) {
            const float *add = (const float *)m->p + at;
            for (int64_t r = 0; r < rows; r++) to[r] += add[r * m->row];
        } else if (m->p) {
            const unsigned char *may = (const unsigned char *)m->p + at;
            for (int64_t r = 0; r < rows; r++) to[r] = may[r * m->row] ? to[r] : -INFINITY;
        }
        for (int64_t r = 0; r < before; r++) to[r] = -INFINITY;
    }
}

/** to = a tile of weights or of their gradients as far as dropout keeps them; may be the tile. */
static void drop_tile(const problem *a, const head_mask *kept, float *to, const float *tile, int64_t key, int64_t n,
                      int64_t row, int64_t rows)
{
    const float more = a->more;
    for (int64_t j = 0; j < n; j++) {
        const unsigned char *keep = (const unsigned char *)kept->p + row * kept->row + (key + j) * kept->key;
        for (int64_t r = 0; r < rows; r++) to[j * ROWS + r] = keep[r * kept->row] ? tile[j * ROWS + r] * more : 0;
    }
}

/** z of a tile: q scaled and packed by pack_rows. */
static void scores(const problem *a, const head_mask *m, lines k, const float *qt, float *z, int64_t key, int64_t n,
                   int64_t row, int64_t rows)
{
    tg_gemm(n, whole(rows), a->d, k.p + key * k.apart, k.apart, 1, qt, z, ROWS, false);
    if (m->p || (a->causal && key + n - 1 > row)) mask_tile(a, m, z, key, n, row, rows);
}

/** Rows of x, transposed and packed: what a tile of keys is multiplied with. */
static void pack_rows(float *to, lines x, int64_t row, int64_t rows, int64_t width, float factor)
{
    tg_pack(to, x.p + row * x.apart, width, rows, 1, x.apart);
    if (factor == 1) return;
    for (int64_t i = 0; i < width * tg_padded(rows); i++) to[i] *= factor;
}

/** B (k, n) for a product, as it lies or packed to room. */
typedef struct {
    const float *p;
    int64_t brs, bps;
} operand;

static operand readable(lines x, int64_t from, int64_t k, int64_t n, float *room)
{
    const float *p = x.p + from * x.apart;
    if (tg_direct(n)) return (operand){p, x.apart, TG_COLUMNS};
    tg_pack(room, p, k, n, x.apart, 1);
    return (operand){room, TG_COLUMNS, k * TG_COLUMNS};
}

static void clear(lines x, int64_t rows, int64_t width)
{
    for (int64_t r = 0; r < rows; r++) memset(x.p + r * x.apart, 0, (size_t)width * sizeof *x.p);
}

/** C += A B */
static void multiply(int64_t m, int64_t n, int64_t k, const float *a, int64_t ars, int64_t acs, operand b, float *c,
                     int64_t crs)
{
    tg_run(&(tg_product){m, n, k, a, ars, acs, b.p, b.brs, b.bps, c, crs, true});
}

/* ---- forward ---- */

typedef struct {
    float z[KEYS * ROWS], qt[WIDEST * ROWS_PACKED], v[KEYS * WIDE_PACKED], y[ROWS * WIDEST];
    float most[ROWS], sum[ROWS], base[ROWS], keep[ROWS];
} __attribute__((aligned(64))) forward_room;

/** Probabilities in place of z, not yet divided by their sums; keep: what the sums before are worth beside the new
 *  maxima. */
static void softmax_tile(forward_room *w, int64_t n, int64_t lanes)
{
    float *restrict most = w->most, *restrict sum = w->sum, *restrict base = w->base, *restrict keep = w->keep;
    for (int64_t r = 0; r < lanes; r++) keep[r] = most[r];
    for (int64_t j = 0; j < n; j++) {
        const float *restrict z = w->z + j * ROWS;
#pragma omp simd
        for (int64_t r = 0; r < lanes; r++) most[r] = z[r] > most[r] ? z[r] : most[r];
    }
#pragma omp simd
    for (int64_t r = 0; r < lanes; r++) {
        base[r] = most[r] == -INFINITY ? 0.0f : most[r]; /* sees nothing yet, or NaN alone */
        keep[r] = vm_expf(keep[r] - base[r]);
        sum[r] *= keep[r];
    }
    for (int64_t j = 0; j < n; j++) {
        float *restrict z = w->z + j * ROWS;
#pragma omp simd
        for (int64_t r = 0; r < lanes; r++) {
            float p = vm_expf(z[r] - base[r]);
            z[r] = p;
            sum[r] += p;
        }
    }
}

/** Rows row .. row + rows of one head. */
static void forward_rows(const problem *a, const td_kargs *args, int64_t b, int64_t h, int64_t row, forward_room *w)
{
    int64_t rows = least(a->t - row, ROWS), last = a->causal ? least(a->s, row + rows) : a->s;
    lines k = head_of(a->k, b, h / a->group), v = head_of(a->v, b, h / a->group), y = head_of(args->out[0], b, h);
    head_mask m = mask_of(a, a->mask, b, h), kept = mask_of(a, a->kept, b, h);
    float *lse = (float *)args->out[1]->p + (b * a->h + h) * a->t + row;
    pack_rows(w->qt, head_of(a->q, b, h), row, rows, a->d, a->scale);
    memset(w->y, 0, (size_t)(rows * a->e) * sizeof *w->y);
    for (int64_t r = 0; r < ROWS; r++) w->most[r] = -INFINITY, w->sum[r] = 0;
    for (int64_t key = 0; key < last; key += KEYS) {
        int64_t n = least(last - key, KEYS);
        scores(a, &m, k, w->qt, w->z, key, n, row, rows);
        softmax_tile(w, n, whole(rows));
        if (kept.p) drop_tile(a, &kept, w->z, w->z, key, n, row, rows);
        for (int64_t r = 0; key > 0 && r < rows; r++)
            for (int64_t j = 0; j < a->e; j++) w->y[r * a->e + j] *= w->keep[r];
        multiply(rows, a->e, n, w->z, 1, ROWS, readable(v, key, n, a->e, w->v), w->y, a->e);
    }
    for (int64_t r = 0; r < rows; r++) {
        float sum = w->sum[r], inv = sum == 0 ? 0 : 1.0f / sum;
        float *restrict to = y.p + (row + r) * y.apart;
        for (int64_t j = 0; j < a->e; j++) to[j] = w->y[r * a->e + j] * inv;
        lse[r] = sum == 0 ? -INFINITY : (w->most[r] == -INFINITY ? 0.0f : w->most[r]) + vm_logf(sum);
    }
}

static int threads_for(double work, int64_t tasks)
{
    int64_t threads = cpu_threads();
    if (threads > tasks) threads = tasks;
    if ((double)threads > work / SHARE) threads = (int64_t)(work / SHARE);
    return threads < 1 ? 1 : (int)threads;
}

static double work_of(const problem *a)
{
    return (double)a->batch * (double)a->h * (double)a->t * (double)a->s * (double)(a->d + a->e);
}

static problem forward_problem(const td_kargs *a)
{
    const td_scaled_dot_product_attention_attr *o = a->attr;
    problem p = read_problem(a->in[0], a->in[1], a->in[2], a->in[3], o->is_causal, o->has_scale, o->scale);
    return with_dropout(p, a->in[4], o->dropout);
}

static bool run_attention(const td_kargs *args)
{
    problem a = forward_problem(args);
    int64_t pieces = (a.t + ROWS - 1) / ROWS, tasks = a.batch * a.h * pieces;
    int threads = threads_for(work_of(&a), tasks);
#pragma omp parallel for num_threads(threads) schedule(dynamic) if (threads > 1)
    for (int64_t i = 0; i < tasks; i++) {
        forward_room w;
        int64_t head = i / pieces;
        forward_rows(&a, args, head / a.h, head % a.h, i % pieces * ROWS, &w);
    }
    return true;
}

/* ---- backward ---- */

typedef struct {
    float p[KEYS_BACK * ROWS], dz[KEYS_BACK * ROWS], qt[WIDEST * ROWS_PACKED], gt[WIDEST * ROWS_PACKED];
    float k[KEYS_BACK * WIDE_PACKED], q[ROWS * WIDE_PACKED], g[ROWS * WIDE_PACKED];
    float base[ROWS], along[ROWS]; /* logarithm of the sum of exponentials, and sum(g y), of each row */
} __attribute__((aligned(64))) backward_room;

/** p and dz of a tile, from z and g v^T. */
static void softmax_tile_back(const problem *a, backward_room *w, int64_t n, int64_t lanes)
{
    const float *restrict base = w->base, *restrict along = w->along, scale = a->scale;
    for (int64_t j = 0; j < n; j++) {
        float *restrict p = w->p + j * ROWS, *restrict dz = w->dz + j * ROWS;
#pragma omp simd
        for (int64_t r = 0; r < lanes; r++) {
            float v = vm_expf(p[r] - base[r]);
            p[r] = v;
            dz[r] = v * (dz[r] - along[r]) * scale;
        }
    }
}

/** base and along. Rows that see nothing have p = 0: exp(z - inf). */
static void read_rows(const problem *a, const float *lse, lines g, lines y, int64_t row, int64_t rows, backward_room *w)
{
    for (int64_t r = rows; r < ROWS; r++) w->base[r] = w->along[r] = 0;
    for (int64_t r = 0; r < rows; r++) {
        const float *restrict gr = g.p + (row + r) * g.apart, *restrict yr = y.p + (row + r) * y.apart;
        float sum = 0;
#pragma omp simd reduction(+ : sum)
        for (int64_t j = 0; j < a->e; j++) sum += gr[j] * yr[j];
        w->along[r] = sum;
        w->base[r] = lse[row + r] == -INFINITY ? INFINITY : lse[row + r];
    }
}

/** Rows row .. of one head of q: writes gq, adds to gk and gv. args: g q k v mask kept y lse -> gq gk gv */
static void backward_rows(const problem *a, const td_kargs *args, int64_t b, int64_t h, int64_t row, lines gk, lines gv,
                          backward_room *w)
{
    int64_t rows = least(a->t - row, ROWS), last = a->causal ? least(a->s, row + rows) : a->s;
    lines k = head_of(a->k, b, h / a->group), v = head_of(a->v, b, h / a->group), q = head_of(a->q, b, h);
    lines g = head_of(args->in[0], b, h), gq = head_of(args->out[0], b, h);
    head_mask m = mask_of(a, a->mask, b, h), kept = mask_of(a, a->kept, b, h);
    pack_rows(w->qt, q, row, rows, a->d, a->scale);
    pack_rows(w->gt, g, row, rows, a->e, 1);
    read_rows(a, (const float *)args->in[7]->p + (b * a->h + h) * a->t, g, head_of(args->in[6], b, h), row, rows, w);
    operand rows_of_q = readable(q, row, rows, a->d, w->q), rows_of_g = readable(g, row, rows, a->e, w->g);
    gq.p += row * gq.apart;
    clear(gq, rows, a->d);
    for (int64_t key = 0; key < last; key += KEYS_BACK) {
        int64_t n = least(last - key, KEYS_BACK);
        scores(a, &m, k, w->qt, w->p, key, n, row, rows);
        tg_gemm(n, whole(rows), a->e, v.p + key * v.apart, v.apart, 1, w->gt, w->dz, ROWS, false);
        if (kept.p) drop_tile(a, &kept, w->dz, w->dz, key, n, row, rows);
        softmax_tile_back(a, w, n, whole(rows));
        if (kept.p) drop_tile(a, &kept, w->p, w->p, key, n, row, rows);
        multiply(n, a->e, rows, w->p, ROWS, 1, rows_of_g, gv.p + key * gv.apart, gv.apart);
        multiply(n, a->d, rows, w->dz, ROWS, 1, rows_of_q, gk.p + key * gk.apart, gk.apart);
        multiply(rows, a->d, n, w->dz, 1, ROWS, readable(k, key, n, a->d, w->k), gq.p, gq.apart);
    }
}

/** One head of k and v with the heads of q that look at it. */
static void backward_heads(const problem *a, const td_kargs *args, int64_t b, int64_t shared, backward_room *w)
{
    lines gk = head_of(args->out[1], b, shared), gv = head_of(args->out[2], b, shared);
    clear(gk, a->s, a->d);
    clear(gv, a->s, a->e);
    for (int64_t i = 0; i < a->group; i++)
        for (int64_t row = 0; row < a->t; row += ROWS) backward_rows(a, args, b, shared * a->group + i, row, gk, gv, w);
}

static problem backward_problem(const td_kargs *a)
{
    const td_scaled_dot_product_attention_backward_attr *o = a->attr;
    problem p = read_problem(a->in[1], a->in[2], a->in[3], a->in[4], o->is_causal, o->has_scale, o->scale);
    return with_dropout(p, a->in[5], o->dropout);
}

static bool run_attention_backward(const td_kargs *args)
{
    problem a = backward_problem(args);
    int64_t tasks = a.batch * a.shared;
    int threads = threads_for(2.5 * work_of(&a), tasks);
#pragma omp parallel for num_threads(threads) schedule(dynamic) if (threads > 1)
    for (int64_t i = 0; i < tasks; i++) {
        backward_room w;
        backward_heads(&a, args, i / a.shared, i % a.shared, &w);
    }
    return true;
}

/* ---- what is taken ---- */

static bool rows_dense(const td_view *v) { return v->dim[v->nd - 1] <= 1 || v->stride[v->nd - 1] == 1; }

static bool sizes_fit(const problem *a)
{
    const td_view *m = a->mask;
    return a->d <= WIDEST && a->e <= WIDEST && (!m || m->dt == TD_BOOL || m->dt == TD_F32);
}

static bool takes_sizes(const td_kargs *a)
{
    problem p = forward_problem(a);
    return sizes_fit(&p);
}

static bool takes_strides(const td_kargs *a)
{
    return takes_sizes(a) && rows_dense(a->in[0]) && rows_dense(a->in[1]) && rows_dense(a->in[2]);
}

static bool backward_takes_sizes(const td_kargs *a)
{
    problem p = backward_problem(a);
    return sizes_fit(&p);
}

static bool backward_takes_strides(const td_kargs *a)
{
    return backward_takes_sizes(a) && rows_dense(a->in[0]) && rows_dense(a->in[1]) && rows_dense(a->in[2]) &&
           rows_dense(a->in[3]) && rows_dense(a->in[6]) && td_view_dense(a->in[7]);
}

/** y as (..., T, H, E) in memory, so that the heads of a row lie side by side. */
static bool heads_inside(const td_kargs *a, td_view *const *out)
{
    td_view *y = out[0];
    int32_t nd = y->nd;
    (void)a;
    if (nd < 3) return true;
    y->stride[nd - 1] = 1;
    y->stride[nd - 3] = y->dim[nd - 1];
    y->stride[nd - 2] = y->dim[nd - 1] * y->dim[nd - 3];
    int64_t size = y->stride[nd - 2] * y->dim[nd - 2];
    for (int32_t i = nd - 4; i >= 0; i--) {
        y->stride[i] = size;
        size *= y->dim[i];
    }
    return true;
}

/** Dense strides in the order in which the axes of another view lie. */
static void order_like(td_view *v, const td_view *like)
{
    int32_t order[TD_MAX_DIM], n = 0;
    for (int32_t i = 0; i < like->nd - 1; i++) { /* the last axis stays innermost */
        int32_t at = n++;
        for (; at > 0 && like->stride[order[at - 1]] < like->stride[i]; at--) order[at] = order[at - 1];
        order[at] = i;
    }
    int64_t size = v->dim[v->nd - 1];
    v->stride[v->nd - 1] = 1;
    for (int32_t k = n - 1; k >= 0; k--) {
        v->stride[order[k]] = size;
        size *= v->dim[order[k]];
    }
}

static bool orders_like(const td_kargs *a, td_view *const *out)
{
    for (int i = 0; i < 3; i++) order_like(out[i], a->in[1 + i]);
    return true;
}

/* Two rows each: inputs as they lie where their rows are dense, else dense copies. */
static const td_kernel rows[] = {
    CPU_KERNEL("scaled_dot_product_attention", TD_BIT(TD_F32), TD_K_STRIDED, run_attention, .priority = 1,
               .accepts = takes_strides, .layout = heads_inside),
    CPU_KERNEL("scaled_dot_product_attention", TD_BIT(TD_F32), 0, run_attention, .accepts = takes_sizes,
               .layout = heads_inside),
    CPU_KERNEL("scaled_dot_product_attention_backward", TD_BIT(TD_F32), TD_K_STRIDED, run_attention_backward,
               .priority = 1, .accepts = backward_takes_strides, .layout = orders_like),
    CPU_KERNEL("scaled_dot_product_attention_backward", TD_BIT(TD_F32), 0, run_attention_backward,
               .accepts = backward_takes_sizes, .layout = orders_like),
};
CPU_TABLE(attention, rows)

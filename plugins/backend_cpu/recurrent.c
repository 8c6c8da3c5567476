/* recurrent.c - lstm, gru, rnn and their gradients over a whole sequence, f32. Each thread takes some rows of the batch
 * through all steps, with w_ih and w_hh packed once, so that no thread waits for another between steps and the gates of a
 * step stay in its cache; the gradients of weights are one product each over all steps at the end. Weights too large for a
 * cache of one core, and sequences too short to pay for packing, take products of BLAS: one with x of all steps, and one a
 * step.
 *
 * T steps, N rows, I inputs, H units, G gates. The sequence lies step by step or, where x has the batch first, row by
 * row: step t of row n is line t rt + n rn of x, of y and of what is saved. */
#include "recurrent_cells.h"
#include "cpu.h"
#include "gemm.h"
#include "tile_gemm.h"
#include <string.h>

/* PACK_MOST: floats of w_hh, and of w_ih, that are packed; PACK_LINES: T N from which that pays; ROWS_LEAST: rows for a thread;
 * SHARE: multiply-adds that are worth waking a thread for. */
enum { PACK_MOST = 1 << 18, PACK_LINES = 16, ROWS_LEAST = 4, SHARE = 1 << 18 };

typedef enum { LSTM, GRU, RNN } kind;

/** Extents and places. saved: floats of a line of gates that are kept (of da in the gradient); wide: G H. */
typedef struct {
    kind kind;
    bool reverse, relu, packed, packed_x; /* w_hh, and w_ih too */
    int64_t t, n, i, h, wide, saved, rt, rn, ldx;
} net;

/** Whether the lines of x (T, N, I) lie equally far apart, and how. */
static bool read_lines(const td_view *x, net *s)
{
    int64_t t = x->dim[0], n = x->dim[1], width = x->dim[2];
    if (width != 1 && x->stride[2] != 1) return false;
    s->ldx = n != 1 ? x->stride[1] : x->stride[0];
    s->rt = n, s->rn = 1;
    if (s->ldx >= width && (n == 1 || t == 1 || x->stride[0] == n * x->stride[1])) return true;
    s->ldx = t != 1 ? x->stride[0] : x->stride[1];
    s->rt = 1, s->rn = t;
    return s->ldx >= width && (n == 1 || t == 1 || x->stride[1] == t * x->stride[0]);
}

static net read_net(kind k, const td_view *x, const td_view *w_hh, bool reverse, bool relu)
{
    net s = {.kind = k, .reverse = reverse, .relu = relu, .t = x->dim[0], .n = x->dim[1], .i = x->dim[2]};
    s.h = w_hh->dim[1];
    s.wide = w_hh->dim[0];
    s.saved = k == RNN ? s.h : 4 * s.h;
    s.packed = s.wide * s.h <= PACK_MOST && s.t * s.n >= PACK_LINES && s.t > 1;
    s.packed_x = s.packed && s.wide * s.i <= PACK_MOST;
    read_lines(x, &s);
    return s;
}

/** Strides of an output (T, N, width) in the order of x. */
static void lines_like(const net *s, td_view *v)
{
    int64_t width = v->dim[2];
    v->stride[0] = s->rt * width;
    v->stride[1] = s->rn * width;
    v->stride[2] = 1;
}

static bool lines_alike(const net *s, const td_view *v)
{
    td_view want = *v;
    lines_like(s, &want);
    for (int i = 0; i < 3; i++)
        if (v->dim[i] != 1 && v->stride[i] != want.stride[i]) return false;
    return true;
}

static int64_t line_of(const net *s, int64_t step, int64_t row)
{
    return (s->reverse ? s->t - 1 - step : step) * s->rt + row * s->rn;
}

static const float *data(const td_view *v) { return v ? v->p : NULL; }

/** Threads for the recurrence, each with some rows. */
static int threads_for(const net *s)
{
    double work = (double)s->t * (double)s->n * (double)s->wide * (double)s->h;
    int64_t threads = cpu_threads(), rows = s->n / ROWS_LEAST;
    if (threads > rows) threads = rows;
    if ((double)threads > work / SHARE) threads = (int64_t)(work / SHARE);
    return threads < 1 ? 1 : (int)threads;
}

static int64_t aligned(int64_t floats) { return (floats + 15) & ~(int64_t)15; }

/* ---- forward ---- */

/** A forward run. lines: where the product with x goes and the gates stay, `saved` wide (rnn: y itself). */
typedef struct {
    net s;
    const float *x, *h0, *c0, *w_hh, *packed, *packed_x, *zeros, *bias_x, *bias_h;
    float *lines, *cells, *y, *sums; /* sums: (N, 3H) of gru */
} forward;

static size_t forward_ws(const net *s)
{
    int64_t floats = 2 * aligned(s->wide) + aligned(s->h) + (s->kind == GRU ? aligned(s->n * s->wide) : 0);
    if (s->packed) floats += tg_packed(s->h, s->wide);
    if (s->packed_x) floats += tg_packed(s->i, s->wide);
    return (size_t)floats * sizeof(float);
}

/** States of a row before a step: with it how far apart rows are. */
static const float *before(const forward *f, int64_t step, const float *first, const float *all, int64_t *apart)
{
    *apart = step ? f->s.rn * f->s.h : f->s.h;
    return step ? all + line_of(&f->s, step - 1, 0) * f->s.h : first;
}

/** The part of the sums that comes from the states before: rows from .. to of a step. false after an error. */
static bool recur(const forward *f, int64_t step, int64_t from, int64_t to)
{
    const net *s = &f->s;
    int64_t apart, line = line_of(s, step, from), lines_apart = s->rn * s->saved;
    const float *h = before(f, step, f->h0, f->y, &apart);
    bool gru = s->kind == GRU;
    float *c = gru ? f->sums + from * s->wide : f->lines + line * s->saved;
    int64_t crs = gru ? s->wide : lines_apart;
    if (!h) {
        if (gru) memset(c, 0, (size_t)((to - from) * s->wide) * sizeof *c);
        return true;
    }
    h += from * apart;
    if (s->packed) {
        tg_gemm(to - from, s->wide, s->h, h, apart, 1, f->packed, c, crs, !gru);
        return true;
    }
    return cpu_gemm(TD_F32, false, true, to - from, s->wide, s->h, 1, h, apart, f->w_hh, s->h, gru ? 0 : 1, c, crs);
}

static void cells_of_rows(const forward *f, int64_t step, int64_t from, int64_t to)
{
    const net *s = &f->s;
    int64_t h_apart, c_apart;
    const float *h = before(f, step, f->h0, f->y, &h_apart), *c = before(f, step, f->c0, f->cells, &c_apart);
    for (int64_t r = from; r < to; r++) {
        int64_t line = line_of(s, step, r);
        float *a = f->lines + line * s->saved, *y = f->y + line * s->h;
        const float *h_r = h ? h + r * h_apart : f->zeros, *c_r = c ? c + r * c_apart : f->zeros;
        switch (s->kind) {
        case LSTM: lstm_cell(a, f->bias_x, c_r, f->cells + line * s->h, y, s->h); break;
        case GRU: gru_cell(a, f->sums + r * s->wide, f->bias_x, f->bias_h, h_r, y, s->h); break;
        case RNN: rnn_cell(y, f->bias_x, s->relu, s->h); break;
        }
    }
}

/** All steps of some rows. */
static void forward_rows(const forward *f, int64_t from, int64_t to)
{
    const net *s = &f->s;
    for (int64_t step = 0; step < s->t; step++) {
        int64_t line = line_of(s, step, from);
        if (s->packed_x)
            tg_gemm(to - from, s->wide, s->i, f->x + line * s->ldx, s->rn * s->ldx, 1, f->packed_x,
                    f->lines + line * s->saved, s->rn * s->saved, false);
        recur(f, step, from, to);
        cells_of_rows(f, step, from, to);
    }
}

static bool forward_steps(const forward *f)
{
    const net *s = &f->s;
    int threads = threads_for(s);
    if (s->packed) {
#pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1)
        for (int p = 0; p < threads; p++) forward_rows(f, s->n * p / threads, s->n * (p + 1) / threads);
        return true;
    }
    for (int64_t step = 0; step < s->t; step++) {
        if (!recur(f, step, 0, s->n)) return false;
        if (s->n * s->wide < TD_PAR_MIN) {
            cells_of_rows(f, step, 0, s->n);
        } else {
#pragma omp parallel for
            for (int64_t r = 0; r < s->n; r++) cells_of_rows(f, step, r, r + 1);
        }
    }
    return true;
}

/** b_ih and b_hh, or their sum in the first where the kind needs no more; zeros where absent. */
static void read_biases(forward *f, const td_view *b_ih, const td_view *b_hh, float *x, float *h)
{
    const float *p = data(b_ih), *q = data(b_hh);
    bool apart = f->s.kind == GRU;
    for (int64_t j = 0; j < f->s.wide; j++) {
        float a = p ? p[j] : 0.0f, b = q ? q[j] : 0.0f;
        x[j] = apart ? a : a + b;
        h[j] = b;
    }
    f->bias_x = x;
    f->bias_h = h;
}

static void last_states(const net *s, const float *all, float *to)
{
    for (int64_t r = 0; r < s->n; r++)
        memcpy(to + r * s->h, all + line_of(s, s->t - 1, r) * s->h, (size_t)s->h * sizeof *to);
}

/** c0, cells, c_n: of lstm; lines: rnn has its own in y. */
static bool run_forward(const td_kargs *a, net s, const td_view *h0, const td_view *c0, int w_at, td_view *lines,
                        const td_view *cells, const td_view *c_n)
{
    forward f = {
        .s = s, .x = a->in[0]->p, .h0 = data(h0), .c0 = data(c0), .w_hh = a->in[w_at + 1]->p, .lines = lines->p};
    float *ws = a->ws, *bias_x = ws, *bias_h = bias_x + aligned(s.wide), *zeros = bias_h + aligned(s.wide);
    f.y = a->out[0]->p;
    f.cells = cells ? cells->p : NULL;
    f.sums = zeros + aligned(s.h);
    float *packed = f.sums + (s.kind == GRU ? aligned(s.n * s.wide) : 0);
    memset(zeros, 0, (size_t)s.h * sizeof *zeros);
    f.zeros = zeros;
    f.packed = packed;
    f.packed_x = packed + (s.packed ? tg_packed(s.h, s.wide) : 0);
    read_biases(&f, a->in[w_at + 2], a->in[w_at + 3], bias_x, bias_h);
    if (s.packed) tg_pack(packed, f.w_hh, s.h, s.wide, 1, s.h);
    if (s.packed_x) tg_pack(packed + tg_packed(s.h, s.wide), a->in[w_at]->p, s.i, s.wide, 1, s.i);
    else if (!cpu_gemm(TD_F32, false, true, s.t * s.n, s.wide, s.i, 1, a->in[0]->p, s.ldx, a->in[w_at]->p, s.i, 0,
                       f.lines, s.saved))
        return false;
    if (!forward_steps(&f)) return false;
    last_states(&s, f.y, a->out[1]->p);
    if (c_n) last_states(&s, f.cells, c_n->p);
    return true;
}

static net net_of(kind k, const td_kargs *a, int w_at)
{
    switch (k) {
    case LSTM: return read_net(k, a->in[0], a->in[w_at + 1], ((const td_lstm_attr *)a->attr)->reverse, false);
    case GRU: return read_net(k, a->in[0], a->in[w_at + 1], ((const td_gru_attr *)a->attr)->reverse, false);
    default: break;
    }
    const td_rnn_attr *o = a->attr;
    return read_net(k, a->in[0], a->in[w_at + 1], o->reverse, o->nonlinearity == TD_RNN_RELU);
}

enum { LSTM_W = 3, GRU_W = 2 }; /* places of w_ih; rnn's are gru's */

/* Lines of x equally far apart, all else dense. */
static bool takes_inputs(const td_kargs *a)
{
    net s = {0};
    if (!read_lines(a->in[0], &s)) return false;
    for (uint32_t i = 1; i < a->n_in; i++)
        if (a->in[i] && !td_view_dense(a->in[i])) return false;
    return true;
}

#define FORWARD_HOOKS(name, kind_, w_at, n_saved, first_saved)                  \
    static bool name##_plan(const td_kargs *a, void **plan, size_t *ws_size)    \
    {                                                                           \
        net s = net_of(kind_, a, w_at);                                         \
        *plan = NULL;                                                           \
        *ws_size = forward_ws(&s);                                              \
        return true;                                                            \
    }                                                                           \
    static bool name##_layout(const td_kargs *a, td_view *const *out)           \
    {                                                                           \
        net s = net_of(kind_, a, w_at);                                         \
        lines_like(&s, out[0]);                                                 \
        for (int k = 0; k < n_saved; k++) lines_like(&s, out[first_saved + k]); \
        return true;                                                            \
    }
FORWARD_HOOKS(lstm, LSTM, LSTM_W, 2, 3)
FORWARD_HOOKS(gru, GRU, GRU_W, 1, 2)
FORWARD_HOOKS(rnn, RNN, GRU_W, 0, 0)

static bool run_lstm(const td_kargs *a)
{
    return run_forward(a, net_of(LSTM, a, LSTM_W), a->in[1], a->in[2], LSTM_W, (td_view *)a->out[3], a->out[4],
                       a->out[2]);
}

static bool run_gru(const td_kargs *a)
{
    return run_forward(a, net_of(GRU, a, GRU_W), a->in[1], NULL, GRU_W, (td_view *)a->out[2], NULL, NULL);
}

static bool run_rnn(const td_kargs *a)
{
    return run_forward(a, net_of(RNN, a, GRU_W), a->in[1], NULL, GRU_W, (td_view *)a->out[0], NULL, NULL);
}

/* ---- backward ---- */

/** A gradient. da: lines `saved` wide of gradients of the sums, in the order of x; da_h: (N, 3H) of gru, of the step at
 *  hand; states: every state before a step, (T N, H). dh, dc: running, they end as gradients of h0 and c0. */
typedef struct {
    net s;
    const float *h0, *c0, *w_hh, *y, *gates, *cells, *packed, *packed_x, *zeros;
    const td_view *gy;
    float *da, *da_h, *states, *dh, *dc, *gx; /* gx: NULL where it is not wanted, or made at the end */
} backward;

static size_t backward_ws(const net *s)
{
    int64_t lines = s->t * s->n, floats = aligned(s->h) + aligned(lines * s->saved) + aligned(lines * s->h);
    if (s->kind == GRU) floats += aligned(s->n * s->wide);
    if (s->packed) floats += tg_packed(s->wide, s->h);
    if (s->packed_x) floats += tg_packed(s->wide, s->i);
    return (size_t)floats * sizeof(float);
}

static void back_cells(const backward *b, int64_t step, int64_t from, int64_t to)
{
    const net *s = &b->s;
    const int64_t h = s->h;
    int64_t t = s->reverse ? s->t - 1 - step : step;
    for (int64_t r = from; r < to; r++) {
        int64_t line = line_of(s, step, r), last = step ? line_of(s, step - 1, r) : 0;
        const float *state = step ? b->y + last * h : b->h0 ? b->h0 + r * h : b->zeros;
        const float *gy = b->gy ? (const float *)b->gy->p + t * b->gy->stride[0] + r * b->gy->stride[1] : b->zeros;
        float *da = b->da + line * s->saved, *dh = b->dh + r * h;
        memcpy(b->states + line * h, state, (size_t)h * sizeof *state);
        if (s->kind == LSTM) {
            const float *cell = step ? b->cells + last * h : b->c0 ? b->c0 + r * h : b->zeros;
            lstm_cell_back(da, b->dc + r * h, dh, gy, b->gates + line * s->saved, b->cells + line * h, cell, h);
        } else if (s->kind == GRU) {
            gru_cell_back(da, b->da_h + r * s->wide, dh, gy, b->gates + line * s->saved, state, h);
        } else {
            rnn_cell_back(da, dh, gy, b->y + line * h, s->relu, h);
        }
    }
}

/** dh of the step before: da w_hh, for gru beside what reached it directly. */
static bool back_recur(const backward *b, int64_t step, int64_t from, int64_t to)
{
    const net *s = &b->s;
    bool gru = s->kind == GRU;
    const float *a = gru ? b->da_h + from * s->wide : b->da + line_of(s, step, from) * s->saved;
    int64_t apart = gru ? s->wide : s->rn * s->saved;
    float *c = b->dh + from * s->h;
    if (s->packed) {
        tg_gemm(to - from, s->h, s->wide, a, apart, 1, b->packed, c, s->h, gru);
        return true;
    }
    return cpu_gemm(TD_F32, false, false, to - from, s->h, s->wide, 1, a, apart, b->w_hh, s->h, gru ? 1 : 0, c, s->h);
}

static bool backward_steps(const backward *b)
{
    const net *s = &b->s;
    int threads = threads_for(s);
    if (s->packed) {
#pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1)
        for (int p = 0; p < threads; p++) {
            int64_t from = s->n * p / threads, to = s->n * (p + 1) / threads;
            for (int64_t step = s->t - 1; step >= 0; step--) {
                int64_t line = line_of(s, step, from);
                back_cells(b, step, from, to);
                back_recur(b, step, from, to);
                if (b->gx)
                    tg_gemm(to - from, s->i, s->wide, b->da + line * s->saved, s->rn * s->saved, 1, b->packed_x,
                            b->gx + line * s->i, s->rn * s->i, false);
            }
        }
        return true;
    }
    for (int64_t step = s->t - 1; step >= 0; step--) {
        if (s->n * s->wide < TD_PAR_MIN) {
            back_cells(b, step, 0, s->n);
        } else {
#pragma omp parallel for
            for (int64_t r = 0; r < s->n; r++) back_cells(b, step, r, r + 1);
        }
        if (!back_recur(b, step, 0, s->n)) return false;
    }
    return true;
}

/** Sums of columns of da, (lines, width) with rows ld apart: blocks of columns, each added up row by row. */
static void column_sums(float *to, const float *da, int64_t lines, int64_t ld, int64_t width)
{
    enum { BLOCK = 64 };
#pragma omp parallel for if (lines * width > TD_PAR_MIN)
    for (int64_t j = 0; j < width; j += BLOCK) {
        float sum[BLOCK] = {0};
        int64_t w = width - j < BLOCK ? width - j : BLOCK;
        for (int64_t r = 0; r < lines; r++)
            for (int64_t k = 0; k < w; k++) sum[k] += da[r * ld + j + k];
        memcpy(to + j, sum, (size_t)w * sizeof *to);
    }
}

/** C (m, n) = columns of da, transposed, times rows b that are ld apart: the gradient of a weight. */
static sgemm_args over_lines(const backward *b, const float *da, int64_t m, const float *rows, int64_t ld, int64_t n,
                             float *c)
{
    return (sgemm_args){.m = m,
                        .n = n,
                        .k = b->s.t * b->s.n,
                        .a = da,
                        .ars = 1,
                        .acs = b->s.saved,
                        .b = rows,
                        .brs = ld,
                        .bcs = 1,
                        .c = c,
                        .crs = n,
                        .ccs = 1};
}

/** Gradients of w_ih and w_hh; gru's n gate has sums of its own with h. */
static bool weight_gradients(const backward *b, const float *x, float *gw_ih, float *gw_hh)
{
    const net *s = &b->s;
    const int64_t h = s->h, of_h = s->kind == GRU ? 2 * h : s->wide;
    if (s->n == 0) {
        memset(gw_ih, 0, (size_t)(s->wide * s->i) * sizeof *gw_ih);
        memset(gw_hh, 0, (size_t)(s->wide * h) * sizeof *gw_hh);
        return true;
    }
    const sgemm_args two[] = {over_lines(b, b->da, s->wide, x, s->ldx, s->i, gw_ih),
                              over_lines(b, b->da, of_h, b->states, h, h, gw_hh)};
    const sgemm_args third = over_lines(b, b->da + 3 * h, h, b->states, h, h, gw_hh + 2 * h * h);
    return ISA(cpu_products)(two, 2) && (s->kind != GRU || ISA(cpu_products)(&third, 1));
}

static void start(float *to, const td_view *from, int64_t n)
{
    if (from) memcpy(to, from->p, (size_t)n * sizeof *to);
    else memset(to, 0, (size_t)n * sizeof *to);
}

/** Places: of w_ih in the inputs, of gx gh0 … in the outputs (gc0 only of lstm). */
static bool run_backward(const td_kargs *a, backward *b, const td_view *gh, const td_view *gc, int w_at, bool need_x)
{
    const net *s = &b->s;
    const int64_t h = s->h, lines = s->t * s->n, states = s->kind == LSTM ? 2 : 1;
    float *ws = a->ws, *zeros = ws, *gw_ih = a->out[1 + states]->p, *gw_hh = a->out[2 + states]->p;
    float *gb = a->out[3 + states]->p;
    b->zeros = zeros;
    b->da = zeros + aligned(h);
    b->states = b->da + aligned(lines * s->saved);
    b->da_h = b->states + aligned(lines * h);
    float *packed = b->da_h + (s->kind == GRU ? aligned(s->n * s->wide) : 0);
    b->packed = packed;
    b->w_hh = a->in[w_at + 1]->p;
    b->h0 = data(a->in[1]);
    b->dh = a->out[1]->p;
    memset(zeros, 0, (size_t)h * sizeof *zeros);
    start(b->dh, gh, s->n * h);
    if (s->kind == LSTM) start(b->dc = a->out[2]->p, gc, s->n * h);
    if (s->packed) tg_pack(packed, b->w_hh, s->wide, h, h, 1);
    if (need_x && s->packed_x) {
        float *packed_x = packed + tg_packed(s->wide, h);
        tg_pack(packed_x, a->in[w_at]->p, s->wide, s->i, s->i, 1);
        b->packed_x = packed_x;
        b->gx = a->out[0]->p;
    }
    if (!backward_steps(b)) return false;

    if (need_x && !b->gx &&
        !cpu_gemm(TD_F32, false, false, lines, s->i, s->wide, 1, b->da, s->saved, a->in[w_at]->p, s->i, 0, a->out[0]->p,
                  s->i))
        return false;
    column_sums(gb, b->da, lines, s->saved, s->wide);
    if (s->kind == GRU) { /* r and z are alike for both weights */
        float *gb_hh = a->out[4 + states]->p;
        memcpy(gb_hh, gb, (size_t)(2 * h) * sizeof *gb);
        column_sums(gb_hh + 2 * h, b->da + 3 * h, lines, s->saved, h);
    }
    return weight_gradients(b, a->in[0]->p, gw_ih, gw_hh);
}

/* What a gradient is asked: where things are among its inputs. */
typedef struct {
    kind kind;
    bool reverse, relu, need_x;
    int w, y, gates, cells, gy, gh, gc; /* 0: there is none */
} places;

static places places_of(kind k, const td_kargs *a)
{
    if (k == LSTM) {
        const td_lstm_backward_attr *o = a->attr;
        return (places){k, o->reverse, false, o->need_x, LSTM_W, 5, 6, 7, 8, 9, 10};
    }
    if (k == GRU) {
        const td_gru_backward_attr *o = a->attr;
        return (places){k, o->reverse, false, o->need_x, GRU_W, 4, 5, 0, 6, 7, 0};
    }
    const td_rnn_backward_attr *o = a->attr;
    return (places){k, o->reverse, o->nonlinearity == TD_RNN_BACKWARD_RELU, o->need_x, GRU_W, 4, 0, 0, 5, 6, 0};
}

static const td_view *at(const td_kargs *a, int place) { return place ? a->in[place] : NULL; }

static net backward_net(const td_kargs *a, const places *p)
{
    return read_net(p->kind, a->in[0], a->in[p->w + 1], p->reverse, p->relu);
}

/* Lines of x equally far apart, what was saved in their order; gy with its last axis dense; the rest dense. */
static bool takes(kind k, const td_kargs *a)
{
    places p = places_of(k, a);
    net s = {0};
    if (!read_lines(a->in[0], &s)) return false;
    s.t = a->in[0]->dim[0], s.n = a->in[0]->dim[1];
    for (int i = 1; i < (int)a->n_in; i++) {
        const td_view *v = a->in[i];
        if (!v) continue;
        bool in_lines = i == p.y || i == p.gates || i == p.cells;
        bool fits = in_lines ? lines_alike(&s, v) : i == p.gy ? v->stride[2] == 1 || v->dim[2] == 1 : td_view_dense(v);
        if (!fits) return false;
    }
    return true;
}

static bool back_plan(kind k, const td_kargs *a, void **plan, size_t *ws_size)
{
    places p = places_of(k, a);
    net s = backward_net(a, &p);
    *plan = NULL;
    *ws_size = backward_ws(&s);
    return true;
}

static bool back_layout(kind k, const td_kargs *a, td_view *const *out)
{
    places p = places_of(k, a);
    net s = backward_net(a, &p);
    if (p.need_x) lines_like(&s, out[0]);
    return true;
}

static bool back_run(kind k, const td_kargs *a)
{
    places p = places_of(k, a);
    backward b = {.s = backward_net(a, &p), .y = data(at(a, p.y)), .gates = data(at(a, p.gates))};
    b.cells = data(at(a, p.cells));
    b.c0 = k == LSTM ? data(a->in[2]) : NULL;
    b.gy = at(a, p.gy);
    return run_backward(a, &b, at(a, p.gh), at(a, p.gc), p.w, p.need_x);
}

#define BACKWARD_HOOKS(name, kind_)                                                                                    \
    static bool name##_back_takes(const td_kargs *a) { return takes(kind_, a); }                                       \
    static bool name##_back_plan(const td_kargs *a, void **plan, size_t *ws) { return back_plan(kind_, a, plan, ws); } \
    static bool name##_back_layout(const td_kargs *a, td_view *const *out) { return back_layout(kind_, a, out); }      \
    static bool run_##name##_backward(const td_kargs *a) { return back_run(kind_, a); }
BACKWARD_HOOKS(lstm, LSTM)
BACKWARD_HOOKS(gru, GRU)
BACKWARD_HOOKS(rnn, RNN)

/* Two rows each: inputs as they lie where the kernel can read them, else dense copies. */
#define ROWS(name, run_, takes_, layout_, plan_)                                                              \
    CPU_KERNEL(name, TD_BIT(TD_F32), TD_K_STRIDED, run_, .priority = 1, .accepts = takes_, .layout = layout_, \
               .plan = plan_),                                                                                \
        CPU_KERNEL(name, TD_BIT(TD_F32), 0, run_, .layout = layout_, .plan = plan_)

static const td_kernel rows[] = {
    ROWS("lstm", run_lstm, takes_inputs, lstm_layout, lstm_plan),
    ROWS("gru", run_gru, takes_inputs, gru_layout, gru_plan),
    ROWS("rnn", run_rnn, takes_inputs, rnn_layout, rnn_plan),
    ROWS("lstm_backward", run_lstm_backward, lstm_back_takes, lstm_back_layout, lstm_back_plan),
    ROWS("gru_backward", run_gru_backward, gru_back_takes, gru_back_layout, gru_back_plan),
    ROWS("rnn_backward", run_rnn_backward, rnn_back_takes, rnn_back_layout, rnn_back_plan),
};
CPU_TABLE(recurrent, rows)

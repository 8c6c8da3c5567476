/* recurrent.h - what the kernels of lstm, gru and rnn share with those of their gradients: extents, and where lines lie.
 *
 * T steps, N rows, I inputs, H units, G gates. The sequence lies step by step or, where x has the batch first, row by
 * row: step t of row n is line t rt + n rn of x and of y. What is saved for the gradient lies step by step where threads walk
 * through it, so that a step of their rows is one piece of memory: line t gt + n gn. */
#ifndef TIDE_CPU_RECURRENT_H
#define TIDE_CPU_RECURRENT_H
#include "cpu.h"
#include "recurrent_cells.h"
#include "recurrent_repeats.h"
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
    int64_t t, n, i, h, wide, saved, rt, rn, ldx, gt, gn;
    int64_t most; /* different lines of x up to which they are gathered */
} net;

/** Whether the lines of x (T, N, I) lie equally far apart, and how. */
static inline bool read_lines(const td_view *x, net *s)
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

static inline net read_net(kind k, const td_view *x, const td_view *w_hh, bool reverse, bool relu)
{
    net s = {.kind = k, .reverse = reverse, .relu = relu, .t = x->dim[0], .n = x->dim[1], .i = x->dim[2]};
    s.h = w_hh->dim[1];
    s.wide = w_hh->dim[0];
    s.saved = k == RNN ? s.h : 4 * s.h;
    s.packed = s.wide * s.h <= PACK_MOST && s.t * s.n >= PACK_LINES && s.t > 1;
    s.packed_x = s.packed && s.wide * s.i <= PACK_MOST;
    s.most = repeats_most(s.t * s.n, s.i, s.wide * s.i);
    read_lines(x, &s);
    s.gt = s.packed_x ? s.n : s.rt;
    s.gn = s.packed_x ? 1 : s.rn;
    return s;
}

/** Strides of (T, N, width) where step t of row n is line t lt + n ln. */
static inline void lay_lines(td_view *v, int64_t lt, int64_t ln)
{
    int64_t width = v->dim[2];
    v->stride[0] = lt * width;
    v->stride[1] = ln * width;
    v->stride[2] = 1;
}

static inline bool lie_in_lines(const td_view *v, int64_t lt, int64_t ln)
{
    td_view want = *v;
    lay_lines(&want, lt, ln);
    for (int i = 0; i < 3; i++)
        if (v->dim[i] != 1 && v->stride[i] != want.stride[i]) return false;
    return true;
}

/** The step taken as number `step`, and its lines in x and y, and in what is saved. */
static inline int64_t time_of(const net *s, int64_t step) { return s->reverse ? s->t - 1 - step : step; }
static inline int64_t line_of(const net *s, int64_t step, int64_t row)
{
    return time_of(s, step) * s->rt + row * s->rn;
}
static inline int64_t saved_line(const net *s, int64_t step, int64_t row)
{
    return time_of(s, step) * s->gt + row * s->gn;
}

static inline const float *data(const td_view *v) { return v ? v->p : NULL; }

/** Threads for the recurrence, each with some rows. */
static inline int threads_for(const net *s)
{
    double work = (double)s->t * (double)s->n * (double)s->wide * (double)s->h;
    int64_t threads = cpu_threads(), rows = s->n / ROWS_LEAST;
    if (threads > rows) threads = rows;
    if ((double)threads > work / SHARE) threads = (int64_t)(work / SHARE);
    return threads < 1 ? 1 : (int)threads;
}

/** to = from, or zeros. */
static inline void start(float *to, const float *from, int64_t n)
{
    if (from) memcpy(to, from, (size_t)n * sizeof *to);
    else memset(to, 0, (size_t)n * sizeof *to);
}

static inline int64_t aligned(int64_t floats) { return (floats + 15) & ~(int64_t)15; }

enum { LSTM_W = 3, GRU_W = 2 }; /* places of w_ih; rnn's are gru's */

/* Two rows each: inputs as they lie where the kernel can read them, else dense copies. */
#define RECURRENT_ROWS(name, run_, takes_, layout_, plan_)                                                    \
    CPU_KERNEL(name, TD_BIT(TD_F32), TD_K_STRIDED, run_, .priority = 1, .accepts = takes_, .layout = layout_, \
               .plan = plan_),                                                                                \
        CPU_KERNEL(name, TD_BIT(TD_F32), 0, run_, .layout = layout_, .plan = plan_)

#endif

/* recurrent_backward.c - the gradients of lstm, gru and rnn, f32. As forward, each thread takes some rows of the batch
 * through all steps; the gradients of weights are one product each over all steps at the end, that of w_ih over the
 * different lines of x where lines repeat. The formulas stand in core/ops/recurrent_backward.c. */
#include "gemm.h"
#include "recurrent.h"

/** A gradient. da: lines `saved` wide of gradients of the sums, da_h: (N, 3H) of gru, of the step at hand; states:
 *  every state before a step, (T N, H); lines of both in the order of what was saved. dh, dc: running, they end as gradients of h0 and c0. */
typedef struct {
    net s;
    const float *h0, *c0, *w_hh, *y, *gates, *cells, *packed, *packed_x, *zeros;
    const td_view *gy;
    float *da, *da_h, *states, *dh, *dc, *gx; /* gx: NULL where it is not wanted, or made at the end */
} backward;

/** Whether what was saved lies in the order of x. */
static bool same_order(const net *s) { return s->gt == s->rt; }

static size_t backward_ws(const net *s)
{
    int64_t lines = s->t * s->n, floats = aligned(s->h) + aligned(lines * s->saved) + aligned(lines * s->h);
    if (s->kind == GRU) floats += aligned(s->n * s->wide);
    if (s->packed) floats += tg_packed(s->wide, s->h);
    if (s->packed_x) floats += tg_packed(s->wide, s->i);
    int64_t room = repeats_room(lines, s->i, s->most) + s->most * s->saved, ordered = same_order(s) ? 0 : lines * s->i;
    floats += room > ordered ? room : ordered;
    return (size_t)floats * sizeof(float);
}

static void back_cells(const backward *b, int64_t step, int64_t from, int64_t to)
{
    const net *s = &b->s;
    const int64_t h = s->h, t = time_of(s, step);
    for (int64_t r = from; r < to; r++) {
        int64_t line = saved_line(s, step, r);
        const float *state = step ? b->y + line_of(s, step - 1, r) * h : b->h0 ? b->h0 + r * h : b->zeros;
        const float *gy = b->gy ? (const float *)b->gy->p + t * b->gy->stride[0] + r * b->gy->stride[1] : b->zeros;
        float *da = b->da + line * s->saved, *dh = b->dh + r * h;
        memcpy(b->states + line * h, state, (size_t)h * sizeof *state);
        if (s->kind == LSTM) {
            const float *cell = step ? b->cells + saved_line(s, step - 1, r) * h : b->c0 ? b->c0 + r * h : b->zeros;
            lstm_cell_back(da, b->dc + r * h, dh, gy, b->gates + line * s->saved, b->cells + line * h, cell, h);
        } else if (s->kind == GRU) {
            gru_cell_back(da, b->da_h + r * s->wide, dh, gy, b->gates + line * s->saved, state, h);
        } else {
            rnn_cell_back(da, dh, gy, b->y + line_of(s, step, r) * h, s->relu, h);
        }
    }
}

/** dh of the step before: da w_hh, for gru beside what reached it directly. */
static bool back_recur(const backward *b, int64_t step, int64_t from, int64_t to)
{
    const net *s = &b->s;
    bool gru = s->kind == GRU;
    const float *a = gru ? b->da_h + from * s->wide : b->da + saved_line(s, step, from) * s->saved;
    int64_t apart = gru ? s->wide : s->gn * s->saved;
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
                back_cells(b, step, from, to);
                back_recur(b, step, from, to);
                if (b->gx)
                    tg_gemm(to - from, s->i, s->wide, b->da + saved_line(s, step, from) * s->saved, s->gn * s->saved, 1,
                            b->packed_x, b->gx + line_of(s, step, from) * s->i, s->rn * s->i, false);
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

/** Sums of the lines of da over all copies of a line of x, (r->n, saved): each thread some columns, added up in the order of
 *  lines whoever does it. */
static void sums_of_repeats(const backward *b, const repeats *r, float *sums)
{
    const net *s = &b->s;
    const int64_t lines = s->t * s->n, width = s->saved;
    const int threads = lines * width > TD_PAR_MIN ? cpu_threads() : 1;
    memset(sums, 0, (size_t)(r->n * width) * sizeof *sums);
#pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1)
    for (int p = 0; p < threads; p++) {
        int64_t from = width * p / threads, to = width * (p + 1) / threads;
        for (int64_t l = 0; l < lines; l++) {
            int64_t t = l / s->n, n = l % s->n;
            float *restrict sum = sums + r->of[t * s->rt + n * s->rn] * width;
            const float *restrict da = b->da + (t * s->gt + n * s->gn) * width;
#pragma omp simd
            for (int64_t j = from; j < to; j++) sum[j] += da[j];
        }
    }
}

/** x in the order of what was saved. */
static void order_lines(const net *s, const float *x, float *to)
{
#pragma omp parallel for if (s->t * s->n * s->i > TD_PAR_MIN)
    for (int64_t t = 0; t < s->t; t++)
        for (int64_t n = 0; n < s->n; n++)
            memcpy(to + (t * s->gt + n * s->gn) * s->i, x + (t * s->rt + n * s->rn) * s->ldx,
                   (size_t)s->i * sizeof *to);
}

/** Gradients of a weight and of biases: of so many lines of sums da, those of what the weight was multiplied with. */
typedef struct {
    const float *da, *rows; /* (lines, saved); (lines, .), ld apart */
    int64_t lines, ld;
} over;

/** C (m, n) = columns of da from `first` on, transposed, times rows. */
static sgemm_args product_over(const over *o, int64_t saved, int64_t first, int64_t m, int64_t n, float *c)
{
    return (sgemm_args){.m = m,
                        .n = n,
                        .k = o->lines,
                        .a = o->da + first,
                        .ars = 1,
                        .acs = saved,
                        .b = o->rows,
                        .brs = o->ld,
                        .bcs = 1,
                        .c = c,
                        .crs = n,
                        .ccs = 1};
}

/** Gradients of w_ih and w_hh; gru's n gate has sums of its own with h. x: lines of x with the sums of their da. */
static bool weight_gradients(const backward *b, const over *x, float *gw_ih, float *gw_hh)
{
    const net *s = &b->s;
    const int64_t h = s->h, of_h = s->kind == GRU ? 2 * h : s->wide;
    const over states = {b->da, b->states, s->t * s->n, h};
    if (s->n == 0) {
        memset(gw_ih, 0, (size_t)(s->wide * s->i) * sizeof *gw_ih);
        memset(gw_hh, 0, (size_t)(s->wide * h) * sizeof *gw_hh);
        return true;
    }
    const sgemm_args two[] = {product_over(x, s->saved, 0, s->wide, s->i, gw_ih),
                              product_over(&states, s->saved, 0, of_h, h, gw_hh)};
    const sgemm_args third = product_over(&states, s->saved, 3 * h, h, h, gw_hh + 2 * h * h);
    return ISA(cpu_products)(two, 2) && (s->kind != GRU || ISA(cpu_products)(&third, 1));
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
    float *packed_x = packed + (s->packed ? tg_packed(s->wide, h) : 0);
    float *room = packed_x + (s->packed_x ? tg_packed(s->wide, s->i) : 0);
    b->packed = packed;
    b->w_hh = a->in[w_at + 1]->p;
    b->h0 = data(a->in[1]);
    b->dh = a->out[1]->p;
    memset(zeros, 0, (size_t)h * sizeof *zeros);
    start(b->dh, data(gh), s->n * h);
    if (s->kind == LSTM) start(b->dc = a->out[2]->p, data(gc), s->n * h);
    if (s->packed) tg_pack(packed, b->w_hh, s->wide, h, h, 1);
    if (need_x && s->packed_x) {
        tg_pack(packed_x, a->in[w_at]->p, s->wide, s->i, s->i, 1);
        b->packed_x = packed_x;
        b->gx = a->out[0]->p;
    }
    if (!backward_steps(b)) return false;

    if (need_x && !b->gx &&
        !cpu_gemm(TD_F32, false, false, lines, s->i, s->wide, 1, b->da, s->saved, a->in[w_at]->p, s->i, 0, a->out[0]->p,
                  s->i))
        return false;
    over x = {b->da, a->in[0]->p, lines, s->ldx};
    repeats r;
    if (s->most && find_repeats(&r, x.rows, lines, s->i, s->ldx, s->most, room)) {
        float *sums = room + repeats_room(lines, s->i, s->most);
        sums_of_repeats(b, &r, sums);
        x = (over){sums, r.lines, r.n, s->i};
    } else if (!same_order(s)) {
        order_lines(s, x.rows, room);
        x.rows = room;
        x.ld = s->i;
    }
    column_sums(gb, x.da, x.lines, s->saved, s->wide);
    if (s->kind == GRU) { /* r and z are alike for both weights */
        float *gb_hh = a->out[4 + states]->p;
        memcpy(gb_hh, gb, (size_t)(2 * h) * sizeof *gb);
        column_sums(gb_hh + 2 * h, x.da + 3 * h, x.lines, s->saved, h);
    }
    return weight_gradients(b, &x, gw_ih, gw_hh);
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

/* Lines of x equally far apart, y and what was saved in lines of their order; gy with its last axis dense; the rest dense. */
static bool takes(kind k, const td_kargs *a)
{
    places p = places_of(k, a);
    net s = {0};
    if (!read_lines(a->in[0], &s)) return false;
    s = backward_net(a, &p);
    for (int i = 1; i < (int)a->n_in; i++) {
        const td_view *v = a->in[i];
        if (!v) continue;
        bool fits = i == p.y                       ? lie_in_lines(v, s.rt, s.rn)
                    : i == p.gates || i == p.cells ? lie_in_lines(v, s.gt, s.gn)
                    : i == p.gy                    ? v->stride[2] == 1 || v->dim[2] == 1
                                                   : td_view_dense(v);
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
    if (p.need_x) lay_lines(out[0], s.rt, s.rn);
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

static const td_kernel rows[] = {
    RECURRENT_ROWS("lstm_backward", run_lstm_backward, lstm_back_takes, lstm_back_layout, lstm_back_plan),
    RECURRENT_ROWS("gru_backward", run_gru_backward, gru_back_takes, gru_back_layout, gru_back_plan),
    RECURRENT_ROWS("rnn_backward", run_rnn_backward, rnn_back_takes, rnn_back_layout, rnn_back_plan),
};
CPU_TABLE(recurrent_backward, rows)

/* recurrent.c - lstm, gru and rnn over a whole sequence, f32. Each thread takes some rows of the batch through all steps,
 * with w_ih and w_hh packed once, so that no thread waits for another between steps and the gates of a step stay in its
 * cache. Where lines of x repeat (an embedding of letters), each different one is multiplied with w_ih once. Weights too
 * large for a cache of one core, and sequences too short to pay for packing, take products of BLAS: one with x of all
 * steps, and one a step. */
#include "gemm.h"
#include "recurrent.h"

/** A forward run. h, c: the states, which end as the last ones. sums: (N, G H), what becomes of them is in lines; where a
 *  step is one product of BLAS, they are made in lines. sums_h: (N, 3H) of gru. table: the product of each different line of
 *  x, where lines repeat; `of` says which a line is. */
typedef struct {
    net s;
    const float *x, *h0, *w_hh, *packed, *packed_x, *bias_x, *bias_h, *table;
    const int32_t *of;
    float *lines, *cells, *y, *h, *c, *sums, *sums_h;
} forward;

static size_t forward_ws(const net *s)
{
    int64_t floats = 2 * aligned(s->wide) + (s->kind == GRU ? aligned(s->n * s->wide) : 0);
    if (s->packed) floats += aligned(s->n * s->wide) + tg_packed(s->h, s->wide);
    if (s->packed_x) floats += tg_packed(s->i, s->wide);
    floats += repeats_room(s->t * s->n, s->i, s->most) + s->most * s->wide;
    return (size_t)floats * sizeof(float);
}

/** Where the sums of a step begin, and how far apart rows are. */
static float *sums_of(const forward *f, int64_t step, int64_t row, int64_t *apart)
{
    const net *s = &f->s;
    *apart = s->packed ? s->wide : s->gn * s->saved;
    return s->packed ? f->sums + row * s->wide : f->lines + saved_line(s, step, row) * s->saved;
}

/** Products with x that are made already, to where the sums are. */
static void gather(const forward *f, int64_t step, int64_t from, int64_t to)
{
    const net *s = &f->s;
    int64_t apart;
    float *sums = sums_of(f, step, from, &apart);
    for (int64_t r = from; r < to; r++, sums += apart) {
        const float *made =
            f->table ? f->table + f->of[line_of(s, step, r)] * s->wide : f->lines + saved_line(s, step, r) * s->saved;
        if (made != sums) memcpy(sums, made, (size_t)s->wide * sizeof *sums);
    }
}

/** The part of the sums that comes from the states before: rows from .. to of a step. false after an error. */
static bool recur(const forward *f, int64_t step, int64_t from, int64_t to)
{
    const net *s = &f->s;
    const bool gru = s->kind == GRU;
    int64_t apart;
    float *c = sums_of(f, step, from, &apart);
    if (gru) c = f->sums_h + from * s->wide, apart = s->wide;
    const float *h = f->h + from * s->h;
    if (step == 0 && !f->h0) {
        if (gru) memset(c, 0, (size_t)((to - from) * s->wide) * sizeof *c);
        return true;
    }
    if (s->packed) {
        tg_gemm(to - from, s->wide, s->h, h, s->h, 1, f->packed, c, apart, !gru);
        return true;
    }
    return cpu_gemm(TD_F32, false, true, to - from, s->wide, s->h, 1, h, s->h, f->w_hh, s->h, gru ? 0 : 1, c, apart);
}

static void cells_of_rows(const forward *f, int64_t step, int64_t from, int64_t to)
{
    const net *s = &f->s;
    int64_t apart;
    float *sums = sums_of(f, step, from, &apart);
    for (int64_t r = from; r < to; r++, sums += apart) {
        const int64_t line = saved_line(s, step, r);
        float *h = f->h + r * s->h, *gates = f->lines + line * s->saved;
        switch (s->kind) {
        case LSTM: lstm_cell(gates, sums, f->bias_x, f->c + r * s->h, f->cells + line * s->h, h, s->h); break;
        case GRU: gru_cell(gates, sums, f->sums_h + r * s->wide, f->bias_x, f->bias_h, h, s->h); break;
        case RNN: rnn_cell(h, sums, f->bias_x, s->relu, s->h); break;
        }
        memcpy(f->y + line_of(s, step, r) * s->h, h, (size_t)s->h * sizeof *h);
    }
}

/** All steps of some rows. */
static void forward_rows(const forward *f, int64_t from, int64_t to)
{
    const net *s = &f->s;
    for (int64_t step = 0; step < s->t; step++) {
        if (f->packed_x)
            tg_gemm(to - from, s->wide, s->i, f->x + line_of(s, step, from) * s->ldx, s->rn * s->ldx, 1, f->packed_x,
                    f->sums + from * s->wide, s->wide, false);
        else gather(f, step, from, to);
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
        gather(f, step, 0, s->n);
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

/** The product with x, as far as it is made before the steps: of the different lines where they are few, of none where each
 *  thread makes its own, else of all. false after an error. */
static bool project(forward *f, const float *w_ih, float *room)
{
    const net *s = &f->s;
    const int64_t lines = s->t * s->n;
    repeats r;
    if (s->most && find_repeats(&r, f->x, lines, s->i, s->ldx, s->most, room)) {
        float *table = room + repeats_room(lines, s->i, s->most);
        f->table = table;
        f->of = r.of;
        return ISA(cpu_products)(&(sgemm_args){.m = r.n,
                                               .n = s->wide,
                                               .k = s->i,
                                               .a = r.lines,
                                               .ars = s->i,
                                               .acs = 1,
                                               .b = w_ih,
                                               .brs = 1,
                                               .bcs = s->i,
                                               .c = table,
                                               .crs = s->wide,
                                               .ccs = 1},
                                 1);
    }
    if (s->packed_x) {
        float *packed = room + repeats_room(lines, s->i, s->most) + s->most * s->wide;
        tg_pack(packed, w_ih, s->i, s->wide, 1, s->i);
        f->packed_x = packed;
        return true;
    }
    return cpu_gemm(TD_F32, false, true, lines, s->wide, s->i, 1, f->x, s->ldx, w_ih, s->i, 0, f->lines, s->saved);
}

/** c0, cells, c_n: of lstm; lines: rnn has its own in y. */
static bool run_forward(const td_kargs *a, net s, const td_view *c0, int w_at, const td_view *lines,
                        const td_view *cells, const td_view *c_n)
{
    forward f = {.s = s, .x = a->in[0]->p, .h0 = data(a->in[1]), .w_hh = a->in[w_at + 1]->p, .lines = lines->p};
    float *ws = a->ws, *bias_x = ws, *bias_h = bias_x + aligned(s.wide);
    f.y = a->out[0]->p;
    f.h = a->out[1]->p;
    f.sums_h = bias_h + aligned(s.wide);
    f.sums = f.sums_h + (s.kind == GRU ? aligned(s.n * s.wide) : 0);
    float *packed = f.sums + (s.packed ? aligned(s.n * s.wide) : 0);
    f.packed = packed;
    start(f.h, f.h0, s.n * s.h);
    if (s.kind == LSTM) {
        f.cells = cells->p;
        f.c = c_n->p;
        start(f.c, data(c0), s.n * s.h);
    }
    read_biases(&f, a->in[w_at + 2], a->in[w_at + 3], bias_x, bias_h);
    if (s.packed) tg_pack(packed, f.w_hh, s.h, s.wide, 1, s.h);
    return project(&f, a->in[w_at]->p, packed + (s.packed ? tg_packed(s.h, s.wide) : 0)) && forward_steps(&f);
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

/* Lines of x equally far apart, all else dense. */
static bool takes_inputs(const td_kargs *a)
{
    net s = {0};
    if (!read_lines(a->in[0], &s)) return false;
    for (uint32_t i = 1; i < a->n_in; i++)
        if (a->in[i] && !td_view_dense(a->in[i])) return false;
    return true;
}

#define FORWARD_HOOKS(name, kind_, w_at, n_saved, first_saved)                         \
    static bool name##_plan(const td_kargs *a, void **plan, size_t *ws_size)           \
    {                                                                                  \
        net s = net_of(kind_, a, w_at);                                                \
        *plan = NULL;                                                                  \
        *ws_size = forward_ws(&s);                                                     \
        return true;                                                                   \
    }                                                                                  \
    static bool name##_layout(const td_kargs *a, td_view *const *out)                  \
    {                                                                                  \
        net s = net_of(kind_, a, w_at);                                                \
        lay_lines(out[0], s.rt, s.rn);                                                 \
        for (int k = 0; k < n_saved; k++) lay_lines(out[first_saved + k], s.gt, s.gn); \
        return true;                                                                   \
    }
FORWARD_HOOKS(lstm, LSTM, LSTM_W, 2, 3)
FORWARD_HOOKS(gru, GRU, GRU_W, 1, 2)
FORWARD_HOOKS(rnn, RNN, GRU_W, 0, 0)

static bool run_lstm(const td_kargs *a)
{
    return run_forward(a, net_of(LSTM, a, LSTM_W), a->in[2], LSTM_W, a->out[3], a->out[4], a->out[2]);
}

static bool run_gru(const td_kargs *a)
{
    return run_forward(a, net_of(GRU, a, GRU_W), NULL, GRU_W, a->out[2], NULL, NULL);
}

static bool run_rnn(const td_kargs *a)
{
    return run_forward(a, net_of(RNN, a, GRU_W), NULL, GRU_W, a->out[0], NULL, NULL);
}

static const td_kernel rows[] = {
    RECURRENT_ROWS("lstm", run_lstm, takes_inputs, lstm_layout, lstm_plan),
    RECURRENT_ROWS("gru", run_gru, takes_inputs, gru_layout, gru_plan),
    RECURRENT_ROWS("rnn", run_rnn, takes_inputs, rnn_layout, rnn_plan),
};
CPU_TABLE(recurrent, rows)

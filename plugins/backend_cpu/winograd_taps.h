/* winograd_taps.h - the points of the taps of winograd.c: made once and kept, or, where they leave the cache and the taps do
 * not (a quarter as many floats), made again by each thread for each block of tiles, a row of six at a time. */
#ifndef TIDE_CPU_WINOGRAD_TAPS_H
#define TIDE_CPU_WINOGRAD_TAPS_H
#include "winograd_job.h"

/** Strides of the taps: result channel, source channel, row, column; at is the first that is used. */
typedef struct {
    const float *at;
    int64_t o, c, h, w;
} taps;

/** The taps of source channel c, row by row, for result channels o .. o + LANES; lanes beyond the last are 0. */
static void taps_load(const job *j, vec_f32 *to, const taps *w, int64_t o, int64_t c)
{
    const float *from = w->at + o * w->o + c * w->c;
    int have = (int)least(LANES, j->y.c - o), t = 0;
    bool up = w->h == 3 && w->w == 1, down = w->h == -3 && w->w == -1; /* side by side, perhaps turned */
    for (; (up || down) && t + LANES <= 9; t += LANES) {
        vec_f32 r[LANES];
#pragma GCC unroll 16
        for (int i = 0; i < LANES; i++) r[i] = i < have ? load(from + i * w->o + (up ? t : t - 8)) : (vec_f32){0};
        transpose_f32(r);
#pragma GCC unroll 16
        for (int i = 0; i < LANES; i++) to[up ? t + i : 8 - t - i] = r[i];
    }
    for (; t < 9; t++) {
        int tap = down ? 8 - t : t;
        float lanes[LANES] = {0};
        for (int i = 0; i < have; i++) lanes[i] = from[i * w->o + tap / 3 * w->h + tap % 3 * w->w];
        to[tap] = load(lanes);
    }
}

/** Source channels c .. end of result channels o .. o + LANES:  u[point](block of two vectors)(source channel, lane), or by
 *  rows the taps themselves:  u(block of two vectors)(source channel, tap, lane). */
static void taps_points(const job *j, float *u, const taps *w, int64_t o, int64_t c, int64_t end)
{
    int64_t depth = j->x.c, pair = o & ~(int64_t)(2 * LANES - 1), wide = least(2 * LANES, j->y.lanes - pair);
    for (; c < end; c++) {
        vec_f32 tap[9], half[3][6];
        taps_load(j, tap, w, o, c);
        if (j->by_rows) {
            float *to = u + 9 * (pair * depth + c * wide) + (o - pair);
            for (int t = 0; t < 9; t++) store(to + t * wide, tap[t]);
            continue;
        }
        for (int b = 0; b < 3; b++) taps_to_points(half[b], (vec_f32[]){tap[b], tap[3 + b], tap[6 + b]});
        float *to = u + pair * depth + c * wide + (o - pair);
        for (int a = 0; a < 6; a++) {
            vec_f32 done[6];
            taps_to_points(done, (vec_f32[]){half[0][a], half[1][a], half[2][a]});
            for (int b = 0; b < 6; b++) store(to + (6 * a + b) * j->u_point, done[b]);
        }
    }
}

/** Row a of the points of a block of taps, nv vectors wide. */
VEC_INLINE void row_points(float *u, int64_t point, const float *w, int64_t depth, const int nv, const int a)
{
    for (int64_t c = 0; c < depth; c++, w += 9 * nv * LANES, u += nv * LANES)
#pragma GCC unroll 2
        for (int v = 0; v < nv; v++) {
            vec_f32 row[3], done[6];
#pragma GCC unroll 3
            for (int b = 0; b < 3; b++) {
                vec_f32 tap[3], half[6];
#pragma GCC unroll 3
                for (int i = 0; i < 3; i++) tap[i] = load(w + ((3 * i + b) * nv + v) * LANES);
                taps_to_points(half, tap);
                row[b] = half[a];
            }
            taps_to_points(done, row);
#pragma GCC unroll 6
            for (int b = 0; b < 6; b++) store(u + b * point + v * LANES, done[b]);
        }
}

typedef void row_fn(float *u, int64_t point, const float *w, int64_t depth);

#define EACH_A(X) X(0) X(1) X(2) X(3) X(4) X(5)
#define DEFINE_ROW(a)                                                               \
    static void row_##a##_1(float *u, int64_t point, const float *w, int64_t depth) \
    {                                                                               \
        row_points(u, point, w, depth, 1, a);                                       \
    }                                                                               \
    static void row_##a##_2(float *u, int64_t point, const float *w, int64_t depth) \
    {                                                                               \
        row_points(u, point, w, depth, 2, a);                                       \
    }
EACH_A(DEFINE_ROW)
#define NAME_ROW(a) {row_##a##_1, row_##a##_2},
static row_fn *const rows_of_points[6][2] = {EACH_A(NAME_ROW)};

#endif

/* pixels.h - how images get into scratch, where the channels of a pixel lie side by side, and back; f32.
 * Images may be row by row (NCHW), with channels innermost, or strided anyhow. */
#ifndef TIDE_CPU_PIXELS_H
#define TIDE_CPU_PIXELS_H
#include "cpu.h"
#include "vec.h"
#include <string.h>

#define LANES VEC_F32

VEC_INLINE int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
VEC_INLINE int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }
VEC_INLINE int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

VEC_INLINE vec_f32 load(const float *p) { return *(const vec_f32 *)p; }
VEC_INLINE void store(float *p, vec_f32 v) { *(vec_f32 *)p = v; }

#define VEC vec_f32
#define IVEC vec_i32
#define R(name) name##_f32
#include "vec_transpose.h"
#undef VEC
#undef IVEC
#undef R

/** A tensor of images: extents, and strides in elements. */
typedef struct {
    float *p;
    int64_t n, c, h, w;
    int64_t ns, cs, hs, ws;
    int64_t lanes; /* c, rounded up to whole vectors: the channels of a pixel in scratch */
} images;

static inline images images_of(const td_view *v)
{
    return (images){v->p,         v->dim[0],    v->dim[1],    v->dim[2],    v->dim[3],
                    v->stride[0], v->stride[1], v->stride[2], v->stride[3], ceil_div(v->dim[1], LANES) * LANES};
}

/** Layout hook: the result has channels innermost if the first operand has. */
static inline bool layout_like_first(const td_kargs *a, td_view *const *out)
{
    const td_view *x = a->in[0];
    td_view *y = out[0];
    if (x->stride[1] != 1 || x->dim[1] == 1 || x->stride[3] != x->dim[1]) return true;
    y->stride[1] = 1;
    y->stride[3] = y->dim[1];
    y->stride[2] = y->dim[3] * y->stride[3];
    y->stride[0] = y->dim[2] * y->stride[2];
    return true;
}

/** n pixels, side by side in each of `have` planes, to (pixel, LANES); channels beyond `have` become 0. */
VEC_INLINE void planes_to_pixels(float *to, int64_t pixel, const float *from, int64_t plane, int64_t have, int64_t n)
{
    for (int64_t x = 0; x < n; x += LANES) {
        vec_f32 r[LANES];
        if (n >= LANES) {
            if (x + LANES > n) x = n - LANES; /* overlaps the one before */
#pragma GCC unroll 16
            for (int i = 0; i < LANES; i++) r[i] = i < have ? load(from + i * plane + x) : (vec_f32){0};
        } else {
            float few[LANES][LANES] = {{0}};
            for (int64_t i = 0; i < least(have, LANES); i++)
                for (int64_t e = 0; e < n; e++) few[i][e] = from[i * plane + e];
            for (int i = 0; i < LANES; i++) r[i] = load(few[i]);
        }
        transpose_f32(r);
        if (n >= LANES) {
#pragma GCC unroll 16
            for (int i = 0; i < LANES; i++) store(to + (x + i) * pixel, r[i]);
        } else {
            float few[LANES][LANES];
            for (int i = 0; i < LANES; i++) store(few[i], r[i]);
            for (int64_t i = 0; i < n; i++) store(to + i * pixel, load(few[i]));
        }
    }
}

/** The way back: n pixels of (pixel, LANES) to rows of `have` planes. */
VEC_INLINE void pixels_to_planes(float *to, int64_t plane, const float *from, int64_t pixel, int64_t have, int64_t n)
{
    for (int64_t x = 0; x < n; x += LANES) {
        vec_f32 r[LANES];
        if (n >= LANES && x + LANES > n) x = n - LANES;
        if (n >= LANES) {
#pragma GCC unroll 16
            for (int i = 0; i < LANES; i++) r[i] = load(from + (x + i) * pixel);
        } else {
            float few[LANES][LANES] = {{0}};
            for (int64_t i = 0; i < n; i++) store(few[i], load(from + i * pixel));
            for (int i = 0; i < LANES; i++) r[i] = load(few[i]);
        }
        transpose_f32(r);
        if (n >= LANES && have >= LANES) {
#pragma GCC unroll 16
            for (int i = 0; i < LANES; i++) store(to + i * plane + x, r[i]);
        } else {
            float few[LANES][LANES];
            for (int i = 0; i < LANES; i++) store(few[i], r[i]);
            for (int64_t i = 0; i < least(have, LANES); i++)
                for (int64_t e = 0; e < least(n, LANES); e++) to[i * plane + x + e] = few[i][e];
        }
    }
}

/** Whether the images lie as they would in scratch, so that a strip that is wholly inside can be used in place. */
static inline bool in_place(const images *m) { return m->cs == 1 && m->ws == m->c && m->c == m->lanes; }

/** Rows row .. row + rows and columns column .. column + width of one image to (row, pixel, lanes); 0 outside it. */
static void fill_strip(float *to, const images *m, int64_t image, int64_t row, int64_t rows, int64_t column,
                       int64_t width)
{
    int64_t line = width * m->lanes, lo = least(most(0, -column), width);
    if (column == 0 && width == m->w && m->ws == 1 && m->hs == m->w && row >= 0 &&
        row + rows <= m->h) { /* one long row */
        for (int64_t c = 0; c < m->c; c += LANES)
            planes_to_pixels(to + c, m->lanes, m->p + image * m->ns + row * m->hs + c * m->cs, m->cs, m->c - c,
                             rows * width);
        return;
    }
    int64_t hi = most(lo, least(width, m->w - column));
    for (int64_t i = row; i < row + rows; i++, to += line) {
        bool inside = i >= 0 && i < m->h;
        int64_t left = inside ? lo : width;
        memset(to, 0, (size_t)(left * m->lanes) * sizeof(float));
        if (!inside) continue;
        memset(to + hi * m->lanes, 0, (size_t)((width - hi) * m->lanes) * sizeof(float));
        const float *from = m->p + image * m->ns + i * m->hs + (column + lo) * m->ws;
        float *at = to + lo * m->lanes;
        if (m->ws == 1) {
            for (int64_t c = 0; c < m->c; c += LANES)
                planes_to_pixels(at + c, m->lanes, from + c * m->cs, m->cs, m->c - c, hi - lo);
        } else if (m->cs == 1 && m->ws == m->lanes) {
            memcpy(at, from, (size_t)((hi - lo) * m->lanes) * sizeof(float));
        } else {
            for (int64_t j = 0; j < hi - lo; j++, at += m->lanes, from += m->ws) {
                if (m->cs == 1) copy_short(at, from, m->c * (int64_t)sizeof(float));
                else
                    for (int64_t c = 0; c < m->c; c++) at[c] = from[c * m->cs];
                for (int64_t c = m->c; c < m->lanes; c++) at[c] = 0;
            }
        }
    }
}

/** The way back for results: pixels that lie outside the image are dropped. */
static void empty_strip(const images *m, int64_t image, int64_t row, int64_t rows, int64_t width, const float *from)
{
    int64_t n = least(width, m->w), end = least(row + rows, m->h);
    if (width == m->w && m->ws == 1 && m->hs == m->w && end > row) { /* one long row */
        for (int64_t c = 0; c < m->c; c += LANES)
            pixels_to_planes(m->p + image * m->ns + row * m->hs + c * m->cs, m->cs, from + c, m->lanes, m->c - c,
                             (end - row) * width);
        return;
    }
    for (int64_t i = row; i < end; i++, from += width * m->lanes) {
        float *to = m->p + image * m->ns + i * m->hs;
        if (m->ws == 1) {
            for (int64_t c = 0; c < m->c; c += LANES)
                pixels_to_planes(to + c * m->cs, m->cs, from + c, m->lanes, m->c - c, n);
        } else if (m->cs == 1 && m->ws == m->lanes) {
            memcpy(to, from, (size_t)(n * m->lanes) * sizeof(float));
        } else {
            for (int64_t j = 0; j < n; j++, to += m->ws) {
                if (m->cs == 1) copy_short(to, from + j * m->lanes, m->c * (int64_t)sizeof(float));
                else
                    for (int64_t c = 0; c < m->c; c++) to[c * m->cs] = from[j * m->lanes + c];
            }
        }
    }
}

#endif

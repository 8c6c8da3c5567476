/* winograd_strip.h - how images get into scratch, where the channels of a pixel lie side by side, and back; f32.
 * Images may be row by row (NCHW), with channels innermost, or strided anyhow. */
#ifndef TIDE_CPU_WINOGRAD_STRIP_H
#define TIDE_CPU_WINOGRAD_STRIP_H
#include "winograd_tile.h"
#include <string.h>

VEC_INLINE int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
VEC_INLINE int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }
VEC_INLINE int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

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
                copy_short(few[i], from + i * plane, n * (int64_t)sizeof(float));
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
                copy_short(to + i * plane + x, few[i], least(n, LANES) * (int64_t)sizeof(float));
        }
    }
}

/** Rows row .. row + rows and columns column .. column + width of one image to (row, pixel, lanes); 0 outside it. */
static void fill_strip(float *to, const images *m, int64_t image, int64_t row, int64_t rows, int64_t column,
                       int64_t width)
{
    int64_t line = width * m->lanes, lo = least(most(0, -column), width);
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
        } else {
            for (int64_t j = 0; j < hi - lo; j++, at += m->lanes, from += m->ws) {
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
    for (int64_t i = row; i < end; i++, from += width * m->lanes) {
        float *to = m->p + image * m->ns + i * m->hs;
        if (m->ws == 1) {
            for (int64_t c = 0; c < m->c; c += LANES)
                pixels_to_planes(to + c * m->cs, m->cs, from + c, m->lanes, m->c - c, n);
        } else {
            for (int64_t j = 0; j < n; j++)
                for (int64_t c = 0; c < m->c; c++) to[j * m->ws + c * m->cs] = from[j * m->lanes + c];
        }
    }
}

#endif

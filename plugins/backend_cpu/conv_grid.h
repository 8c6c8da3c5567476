/* conv_grid.h - the geometry of convolutions, without arithmetic on data.
 *
 * conv2d, its input gradient (conv_transpose2d) and its weight gradient are all brought to one form: a grid of pixels
 * (i, j) and a list of taps (a, b), where pixel and tap meet the source element
 *
 *     row  i step + first + a dist,      column  likewise,      zero outside the source
 *
 * A transposed convolution of stride s is s s such grids, one for each residue of the output's row and column: only every
 * s-th tap meets such a pixel, and the pixels of one residue see the source with step 1.
 *
 * The source is copied, a strip of pixels at a time, into a scratch buffer with its border of zeros, split by residues of
 * rows and columns modulo step. There neighbouring pixels are neighbours in memory for every tap, whatever the stride and the
 * dilation, and a tap is no more than an offset. */
#ifndef TIDE_CPU_CONV_GRID_H
#define TIDE_CPU_CONV_GRID_H
#include "cpu.h"

/** One of the two axes of a grid. */
typedef struct {
    int64_t src, pix, taps;    /* extents: source, pixels, taps                                             */
    int64_t step, first, dist; /* source position of pixel i and tap a: i step + first + a dist             */
    int64_t k0, ks;            /* tap a is element k0 + a ks of the kernel                                  */
    int64_t out, o0, os;       /* extent of the result; pixel i is its element o0 + i os                    */
    /* derived */
    int64_t low, span;   /* least position at pixel 0; |dist|                                               */
    int64_t slots;       /* residues modulo step that taps meet                                             */
    int64_t reach;       /* scratch extent is pixels + reach                                                */
} conv_axis;

typedef struct {
    int64_t n, groups, ci, co; /* images; groups; source and result channels of one group                   */
    conv_axis r, c;
    int64_t wg, wm, wc, wr; /* strides in the weight: group, result channel, source channel, kernel row     */
    int64_t taps, k;        /* r.taps c.taps; ci taps                                                       */
} conv_grid;

/** The pieces in which a grid is worked off: strips of several whole images, or of some rows of one. */
typedef struct {
    int64_t images, rows;   /* of a strip                                                                   */
    int64_t per_image, n;   /* strips of an image (1 with several images a strip), and in all               */
    int64_t srows, pitch;   /* scratch plane: rows of one image, row length                                 */
    int64_t plane, channel; /* elements of a scratch plane (all images) and of a source channel (all slots) */
    int64_t elems;          /* scratch elements, without slack                                              */
} conv_strips;

/** Elements pos .. pos + len of a tile and where they are in scratch or in the result. */
typedef struct {
    int32_t pos, len;
    int64_t at;
} conv_piece;

/** Bytes of scratch a strip should stay below, so that it lives in the second level cache with what is made from it. */
enum { CONV_SCRATCH = 192 * 1024 };

static inline int64_t conv_min(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t conv_max(int64_t a, int64_t b) { return a > b ? a : b; }
static inline int64_t conv_ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
static inline size_t conv_round64(size_t bytes) { return (bytes + 63) & ~(size_t)63; }

/** Floor and ceiling of a / b for any sign of a; b > 0. */
static inline int64_t conv_floor_to(int64_t a, int64_t b) { return a / b - (a % b < 0); }
static inline int64_t conv_ceil_to(int64_t a, int64_t b) { return a / b + (a % b > 0); }

static inline int64_t conv_gcd(int64_t a, int64_t b)
{
    while (b) {
        int64_t t = a % b;
        a = b;
        b = t;
    }
    return a;
}

/** Fills the derived fields of an axis. */
static void axis_derive(conv_axis *x)
{
    x->span = x->dist < 0 ? -x->dist : x->dist;
    x->low = x->dist < 0 ? x->first + (x->taps - 1) * x->dist : x->first;
    x->slots = conv_min(x->taps, x->step / conv_gcd(x->span, x->step));
    x->reach = x->taps ? (x->taps - 1) * x->span / x->step : 0;
}

/** Residue (above low) that a slot holds. */
static inline int64_t axis_residue(const conv_axis *x, int64_t slot) { return slot * x->span % x->step; }

/** Slot and scratch offset of tap a. Taps of one slot are slots apart where the residues repeat. */
static inline void axis_tap(const conv_axis *x, int64_t a, int64_t *slot, int64_t *shift)
{
    int64_t up = x->dist < 0 ? x->taps - 1 - a : a;
    *slot = up % x->slots;
    *shift = up * x->span / x->step;
}

/** Forward: pixel i of the result, tap a of the kernel. */
static conv_axis axis_forward(int64_t src, int64_t kernel, int64_t out, int64_t stride, int64_t pad, int64_t dilation)
{
    conv_axis x = {.src = src, .pix = out, .taps = kernel, .step = stride, .first = -pad, .dist = dilation,
                   .ks = 1, .out = out, .os = 1};
    axis_derive(&x);
    return x;
}

/**
 * Transposed, residue `res` of the result modulo stride: result element res + stride i gets source (res + pad - k dilation)
 * / stride + i from every kernel element k for which that division leaves nothing: k0, k0 + ks, …
 */
static conv_axis axis_transposed(int64_t src, int64_t kernel, int64_t out, int64_t stride, int64_t pad, int64_t dilation,
                                 int64_t res)
{
    int64_t g = conv_gcd(dilation, stride), period = stride / g, k0 = 0;
    conv_axis x = {.src = src, .pix = res < out ? conv_ceil_div(out - res, stride) : 0, .step = 1, .ks = period,
                   .dist = -(dilation / g), .out = out, .o0 = res, .os = stride};
    if ((res + pad) % g == 0) { /* else no kernel element ever meets this residue */
        while (k0 < period && (res + pad - k0 * dilation) % stride != 0) k0++;
        if (k0 < kernel) {
            x.k0 = k0;
            x.taps = (kernel - k0 + period - 1) / period;
            x.first = (res + pad - k0 * dilation) / stride;
        }
    }
    axis_derive(&x);
    return x;
}

static void grid_finish(conv_grid *g)
{
    g->taps = g->r.taps * g->c.taps;
    g->k = g->ci * g->taps;
}

/**
 * Chooses strips: whole images, several where one has few pixels; or rows of one image, where an image is large or
 * there are too few of them for the threads. False after td_fail where scratch would be beyond all reason.
 *
 * esize    bytes of an element
 * want_px  pixels a strip should have at least
 * tasks    strips times groups there should be at least
 */
static bool strips_choose(conv_strips *s, const conv_grid *g, size_t esize, int64_t want_px, int64_t tasks, const char *op)
{
    int64_t slots = g->r.slots * g->c.slots, row, image, elems;
    s->pitch = g->c.pix + g->c.reach;
    if (__builtin_mul_overflow(g->ci * slots, s->pitch, &row) ||
        __builtin_mul_overflow(row, g->r.pix + g->r.reach, &image) || image > INT64_MAX / 64)
        return td_fail_as(TD_ENOMEM, "%s: the padded input is too large", op) != NULL;
    int64_t room = (int64_t)(CONV_SCRATCH / esize), px = g->r.pix * g->c.pix, units = conv_max(1, g->n * g->groups);
    s->images = 1;
    s->rows = g->r.pix;
    if (image <= room && units >= tasks) {
        s->images = conv_min(conv_ceil_div(want_px, conv_max(px, 1)), conv_min(room / conv_max(image, 1), units / tasks));
        s->images = conv_max(1, conv_min(s->images, g->n));
    } else {
        if (image > room) s->rows = conv_max(room / conv_max(row, 1) - g->r.reach, conv_ceil_div(64, g->c.pix));
        s->rows = conv_min(s->rows, conv_ceil_div(g->r.pix, conv_ceil_div(tasks, units)));
        s->rows = conv_max(1, conv_min(s->rows, g->r.pix));
        s->rows = conv_ceil_div(g->r.pix, conv_ceil_div(g->r.pix, s->rows));
    }
    s->per_image = conv_ceil_div(g->r.pix, s->rows);
    s->n = conv_ceil_div(g->n, s->images) * s->per_image;
    s->srows = s->rows + g->r.reach;
    s->plane = s->images * s->srows * s->pitch;
    s->channel = slots * s->plane;
    elems = s->channel * g->ci;
    s->elems = elems;
    if (elems > INT32_MAX / 2)
        return td_fail_as(TD_ENOMEM, "%s: a row of the padded input with all channels has %lld elements, at most %d can be handled",
                          op, (long long)elems, INT32_MAX / 2) != NULL;
    return true;
}

/** Strip number t: its images and its rows. */
static inline void strip_at(const conv_strips *s, const conv_grid *g, int64_t t, int64_t *img, int64_t *n_img, int64_t *row,
                            int64_t *n_row)
{
    *img = t / s->per_image * s->images;
    *n_img = conv_min(s->images, g->n - *img);
    *row = t % s->per_image * s->rows;
    *n_row = conv_min(s->rows, g->r.pix - *row);
}

/** Offset in scratch of every (source channel, tap), in the order of k. */
static void strips_offsets(const conv_strips *s, const conv_grid *g, int32_t *off)
{
    for (int64_t c = 0; c < g->ci; c++)
        for (int64_t a = 0; a < g->r.taps; a++)
            for (int64_t b = 0; b < g->c.taps; b++) {
                int64_t sr, sc, dr, dc;
                axis_tap(&g->r, a, &sr, &dr);
                axis_tap(&g->c, b, &sc, &dc);
                *off++ = (int32_t)(c * s->channel + (sr * g->c.slots + sc) * s->plane + dr * s->pitch + dc);
            }
}

/**
 * The rows of pixels that make up pixels p .. p + n of a strip, counted over its images and rows: where they begin in
 * scratch, and, where `out` is given, where they go in the result (pieces that follow each other there are one).
 *
 * rows, image_stride  rows of the strip; elements of the result between images
 * row                 first pixel row of the strip
 * return              pieces in src; *n_out those in out
 */
static int strip_pieces(const conv_strips *s, const conv_grid *g, int64_t row, int64_t rows, int64_t image_stride, int64_t p,
                        int64_t n, conv_piece *src, conv_piece *out, int *n_out)
{
    int64_t j = p % g->c.pix, i = p / g->c.pix % rows, img = p / (g->c.pix * rows);
    int k = 0, m = 0;
    for (int64_t pos = 0; pos < n;) {
        int64_t len = conv_min(g->c.pix - j, n - pos);
        src[k++] = (conv_piece){(int32_t)pos, (int32_t)len, (img * s->srows + i) * s->pitch + j};
        if (out) {
            int64_t at = img * image_stride + (g->r.o0 + (row + i) * g->r.os) * g->c.out + g->c.o0 + j * g->c.os;
            if (m && g->c.os == 1 && out[m - 1].at + out[m - 1].len == at) out[m - 1].len += (int32_t)len;
            else out[m++] = (conv_piece){(int32_t)pos, (int32_t)len, at};
        }
        pos += len;
        j = 0;
        if (++i == rows) {
            i = 0;
            img++;
        }
    }
    if (n_out) *n_out = m;
    return k;
}

/**
 * The same where a tile is a run of n scratch elements from *at on, which counts those between rows too: the pieces of it
 * that are pixels. *at moves to the first pixel beyond the tile, or to -1.
 *
 * images  of the strip
 * return  elements of the tile up to its last pixel
 */
static int64_t strip_windows(const conv_strips *s, const conv_grid *g, int64_t row, int64_t rows, int64_t images,
                             int64_t image_stride, int64_t *at, int64_t n, conv_piece *out, int *n_out)
{
    int64_t begin = *at, end = begin + n, used = 0, line = begin / s->pitch, j = begin % s->pitch;
    int64_t img = line / s->srows, i = line % s->srows, q = begin;
    int m = 0;
    for (; q < end; q += s->pitch - j, j = 0) {
        if (i == rows) { /* rows that belong to taps only */
            q += (s->srows - rows) * s->pitch;
            i = 0;
            img++;
        }
        if (img == images || q >= end) break;
        if (j < g->c.pix) {
            int64_t len = conv_min(g->c.pix - j, end - q);
            int64_t to = img * image_stride + (g->r.o0 + (row + i) * g->r.os) * g->c.out + g->c.o0 + j * g->c.os;
            out[m++] = (conv_piece){(int32_t)(q - begin), (int32_t)len, to};
            used = q - begin + len;
            if (j + len < g->c.pix) { /* the next tile goes on in this row */
                *at = end;
                *n_out = m;
                return used;
            }
        }
        i++;
    }
    if (i == rows && img < images) {
        q += (s->srows - rows) * s->pitch;
        img++;
    }
    *at = img < images ? q : -1;
    *n_out = m;
    return used;
}

#endif

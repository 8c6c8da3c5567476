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
 * dilation, and a tap is no more than an offset. Several images lie row by row side by side, so that pixels that follow each
 * other are mostly of the same row; taps whose source row is outside for all of them are left out. */
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
    int64_t low, span; /* least position at pixel 0; |dist|                                               */
    int64_t slots;     /* residues modulo step that taps meet                                             */
    int64_t reach;     /* scratch extent is pixels + reach                                                */
} conv_axis;

typedef struct {
    int64_t n, groups, ci, co; /* images; groups; source and result channels of one group                   */
    conv_axis r, c;
    int64_t wg, wm, wc, wr; /* strides in the weight: group, result channel, source channel, kernel row     */
    int64_t taps, k;        /* r.taps c.taps; ci taps                                                       */
    int64_t ka, kb, kc;     /* tap (a, b) of source channel c is number a ka + b kb + c kc of k             */
} conv_grid;

/** The pieces in which a grid is worked off: strips of several whole images, or of some rows of one. */
typedef struct {
    int64_t images, rows;   /* of a strip                                                                   */
    int64_t per_image, n;   /* strips of an image (1 with several images a strip), and in all               */
    int64_t lanes;          /* images that lie element by element side by side; 1: row by row               */
    int64_t srows, pitch;   /* scratch plane: rows of one image, and the length of such a row               */
    int64_t line;           /* from row to row                                                              */
    int64_t plane, channel; /* elements of a scratch plane (all images) and of a source channel (all slots) */
    int64_t elems;          /* scratch elements, without slack                                              */
} conv_strips;

/** Elements pos .. pos + len of a tile and where they are in scratch or in the result. */
typedef struct {
    int32_t pos, len;
    int64_t at;
} conv_piece;

/** Bytes of scratch a strip should stay below, so that it lives in the second level cache with what is made from it; and
 *  how many it may have where fewer images would leave tiles half empty. */
enum { CONV_SCRATCH = 192 * 1024, CONV_SCRATCH_MOST = 1024 * 1024 };

static inline int64_t conv_min(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t conv_max(int64_t a, int64_t b) { return a > b ? a : b; }
static inline int64_t conv_ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
static inline size_t conv_round64(size_t bytes) { return (bytes + 63) & ~(size_t)63; }

/** Ceiling of a / b for any sign of a; b > 0. */
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
    conv_axis x = {.src = src,
                   .pix = out,
                   .taps = kernel,
                   .step = stride,
                   .first = -pad,
                   .dist = dilation,
                   .ks = 1,
                   .out = out,
                   .os = 1};
    axis_derive(&x);
    return x;
}

/**
 * Transposed, residue `res` of the result modulo stride: result element res + stride i gets source (res + pad - k dilation)
 * / stride + i from every kernel element k for which that division leaves nothing: k0, k0 + ks, …
 */
static conv_axis axis_transposed(int64_t src, int64_t kernel, int64_t out, int64_t stride, int64_t pad,
                                 int64_t dilation, int64_t res)
{
    int64_t g = conv_gcd(dilation, stride), period = stride / g, k0 = 0;
    conv_axis x = {.src = src,
                   .pix = res < out ? conv_ceil_div(out - res, stride) : 0,
                   .step = 1,
                   .ks = period,
                   .dist = -(dilation / g),
                   .out = out,
                   .o0 = res,
                   .os = stride};
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

/* channels_last: the order of k is (a, b, c), so that a run of columns of taps is a run of k; else (a, c, b), where the
 * windows of neighbouring k overlap. */
static void grid_finish(conv_grid *g, bool channels_last)
{
    g->taps = g->r.taps * g->c.taps;
    g->k = g->ci * g->taps;
    g->ka = g->ci * g->c.taps;
    g->kb = channels_last ? g->ci : 1;
    g->kc = channels_last ? 1 : g->c.taps;
}

/** Pixels first .. last - 1 for which tap a lies in the source. */
static inline void axis_inside(const conv_axis *x, int64_t a, int64_t *first, int64_t *last)
{
    int64_t at = x->first + a * x->dist;
    *first = at < 0 ? conv_min(x->pix, conv_ceil_to(-at, x->step)) : 0;
    *last = at < x->src ? conv_max(*first, conv_min(x->pix, conv_ceil_to(x->src - at, x->step))) : *first;
}

/** The share of (pixel, tap) pairs that lie in the source. */
static double axis_share(const conv_axis *x)
{
    int64_t sum = 0, first, last, all = x->taps * x->pix;
    for (int64_t a = 0; a < x->taps; a++) {
        axis_inside(x, a, &first, &last);
        sum += last - first;
    }
    return all ? (double)sum / (double)all : 1;
}

/** Sizes that follow from images and rows. */
static bool strips_finish(conv_strips *s, const conv_grid *g, int64_t lanes, const char *op)
{
    int64_t row = 0, elems = 0;
    s->lanes = lanes;
    s->rows = conv_max(1, s->rows);
    s->per_image = conv_max(1, conv_ceil_div(g->r.pix, s->rows));
    s->n = conv_ceil_div(g->n, s->images) * s->per_image;
    s->srows = s->rows + g->r.reach;
    if (__builtin_mul_overflow(g->c.pix + g->c.reach, s->images * g->ci * g->r.slots * g->c.slots, &row) ||
        __builtin_mul_overflow(row, s->srows, &elems) || elems > INT32_MAX / 2)
        return td_fail_as(TD_ENOMEM, "%s: the padded input is too large: a strip of it has more than %d elements", op,
                          INT32_MAX / 2) != NULL;
    s->pitch = (g->c.pix + g->c.reach) * lanes;
    s->line = lanes > 1 ? s->pitch : s->images * s->pitch;
    s->plane = s->srows * s->line;
    s->channel = g->r.slots * g->c.slots * s->plane;
    s->elems = elems;
    return true;
}

/** Images of a strip: as many as want_px pixels take, within the cache; more, or fewer, where that fills tiles better. */
static int64_t images_choose(int64_t px, int64_t most_cache, int64_t most, int64_t want_px, int64_t tile)
{
    int64_t best = conv_max(1, conv_min(conv_min(most, most_cache), conv_ceil_div(want_px, px)));
    double waste = (double)(conv_ceil_div(best * px, tile) * tile) / (double)(best * px);
    for (int64_t i = best + 1; i <= most && i * px <= 2 * want_px && waste > 1.08; i++) {
        double w = (double)(conv_ceil_div(i * px, tile) * tile) / (double)(i * px);
        if (w > waste - 0.04) continue;
        waste = w;
        best = i;
    }
    return best;
}

/**
 * Chooses strips: whole images, several where one has few pixels; or rows of one image, where an image is large or
 * there are too few of them for the threads. False after td_fail where scratch would be beyond all reason.
 *
 * esize    bytes of an element
 * want_px  pixels a strip should have at least, and those of a tile
 * tasks    strips times groups there should be at least
 */
static bool strips_choose(conv_strips *s, const conv_grid *g, size_t esize, int64_t want_px, int64_t tile,
                          int64_t tasks, const char *op)
{
    int64_t row, image;
    if (__builtin_mul_overflow(g->ci * g->r.slots * g->c.slots, g->c.pix + g->c.reach, &row) ||
        __builtin_mul_overflow(row, g->r.pix + g->r.reach, &image) || image > INT64_MAX / 64)
        return td_fail_as(TD_ENOMEM, "%s: the padded input is too large", op) != NULL;
    int64_t room = (int64_t)(CONV_SCRATCH / esize), most = (int64_t)(CONV_SCRATCH_MOST / esize);
    int64_t px = conv_max(1, g->r.pix * g->c.pix), units = conv_max(1, g->n * g->groups);
    s->images = 1;
    s->rows = g->r.pix;
    if (image <= 2 * room && units >= tasks) {
        image = conv_max(image, 1);
        most = conv_min(conv_min(most / image, units / tasks), conv_max(g->n, 1));
        s->images = images_choose(px, room / image, most, want_px, tile);
    } else {
        if (image > room)
            s->rows = conv_max(room / conv_max(row, 1) - g->r.reach, conv_ceil_div(64, conv_max(1, g->c.pix)));
        s->rows = conv_min(s->rows, conv_ceil_div(g->r.pix, conv_ceil_div(tasks, units)));
        s->rows = conv_max(1, conv_min(s->rows, g->r.pix));
        s->rows = conv_ceil_div(g->r.pix, conv_max(1, conv_ceil_div(g->r.pix, s->rows)));
    }
    return strips_finish(s, g, 1, op);
}

/** Whether a few rows of as many images as fill a vector are of reasonable size, channels and borders included. */
static bool lanes_fit(const conv_grid *g, int64_t vector_bytes)
{
    double rows = (double)(conv_min(4, g->r.pix) + g->r.reach) * (double)(g->r.slots * g->c.slots);
    return (double)g->ci * rows * (double)(g->c.pix + g->c.reach) * (double)vector_bytes < 4.0 * CONV_SCRATCH_MOST;
}

/** The same with images side by side in `lanes`, as many as a vector has. */
static bool strips_choose_lanes(conv_strips *s, const conv_grid *g, size_t esize, int64_t lanes, int64_t tasks,
                                const char *op)
{
    int64_t row, units = conv_max(1, conv_ceil_div(g->n, lanes) * g->groups);
    if (__builtin_mul_overflow(g->ci * g->r.slots * g->c.slots * lanes, g->c.pix + g->c.reach, &row) ||
        row > INT64_MAX / 64)
        return td_fail_as(TD_ENOMEM, "%s: the padded input is too large", op) != NULL;
    s->images = lanes;
    s->rows = conv_max((int64_t)(CONV_SCRATCH_MOST / esize) / conv_max(row, 1) - g->r.reach, conv_min(4, g->r.pix));
    s->rows = conv_max(1, conv_min(s->rows, conv_ceil_div(g->r.pix, conv_ceil_div(tasks, units))));
    s->rows = conv_ceil_div(g->r.pix, conv_max(1, conv_ceil_div(g->r.pix, s->rows)));
    return strips_finish(s, g, lanes, op);
}

/** Offset in scratch of every tap of every source channel, in the order of k. */
static void strips_offsets(const conv_strips *s, const conv_grid *g, int32_t *off)
{
    for (int64_t a = 0; a < g->r.taps; a++)
        for (int64_t b = 0; b < g->c.taps; b++) {
            int64_t sr, sc, dr, dc;
            axis_tap(&g->r, a, &sr, &dr);
            axis_tap(&g->c, b, &sc, &dc);
            int64_t at = (sr * g->c.slots + sc) * s->plane + dr * s->line + dc * s->lanes;
            for (int64_t c = 0; c < g->ci; c++) off[a * g->ka + b * g->kb + c * g->kc] = (int32_t)(c * s->channel + at);
        }
}

/** Taps first .. last - 1 of an axis that meet the source from any of pixels i .. i + n - 1. */
static void axis_live(const conv_axis *x, int64_t i, int64_t n, int64_t *first, int64_t *last)
{
    int64_t low = i * x->step + x->first, high = low + (n - 1) * x->step; /* source rows for tap 0 */
    *first = 0;
    *last = x->taps;
    if (x->dist < 0) {
        while (*first < *last && low + *first * x->dist >= x->src) ++*first;
        while (*first < *last && high + (*last - 1) * x->dist < 0) --*last;
    } else {
        while (*first < *last && high + *first * x->dist < 0) ++*first;
        while (*first < *last && low + (*last - 1) * x->dist >= x->src) --*last;
    }
}

/** A strip's own numbers, and what a tile of it covers. */
typedef struct {
    int64_t img, images, row, rows; /* first image and how many, first row and how many                     */
    int64_t image_stride;           /* elements of the result between images                                */
} conv_strip;

static conv_strip strip_at(const conv_strips *s, const conv_grid *g, int64_t t)
{
    conv_strip at = {.img = t / s->per_image * s->images, .row = t % s->per_image * s->rows};
    at.images = conv_min(s->images, g->n - at.img);
    at.rows = conv_min(s->rows, g->r.pix - at.row);
    at.image_stride = g->groups * g->co * g->r.out * g->c.out;
    return at;
}

/** Where pixel (i, j) of image img (counted in the strip) is in channel 0 of the result. */
static inline int64_t strip_result(const conv_strip *t, const conv_grid *g, int64_t img, int64_t i, int64_t j)
{
    return img * t->image_stride + (g->r.o0 + (t->row + i) * g->r.os) * g->c.out + g->c.o0 + j * g->c.os;
}

/**
 * Pixels p .. p + n of a strip, counted along rows, through its images, then to the next row, in pieces that are a row each:
 * where they are in scratch, and in the result (there, pieces that follow each other are one). Returns pieces in out.
 */
static int strip_pieces(const conv_strips *s, const conv_grid *g, const conv_strip *t, int64_t p, int64_t n,
                        conv_piece *src, conv_piece *out)
{
    int64_t j = p % g->c.pix, img = p / g->c.pix % t->images, i = p / (g->c.pix * t->images);
    int m = 0;
    for (int64_t pos = 0; pos < n; j = 0) {
        int64_t len = conv_min(g->c.pix - j, n - pos), at = strip_result(t, g, img, i, j);
        *src++ = (conv_piece){(int32_t)pos, (int32_t)len, i * s->line + img * s->pitch + j};
        if (m && g->c.os == 1 && out[m - 1].at + out[m - 1].len == at) out[m - 1].len += (int32_t)len;
        else out[m++] = (conv_piece){(int32_t)pos, (int32_t)len, at};
        pos += len;
        if (++img == t->images) {
            img = 0;
            i++;
        }
    }
    return m;
}

/**
 * The same where a tile is a run of n elements of scratch from *at on, which counts what lies between rows too: the pieces of
 * it that are pixels. *at moves to the first pixel beyond the tile, or to -1. Returns the pieces; *used is where the last ends.
 */
static int strip_windows(const conv_strips *s, const conv_grid *g, const conv_strip *t, int64_t *at, int64_t n,
                         conv_piece *out, int64_t *used)
{
    int64_t begin = *at, end = begin + n, i = begin / s->line, img = begin % s->line / s->pitch, j = begin % s->pitch;
    int m = 0;
    while (i < t->rows) {
        int64_t q = i * s->line + img * s->pitch + j;
        *at = q;
        if (q >= end) return m;
        int64_t len = conv_min(g->c.pix - j, end - q);
        out[m++] = (conv_piece){(int32_t)(q - begin), (int32_t)len, strip_result(t, g, img, i, j)};
        *used = q - begin + len;
        if (j + len < g->c.pix) { /* the next tile goes on in this row */
            *at = end;
            return m;
        }
        j = 0;
        if (++img == t->images) {
            img = 0;
            i++;
        }
    }
    *at = -1;
    return m;
}

#endif

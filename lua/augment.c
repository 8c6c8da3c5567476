/* augment.c - see augment.h. A sample is (C, H, W), dense, f32. Geometry goes from one buffer to the other, the rest works in place. */
#include "augment.h"
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <tide/philox.h>

/* ---- random words of sample, step, try and epoch ---- */

static void words(tdl_draw d, uint64_t sample, int step, int attempt, uint32_t out[4])
{
    const uint32_t key[2] = {(uint32_t)d.seed, (uint32_t)(d.seed >> 32)},
                   counter[4] = {(uint32_t)sample, (uint32_t)(sample >> 32) << 16 | (uint32_t)(step << 8 | attempt),
                                 (uint32_t)d.epoch,
                                 (uint32_t)(d.epoch >> 32) | 0x80000000u}; /* apart from the stream of ops */
    td_philox(counter, key, out);
}

uint64_t tdl_sample_seed(tdl_draw d, uint64_t sample)
{
    uint32_t w[4];
    words(d, sample, 0xff, 0, w); /* no chain has so many steps */
    return (uint64_t)w[1] << 32 | w[0];
}

/* [0, 1) */
static double uniform(uint32_t w) { return (double)w * 0x1p-32; }
/* 0 .. n - 1 */
static int64_t below(uint32_t w, int64_t n) { return (int64_t)((uint64_t)w * (uint64_t)n >> 32); }

/* ---- extents ---- */

static const char *const name[] = {
    "Normalize", "Pad", "CenterCrop", "RandomCrop", "RandomHorizontalFlip", "RandomVerticalFlip", "RandomErasing"};

static tdl_extent padded(const tdl_step *s, tdl_extent e)
{
    return (tdl_extent){e.c, e.h + s->top + s->bottom, e.w + s->left + s->right};
}

bool tdl_chain_extent(const tdl_chain *chain, tdl_extent e, tdl_extent *to, size_t *room, char *why, size_t why_room)
{
    *room = (size_t)(e.c * e.h * e.w);
    for (int i = 0; i < chain->n; i++) {
        const tdl_step *s = &chain->step[i];
        if (s->kind == TDL_NORMALIZE && s->n != 1 && s->n != e.c) {
            snprintf(why, why_room, "Normalize: expected samples of %lld channels, got %lld", (long long)s->n,
                     (long long)e.c);
            return false;
        }
        if (s->kind == TDL_PAD || s->kind == TDL_RANDOM_CROP) e = padded(s, e);
        if (s->kind == TDL_CENTER_CROP || s->kind == TDL_RANDOM_CROP) {
            if (s->h > e.h || s->w > e.w) {
                snprintf(why, why_room, "%s: %lld x %lld is larger than the image, %lld x %lld%s", name[s->kind],
                         (long long)s->h, (long long)s->w, (long long)e.h, (long long)e.w,
                         s->kind == TDL_RANDOM_CROP ? " with its padding" : "");
                return false;
            }
            e.h = s->h;
            e.w = s->w;
        }
        if (e.h > TDL_MAX_SIDE || e.w > TDL_MAX_SIDE || e.c * e.h * e.w > (int64_t)1 << 32) {
            snprintf(why, why_room, "%s: an image of %lld x %lld is too large", name[s->kind], (long long)e.h,
                     (long long)e.w);
            return false;
        }
        if ((size_t)(e.c * e.h * e.w) > *room) *room = (size_t)(e.c * e.h * e.w);
    }
    *to = e;
    return true;
}

/* ---- steps ---- */

/* The window (h, w) of x with a border, whose first row and column are top and left of x (negative: in the border). */
static void window(const float *x, tdl_extent from, float *y, int64_t h, int64_t w, int64_t top, int64_t left,
                   float fill)
{
    int64_t begin = left < 0 ? -left : 0, end = from.w - left < w ? from.w - left : w; /* columns of y that lie in x */
    if (begin > w) begin = w;
    if (end < begin) end = begin;
    for (int64_t c = 0; c < from.c; c++)
        for (int64_t i = 0; i < h; i++, y += w) {
            int64_t row = top + i;
            bool inside = row >= 0 && row < from.h && end > begin;
            int64_t first = inside ? begin : w, last = inside ? end : w;
            for (int64_t j = 0; j < first; j++) y[j] = fill;
            if (inside)
                memcpy(y + first, x + (c * from.h + row) * from.w + left + first, (size_t)(last - first) * sizeof *y);
            for (int64_t j = last; j < w; j++) y[j] = fill;
        }
}

static void flip_x(float *x, tdl_extent e)
{
    for (int64_t r = 0; r < e.c * e.h; r++, x += e.w)
        for (int64_t i = 0, j = e.w - 1; i < j; i++, j--) {
            float t = x[i];
            x[i] = x[j];
            x[j] = t;
        }
}

static void flip_y(float *x, tdl_extent e)
{
    for (int64_t c = 0; c < e.c; c++, x += e.h * e.w)
        for (int64_t i = 0, j = e.h - 1; i < j; i++, j--)
            for (int64_t k = 0; k < e.w; k++) {
                float t = x[i * e.w + k];
                x[i * e.w + k] = x[j * e.w + k];
                x[j * e.w + k] = t;
            }
}

static void normalize(const tdl_step *s, float *x, tdl_extent e)
{
    for (int64_t c = 0; c < e.c; c++, x += e.h * e.w) {
        float mean = s->mean[s->n == 1 ? 0 : c], inv = s->inv_std[s->n == 1 ? 0 : c];
        for (int64_t i = 0; i < e.h * e.w; i++) x[i] = (x[i] - mean) * inv;
    }
}

/* A rectangle of a random share of the area and a random ratio of its sides (uniform in its logarithm); ten tries to find one that fits. */
static void erase(const tdl_step *s, float *x, tdl_extent e, tdl_draw d, uint64_t sample, int step)
{
    for (int attempt = 1; attempt <= 10; attempt++) {
        uint32_t r[4];
        words(d, sample, step, attempt, r);
        double area = (s->area[0] + uniform(r[0]) * (s->area[1] - s->area[0])) * (double)(e.h * e.w);
        double low = log(s->ratio[0]), ratio = exp(low + uniform(r[1]) * (log(s->ratio[1]) - low));
        int64_t h = (int64_t)(sqrt(area * ratio) + 0.5), w = (int64_t)(sqrt(area / ratio) + 0.5);
        if (h < 1 || w < 1 || h >= e.h || w >= e.w) continue;
        int64_t top = below(r[2], e.h - h + 1), left = below(r[3], e.w - w + 1);
        for (int64_t c = 0; c < e.c; c++)
            for (int64_t i = top; i < top + h; i++)
                for (int64_t j = left; j < left + w; j++) x[(c * e.h + i) * e.w + j] = (float)s->fill;
        return;
    }
}

void tdl_chain_run(const tdl_chain *chain, tdl_extent e, float *a, float *b, float *out, tdl_draw d, uint64_t sample)
{
    for (int i = 0; i < chain->n; i++) {
        const tdl_step *s = &chain->step[i];
        uint32_t r[4] = {0, 0, 0, 0};
        if (s->kind >= TDL_RANDOM_CROP) words(d, sample, i, 0, r);
        int64_t top = 0, left = 0, h = e.h, w = e.w;
        bool moves = false;
        switch (s->kind) {
        case TDL_NORMALIZE: normalize(s, a, e); break;
        case TDL_PAD:
            moves = true;
            top = -s->top, left = -s->left, h = padded(s, e).h, w = padded(s, e).w;
            break;
        case TDL_CENTER_CROP:
            moves = true;
            top = (e.h - s->h) / 2, left = (e.w - s->w) / 2, h = s->h, w = s->w;
            break;
        case TDL_RANDOM_CROP:
            moves = true;
            top = below(r[0], padded(s, e).h - s->h + 1) - s->top;
            left = below(r[1], padded(s, e).w - s->w + 1) - s->left;
            h = s->h, w = s->w;
            break;
        case TDL_FLIP_X:
            if (uniform(r[0]) < s->p) flip_x(a, e);
            break;
        case TDL_FLIP_Y:
            if (uniform(r[0]) < s->p) flip_y(a, e);
            break;
        case TDL_ERASE:
            if (uniform(r[0]) < s->p) erase(s, a, e, d, sample, i);
            break;
        }
        if (!moves) continue;
        window(a, e, b, h, w, top, left, (float)s->fill);
        float *t = a;
        a = b;
        b = t;
        e.h = h;
        e.w = w;
    }
    memcpy(out, a, (size_t)(e.c * e.h * e.w) * sizeof *out);
}

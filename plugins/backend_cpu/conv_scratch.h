/* conv_scratch.h - how the source of a convolution gets into scratch, and from there into panels; included once per element
 * type, as conv_micro.h. */

/** Copies the source rows of a strip into scratch. Borders left and right are zero from the start, and stay so. */
static void R(fill_scratch)(REAL *scratch, const REAL *x, const conv_grid *g, const conv_strips *s, const conv_strip *t,
                            int64_t group)
{
    const conv_axis *r = &g->r, *c = &g->c;
    int64_t plane = r->src * c->src;
    for (int64_t ch = 0; ch < g->ci; ch++)
        for (int64_t slot = 0; slot < r->slots * c->slots; slot++) {
            int64_t base_r = t->row * r->step + r->low + axis_residue(r, slot / c->slots);
            int64_t base_c = c->low + axis_residue(c, slot % c->slots);
            int64_t lo = base_c < 0 ? conv_ceil_to(-base_c, c->step) : 0;
            int64_t hi = conv_min(s->pitch, base_c < c->src ? conv_ceil_to(c->src - base_c, c->step) : 0);
            if (hi <= lo) continue;
            for (int64_t i = 0; i < t->images; i++) {
                const REAL *from =
                    x + (((t->img + i) * g->groups + group) * g->ci + ch) * plane + base_c + lo * c->step;
                REAL *to = scratch + ch * s->channel + slot * s->plane + i * s->pitch + lo;
                for (int64_t q = 0; q < t->rows + r->reach; q++, to += s->line) {
                    int64_t at = base_r + q * r->step;
                    if (at < 0 || at >= r->src) {
                        if (s->per_image > 1) __builtin_memset(to, 0, (size_t)(hi - lo) * sizeof(REAL));
                    } else if (c->step == 1) {
                        copy_short(to, from + at * c->src, (hi - lo) * (int64_t)sizeof(REAL));
                    } else {
                        const REAL *f = from + at * c->src;
                        for (int64_t e = 0; e < hi - lo; e++) to[e] = f[e * c->step];
                    }
                }
            }
        }
}

/**
 * Sorts the pieces of a tile by vectors. part[first[v]] .. part[first[v + 1] - 1] meet vector v: pos is the first lane of
 * each in it, at the place in scratch that lane 0 would have.
 */
static void R(plan_columns)(conv_piece *part, int32_t *first, const conv_piece *src, int64_t n)
{
    int32_t k = 0;
    for (int64_t begin = 0, i = 0, v = 0; begin < n; begin += LANES, v++) {
        int64_t end = conv_min(n, begin + LANES);
        for (first[v] = k;; i++) {
            int64_t pos = conv_max(src[i].pos - begin, 0);
            part[k++] = (conv_piece){(int32_t)pos, 0, src[i].at - src[i].pos + begin};
            if (src[i].pos + src[i].len >= end) break;
        }
        first[v + 1] = k;
        if (src[i].pos + src[i].len == end) i++;
    }
}

/** One column of vectors of a panel: each joined from n parts that lie apart in scratch. */
VEC_INLINE void R(join_column)(const int n, REAL *to, int64_t stride, const REAL *scratch, const int32_t *off,
                               int64_t k, const conv_piece *part)
{
    vec_i32 mask[4];
#pragma GCC unroll 4
    for (int e = 1; e < n; e++) mask[e] = lanes_from(part[e].pos * (int)sizeof(REAL));
    for (int64_t i = 0; i < k; i++, to += stride) {
        const REAL *s = scratch + off[i];
        vec_i32 v = *(const vec_i32 *)(s + part[0].at);
#pragma GCC unroll 4
        for (int e = 1; e < n; e++) {
            vec_i32 w = *(const vec_i32 *)(s + part[e].at);
            v = v ^ ((v ^ w) & mask[e]);
        }
        *(vec_i32 *)to = v;
    }
}

/** The windows of a tile's pixels, for k rows of a panel. */
static void R(pack_panel)(REAL *panel, int64_t stride, const REAL *scratch, const int32_t *off, int64_t k,
                          const conv_piece *part, const int32_t *first, int64_t vectors)
{
    for (int64_t v = 0; v < vectors; v++, panel += LANES) {
        const conv_piece *p = part + first[v];
        int n = first[v + 1] - first[v];
        if (n == 1) R(join_column)(1, panel, stride, scratch, off, k, p);
        else if (n == 2) R(join_column)(2, panel, stride, scratch, off, k, p);
        else if (n == 3) R(join_column)(3, panel, stride, scratch, off, k, p);
        else if (n == 4) R(join_column)(4, panel, stride, scratch, off, k, p);
        else
            for (int64_t i = 0; i < k; i++)
                for (int e = 0; e < n; e++) {
                    int last = e + 1 < n ? p[e + 1].pos : LANES;
                    const REAL *s = scratch + off[i] + p[e].at;
                    for (int q = p[e].pos; q < last; q++) panel[i * stride + q] = s[q];
                }
    }
}

/* ---- images in lanes ---- */

#include "vec_transpose.h"

/**
 * n elements, `step` apart, of each of `images` rows to (n, LANES); lanes without an image become 0.
 *
 * from   the first image's row; the others are image_stride apart
 * end    of the tensor: whole vectors are read where they end before it
 */
static void R(rows_to_lanes)(REAL *restrict to, const REAL *restrict from, int64_t image_stride, int64_t images,
                             int64_t n, int64_t step, const REAL *end)
{
    int64_t e = 0;
    if (images == LANES && step == 1)
        for (; e < n && end - from >= e + (LANES - 1) * image_stride + LANES; e += LANES) {
            VEC r[LANES];
#pragma GCC unroll 16
            for (int i = 0; i < LANES; i++) r[i] = *(const VEC *)(from + i * image_stride + e);
            R(transpose)(r);
            if (n - e >= LANES)
#pragma GCC unroll 16
                for (int i = 0; i < LANES; i++) *(VEC *)(to + (e + i) * LANES) = r[i];
            else
#pragma GCC unroll 16
                for (int i = 0; i < LANES; i++)
                    if (i < n - e) *(VEC *)(to + (e + i) * LANES) = r[i];
        }
    for (; e < n; e++) {
        for (int64_t i = 0; i < images; i++) to[e * LANES + i] = from[i * image_stride + e * step];
        for (int64_t i = images; i < LANES; i++) to[e * LANES + i] = 0;
    }
}

/** The way back: n columns (LANES of which may be read) to rows of `images` images, `step` apart. */
static void R(lanes_to_rows)(REAL *restrict to, const REAL *restrict from, int64_t image_stride, int64_t images,
                             int64_t n, int64_t step)
{
    if (step > 1) {
        for (int64_t i = 0; i < images; i++)
            for (int64_t e = 0; e < n; e++) to[i * image_stride + e * step] = from[e * LANES + i];
        return;
    }
    REAL rows[LANES * LANES];
    VEC r[LANES];
#pragma GCC unroll 16
    for (int i = 0; i < LANES; i++) r[i] = *(const VEC *)(from + i * LANES);
    R(transpose)(r);
    if (images == LANES && n == LANES) {
#pragma GCC unroll 16
        for (int i = 0; i < LANES; i++) *(VEC *)(to + i * image_stride) = r[i];
        return;
    }
#pragma GCC unroll 16
    for (int i = 0; i < LANES; i++) *(VEC *)(rows + i * LANES) = r[i];
    for (int64_t i = 0; i < images; i++) copy_short(to + i * image_stride, rows + i * LANES, n * (int64_t)sizeof(REAL));
}

/** fill_scratch for strips with images in lanes; end: of x. */
static void R(fill_lanes)(REAL *scratch, const REAL *x, const REAL *end, const conv_grid *g, const conv_strips *s,
                          const conv_strip *t, int64_t group)
{
    const conv_axis *r = &g->r, *c = &g->c;
    int64_t plane = r->src * c->src, columns = c->pix + c->reach, image_stride = g->groups * g->ci * plane;
    for (int64_t ch = 0; ch < g->ci; ch++)
        for (int64_t slot = 0; slot < r->slots * c->slots; slot++) {
            int64_t base_r = t->row * r->step + r->low + axis_residue(r, slot / c->slots);
            int64_t base_c = c->low + axis_residue(c, slot % c->slots);
            int64_t lo = base_c < 0 ? conv_ceil_to(-base_c, c->step) : 0;
            int64_t hi = conv_min(columns, base_c < c->src ? conv_ceil_to(c->src - base_c, c->step) : 0);
            if (hi <= lo) continue;
            const REAL *from = x + ((t->img * g->groups + group) * g->ci + ch) * plane + base_c + lo * c->step;
            REAL *to = scratch + ch * s->channel + slot * s->plane + lo * LANES;
            for (int64_t q = 0; q < t->rows + r->reach; q++, to += s->line) {
                int64_t at = base_r + q * r->step;
                if (at >= 0 && at < r->src)
                    R(rows_to_lanes)(to, from + at * c->src, image_stride, t->images, hi - lo, c->step, end);
                else if (s->per_image > 1) __builtin_memset(to, 0, (size_t)((hi - lo) * LANES) * sizeof(REAL));
            }
        }
}

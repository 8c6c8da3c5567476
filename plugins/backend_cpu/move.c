/* move.c - cat stack flip roll tile pad: elements of any dtype moved to other places, as bytes
 *
 * Most of these are copies of runs of neighbouring elements; TD_PAR_MIN is taken in bytes times 4 here. */
#include "convert.h"
#include "cpu.h"

enum { ANY = TD_BITS_ALL | TD_BIT(TD_F16) | TD_BIT(TD_BF16), PAR_BYTES = 4 * TD_PAR_MIN };

static int64_t real_axis(int64_t axis, int32_t nd) { return axis < 0 ? axis + nd : axis; }

/** Product of the extents of axes first .. last - 1. */
static int64_t extent_of(const td_view *v, int64_t first, int64_t last)
{
    int64_t n = 1;
    for (int64_t i = first; i < last; i++) n *= v->dim[i];
    return n;
}

/* ---- cat, stack: the pieces of each tensor in front of the axis, one after the other ---- */

/**
 * outer   extents in front of the axis
 * axis    0-based; the elements from it on of a tensor are one piece
 */
static bool join(const td_kargs *a, int64_t outer, int64_t axis)
{
    const td_view *y = a->out[0];
    int64_t size = (int64_t)td_dtype_size(y->dt), row = td_view_numel(y) / outer * size, at = 0;
    for (uint32_t i = 0; i < a->n_in; i++) {
        int64_t piece = extent_of(a->in[i], axis, a->in[i]->nd) * size;
        const char *from = a->in[i]->p;
        char *to = (char *)y->p + at;
        at += piece;
        if (!piece) continue;
#pragma omp parallel for if (outer * piece > PAR_BYTES && outer > 1)
        for (int64_t o = 0; o < outer; o++) memcpy(to + o * row, from + o * piece, (size_t)piece);
    }
    return true;
}

static bool run_cat(const td_kargs *a)
{
    const td_view *y = a->out[0];
    int64_t axis = real_axis(((const td_cat_attr *)a->attr)->axis, y->nd);
    return join(a, extent_of(y, 0, axis), axis);
}

static bool run_stack(const td_kargs *a)
{
    const td_view *y = a->out[0];
    int64_t axis = real_axis(((const td_stack_attr *)a->attr)->axis, y->nd);
    return join(a, extent_of(y, 0, axis), axis);
}

/* ---- flip ---- */

#define FLIP_ROW(type) \
    for (int64_t j = 0; j < n; j++) ((type *)to)[j] = ((const type *)from)[n - 1 - j]

static void flip_row(void *restrict to, const void *restrict from, int64_t n, size_t size)
{
    if (size == 4) FLIP_ROW(uint32_t);
    else if (size == 8) FLIP_ROW(uint64_t);
    else if (size == 2) FLIP_ROW(uint16_t);
    else FLIP_ROW(uint8_t);
}

static bool run_flip(const td_kargs *a)
{
    const td_flip_attr *o = a->attr;
    const td_view *x = a->in[0];
    bool turned[TD_MAX_DIM + 1] = {false};
    for (int64_t i = 0; i < o->axes.n; i++) turned[real_axis(o->axes.v[i], x->nd)] = true;
    for (int32_t i = 0; i < x->nd && !o->axes.n; i++) turned[i] = true; /* no axes: all of them */
    int32_t last = x->nd - 1; /* rows are what the last axis holds, with those before it that stay in order too */
    size_t size = td_dtype_size(x->dt);
    while (last > 0 && !turned[last] && !turned[last - 1]) last--;
    int64_t n = extent_of(x, last < 0 ? 0 : last, x->nd), rows = extent_of(x, 0, last);
#pragma omp parallel for if (rows > 1 && rows * n * (int64_t)size > PAR_BYTES)
    for (int64_t r = 0; r < rows; r++) {
        int64_t from = 0, rest = r, stride = 1;
        for (int32_t i = last - 1; i >= 0; i--) {
            int64_t k = rest % x->dim[i];
            from += (turned[i] ? x->dim[i] - 1 - k : k) * stride;
            stride *= x->dim[i];
            rest /= x->dim[i];
        }
        char *to = (char *)a->out[0]->p + r * n * (int64_t)size;
        const char *f = (const char *)x->p + from * n * (int64_t)size;
        if (last >= 0 && turned[last]) flip_row(to, f, n, size);
        else memcpy(to, f, (size_t)n * size);
    }
    return true;
}

/* ---- roll ---- */

static bool run_roll(const td_kargs *a)
{
    const td_roll_attr *o = a->attr;
    const td_view *x = a->in[0];
    int64_t axis = real_axis(o->axis, x->nd), extent = x->dim[axis], shift = o->shift % extent;
    int64_t outer = extent_of(x, 0, axis), inner = extent_of(x, axis + 1, x->nd) * (int64_t)td_dtype_size(x->dt);
    if (shift < 0) shift += extent;
#pragma omp parallel for if (outer > 1 && outer * extent * inner > PAR_BYTES)
    for (int64_t i = 0; i < outer; i++) {
        const char *from = (const char *)x->p + i * extent * inner;
        char *to = (char *)a->out[0]->p + i * extent * inner;
        memcpy(to, from + (extent - shift) * inner, (size_t)(shift * inner));
        memcpy(to + shift * inner, from, (size_t)((extent - shift) * inner));
    }
    return true;
}

/* ---- tile ---- */

/** Writes axis i and those after it, from x at `from`; returns the end of what it wrote. */
static char *tile_axis(const td_view *x, const td_view *y, const int64_t *repeats, int32_t i, char *to,
                       const char *from)
{
    int32_t lead = y->nd - x->nd; /* leading axes that x lacks */
    size_t size = td_dtype_size(x->dt);
    int64_t extent = i < lead ? 1 : x->dim[i - lead], below = i < lead ? 0 : extent_of(x, i - lead + 1, x->nd);
    char *begin = to;
    if (i == y->nd) {
        memcpy(to, from, size);
        return to + size;
    }
    if (i + 1 == y->nd) {
        memcpy(to, from, (size_t)extent * size);
        to += (size_t)extent * size;
    } else {
        for (int64_t k = 0; k < extent; k++) to = tile_axis(x, y, repeats, i + 1, to, from + k * below * (int64_t)size);
    }
    size_t once = (size_t)(to - begin);
    for (int64_t r = 1; r < repeats[i]; r++, to += once) memcpy(to, begin, once);
    return to;
}

static bool run_tile(const td_kargs *a)
{
    const td_tile_attr *o = a->attr;
    const td_view *x = a->in[0], *y = a->out[0];
    int64_t repeats[TD_MAX_DIM];
    for (int32_t i = 0; i < y->nd; i++) {
        int64_t k = i - (y->nd - o->repeats.n);
        repeats[i] = k < 0 ? 1 : o->repeats.v[k];
    }
    tile_axis(x, y, repeats, 0, y->p, x->p);
    return true;
}

/* ---- pad ---- */

/** n elements of `size` bytes, all like *value. */
static void fill(void *to, const void *value, int64_t n, size_t size)
{
    uint64_t v = 0;
    memcpy(&v, value, size);
    if (size == 4)
        for (int64_t i = 0; i < n; i++) ((uint32_t *)to)[i] = (uint32_t)v;
    else if (size == 8)
        for (int64_t i = 0; i < n; i++) ((uint64_t *)to)[i] = v;
    else if (size == 2)
        for (int64_t i = 0; i < n; i++) ((uint16_t *)to)[i] = (uint16_t)v;
    else memset(to, (int)v, (size_t)n);
}

static bool run_pad(const td_kargs *a)
{
    const td_pad_attr *o = a->attr;
    const td_view *x = a->in[0], *y = a->out[0];
    int64_t before[TD_MAX_DIM] = {0}, size = (int64_t)td_dtype_size(x->dt);
    for (int64_t k = 0; k < o->pads.n; k += 2) before[x->nd - 1 - k / 2] = o->pads.v[k];
    unsigned char value[8];
    cv_store(value, x->dt, o->value);
    int64_t n = x->nd ? x->dim[x->nd - 1] : 1, width = x->nd ? y->dim[x->nd - 1] : 1,
            left = x->nd ? before[x->nd - 1] : 0;
    int64_t rows = extent_of(y, 0, y->nd - 1);
#pragma omp parallel for if (rows > 1 && rows * width * size > PAR_BYTES)
    for (int64_t r = 0; r < rows; r++) {
        int64_t from = 0, rest = r, stride = 1;
        bool inside = true;
        for (int32_t i = x->nd - 2; i >= 0; i--) {
            int64_t k = rest % y->dim[i] - before[i];
            inside &= k >= 0 && k < x->dim[i];
            from += k * stride;
            stride *= x->dim[i];
            rest /= y->dim[i];
        }
        char *to = (char *)y->p + r * width * size;
        if (inside) {
            fill(to, value, left, (size_t)size);
            if (n) memcpy(to + left * size, (const char *)x->p + from * n * size, (size_t)(n * size));
            fill(to + (left + n) * size, value, width - left - n, (size_t)size);
        } else {
            fill(to, value, width, (size_t)size);
        }
    }
    return true;
}

static const td_kernel rows[] = {
    CPU_KERNEL("cat", ANY, 0, run_cat),
    CPU_KERNEL("stack", ANY, 0, run_stack),
    CPU_KERNEL("flip", ANY, 0, run_flip),
    CPU_KERNEL("roll", ANY, TD_K_CHEAP, run_roll),
    CPU_KERNEL("tile", ANY, TD_K_CHEAP, run_tile),
    CPU_KERNEL("pad", ANY, TD_K_CHEAP, run_pad),
};
CPU_TABLE(move, rows)

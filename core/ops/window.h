/* window.h - windows over the last two axes of (N, C, H, W), for convolution and pooling. Pairs are height, width. */
#ifndef TIDE_OPS_WINDOW_H
#define TIDE_OPS_WINDOW_H
#include "common.h"

typedef struct {
    int64_t kernel[2], stride[2], padding[2], dilation[2];
    int64_t extra[2], groups; /* convolution: output_padding                                    */
    int64_t in[2], out[2];    /* pooling: extents of the input and of the result                */
    bool ceil;                /* pooling: whether a last, partial window counts                 */
} tdi_geometry;

enum { TDI_LARGEST_OPTION = 0x7fffffff }; /* so that sums of products fit */

/** An option of one or two integers, none of them less than `least`. */
static inline bool tdi_window_option(const char *op, const char *what, td_ints given, int64_t least, int64_t to[2])
{
    if (given.n < 1) return td_fail("%s: %s: expected one number or two, got none", op, what);
    if (!tdi_pair(op, what, given, least, to)) return false;
    for (int i = 0; i < 2; i++)
        if (to[i] < least || to[i] > TDI_LARGEST_OPTION)
            return td_fail("%s: %s: expected %lld to %d, got %lld", op, what, (long long)least, TDI_LARGEST_OPTION,
                           (long long)to[i]);
    return true;
}

/** Rows (i = 0) or columns from the first to the last that a kernel touches. */
static inline int64_t tdi_window(const tdi_geometry *m, int i) { return m->dilation[i] * (m->kernel[i] - 1) + 1; }

/** How far a window can move in an input of extents `in` with padding; less than 0 where it may hang over the end. */
static inline bool tdi_window_room(const char *op, const tdi_geometry *m, const int64_t in[2], int64_t room[2])
{
    bool fits = true;
    for (int i = 0; i < 2; i++) {
        if (in[i] < 1 || in[i] > INT64_MAX / 4)
            return td_fail_as(TD_ESHAPE, "%s: cannot take windows of an input of %lldx%lld", op, (long long)in[0],
                              (long long)in[1]);
        room[i] = in[i] + 2 * m->padding[i] - tdi_window(m, i);
        fits &= room[i] >= 0 || (m->ceil && room[i] + m->stride[i] > 0);
    }
    return fits ||
           td_fail_as(TD_ESHAPE,
                      "%s: a kernel of %lldx%lld with dilation %lldx%lld is larger than the input of %lldx%lld with "
                      "padding %lldx%lld",
                      op, (long long)m->kernel[0], (long long)m->kernel[1], (long long)m->dilation[0],
                      (long long)m->dilation[1], (long long)in[0], (long long)in[1], (long long)m->padding[0],
                      (long long)m->padding[1]);
}

#endif

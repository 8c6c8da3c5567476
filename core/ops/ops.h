/* ops.h - what the op definitions in this folder share. A row at the end of a file defines tdi_op_<name>:
 *     const td_op tdi_op_softmax = {TD_ROW_softmax, .save_out = 1, .flags = TD_OP_BWD_DIFF, .backward = softmax_backward, ...}; */
#ifndef TIDE_OPS_PRIVATE_H
#define TIDE_OPS_PRIVATE_H
#include "ops_rows.h" /* generated; includes tide/plugin.h */

/** Sums x over the axes along which `like` was broadcast to x's shape, so that the result has like's shape. */
td_tensor *tdi_sum_to(td_tensor *x, const td_tensor *like);

/** The broadcast shape of two views, into out->nd and out->dim; an error that names the op and both shapes if there is none. */
bool tdi_broadcast(const char *op, const td_view *a, const td_view *b, td_view *out);

/** "(2, 3)" for messages; a static ring of buffers per thread holds the last eight. */
const char *tdi_shape_text(const td_view *v);

/** Checks an axis (negative counts from the end) and returns it in 0 .. nd - 1; -1 after an error. A 0-dim tensor has one axis. */
int tdi_axis(const char *op, int64_t axis, const td_view *x);

/** A bit for each axis in the list, all bits for an empty list; false after an error (outside x, or given twice). */
bool tdi_axes_mask(const char *op, td_ints axes, const td_view *x, uint32_t *mask);

/** Fills extents that an INTS option gives once or twice (height, width). false after an error. */
bool tdi_pair(const char *op, const char *what, td_ints given, int64_t dflt, int64_t out[2]);

#endif

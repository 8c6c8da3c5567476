/* dispatch.h - the waist: every computation passes tdi_run. */
#ifndef TIDE_DISPATCH_H
#define TIDE_DISPATCH_H
#include "registry.h"
#include "tensor.h"

/**
 * Runs an op. Infers shapes, picks the kernel, allocates outputs, runs, and records for autograd.
 *
 * in      n_in places of the signature, absent ones NULL
 * into    NULL, or n_out given outputs that the results are written to
 * out     room for n_out results, owned by the current scope (into: filled with the given ones)
 * n_out   in: room; out: how many there are; results beyond the room are dropped
 */
bool tdi_run(tdi_op *op, td_tensor *const *in, uint32_t n_in, const void *attr, td_tensor *const *into, td_tensor **out,
             uint32_t *n_out);

/** Marks of one input place, from the signature. */
enum { TDI_OPTIONAL = 1, TDI_INDEX = 2, TDI_MASK = 4, TDI_SCALAR = 8, TDI_WRITTEN = 16 };
enum { TDI_AS_IS = TDI_INDEX | TDI_MASK | TDI_SCALAR }; /* never cast, no part in promotion */

/** Promotion by PyTorch's table with its three classes: tensor, 0-dim tensor, number. Absent and AS_IS places take no part;
 *  where none is left, the dtype of the first input, or f32. */
td_dtype tdi_promote(const td_view *const *in, const uint8_t *marks, uint32_t n);

/** Copies src to dst, whose shapes are equal and which lie on one device, casting; no recording, no version bump. */
bool tdi_copy_raw(td_tensor *dst, const td_tensor *src);

/** Name of input place i: names of lists get their number, "x[2]". In a per-thread buffer. */
const char *tdi_place_name(const tdi_op *op, uint32_t place, uint32_t n_list);

/** A fresh tensor (owned by the scope) with the value of a plain number, on a device. */
td_tensor *tdi_materialize(const td_tensor *number, td_dtype, td_device *);

#endif

/* tide/types.h - dtypes, views and short lists: what every other header speaks of. */
#ifndef TIDE_TYPES_H
#define TIDE_TYPES_H
#include <assert.h>
#include <math.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#ifdef __cplusplus
extern "C" {
#endif

#define TD_ABI_MAJOR 1 /* a plugin's equals the host's, or it is refused                  */
#define TD_ABI_MINOR 0 /* a plugin's is at most the host's, or it is refused              */
#define TD_ABI_TEXT "1.0"

/** Most dimensions of a tensor, and most entries of a list option. */
enum { TD_MAX_DIM = 8, TD_MAX_LIST = 16 };

/** "none" for an integer, axis or index argument of a td_<op> function whose option may be none. NAN says it for a number. */
#define TD_NONE INT64_MIN

typedef struct td_tensor td_tensor; /* opaque; the current scope owns what a call returns               */
typedef struct td_module td_module; /* one instance of a layer, loss or optimizer: self                 */
typedef struct td_layout td_layout; /* an opaque memory layout: see kernel.h                            */

/** Why a call failed. The sentence that goes with it names what was given and what was expected. */
typedef enum { TD_OK, TD_EINVAL, TD_ESHAPE, TD_EDTYPE, TD_ENOKERNEL, TD_ENOMEM, TD_EDEVICE, TD_EPLUGIN } td_status;

/** X(enum, name in Lua and in messages, bytes of an element) */
#define TD_DTYPES(X)      \
    X(TD_F32, "f32", 4)   \
    X(TD_F64, "f64", 8)   \
    X(TD_F16, "f16", 2)   \
    X(TD_BF16, "bf16", 2) \
    X(TD_I64, "i64", 8)   \
    X(TD_I32, "i32", 4)   \
    X(TD_U8, "u8", 1)     \
    X(TD_BOOL, "bool", 1)

/** Type of a tensor's elements. f32 is the default; f64 is for gradient checks; f16 and bf16 store. */
typedef enum {
#define TD_X(e, name, size) e,
    TD_DTYPES(TD_X)
#undef TD_X
        TD_N_DTYPES
} td_dtype;

/** A short list of integers or numbers, passed by value. n is at most TD_MAX_LIST. */
typedef struct {
    int64_t n, v[TD_MAX_LIST];
} td_ints;
typedef struct {
    int64_t n;
    double v[TD_MAX_LIST];
} td_nums;

/** A list from an array; more than TD_MAX_LIST values are cut, and refused by whoever takes extents. */
static inline td_ints td_dims_n(int64_t n, const int64_t *v)
{
    td_ints d;
    d.n = n < TD_MAX_LIST ? n : TD_MAX_LIST;
    for (int64_t i = 0; i < TD_MAX_LIST; i++) d.v[i] = v && i < d.n ? v[i] : 0;
    return d;
}

/** A list of extents or axes:  td_dims(2, 3) */
#ifdef __cplusplus
}
template <class... I> static inline td_ints td_dims(I... d) { return td_ints{(int64_t)sizeof...(d), {(int64_t)d...}}; }
extern "C" {
#else
#define td_dims(...) ((td_ints){sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t), {__VA_ARGS__}})
#endif

enum {
    TD_V_NUMBER = 1, /* made from a plain number: weakest class in promotion       */
    TD_V_ALIGNED = 2 /* p lies on 64 bytes                                         */
};

/**
 * What a tensor is, without its data's owner. It lives in the tensor and is passed by pointer, so it may grow at its end.
 * Only kernels read through p.  Strides count elements; a broadcast dimension has stride 0.
 */
typedef struct td_view {
    void *p;
    td_dtype dt;
    int32_t nd;
    int64_t dim[TD_MAX_DIM], stride[TD_MAX_DIM];
    const td_layout *layout; /* NULL = strided; else opaque, and stride means nothing      */
    uint64_t layout_arg;
    uint32_t flags, reserved[3];
} td_view;

/** Number of elements: the product of the dims, 1 for a 0-dim view. */
static inline int64_t td_view_numel(const td_view *v)
{
    int64_t n = 1;
    for (int32_t i = 0; i < v->nd; i++) n *= v->dim[i];
    return n;
}

/** Whether the elements lie in row-major order without gaps (dims of extent 1 may have any stride; empty views are dense). */
static inline bool td_view_dense(const td_view *v)
{
    int64_t expect = 1;
    if (v->layout) return false;
    for (int32_t i = v->nd - 1; i >= 0; i--) {
        if (v->dim[i] == 0) return true;
        if (v->dim[i] != 1 && v->stride[i] != expect) return false;
        expect *= v->dim[i];
    }
    return true;
}

/** Bytes of one element. */
static inline size_t td_dtype_size(td_dtype dt)
{
    static const uint8_t size[] = {
#define TD_X(e, name, bytes) bytes,
        TD_DTYPES(TD_X)
#undef TD_X
    };
    return (uint32_t)dt < TD_N_DTYPES ? size[dt] : 0;
}

/** "f32", … or "?" for a value that is no dtype. */
static inline const char *td_dtype_name(td_dtype dt)
{
    static const char *const name[] = {
#define TD_X(e, text, bytes) text,
        TD_DTYPES(TD_X)
#undef TD_X
    };
    return (uint32_t)dt < TD_N_DTYPES ? name[dt] : "?";
}

/** Whether the dtype holds fractions, and so may carry a gradient. */
static inline bool td_dtype_is_float(td_dtype dt) { return dt <= TD_BF16; }

#ifdef __cplusplus
}
#endif
#endif

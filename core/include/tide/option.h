/* tide/option.h - one schema of typed options gives the constructor, its errors, help, docs and the saved form. */
#ifndef TIDE_OPTION_H
#define TIDE_OPTION_H
#include <tide/types.h>
#ifdef __cplusplus
extern "C" {
#endif

/** Type of an option, and of the field that the core fills. */
typedef enum {
    TD_O_INT,           /* int64_t                                                         */
    TD_O_NUM,           /* double                                                          */
    TD_O_BOOL,          /* bool                                                            */
    TD_O_STR,           /* const char *, owned by the core as long as the struct lives     */
    TD_O_ENUM,          /* int32_t: 0-based place in allowed, "a|b|c"                      */
    TD_O_DTYPE,         /* td_dtype                                                        */
    TD_O_AXIS,          /* int64_t: 1-based in Lua, 0-based here; negative is not shifted  */
    TD_O_INDEX,         /* int64_t: as AXIS, but counts elements, classes, …               */
    TD_O_INTS,          /* td_ints; a single number is a list of one                       */
    TD_O_NUMS,          /* td_nums; likewise                                               */
    TD_O_AXES,          /* td_ints, each shifted as AXIS                                   */
    TD_OPT_LIVE = 0x100 /* or-ed to NUM: read by td_scalar, a 0-dim f64 tensor; may change between steps */
} td_otype;

/** One option. dflt and allowed are written as a user writes them: "0.1", "none", NULL = required; ">= 0, < 1". */
typedef struct td_opt {
    const char *name;
    uint32_t type, off, size, has; /* has: 1 + offset of bool has_<name>, 0 = never none        */
    const char *dflt, *allowed, *doc;
} td_opt;

/** A schema: the struct's size and its options, in positional order. All zero = no options. */
typedef struct {
    size_t out_size;
    uint32_t n, stride; /* stride: sizeof(td_opt) as the plugin saw it                     */
    const td_opt *v;
} td_opts;

#define TD_OPT(T, f, type, dflt, allowed, doc)                                                           \
    {                                                                                                    \
#f, (type), (uint32_t)offsetof(T, f), (uint32_t)sizeof(((T *)0)->f), 0, (dflt), (allowed), (doc) \
    }
/** An option that may be none: the struct has `bool has_<f>` beside it, false when none was given. */
#define TD_OPT_MAYBE(T, f, type, dflt, allowed, doc)                                                              \
    {                                                                                                             \
#f, (type), (uint32_t)offsetof(T, f), (uint32_t)sizeof(((T *)0)->f), 1u + (uint32_t)offsetof(T, has_##f), \
            (dflt), (allowed), (doc)                                                                              \
    }
/** How a loss is reduced; places of the ENUM option that every loss has. */
typedef enum { TD_REDUCE_NONE, TD_REDUCE_MEAN, TD_REDUCE_SUM } td_reduction;
#define TD_LOSS_OPTS(T) TD_OPT(T, reduction, TD_O_ENUM, "mean", "none|mean|sum", "how the losses of a batch become one")
#define TD_OPTS(T, arr)                                                                     \
    {                                                                                       \
        sizeof(T), (uint32_t)(sizeof(arr) / sizeof *(arr)), (uint32_t)sizeof(td_opt), (arr) \
    }

/** A conformance case: opts hold the defaults when sample() is called, in has room for every place of the signature. */
typedef struct {
    void *opts;
    td_tensor **in;
    uint32_t n_in; /* in: places there are; out: how many are used (lists)            */
} td_sample;

/** Fills case i (0, 1, …) and returns true; false without an error: there are no more. */
typedef bool td_samples(uint32_t i, td_sample *);

#ifdef __cplusplus
}
#endif
#endif

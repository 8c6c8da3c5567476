/* tide/kernel.h - a kernel: what computes one op on one device for some dtypes. */
#ifndef TIDE_KERNEL_H
#define TIDE_KERNEL_H
#include <tide/types.h>
#ifdef __cplusplus
extern "C" {
#endif

/** Where a kernel's random words start, in device memory, so that replays draw fresh ones. seed_offset[0] is the Philox key,
 *  seed_offset[1] + add the counter of the first four words (ABI rule 12). */
typedef struct {
    const uint64_t *seed_offset;
    uint64_t add;
} td_rng;

/** What a kernel is given. The core makes it and passes it by pointer: it may grow at its end. */
typedef struct td_kargs {
    uint32_t n_in, n_out, n_list;
    td_dtype compute;
    const td_view *const *in, *const *out; /* in[i] is NULL for an absent place                          */
    const void *attr;
    void *plan, *ws; /* ws: 64-byte aligned workspace of ws_size bytes                                   */
    size_t ws_size;
    void *stream, *dev;
    int32_t ordinal;
    td_rng rng;
} td_kargs;

enum {
    TD_K_STRIDED = 1,       /* takes any strides in and out; else inputs and outputs come dense       */
    TD_K_CAPTURABLE = 2,    /* run may be recorded and replayed                                       */
    TD_K_DETERMINISTIC = 4, /* the same bits each time                                                */
    TD_K_ALIAS_OK = 8,      /* an output may be the same view as an input: in-place forms run directly */
    TD_K_LAYOUT = 16,       /* takes the opaque layouts that `layouts` names                          */
    TD_K_POINTWISE = 32,    /* an output's element comes from the inputs' elements at its place, after
                               broadcasting: it may be run on a part of them, so that chains stay in cache */
    TD_K_CHEAP = 64,        /* costs about as much as reading its inputs, as POINTWISE ones do: a captured program
                               may run it twice rather than keep its result for long                        */
    TD_K_OVER_FIRST = 128   /* the last output may be the same view as the first input, unless that is another
                               input as well                                                                */
};

/** bits of td_kernel.dtypes */
#define TD_BIT(dt) (1u << (dt))
#define TD_BITS_FLOAT (TD_BIT(TD_F32) | TD_BIT(TD_F64))
#define TD_BITS_INT (TD_BIT(TD_I64) | TD_BIT(TD_I32) | TD_BIT(TD_U8))
#define TD_BITS_ALL (TD_BITS_FLOAT | TD_BITS_INT | TD_BIT(TD_BOOL))

typedef struct td_kernel {
    size_t size;
    const char *op, *device;           /* "softmax", "cuda"                                                        */
    uint32_t dtypes, flags;            /* dtypes: TD_BIT of each compute dtype                                     */
    int32_t priority;                  /* highest first, then the newest                                           */
    const char *layouts;               /* TD_K_LAYOUT: opaque layouts that it takes, by name                       */
    bool (*accepts)(const td_kargs *); /* NULL = yes; no: the next in the chain    */
    bool (*layout)(const td_kargs *, td_view *const *out);        /* strides or layout of outputs             */
    bool (*plan)(const td_kargs *, void **plan, size_t *ws_size); /* may allocate, compile and measure   */
    void (*plan_free)(void *plan);
    bool (*run)(const td_kargs *); /* enqueue only: no malloc, no sync, no I/O                           */
    /* Computes out[0] once more, the same bits, for about what reading costs: from inputs, and from out[1], out[2] …, which hold what
     * run left there. So a captured program may drop out[0] and have it again later. again_reads says which inputs it needs, a bit
     * each (the others will be NULL), or -1 where such a call cannot be repeated. Both or neither. */
    bool (*again)(const td_kargs *);
    int64_t (*again_reads)(const td_kargs *); /* views only, no data                                    */
} td_kernel;

struct td_layout {
    size_t size;
    const char *name, *device;        /* "onednn.blocked", "cpu"                                         */
    size_t (*bytes)(const td_view *); /* of dims, dtype and layout_arg                                   */
    bool (*to_strided)(const td_kargs *);
    bool (*from_strided)(const td_kargs *); /* in[0] -> out[0]                                           */
};

#ifdef __cplusplus
}
#endif
#endif

/* tide/op.h - an op: a named, differentiable operation, defined once and independent of any device. */
#ifndef TIDE_OP_H
#define TIDE_OP_H
#include <tide/option.h>
#ifdef __cplusplus
extern "C" {
#endif

/*
 * Signatures are names with marks, "x w b?", "p*& g* lr.", "y rstd!":
 *   ?  may be absent: NULL in its place
 *   #  holds indices: 1-based in Lua, 0-based here and in files; keeps its own integer dtype
 *   ~  a mask (or whatever the op says): keeps its own dtype and takes no part in promotion
 *   !  auxiliary output: saved, unseen in Lua
 *   &  an input that the op also writes
 *   *  a list; all lists of a call are equally long; as an output: as many as infer says
 *   .  a 0-dim f64 that is never cast (live scalar, step number)
 * Tensors lie flat in the order of the signature: one place a name, n_list places a list; absent ones are NULL.
 */

/** What backward, decompose and jvp are given. */
typedef struct {
    uint32_t n_in, n_out, n_list; /* places                                                       */
    td_tensor *const *in, *const *out;
    const void *attr;
} td_call;

/**
 * What infer and view are asked, and where they answer. in[i] is NULL for an absent place; in[i]->p means nothing.
 * Preset: n_out from the signature, every out[i] like in[0] with dt = compute (an op without inputs: 0-dim of compute),
 * and compute by the promotion table. infer changes out[i]->dt, nd, dim, n_out and, if need be, compute.
 * At most TD_MAX_OUT outputs.
 */
typedef struct {
    uint32_t n_in, n_list;
    const td_view *const *in;
    const void *attr;
    uint32_t n_out;
    td_view *const *out;
    td_dtype compute;
} td_infer;
enum { TD_MAX_OUT = 64 };

enum {
    TD_OP_PRIM = 1,         /* a primitive: every backend has a kernel; decompose is NULL              */
    TD_OP_BWD_DIFF = 2,     /* backward is made of differentiable ops on inputs and visible outputs    */
    TD_OP_ONCE_DIFF = 4,    /* a second derivative is an error                                         */
    TD_OP_RNG = 8,          /* draws random numbers: kargs.rng is set, one word an element of output 0 */
    TD_OP_HOST_SYNC = 16,   /* reads the device from the host                                          */
    TD_OP_VIEW = 32,        /* outputs share the storage of input 0: view() instead of a kernel        */
    TD_OP_GOUT_NULL = 64,   /* backward takes NULL in gout instead of zeros                            */
    TD_OP_OPTIONAL = 128,   /* neither kernel nor decompose needed: its caller has another way         */
    TD_OP_NO_PROMOTE = 256, /* inputs keep their dtypes; compute is that of input 0                  */
    TD_OP_ROW_MAJOR = 512,  /* outputs are row-major; else they may take the order of input 0's axes    */
    TD_OP_ALIKE = 1024      /* one output, like the inputs where those are f32 or f64 tensors of one shape and dtype, or
                               plain numbers beside one: then infer is not asked                       */
};

typedef struct td_op {
    size_t size;
    const char *name, *doc;     /* "softmax"; a third party's: "myns.swiglu"                             */
    const char *in, *out;       /* signatures                                                            */
    uint64_t save_in, save_out; /* bit i = the i-th name: backward may read its data. Else: a shell  */
    uint32_t flags;
    td_opts attr;
    /** Shapes and dtypes of the outputs. NULL = one output like input 0 with dtype compute. */
    bool (*infer)(td_infer *);
    /** TD_OP_VIEW, after infer: strides of each output, and out[i]->p as an offset from in[0]->p; false without an error:
     *  the core makes input 0 dense and asks again. Strides are never negative. */
    bool (*view)(td_infer *);
    /**
     * gin[i] (places as in) is the gradient of in[i], wanted where bit i of need is set (bit of the *place*; places
     * beyond 63 are always wanted); left NULL it is zero. gout[i] (places as out) holds zeros where no gradient came.
     */
    bool (*backward)(const td_call *, td_tensor *const *gout, td_tensor **gin, uint64_t need);
    bool (*decompose)(const td_call *, td_tensor **out); /* the op in simpler ops; out has n_out places */
    bool (*jvp)(const td_call *, td_tensor *const *tin, td_tensor **tout); /* optional               */
    td_samples *sample;
} td_op;

#ifdef __cplusplus
}
#endif
#endif

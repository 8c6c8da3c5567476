/* trace.h - what one call of a captured function did: the kernels it ran, on which memory, in order. The waist reports to it while
 * ctx->trace is set; capture.c compares two traces and program.c turns one into a list that can be run again.
 *
 * Memory is told apart by *slots*: one for each storage that a kernel read or wrote while it lived. A storage whose last
 * reference goes leaves its slot behind, so the allocator may hand the same block to another slot. */
#ifndef TIDE_TRACE_H
#define TIDE_TRACE_H
#include "optim.h"
#include "plan.h"
#include "tensor.h"

/** Where the memory of a slot comes from when a program runs. */
typedef enum {
    TDI_OUTSIDE,  /* a storage that was there before the call: a parameter, a buffer, an optimizer's state        */
    TDI_ARGUMENT, /* that of an argument of the call: bound anew each time                                        */
    TDI_MADE,     /* filled by the host during the call, tide.tensor {1, 2}: a constant, whose bytes are kept      */
    TDI_PASSING,  /* written by a kernel, and gone when the call ends: its place is planned                        */
    TDI_STAYS     /* written by a kernel, and still there after the call: a result, a .grad                        */
} tdi_slot_kind;

typedef struct {
    tdi_slot_kind kind;
    td_storage
        *st;    /* one reference: OUTSIDE, MADE and STAYS; borrowed: ARGUMENT; PASSING: borrowed until it is freed */
    char *base; /* where offsets of operands start: the storage's memory, or an argument's first element           */
    size_t bytes;
    td_device *dev;
    uint32_t arg; /* ARGUMENT: which                                                                               */
    bool written; /* by a kernel of the trace                                                                      */
    void *copy;   /* MADE: the bytes when a kernel first met it                                                    */
} tdi_slot;

enum { TDI_NO_SLOT = -1, TDI_NUMBER = -2 };

/** One input or output of a kernel. v.p means nothing here. */
typedef struct {
    int32_t slot;   /* or TDI_NO_SLOT: absent; TDI_NUMBER: a plain number, in the kernel's dtype             */
    bool given;     /* an output that may hold on to what was there: it is read, too                         */
    int64_t offset; /* bytes from the slot's base                                                            */
    double number;  /* its bits, up to 8 bytes                                                               */
    td_view v;
} tdi_operand;

/** One step: a kernel, or an optimizer that counts its step and refreshes its live scalars (optimizer != NULL). */
typedef struct {
    tdi_op *op;
    tdi_choice choice; /* pinned                                                                               */
    td_device *dev;
    void *attr;
    uint32_t n_in, n_out, n_list, first; /* first: place of the first operand; inputs, then outputs            */
    td_dtype compute;
    uint64_t random;         /* counter where its random words start, from that of the call                           */
    td_optimizer *optimizer; /* one reference                                                                 */
    uint32_t version;        /* of the optimizer's constant options                                           */
    bool backward;           /* run while the tape was walked                                                 */
    bool again;              /* of a program only: it computes once more what an earlier step did              */
    uint32_t where;          /* place of the script's line in text                                            */
} tdi_step;

/** What the call did to a leaf's .grad, or expected of it. */
typedef struct {
    td_tensor *leaf;   /* one reference                                                                        */
    td_tensor *before; /* what was there when it was first looked at (one reference), or NULL                  */
    td_tensor *after;  /* when the call ended: one reference, or NULL                                          */
    bool replaced;     /* the first thing done was to set it: what was there does not matter                   */
} tdi_leaf;

struct tdi_trace {
    td_context *ctx;
    tdi_slot *slot;
    tdi_operand *operand;
    tdi_step *step;
    tdi_leaf *leaf;
    char *text; /* lines of the script, each ended by 0; the first is empty */
    uint32_t n_slot, n_operand, n_step, n_leaf, n_text, last_text;
    uint32_t cap_slot, cap_operand, cap_step, cap_leaf, cap_text;
    struct {
        td_storage *st;
        uint32_t slot;
    } * map; /* open addressing; st NULL: empty, the trace itself: deleted */
    uint32_t map_n, map_cap;
    uint64_t random[2];    /* of the context when the call began   */
    uint64_t stamp;        /* storages with a lower one were there before */
    uint64_t advance;      /* of the random counter, when the call has ended */
    td_tensor *const *arg; /* borrowed during the call */
    uint32_t n_arg;
    bool failed;     /* a part could not be recorded: out of memory */
    char unfit[200]; /* why the call cannot be replayed; "" where it can */
};

/** The trace that this thread makes, or NULL: for what happens in no context, as when a collector frees tensors. */
extern __thread tdi_trace *tdi_tracing __attribute__((tls_model("initial-exec"), visibility("hidden")));

/** Begins a trace of the calling thread's context. args: tensors whose memory is bound anew at each call. NULL after an error. */
tdi_trace *tdi_trace_begin(td_tensor *const *args, uint32_t n_args);
/** A tensor was given other data, an optimizer other states, a loop another number of threads: recordings are made anew. */
void tdi_data_changed(void);
/** Ends it: slots whose storage still lives STAY, and are kept. The context traces no more. false after an error. */
bool tdi_trace_end(tdi_trace *);
void tdi_trace_free(tdi_trace *);
/** Place of a tensor that lives: its slot, or TDI_NO_SLOT where no kernel met it. */
int32_t tdi_trace_slot_of(const tdi_trace *, const td_tensor *);
/** The same, for a tensor that may have been met by no kernel: it gets a slot. INT32_MIN after an error. */
int32_t tdi_trace_meet(tdi_trace *, const td_tensor *);
static inline const char *tdi_trace_where(const tdi_trace *t, const tdi_step *s) { return t->text + s->where; }

/**
 * Whether two calls did the same: the same kernels on memory that corresponds. why gets a sentence where they did not, with
 * the op and the line.
 */
bool tdi_trace_equal(const tdi_trace *a, const tdi_trace *b, char *why, size_t room);

/* ---- what the waist reports while ctx->trace is set ---- */

/** A kernel is about to run. numbers: the views of a that are plain numbers lie in numbers[0 .. n). */
bool tdi_trace_kernel(td_context *, tdi_op *, const tdi_choice *, const td_kargs *, td_device *, const td_view *numbers,
                      uint32_t n_numbers);
void tdi_trace_freed(tdi_trace *, td_storage *);
/** .grad of a leaf is about to be looked at, or (replaced) set. */
bool tdi_trace_grad(td_tensor *leaf, bool replaced);
/** An optimizer has counted its step. */
bool tdi_trace_optimizer(td_optimizer *);
/** The host wants what a replay could not give it. Always false, after an error that names the line. */
bool tdi_trace_refuse(const char *what);
/** Refuses to read t, unless the host made it during this call. */
bool tdi_trace_read(const td_tensor *t, const char *what);
#endif

/* tide/capture.h - record and replay: the kernels that a function ran are noted, and run again without the function.
 *
 * A front end calls td_capture_call before each call of the function; it says what to do. After two equal calls the core holds the
 * list of kernels (prebound to memory, dead results dropped, buffers reused, element-wise runs tiled), and later calls replay it
 * as long as its guards hold: shapes, strides, dtypes and devices of arguments, the key, training modes, gradient mode,
 * constant options of optimizers, whose tensors the parameters are. Where a guard fails the function runs as usual. */
#ifndef TIDE_CAPTURE_H
#define TIDE_CAPTURE_H
#include <tide/tide.h>
#ifdef __cplusplus
extern "C" {
#endif

typedef struct td_capture td_capture;

/** What the caller has to do now. */
typedef enum {
    TD_CALL_EAGER,   /* run the function; nothing else                                                            */
    TD_CALL_RECORD,  /* run it, free what garbage it left, then td_capture_end, or td_capture_abandon if it failed */
    TD_CALL_REPLAYED /* nothing: it was replayed, and td_capture_result has the results                           */
} td_call_mode;

/** A capture of the calling thread's context, which uses it and frees it. NULL after an error. */
TD_API td_capture *td_capture_new(void);
TD_API void td_capture_free(td_capture *);

/**
 * Begins a call, and replays it if it can.
 *
 * args   n tensors with memory, in place until the results have been taken. Their data are bound anew at each call; shapes, strides, dtypes and devices are guards.
 * key    bytes that stand for all else that the function is given: another key is another recording
 * mode   what to do now
 * return false after an error: of a kernel that ran, or an argument that cannot be captured (one that was recorded for gradients)
 */
TD_API bool td_capture_call(td_capture *, td_tensor *const *args, uint32_t n, const void *key, size_t key_size,
                            td_call_mode *mode);
/**
 * Ends a call that was recorded. Tensors that are alive now, other than results, are taken for ones that stay.
 *
 * results  n tensors; key: bytes that stand for all else that the function gave
 * return   false after an error: a result that a replay could not give, or in check mode a difference
 */
TD_API bool td_capture_end(td_capture *, td_tensor *const *results, uint32_t n, const void *key, size_t key_size);
/** Ends a recording whose function failed. Works with a pending error. */
TD_API void td_capture_abandon(td_capture *);
/** After a replay: how many tensors the function gave, each of them (owned by the scope), and the key of its other results. */
TD_API uint32_t td_capture_results(const td_capture *);
TD_API td_tensor *td_capture_result(td_capture *, uint32_t i);
TD_API const void *td_capture_result_key(const td_capture *, size_t *size);
/** Whether a captured call is being recorded in the calling thread's context. Works with a pending error. */
TD_API bool td_capture_recording(void);
/** Check mode (TIDE_CAPTURE=check): each call that could be replayed is, and then runs as usual from the same state; an error
 *  names op and line of the first difference. */
TD_API void td_capture_check(td_capture *, bool on);
/** Whether recordings made from now on may run cheap steps twice rather than keep their results for long: less memory for a few
 *  percent more work, the same bits. They do, unless told otherwise. */
TD_API void td_capture_recompute(td_capture *, bool on);
/** Forgets all recordings. */
TD_API void td_capture_reset(td_capture *);

typedef struct {
    uint64_t calls, replays, recordings; /* so far                                                            */
    uint32_t programs;                   /* held now                                                          */
    uint32_t kernels, dropped; /* of the last one made: run each time; left out, for nobody saw what they wrote */
    uint32_t constant, tiled;  /* run once, when it was made; run tile by tile                            */
    uint64_t buffer_bytes, eager_bytes; /* of its passing results: planned, and without reuse                */
    const char *why;                    /* why the last call was not replayed; "" when it was                */
    uint32_t recomputed;                /* steps that run a second time, so that their results need not be kept    */
    uint64_t saved_bytes;               /* how many buffer_bytes would be more without them                        */
} td_capture_info;
TD_API void td_capture_inform(const td_capture *, td_capture_info *);

/** Kernel i of the program that was used last, "relu f32 (64, 256) -> (64, 256)  at train.lua:12"; false (not an error) past the last. */
TD_API bool td_capture_kernel(const td_capture *, uint32_t i, char *to, size_t room);

/** Called by front ends when a module of theirs, told apart by id, enters (on) or leaves training mode: a guard. */
TD_API void td_mode_changed(uint64_t id);

#ifdef __cplusplus
}
#endif
#endif

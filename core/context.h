/* context.h - what belongs to one Lua state or C caller: scope, error, gradient mode, default device, random state. */
#ifndef TIDE_CONTEXT_H
#define TIDE_CONTEXT_H
#include <tide/tide.h>

typedef struct td_device td_device; /* device.h   */
typedef struct tdi_plans tdi_plans; /* plan.h     */
typedef struct tdi_profile tdi_profile;
typedef struct tdi_trace tdi_trace; /* trace.h    */

struct td_context {
    td_status err; /* TD_OK: none pending                                          */
    bool grad, anomaly;
    bool deaf;          /* interruptions are for other contexts                         */
    bool decompose;     /* run decompose instead of kernels where an op has one         */
    td_device *device;  /* default; NULL until first asked for: then "cpu"              */
    uint64_t random[2]; /* Philox key, counter of the next four words                   */
    td_tensor **own;    /* stack of tensors that scopes own, one reference each         */
    uint32_t own_n, own_cap;
    uint32_t *mark; /* own_n at each scope_push                                     */
    uint32_t mark_n, mark_cap;
    tdi_trace *trace;                     /* of the captured call that is being recorded, or NULL         */
    tdi_plans *plans;                     /* cache of kernels and plans                                   */
    uint32_t walks;                       /* of the tape, that are under way: what runs now is backward           */
    tdi_profile *profile;                 /* of td_profile_start, or NULL                                  */
    uint64_t owner;                       /* thread that is in it, 0 = none                               */
    uint32_t depth;                       /* enters of that thread                                        */
    uint32_t recursion;                   /* nesting of decompose and backward, bounded                   */
    void (*where)(char *to, size_t room); /* the front end's: where the script is             */
    void (*collect)(void *arg);           /* the front end's: frees garbage; NULL = none      */
    void *collect_arg;
    bool collecting;
    char msg[1024];  /* pending or last error                                         */
    uint32_t text_n; /* tdi_describe's buffers; here because TLS of a dlopened library is scarce */
    char text[8][224];
};

/** The calling thread's context, made at its first call. Never NULL (aborts only if not even a context can be had). */
td_context *tdi_ctx_slow(void);
extern __thread td_context *tdi_ctx_current __attribute__((tls_model("initial-exec"), visibility("hidden")));
static inline td_context *tdi_ctx(void)
{
    td_context *c = tdi_ctx_current;
    return __builtin_expect(c != NULL, 1) ? c : tdi_ctx_slow();
}
static inline bool tdi_failed(void) { return tdi_ctx()->err != TD_OK; }

/** host.fail: the first failure wins; its sentence is cut at 1023 bytes, at the end of a character. Always NULL. */
td_tensor *tdi_fail(td_status, const char *file, int line, const char *fmt, ...) __attribute__((format(printf, 4, 5)));
/** host.error: status of the pending error, or TD_OK. */
td_status tdi_error(void);
/** Begins the pending message with more context: "in Conv2d: …". Does nothing without a pending error. */
void tdi_error_prefix(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/** Gives one reference to the innermost scope; returns t. false path: when the stack cannot grow, t is released, error, NULL. */
td_tensor *tdi_own(td_context *, td_tensor *t);
void tdi_scope_push(void);
/** Releases what the innermost scope owns, but for to_caller, which moves out. Works with a pending error (then returns NULL). */
td_tensor *tdi_scope_pop(td_tensor *to_caller);
/** The same for several results. */
void tdi_scope_pop_many(td_tensor *const *to_caller, uint32_t n);

/** Where the script is, as the front end says; an empty string where it says nothing. */
void tdi_where(char *to, size_t room);

#endif

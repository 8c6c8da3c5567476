/* tide/tide.h - for programs that embed Tide, the Lua binding among them: what libtide exports beside the host table.
 * Plugins do not include this. A program defines  const td_host *TD;  sets it to td_host_get(), and then uses the td_* inlines
 * of tide/plugin.h as plugins do. Every function acts on the calling thread's context; unless it says otherwise, it does nothing
 * and returns NULL, false or 0 while an error is pending. */
#ifndef TIDE_TIDE_H
#define TIDE_TIDE_H
#include <tide/plugin.h>
#ifdef __cplusplus
extern "C" {
#endif
#define TD_API __attribute__((visibility("default")))
#define TD_VERSION "0.1.0"

/** The table through which plugins, programs and the core itself reach the core. Constant; never fails. */
TD_API const td_host *td_host_get(void);

/* ---- contexts: default device, gradient mode, random state, scope, error ---- */

typedef struct td_context td_context;
/** A new context: device "cpu", gradients on, a random seed from the system. NULL when out of memory. */
TD_API td_context *td_context_new(void);
/** Frees a context that no thread is in, and all that its scopes own. */
TD_API void td_context_free(td_context *);
/**
 * Makes ctx current on this thread and puts the one before (or NULL) in *before. false, with an error in no context, when another
 * thread is in it. A thread that never enters one gets a context of its own at its first call.
 */
TD_API bool td_context_enter(td_context *ctx, td_context **before);
/** Ends the stay that the matching enter began. */
TD_API void td_context_leave(td_context *before);
/** Enters and opens a scope, for front ends that do both at every call. */
TD_API bool td_stay_begin(td_context *ctx, td_context **before);
/** Closes the scope and leaves. */
TD_API void td_stay_end(td_context *before);
/** One more reference to t for the caller, who releases it; where the current scope made t last, it is the scope's own. */
TD_API td_tensor *td_take(td_tensor *t);

/* ---- errors ---- */

/** Clears the pending error. Returns its status (TD_OK: none) and, where msg is not NULL, its sentence, valid until the next error. */
TD_API td_status td_error_take(const char **msg);

/* ---- tensors ---- */

/** A tensor on a named device (NULL: the default one), elements undefined. */
TD_API td_tensor *td_tensor_new(td_dtype, td_ints shape, const char *device);
/** All elements, row-major, in the tensor's dtype, to host memory of td_numel * size bytes. Waits for the device. */
TD_API bool td_tensor_read(td_tensor *, void *to);
/** A tensor over memory that the caller owns and that the CPU reads; done(arg) is called when no tensor uses it any more. */
TD_API td_tensor *td_tensor_wrap(td_dtype, td_ints shape, void *p, size_t bytes, void (*done)(void *arg), void *arg);
/** Address of element 0 where the host may read and write it directly (CPU), else NULL without an error. */
TD_API void *td_tensor_host(td_tensor *);
/** "cpu", "cuda:0". Never NULL. */
TD_API const char *td_tensor_device(const td_tensor *);
/** x on another device, or x itself where it is there already. Differentiable. */
TD_API td_tensor *td_tensor_to(td_tensor *, const char *device);
/** x itself where it is dense, else a dense copy. Differentiable. */
TD_API td_tensor *td_tensor_dense(td_tensor *);
/** The same data without history: shares the storage, needs no gradient. */
TD_API td_tensor *td_tensor_detach(td_tensor *);
/** Copies src into dst's memory (broadcast, cast, from any device), in place: recorded like any in-place op. Returns dst. */
TD_API td_tensor *td_tensor_assign(td_tensor *dst, td_tensor *src);
/** Makes t, in all its handles, a tensor of src's data: how a module moves to a device or dtype and keeps its parameters' identity. */
TD_API bool td_tensor_set_data(td_tensor *t, td_tensor *src);
TD_API bool td_tensor_same_storage(const td_tensor *, const td_tensor *);
/** How often the storage was written since it was made. */
TD_API uint32_t td_tensor_version(const td_tensor *);

/* ---- autograd ---- */

TD_API bool td_grad_enabled(void);
/** Sets gradient mode of the context; returns the mode before. Works with a pending error too. */
TD_API bool td_grad_enable(bool on);
TD_API bool td_needs_grad(const td_tensor *);
TD_API bool td_is_leaf(const td_tensor *);
/** Of a leaf of float dtype. */
TD_API bool td_require_grad(td_tensor *, bool on);
/** Whether .grad is filled for a result that is no leaf. */
TD_API bool td_retain_grad(td_tensor *);
/** The accumulated gradient, or NULL where there is none (not an error). Borrowed from t: keep it to hold it. */
TD_API td_tensor *td_grad_of(const td_tensor *);
/** Sets or (NULL) clears the gradient. Shape and device must match. */
TD_API bool td_set_grad(td_tensor *, td_tensor *grad);
enum { TD_RETAIN_GRAPH = 1, TD_CREATE_GRAPH = 2, TD_ALLOW_UNUSED = 4 };
/** Adds the gradient of y (weighted by seed; NULL: 1, for one element) to .grad of every leaf. */
TD_API bool td_backward(td_tensor *y, td_tensor *seed, uint32_t flags);
/** Gradients of outputs for inputs, without touching .grad. seeds may be NULL or hold NULLs. grads[i] is NULL where unused. */
TD_API bool td_grad(td_tensor *const *outputs, td_tensor *const *seeds, uint32_t n_out, td_tensor *const *inputs,
                    uint32_t n_in, uint32_t flags, td_tensor **grads);
/** Anomaly mode: the first op that makes a NaN, forward or backward, is an error that names it. Returns the mode before. */
TD_API bool td_anomaly_enable(bool on);
/** Whether ops run by decompose instead of their kernels, where they have one: the reference that kernels are tested against.
 *  Returns the mode before. */
TD_API bool td_decompose_enable(bool on);
/** Name of the op that made t, or NULL (not an error). */
TD_API const char *td_made_by(const td_tensor *);
/** Called at each recorded op in anomaly mode to fill a short text that says where the script is; NULL = none. */
TD_API void td_set_where(void (*where)(char *to, size_t room));

/* ---- values and options: what a front end gives for a schema ---- */

typedef enum { TD_VAL_NIL, TD_VAL_BOOL, TD_VAL_INT, TD_VAL_NUM, TD_VAL_STR, TD_VAL_LIST, TD_VAL_OTHER } td_vtype;
/** One value. A list borrows n values; a string is borrowed; OTHER borrows a description for messages ("a table", "a Tensor"). */
typedef struct td_value {
    td_vtype type;
    union {
        bool b;
        int64_t i;
        double d;
        const char *s;
        struct {
            const struct td_value *v;
            uint32_t n;
        } list;
    } as;
} td_value;
typedef struct {
    const char *name;
    td_value value;
} td_named;
/** What a constructor was given: positional values, then named ones. NIL positional = not given. */
typedef struct {
    const td_value *pos;
    uint32_t n_pos;
    const td_named *named;
    uint32_t n_named;
} td_args;
/**
 * Fills out (schema->out_size bytes) by the schema: defaults, then what was given; checks types and bounds, shifts 1-based AXIS,
 * AXES and INDEX values. who begins the message: "Conv2d". Strings are copied and freed by td_options_clear.
 */
TD_API bool td_options_fill(const td_opts *schema, const char *who, const td_args *given, void *out);
/** One option by the same rules. */
TD_API bool td_option_set(const td_opts *schema, const char *who, uint32_t option, const td_value *given, void *out);
/** The option as a user would give it (1-based again). The value borrows from out and from a per-thread buffer until the next call. */
TD_API bool td_option_get(const td_opts *schema, uint32_t option, const void *out, td_value *value);
TD_API void td_options_clear(const td_opts *schema, void *out);
/** Writes how a constructor is called, "Linear(in_features, out_features, bias = true)", to a buffer; returns what strlen would be. */
TD_API size_t td_options_usage(const td_opts *schema, const char *who, char *to, size_t room);

/* ---- registry ---- */

TD_API uint32_t td_op_count(void);
/** Op by id, or NULL. The table is the host's copy and lives for ever. */
TD_API const td_op *td_op_get(uint32_t id);
/** Op by name, loading the plugin that provides it; NULL (not an error) where there is none. */
TD_API const td_op *td_op_find(const char *name, uint32_t *id);
TD_API const td_layer *td_layer_find(const char *name); /* layers and losses; likewise               */
TD_API const td_optim *td_optim_find(const char *name);
/** Every provided name of a kind ("layer", "loss", "optim", "op", "kernel", "backend"), loaded or only announced. */
TD_API void td_each_provided(const char *kind, void (*see)(void *arg, const char *name, const char *plugin), void *arg);
/** One plugin that was found: state is "loaded", "found" or "refused", why says why it was refused. */
typedef struct {
    const char *path, *name, *version, *licence, *provides, *state, *why;
} td_plugin_info;
TD_API void td_each_plugin(void (*see)(void *arg, const td_plugin_info *), void *arg);
/** Directories on the search path, in order. */
TD_API void td_each_plugin_dir(void (*see)(void *arg, const char *dir), void *arg);
/** Loads one plugin file now. Loading the same file twice is fine. */
TD_API bool td_plugin_load(const char *path);
/** Whether a kernel exists for op on a device kind ("cpu") and dtype, without decompose. */
TD_API bool td_has_kernel(uint32_t op, const char *device_kind, td_dtype);

/**
 * Conformance case i of an op, layer or loss. opts has room for options->out_size bytes and gets the case's options, whose strings
 * are borrowed (no td_options_clear); in has room for *n_in places, and *n_in becomes how many there are.
 *
 * return  false without an error when there are no more cases
 */
TD_API bool td_sample_case(const td_opts *options, const char *who, td_samples *sample, uint32_t i, void *opts,
                           td_tensor **in, uint32_t *n_in);

/* ---- modules ---- */

TD_API td_module *td_module_new(const td_layer *, const td_args *given);
/** Another owner; td_module_release gives one up. */
TD_API td_module *td_module_keep(td_module *);
TD_API void td_module_release(td_module *);
/** Runs forward. out has room for *n_out; *n_out becomes the count. */
TD_API bool td_module_forward(td_module *, td_tensor *const *in, uint32_t n_in, td_tensor **out, uint32_t *n_out);
/** Whether `then` is an activation and m a layer that may apply it itself. */
TD_API bool td_module_can_chain(const td_module *m, const td_module *then);
/** m and then `then` on x as one op. *y stays NULL, without an error, where they do not go together: then run them in turn. */
TD_API bool td_module_forward_act(td_module *m, td_module *then, td_tensor *x, td_tensor **y);
TD_API void td_module_train(td_module *, bool on);
TD_API const td_layer *td_module_layer(const td_module *);
TD_API const void *td_module_options(const td_module *);
/** Parameter or buffer i, names of children as "child.weight"; NULL (not an error) past the last. Borrowed from the module. */
TD_API td_tensor *td_module_tensor(const td_module *, uint32_t i, const char **name, bool *is_buffer);
/** Replaces a parameter or buffer by another tensor of the same shape (weight sharing). */
TD_API bool td_module_set_tensor(td_module *, const char *name, td_tensor *);

/* ---- optimizers: one object is one parameter group ---- */

typedef struct td_optimizer td_optimizer;
TD_API td_optimizer *td_optimizer_new(const td_optim *, td_tensor *const *params, uint32_t n, const td_args *given);
TD_API void td_optimizer_free(td_optimizer *);
/** One step over all parameters that have a gradient, without recording. */
TD_API bool td_optimizer_step(td_optimizer *);
TD_API void td_optimizer_zero_grad(td_optimizer *);
/** Options, live or constant, by name; as td_option_set and td_option_get. */
TD_API bool td_optimizer_set(td_optimizer *, const char *option, const td_value *);
TD_API bool td_optimizer_get(td_optimizer *, const char *option, td_value *);
TD_API const td_optim *td_optimizer_kind(const td_optimizer *);
TD_API td_tensor *td_optimizer_param(const td_optimizer *, uint32_t i);
/** State tensor k of parameter i ("m", "v", …) and its name; NULL (not an error) past the last. Made at the first step or set. */
TD_API td_tensor *td_optimizer_state(const td_optimizer *, uint32_t i, uint32_t k, const char **name);
TD_API bool td_optimizer_set_state(td_optimizer *, uint32_t i, const char *name, td_tensor *);
/** Steps taken so far. */
TD_API int64_t td_optimizer_steps(const td_optimizer *);
TD_API void td_optimizer_set_steps(td_optimizer *, int64_t);

/* ---- devices and memory ---- */

/** Default device of the context, "cpu" at first. */
TD_API bool td_device_set_default(const char *name);
TD_API const char *td_device_default(void);
/** Every device of every backend that is found; why is NULL, or why the backend has none here. */
TD_API void td_each_device(void (*see)(void *arg, const char *device, const td_props *, const char *why), void *arg);
TD_API bool td_synchronize(const char *device);
/** Bytes in tensors now, at most since the last reset, and taken from the backend (cache included); backend allocations so far. */
typedef struct {
    uint64_t current, peak, reserved, allocs;
} td_memory_info;
TD_API bool td_memory(const char *device, td_memory_info *);
TD_API void td_memory_reset_peak(void);
TD_API void td_empty_cache(void);
/** Called when an allocation has failed, before it is tried again: a front end collects garbage here. */
TD_API void td_set_collect(void (*collect)(void *arg), void *arg);
/** Threads of parallel loops; n < 1: only ask. Returns the number. */
TD_API int td_threads(int n);

/* ---- profiling ---- */

/** What one op took, forward or backward, between td_profile_start and td_profile_stop. Passed by pointer: may grow. */
typedef struct {
    const char *op; /* "matmul"; "(the tape)": backward's own work between ops                     */
    bool backward;  /* called while the tape was walked                                            */
    uint64_t calls;
    double time, kernel; /* seconds, without ops that it called in turn; of these, in kernels           */
    uint64_t bytes;      /* of tensors that its kernels read and wrote                                  */
    double flops;        /* of its kernels, where they are known by the shapes; else 0                  */
} td_profile_row;
/** Seconds of it all, those outside ops and walks of the tape, and events for which the trace had no room. */
typedef struct {
    double total, outside;
    uint64_t lost;
} td_profile_total;
/** Notes every op of the context from now on; trace: single calls too. Kernels of asynchronous devices are waited for one by one. */
TD_API bool td_profile_start(bool trace);
/** Ends it. Writes the trace, as Chrome and Perfetto read it, to trace_path (NULL: none); shows each row, the slowest first. */
TD_API bool td_profile_stop(const char *trace_path, void (*see)(void *arg, const td_profile_row *), void *arg,
                            td_profile_total *);

/* ---- random numbers ---- */

TD_API void td_manual_seed(uint64_t seed);
/** Key and offset of the context's stream, for checkpoints. */
TD_API void td_random_state(uint64_t state[2]);
TD_API void td_random_set_state(const uint64_t state[2]);
/** A host-side draw from the same stream: low .. high, both included. */
TD_API int64_t td_random_int(int64_t low, int64_t high);
/** A host-side draw in [0, 1), 53 bits. */
TD_API double td_random_uniform(void);

/* ---- interruption: safe to call from a signal handler ---- */

/** The next op of any context fails with "interrupted", once. */
TD_API void td_interrupt(void);
/** Whether an interruption waits; clears it. */
TD_API bool td_interrupted(void);
/** Whether ops of the current context leave interruptions to those of other contexts: for one that a worker thread is in. */
TD_API void td_interrupt_ignore(bool on);

#ifdef __cplusplus
}
#endif
#endif

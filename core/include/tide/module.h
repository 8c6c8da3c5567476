/* tide/module.h - layers, losses and optimizers: portable C over ops; no device code, no backward to write. */
#ifndef TIDE_MODULE_H
#define TIDE_MODULE_H
#include <tide/option.h>
#ifdef __cplusplus
extern "C" {
#endif

enum { TD_LAYER, TD_LOSS };

/** Activations that a layer in front may apply itself, as part of its own op; the order is that of options `activation`. */
typedef enum { TD_ACT_NONE, TD_ACT_RELU, TD_ACT_TANH, TD_ACT_SIGMOID, TD_ACT_GELU, TD_ACT_GELU_TANH } td_activation;

/** A layer or a loss. Exactly one of forward1 and forward is set. */
typedef struct td_layer {
    size_t size;
    uint32_t kind, reserved; /* TD_LAYER or TD_LOSS                                                      */
    const char *name, *doc;
    td_opts opts;
    const char *in, *out; /* signatures with ? # ~ and, in `in`, *; NULL = "x" and "y"                */
    bool (*init)(td_module *self, const void *opts);       /* declares parameters, buffers, children; NULL = none */
    td_tensor *(*forward1)(td_module *self, td_tensor *x); /* one in, one out; or                        */
    bool (*forward)(td_module *self, td_tensor *const *in, uint32_t n_in, td_tensor **out);
    td_samples *sample;
    void (*drop)(td_module *self);             /* only for memory that the plugin itself got                         */
    td_activation (*acts_as)(td_module *self); /* the activation that this layer is; NULL = none          */
    td_tensor *(*forward_act)(td_module *self, td_tensor *x,
                              td_activation act); /* forward1 and then act, as one op: for
                          chains of layers. NULL without an error: not with this act or this x. NULL = never */
} td_layer;

/** An optimizer. step() updates one parameter by in-place ops, without recording. */
typedef struct td_optim {
    size_t size;
    const char *name, *doc;
    td_opts opts;
    const char *state; /* "m v vmax?amsgrad": made (zeros like p), saved and moved by the core; "mu." = 0-dim f64;
                          "buf?momentum": only where that option is not zero, false or none              */
    bool (*step)(td_module *self, td_tensor *p, td_tensor *g, td_tensor *const *state);
    const char *fused; /* op and signature "adam_step p*& g* m*& v*& step. lr."; step() is its reference. The op's
                          attributes are the options of the same name; betaK is element K of an option betas;
                          a word name=value in this text gives a constant                             */
} td_optim;

#ifdef __cplusplus
}
#endif
#endif

/* optim.h - the optimizer object: one parameter group, its states, its live scalars, and the fused call where there is one. */
#ifndef TIDE_OPTIM_H
#define TIDE_OPTIM_H
#include "module.h"

/** One name of td_optim.state, "vmax?amsgrad", "mu." */
typedef struct {
    char name[64];
    bool scalar;    /* 0-dim f64                                                        */
    int32_t option; /* made only where this option is not zero, false or none; -1: ever */
} tdi_state_spec;

/** The live options and the step number on one device: 0-dim f64 tensors, written when the value has changed. */
typedef struct tdi_live {
    struct tdi_live *next;
    td_device *dev;
    td_tensor **t; /* by place of the option; the last one is "step"                   */
    double *value;
} tdi_live;

/** Where the fused op takes one name of its signature from. */
typedef enum { TDI_FROM_PARAM, TDI_FROM_GRAD, TDI_FROM_STATE, TDI_FROM_LIVE } tdi_source;

struct td_optimizer {
    td_module self; /* first: what step() is given                                      */
    const tdi_optim *kind;
    uint32_t n, n_state;
    td_tensor **param; /* n, one reference each                                            */
    td_tensor **state; /* n * n_state, NULL where not made                                 */
    tdi_state_spec spec[TDI_MAX_NAMES];
    bool active[TDI_MAX_NAMES];
    int64_t steps;
    uint32_t version; /* changes of constant options: what was captured with other ones is captured anew  */
    tdi_live *live;
    td_device *dev; /* of the parameter that is being stepped                           */

    tdi_op *fused; /* NULL: none                                                       */
    tdi_sig fused_sig;
    tdi_source from[TDI_MAX_NAMES];
    uint32_t place[TDI_MAX_NAMES]; /* of the state, or of the live option                   */
    void *attr;                    /* the fused op's, from the options                                 */
    bool attr_stale;
    td_tensor **flat;    /* room for its inputs                                              */
    uint32_t *with_grad; /* n: those that have a gradient                                   */
    td_tensor **grad;    /* n: theirs                                                        */
};

/** Another owner; td_optimizer_free gives one up. */
td_optimizer *tdi_optimizer_keep(td_optimizer *);
/** Writes what has changed of the live scalars that were asked for so far, on all devices. */
bool tdi_live_refresh(td_optimizer *);
/** Reads td_optim.fused and prepares the call; true without one too. */
bool tdi_fused_prepare(td_optimizer *);
/** One step of the parameters with_grad[0 .. n_grad) by the fused op. *done is false where it does not apply. */
bool tdi_fused_step(td_optimizer *, uint32_t n_grad, bool *done);
/** Place of a live option or of "step" among the scalars, or -1. */
int32_t tdi_live_place(const td_optimizer *, const char *name);
td_tensor *tdi_live_scalar(td_optimizer *, td_device *, uint32_t place);
void tdi_live_free(td_optimizer *);
void tdi_fused_free(td_optimizer *);

#endif

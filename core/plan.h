/* plan.h - which kernel runs, and what it prepared: asked once per shapes, strides, dtypes, attributes and device, then cached. */
#ifndef TIDE_PLAN_H
#define TIDE_PLAN_H
#include "registry.h"

typedef struct {
    const td_kernel *kernel; /* NULL: none says yes                                  */
    void *plan;
    size_t ws_size;
    void *entry; /* of the cache, which holds the plan: NULL where there is none */
} tdi_choice;

/**
 * The best kernel of op on dev for the question q (views as the caller has them; p unused).
 *
 * return  false after an error that a hook of the kernel raised; with no kernel, true and choice->kernel NULL
 */
bool tdi_choose(td_context *, tdi_op *, td_device *, const td_kargs *q, tdi_choice *choice);
/** Holds the plan of a choice until tdi_plan_unpin, though the cache may drop it meanwhile. */
void tdi_plan_pin(const tdi_choice *);
void tdi_plan_unpin(const tdi_choice *);
void tdi_plans_free(tdi_plans *);

/** Rows of two views that need not be compared: whether attributes of one schema are equal, and a hash of them. */
bool tdi_attr_equal(const td_opts *, const void *a, const void *b);
/** A copy of an attribute struct, strings included, or NULL (no options, or out of memory after an error). */
void *tdi_attr_copy(const td_opts *, const void *attr);
void tdi_attr_free(const td_opts *, void *copy);

#endif

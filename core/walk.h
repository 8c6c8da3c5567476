/* walk.h - one walk of the tape: the nodes it has met, their gradients so far, and which comes next. backward.c walks, walk.c holds
 * the nodes, node_backward.c runs one of them. */
#ifndef TIDE_WALK_H
#define TIDE_WALK_H
#include "autograd.h"

/* A node that the walk has met. */
typedef struct {
    td_node *node;
    td_tensor *only;  /* its gradient so far, where it has one output */
    td_tensor **many; /* n_out of them, where it has more: a block    */
    bool met;         /* a gradient has come                          */
    bool wanted;      /* leads to an input that was asked for         */
} tdi_visit;

/* A target of td_grad: a node's output or a leaf. */
typedef struct {
    td_node *node;
    td_tensor *leaf, *grad;
    uint32_t index;
} tdi_target;

enum { TDI_FEW_NODES = 32 }; /* a walk of so few needs no memory of its own */

typedef struct {
    tdi_visit *v;
    uint32_t n, cap;
    uint32_t *slot; /* open addressing: node -> 1 + place in v */
    uint32_t slots; /* a power of two                          */
    uint32_t *heap; /* places in v, greatest seq first         */
    uint32_t heap_n, heap_cap;
    tdi_visit few_v[TDI_FEW_NODES];
    uint32_t few_slot[2 * TDI_FEW_NODES], few_heap[TDI_FEW_NODES];
    tdi_target *targets; /* NULL: gradients go to all leaves        */
    uint32_t n_targets;
    bool create, retain;
    bool stop; /* do not look behind the targets          */
} tdi_walk;

enum { TDI_STOP_AT_INPUTS = 1 << 16 }; /* flag of td_grad, for partial derivatives of one op */

static inline bool tdi_walk_no_memory(void) { return td_fail_as(TD_ENOMEM, "backward: out of memory"); }

/** Makes all of a walk but its modes. */
void tdi_walk_begin(tdi_walk *);
void tdi_walk_free(tdi_walk *);
/** Where a node's place among the visits is noted: 1 + place, 0 where it was not met. */
uint32_t *tdi_walk_slot(const tdi_walk *, const td_node *);
/** Place of the node's visit, made where it is new; UINT32_MAX after an error. */
uint32_t tdi_visit_of(tdi_walk *, td_node *, bool *fresh);
/** A node's turn comes when those that were recorded later have had theirs. */
bool tdi_walk_push(tdi_walk *, uint32_t place);
uint32_t tdi_walk_pop(tdi_walk *);
/** The n_out gradients of a node that was met. */
static inline td_tensor **tdi_gout_of(tdi_visit *v) { return v->many ? v->many : &v->only; }
bool tdi_make_gout(tdi_visit *);
void tdi_free_gout(tdi_visit *);

/* ---- node_backward.c ---- */

enum { TDI_FEW_PLACES = 24 };

typedef struct {
    td_tensor **in, **out, **gout, **gin, *few[TDI_FEW_PLACES];
} tdi_frame;

/** Places for a node's inputs, outputs and their gradients. Free f->in where it is not f->few. */
bool tdi_frame_new(tdi_frame *, const td_node *);
/** What was saved, and the gradients of outputs. */
bool tdi_frame_fill(tdi_walk *, tdi_visit *, tdi_frame *);
/** Gradients of the inputs in `need` into f->gin, owned by the scope. */
bool tdi_node_backward(tdi_walk *, const td_node *, tdi_frame *, uint64_t need);

#endif

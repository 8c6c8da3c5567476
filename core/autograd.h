/* autograd.h - the tape. A node is one recorded op; edges lead to what made its inputs. */
#ifndef TIDE_AUTOGRAD_H
#define TIDE_AUTOGRAD_H
#include "registry.h"
#include "tensor.h"

/** Where the gradient of one input place goes: a node's output, or a leaf's .grad. Both NULL: nowhere. */
typedef struct {
    td_node *node;   /* one reference, or NULL                                                */
    td_tensor *leaf; /* one reference, or NULL                                                */
    uint32_t index;  /* which output of node                                                  */
} tdi_edge;

/** A tensor that backward will need, or only its shape. The tensor is an alias without a node, so no reference cycle can arise. */
typedef struct {
    td_tensor *t;       /* NULL: absent, or only its shape was kept                             */
    const int64_t *dim; /* of a shape, in the node's block                                      */
    uint32_t version;   /* of the storage when it was saved                                     */
    int16_t dt;
    int8_t nd;
    bool present;
} tdi_saved;

struct td_node {
    atomic_uint refs;
    uint32_t n_in, n_out, n_list; /* places                                                   */
    tdi_op *op;
    uint64_t seq;        /* order of recording: inputs' nodes have lower numbers          */
    uint32_t size;       /* of the block that holds the node and its arrays               */
    void *attr;          /* copy of the op's attributes, strings copied; NULL = none      */
    uint64_t random[2];  /* random state when the op ran                                  */
    tdi_edge *edge;      /* n_in                                                          */
    tdi_saved *in, *out; /* n_in, n_out                                                   */
    td_tensor **retain;  /* n_out borrowed handles with retains_grad, or NULL             */
    char *where;         /* anomaly mode: the script's line                               */
    td_node *next;       /* release list                                                  */
    bool freed;          /* saved tensors were released by a backward                     */
};

/** What tdi_record is told. in are the caller's inputs before any cast. in_place: out are given tensors that were written.
 *  alike: every input is a plain number or has the shape of the one output, and there is no list. */
typedef struct {
    tdi_op *op;
    td_tensor *const *in, *const *out;
    uint32_t n_in, n_list, n_out;
    const void *attr;
    uint64_t random[2];
    bool in_place, alike;
} tdi_recording;
bool tdi_record(const tdi_recording *);

void tdi_node_free(td_node *); /* refs is 0; iterative: a chain of a million nodes does not recurse */
static inline td_node *tdi_node_keep(td_node *n)
{
    TD_ASSERT(atomic_load(&n->refs) > 0);
    tdi_count_up(&n->refs);
    return n;
}
static inline void tdi_node_release(td_node *n)
{
    if (n && tdi_count_down(&n->refs)) tdi_node_free(n);
}
/** A tensor of that shape and dtype without data, for a backward that needs no more. Owned by the scope. */
td_tensor *tdi_shell(const tdi_saved *);
/** Releases what backward needed, after it ran. */
void tdi_node_drop_saved(td_node *);
/** A tensor that retains its gradient dies: its node forgets it. */
void tdi_node_forget(td_node *, const td_tensor *);

#endif

/* recompute.h - what recompute.c, which chooses the steps of a program that run twice, asks of recipe.c, which says how a result
 * can be had again: by which steps, from which memory, at what price. */
#ifndef TIDE_RECOMPUTE_H
#define TIDE_RECOMPUTE_H
#include "program.h"

enum { TDI_MOST_STEPS = 8, TDI_MOST_READS = 32 };

/** A program looked at for what could be dropped. By slot, unless it says otherwise. */
typedef struct {
    const tdi_program *p;
    tdi_lives lives;
    uint32_t *use, *use_at;        /* steps that use slot s, in order: use[use_at[s] .. use_at[s + 1])              */
    uint32_t *writes, *last_write; /* how many steps write it, and the last of them                                 */
    uint32_t *outside, *argument;  /* by step: how many before it wrote to memory from outside, to arguments        */
    uint32_t *chain_at;            /* by step: the first of its chain, or itself                                    */
    const int32_t *same;           /* the slot of the trace whose content it has                                    */
    uint32_t n_first;              /* slots of the trace: those above are of results computed again                 */
    uint32_t peak, peak_last;      /* the step, or the chain, at which most is in use                               */
    size_t most;                   /* bytes in use there                                                            */
} tdi_plan_view;

/** How to have slot's content at the step `at` once more. */
typedef struct {
    int32_t slot;
    uint32_t at; /* the steps go before this one                                    */
    uint32_t n, step[TDI_MOST_STEPS];
    uint32_t n_read;
    struct {
        int32_t slot,
            from; /* what a step of the recipe reads, and where it finds it: a slot, or -1 - i: the recipe's step i */
    } read[TDI_MOST_READS];
    size_t saved, kept; /* bytes that are free at the peak then; and that have to stay for it                         */
    double cost;        /* bytes moved                                                                              */
} tdi_recipe;

/** false after an error; tdi_plan_view_free also then. */
bool tdi_plan_view_make(tdi_plan_view *, const tdi_program *, const int32_t *same, uint32_t n_first);
void tdi_plan_view_free(tdi_plan_view *);
/** How to drop a slot at the peak. false (no error): it cannot be had again, or that would not help. */
bool tdi_recipe_find(const tdi_plan_view *, int32_t slot, tdi_recipe *);
/** The inputs that a step reads when it runs again, a bit each; all of them where it is as it was the first time; -1: it cannot. */
int64_t tdi_again_reads(const tdi_program *, const tdi_step *);
/** Whether that step reads the operand at a place. */
static inline bool tdi_reads_again(const tdi_step *s, int64_t inputs, uint32_t place)
{
    return place < s->n_in ? place >= 63 || inputs >> place & 1 : place > s->n_in;
}
/** How much a program works, in bytes that could be moved meanwhile. */
double tdi_program_work(const tdi_program *);

#endif

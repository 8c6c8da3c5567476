/* program.h - a trace made ready to run again: prebound calls of kernels over planned memory. program.c makes it, program_memory.c
 * says which steps run and where their memory lies, recompute.c which of them run twice so that their results need no memory in
 * between, tile.c runs chains of element-wise steps in cache, replay.c runs it all. */
#ifndef TIDE_PROGRAM_H
#define TIDE_PROGRAM_H
#include "trace.h"
#include <tide/capture.h>

typedef struct tdi_program tdi_program;

/** Takes over the trace (also on failure). results: what the traced call gave; recompute: steps may run twice to save memory. NULL
 *  after an error. */
tdi_program *tdi_program_make(tdi_trace *, td_tensor *const *results, uint32_t n_results, bool recompute);
void tdi_program_free(tdi_program *);
/** Whether a leaf's .grad and the options of optimizers are what the program was made for. */
bool tdi_program_fits(const tdi_program *);
/** Runs it on the arguments' memory. false after an error. */
bool tdi_program_run(tdi_program *, td_tensor *const *args);
/** Result i of the last run, owned by the scope. args: of that run. */
td_tensor *tdi_program_result(tdi_program *, uint32_t i, td_tensor *const *args);
/** Call i in words; false past the last. */
bool tdi_program_describe(const tdi_program *, uint32_t i, char *to, size_t room);
void tdi_program_inform(const tdi_program *, td_capture_info *);

/* ---- between the files named above ---- */

enum { TDI_MAX_ARENAS = 8 };

/** What a program does with a step of its trace. */
typedef enum {
    TDI_DEAD, /* nothing: nobody sees what it writes        */
    TDI_ONCE, /* it runs when the program is made: constant */
    TDI_EACH  /* it runs each time                          */
} tdi_fate;

/** Element-wise steps over `rows` rows of `cols` elements, run `tile` rows at a time: those from first to last that are not dead. */
typedef struct tdi_tiles {
    uint32_t first, last, n;
    int64_t rows, cols, tile;
    const td_ext_parallel *loops;
    td_device *dev;
    int n_thread;
    td_storage *scratch;           /* tiles of results that nobody else reads: a set for each thread */
    struct tdi_tile_call **thread; /* n bound calls for each thread                                  */
} tdi_tiles;

/** One prebound call: of a kernel, of a chain of them, or an optimizer's step. */
typedef struct {
    td_kargs a;
    bool (*run)(const td_kargs *);
    tdi_tiles *chain;
    const tdi_step *step;
} tdi_bound;

typedef enum { TDI_SAME_TENSOR, TDI_FROM_ARGUMENT, TDI_FROM_LEAF, TDI_FROM_SLOT } tdi_origin;

/** What a run gives back: a tensor that was there before, a view of an argument, a leaf's .grad, or memory of its own. */
typedef struct {
    tdi_origin from;
    td_tensor *t;    /* SAME_TENSOR: one reference                                 */
    uint32_t from_i; /* FROM_ARGUMENT, FROM_LEAF: which                            */
    uint32_t slot;
    int64_t offset;
    td_view v;
} tdi_result;

struct tdi_program {
    tdi_trace *trace;
    tdi_step *
        step; /* those of the trace, or a copy with some of them twice: attributes, plans and optimizers are the trace's */
    tdi_operand *operand;
    uint32_t n_step, n_operand;
    tdi_fate *fate;   /* of each step                                                 */
    tdi_tiles *chain; /* in order                                                     */
    bool *local;      /* slots that live within one chain, a tile at a time           */
    uint32_t n_chain;
    td_view *view;       /* one for each operand, bound                                  */
    const td_view **ptr; /* the same, NULL where absent: what kernels get                */
    tdi_bound *call;
    uint32_t n_call;
    td_storage *arena[TDI_MAX_ARENAS];
    uint32_t n_arena;
    char **ws; /* workspace of each step                                       */
    size_t planned, unplanned;
    size_t saved;           /* by running steps twice                                      */
    uint32_t *use, *use_at; /* operands of slot s: use[use_at[s] .. use_at[s + 1])          */
    struct {
        int32_t slot; /* that of leaf i's gradient where the run makes it, or TDI_NO_SLOT  */
        int64_t offset;
    } * grad;
    uint32_t *renewed; /* slots of results: their memory is new where somebody else still holds it */
    uint32_t n_renewed;
    uint32_t *bump; /* written slots whose storages are seen outside                        */
    uint32_t n_bump;
    uint64_t random[2];  /* where the random stream stands when a run begins                     */
    int32_t *arg_slot;   /* by argument: the slot whose memory begins there, or -1               */
    uint32_t *optimizer; /* steps that are an optimizer's                                        */
    uint32_t n_optimizer;
    tdi_result *result;
    uint32_t n_result;
};

/** program_memory.c: fills fate. */
bool tdi_program_sort(tdi_program *);
/** Gives passing slots and workspaces their places: bases of slots, ws. After chains were found. */
bool tdi_program_place(tdi_program *);
/** How many bytes that will take, all devices together; 0 after an error. */
size_t tdi_program_plan(const tdi_program *);
/** Whether a step writes the operand at a place, counted through inputs and outputs. */
bool tdi_step_writes(const tdi_step *, uint32_t place);

/** From which step to which each slot needs memory. */
typedef struct {
    uint32_t *first, *last; /* by slot; first UINT32_MAX: in no step that runs */
    int32_t *into;          /* slot whose memory it takes over, or -1          */
} tdi_lives;
/** After chains were found. lives_free also after an error. */
bool tdi_program_lives(const tdi_program *, tdi_lives *);
void tdi_lives_free(tdi_lives *);

/** recompute.c: makes steps run twice where that lowers what tdi_program_plan says. After sorting, before chains are found. */
bool tdi_program_recompute(tdi_program *);
/** tile.c: finds chains (anew), and the slots that are local to one. */
bool tdi_tiles_find(tdi_program *);
/** Binds a chain's calls for each thread. After all operands are bound. */
bool tdi_tiles_bind(tdi_program *, tdi_tiles *);
bool tdi_tiles_run(const tdi_tiles *);
void tdi_tiles_free(tdi_tiles *);
/** replay.c: one call of those that are no chain. */
bool tdi_call_run(const tdi_bound *, td_context *);

/** A buffer that is needed from one call to another, both included. */
typedef struct {
    uint32_t first, last;
    size_t bytes, at; /* at: where it was placed                                */
} tdi_buffer;
/** memory_plan.c: places buffers so that those needed at one time do not overlap; multiples of 64 bytes. Returns the bytes of all. */
size_t tdi_plan_memory(tdi_buffer *, uint32_t n);

static inline bool tdi_program_no_memory(void) { return td_fail_as(TD_ENOMEM, "capture: out of memory"); }

#endif

/* program.h - a trace made ready to run again: prebound calls of kernels over planned memory. */
#ifndef TIDE_PROGRAM_H
#define TIDE_PROGRAM_H
#include "trace.h"
#include <tide/capture.h>

typedef struct tdi_program tdi_program;

/** Takes over the trace (also on failure). results: what the traced call gave. NULL after an error. */
tdi_program *tdi_program_make(tdi_trace *, td_tensor *const *results, uint32_t n_results);
void tdi_program_free(tdi_program *);
/** Whether a leaf's .grad and the options of optimizers are what the program was made for. */
bool tdi_program_fits(const tdi_program *);
/** Runs it on the arguments' memory. false after an error. */
bool tdi_program_run(tdi_program *, td_tensor *const *args);
/** Result i of the last run, owned by the scope. args: of that run. */
td_tensor *tdi_program_result(tdi_program *, uint32_t i, td_tensor *const *args);
uint32_t tdi_program_results(const tdi_program *);
const tdi_trace *tdi_program_trace(const tdi_program *);
/** Call i in words; false past the last. */
bool tdi_program_describe(const tdi_program *, uint32_t i, char *to, size_t room);
void tdi_program_inform(const tdi_program *, td_capture_info *);

/* ---- memory_plan.c ---- */

/** A buffer that is needed from one call to another, both included. */
typedef struct {
    uint32_t first, last;
    size_t bytes, at; /* at: where it was placed                                */
} tdi_buffer;
/** Places buffers so that those needed at one time do not overlap; multiples of 64 bytes. Returns the bytes of all; 0 after an error too. */
size_t tdi_plan_memory(tdi_buffer *, uint32_t n);

#endif

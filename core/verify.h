/* verify.h - check mode of a capture: a replay, then the call itself from the same state, and the first difference. */
#ifndef TIDE_VERIFY_H
#define TIDE_VERIFY_H
#include "program.h"

typedef struct tdi_verify tdi_verify;

/** Runs the program and keeps what it gave, then puts everything back to where it was. *v is NULL after an error. */
bool tdi_verify_begin(tdi_verify **v, tdi_program *, td_tensor *const *args);
/** The call has been recorded: an error where it did other things than the program, or came to other bits. Frees *v. */
bool tdi_verify_end(tdi_verify **v, const tdi_trace *);
void tdi_verify_free(tdi_verify **v);

#endif

/* profile.h - where the time goes: the waist reports each op, each kernel and each walk of the tape while a profile is on. Off, it
 * costs one branch each. */
#ifndef TIDE_PROFILE_H
#define TIDE_PROFILE_H
#include "registry.h"

typedef struct tdi_profile tdi_profile;

/** An op begins or ends, within a walk of the tape (backward) or not. NULL: a walk itself. Ends come in the reverse order. */
void tdi_profile_enter(tdi_profile *, const tdi_op *, bool backward);
void tdi_profile_leave(tdi_profile *);
/** The same about a chain of element-wise kernels that a captured program runs tile by tile: all its time is in kernels. */
void tdi_profile_enter_chain(tdi_profile *, bool backward);
void tdi_profile_leave_chain(tdi_profile *);
/** Runs a kernel of the current op and notes its time, bytes and flops (op NULL: none). Waits for an asynchronous device. */
bool tdi_profile_kernel(tdi_profile *, const tdi_op *, bool (*run)(const td_kargs *), const td_kargs *, td_device *);
void tdi_profile_free(tdi_profile *);

/** Floating-point operations of one call, by the textbook (a multiply-add is two); 0 where that is not known. ops/flops.c */
double tdi_flops(const char *op, const td_kargs *);

#endif

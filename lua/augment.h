/* augment.h - transforms of single samples, in a chain: crops, flips, normalisation. Plain C that knows neither Lua nor a context, so
 * that worker threads may run it. What is random depends on the seed, the epoch and the sample alone, never on the thread. */
#ifndef TIDE_LUA_AUGMENT_H
#define TIDE_LUA_AUGMENT_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { TDL_MAX_STEPS = 16, TDL_MAX_SIDE = 1 << 20 };

typedef enum {
    TDL_NORMALIZE,   /* (x - mean) / std of each channel                                     */
    TDL_PAD,         /* a border of fill                                                     */
    TDL_CENTER_CROP, /* the middle h x w                                                     */
    TDL_RANDOM_CROP, /* h x w from anywhere, after a border of fill                          */
    TDL_FLIP_X,      /* left and right exchanged, with probability p                         */
    TDL_FLIP_Y,      /* top and bottom                                                       */
    TDL_ERASE        /* a rectangle becomes fill, with probability p (Zhong et al. 2020)     */
} tdl_step_kind;

typedef struct {
    tdl_step_kind kind;
    int64_t h, w, left, right, top, bottom;
    double p, fill, area[2], ratio[2];
    const float *mean, *inv_std; /* n each; the chain's memory */
    int64_t n;
} tdl_step;

typedef struct {
    int n;
    tdl_step step[TDL_MAX_STEPS];
    bool random;
} tdl_chain;

/** Channels, rows and columns. */
typedef struct {
    int64_t c, h, w;
} tdl_extent;

/** What an epoch's random choices depend on, beside the sample's number. */
typedef struct {
    uint64_t seed, epoch;
} tdl_draw;

/** A seed for a sample's random numbers outside the chain. */
uint64_t tdl_sample_seed(tdl_draw, uint64_t sample);
/** The extent of the result; room: elements that each of two scratch buffers needs. false: why says what does not fit. */
bool tdl_chain_extent(const tdl_chain *, tdl_extent from, tdl_extent *to, size_t *room, char *why, size_t why_room);
/** Runs the chain on the sample in a, with b as scratch, and writes the result to out. */
void tdl_chain_run(const tdl_chain *, tdl_extent, float *a, float *b, float *out, tdl_draw, uint64_t sample);

#endif

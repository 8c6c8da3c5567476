/* recurrent_repeats.h - lines of x that are the same bit for bit: an embedding of few symbols, one-hot rows, padding. What a
 * weight makes of a line is then computed once for all its copies, and their gradients are added up before they meet it:
 * a sequence over 65 letters has 65 lines, not T N. Lines are found by a hash and compared, so nothing is assumed. */
#ifndef TIDE_CPU_RECURRENT_REPEATS_H
#define TIDE_CPU_RECURRENT_REPEATS_H
#include "cpu.h"
#include "vec.h"
#include <stdbool.h>
#include <string.h>

/* Different lines are worth remembering up to every FEWER-th line, and REPEATS_MOST; below REPEATS_LINES lines, or REPEATS_WORK
 * multiply-adds a line, nothing is gained. */
enum { REPEATS_FEWER = 8, REPEATS_MOST = 1024, REPEATS_LINES = 128, REPEATS_WORK = 4096 };

/** The different lines: n of them, gathered one below the other; of: for each line of x, which of them it is. */
typedef struct {
    int64_t n;
    int32_t *of;
    float *lines; /* (n, width) */
} repeats;

/** How many different lines may be found among so many, 0 where it does not pay to look. */
static inline int64_t repeats_most(int64_t lines, int64_t width, int64_t work)
{
    int64_t most = lines / REPEATS_FEWER;
    if (lines < REPEATS_LINES || lines > INT32_MAX || work < REPEATS_WORK || width < 1) return 0;
    return most < REPEATS_MOST ? most : REPEATS_MOST;
}

static inline int64_t repeats_slots(int64_t most)
{
    int64_t n = 16;
    while (n < 2 * most) n *= 2;
    return n;
}

/** Floats that find_repeats wants to work in. */
static inline int64_t repeats_room(int64_t lines, int64_t width, int64_t most)
{
    return most ? lines + most + most * width + repeats_slots(most) : 0;
}

/** A number of 32 bits that equal lines share: their bits, folded for the sake of numbers with few of them, times odd numbers. */
static inline uint32_t hash_line(const float *x, int64_t n)
{
    typedef uint32_t bits __attribute__((vector_size(VEC_BYTES), aligned(4), may_alias));
    bits sums[2] = {{0}, {0}}, step = (bits){0} + 0x9e3779b1u;
    uint32_t h = 0;
    int64_t i = 0;
    for (; i + 2 * VEC_F32 <= n; i += 2 * VEC_F32, step += 0x3c6ef372u) {
        bits a = *(const bits *)(x + i), b = *(const bits *)(x + i + VEC_F32);
        sums[0] += (a ^ a >> 15) * step;
        sums[1] += (b ^ b >> 15) * step;
    }
    sums[0] = (sums[0] ^ sums[0] >> 15) * 0x85ebca6bu + sums[1];
    for (int j = 0; j < VEC_F32; j++) h = (h ^ sums[0][j]) * 0xc2b2ae35u;
    for (; i < n; i++) {
        uint32_t one;
        memcpy(&one, x + i, sizeof one);
        h = (h ^ one ^ one >> 15) * 0xc2b2ae35u;
    }
    h ^= h >> 16;
    h *= 0x7feb352du;
    return h ^ h >> 15;
}

/** Finds the different ones of `lines` lines, each width long and ldx after the one before. false: there are too many.
 *  Lines are told apart by their hash; should two that differ share one, the comparison at the end says that there is nothing
 *  to be gained. */
static inline bool find_repeats(repeats *r, const float *x, int64_t lines, int64_t width, int64_t ldx, int64_t most,
                                float *room)
{
    const int64_t n_slots = repeats_slots(most);
    const uint32_t mask = (uint32_t)(n_slots - 1);
    uint32_t *hashes = (uint32_t *)room, *slots = hashes + lines, *known = slots + n_slots;
    *r = (repeats){0, (int32_t *)room, (float *)(known + most)};
    memset(slots, 0, (size_t)n_slots * sizeof *slots);
#pragma omp parallel for if (lines * width > TD_PAR_MIN)
    for (int64_t l = 0; l < lines; l++) hashes[l] = hash_line(x + l * ldx, width);
    for (int64_t l = 0; l < lines; l++) { /* a hash becomes a number: both lie in the same place */
        uint32_t h = hashes[l], at = h & mask;
        while (slots[at] && known[slots[at] - 1] != h) at = (at + 1) & mask;
        if (!slots[at]) {
            if (r->n == most) return false;
            memcpy(r->lines + r->n * width, x + l * ldx, (size_t)width * sizeof *x);
            known[r->n] = h;
            slots[at] = (uint32_t)++r->n;
        }
        hashes[l] = slots[at] - 1;
    }
    int differ = 0;
#pragma omp parallel for reduction(| : differ) if (lines * width > TD_PAR_MIN)
    for (int64_t l = 0; l < lines; l++)
        differ |= memcmp(x + l * ldx, r->lines + hashes[l] * (size_t)width, (size_t)width * sizeof *x) != 0;
    return !differ;
}

#endif

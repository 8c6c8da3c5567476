/* recurrent_repeats.h - lines of x that are the same bit for bit: an embedding of few symbols, one-hot rows, padding. What a
 * weight makes of a line is then computed once for all its copies, and their gradients are added up before they meet it:
 * a sequence over 65 letters has 65 lines, not T N. Lines are found by a hash and compared, so nothing is assumed. */
#ifndef TIDE_CPU_RECURRENT_REPEATS_H
#define TIDE_CPU_RECURRENT_REPEATS_H
#include "vec.h"
#include <stdbool.h>
#include <string.h>

/* Different lines are worth remembering up to every FEWER-th line, and REPEATS_MOST; below REPEATS_LINES lines, or REPEATS_WORK
 * multiply-adds a line, nothing is gained. */
enum { REPEATS_FEWER = 8, REPEATS_MOST = 1024, REPEATS_LINES = 128, REPEATS_WORK = 4096 };

/** The different lines: n of them, gathered one below the other; of: for each line of x, which of them it is. */
typedef struct {
    int64_t n, most, width;
    int32_t *of;
    float *lines; /* (n, width) */
    uint32_t *slots;
    int64_t n_slots; /* a power of two */
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
    return most ? lines + most * width + repeats_slots(most) : 0;
}

/** A number of 32 bits that equal lines share: their bits times odd numbers, added up, every bit of which then counts. */
static inline uint32_t hash_line(const float *x, int64_t n)
{
    enum { LANES = VEC_F32 };
    uint32_t sums[LANES] = {0}, h = 0, step = 0x9e3779b1u;
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES, step += 0x3c6ef372u) {
        uint32_t bits[LANES];
        memcpy(bits, x + i, sizeof bits);
#pragma omp simd
        for (int j = 0; j < LANES; j++) sums[j] += (bits[j] ^ (bits[j] >> 15)) * step;
    }
    for (int j = 0; j < LANES; j++) h = (h ^ sums[j]) * 0x85ebca6bu;
    for (; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, x + i, sizeof bits);
        h = (h ^ bits) * 0xc2b2ae35u;
    }
    h ^= h >> 16;
    h *= 0x7feb352du;
    return h ^ h >> 15;
}

/** Finds the different ones of `lines` lines, each width long and ldx after the one before. false: there are too many. */
static inline bool find_repeats(repeats *r, const float *x, int64_t lines, int64_t width, int64_t ldx, int64_t most,
                                float *room)
{
    *r = (repeats){.most = most, .width = width, .n_slots = repeats_slots(most)};
    r->of = (int32_t *)room;
    r->slots = (uint32_t *)(room + lines);
    r->lines = room + lines + r->n_slots;
    memset(r->slots, 0, (size_t)r->n_slots * sizeof *r->slots);
    for (int64_t l = 0; l < lines; l++) {
        const float *line = x + l * ldx;
        const size_t size = (size_t)width * sizeof *line;
        uint32_t at = hash_line(line, width) & (uint32_t)(r->n_slots - 1);
        while (r->slots[at] && memcmp(r->lines + (r->slots[at] - 1) * (size_t)width, line, size))
            at = (at + 1) & (uint32_t)(r->n_slots - 1);
        if (!r->slots[at]) {
            if (r->n == most) return false;
            memcpy(r->lines + r->n * width, line, size);
            r->slots[at] = (uint32_t)++r->n;
        }
        r->of[l] = (int32_t)r->slots[at] - 1;
    }
    return true;
}

#endif

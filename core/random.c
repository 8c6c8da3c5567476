/* random.c - the context's random stream: a key (the seed) and a counter. Ops advance it in dispatch, draws here. */
#include "trace.h"
#include <tide/philox.h>

/* Whether a captured call is being recorded, whose replays would not draw: then an error. */
static bool recorded(const td_context *c, const char *what) { return c->trace && !tdi_trace_refuse(what); }

/* The words of one counter value. The counter is 128 bits wide, of which a stream uses the low 64. */
static void next_words(td_context *c, uint32_t w[4])
{
    uint64_t key = c->random[0], offset = c->random[1]++;
    const uint32_t counter[4] = {(uint32_t)offset, (uint32_t)(offset >> 32), 0, 0};
    td_philox(counter, (const uint32_t[2]){(uint32_t)key, (uint32_t)(key >> 32)}, w);
}

void td_manual_seed(uint64_t seed)
{
    td_context *c = tdi_ctx();
    if (c->err || recorded(c, "manual_seed")) return;
    c->random[0] = seed;
    c->random[1] = 0;
}

void td_random_state(uint64_t state[2])
{
    const td_context *c = tdi_ctx();
    state[0] = c->err ? 0 : c->random[0];
    state[1] = c->err ? 0 : c->random[1];
}

void td_random_set_state(const uint64_t state[2])
{
    td_context *c = tdi_ctx();
    if (c->err || recorded(c, "setting the random state")) return;
    c->random[0] = state[0];
    c->random[1] = state[1];
}

/* Unbiased: the high half of word * range, where low halves below 2^64 mod range are thrown away
 * (Lemire, Fast random integer generation in an interval, ACM TOMACS 2019). */
int64_t td_random_int(int64_t low, int64_t high)
{
    td_context *c = tdi_ctx();
    if (c->err || recorded(c, "a random number for the script")) return 0;
    if (low > high) {
        td_fail("random_int: expected low <= high, got %lld and %lld", (long long)low, (long long)high);
        return 0;
    }
    uint64_t range = (uint64_t)high - (uint64_t)low + 1; /* 0: all of 2^64 */
    uint64_t least = range ? -range % range : 0;
    for (;;) {
        uint32_t w[4];
        next_words(c, w);
        for (int i = 0; i < 4; i += 2) {
            uint64_t x = (uint64_t)w[i + 1] << 32 | w[i];
            if (!range) return (int64_t)x;
            unsigned __int128 m = (unsigned __int128)x * range;
            if ((uint64_t)m >= least) return (int64_t)((uint64_t)low + (uint64_t)(m >> 64));
        }
    }
}

double td_random_uniform(void)
{
    td_context *c = tdi_ctx();
    uint32_t w[4];
    if (c->err || recorded(c, "a random number for the script")) return 0;
    next_words(c, w);
    return (double)((uint64_t)(w[0] >> 5) << 26 | w[1] >> 6) * 0x1p-53;
}

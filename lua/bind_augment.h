/* bind_augment.h - chains of transforms as userdata, for the batcher and for whole batches on the script's thread. */
#ifndef TIDE_LUA_BIND_AUGMENT_H
#define TIDE_LUA_BIND_AUGMENT_H
#include "augment.h"
#include "bind.h"

/** The chain at arg, or NULL where there is none. */
const tdl_chain *tdl_chain_at(lua_State *L, int arg);
/** A sample of a tensor of samples as (C, H, W): (C, H, W), (H, W) as one channel, (C) as channels of one pixel; else an error. */
bool tdl_sample_extent(const char *who, const td_tensor *t, tdl_extent *e);
/** The shape of a batch of n results; t: the samples. */
td_ints tdl_batch_shape(const td_tensor *t, int64_t n, tdl_extent to);

#endif

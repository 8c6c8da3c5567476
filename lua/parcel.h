/* parcel.h - values on their way from one Lua state to another: nil, booleans, numbers, strings, plain tables and tensors. */
#ifndef TIDE_LUA_PARCEL_H
#define TIDE_LUA_PARCEL_H
#include "bind.h"

/** All zero is an empty one. */
typedef struct {
    char *bytes;
    size_t n, room, at; /* at: how far it is unpacked                     */
    td_tensor **tensor; /* one reference each, without what autograd recorded */
    uint32_t n_tensors, tensor_room, tensor_at;
} tdl_parcel;

/** Packs the values from first to the top of the stack in place of what was there. Raises what cannot go: functions, coroutines,
 *  userdata, cycles. moves: the tensors go for good, and their userdata are left empty. */
void tdl_parcel_pack(lua_State *L, tdl_state *S, tdl_parcel *, int first, bool moves);
/** Pushes the values, of which there are so many. shares: the memory of their tensors is held elsewhere, too. */
int tdl_parcel_unpack(lua_State *L, tdl_state *S, tdl_parcel *, bool shares);
/** Drops the values; keeps the room. */
void tdl_parcel_clear(tdl_parcel *);
/** Drops all. */
void tdl_parcel_free(tdl_parcel *);

#endif

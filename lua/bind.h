/* bind.h - what the files of the Lua binding share: the state, tensor userdata, stays in the core, arguments and errors.
 *
 * Every C function of the binding has two upvalues: the metatable of tensors, and the tdl_state as light userdata; ops have
 * a third, their tdl_op. The order inside each is always the same, and it is what keeps a raised Lua error from tearing
 * anything: pay the collector, make the result's userdata, check the arguments (by raw access: from here to the end of the
 * stay no Lua code can run and no Lua function that raises is called), enter the core, call it, leave it, and only then
 * raise what failed. */
#ifndef TIDE_LUA_BIND_H
#define TIDE_LUA_BIND_H
#include <lauxlib.h>
#include <lua.h>
#include <stdio.h>
#include <string.h>
#include <tide/tide.h>

#define tdl_unlikely(x) __builtin_expect(!!(x), 0)

/** What belongs to one Lua state. */
typedef struct tdl_state {
    td_context *ctx;                  /* NULL once the state closes                                              */
    size_t debt, due;                 /* bytes of tensors made since the last payment; a payment falls due at    */
    size_t unswept;                   /* those that were paid for since the last full collection                 */
    size_t live;                      /* bytes of tensors that userdata hold                                     */
    bool frees;                       /* tensors are dropped by tdl_freeing_alloc                          */
    int tensor_mt, methods, shape_mt; /* registry references                                         */
    bool deaf;                        /* a worker's: Ctrl-C is for others                                         */
    bool noted;                       /* msg holds an error that was taken from the core and not raised yet      */
    char source[512];                 /* chunks whose names begin so ("@/usr/share/lua/5.4/tide/") are Tide's own */
    size_t source_len;
    char msg[1200];
} tdl_state;

#define TDL_MT lua_upvalueindex(1)
#define TDL_STATE(L) ((tdl_state *)lua_touserdata((L), lua_upvalueindex(2)))

/** The state of L from the registry, or NULL: for code that is no closure of the binding. */
tdl_state *tdl_state_find(lua_State *L);
/** Sets functions, with their upvalues, in the table on top of the stack. */
void tdl_register(lua_State *L, tdl_state *S, const luaL_Reg *);
/** Pushes a new metatable that luaL_checkudata finds by `name`: events are its fields, methods are what __index gives. */
void tdl_push_class(lua_State *L, tdl_state *S, const char *name, const luaL_Reg *events, const luaL_Reg *methods);
void tdl_push_function(lua_State *L, tdl_state *S, lua_CFunction);

/* ---- errors: bind_state.c ---- */

/** Raises a sentence, preceded by the line of the script: the innermost Lua line that is not in Tide's own Lua files. */
int tdl_error(lua_State *L, const char *fmt, ...) __attribute__((format(printf, 2, 3), noreturn));
/** Pushes that place, "script.lua:12: ", or "". */
void tdl_push_where(lua_State *L);
/** The same into a buffer; raises nothing and allocates nothing. */
void tdl_where(lua_State *L, char *to, size_t room);
/** Raises what tdl_leave has noted. */
int tdl_throw(lua_State *L, tdl_state *S);
/** "a Tensor", "nil", "nothing", a number as it is: for messages; good until the next call on this thread. */
const char *tdl_what(lua_State *L, int arg);

/* ---- stays in the core ---- */

typedef struct {
    td_context *before;
    lua_State *outer;
} tdl_stay;

/** The Lua thread that is inside the core on this system thread, or NULL. */
extern __thread lua_State *tdl_running __attribute__((tls_model("initial-exec"), visibility("hidden")));

void tdl_refuse(lua_State *L, tdl_state *S) __attribute__((noreturn));
void tdl_note_error(tdl_state *S);

static inline void tdl_enter(lua_State *L, tdl_state *S, tdl_stay *stay)
{
    if (tdl_unlikely(!S->ctx || !td_stay_begin(S->ctx, &stay->before))) tdl_refuse(L, S);
    stay->outer = tdl_running;
    tdl_running = L;
}

/** Ends the stay and returns ok. When that is false the error has been noted, and tdl_throw must follow. */
static inline bool tdl_leave(tdl_state *S, tdl_stay *stay, bool ok)
{
    if (tdl_unlikely(!ok)) tdl_note_error(S);
    td_stay_end(stay->before);
    tdl_running = stay->outer;
    return ok;
}

/* ---- the collector: Lua does not see the bytes of tensors, so calls pay for them ---- */

void tdl_pay_now(lua_State *L, tdl_state *S);
/** Frees tensors that only garbage holds, where there may be enough of them: before backward. May run finalizers. */
void tdl_sweep(lua_State *L, tdl_state *S);
/** Before the arguments are looked at: may run finalizers. */
static inline void tdl_pay(lua_State *L, tdl_state *S)
{
    if (tdl_unlikely(S->debt >= S->due)) tdl_pay_now(L, S);
}

/* ---- tensor userdata ---- */

extern const char tdl_tensor_kind;

typedef struct {
    const void *kind; /* &tdl_tensor_kind: how a tensor is told from other userdata             */
    td_tensor *t;     /* one reference; NULL: not filled yet, or freed                          */
    size_t bytes;     /* what was added to tdl_state.live                                       */
} tdl_slot;

/** The userdata at arg if it is one of ours of that kind and size, else NULL. */
static inline void *tdl_test(lua_State *L, int arg, const void *kind, size_t size)
{
    const void **p = (const void **)lua_touserdata(L, arg);
    return p && lua_rawlen(L, arg) == size && *p == kind ? (void *)p : NULL;
}
static inline tdl_slot *tdl_slot_at(lua_State *L, int arg)
{
    return (tdl_slot *)tdl_test(L, arg, &tdl_tensor_kind, sizeof(tdl_slot));
}
/** The tensor at arg, or NULL where there is none (or one that was freed). */
static inline td_tensor *tdl_peek(lua_State *L, int arg)
{
    tdl_slot *s = tdl_slot_at(L, arg);
    return s ? s->t : NULL;
}
/** The tensor at arg, else an error that names the function. */
td_tensor *tdl_check_tensor(lua_State *L, int arg);

/** Pushes an empty tensor userdata, from inside a function of the binding. */
static inline tdl_slot *tdl_new(lua_State *L)
{
    tdl_slot *s = (tdl_slot *)lua_newuserdatauv(L, sizeof(tdl_slot), 0);
    s->kind = &tdl_tensor_kind;
    s->t = NULL;
    s->bytes = 0;
    lua_pushvalue(L, TDL_MT);
    lua_setmetatable(L, -2);
    return s;
}

/* What a tensor counts for the collector beside its elements' bytes: more than its structs take, so that small programs run a
 * cycle each 2000 ops (1000 recorded ones). Thousands more of dead tensors would cost more in cache misses than a cycle does. */
enum { TDL_WEIGHT = 2048 };

/** Puts a tensor in its userdata: one more reference. shares: its memory is another tensor's, or nearly so. */
static inline void tdl_fill(tdl_state *S, tdl_slot *s, td_tensor *t, bool shares)
{
    size_t bytes = td_needs_grad(t) ? 2 * TDL_WEIGHT : TDL_WEIGHT;
    s->t = td_take(t);
    if (!shares) {
        const td_view *v = td_view_of(t);
        bytes += (size_t)td_view_numel(v) * td_dtype_size(v->dt);
    }
    s->bytes = bytes;
    S->debt += bytes;
    S->live += bytes;
}
/** Drops the tensor of a userdata, which stays an empty one. */
void tdl_drop(tdl_state *S, tdl_slot *s);

/** An allocator that calls tdl_slot_freed when it frees the userdata of a tensor, or NULL: then tensors of states that use it need
 *  no finalizer, which costs a protected call and one more cycle of the collector each. */
extern lua_Alloc tdl_freeing_alloc;
extern tdl_state *tdl_freeing_state; /* the one that uses it, until it closes */
/** Drops the tensor of a userdata whose memory is given up, if it is one of a tensor. Lua must not be called from there. */
void tdl_slot_freed(void *userdata);

/** Ends the stay of a function with one result, whose userdata is on top of the stack: fills it with t, or raises. */
int tdl_return(lua_State *L, tdl_state *S, tdl_stay *stay, tdl_slot *s, td_tensor *t, bool shares);
/** The same where t may be the argument self itself, which is then returned. */
int tdl_return_or_self(lua_State *L, tdl_state *S, tdl_stay *stay, tdl_slot *s, td_tensor *t, int self);
/** Pushes a userdata for a borrowed tensor. It must stay alive meanwhile: the collector may run. */
void tdl_push_tensor(lua_State *L, tdl_state *S, td_tensor *t, bool shares);
/** Pushes a list of integers that prints as "(2, 3)" and compares by value. */
void tdl_push_shape(lua_State *L, tdl_state *S, const int64_t *v, int n);

/* ---- arguments: bind_args.c ---- */

enum { TDL_MAX_GIVEN = 32, TDL_POOL = 192, TDL_MAX_NAMES = 16 };

/** Values on their way to td_options_fill. They borrow strings from the Lua stack. */
typedef struct {
    td_args args;
    uint32_t used;
    td_value pos[TDL_MAX_GIVEN];
    td_named named[TDL_MAX_GIVEN];
    td_value pool[TDL_POOL];
} tdl_given;

/** Takes a named value for itself (it lies on top of the stack) and returns true, or leaves it to the schema. */
typedef bool tdl_own_key(lua_State *L, void *arg, const char *key);

/** Whether the value at arg is a table with a string key: named arguments. */
bool tdl_is_named(lua_State *L, int arg);
/** Stack first..last as positional values; named: index of the table of named ones, or 0. */
void tdl_read_given(lua_State *L, const char *who, const td_opts *, int first, int last, int named, tdl_own_key *own,
                    void *arg, tdl_given *g);
/** One value for td_option_set. */
void tdl_read_value(lua_State *L, const char *who, int arg, tdl_given *g, td_value *v);
/** Pushes an option's value as a user would give it. */
void tdl_push_value(lua_State *L, const td_value *);

static inline const td_opt *tdl_opt(const td_opts *s, uint32_t i)
{
    return (const td_opt *)((const char *)s->v + (size_t)i * s->stride);
}
/** Whether several plain numbers in a row can only mean option k: a list, and no number follows it. */
bool tdl_gathers(const td_opts *, uint32_t k);
bool tdl_dtype_named(const char *name, td_dtype *dt);
/** Inside a stay: a tensor of the number or boolean at arg. */
td_tensor *tdl_number_at(lua_State *L, int arg);
/** A dtype by name, else an error. */
td_dtype tdl_check_dtype(lua_State *L, const char *who, int arg);
/** A shape: one table, or the numbers first..last. */
void tdl_check_shape(lua_State *L, const char *who, int first, int last, td_ints *shape);

/* ---- tensors in and out of a call by its signature: bind_call.c ---- */

typedef struct {
    uint32_t n, n_list; /* names; how many of them are lists                                      */
    bool plain;         /* every place is one required tensor that is no index                    */
    struct {
        char name[24];
        bool optional, index, aux, list;
    } at[TDL_MAX_NAMES];
} tdl_sig;
/** false where the text has more names than there is room. */
bool tdl_sig_read(const char *text, tdl_sig *);

typedef struct {
    td_tensor **in;     /* n places, flat                                                          */
    uint32_t n, n_list; /* n_list: length of the lists                                             */
    uint32_t n_numbers;
    uint64_t made; /* names whose index tensors were made from a table or number             */
    struct {
        uint32_t at;
        bool whole;
        lua_Integer i;
        lua_Number d;
    } number[TDL_MAX_NAMES];
    td_tensor *room[24];
} tdl_inputs;

/** First: turns tables at index places into tensors, makes room. May allocate and run finalizers. */
void tdl_inputs_prepare(lua_State *L, const char *who, const tdl_sig *, int first, int last, tdl_inputs *);
/** Then: reads the tensors and numbers. Raises, but runs nothing. */
void tdl_inputs_fetch(lua_State *L, const char *who, const tdl_sig *, int first, int last, tdl_inputs *);
/** Inside the stay: makes tensors of the numbers and 0-based ones of the index tensors. false after an error. */
bool tdl_inputs_finish(const tdl_sig *, tdl_inputs *);
/** Index tensors from 1-based to 0-based and back; NULL after an error. */
td_tensor *tdl_index_in(td_tensor *);
td_tensor *tdl_index_out(td_tensor *);

/* ---- ops: bind_ops.c, bind_op_call.c, bind_op_options.c ---- */

typedef struct {
    tdl_state *S;
    uint32_t id;
    const td_op *op;
    tdl_sig in, out;
    uint32_t n_shown;    /* outputs that Lua sees                                                  */
    uint32_t n_room;     /* outputs asked for: up to the last that is seen                         */
    uint32_t n_required; /* options up to the last required one                                    */
    bool shares, creates, list_out;
    int tried;  /* whether dflt was tried: 0, 1 (there) or -1 (not to be had)             */
    void *dflt; /* the options at their defaults, required ones at some value             */
} tdl_op;

/** Finds the defaults of its options, once: sets dflt and tried. */
void tdl_op_make_defaults(lua_State *L, tdl_op *);
/** Fills out from the values first..last where they are of the usual types; false: td_options_fill must decide. dflt is there. */
bool tdl_op_fast_options(lua_State *L, const tdl_op *, int first, int last, char *out);
/** Calls the op with what is on the stack. */
int tdl_op_run(lua_State *L, tdl_op *, bool inplace);
/** Pushes the function of an op, and its in-place form where it has one (else nil). */
void tdl_push_op(lua_State *L, tdl_state *S, uint32_t id);
/** Pushes the in-place form, or nil. */
void tdl_push_op_inplace(lua_State *L, tdl_state *S, uint32_t id);

/* ---- data: bind_data.c ---- */

/** What a creation takes beside its data. */
typedef struct {
    bool has_dtype, requires_grad;
    td_dtype dt;
    const char *device;
} tdl_made_as;
void tdl_read_made_as(lua_State *L, const char *who, int arg, tdl_made_as *);
/** Pushes a CPU tensor of what lies at arg: nested tables, a number or a boolean. infer: bool for booleans, else dt. */
void tdl_push_data(lua_State *L, tdl_state *S, const char *who, int arg, td_dtype dt, bool infer);
/** Elements of x, row-major, as doubles (floats) or int64_t (integers, bools); inside a stay. to has room for td_numel. */
bool tdl_read_numbers(td_tensor *x, void *to);

/* ---- indexing: bind_index.c ---- */

/** x[key] for keys that are no strings; result on top of the stack. */
int tdl_index_get(lua_State *L, tdl_state *S);
/** x[key] = value */
int tdl_index_set(lua_State *L, tdl_state *S);
extern const char tdl_newaxis;

/** tostring(x) */
int tdl_tensor_tostring(lua_State *L);

/* ---- each adds its functions to the module's table, on top of the stack ---- */

void tdl_open_tensor(lua_State *L, tdl_state *S);
void tdl_open_shape(lua_State *L, tdl_state *S);
void tdl_open_convert(lua_State *L, tdl_state *S);
void tdl_open_assign(lua_State *L, tdl_state *S);
void tdl_open_compare(lua_State *L, tdl_state *S);
void tdl_open_data(lua_State *L, tdl_state *S);
void tdl_open_ops(lua_State *L, tdl_state *S);
void tdl_open_autograd(lua_State *L, tdl_state *S);
void tdl_open_module(lua_State *L, tdl_state *S);
void tdl_open_optim(lua_State *L, tdl_state *S);
void tdl_open_registry(lua_State *L, tdl_state *S);
void tdl_open_device(lua_State *L, tdl_state *S);
void tdl_open_random(lua_State *L, tdl_state *S);
void tdl_open_profile(lua_State *L, tdl_state *S);
void tdl_open_gzip(lua_State *L, tdl_state *S);
void tdl_open_batcher(lua_State *L, tdl_state *S);
void tdl_open_augment(lua_State *L, tdl_state *S);
void tdl_open_workers(lua_State *L, tdl_state *S);
void tdl_open_conform(lua_State *L, tdl_state *S);
void tdl_open_capture(lua_State *L, tdl_state *S);

tdl_state *tdl_state_new(lua_State *L);
void tdl_open_state(lua_State *L, tdl_state *S);
TD_API TD_API int luaopen_tide_core(lua_State *L);

#endif

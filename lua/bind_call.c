/* bind_call.c - tensors in and out of ops and modules by their signature: optional ones, lists, plain numbers, indices. */
#include "bind.h"
#include <tide/capture.h>

bool tdl_sig_read(const char *text, tdl_sig *sig)
{
    memset(sig, 0, sizeof *sig);
    sig->plain = true;
    for (const char *p = text ? text : ""; *(p += strspn(p, " ")); p += strcspn(p, " ")) {
        if (sig->n == TDL_MAX_NAMES) return false;
        size_t len = strcspn(p, " ?#~!&*."), end = strcspn(p, " ");
        snprintf(sig->at[sig->n].name, sizeof sig->at[0].name, "%.*s", (int)len, p);
        for (size_t i = len; i < end; i++) {
            if (p[i] == '?') sig->at[sig->n].optional = true;
            if (p[i] == '#') sig->at[sig->n].index = true;
            if (p[i] == '!') sig->at[sig->n].aux = true;
            if (p[i] == '*') sig->at[sig->n].list = true;
            if (strchr("?#*!", p[i])) sig->plain = false;
        }
        sig->n_list += sig->at[sig->n].list;
        sig->n++;
    }
    return true;
}

void tdl_inputs_prepare(lua_State *L, const char *who, const tdl_sig *sig, int first, int last, tdl_inputs *c)
{
    c->n_list = c->n_numbers = 0;
    c->made = 0;
    c->n = sig->n;
    c->in = c->room;
    if (sig->plain) return;
    bool seen = false;
    for (uint32_t i = 0; i < sig->n; i++) {
        int arg = first + (int)i, type = arg <= last ? lua_type(L, arg) : LUA_TNIL;
        if (sig->at[i].list && type == LUA_TTABLE) {
            lua_Unsigned n = lua_rawlen(L, arg);
            if (seen && n != c->n_list)
                tdl_error(L, "%s: %s: expected a list of %u tensors like the one before, got %llu", who,
                          sig->at[i].name, c->n_list, (unsigned long long)n);
            if (n > 65536)
                tdl_error(L, "%s: %s: expected at most 65536 tensors, got %llu", who, sig->at[i].name,
                          (unsigned long long)n);
            c->n_list = (uint32_t)n;
            seen = true;
        } else if (sig->at[i].index && !sig->at[i].list && (type == LUA_TTABLE || type == LUA_TNUMBER)) {
            tdl_push_data(L, TDL_STATE(L), who, arg, TD_I64, false);
            lua_replace(L, arg);
            c->made |= (uint64_t)1 << i;
        }
    }
    c->n = sig->n - sig->n_list + sig->n_list * c->n_list;
    if (c->n > sizeof c->room / sizeof *c->room) {
        luaL_checkstack(L, 8, NULL);
        c->in = (td_tensor **)lua_newuserdatauv(L, c->n * sizeof *c->in, 0);
    }
}

static void expected(lua_State *L, const char *who, const tdl_sig *sig, uint32_t i, int arg)
{
    const char *also = sig->at[i].list       ? "a list of tensors"
                       : sig->at[i].index    ? "a Tensor of indices"
                       : sig->at[i].optional ? "a Tensor or nil"
                                             : "a Tensor or a number";
    tdl_error(L, "%s: %s: expected %s, got %s", who, sig->at[i].name, also, tdl_what(L, arg));
}

static uint32_t fetch_list(lua_State *L, const char *who, const tdl_sig *sig, uint32_t i, int arg, td_tensor **to,
                           uint32_t n)
{
    bool given = lua_type(L, arg) == LUA_TTABLE;
    if (!given && !(sig->at[i].optional && lua_isnoneornil(L, arg))) expected(L, who, sig, i, arg);
    for (uint32_t k = 0; k < n; k++) {
        to[k] = NULL;
        if (!given) continue;
        lua_rawgeti(L, arg, (lua_Integer)k + 1);
        to[k] = tdl_peek(L, -1);
        if (!to[k]) tdl_error(L, "%s: %s[%u]: expected a Tensor, got %s", who, sig->at[i].name, k + 1, tdl_what(L, -1));
        lua_pop(L, 1);
    }
    return n;
}

void tdl_inputs_fetch(lua_State *L, const char *who, const tdl_sig *sig, int first, int last, tdl_inputs *c)
{
    uint32_t at = 0;
    for (uint32_t i = 0; i < sig->n; i++) {
        int arg = first + (int)i;
        if (arg > last) { /* lua_type of it would be of what we pushed */
            if (!sig->at[i].optional && !(sig->at[i].list && c->n_list == 0 && i > 0))
                tdl_error(L, "%s: %s: expected a Tensor, got nothing", who, sig->at[i].name);
            for (uint32_t k = sig->at[i].list ? c->n_list : 1; k > 0; k--) c->in[at++] = NULL;
            continue;
        }
        if (sig->at[i].list) {
            at += fetch_list(L, who, sig, i, arg, c->in + at, c->n_list);
            continue;
        }
        td_tensor *t = tdl_peek(L, arg);
        if (!t) {
            int type = lua_type(L, arg);
            if (type == LUA_TNUMBER && !sig->at[i].index) {
                uint32_t k = c->n_numbers++;
                c->number[k].at = at;
                c->number[k].whole = lua_isinteger(L, arg);
                if (c->number[k].whole) c->number[k].i = lua_tointeger(L, arg);
                else c->number[k].d = lua_tonumber(L, arg);
            } else if (type != LUA_TNIL || !sig->at[i].optional) {
                expected(L, who, sig, i, arg);
            }
        }
        c->in[at++] = t;
    }
}

bool tdl_inputs_finish(const tdl_sig *sig, tdl_inputs *c)
{
    for (uint32_t k = 0; k < c->n_numbers; k++) {
        td_tensor *t = c->number[k].whole ? td_integer(c->number[k].i) : td_number(c->number[k].d);
        if (!t) return false;
        c->in[c->number[k].at] = t;
    }
    if (sig->plain) return true;
    uint32_t at = 0;
    for (uint32_t i = 0; i < sig->n; i++) {
        uint32_t n = sig->at[i].list ? c->n_list : 1;
        for (uint32_t k = 0; sig->at[i].index && k < n; k++) {
            td_tensor **t = &c->in[at + k];
            if (!*t) continue;
            if (!(*t = tdl_index_in(*t))) return false;
            if (c->made >> i & 1 && c->in[0] && i > 0 && !(*t = td_tensor_to(*t, td_tensor_device(c->in[0]))))
                return false;
        }
        at += n;
    }
    return true;
}

/* ---- indices: i >= 1 becomes i - 1, negative ones stay, 0 becomes the least integer, which every op refuses ---- */

static bool holds_integers(const td_tensor *t)
{
    td_dtype dt = td_dtype_of(t);
    return dt == TD_I64 || dt == TD_I32 || dt == TD_U8;
}

td_tensor *tdl_index_in(td_tensor *i)
{
    if (!holds_integers(i)) return i; /* the op says what it expects */
    if (td_dtype_of(i) == TD_U8) i = td_cast(i, TD_I64);
    i = td_tensor_dense(i);
    if (!i) return NULL;
    td_dtype dt = td_dtype_of(i);
    const void *from = td_capture_recording() ? NULL : td_tensor_host(i); /* a replay runs ops, nothing else */
    if (!from) /* on a device: (i - (i > 0)), and the least integer where i was 0 */
        return td_masked_fill(td_sub(i, td_gt(i, td_integer(0))), td_eq(i, td_integer(0)), -9223372036854775808.0);
    td_tensor *y = td_tensor_new(dt, td_shape(i), "cpu");
    if (!y) return NULL;
    int64_t n = td_numel(i);
    if (dt == TD_I64) {
        const int64_t *a = (const int64_t *)from;
        int64_t *b = (int64_t *)td_tensor_host(y);
        for (int64_t k = 0; k < n; k++) b[k] = a[k] > 0 ? a[k] - 1 : a[k] < 0 ? a[k] : INT64_MIN;
    } else {
        const int32_t *a = (const int32_t *)from;
        int32_t *b = (int32_t *)td_tensor_host(y);
        for (int64_t k = 0; k < n; k++) b[k] = a[k] > 0 ? a[k] - 1 : a[k] < 0 ? a[k] : INT32_MIN;
    }
    return y;
}

td_tensor *tdl_index_out(td_tensor *i)
{
    if (!holds_integers(i)) return i;
    i = td_tensor_dense(i);
    if (!i) return NULL;
    const void *from = td_capture_recording() ? NULL : td_tensor_host(i);
    if (!from || td_dtype_of(i) != TD_I64) return td_add(i, td_ge(i, td_integer(0)));
    td_tensor *y = td_tensor_new(TD_I64, td_shape(i), "cpu"); /* not in place: the tape may have saved i */
    if (!y) return NULL;
    const int64_t *a = (const int64_t *)from;
    int64_t *b = (int64_t *)td_tensor_host(y), n = td_numel(i);
    for (int64_t k = 0; k < n; k++) b[k] = a[k] >= 0 ? a[k] + 1 : a[k];
    return y;
}

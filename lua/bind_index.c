/* bind_index.c - x[i], x[{…}], x[mask], x[indices], and the same as targets of an assignment.
 *
 * Entries of a key table, one an axis:  i one element, the axis goes · {a, b} or {a, b, step} elements a to b, both included ·
 * {} the whole axis · a Tensor of indices · a bool Tensor · "..." all axes that the other entries leave · tide.newaxis an
 * axis of extent 1. Negative numbers count from the end. What is selected by numbers and ranges is a view.
 *
 * All of this runs inside a stay: the key is read raw, and what is wrong with it is a td_fail like any other. */
#include "bind.h"

const char tdl_newaxis = 0;

enum { MAX_ENTRIES = 32 };

typedef struct {
    int axis;
    td_tensor *i; /* 0-based */
} chosen;

typedef struct {
    lua_State *L;
    td_tensor *x; /* what is left after numbers and ranges */
    int axis;     /* where the next entry looks            */
    chosen by[TD_MAX_DIM];
    int n_by;
} selection;

static bool is_tensor(lua_State *L, int at) { return tdl_slot_at(L, at) != NULL; }
static bool is_newaxis(lua_State *L, int at)
{
    return lua_islightuserdata(L, at) && lua_touserdata(L, at) == (const void *)&tdl_newaxis;
}
static bool is_dots(lua_State *L, int at)
{
    return lua_type(L, at) == LUA_TSTRING && !strcmp(lua_tostring(L, at), "...");
}

/* An integer, or a number that is one. */
static bool to_integer(lua_State *L, int at, int64_t *to)
{
    int ok = 0;
    if (lua_type(L, at) == LUA_TNUMBER) *to = lua_tointegerx(L, at, &ok);
    return ok;
}

/* ---- one entry ---- */

static bool pick(selection *s, int64_t i)
{
    int64_t n = td_dim(s->x, s->axis);
    int64_t at = i > 0 ? i - 1 : i + n;
    if (i == 0 || at < 0 || at >= n)
        return td_fail("index %lld of axis %d is outside 1 .. %lld%s", (long long)i, s->axis + 1, (long long)n,
                       i == 0 ? " (indices count from 1)" : "");
    return (s->x = td_select(s->x, s->axis, at)) != NULL;
}

static bool range(selection *s, int at)
{
    lua_State *L = s->L;
    lua_Unsigned len = lua_rawlen(L, at);
    int64_t n = td_dim(s->x, s->axis), v[3] = {1, n, 1};
    if (len == 0 && !tdl_is_named(L, at)) return s->axis++, true; /* {}: the whole axis */
    if (len < 2 || len > 3)
        return td_fail("a range is {first, last} or {first, last, step}, got a table of %llu", (unsigned long long)len);
    for (int k = 0; k < (int)len; k++) {
        lua_rawgeti(L, at, k + 1);
        bool ok = to_integer(L, -1, &v[k]);
        const char *what = tdl_what(L, -1);
        lua_pop(L, 1);
        if (!ok) return td_fail("a range is {first, last} or {first, last, step} of integers, got %s", what);
    }
    int64_t first = v[0] < 0 ? v[0] + n + 1 : v[0], last = v[1] < 0 ? v[1] + n + 1 : v[1];
    if (first < 1 || first > n + 1 || last < 0 || last > n)
        return td_fail("range {%lld, %lld} of axis %d is outside 1 .. %lld", (long long)v[0], (long long)v[1],
                       s->axis + 1, (long long)n);
    if (v[2] < 1) return td_fail("a range's step must be at least 1, got %lld", (long long)v[2]);
    if (last < first - 1) last = first - 1; /* backwards: nothing */
    s->x = td_slice(s->x, s->axis, first - 1, last, v[2]);
    s->axis++;
    return s->x != NULL;
}

static bool choose(selection *s, td_tensor *i)
{
    if (s->n_by == TD_MAX_DIM) return td_fail("more than %d index tensors", TD_MAX_DIM);
    if (!i || !(i = td_tensor_to(i, td_tensor_device(s->x)))) return false;
    s->by[s->n_by++] = (chosen){s->axis++, i};
    return true;
}

/* A mask over as many axes as it has: the indices of its true elements. */
static bool choose_by_mask(selection *s, td_tensor *mask)
{
    const td_view *m = td_view_of(mask), *x = td_view_of(s->x);
    if (m->nd == 0) return td_fail("a mask has at least one axis");
    for (int i = 0; i < m->nd; i++)
        if (m->dim[i] != x->dim[s->axis + i])
            return td_fail("a mask of extent %lld lies on axis %d of extent %lld", (long long)m->dim[i],
                           s->axis + i + 1, (long long)x->dim[s->axis + i]);
    int nd = m->nd;
    td_tensor *where = td_nonzero(mask);
    for (int i = 0; i < nd; i++)
        if (!choose(s, td_select(where, 1, i))) return false;
    return true;
}

static bool by_tensor(selection *s, td_tensor *t)
{
    if (!t) return td_fail("the index is a Tensor that was freed");
    if (td_dtype_of(t) == TD_BOOL) return choose_by_mask(s, t);
    if (td_dtype_is_float(td_dtype_of(t)))
        return td_fail("an index tensor holds integers or bools, got %s; make it with dtype \"i64\"",
                       td_dtype_name(td_dtype_of(t)));
    td_tensor *i = tdl_index_in(t); /* negative ones count from the end; what 0 became stays out of range */
    return choose(s, td_where(td_lt(i, td_integer(0)), td_add(i, td_integer(td_dim(s->x, s->axis))), i));
}

static bool entry(selection *s, int at, int skip)
{
    int64_t i = 0;
    lua_State *L = s->L;
    if (is_newaxis(L, at)) {
        if (!(s->x = td_unsqueeze(s->x, s->axis))) return false;
        s->axis++;
        return true;
    }
    if (is_dots(L, at)) return s->axis += skip, true;
    if (to_integer(L, at, &i)) return pick(s, i);
    if (lua_type(L, at) == LUA_TTABLE) return range(s, at);
    if (is_tensor(L, at)) return by_tensor(s, tdl_peek(L, at));
    return td_fail("an index is an integer, a range {first, last}, a Tensor, \"...\" or tide.newaxis, got %s",
                   tdl_what(L, at));
}

/* ---- a whole key ---- */

/* How many axes of x the entries use up; -1 after an error. */
static int axes_of_key(lua_State *L, int key, int n, bool *dots)
{
    int used = 0;
    *dots = false;
    for (int k = 1; k <= n; k++) {
        lua_rawgeti(L, key, k);
        td_tensor *t = tdl_peek(L, -1);
        if (is_dots(L, -1)) {
            if (*dots) {
                lua_pop(L, 1);
                return td_fail("\"...\" stands twice in one index"), -1;
            }
            *dots = true;
        } else if (!is_newaxis(L, -1)) {
            used += t && td_dtype_of(t) == TD_BOOL ? td_ndim(t) : 1;
        }
        lua_pop(L, 1);
    }
    return used;
}

static bool select_by_table(selection *s, int key)
{
    lua_State *L = s->L;
    lua_Unsigned len = lua_rawlen(L, key);
    bool dots;
    if (len > MAX_ENTRIES)
        return td_fail("an index has at most %d entries, got %llu", MAX_ENTRIES, (unsigned long long)len);
    if (tdl_is_named(L, key)) return td_fail("an index is a list, got a table with names");
    int nd = td_ndim(s->x), used = axes_of_key(L, key, (int)len, &dots);
    if (used < 0) return false;
    if (used > nd) return td_fail("the index has entries for %d axes, the tensor has %d", used, nd);
    for (int k = 1; k <= (int)len; k++) {
        lua_rawgeti(L, key, k);
        bool ok = entry(s, lua_gettop(L), nd - used);
        lua_pop(L, 1);
        if (!ok) return false;
    }
    return true;
}

/* Everything but the index tensors, which are left in s->by. */
static bool select_by(selection *s, int key)
{
    if (lua_type(s->L, key) == LUA_TTABLE) return select_by_table(s, key);
    td_tensor *t = tdl_peek(s->L, key);
    int used = t && td_dtype_of(t) == TD_BOOL ? td_ndim(t) : 1, nd = td_ndim(s->x);
    if (used > nd)
        return nd ? td_fail("a mask of %d axes on a tensor of %d", used, nd)
                  : td_fail("a tensor of no axes cannot be indexed");
    return entry(s, key, 0);
}

/* Shape of x with its axis replaced by the axes of i. */
static td_ints replaced(const td_tensor *x, int axis, const td_tensor *i)
{
    td_ints from = td_shape(x), mid = td_shape(i), to = {0, {0}};
    for (int64_t k = 0; k < from.n; k++) {
        if (k != axis) to.v[to.n++] = from.v[k];
        else
            for (int64_t m = 0; m < mid.n && to.n < TD_MAX_LIST; m++) to.v[to.n++] = mid.v[m];
        if (to.n >= TD_MAX_LIST) break;
    }
    return to;
}

static td_tensor *flat(td_tensor *i) { return td_ndim(i) == 1 ? i : td_reshape(i, td_dims(-1)); }

static td_tensor *gather_one(td_tensor *x, const chosen *c)
{
    td_ints shape = replaced(x, c->axis, c->i);
    bool same = td_ndim(c->i) == 1;
    if (shape.n > TD_MAX_DIM)
        return td_fail("the result would have %lld axes, at most %d are possible", (long long)shape.n, TD_MAX_DIM);
    td_tensor *y = td_index_select(x, flat(c->i), c->axis);
    return same ? y : td_reshape(y, shape);
}

/* Several index tensors: their axes go first, and back to their place if they were neighbours (as NumPy does). */
static td_tensor *gather_many(td_tensor *x, const chosen *by, int n)
{
    int nd = td_ndim(x), spread = 0;
    bool neighbours = true, leading = true;
    td_tensor *list[TD_MAX_DIM];
    td_ints order = {0, {0}};
    for (int k = 0; k < n; k++) {
        list[k] = by[k].i;
        if (td_ndim(list[k]) > spread) spread = td_ndim(list[k]);
        neighbours &= by[k].axis == by[0].axis + k;
        leading &= by[k].axis == k;
        order.v[order.n++] = by[k].axis;
    }
    for (int a = 0; a < nd; a++) {
        bool used = false;
        for (int k = 0; k < n; k++) used |= by[k].axis == a;
        if (!used) order.v[order.n++] = a;
    }
    td_tensor *y = td_index(leading ? x : td_permute(x, order), list, (uint32_t)n);
    if (!y || leading || !neighbours) return y;
    td_ints back = {0, {0}};
    int before = by[0].axis, all = td_ndim(y);
    for (int k = 0; k < before; k++) back.v[back.n++] = spread + k;
    for (int k = 0; k < spread; k++) back.v[back.n++] = k;
    for (int k = spread + before; k < all; k++) back.v[back.n++] = k;
    return td_permute(y, back);
}

static td_tensor *get(selection *s, int key)
{
    td_tensor *mask = tdl_peek(s->L, key);
    if (mask && td_dtype_of(mask) == TD_BOOL && td_ndim(mask) == td_ndim(s->x) && td_ndim(mask) > 0)
        return td_masked_select(s->x, mask);
    if (!select_by(s, key)) return NULL;
    if (s->n_by == 0) return s->x;
    return s->n_by == 1 ? gather_one(s->x, s->by) : gather_many(s->x, s->by, s->n_by);
}

int tdl_index_get(lua_State *L, tdl_state *S)
{
    tdl_pay(L, S);
    tdl_slot *out = tdl_new(L);
    selection s = {.L = L, .x = tdl_check_tensor(L, 1)};
    td_tensor *x = s.x;
    tdl_stay stay;
    tdl_enter(L, S, &stay);
    td_tensor *y = get(&s, 2);
    bool shares = y && td_tensor_same_storage(x, y);
    if (y) tdl_fill(S, out, y, shares);
    if (!tdl_leave(S, &stay, y != NULL)) return tdl_throw(L, S);
    return 1;
}

/* ---- assignment ---- */

/* The value at 3 as a tensor: itself, or a plain number. */
static td_tensor *value_of(lua_State *L)
{
    td_tensor *v = tdl_peek(L, 3);
    if (v) return v;
    if (lua_type(L, 3) == LUA_TBOOLEAN) return td_integer(lua_toboolean(L, 3));
    return lua_isinteger(L, 3) ? td_integer(lua_tointeger(L, 3)) : td_number(lua_tonumber(L, 3));
}

/* v, broadcast to a shape and in x's dtype. A plain number needs no gradient, so it may be copied in. */
static td_tensor *spread_to(td_tensor *v, td_tensor *x, td_ints shape)
{
    if (td_needs_grad(v)) return td_expand(td_cast(v, td_dtype_of(x)), shape);
    td_tensor *y = td_tensor_new(td_dtype_of(x), shape, td_tensor_device(x));
    return y ? td_tensor_assign(y, v) : NULL;
}

/* x with v at the indices of one axis. */
static td_tensor *put_at(td_tensor *x, const chosen *c, td_tensor *v)
{
    td_ints shape = replaced(x, c->axis, c->i), slices = td_shape(x);
    if (shape.n > TD_MAX_DIM)
        return td_fail("the indexed part would have %lld axes, at most %d are possible", (long long)shape.n,
                       TD_MAX_DIM);
    slices.v[c->axis] = td_numel(c->i);
    td_tensor *src = spread_to(v, x, shape);
    if (src && td_ndim(c->i) != 1) src = td_reshape(src, slices);
    return td_index_copy(x, flat(c->i), src, c->axis);
}

/* x[mask] = v, the mask over the leading axes of x */
static bool set_masked(td_tensor *x, td_tensor *mask, td_tensor *v)
{
    const td_view *m = td_view_of(mask), *a = td_view_of(x);
    td_ints rows = {1, {-1}}, whole = td_shape(x);
    for (int i = 0; i < m->nd; i++)
        if (i >= a->nd || m->dim[i] != a->dim[i])
            return td_fail("the mask's shape must be that of the tensor's leading axes");
    bool all = m->nd == a->nd;
    if (all && td_numel(v) == 1) {
        if (td_ndim(v) > 0) v = td_reshape(v, (td_ints){0, {0}});
        td_tensor *y = td_where(mask, v, x);
        return y && td_tensor_assign(x, y);
    }
    for (int i = m->nd; i < a->nd; i++) rows.v[rows.n++] = a->dim[i];
    if (td_numel(x) == 0) return true;
    chosen c = {0, td_select(td_nonzero(td_reshape(mask, td_dims(-1))), 1, 0)};
    if (!c.i) return false;
    td_tensor *y = put_at(td_reshape(x, rows), &c, v);
    return y && td_tensor_assign(x, td_reshape(y, whole));
}

/* Where a gradient is wanted: a change in place of a view would not reach the tape, so the elements are put by their number in x,
 * and x as a whole is assigned the result. */
static bool set_recorded(selection *s, int key, td_tensor *v)
{
    td_tensor *x = s->x;
    td_ints whole = td_shape(x);
    td_tensor *numbers = td_arange(0, (double)td_numel(x), 1, TD_I64);
    s->x = td_reshape(td_tensor_to(numbers, td_tensor_device(x)), whole);
    if (!select_by(s, key)) return false;
    chosen c = {0, flat(s->x)};
    v = td_expand(td_cast(v, td_dtype_of(x)), td_shape(s->x));
    td_tensor *y = td_index_copy(flat(x), c.i, flat(v), 0);
    return y && td_tensor_assign(x, td_reshape(y, whole));
}

static bool set(selection *s, int key, td_tensor *v)
{
    td_tensor *mask = tdl_peek(s->L, key), *x = s->x;
    if (!v) return false;
    if (mask && td_dtype_of(mask) == TD_BOOL && td_ndim(mask) > 0) return set_masked(s->x, mask, v);
    if (!select_by(s, key)) return false;
    if (s->n_by == 0) {
        if (s->x == x || !td_grad_enabled() || !(td_needs_grad(x) || td_needs_grad(v)))
            return td_tensor_assign(s->x, v) != NULL;
        selection again = {.L = s->L, .x = x};
        return set_recorded(&again, key, v);
    }
    if (s->n_by > 1) return td_fail("an assignment takes one index tensor, got %d; use scatter or a mask", s->n_by);
    td_tensor *y = put_at(s->x, s->by, v); /* recorded where x is no view */
    return y && td_tensor_assign(s->x, y);
}

int tdl_index_set(lua_State *L, tdl_state *S)
{
    tdl_pay(L, S);
    td_tensor *x = tdl_check_tensor(L, 1);
    int type = lua_type(L, 3);
    if (type == LUA_TTABLE) {
        tdl_push_data(L, S, "assignment", 3, td_dtype_of(x), false);
        lua_replace(L, 3);
        x = tdl_check_tensor(L, 1);
    } else if (type != LUA_TNUMBER && type != LUA_TBOOLEAN && !tdl_peek(L, 3)) {
        tdl_error(L, "assignment to a Tensor's elements: expected a number, a Tensor or a table, got %s",
                  tdl_what(L, 3));
    }
    selection s = {.L = L, .x = x};
    tdl_stay stay;
    tdl_enter(L, S, &stay);
    bool ok = set(&s, 2, value_of(L));
    if (!tdl_leave(S, &stay, ok)) return tdl_throw(L, S);
    return 0;
}

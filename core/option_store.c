/* option_store.c - one value into one option's field: type, bounds, the shift of 1-based numbers, and the sentence where it does not fit. */
#include "context.h"
#include "schema.h"
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- what was given, for messages ---- */

static size_t put(char *to, size_t room, size_t at, const char *fmt, ...) __attribute__((format(printf, 4, 5)));
static size_t put(char *to, size_t room, size_t at, const char *fmt, ...)
{
    va_list ap;
    if (at >= room) return at;
    va_start(ap, fmt);
    int n = vsnprintf(to + at, room - at, fmt, ap);
    va_end(ap);
    return at + (n > 0 ? (size_t)n : 0);
}

static size_t put_value(char *to, size_t room, size_t at, const td_value *v)
{
    switch (v->type) {
    case TD_VAL_NIL: return put(to, room, at, "nothing");
    case TD_VAL_BOOL: return put(to, room, at, v->as.b ? "true" : "false");
    case TD_VAL_INT: return put(to, room, at, "%lld", (long long)v->as.i);
    case TD_VAL_NUM: return isnan(v->as.d) ? put(to, room, at, "nan") : put(to, room, at, "%.14g", v->as.d);
    case TD_VAL_STR: return put(to, room, at, "\"%.60s\"", v->as.s ? v->as.s : "");
    case TD_VAL_OTHER: return put(to, room, at, "%.60s", v->as.s ? v->as.s : "another value");
    case TD_VAL_LIST: break;
    }
    at = put(to, room, at, "{");
    for (uint32_t i = 0; i < v->as.list.n && i < 6; i++) {
        const td_value *e = &v->as.list.v[i];
        at = put(to, room, at, i ? ", " : "");
        at = e->type == TD_VAL_LIST ? put(to, room, at, "a list") : put_value(to, room, at, e);
    }
    return put(to, room, at, v->as.list.n > 6 ? ", ...}" : "}");
}

/* ---- what was expected ---- */

static size_t put_words(char *to, size_t room, size_t at, const tdi_rule *r)
{
    for (uint32_t i = 0; i < r->n_words; i++)
        at = put(to, room, at, "%s\"%s\"", !i ? "" : i + 1 == r->n_words ? " or " : ", ", r->word[i]);
    return at;
}

/* " >= 0 and < 1" */
static size_t put_bounds(char *to, size_t room, size_t at, const tdi_rule *r)
{
    bool lo = r->lo > -INFINITY || r->lo_open, hi = r->hi < INFINITY || r->hi_open;
    if (lo) at = put(to, room, at, " %s %.14g", r->lo_open ? ">" : ">=", r->lo);
    if (hi) at = put(to, room, at, "%s %s %.14g", lo ? " and" : "", r->hi_open ? "<" : "<=", r->hi);
    return at;
}

static void put_expected(char *to, size_t room, const td_opt *o, const tdi_rule *r)
{
    static const char *const noun[] = {
        [TD_O_INT] = "an integer",
        [TD_O_NUM] = "a number",
        [TD_O_BOOL] = "true or false",
        [TD_O_STR] = "a string",
        [TD_O_ENUM] = "",
        [TD_O_DTYPE] = "a dtype ",
        [TD_O_AXIS] = "an axis (they count from 1, negative ones from the end)",
        [TD_O_INDEX] = "an index (they count from 1)",
        [TD_O_INTS] = "an integer or a list of integers",
        [TD_O_NUMS] = "a number or a list of numbers",
        [TD_O_AXES] = "an axis or a list of axes (they count from 1, negative ones from the end)",
    };
    td_otype t = tdi_option_type(o);
    size_t at = 0;
    if (t == TD_O_STR && r->n_words) at = put_words(to, room, at, r);
    else at = put(to, room, at, "%s", noun[t]);
    if (t == TD_O_ENUM) at = put_words(to, room, at, r);
    if (t == TD_O_DTYPE) {
        at = put(to, room, at, "(");
        for (int dt = 0; dt < TD_N_DTYPES; dt++)
            at = put(to, room, at, "%s%s", dt ? ", " : "", td_dtype_name((td_dtype)dt));
        at = put(to, room, at, ")");
    }
    at = put_bounds(to, room, at, r);
    if (o->has) put(to, room, at, " or none");
}

static bool refuse(const tdi_schema *s, const char *who, uint32_t i, const td_value *given)
{
    char expected[256], got[256];
    put_expected(expected, sizeof expected, &s->v[i], &s->rule[i]);
    put_value(got, sizeof got, 0, given);
    return td_fail("%s: %s: expected %s, got %s", who, s->v[i].name, expected, got);
}

/* ---- numbers ---- */

static bool to_int(const td_value *v, int64_t *to)
{
    if (v->type == TD_VAL_INT) {
        *to = v->as.i;
        return true;
    }
    if (v->type != TD_VAL_NUM || !(v->as.d >= -0x1p63 && v->as.d < 0x1p63) || v->as.d != floor(v->as.d)) return false;
    *to = (int64_t)v->as.d;
    return true;
}

static bool to_num(const td_value *v, double *to)
{
    *to = v->type == TD_VAL_INT ? (double)v->as.i : v->as.d;
    return v->type == TD_VAL_INT || v->type == TD_VAL_NUM;
}

static bool within(const tdi_rule *r, double d)
{
    if (isnan(d)) return r->nan;
    return (r->lo_open ? d > r->lo : d >= r->lo) && (r->hi_open ? d < r->hi : d <= r->hi);
}

/* An integer as the struct holds it: axes and indices are shifted at this door and nowhere else. */
static bool int_element(td_otype t, const tdi_rule *r, const td_value *v, int64_t *to)
{
    if (!to_int(v, to) || !within(r, (double)*to)) return false;
    if (t == TD_O_INT || t == TD_O_INTS) return true;
    if (*to == 0) return false;
    if (*to > 0) (*to)--;
    return true;
}

static bool store_list(td_otype t, const tdi_rule *r, const td_value *given, void *field)
{
    const td_value *v = given;
    uint32_t n = 1;
    if (given->type == TD_VAL_LIST) {
        v = given->as.list.v;
        n = given->as.list.n;
    }
    if (n > TD_MAX_LIST) return false;
    if (t == TD_O_NUMS) {
        td_nums *l = field;
        for (uint32_t i = 0; i < n; i++)
            if (!to_num(&v[i], &l->v[i]) || !within(r, l->v[i])) return false;
        l->n = n;
        return true;
    }
    td_ints *l = field;
    for (uint32_t i = 0; i < n; i++)
        if (!int_element(t, r, &v[i], &l->v[i])) return false;
    l->n = n;
    return true;
}

/* ---- words ---- */

static bool find_word(const tdi_rule *r, const td_value *v, int32_t *place)
{
    if (v->type != TD_VAL_STR || !v->as.s) return false;
    for (uint32_t i = 0; i < r->n_words; i++) {
        *place = (int32_t)i;
        if (!strcmp(r->word[i], v->as.s)) return true;
    }
    return false;
}

static bool store_string(const tdi_rule *r, const td_value *v, const char **field, bool *memory)
{
    int32_t place;
    if (v->type != TD_VAL_STR || !v->as.s || (r->n_words && !find_word(r, v, &place))) return false;
    char *copy = strdup(v->as.s);
    if (!copy) {
        *memory = false;
        return false;
    }
    free((char *)(uintptr_t)*field);
    *field = copy;
    return true;
}

static bool store_dtype(const td_value *v, td_dtype *field)
{
    if (v->type != TD_VAL_STR || !v->as.s) return false;
    for (int dt = 0; dt < TD_N_DTYPES; dt++)
        if (!strcmp(td_dtype_name((td_dtype)dt), v->as.s)) {
            *field = (td_dtype)dt;
            return true;
        }
    return false;
}

static bool is_none(const tdi_schema *s, uint32_t i, const td_value *v, bool dflt)
{
    int32_t place;
    if (!s->v[i].has || v->type != TD_VAL_STR || !v->as.s || strcmp(v->as.s, "none")) return false;
    if (dflt) return true;
    td_otype t = tdi_option_type(&s->v[i]);
    return t != TD_O_STR && !(t == TD_O_ENUM && find_word(&s->rule[i], v, &place));
}

bool tdi_option_store(const tdi_schema *s, const char *who, uint32_t i, const td_value *v, void *out, bool dflt)
{
    const td_opt *o = &s->v[i];
    const tdi_rule *r = &s->rule[i];
    td_otype t = tdi_option_type(o);
    char *base = out;
    void *field = base + o->off;
    bool ok = false, memory = true;
    if (is_none(s, i, v, dflt)) {
        base[o->has - 1] = false;
        return true;
    }
    switch (t) {
    case TD_O_INT:
    case TD_O_AXIS:
    case TD_O_INDEX: {
        int64_t x;
        if ((ok = int_element(t, r, v, &x))) *(int64_t *)field = x;
        break;
    }
    case TD_O_NUM: {
        double x;
        if ((ok = to_num(v, &x) && within(r, x))) *(double *)field = x;
        break;
    }
    case TD_O_BOOL:
        if ((ok = v->type == TD_VAL_BOOL)) *(bool *)field = v->as.b;
        break;
    case TD_O_STR: ok = store_string(r, v, field, &memory); break;
    case TD_O_ENUM: {
        int32_t place;
        if ((ok = find_word(r, v, &place))) *(int32_t *)field = place;
        break;
    }
    case TD_O_DTYPE: ok = store_dtype(v, field); break;
    case TD_O_INTS:
    case TD_O_AXES: {
        td_ints list = {0, {0}}; /* so that a refused list leaves the option as it was */
        if ((ok = store_list(t, r, v, &list))) *(td_ints *)field = list;
        break;
    }
    case TD_O_NUMS: {
        td_nums list = {0, {0}};
        if ((ok = store_list(t, r, v, &list))) *(td_nums *)field = list;
        break;
    }
    case TD_OPT_LIVE: break;
    }
    if (ok && o->has) base[o->has - 1] = true;
    if (ok) return true;
    if (!memory) return td_fail_as(TD_ENOMEM, "%s: %s: out of memory", who, o->name);
    if (v->type == TD_VAL_LIST && tdi_option_is_list(o) && v->as.list.n > TD_MAX_LIST)
        return td_fail("%s: %s: expected a list of at most %d, got %u values", who, o->name, TD_MAX_LIST, v->as.list.n);
    return refuse(s, who, i, v);
}

/* options.c - td_options_*: a struct filled from what a front end was given, by the schema; and back again. */
#include "context.h"
#include "schema.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- filling ---- */

static bool is_number(const td_value *v) { return v->type == TD_VAL_INT || v->type == TD_VAL_NUM; }

/* Whether a bare number could be meant for this option. */
static bool takes_number(const td_opt *o)
{
    td_otype t = tdi_option_type(o);
    return t != TD_O_BOOL && t != TD_O_STR && t != TD_O_ENUM && t != TD_O_DTYPE;
}

/* How many of the values at v make up option i: x:view(2, 3) gathers numbers in a list, where the next option takes none. */
static uint32_t gathered(const tdi_schema *s, uint32_t i, const td_value *v, uint32_t n)
{
    uint32_t k = 1;
    if (!is_number(v) || !tdi_option_is_list(&s->v[i]) || (i + 1 < s->n && takes_number(&s->v[i + 1]))) return 1;
    while (k < n && is_number(&v[k])) k++;
    return k;
}

static bool too_many(const tdi_schema *s, const char *who, uint32_t n)
{
    char usage[512];
    td_opts o = {s->out_size, s->n, sizeof(td_opt), s->v};
    td_options_usage(&o, who, usage, sizeof usage);
    return td_fail("%s: %u values were given, at most %u are expected: %s", who, n, s->n, usage);
}

static bool fill_positional(const tdi_schema *s, const char *who, const td_args *given, void *out, uint64_t *got)
{
    uint32_t option = 0;
    for (uint32_t i = 0; i < given->n_pos; option++) {
        const td_value *v = &given->pos[i];
        if (option == s->n) {
            if (v->type != TD_VAL_NIL) return too_many(s, who, given->n_pos);
            i++;
            option--;
            continue;
        }
        uint32_t k = gathered(s, option, v, given->n_pos - i);
        td_value list = {.type = TD_VAL_LIST, .as.list = {v, k}};
        i += k;
        if (v->type == TD_VAL_NIL) continue;
        if (!tdi_option_store(s, who, option, k > 1 ? &list : v, out, false)) return false;
        *got |= 1ull << option;
    }
    return true;
}

/* Edits that turn a into b (Levenshtein 1966); names are short, so two rows on the stack do. */
static uint32_t distance(const char *a, const char *b)
{
    uint32_t row[65];
    size_t m = strlen(b);
    if (m > 64) return 65;
    for (size_t k = 0; k <= m; k++) row[k] = (uint32_t)k;
    for (uint32_t i = 0; a[i]; i++) {
        uint32_t before = row[0];
        row[0] = i + 1;
        for (size_t k = 1; k <= m; k++) {
            uint32_t change = before + (a[i] != b[k - 1]), add = row[k - 1] + 1, drop = row[k] + 1;
            before = row[k];
            row[k] = change < add ? change : add;
            if (drop < row[k]) row[k] = drop;
        }
    }
    return row[m];
}

static bool unknown(const tdi_schema *s, const char *who, const char *name)
{
    char known[512] = "", hint[96] = "";
    uint32_t best = 3; /* more edits than two are another word */
    for (uint32_t i = 0; i < s->n; i++) {
        size_t at = strlen(known);
        snprintf(known + at, sizeof known - at, "%s%s", i ? ", " : "", s->v[i].name);
        uint32_t d = strlen(name) < 64 ? distance(name, s->v[i].name) : best;
        if (d >= best) continue;
        best = d;
        snprintf(hint, sizeof hint, " (did you mean %s?)", s->v[i].name);
    }
    if (!s->n) return td_fail("%s: there is no option \"%.60s\"; it has none", who, name);
    return td_fail("%s: there is no option \"%.60s\"%s; its options are %s", who, name, hint, known);
}

static bool fill_named(const tdi_schema *s, const char *who, const td_args *given, void *out, uint64_t *got)
{
    td_opts o = {s->out_size, s->n, sizeof(td_opt), s->v};
    for (uint32_t i = 0; i < given->n_named; i++) {
        const td_named *g = &given->named[i];
        uint32_t k = g->name ? tdi_option_index(&o, g->name) : s->n;
        if (k == s->n) return unknown(s, who, g->name ? g->name : "");
        if (g->value.type == TD_VAL_NIL) continue;
        if (*got >> k & 1) return td_fail("%s: %s is given twice", who, g->name);
        if (!tdi_option_store(s, who, k, &g->value, out, false)) return false;
        *got |= 1ull << k;
    }
    return true;
}

static bool missing(const tdi_schema *s, const char *who, uint64_t got)
{
    const td_opt *o = &s->v[__builtin_ctzll(s->required & ~got)];
    char usage[512];
    td_opts all = {s->out_size, s->n, sizeof(td_opt), s->v};
    td_options_usage(&all, who, usage, sizeof usage);
    return td_fail("%s: %s is missing (%s): %s", who, o->name, o->doc ? o->doc : "it has no default", usage);
}

static bool copy_strings(const tdi_schema *s, const char *who, void *out)
{
    uint64_t left = s->strings;
    for (uint64_t bits = left; bits; bits &= bits - 1) {
        const char **field = (const char **)(void *)((char *)out + s->v[__builtin_ctzll(bits)].off);
        left &= ~(bits & -bits);
        if (!*field || (*field = strdup(*field))) continue;
        for (; left; left &= left - 1) *(const char **)(void *)((char *)out + s->v[__builtin_ctzll(left)].off) = NULL;
        return td_fail_as(TD_ENOMEM, "%s: out of memory", who);
    }
    return true;
}

bool td_options_fill(const td_opts *schema, const char *who, const td_args *given, void *out)
{
    static const td_args nothing;
    const tdi_schema *s = tdi_failed() ? NULL : tdi_schema_of(schema, who);
    if (!given) given = &nothing;
    if (!s) {
        if (out && schema->out_size) memset(out, 0, schema->out_size);
        return false;
    }
    if (s->out_size) memcpy(out, s->image, s->out_size);
    uint64_t got = 0;
    bool ok = (!s->strings || copy_strings(s, who, out)) &&
              (!given->n_pos || fill_positional(s, who, given, out, &got)) &&
              (!given->n_named || fill_named(s, who, given, out, &got));
    if (ok && s->required & ~got) ok = missing(s, who, got);
    if (!ok) td_options_clear(schema, out);
    return ok;
}

bool td_option_set(const td_opts *schema, const char *who, uint32_t option, const td_value *given, void *out)
{
    const tdi_schema *s = tdi_failed() ? NULL : tdi_schema_of(schema, who);
    if (!s) return false;
    if (option >= s->n) return td_fail("%s: option %u of %u", who, option + 1, s->n);
    return tdi_option_store(s, who, option, given, out, false);
}

/* ---- reading back ---- */

static int64_t unshifted(td_otype t, int64_t x)
{
    return x >= 0 && (t == TD_O_AXIS || t == TD_O_INDEX || t == TD_O_AXES) ? x + 1 : x;
}

static uint32_t bounded(int64_t n) { return n < 0 ? 0 : n > TD_MAX_LIST ? TD_MAX_LIST : (uint32_t)n; }

static void get_list(td_otype t, const void *field, td_value *value)
{
    static __thread td_value buffer[TD_MAX_LIST];
    uint32_t n;
    if (t == TD_O_NUMS) {
        const td_nums *l = field;
        n = bounded(l->n);
        for (uint32_t i = 0; i < n; i++) buffer[i] = (td_value){.type = TD_VAL_NUM, .as.d = l->v[i]};
    } else {
        const td_ints *l = field;
        n = bounded(l->n);
        for (uint32_t i = 0; i < n; i++) buffer[i] = (td_value){.type = TD_VAL_INT, .as.i = unshifted(t, l->v[i])};
    }
    *value = (td_value){.type = TD_VAL_LIST, .as.list = {buffer, n}};
}

bool td_option_get(const td_opts *schema, uint32_t option, const void *out, td_value *value)
{
    const tdi_schema *s = tdi_failed() ? NULL : tdi_schema_of(schema, "options");
    *value = (td_value){.type = TD_VAL_NIL};
    if (!s) return false;
    if (option >= s->n) return td_fail("option %u of %u", option + 1, s->n);
    const td_opt *o = &s->v[option];
    const tdi_rule *r = &s->rule[option];
    const char *base = out;
    const void *field = base + o->off;
    if (o->has && !base[o->has - 1]) return true;
    td_otype t = tdi_option_type(o);
    switch (t) {
    case TD_O_INT:
    case TD_O_AXIS:
    case TD_O_INDEX: *value = (td_value){.type = TD_VAL_INT, .as.i = unshifted(t, *(const int64_t *)field)}; break;
    case TD_O_NUM: *value = (td_value){.type = TD_VAL_NUM, .as.d = *(const double *)field}; break;
    case TD_O_BOOL: *value = (td_value){.type = TD_VAL_BOOL, .as.b = *(const bool *)field}; break;
    case TD_O_STR: {
        const char *text = *(const char *const *)field;
        if (text) *value = (td_value){.type = TD_VAL_STR, .as.s = text};
        break;
    }
    case TD_O_ENUM: {
        int32_t place = *(const int32_t *)field;
        if (place < 0 || (uint32_t)place >= r->n_words) return td_fail("%s: %d is none of its words", o->name, place);
        *value = (td_value){.type = TD_VAL_STR, .as.s = r->word[place]};
        break;
    }
    case TD_O_DTYPE: *value = (td_value){.type = TD_VAL_STR, .as.s = td_dtype_name(*(const td_dtype *)field)}; break;
    case TD_O_INTS:
    case TD_O_NUMS:
    case TD_O_AXES: get_list(t, field, value); break;
    case TD_OPT_LIVE: break;
    }
    return true;
}

void td_options_clear(const td_opts *schema, void *out)
{
    if (!out || !schema->out_size) return;
    for (uint32_t i = 0; i < schema->n; i++) {
        const td_opt *o = &schema->v[i];
        if (tdi_option_type(o) != TD_O_STR) continue;
        char **s = (char **)(void *)((char *)out + o->off);
        free(*s);
    }
    memset(out, 0, schema->out_size);
}

size_t td_options_usage(const td_opts *schema, const char *who, char *to, size_t room)
{
    char none[1];
    size_t at = 0;
    if (!room) to = none;
#define PUT(...)                                                                               \
    do {                                                                                       \
        int n_ = snprintf(at < room ? to + at : none, at < room ? room - at : 0, __VA_ARGS__); \
        at += n_ > 0 ? (size_t)n_ : 0;                                                         \
    } while (0)
    PUT("%s(", who);
    for (uint32_t i = 0; i < schema->n; i++) {
        const td_opt *o = &schema->v[i];
        bool word = o->dflt && (tdi_option_type(o) == TD_O_ENUM || tdi_option_type(o) == TD_O_DTYPE ||
                                tdi_option_type(o) == TD_O_STR);
        const char *quote =
            word && *o->dflt != '"' && *o->dflt != '\'' && !(o->has && !strcmp(o->dflt, "none")) ? "\"" : "";
        PUT("%s%s", i ? ", " : "", o->name);
        if (o->dflt) PUT(" = %s%s%s", quote, o->dflt, quote);
    }
    PUT(")");
#undef PUT
    return at;
}

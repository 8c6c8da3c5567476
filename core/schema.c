/* schema.c - checks option schemas and prepares them: bounds parsed, defaults laid out in a struct that a fill only copies. */
#include "schema.h"
#include "context.h"
#include "literal.h"
#include <ctype.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BUCKETS = 1024, MAX_STRUCT = 1 << 20 };

static _Atomic(tdi_schema *) table[BUCKETS];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

bool tdi_is_name(const char *s, bool dots)
{
    if (!s || !*s || strlen(s) > 63) return false;
    for (bool first = true; *s; s++) {
        if (*s == '.' && dots && !first && s[1]) {
            first = true;
            continue;
        }
        if (!(isalpha((unsigned char)*s) || *s == '_' || (isdigit((unsigned char)*s) && !first))) return false;
        first = false;
    }
    return true;
}

uint32_t tdi_option_index(const td_opts *schema, const char *name)
{
    uint32_t i = 0;
    while (i < schema->n && strcmp(schema->v[i].name, name)) i++;
    return i;
}

/* ---- allowed ---- */

static bool type_is_number(td_otype t)
{
    return t == TD_O_INT || t == TD_O_NUM || t == TD_O_AXIS || t == TD_O_INDEX || t == TD_O_INTS || t == TD_O_NUMS ||
           t == TD_O_AXES;
}

/* "a|b|c" */
static bool parse_words(const char *text, tdi_rule *r)
{
    uint32_t n = 1;
    for (const char *s = text; *s; s++) n += *s == '|';
    r->word = calloc(n, sizeof *r->word);
    if (!r->word) return td_fail_as(TD_ENOMEM, "out of memory");
    for (const char *s = text;; s++) {
        size_t len = strcspn(s, "|");
        if (!len) return false;
        char *w = strndup(s, len);
        if (!w) return td_fail_as(TD_ENOMEM, "out of memory");
        r->word[r->n_words++] = w;
        for (uint32_t i = 0; i + 1 < r->n_words; i++)
            if (!strcmp(r->word[i], w)) return false;
        s += len;
        if (!*s) return true;
    }
}

/* One of  >= 0   > 0   <= 1   < 1   nan */
static bool parse_bound(const char *s, tdi_rule *r)
{
    if (!strcmp(s, "nan")) {
        r->nan = true;
        return true;
    }
    bool lower = *s == '>', open = s[0] && s[1] != '=';
    if (*s != '>' && *s != '<') return false;
    tdi_literal store;
    td_value v;
    char why[128];
    if (!tdi_literal_value(s + (open ? 1 : 2), &store, &v, why, sizeof why)) return false;
    if (v.type != TD_VAL_INT && v.type != TD_VAL_NUM) return false;
    double d = v.type == TD_VAL_INT ? (double)v.as.i : v.as.d;
    if (isnan(d)) return false;
    *(lower ? &r->lo : &r->hi) = d;
    *(lower ? &r->lo_open : &r->hi_open) = open;
    return true;
}

static bool parse_bounds(const char *text, tdi_rule *r)
{
    while (*text) {
        char part[64];
        text += strspn(text, " ");
        size_t len = strcspn(text, ",");
        if (len >= sizeof part) return false;
        memcpy(part, text, len);
        while (len && part[len - 1] == ' ') len--;
        part[len] = 0;
        if (!parse_bound(part, r)) return false;
        text += strcspn(text, ",");
        text += *text == ',';
    }
    return true;
}

static bool parse_allowed(const td_opt *o, tdi_rule *r)
{
    td_otype t = tdi_option_type(o);
    *r = (tdi_rule){.lo = -INFINITY, .hi = INFINITY};
    if (!o->allowed || !*o->allowed) return t != TD_O_ENUM;
    if (t == TD_O_ENUM || t == TD_O_STR) return parse_words(o->allowed, r);
    return type_is_number(t) && parse_bounds(o->allowed, r);
}

/* ---- fields ---- */

static const struct {
    uint32_t size, align;
} fields[] = {
    [TD_O_INT] = {sizeof(int64_t), _Alignof(int64_t)},  [TD_O_NUM] = {sizeof(double), _Alignof(double)},
    [TD_O_BOOL] = {sizeof(bool), _Alignof(bool)},       [TD_O_STR] = {sizeof(char *), _Alignof(char *)},
    [TD_O_ENUM] = {sizeof(int32_t), _Alignof(int32_t)}, [TD_O_DTYPE] = {sizeof(td_dtype), _Alignof(td_dtype)},
    [TD_O_AXIS] = {sizeof(int64_t), _Alignof(int64_t)}, [TD_O_INDEX] = {sizeof(int64_t), _Alignof(int64_t)},
    [TD_O_INTS] = {sizeof(td_ints), _Alignof(td_ints)}, [TD_O_NUMS] = {sizeof(td_nums), _Alignof(td_nums)},
    [TD_O_AXES] = {sizeof(td_ints), _Alignof(td_ints)},
};

static bool check_field(const char *who, const td_opt *o, size_t out_size)
{
    td_otype t = tdi_option_type(o);
    if ((uint32_t)t >= sizeof fields / sizeof *fields || (o->type & ~(0xffu | TD_OPT_LIVE)))
        return td_fail_as(TD_EPLUGIN, "%s: option %s: type: 0x%x is no option type", who, o->name, o->type);
    if (o->type & TD_OPT_LIVE && (t != TD_O_NUM || o->has))
        return td_fail_as(TD_EPLUGIN, "%s: option %s: type: only a NUM that is never none can be LIVE", who, o->name);
    if (o->size != fields[t].size)
        return td_fail_as(TD_EPLUGIN,
                          "%s: option %s: size: its type needs a field of %u bytes, the struct has one of %u", who,
                          o->name, fields[t].size, o->size);
    if (o->off % fields[t].align || o->off > out_size || out_size - o->off < o->size)
        return td_fail_as(TD_EPLUGIN, "%s: option %s: off: %u is no place for it in a struct of %zu bytes", who,
                          o->name, o->off, out_size);
    if (o->has > out_size || (o->has && o->has - 1 >= o->off && o->has - 1 < o->off + o->size))
        return td_fail_as(TD_EPLUGIN, "%s: option %s: has: %u is no place for has_%s in a struct of %zu bytes", who,
                          o->name, o->has, o->name, out_size);
    return true;
}

static bool overlap(const td_opt *a, const td_opt *b)
{
    uint32_t ah = a->has - 1, bh = b->has - 1;
    return (a->off < b->off + b->size && b->off < a->off + a->size) ||
           (a->has && ah >= b->off && ah < b->off + b->size) || (b->has && bh >= a->off && bh < a->off + a->size) ||
           (a->has && a->has == b->has);
}

static bool check_shape(const td_opts *s, const char *who)
{
    if (!s->n) return true;
    if (s->n > TDI_MAX_OPTIONS)
        return td_fail_as(TD_EPLUGIN, "%s: options: at most %d, got %u", who, TDI_MAX_OPTIONS, s->n);
    if (!s->v) return td_fail_as(TD_EPLUGIN, "%s: options: there are %u, but no table", who, s->n);
    if (s->stride != sizeof(td_opt))
        return td_fail_as(TD_EPLUGIN, "%s: options: the plugin's td_opt has %u bytes, this Tide's %zu", who, s->stride,
                          sizeof(td_opt));
    if (!s->out_size || s->out_size > MAX_STRUCT)
        return td_fail_as(TD_EPLUGIN, "%s: options: a struct of %zu bytes; expected 1 to %d", who, s->out_size,
                          MAX_STRUCT);
    for (uint32_t i = 0; i < s->n; i++) {
        const td_opt *o = &s->v[i];
        if (!tdi_is_name(o->name, false))
            return td_fail_as(TD_EPLUGIN, "%s: option %u: name: expected letters, digits and _, got '%.40s'", who,
                              i + 1, o->name ? o->name : "");
        if (!check_field(who, o, s->out_size)) return false;
        for (uint32_t k = 0; k < i; k++) {
            if (!strcmp(s->v[k].name, o->name))
                return td_fail_as(TD_EPLUGIN, "%s: option %s: there are two of that name", who, o->name);
            if (overlap(&s->v[k], o))
                return td_fail_as(TD_EPLUGIN, "%s: option %s: off: its field overlaps that of %s", who, o->name,
                                  s->v[k].name);
        }
    }
    return true;
}

/* ---- defaults ---- */

static bool parse_default(const td_opt *o, tdi_literal *store, td_value *v, char *why, size_t room)
{
    const char *text = o->dflt;
    bool raw = tdi_option_type(o) == TD_O_STR && *text != '"' && *text != '\'';
    if (!raw) return tdi_literal_value(text, store, v, why, room);
    *v = (td_value){.type = TD_VAL_STR, .as.s = text};
    return true;
}

static bool set_default(tdi_schema *s, const char *who, uint32_t i)
{
    const td_opt *o = &s->v[i];
    tdi_literal store;
    td_value v;
    char why[160], whole[160];
    if (!o->dflt) {
        s->required |= 1ull << i;
        return true;
    }
    if (!parse_default(o, &store, &v, why, sizeof why))
        return td_fail_as(TD_EPLUGIN, "%s: option %s: dflt: %s", who, o->name, why);
    snprintf(whole, sizeof whole, "%s: default", who);
    return tdi_option_store(s, whole, i, &v, s->image, true);
}

static void drop(tdi_schema *s)
{
    td_opts o = {s->out_size, s->n, sizeof(td_opt), s->v};
    if (s->image) td_options_clear(&o, s->image);
    free(s->image);
    for (uint32_t i = 0; s->rule && i < s->n; i++) {
        for (uint32_t k = 0; k < s->rule[i].n_words; k++) free(s->rule[i].word[k]);
        free(s->rule[i].word);
    }
    free(s->rule);
    free(s);
}

static bool prepare(tdi_schema *s, const char *who)
{
    s->rule = calloc(s->n + 1, sizeof *s->rule);
    s->image = calloc(1, s->out_size ? s->out_size : 1);
    if (!s->rule || !s->image) return td_fail_as(TD_ENOMEM, "%s: out of memory", who);
    for (uint32_t i = 0; i < s->n; i++) {
        const td_opt *o = &s->v[i];
        if (!parse_allowed(o, &s->rule[i])) {
            if (!tdi_failed())
                td_fail_as(TD_EPLUGIN, "%s: option %s: allowed: expected %s, got '%s'", who, o->name,
                           tdi_option_type(o) == TD_O_ENUM ? "words as in 'mean|sum'" : "bounds as in '>= 0, < 1'",
                           o->allowed ? o->allowed : "");
            return false;
        }
        if (tdi_option_type(o) == TD_O_STR) s->strings |= 1ull << i;
        if (!set_default(s, who, i)) return false;
    }
    return true;
}

static size_t bucket_of(const td_opt *v)
{
    return (size_t)(((uintptr_t)v >> 4) * 0x9e3779b97f4a7c15ull >> 54) % BUCKETS;
}

static const tdi_schema *make(const td_opts *schema, const char *who, size_t bucket)
{
    if (tdi_failed() || !check_shape(schema, who)) return NULL;
    tdi_schema *s = calloc(1, sizeof *s);
    if (!s) {
        td_fail_as(TD_ENOMEM, "%s: out of memory", who);
        return NULL;
    }
    s->v = schema->v;
    s->n = schema->n;
    s->out_size = schema->out_size;
    if (!prepare(s, who)) {
        drop(s);
        return NULL;
    }
    pthread_mutex_lock(&lock);
    s->next = atomic_load_explicit(&table[bucket], memory_order_relaxed);
    atomic_store_explicit(&table[bucket], s, memory_order_release);
    pthread_mutex_unlock(&lock);
    return s;
}

const tdi_schema *tdi_schema_of(const td_opts *schema, const char *who)
{
    size_t b = bucket_of(schema->v);
    for (const tdi_schema *s = atomic_load_explicit(&table[b], memory_order_acquire); s; s = s->next)
        if (s->v == schema->v && s->n == schema->n && s->out_size == schema->out_size) return s;
    return make(schema, who, b);
}

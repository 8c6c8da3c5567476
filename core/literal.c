/* literal.c - a recursive-descent parser of literals:
 *     value = number | string | word | list      list = "{" [item {"," item} [","]] "}"      item = value | name "=" value */
#include "literal.h"
#include <ctype.h>
#include <errno.h>
#include <locale.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_DEPTH = 4, MAX_ITEMS = 32 };

typedef struct {
    const char *at, *begin;
    tdi_literal *store;
    char *why;
    size_t room;
} parser;

static locale_t c_locale;
static pthread_once_t c_locale_once = PTHREAD_ONCE_INIT;

static void make_c_locale(void) { c_locale = newlocale(LC_ALL_MASK, "C", (locale_t)0); }

static bool wrong(const parser *p, const char *what)
{
    snprintf(p->why, p->room, "%s at character %zu of '%.60s'", what, (size_t)(p->at - p->begin) + 1, p->begin);
    return false;
}

static void blanks(parser *p)
{
    while (isspace((unsigned char)*p->at)) p->at++;
}

/* Copies n characters and a NUL into the store. */
static const char *keep_text(parser *p, const char *s, size_t n)
{
    tdi_literal *t = p->store;
    if (n >= TDI_LITERAL_TEXT - t->n_text) {
        wrong(p, "too much text");
        return NULL;
    }
    char *to = t->text + t->n_text;
    memcpy(to, s, n);
    to[n] = 0;
    t->n_text += n + 1;
    return to;
}

static bool is_word(char c) { return isalnum((unsigned char)c) || c == '_'; }

static bool number(parser *p, td_value *v)
{
    pthread_once(&c_locale_once, make_c_locale);
    char *end;
    double d = c_locale ? strtod_l(p->at, &end, c_locale) : strtod(p->at, &end);
    if (end == p->at || is_word(*end) || *end == '.') return wrong(p, "no number");
    const char *s = p->at + (*p->at == '-' || *p->at == '+');
    size_t digits = strspn(s, "0123456789");
    errno = 0;
    long long i = s + digits == end ? strtoll(p->at, NULL, 10) : 0;
    if (s + digits == end && !errno) *v = (td_value){.type = TD_VAL_INT, .as.i = i};
    else *v = (td_value){.type = TD_VAL_NUM, .as.d = d};
    p->at = end;
    return true;
}

static bool string(parser *p, td_value *v)
{
    char quote = *p->at++;
    const char *from = p->at;
    while (*p->at && *p->at != quote && *p->at != '\\') p->at++;
    if (*p->at != quote) return wrong(p, *p->at ? "escapes are not known here" : "a string does not end");
    const char *s = keep_text(p, from, (size_t)(p->at - from));
    if (!s) return false;
    p->at++;
    *v = (td_value){.type = TD_VAL_STR, .as.s = s};
    return true;
}

static size_t word_length(const char *s)
{
    size_t n = 0;
    while (is_word(s[n])) n++;
    return n;
}

static bool is(const char *s, size_t n, const char *word) { return strlen(word) == n && !memcmp(s, word, n); }

static bool word(parser *p, td_value *v)
{
    size_t n = word_length(p->at);
    const char *s = p->at;
    if (is(s, n, "inf") || is(s, n, "nan")) return number(p, v);
    if (is(s, n, "true") || is(s, n, "false")) {
        *v = (td_value){.type = TD_VAL_BOOL, .as.b = *s == 't'};
    } else if (is(s, n, "nil")) {
        *v = (td_value){.type = TD_VAL_NIL};
    } else {
        const char *kept = keep_text(p, s, n);
        if (!kept) return false;
        *v = (td_value){.type = TD_VAL_STR, .as.s = kept};
    }
    p->at = s + n;
    return true;
}

static bool value(parser *p, td_value *v, int depth);

/* name "=" of a named item, or NULL and the place unchanged. */
static bool item_name(parser *p, const char **name)
{
    size_t n = isdigit((unsigned char)*p->at) ? 0 : word_length(p->at);
    const char *after = p->at + n;
    while (isspace((unsigned char)*after)) after++;
    *name = NULL;
    if (!n || *after != '=') return true;
    *name = keep_text(p, p->at, n);
    p->at = after + 1;
    return *name != NULL;
}

/* What stands between the braces. names: whether items may be named, which only the outermost list of arguments may have. */
static bool items(parser *p, td_value *list, bool names, int depth)
{
    td_value found[MAX_ITEMS];
    uint32_t n = 0;
    for (;;) {
        const char *name = NULL;
        td_value v;
        blanks(p);
        if (*p->at == '}') break;
        if (names && !item_name(p, &name)) return false;
        if (!value(p, &v, depth)) return false;
        if (name) {
            if (p->store->n_named == TDI_LITERAL_NAMED) return wrong(p, "too many named values");
            p->store->named[p->store->n_named++] = (td_named){name, v};
        } else {
            if (n == MAX_ITEMS) return wrong(p, "too many values");
            found[n++] = v;
        }
        blanks(p);
        if (*p->at == ',') p->at++;
        else if (*p->at != '}') return wrong(p, "expected ',' or '}'");
    }
    p->at++;
    if (n > TDI_LITERAL_ITEMS - p->store->n_item) return wrong(p, "too many values");
    td_value *to = p->store->item + p->store->n_item;
    memcpy(to, found, n * sizeof *to);
    p->store->n_item += n;
    *list = (td_value){.type = TD_VAL_LIST, .as.list = {to, n}};
    return true;
}

static bool value(parser *p, td_value *v, int depth)
{
    blanks(p);
    char c = *p->at;
    if (c == '{') {
        if (depth == MAX_DEPTH) return wrong(p, "lists are nested too deep");
        p->at++;
        return items(p, v, false, depth + 1);
    }
    if (c == '"' || c == '\'') return string(p, v);
    if (isdigit((unsigned char)c) || c == '-' || c == '+' || c == '.') return number(p, v);
    if (is_word(c)) return word(p, v);
    return wrong(p, "expected a value");
}

static parser begin(const char *text, tdi_literal *store, char *why, size_t room)
{
    store->n_item = store->n_named = 0;
    store->n_text = 0;
    return (parser){text, text, store, why, room};
}

static bool ended(parser *p)
{
    blanks(p);
    return !*p->at || wrong(p, "nothing was expected");
}

bool tdi_literal_value(const char *text, tdi_literal *store, td_value *v, char *why, size_t room)
{
    parser p = begin(text, store, why, room);
    return value(&p, v, 0) && ended(&p);
}

bool tdi_literal_args(const char *text, tdi_literal *store, td_args *args, char *why, size_t room)
{
    parser p = begin(text ? text : "", store, why, room);
    td_value list = {.type = TD_VAL_LIST};
    blanks(&p);
    if (*p.at) {
        if (*p.at != '{') return wrong(&p, "expected '{'");
        p.at++;
        if (!items(&p, &list, true, 1) || !ended(&p)) return false;
    }
    *args = (td_args){list.as.list.v, list.as.list.n, store->named, store->n_named};
    return true;
}

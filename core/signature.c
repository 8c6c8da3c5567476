/* signature.c - signatures of ops and layers: "x w b?", "p*& g* lr.", "y rstd!". The marks are explained in tide/op.h. */
#include "registry.h"
#include "schema.h"
#include <string.h>

static uint64_t *mark_of(tdi_sig *s, char mark)
{
    switch (mark) {
    case '?': return &s->optional;
    case '#': return &s->index;
    case '~': return &s->mask;
    case '!': return &s->aux;
    case '&': return &s->written;
    case '*': return &s->list;
    case '.': return &s->scalar;
    }
    return NULL;
}

static bool add_name(const char *who, const char *text, tdi_sig *s, const char *word, size_t n)
{
    size_t name = strcspn(word, "?#~!&*. ");
    if (s->n == TDI_MAX_NAMES)
        return td_fail_as(TD_EPLUGIN, "%s: signature \"%.100s\": at most %d names", who, text, TDI_MAX_NAMES);
    if (name > n) name = n;
    char *to = s->name[s->n];
    if (name >= sizeof s->name[0])
        return td_fail_as(TD_EPLUGIN, "%s: signature \"%.100s\": a name of more than %zu letters", who, text,
                          sizeof s->name[0] - 1);
    memcpy(to, word, name);
    to[name] = 0;
    if (!tdi_is_name(to, false))
        return td_fail_as(TD_EPLUGIN, "%s: signature \"%.100s\": \"%s\" is no name", who, text, to);
    for (uint32_t i = 0; i < s->n; i++)
        if (!strcmp(s->name[i], to))
            return td_fail_as(TD_EPLUGIN, "%s: signature \"%.100s\": there are two \"%s\"", who, text, to);
    for (size_t i = name; i < n; i++) {
        uint64_t *bits = mark_of(s, word[i]), bit = 1ull << s->n;
        if (!bits || *bits & bit)
            return td_fail_as(TD_EPLUGIN, "%s: signature \"%.100s\": '%c' after \"%s\" %s", who, text, word[i], to,
                              bits ? "is there twice" : "is no mark");
        *bits |= bit;
    }
    s->n++;
    return true;
}

bool tdi_sig_parse(const char *who, const char *text, tdi_sig *s)
{
    memset(s, 0, sizeof *s);
    if (tdi_failed()) return false;
    if (!text) text = "";
    for (const char *w = text + strspn(text, " "); *w;) {
        size_t n = strcspn(w, " ");
        if (!add_name(who, text, s, w, n)) return false;
        w += n;
        w += strspn(w, " ");
    }
    return true;
}

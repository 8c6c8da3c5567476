/* error.c - the pending error: the first failure records one sentence, and all waits until somebody takes it. */
#include "context.h"
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* Ends a text that was too long with a whole UTF-8 character: takes off the bytes of one that lacks its end. */
static void cut_clean(char *s)
{
    size_t n = strlen(s), lead = n;
    while (lead > 0 && n - lead < 4) {
        unsigned char b = (unsigned char)s[--lead];
        if (b < 0x80) return;
        if (b < 0xc0) continue;
        size_t len = b >= 0xf0 ? 4 : b >= 0xe0 ? 3 : 2;
        if (n - lead < len) s[lead] = 0;
        return;
    }
}

/* Into a buffer of its own first: the arguments may quote the message that is replaced. */
static void format(char *to, size_t room, const char *fmt, va_list args)
{
    int n = vsnprintf(to, room, fmt, args);
    if (n < 0) snprintf(to, room, "an error whose message could not be written");
    else if ((size_t)n >= room) cut_clean(to);
}

/* file and line say which check spoke; they are for a breakpoint here, not for the user. */
td_tensor *tdi_fail(td_status status, const char *file, int line, const char *fmt, ...)
{
    td_context *c = tdi_ctx();
    char text[sizeof c->msg];
    (void)file, (void)line;
    if (c->err) return NULL;
    va_list args;
    va_start(args, fmt);
    format(text, sizeof text, fmt, args);
    va_end(args);
    memcpy(c->msg, text, strlen(text) + 1);
    c->err = status == TD_OK ? TD_EINVAL : status;
    return NULL;
}

void tdi_error_prefix(const char *fmt, ...)
{
    td_context *c = tdi_ctx();
    char text[sizeof c->msg];
    if (!c->err) return;
    va_list args;
    va_start(args, fmt);
    format(text, sizeof text, fmt, args);
    va_end(args);
    size_t n = strlen(text), old = strlen(c->msg), kept = sizeof text - 1 - n;
    if (kept > old) kept = old;
    memcpy(text + n, c->msg, kept);
    text[n + kept] = 0;
    if (kept < old) cut_clean(text);
    memcpy(c->msg, text, strlen(text) + 1);
}

td_status tdi_error(void) { return tdi_ctx()->err; }

td_status td_error_take(const char **msg)
{
    td_context *c = tdi_ctx();
    td_status status = c->err;
    c->err = TD_OK;
    if (msg) *msg = status ? c->msg : "";
    return status;
}

/* edit_line.c - the line that is edited: bytes of UTF-8, the cursor between characters, columns on the screen. */
#include "edit_line.h"
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* ---- UTF-8 ---- */

/* The code point at s (of n bytes) and its length; a byte that begins none stands for itself. */
static uint32_t decode(const char *s, size_t n, size_t *len)
{
    unsigned char c = (unsigned char)*s;
    size_t want = c < 0x80 ? 1 : c >= 0xf0 ? 4 : c >= 0xe0 ? 3 : c >= 0xc2 ? 2 : 1;
    uint32_t u = want == 1 ? c : c & (0x7fu >> want);
    for (size_t i = 1; i < want; i++) {
        if (i >= n || ((unsigned char)s[i] & 0xc0) != 0x80) {
            *len = 1;
            return c;
        }
        u = u << 6 | ((unsigned char)s[i] & 0x3f);
    }
    *len = want;
    return u;
}

/* Columns of a code point: 0 for marks that combine, 2 for wide ones. */
static int columns(uint32_t u)
{
    static const uint32_t none[][2] = {{0x300, 0x36f}, {0x200b, 0x200f}, {0x20d0, 0x20ff}, {0xfe00, 0xfe0f}};
    static const uint32_t wide[][2] = {{0x1100, 0x115f},   {0x2e80, 0xa4cf},  {0xac00, 0xd7a3}, {0xf900, 0xfaff},
                                       {0xfe30, 0xfe6f},   {0xff00, 0xff60},  {0xffe0, 0xffe6}, {0x1f300, 0x1f64f},
                                       {0x1f900, 0x1f9ff}, {0x20000, 0x3fffd}};
    for (size_t i = 0; i < sizeof none / sizeof *none; i++)
        if (u >= none[i][0] && u <= none[i][1]) return 0;
    for (size_t i = 0; i < sizeof wide / sizeof *wide; i++)
        if (u >= wide[i][0] && u <= wide[i][1]) return 2;
    return 1;
}

int edit_width(const char *s, size_t n)
{
    int w = 0;
    size_t len;
    for (size_t i = 0; i < n; i += len) w += columns(decode(s + i, n - i, &len));
    return w;
}

/* ---- the line ---- */

static bool make_room(edit_line *l, size_t more)
{
    if (l->n + more < l->room) return true;
    size_t room = (l->n + more + 1) * 2;
    char *s = realloc(l->s, room);
    if (!s) return false;
    l->s = s;
    l->room = room;
    return true;
}

void edit_insert(edit_line *l, const char *s, size_t n)
{
    if (!make_room(l, n)) return;
    memmove(l->s + l->at + n, l->s + l->at, l->n - l->at + 1);
    memcpy(l->s + l->at, s, n);
    l->n += n;
    l->at += n;
}

void edit_set(edit_line *l, const char *s)
{
    l->n = l->at = 0;
    if (!make_room(l, strlen(s))) return;
    strcpy(l->s, s);
    l->n = l->at = strlen(s);
}

void edit_erase(edit_line *l, size_t from, size_t to, bool keep)
{
    if (keep && to > from) {
        free(l->killed);
        l->killed = strndup(l->s + from, to - from);
    }
    memmove(l->s + from, l->s + to, l->n - to + 1);
    l->n -= to - from;
    l->at = from;
}

/* One character to the left or right, with the marks that combine with it. */
size_t edit_left_of(const edit_line *l, size_t at)
{
    size_t len;
    do {
        if (!at) return 0;
        do at--;
        while (at && ((unsigned char)l->s[at] & 0xc0) == 0x80);
    } while (at && columns(decode(l->s + at, l->n - at, &len)) == 0);
    return at;
}

size_t edit_right_of(const edit_line *l, size_t at)
{
    size_t len;
    if (at >= l->n) return l->n;
    decode(l->s + at, l->n - at, &len);
    at += len;
    while (at < l->n && columns(decode(l->s + at, l->n - at, &len)) == 0) at += len;
    return at;
}

static bool is_word(char c)
{
    return c == '_' || (unsigned char)c >= 0x80 || (c >= '0' && c <= '9') || ((c | 32) >= 'a' && (c | 32) <= 'z');
}

size_t edit_word_left(const edit_line *l)
{
    size_t at = l->at;
    while (at && !is_word(l->s[at - 1])) at--;
    while (at && is_word(l->s[at - 1])) at--;
    return at;
}

size_t edit_word_right(const edit_line *l)
{
    size_t at = l->at;
    while (at < l->n && !is_word(l->s[at])) at++;
    while (at < l->n && is_word(l->s[at])) at++;
    return at;
}

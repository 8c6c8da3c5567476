/* edit_line.h - what the files of the line editor share: the line, keys, widths of characters, the history's lines. */
#ifndef TIDE_LUA_EDIT_LINE_H
#define TIDE_LUA_EDIT_LINE_H
#include "edit.h"

/* ---- the line: edit_line.c ---- */

typedef struct {
    char *s;
    size_t n, room, at; /* bytes, room, cursor */
    const char *prompt;
    int place;    /* in the history; as many as there are: the new line */
    char *kept;   /* the new line while older ones are looked at */
    char *killed; /* Ctrl-K, Ctrl-U, Ctrl-W for Ctrl-Y */
} edit_line;

void edit_insert(edit_line *l, const char *s, size_t n);
void edit_set(edit_line *l, const char *s);
/** keep: for Ctrl-Y. */
void edit_erase(edit_line *l, size_t from, size_t to, bool keep);
/** The place one character, or one word, before or behind. */
size_t edit_left_of(const edit_line *l, size_t at);
size_t edit_right_of(const edit_line *l, size_t at);
size_t edit_word_left(const edit_line *l);
size_t edit_word_right(const edit_line *l);
/** Columns that n bytes of UTF-8 take on the screen. */
int edit_width(const char *s, size_t n);

/* ---- keys: edit_keys.c ---- */

enum {
    KEY_NONE = 1000,
    KEY_LEFT,
    KEY_RIGHT,
    KEY_UP,
    KEY_DOWN,
    KEY_HOME,
    KEY_END,
    KEY_DELETE,
    KEY_WORD_LEFT,
    KEY_WORD_RIGHT,
    KEY_KILL_WORD,
    KEY_EOF
};

/** The next key: a byte, or one of those. */
int edit_key(void);
/** The next byte, or KEY_EOF. */
int edit_byte(void);

/* ---- the history: edit_history.c ---- */

int edit_history_count(void);
const char *edit_history_line(int i);

#endif

/* edit.c - the line editor: one line that scrolls sideways, the usual Emacs and arrow keys, UTF-8, history, Tab, Ctrl-R. */
#include "edit_line.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

/* ---- older lines ---- */

static void go_history(edit_line *l, int to)
{
    if (to < 0 || to > edit_history_count() || to == l->place) return;
    if (l->place == edit_history_count()) {
        free(l->kept);
        l->kept = strdup(l->s);
    }
    l->place = to;
    edit_set(l, to == edit_history_count() ? (l->kept ? l->kept : "") : edit_history_line(to));
}

/* ---- the screen ---- */

static void put(const char *s, size_t n)
{
    while (n) {
        ssize_t w = write(STDOUT_FILENO, s, n);
        if (w < 0 && errno != EINTR) return;
        if (w > 0) s += w, n -= (size_t)w;
    }
}
static void puts_raw(const char *s) { put(s, strlen(s)); }

static int terminal_columns(void)
{
    struct winsize w;
    return ioctl(STDOUT_FILENO, TIOCGWINSZ, &w) == 0 && w.ws_col > 4 ? w.ws_col : 80;
}

/* Draws the part of the line around the cursor that fits beside the prompt. */
static void draw(const edit_line *l)
{
    int room = terminal_columns() - 1 - edit_width(l->prompt, strlen(l->prompt));
    size_t from = 0, to;
    char move[32];
    if (room < 8) room = 8;
    while (edit_width(l->s + from, l->at - from) > room) from = edit_right_of(l, from);
    for (to = l->at; to < l->n && edit_width(l->s + from, edit_right_of(l, to) - from) <= room;)
        to = edit_right_of(l, to);
    puts_raw("\r");
    puts_raw(l->prompt);
    put(l->s + from, to - from);
    puts_raw("\x1b[K\r");
    int at = edit_width(l->prompt, strlen(l->prompt)) + edit_width(l->s + from, l->at - from);
    if (at > 0) {
        snprintf(move, sizeof move, "\x1b[%dC", at);
        puts_raw(move);
    }
}

/* The rest of a character whose first byte was read. */
static void insert_character(edit_line *l, int first)
{
    char s[4] = {(char)first};
    size_t n = 1, want = first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : first >= 0xc2 ? 2 : 1;
    while (n < want) {
        int c = edit_byte();
        if (c == KEY_EOF) return;
        s[n++] = (char)c;
    }
    edit_insert(l, s, n);
}

/* ---- completion ---- */

void edit_words_add(edit_words *w, const char *word, size_t len)
{
    for (int i = 0; i < w->n; i++)
        if (strlen(w->word[i]) == len && !memcmp(w->word[i], word, len)) return;
    if (w->n == w->room) {
        int room = w->room ? w->room * 2 : 32;
        char **p = realloc(w->word, (size_t)room * sizeof *p);
        if (!p) return;
        w->word = p;
        w->room = room;
    }
    char *copy = strndup(word, len);
    if (copy) w->word[w->n++] = copy;
}

static int by_name(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

static size_t common_length(const edit_words *w)
{
    size_t n = strlen(w->word[0]);
    for (int i = 1; i < w->n; i++) {
        size_t k = 0;
        while (k < n && w->word[i][k] == w->word[0][k]) k++;
        n = k;
    }
    return n;
}

/* The words below the line, in columns. */
static void show_words(const edit_words *w)
{
    int widest = 1, room = terminal_columns();
    for (int i = 0; i < w->n; i++) {
        int width = edit_width(w->word[i], strlen(w->word[i]));
        if (width > widest) widest = width;
    }
    int per_line = room / (widest + 2) ? room / (widest + 2) : 1, rows = (w->n + per_line - 1) / per_line;
    puts_raw("\r\n");
    for (int r = 0; r < rows; r++) {
        for (int i = r; i < w->n; i += rows) {
            puts_raw(w->word[i]);
            int pad = widest + 2 - edit_width(w->word[i], strlen(w->word[i]));
            while (i + rows < w->n && pad-- > 0) puts_raw(" ");
        }
        puts_raw("\r\n");
    }
}

static void press_tab(edit_line *l, edit_complete *complete, void *arg)
{
    edit_words w = {0};
    size_t blank = strspn(l->s, " \t");
    if (blank >= l->at || !complete) { /* at the beginning of a line it indents */
        edit_insert(l, "  ", 2);
        return;
    }
    complete(arg, l->s, l->at, &w);
    if (w.note) {
        puts_raw("\r\n");
        puts_raw(w.note);
        puts_raw("\r\n");
    }
    if (w.n) {
        size_t have = l->at - w.from, common = common_length(&w);
        qsort(w.word, (size_t)w.n, sizeof *w.word, by_name);
        if (common > have) edit_insert(l, w.word[0] + have, common - have);
        else if (w.n > 1) show_words(&w);
    }
    for (int i = 0; i < w.n; i++) free(w.word[i]);
    free(w.word);
    free(w.note);
}

/* ---- Ctrl-R: the newest line that holds what is typed ---- */

static int find_back(const char *text, int from)
{
    for (int i = from; i >= 0; i--)
        if (strcasestr(edit_history_line(i), text)) return i;
    return -1;
}

/* Returns the key that ended it, which the caller then obeys. */
static int search(edit_line *l)
{
    char text[128] = "", prompt[192];
    size_t n = 0;
    int found = -1, key;
    const char *before = l->prompt;
    for (;;) {
        snprintf(prompt, sizeof prompt, n && found < 0 ? "(not found) '%s': " : "(search) '%s': ", text);
        l->prompt = prompt;
        draw(l);
        l->prompt = before;
        key = edit_key();
        if (key == 18) {
            int next = found > 0 ? find_back(text, found - 1) : -1;
            if (next >= 0) found = next;
        } else if ((key == 127 || key == 8) && n) {
            while (n && ((unsigned char)text[--n] & 0xc0) == 0x80) continue;
            text[n] = 0;
            found = find_back(text, edit_history_count() - 1);
        } else if (key >= 32 && key < 256 && key != 127 && n + 1 < sizeof text) {
            text[n++] = (char)key;
            text[n] = 0;
            found = find_back(text, found >= 0 ? found : edit_history_count() - 1);
        } else {
            break;
        }
        if (found >= 0) go_history(l, found);
    }
    return key == 7 ? KEY_NONE : key; /* Ctrl-G only leaves */
}

/* ---- reading ---- */

/* Obeys a key that neither ends the line nor needs more than the line. */
static void obey(edit_line *l, int key)
{
    switch (key) {
    case 1:
    case KEY_HOME: l->at = 0; break;
    case 5:
    case KEY_END: l->at = l->n; break;
    case 2:
    case KEY_LEFT: l->at = edit_left_of(l, l->at); break;
    case 6:
    case KEY_RIGHT: l->at = edit_right_of(l, l->at); break;
    case KEY_WORD_LEFT: l->at = edit_word_left(l); break;
    case KEY_WORD_RIGHT: l->at = edit_word_right(l); break;
    case 16:
    case KEY_UP: go_history(l, l->place - 1); break;
    case 14:
    case KEY_DOWN: go_history(l, l->place + 1); break;
    case 8:
    case 127: edit_erase(l, edit_left_of(l, l->at), l->at, false); break;
    case 4:
    case KEY_DELETE: {
        size_t at = l->at;
        edit_erase(l, at, edit_right_of(l, at), false);
        break;
    }
    case 11: edit_erase(l, l->at, l->n, true); break;
    case 21: edit_erase(l, 0, l->at, true); break;
    case 23:
    case KEY_KILL_WORD: edit_erase(l, edit_word_left(l), l->at, true); break;
    case 25:
        if (l->killed) edit_insert(l, l->killed, strlen(l->killed));
        break;
    case 12: puts_raw("\x1b[H\x1b[2J"); break;
    default:
        if (key >= 32 && key < 256) insert_character(l, key);
        break;
    }
}

static edit_result read_keys(edit_line *l, edit_complete *complete, void *arg)
{
    for (;;) {
        draw(l);
        int key = edit_key();
        if (key == 18) key = search(l);
        if (key == '\r' || key == '\n') return EDIT_LINE;
        if (key == KEY_EOF || (key == 4 && l->n == 0)) return EDIT_END;
        if (key == 3) return EDIT_INTERRUPTED;
        if (key == '\t') press_tab(l, complete, arg);
        else obey(l, key);
    }
}

edit_result edit_read(const char *prompt, edit_complete *complete, void *arg, char **line)
{
    struct termios before, raw;
    edit_line l = {.prompt = prompt, .place = edit_history_count()};
    *line = NULL;
    if (tcgetattr(STDIN_FILENO, &before)) return EDIT_END;
    edit_set(&l, "");
    if (!l.s) return EDIT_END;
    raw = before;
    raw.c_iflag &= ~(tcflag_t)(BRKINT | ICRNL | INPCK | ISTRIP | IXON);
    raw.c_lflag &= ~(tcflag_t)(ECHO | ICANON | IEXTEN | ISIG);
    raw.c_cc[VMIN] = 1;
    raw.c_cc[VTIME] = 0;
    fflush(stdout);
    if (tcsetattr(STDIN_FILENO, TCSADRAIN, &raw)) {
        free(l.s);
        return EDIT_END;
    }
    edit_result r = read_keys(&l, complete, arg);
    if (r == EDIT_LINE) {
        l.at = l.n;
        draw(&l);
    }
    puts_raw("\r\n");
    tcsetattr(STDIN_FILENO, TCSADRAIN, &before);
    free(l.kept);
    free(l.killed);
    if (r == EDIT_LINE) *line = l.s;
    else free(l.s);
    return r;
}

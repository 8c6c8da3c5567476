/* edit.c - the line editor: one line that scrolls sideways, the usual Emacs and arrow keys, UTF-8, history, Tab, Ctrl-R. */
#include "edit.h"
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

enum { HISTORY = 1000 };

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

static int width_of(const char *s, size_t n)
{
    int w = 0;
    size_t len;
    for (size_t i = 0; i < n; i += len) w += columns(decode(s + i, n - i, &len));
    return w;
}

/* ---- history ---- */

static char *history[HISTORY];
static int history_n;
static char *history_path;

static void remember(const char *line)
{
    if (history_n && !strcmp(history[history_n - 1], line)) return;
    char *copy = strdup(line);
    if (!copy) return;
    if (history_n == HISTORY) {
        free(history[0]);
        memmove(history, history + 1, (HISTORY - 1) * sizeof *history);
        history_n--;
    }
    history[history_n++] = copy;
}

static void write_lines(const char *mode, int first)
{
    int flags = O_WRONLY | O_CREAT | O_CLOEXEC | (*mode == 'a' ? O_APPEND : O_TRUNC);
    int fd = open(history_path, flags, 0600);
    FILE *f = fd < 0 ? NULL : fdopen(fd, mode);
    if (!f) {
        if (fd >= 0) close(fd);
        return; /* no history on this machine: nothing to tell anybody */
    }
    for (int i = first; i < history_n; i++) fprintf(f, "%s\n", history[i]);
    fclose(f);
}

void edit_history_add(const char *line)
{
    int before = history_n;
    if (!*line || strspn(line, " \t") == strlen(line)) return;
    const char *last = before ? history[before - 1] : NULL;
    if (last && !strcmp(last, line)) return;
    remember(line);
    if (history_path && history_n) write_lines("a", history_n - 1);
}

void edit_history_open(const char *path)
{
    char *line = NULL;
    size_t room = 0;
    int read = 0;
    free(history_path);
    history_path = strdup(path);
    FILE *f = fopen(path, "re");
    if (!f) return;
    for (ssize_t n; (n = getline(&line, &room, f)) >= 0; read++) {
        while (n > 0 && (line[n - 1] == '\n' || line[n - 1] == '\r')) line[--n] = 0;
        if (n && strlen(line) == (size_t)n) remember(line);
    }
    free(line);
    fclose(f);
    if (history_path && read > 2 * HISTORY) write_lines("w", 0);
}

void edit_history_close(void)
{
    while (history_n) free(history[--history_n]);
    free(history_path);
    history_path = NULL;
}

/* ---- the line ---- */

typedef struct {
    char *s;
    size_t n, room, at; /* bytes, room, cursor */
    const char *prompt;
    int place;    /* in the history; history_n: the new line */
    char *kept;   /* the new line while older ones are looked at */
    char *killed; /* Ctrl-K, Ctrl-U, Ctrl-W for Ctrl-Y */
} line_state;

static bool make_room(line_state *l, size_t more)
{
    if (l->n + more < l->room) return true;
    size_t room = (l->n + more + 1) * 2;
    char *s = realloc(l->s, room);
    if (!s) return false;
    l->s = s;
    l->room = room;
    return true;
}

static void insert(line_state *l, const char *s, size_t n)
{
    if (!make_room(l, n)) return;
    memmove(l->s + l->at + n, l->s + l->at, l->n - l->at + 1);
    memcpy(l->s + l->at, s, n);
    l->n += n;
    l->at += n;
}

static void set_line(line_state *l, const char *s)
{
    l->n = l->at = 0;
    if (!make_room(l, strlen(s))) return;
    strcpy(l->s, s);
    l->n = l->at = strlen(s);
}

static void erase(line_state *l, size_t from, size_t to, bool keep)
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
static size_t left_of(const line_state *l, size_t at)
{
    size_t len;
    do {
        if (!at) return 0;
        do at--;
        while (at && ((unsigned char)l->s[at] & 0xc0) == 0x80);
    } while (at && columns(decode(l->s + at, l->n - at, &len)) == 0);
    return at;
}

static size_t right_of(const line_state *l, size_t at)
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

static size_t word_left(const line_state *l)
{
    size_t at = l->at;
    while (at && !is_word(l->s[at - 1])) at--;
    while (at && is_word(l->s[at - 1])) at--;
    return at;
}

static size_t word_right(const line_state *l)
{
    size_t at = l->at;
    while (at < l->n && !is_word(l->s[at])) at++;
    while (at < l->n && is_word(l->s[at])) at++;
    return at;
}

static void go_history(line_state *l, int to)
{
    if (to < 0 || to > history_n || to == l->place) return;
    if (l->place == history_n) {
        free(l->kept);
        l->kept = strdup(l->s);
    }
    l->place = to;
    set_line(l, to == history_n ? (l->kept ? l->kept : "") : history[to]);
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
static void draw(const line_state *l)
{
    int room = terminal_columns() - 1 - width_of(l->prompt, strlen(l->prompt));
    size_t from = 0, to;
    char move[32];
    if (room < 8) room = 8;
    while (width_of(l->s + from, l->at - from) > room) from = right_of(l, from);
    for (to = l->at; to < l->n && width_of(l->s + from, right_of(l, to) - from) <= room;) to = right_of(l, to);
    puts_raw("\r");
    puts_raw(l->prompt);
    put(l->s + from, to - from);
    puts_raw("\x1b[K\r");
    int at = width_of(l->prompt, strlen(l->prompt)) + width_of(l->s + from, l->at - from);
    if (at > 0) {
        snprintf(move, sizeof move, "\x1b[%dC", at);
        puts_raw(move);
    }
}

/* ---- keys ---- */

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

static int read_byte(void)
{
    unsigned char c;
    ssize_t n;
    do n = read(STDIN_FILENO, &c, 1);
    while (n < 0 && errno == EINTR);
    return n == 1 ? c : KEY_EOF;
}

static bool more_comes(void)
{
    struct pollfd p = {STDIN_FILENO, POLLIN, 0};
    return poll(&p, 1, 50) > 0;
}

/* What follows ESC [ : parameters, then a letter or ~ */
static int read_csi(void)
{
    int number = 0, modifier = 0, c;
    for (;;) {
        c = read_byte();
        if (c == KEY_EOF) return KEY_EOF;
        if (c >= '0' && c <= '9') {
            if (number < 10000) number = number * 10 + c - '0';
        } else if (c == ';') {
            modifier = 1;
            number = 0;
        } else {
            break;
        }
    }
    bool word = modifier && (number == 5 || number == 3); /* Ctrl or Alt */
    switch (c) {
    case 'A': return KEY_UP;
    case 'B': return KEY_DOWN;
    case 'C': return word ? KEY_WORD_RIGHT : KEY_RIGHT;
    case 'D': return word ? KEY_WORD_LEFT : KEY_LEFT;
    case 'H': return KEY_HOME;
    case 'F': return KEY_END;
    case '~':
        return number == 1 || number == 7   ? KEY_HOME
               : number == 4 || number == 8 ? KEY_END
               : number == 3                ? KEY_DELETE
                                            : KEY_NONE;
    default: return KEY_NONE;
    }
}

static int read_key(void)
{
    int c = read_byte();
    if (c != 27) return c;
    if (!more_comes()) return KEY_NONE; /* Escape alone */
    c = read_byte();
    switch (c) {
    case '[': return read_csi();
    case 'O': return read_csi();
    case 'b': return KEY_WORD_LEFT;
    case 'f': return KEY_WORD_RIGHT;
    case 127: return KEY_KILL_WORD;
    default: return c == KEY_EOF ? c : KEY_NONE;
    }
}

/* The rest of a character whose first byte was read. */
static void insert_character(line_state *l, int first)
{
    char s[4] = {(char)first};
    size_t n = 1, want = first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : first >= 0xc2 ? 2 : 1;
    while (n < want) {
        int c = read_byte();
        if (c == KEY_EOF) return;
        s[n++] = (char)c;
    }
    insert(l, s, n);
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
        int width = width_of(w->word[i], strlen(w->word[i]));
        if (width > widest) widest = width;
    }
    int per_line = room / (widest + 2) ? room / (widest + 2) : 1, rows = (w->n + per_line - 1) / per_line;
    puts_raw("\r\n");
    for (int r = 0; r < rows; r++) {
        for (int i = r; i < w->n; i += rows) {
            puts_raw(w->word[i]);
            int pad = widest + 2 - width_of(w->word[i], strlen(w->word[i]));
            while (i + rows < w->n && pad-- > 0) puts_raw(" ");
        }
        puts_raw("\r\n");
    }
}

static void press_tab(line_state *l, edit_complete *complete, void *arg)
{
    edit_words w = {0};
    size_t blank = strspn(l->s, " \t");
    if (blank >= l->at || !complete) { /* at the beginning of a line it indents */
        insert(l, "  ", 2);
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
        if (common > have) insert(l, w.word[0] + have, common - have);
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
        if (strcasestr(history[i], text)) return i;
    return -1;
}

/* Returns the key that ended it, which the caller then obeys. */
static int search(line_state *l)
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
        key = read_key();
        if (key == 18) {
            int next = found > 0 ? find_back(text, found - 1) : -1;
            if (next >= 0) found = next;
        } else if ((key == 127 || key == 8) && n) {
            while (n && ((unsigned char)text[--n] & 0xc0) == 0x80) continue;
            text[n] = 0;
            found = find_back(text, history_n - 1);
        } else if (key >= 32 && key < 256 && key != 127 && n + 1 < sizeof text) {
            text[n++] = (char)key;
            text[n] = 0;
            found = find_back(text, found >= 0 ? found : history_n - 1);
        } else {
            break;
        }
        if (found >= 0) go_history(l, found);
    }
    return key == 7 ? KEY_NONE : key; /* Ctrl-G only leaves */
}

/* ---- reading ---- */

/* Obeys a key that neither ends the line nor needs more than the line. */
static void obey(line_state *l, int key)
{
    switch (key) {
    case 1:
    case KEY_HOME: l->at = 0; break;
    case 5:
    case KEY_END: l->at = l->n; break;
    case 2:
    case KEY_LEFT: l->at = left_of(l, l->at); break;
    case 6:
    case KEY_RIGHT: l->at = right_of(l, l->at); break;
    case KEY_WORD_LEFT: l->at = word_left(l); break;
    case KEY_WORD_RIGHT: l->at = word_right(l); break;
    case 16:
    case KEY_UP: go_history(l, l->place - 1); break;
    case 14:
    case KEY_DOWN: go_history(l, l->place + 1); break;
    case 8:
    case 127: erase(l, left_of(l, l->at), l->at, false); break;
    case 4:
    case KEY_DELETE: {
        size_t at = l->at;
        erase(l, at, right_of(l, at), false);
        break;
    }
    case 11: erase(l, l->at, l->n, true); break;
    case 21: erase(l, 0, l->at, true); break;
    case 23:
    case KEY_KILL_WORD: erase(l, word_left(l), l->at, true); break;
    case 25:
        if (l->killed) insert(l, l->killed, strlen(l->killed));
        break;
    case 12: puts_raw("\x1b[H\x1b[2J"); break;
    default:
        if (key >= 32 && key < 256) insert_character(l, key);
        break;
    }
}

static edit_result read_keys(line_state *l, edit_complete *complete, void *arg)
{
    for (;;) {
        draw(l);
        int key = read_key();
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
    line_state l = {.prompt = prompt, .place = history_n};
    *line = NULL;
    if (tcgetattr(STDIN_FILENO, &before)) return EDIT_END;
    set_line(&l, "");
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

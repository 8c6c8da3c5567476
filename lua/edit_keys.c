/* edit_keys.c - keys from the bytes that a terminal sends. */
#include "edit_line.h"
#include <errno.h>
#include <poll.h>
#include <unistd.h>

int edit_byte(void)
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
        c = edit_byte();
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

int edit_key(void)
{
    int c = edit_byte();
    if (c != 27) return c;
    if (!more_comes()) return KEY_NONE; /* Escape alone */
    c = edit_byte();
    switch (c) {
    case '[': return read_csi();
    case 'O': return read_csi();
    case 'b': return KEY_WORD_LEFT;
    case 'f': return KEY_WORD_RIGHT;
    case 127: return KEY_KILL_WORD;
    default: return c == KEY_EOF ? c : KEY_NONE;
    }
}

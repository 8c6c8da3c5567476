/* edit.h - a small line editor for terminals: keys, history, completion. It knows nothing of Lua. */
#ifndef TIDE_LUA_EDIT_H
#define TIDE_LUA_EDIT_H
#include <stdbool.h>
#include <stddef.h>

typedef enum { EDIT_LINE, EDIT_END, EDIT_INTERRUPTED } edit_result;

/** What may stand in place of line[from..cursor). Words are owned by the list. */
typedef struct {
    char **word;
    int n, room;
    size_t from;
    char *note; /* shown below the line, or NULL */
} edit_words;
void edit_words_add(edit_words *, const char *word, size_t len);

typedef void edit_complete(void *arg, const char *line, size_t cursor, edit_words *to);

/** Reads one line from the terminal on stdin; *line is malloc'd and the caller's. */
edit_result edit_read(const char *prompt, edit_complete *complete, void *arg, char **line);

/** Adds a line to the history, and to its file where there is one. */
void edit_history_add(const char *line);
/** Loads the history from a file, which later lines are appended to. A missing one is fine. */
void edit_history_open(const char *path);
void edit_history_close(void);

#endif

/* edit_history.c - lines that were read, in memory and in a file. */
#include "edit_line.h"
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { HISTORY = 1000 };

static char *history[HISTORY];
static int history_n;
static char *history_path;

int edit_history_count(void) { return history_n; }
const char *edit_history_line(int i) { return history[i]; }

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

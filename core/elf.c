/* elf.c - finds section .tide in an ELF64 shared object and checks its text. Every offset and length in the file is a claim:
 * nothing is read before it has been compared with the size of the file. Source: System V ABI, chapters 4 and 5; elf.h. */
#include "metadata.h"
#include <elf.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MAX_SECTIONS = 4096, MAX_NAMES = 1 << 20, MAX_TEXT = 1 << 16, MAX_SEGMENTS = 256 };

#if defined(__x86_64__)
enum { MACHINE = EM_X86_64 };
#define MACHINE_NAME "x86-64"
#elif defined(__aarch64__)
enum { MACHINE = EM_AARCH64 };
#define MACHINE_NAME "aarch64"
#else
#error "plugins are known on x86-64 and aarch64"
#endif

/* Bytes in memory, or a file. */
typedef struct {
    const uint8_t *bytes;
    int fd;
    uint64_t size;
    char *why;
    size_t room;
} source;

static bool no(const source *s, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static bool no(const source *s, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(s->why, s->room, fmt, ap);
    va_end(ap);
    return false;
}

static bool fetch(const source *s, uint64_t off, uint64_t n, void *to, const char *what)
{
    if (off > s->size || n > s->size - off)
        return no(s, "the file is cut short or damaged: %s should end at byte %llu, the file has %llu", what,
                  (unsigned long long)(off + n < off ? UINT64_MAX : off + n), (unsigned long long)s->size);
    if (s->bytes) {
        memcpy(to, s->bytes + off, n);
        return true;
    }
    for (uint64_t at = 0; at < n;) {
        ssize_t got = pread(s->fd, (char *)to + at, n - at, (off_t)(off + at));
        if (got <= 0) return no(s, "cannot be read: %s", what);
        at += (uint64_t)got;
    }
    return true;
}

/* fetch to fresh memory with a NUL after it. */
static void *fetch_new(const source *s, uint64_t off, uint64_t n, const char *what)
{
    char *p = malloc(n + 1);
    if (!p) {
        no(s, "out of memory");
        return NULL;
    }
    if (!fetch(s, off, n, p, what)) {
        free(p);
        return NULL;
    }
    p[n] = 0;
    return p;
}

static const char *machine_name(unsigned m)
{
    return m == EM_X86_64    ? "x86-64"
           : m == EM_AARCH64 ? "aarch64"
           : m == EM_386     ? "32-bit x86"
           : m == EM_ARM     ? "32-bit ARM"
                             : "another machine";
}

static bool read_header(const source *s, Elf64_Ehdr *h)
{
    if (s->size < EI_NIDENT || !fetch(s, 0, EI_NIDENT, h->e_ident, "the ELF header") ||
        memcmp(h->e_ident, ELFMAG, SELFMAG))
        return no(s, "is no ELF file; a plugin is a shared object for " MACHINE_NAME);
    if (h->e_ident[EI_CLASS] != ELFCLASS64)
        return no(s, "is a %s-bit ELF file; needed is a 64-bit one for " MACHINE_NAME,
                  h->e_ident[EI_CLASS] == ELFCLASS32 ? "32" : "?");
    if (h->e_ident[EI_DATA] != ELFDATA2LSB)
        return no(s, "is a big-endian ELF file; needed is a little-endian one for " MACHINE_NAME);
    if (!fetch(s, 0, sizeof *h, h, "the ELF header")) return false;
    if (h->e_machine != MACHINE)
        return no(s, "is built for %s (ELF machine %u); needed is " MACHINE_NAME, machine_name(h->e_machine),
                  h->e_machine);
    if (h->e_type != ET_DYN)
        return no(s, "is no shared object (ELF type %u); needed is one linked with -shared", h->e_type);
    return true;
}

/* What the loader will map must lie in the file: a file cut short would be mapped and then fault. */
static bool check_segments(const source *s, const Elf64_Ehdr *h)
{
    if (h->e_phnum > MAX_SEGMENTS || h->e_phentsize != sizeof(Elf64_Phdr))
        return no(s, "is damaged: %u segments with entries of %u bytes", h->e_phnum, h->e_phentsize);
    for (unsigned i = 0; i < h->e_phnum; i++) {
        Elf64_Phdr p;
        uint64_t off = h->e_phoff + i * sizeof p;
        if (off < h->e_phoff) return no(s, "is damaged: its segment table lies outside the file");
        if (!fetch(s, off, sizeof p, &p, "its segment table")) return false;
        if (p.p_type == PT_LOAD && (p.p_offset > s->size || p.p_filesz > s->size - p.p_offset))
            return no(s, "the file is cut short or damaged: a segment lies outside its %llu bytes",
                      (unsigned long long)s->size);
    }
    return true;
}

/* The section by name among `n` headers; false when there is none. names: n_names bytes and a NUL. */
static bool find_section(const Elf64_Shdr *v, unsigned n, const char *names, uint64_t n_names, const char *name,
                         Elf64_Shdr *found)
{
    for (unsigned i = 0; i < n; i++)
        if (v[i].sh_name < n_names && !strcmp(names + v[i].sh_name, name)) {
            *found = v[i];
            return true;
        }
    return false;
}

static char *read_section(const source *s, const Elf64_Ehdr *h, uint64_t *size)
{
    Elf64_Shdr *v = NULL, found;
    char *names = NULL, *text = NULL;
    if (!h->e_shnum || h->e_shnum > MAX_SECTIONS || h->e_shentsize != sizeof *v || h->e_shstrndx >= h->e_shnum) {
        no(s, "has no usable section table (%u sections), so no section .tide, which TD_PLUGIN makes", h->e_shnum);
        return NULL;
    }
    v = fetch_new(s, h->e_shoff, (uint64_t)h->e_shnum * sizeof *v, "its section table");
    if (!v) return NULL;
    const Elf64_Shdr *n = &v[h->e_shstrndx];
    if (n->sh_size > MAX_NAMES) no(s, "is damaged: %llu bytes of section names", (unsigned long long)n->sh_size);
    else names = fetch_new(s, n->sh_offset, n->sh_size, "its section names");
    if (names) {
        if (!find_section(v, h->e_shnum, names, n->sh_size, ".tide", &found))
            no(s, "is no Tide plugin: it has no section .tide, which TD_PLUGIN makes");
        else if (found.sh_type == SHT_NOBITS || !found.sh_size || found.sh_size > MAX_TEXT)
            no(s, "its section .tide has %llu bytes; expected is a text of 1 to %d", (unsigned long long)found.sh_size,
               MAX_TEXT);
        else if ((text = fetch_new(s, found.sh_offset, found.sh_size, "its section .tide"))) *size = found.sh_size;
    }
    free(names);
    free(v);
    return text;
}

/* ---- the text ---- */

static bool check_text(const source *s, const char *t, uint64_t size)
{
    uint64_t n = strlen(t);
    for (uint64_t i = n; i < size; i++)
        if (t[i])
            return no(s,
                      "the text in section .tide is damaged: there is more after its end (is TD_PLUGIN used twice?)");
    for (uint64_t i = 0; i < n; i++)
        if ((unsigned char)t[i] < ' ' && t[i] != '\n')
            return no(s, "the text in section .tide is damaged: byte %llu is %u", (unsigned long long)i,
                      (unsigned char)t[i]);
    if (strncmp(t, "tide\n", 5) || t[n - 1] != '\n')
        return no(s, "the text in section .tide is damaged: expected are lines that begin with \"tide\"");
    return true;
}

static bool parse_abi(const char *s, unsigned *major, unsigned *minor)
{
    char end;
    return strlen(s) < 12 && sscanf(s, "%5u.%5u%c", major, minor, &end) == 2;
}

/* Words of provides are one space apart, each with a colon inside. */
static bool tidy_provides(char *s)
{
    char *to = s;
    for (char *w = strtok_r(s, " ", &s); w; w = strtok_r(NULL, " ", &s)) {
        size_t n = strlen(w);
        char *colon = strchr(w, ':');
        if (!colon || colon == w || colon == w + n - 1) return false;
        memmove(to, w, n);
        to += n;
        *to++ = ' ';
    }
    if (to[-1] == ' ') to--;
    *to = 0;
    return true;
}

static bool parse_lines(const source *s, tdi_meta *m)
{
    const char *abi = NULL;
    char *provides = NULL, *rest = m->text + 5;
    while (*rest) {
        char *line = rest, *end = strchr(line, '\n');
        *end = 0;
        rest = end + 1;
        char *eq = strchr(line, '=');
        if (!eq) return no(s, "the text in section .tide is damaged: no '=' in \"%.40s\"", line);
        *eq = 0;
        const char **field = !strcmp(line, "abi")        ? &abi
                             : !strcmp(line, "name")     ? &m->name
                             : !strcmp(line, "version")  ? &m->version
                             : !strcmp(line, "licence")  ? &m->licence
                             : !strcmp(line, "provides") ? &m->provides
                                                         : NULL;
        if (!field) continue; /* a later minor version may say more */
        if (*field) return no(s, "the text in section .tide is damaged: two lines \"%s\"", line);
        *field = eq + 1;
        if (field == &m->provides) provides = eq + 1;
    }
    if (!abi || !m->name || !m->version || !m->licence || !provides)
        return no(s, "the text in section .tide is damaged: no line \"%s\"",
                  !abi          ? "abi"
                  : !m->name    ? "name"
                  : !m->version ? "version"
                  : !m->licence ? "licence"
                                : "provides");
    if (!*m->name) return no(s, "the text in section .tide is damaged: the plugin has no name");
    if (!parse_abi(abi, &m->abi_major, &m->abi_minor))
        return no(s, "the text in section .tide is damaged: abi is \"%.20s\", not as \"" TD_ABI_TEXT "\"", abi);
    if (m->abi_major != TD_ABI_MAJOR || m->abi_minor > TD_ABI_MINOR)
        return no(s,
                  "is built for plugin ABI %u.%u; this Tide has " TD_ABI_TEXT
                  " (the major number must be equal, the minor one at most that)",
                  m->abi_major, m->abi_minor);
    if (*provides && !tidy_provides(provides))
        return no(s, "the text in section .tide is damaged: provides holds words that are not kind:name");
    return true;
}

static bool read_all(source *s, tdi_meta *out)
{
    Elf64_Ehdr h;
    uint64_t size;
    memset(out, 0, sizeof *out);
    if (!read_header(s, &h) || !check_segments(s, &h)) return false;
    out->text = read_section(s, &h, &size);
    return out->text && check_text(s, out->text, size) && parse_lines(s, out);
}

bool tdi_elf_read(const uint8_t *bytes, size_t n, tdi_meta *out, char *why, size_t room)
{
    static const uint8_t nothing;
    source s = {n ? bytes : &nothing, -1, n, why, room};
    return read_all(&s, out);
}

bool tdi_elf_read_file(int fd, tdi_meta *out, char *why, size_t room)
{
    struct stat st;
    source s = {NULL, fd, 0, why, room};
    memset(out, 0, sizeof *out);
    if (fstat(fd, &st) || !S_ISREG(st.st_mode)) return no(&s, "is no regular file");
    s.size = (uint64_t)st.st_size;
    return read_all(&s, out);
}

void tdi_meta_free(tdi_meta *m)
{
    free(m->text);
    memset(m, 0, sizeof *m);
}

bool tdi_meta_announces(const tdi_meta *m, const char *kind, const char *name)
{
    size_t nk = strlen(kind), nn = strlen(name);
    for (const char *w = m->provides; w && *w;) {
        size_t n = strcspn(w, " ");
        if (n == nk + 1 + nn && !memcmp(w, kind, nk) && w[nk] == ':' && !memcmp(w + nk + 1, name, nn)) return true;
        w += n;
        w += *w == ' ';
    }
    return false;
}

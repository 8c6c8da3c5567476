/* fuzz_elf.c - the reader of plugin metadata on damaged files. With -DTIDE_LIBFUZZER an entry for libFuzzer; else a program that
 * takes plugins/shorter_table.so (or the file it is given) and damages it in a fixed order:  fuzz_elf [rounds [file]] */
#include "metadata.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    char why[256] = "";
    tdi_meta m;
    bool ok = tdi_elf_read(bytes, n, &m, why, sizeof why);
    if (ok != !*why) abort(); /* a refusal has a reason */
    if (ok && (!m.name || !m.version || !m.licence || !m.provides)) abort();
    tdi_meta_announces(&m, "layer", "Linear");
    tdi_meta_free(&m);
    return 0;
}

#ifndef TIDE_LIBFUZZER
enum { MAX_FILE = 1 << 22 };

static uint64_t state = 0x9e3779b97f4a7c15u; /* splitmix64 (Steele et al. 2014): the same damage in each run */
static uint64_t next(void)
{
    uint64_t z = state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

static uint64_t word_at(const uint8_t *p, int bytes)
{
    uint64_t w = 0;
    memcpy(&w, p, (size_t)bytes);
    return w;
}

/* Where damage hurts: the header, the section table, the text; else anywhere. */
static size_t place(const uint8_t *b, size_t n)
{
    uint64_t table = word_at(b + 40, 8), sections = word_at(b + 60, 2);
    switch (next() % 4) {
    case 0: return next() % 64;
    case 1: return table < n && sections ? (table + next() % (sections * 64)) % n : next() % n;
    case 2: {
        const uint8_t *text = memmem(b, n, "tide\nabi=", 9);
        return text ? ((size_t)(text - b) + next() % 120) % n : next() % n;
    }
    default: return next() % n;
    }
}

static void damage(uint8_t *b, size_t n)
{
    static const uint64_t nasty[] = {0,          1,          0x7f,      0xff,       0xffff,
                                     0x7fffffff, 0xffffffff, INT64_MAX, UINT64_MAX, UINT64_MAX - 63};
    size_t at = place(b, n);
    uint64_t w = next() % 3 ? nasty[next() % (sizeof nasty / sizeof *nasty)] : next();
    size_t bytes = (size_t)1 << next() % 4;
    if (bytes > n - at) bytes = n - at;
    memcpy(b + at, &w, bytes);
}

int main(int argc, char **argv)
{
    long rounds = argc > 1 ? atol(argv[1]) : 100000;
    char path[4096] = "";
    if (argc > 2) {
        snprintf(path, sizeof path, "%s", argv[2]);
    } else {
        ssize_t len = readlink("/proc/self/exe", path, sizeof path - 64);
        if (len <= 0) return 2;
        path[len] = 0;
        strcpy(strrchr(path, '/'), "/plugins/shorter_table.so");
    }
    FILE *f = fopen(path, "rb");
    uint8_t *good = malloc(MAX_FILE), *bad = malloc(MAX_FILE);
    size_t n = f && good && bad ? fread(good, 1, MAX_FILE, f) : 0;
    if (f) fclose(f);
    if (n < 64) {
        fprintf(stderr, "fuzz_elf: %s cannot be read\n", path);
        return 2;
    }
    for (long i = 0; i < rounds; i++) {
        size_t len = next() % 8 ? n : next() % (n + 1);
        memcpy(bad, good, n);
        for (uint64_t k = next() % 4; k-- > 0;) damage(bad, n);
        uint8_t *exact = malloc(len ? len : 1); /* of just that size, so that a sanitizer sees a byte too many */
        if (!exact) return 2;
        memcpy(exact, bad, len);
        LLVMFuzzerTestOneInput(exact, len);
        free(exact);
    }
    printf("fuzz_elf: %ld damaged files\n", rounds);
    free(good);
    free(bad);
    return 0;
}
#endif

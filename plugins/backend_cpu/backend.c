/* backend.c - device "cpu": memory of the host, and the kernels of the other files, compiled for several instruction
 * sets of which one is chosen here. Everything is synchronous: there are no streams. */
#include "cpu.h"
#include <omp.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

/* X(file): the kernel files, each of which defines a table per instruction set. */
#define CPU_FILES(X)      \
    X(fill)               \
    X(copy)               \
    X(unary)              \
    X(activation)         \
    X(binary)             \
    X(compare)            \
    X(where)              \
    X(reduce)             \
    X(arg_reduce)         \
    X(scan)               \
    X(random)             \
    X(matmul)             \
    X(linear)             \
    X(optim)              \
    X(winograd)           \
    X(conv_pixels)        \
    X(conv)               \
    X(conv_slopes)        \
    X(pool)               \
    X(pool_last)          \
    X(batch_norm_last)    \
    X(batch_norm)         \
    X(norm)               \
    X(softmax)            \
    X(loss)               \
    X(index)              \
    X(sort)               \
    X(recurrent)          \
    X(recurrent_backward) \
    X(attention)          \
    X(move)

/* ---- memory ---- */

enum { ALIGN = 64, HUGE_PAGE = 2 << 20 };

/* Large blocks lie on huge pages, where the system grants them on request: fewer page faults and TLB misses. */
static bool cpu_alloc(void *dev, void *stream, size_t size, int pinned, void **p)
{
    (void)dev, (void)stream, (void)pinned;
    bool huge = size >= 2 * (size_t)HUGE_PAGE;
    *p = NULL;
    if (size > PTRDIFF_MAX || posix_memalign(p, huge ? HUGE_PAGE : ALIGN, size ? size : 1)) return false;
#ifdef MADV_HUGEPAGE
    if (huge) madvise(*p, size & ~(size_t)(HUGE_PAGE - 1), MADV_HUGEPAGE);
#endif
    return true;
}

static void cpu_free(void *dev, void *p, int pinned)
{
    (void)dev, (void)pinned;
    free(p);
}

static bool cpu_copy(void *dev, void *stream, void *dst, const void *src, size_t size, td_copy_kind kind)
{
    (void)dev, (void)stream, (void)kind;
    if (size) memmove(dst, src, size);
    return true;
}

static bool cpu_fill(void *dev, void *stream, void *dst, int byte, size_t size)
{
    (void)dev, (void)stream;
    if (size) memset(dst, byte, size);
    return true;
}

/* ---- what the machine is ---- */

/* The rest of the first line of a file that starts with key, without blanks and colons. */
static bool line_after(const char *path, const char *key, char *to, size_t room)
{
    FILE *f = fopen(path, "re");
    char line[512];
    bool found = false;
    while (f && !found && fgets(line, sizeof line, f)) {
        if (strncmp(line, key, strlen(key))) continue;
        char *s = line + strlen(key);
        s += strspn(s, " \t:");
        s[strcspn(s, "\n")] = 0;
        snprintf(to, room, "%s", s);
        found = true;
    }
    if (f) fclose(f);
    return found;
}

static uint64_t memory(const char *key)
{
    char kib[64];
    return line_after("/proc/meminfo", key, kib, sizeof kib) ? strtoull(kib, NULL, 10) * 1024 : 0;
}

static char cpu_name[128] = "CPU";
static void read_name(void) { line_after("/proc/cpuinfo", "model name", cpu_name, sizeof cpu_name); }

static bool cpu_props(void *dev, td_props *to)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    (void)dev;
    pthread_once(&once, read_name);
    td_props p = {
        .name = cpu_name,
        .mem_total = memory("MemTotal"),
        .mem_free = memory("MemAvailable"),
        .align = ALIGN,
        .unified = 1,
        .dtypes = TD_BITS_ALL | TD_BIT(TD_F16) | TD_BIT(TD_BF16),
    };
    p.size = to->size < sizeof p ? to->size : sizeof p;
    memcpy(to, &p, p.size);
    return true;
}

static int cpu_score(void) { return 1; }
static int cpu_count(void) { return 1; }

static bool cpu_open(int ordinal, const void *opts, void **dev)
{
    static int the_cpu;
    (void)opts;
    if (ordinal != 0) return td_fail_as(TD_EDEVICE, "cpu: there is one, number 1, got number %d", ordinal + 1);
    *dev = &the_cpu;
    return true;
}

static void cpu_close(void *dev) { (void)dev; }

/* ---- threads ---- */

static int threads(int n)
{
    if (n >= 1) omp_set_num_threads(n);
    return omp_get_max_threads();
}

static void parallel(int64_t n, void (*body)(void *arg, int64_t i, int thread), void *arg)
{
#pragma omp parallel for schedule(static) num_threads(cpu_threads()) if (n > 1 && cpu_threads() > 1)
    for (int64_t i = 0; i < n; i++) body(arg, i, omp_get_thread_num());
}

static const void *cpu_extension(const char *name)
{
    static const td_ext_threads ext = {threads};
    static const td_ext_parallel loops = {parallel};
    if (!strcmp(name, "threads.v1")) return &ext;
    return strcmp(name, "parallel.v1") ? NULL : &loops;
}

static const td_backend cpu = {
    .size = sizeof cpu,
    .name = "cpu",
    .doc = "The processor, by OpenMP, vector instructions and OpenBLAS. TIDE_CPU_ISA=plain|avx2|avx512 chooses the "
           "instructions.",
    .score = cpu_score,
    .count = cpu_count,
    .open = cpu_open,
    .close = cpu_close,
    .props = cpu_props,
    .alloc = cpu_alloc,
    .free = cpu_free,
    .copy = cpu_copy,
    .fill = cpu_fill,
    .extension = cpu_extension,
};

/* ---- instruction sets ---- */

#define DECLARE_PLAIN(file) extern const cpu_table cpu_##file##_plain;
#define PLACE_PLAIN(file) &cpu_##file##_plain,
CPU_FILES(DECLARE_PLAIN)
static const cpu_table *const plain_tables[] = {CPU_FILES(PLACE_PLAIN)};
enum { N_FILES = sizeof plain_tables / sizeof *plain_tables };
static bool runs_plain(void) { return true; }

#if defined __x86_64__
#define DECLARE_X86(file) extern const cpu_table cpu_##file##_avx2, cpu_##file##_avx512;
#define PLACE_AVX2(file) &cpu_##file##_avx2,
#define PLACE_AVX512(file) &cpu_##file##_avx512,
CPU_FILES(DECLARE_X86)
static const cpu_table *const avx2_tables[] = {CPU_FILES(PLACE_AVX2)};
static const cpu_table *const avx512_tables[] = {CPU_FILES(PLACE_AVX512)};

static bool runs_avx2(void)
{
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2");
}

static bool runs_avx512(void)
{
    return runs_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vl");
}
#endif

/* Best first. */
static const struct {
    const char *name;
    bool (*runs)(void);
    const cpu_table *const *tables;
} isas[] = {
#if defined __x86_64__
    {"avx512", runs_avx512, avx512_tables},
    {"avx2", runs_avx2, avx2_tables},
#endif
    {"plain", runs_plain, plain_tables},
};
enum { N_ISAS = sizeof isas / sizeof *isas };

static const cpu_table *const *choose(void)
{
    const char *wanted = getenv("TIDE_CPU_ISA");
    char names[64] = "";
    for (int i = 0; i < N_ISAS; i++) {
        bool runs = isas[i].runs();
        if (!wanted || !*wanted) {
            if (runs) return isas[i].tables;
            continue;
        }
        if (!strcmp(wanted, isas[i].name)) {
            if (runs) return isas[i].tables;
            td_fail_as(TD_EDEVICE, "TIDE_CPU_ISA=%s: this processor does not have these instructions", wanted);
            return NULL;
        }
        size_t at = strlen(names);
        snprintf(names + at, sizeof names - at, "%s%s", at ? ", " : "", isas[i].name);
    }
    td_fail("TIDE_CPU_ISA: expected one of %s, got %s", names, wanted);
    return NULL;
}

static bool reg(void)
{
    const cpu_table *const *tables = choose();
    if (!tables || !td_add_backend(&cpu)) return false;
    for (int f = 0; f < N_FILES; f++) {
        for (uint32_t i = 0; i < tables[f]->n; i++) {
            if (!td_add_kernel(&tables[f]->rows[i])) return false;
        }
    }
    return true;
}

TD_PLUGIN("backend_cpu", "0.1.0", "MIT", "backend:cpu kernel:*@cpu", reg, NULL)

/* gemm.c - f32 matrix products with bias and activation, on this backend's own micro kernel (gemm_micro.h), in blocks that fit the
 * caches (Goto and van de Geijn 2008, "Anatomy of high-performance matrix multiplication").
 *
 * C is cut into units of which a thread takes the next one when it is free, so that another program on one of the cores costs its
 * share, not half of all. Each thread packs the columns of B that its units need, once where the sum is short; a few rows of C read
 * B where it lies when its rows are contiguous. A is read where it lies when its rows are contiguous and packed when its columns are.
 * Where B is the longer one of the two to pack and both are read along k (a linear layer's forward with few rows), C^T = B^T A^T is
 * computed. Every element of C is one sum in one order, whichever unit it is in: results do not depend on the number of threads.
 *
 *     A (m, k)   B (k, n)   C (m, n)                                                                                      */
#include "act_slope.h"
#include "gemm_pack.h"
#include <pthread.h>
#include <stdlib.h>

/* Measured (Zen 3, AVX2). KC: length of a block of the sum, so that a panel of B and MR rows of A lie in L1. NC x KC numbers of B
 * and MC x KC of A lie in L2. OWN_B: numbers of B that are packed over the whole sum. FEW_ROWS: up to so many rows of C a contiguous
 * B is not packed. ACT_COLUMNS: columns that get their activation at once. PER_THREAD: m n k that are worth a thread. */
enum { KC = 320, NC = 192, MC = 96, OWN_B = 1 << 17, FEW_ROWS = 24, ACT_COLUMNS = 128, PER_THREAD = 1 << 18 };

/* ---- activations ---- */

#define ROW_OF(expr)                                        \
    {                                                       \
        _Pragma("omp simd") for (int64_t j = 0; j < n; j++) \
        {                                                   \
            const float x = y[j];                           \
            y[j] = (expr);                                  \
        }                                                   \
        return;                                             \
    }

void ISA(cpu_act_row)(gemm_act act, float *y, int64_t n)
{
    switch (act) {
    case GEMM_RELU: ROW_OF(x < 0 ? 0 : x)
    case GEMM_TANH: ROW_OF(vm_tanhf(x))
    case GEMM_SIGMOID: ROW_OF(vm_sigmoidf(x))
    case GEMM_GELU: ROW_OF(act_gelu(x))
    case GEMM_GELU_TANH: ROW_OF(0.5f * x * (1.0f + vm_tanhf(0.797884561f * (x + 0.044715f * x * x * x))))
    default: return;
    }
}

/* ---- memory: a thread has its own, which goes when the thread ends ---- */

typedef struct {
    float a[MC * (KC + 8)], b[OWN_B]; /* see plan_for for the 8 */
} scratch;

static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_key_t key;
static bool have_key;
static void make_key(void) { have_key = pthread_key_create(&key, free) == 0; }

static scratch *own_scratch(void)
{
    pthread_once(&once, make_key);
    scratch *s = have_key ? pthread_getspecific(key) : NULL;
    if (s || !have_key || !(s = malloc(sizeof *s))) return s;
    if (pthread_setspecific(key, s) == 0) return s;
    free(s);
    return NULL;
}

/* ---- how a product is done ---- */

enum { MOST_RANGES = 32 };

typedef enum {
    DIRECT, /* B is read where it lies                                                          */
    OWN,    /* a thread packs a part of B's columns over the whole sum, then has units below it */
    BLOCKS  /* each unit packs its blocks of B                                                  */
} way;

/* A unit is one of `down` parts of C's rows by one of `across` parts of its columns; those below each other follow each other. */
typedef struct {
    const sgemm_args *given;
    sgemm_args g; /* turned where that is better      */
    bool turned;  /* then the bias is one of g's rows */
    way way;
    const gemm_made *made; /* NULL, or units make their rows of A */
    int64_t kc, down, across;
    int ranges;            /* of units, one a thread                          */
    int next[MOST_RANGES]; /* the first unit of a range that nobody has taken */
} plan;

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
static int64_t ceil_div(int64_t n, int64_t d) { return (n + d - 1) / d; }
static int64_t up_to(int64_t n, int64_t step) { return ceil_div(n, step) * step; }

/* Length of even parts, multiples of step. */
static int64_t even_parts(int64_t whole, int64_t most, int64_t step)
{
    return whole ? up_to(ceil_div(whole, ceil_div(whole, most)), step) : step;
}

/* Start of part i of `parts`, each a number of tiles. */
static int64_t start_of(int64_t extent, int64_t i, int64_t parts, int64_t tile)
{
    return least(ceil_div(extent, tile) * i / parts * tile, extent);
}

/* C^T = B^T A^T: where C's columns are contiguous; and where both are read along k and B is the longer one to pack. */
static bool better_turned(const sgemm_args *g)
{
    if (g->ccs != 1) return g->crs == 1;
    return g->acs == 1 && g->brs == 1 && g->bcs != 1 && g->k >= 128 && g->m < g->n;
}

static sgemm_args turn(const sgemm_args *g)
{
    return (sgemm_args){.m = g->n,
                        .n = g->m,
                        .k = g->k,
                        .a = g->b,
                        .b = g->a,
                        .c = g->c,
                        .ars = g->bcs,
                        .acs = g->brs,
                        .brs = g->acs,
                        .bcs = g->ars,
                        .crs = g->ccs,
                        .ccs = g->crs};
}

/* Columns of a grid of blocks of C, a block a thread: each packs its rows of A and its columns of B, so their sum should be small. */
static int grid_columns(const sgemm_args *g, int threads)
{
    int best = threads;
    double shortest = INFINITY;
    for (int rows = 1; rows <= threads; rows++) {
        double h = (double)g->m / rows, w = (double)g->n / (threads / rows);
        if (threads % rows || (rows > 1 && h < MR) || h + w >= shortest) continue;
        shortest = h + w;
        best = threads / rows;
    }
    return best;
}

static void plan_for(plan *w, const sgemm_args *given, int threads)
{
    enum { NARROW = 128 };
    w->given = given;
    w->made = NULL;
    w->turned = better_turned(given);
    w->g = w->turned ? turn(given) : *given;
    const sgemm_args *g = &w->g;
    w->kc = even_parts(g->k, KC, 8);
    if (w->kc % 64 == 0 && w->kc < g->k) w->kc += 8; /* else all panels begin at the same place in L1 */
    const int64_t grid = grid_columns(g, threads), fit = OWN_B / (g->k ? g->k : 1) / NR * NR;
    const int64_t tiles = ceil_div(g->m, MR), panels = ceil_div(g->n, NR);
    w->down = 1;
    if (g->bcs == 1 && g->m <= FEW_ROWS) {
        w->way = DIRECT;
        w->across = threads > 1 ? ceil_div(panels, 4) : 1;
    } else if (g->m <= MC) { /* packed and used at once: B need not all be in cache */
        w->way = BLOCKS;
        w->across = ceil_div(g->n, threads > 1 ? NC / 2 : NC);
    } else if (ceil_div(panels, grid) * NR <= fit || fit >= NARROW) {
        w->way = OWN;
        w->across = grid * ceil_div(g->n, fit * grid);
        w->down = ceil_div(g->m, threads > 1 && g->m * w->across < 8 * MC * threads ? MC / 2 : MC);
    } else {
        w->way = BLOCKS;
        w->across = ceil_div(g->n, NC);
    }
    if (threads > 1 && w->across > 1) w->across = up_to(w->across, grid);
    w->across = least(w->across, panels);
    if (threads > 1) w->down = up_to(w->down, ceil_div(threads, least(w->across, threads)));
    w->down = least(w->down, tiles);
    w->ranges = threads < MOST_RANGES ? threads : MOST_RANGES;
    for (int i = 0; i < w->ranges; i++) w->next[i] = (int)(w->down * w->across * i / w->ranges);
}

/* ---- a unit ---- */

/* Bias and sums are in these rows and columns of C; where C has an activation its rows are contiguous. */
static void finish(const sgemm_args *g, int64_t i, int64_t m, int64_t j, int64_t n)
{
    for (int64_t r = i; r < i + m; r++) {
        float *y = g->c + r * g->crs + j;
        if (g->pre) __builtin_memcpy(g->pre + r * g->crs + j, y, (size_t)n * sizeof *y);
        ISA(cpu_act_row)(g->act, y, n);
    }
}

/* A piece of C and of the sum, and the panels of B for it. */
typedef struct {
    int64_t i, m, j, n, p, k;
    const float *b;
} piece;

/* Sums of A's rows over a block of the sum, while its columns are in cache; in f64 from ROWS to ROWS. */
static void add_sums(const sgemm_args *g, const piece *x)
{
    enum { ROWS = 64 };
    double sum[MC] = {0};
    for (int64_t p = x->p; p < x->p + x->k; p += ROWS) {
        float some[MC] = {0};
        for (int64_t q = p; q < least(p + ROWS, x->p + x->k); q++) {
            const float *a = g->a + x->i + q * g->acs;
#pragma omp simd
            for (int64_t r = 0; r < x->m; r++) some[r] += a[r];
        }
        for (int64_t r = 0; r < x->m; r++) sum[r] += (double)some[r];
    }
    for (int64_t r = 0; r < x->m; r++) g->sums[x->i + r] = (x->p ? g->sums[x->i + r] : 0) + (float)sum[r];
}

/* m <= MC */
static void block(const plan *w, scratch *s, const piece *x)
{
    const sgemm_args *g = &w->g;
    const float *a = g->a + x->i * g->ars + x->p * g->acs;
    const bool down = g->acs != 1;
    if (down) pack_a(s->a, a, g->ars, g->acs, x->m, x->k);
    if (g->sums && x->j == 0) add_sums(g, x);
    tile t = {.crs = g->crs, .ccs = g->ccs, .first = x->p == 0};
    float edge[NR] = {0};
    for (int64_t c = 0; c < x->n; c += NR) {
        t.w = x->n - c < NR ? (int)(x->n - c) : NR;
        int nv = t.w <= LANES ? 1 : 2;
        const float *b = x->b + c * x->k;
        int64_t ldb = NR;
        if (w->way == DIRECT) {
            b = g->b + x->p * g->brs + (x->j + c);
            ldb = g->brs;
            if (t.w != nv * LANES) {
                pack_panel(NR, s->b, b, 1, ldb, t.w, x->k);
                b = s->b;
                ldb = NR;
            }
        }
        t.bias = g->bias ? g->bias + x->j + c : NULL;
        if (t.bias && t.w < NR) {
            for (int q = 0; q < t.w; q++) edge[q] = t.bias[q];
            t.bias = edge;
        }
        for (int64_t r = 0; r < x->m; r += MR) {
            int mr = x->m - r < MR ? (int)(x->m - r) : MR;
            t.c = g->c + (x->i + r) * g->crs + (x->j + c) * g->ccs;
            t.down = w->turned && w->given->bias ? w->given->bias + x->i + r : NULL;
            if (down) micros[1][nv - 1][mr - 1](x->k, s->a + r * x->k, MR, b, ldb, &t);
            else micros[0][nv - 1][mr - 1](x->k, a + r * g->ars, g->ars, b, ldb, &t);
        }
    }
}

static void pack_piece(const plan *w, float *to, const piece *x)
{
    const sgemm_args *g = &w->g;
    pack_b(to, g->b + x->p * g->brs + x->j * g->bcs, g->bcs, g->brs, x->n, x->k);
}

static int64_t column_of(const plan *w, int64_t part) { return start_of(w->g.n, part, w->across, NR); }

/* All blocks of the sum for one part of the columns. */
static void pack_part(const plan *w, scratch *s, int64_t part)
{
    const int64_t j = column_of(w, part), n = column_of(w, part + 1) - j;
    for (int64_t p = 0; p < w->g.k; p += w->kc)
        pack_piece(w, s->b + p * up_to(n, NR), &(piece){.j = j, .n = n, .p = p, .k = least(w->kc, w->g.k - p)});
}

static void unit(const plan *w, scratch *s, int64_t u)
{
    const sgemm_args *g = &w->g, *to = w->given;
    const int64_t i = start_of(g->m, u % w->down, w->down, MR), end = start_of(g->m, u % w->down + 1, w->down, MR);
    const int64_t left = column_of(w, u / w->down), n = column_of(w, u / w->down + 1) - left;
    if (w->made) w->made->make(w->made->ctx, i, end);
    const int64_t step = to->act != GEMM_AS_IS && w->way == OWN ? ACT_COLUMNS : n;
    for (int64_t j = 0; j < n; j += step) {
        piece x = {.j = left + j, .n = least(step, n - j), .b = s->b};
        for (int64_t p = 0; p == 0 || p < g->k; p += w->kc) {
            x.p = p;
            x.k = least(w->kc, g->k - p);
            if (w->way == OWN) x.b = s->b + p * up_to(n, NR) + j * x.k;
            else if (w->way == BLOCKS) pack_piece(w, s->b, &x);
            for (x.i = i; x.i < end; x.i += MC) {
                x.m = least(MC, end - x.i);
                block(w, s, &x);
            }
        }
        if (to->act == GEMM_AS_IS) continue;
        if (w->turned) finish(to, x.j, x.n, i, end - i);
        else finish(to, i, end - i, x.j, x.n);
    }
}

/* ---- products ---- */

/* The units of a range that are left, but for the last `spare`; packed: the part of B that this thread holds. */
static void take_range(plan *w, scratch *s, int range, int spare, int64_t *packed)
{
    const int64_t end = w->down * w->across * (range + 1) / w->ranges;
    while (__atomic_load_n(&w->next[range], __ATOMIC_RELAXED) + spare < end) {
        const int64_t u = __atomic_fetch_add(&w->next[range], 1, __ATOMIC_RELAXED);
        if (u >= end) return;
        if (w->way == OWN && *packed != u / w->down) pack_part(w, s, *packed = u / w->down);
        unit(w, s, u);
    }
}

/* What thread t does: first a range of its own, then what others have left, where that is worth packing B. */
static void take(plan *w, scratch *s, int t)
{
    int64_t packed = -1;
    for (int q = 0; q < w->ranges; q++) take_range(w, s, (t + q) % w->ranges, q && w->across > 1, &packed);
}

/* Products that do not read what another one writes. */
typedef struct {
    plan *w;
    int n;
} job;

/* Thread t's share; false without memory. */
static bool share(const job *x, int t)
{
    scratch *s = own_scratch();
    for (int i = 0; s && i < x->n; i++) take(&x->w[i], s, t);
    return s != NULL;
}

/* Whether each row of A is read by one unit, that can make it. */
static bool makes_rows(const plan *w) { return w->way == OWN && w->across == 1 && !w->turned && w->g.acs == 1; }

static bool run(const gemm_made *made, bool its_rows, const sgemm_args *g, int n, int threads)
{
    enum { MOST = 2, ROWS = 32 };
    int failed = 0;
    plan w[MOST];
    for (int i = 0; i < n; i++) plan_for(&w[i], &g[i], threads);
    job first = {w, 0}, rest = {w, n};
    if (made && its_rows && makes_rows(&w[0])) {
        w[0].made = made;
        first.n = 1;
        rest.w++;
        rest.n--;
        made = NULL;
    }
    if (threads == 1) {
        if (made) made->make(made->ctx, 0, made->rows);
        return share(&first, 0) && share(&rest, 0);
    }
#pragma omp parallel num_threads(threads) reduction(| : failed)
    {
        if (made) {
#pragma omp for schedule(dynamic)
            for (int64_t r = 0; r < made->rows; r += ROWS) made->make(made->ctx, r, least(r + ROWS, made->rows));
        }
        if (first.n) {
#pragma omp for schedule(static)
            for (int t = 0; t < threads; t++) failed |= !share(&first, t);
        }
#pragma omp for schedule(static) nowait
        for (int t = 0; t < threads; t++) failed |= !share(&rest, t);
    }
    return !failed;
}

bool ISA(cpu_sgemm_here)(const sgemm_args *g) { return run(NULL, false, g, 1, 1); }

bool ISA(cpu_sgemm_made)(const gemm_made *made, bool its_rows, const sgemm_args *g, int n)
{
    double work = 0;
    for (int i = 0; i < n; i++) work += (double)g[i].m * (double)g[i].n * (double)g[i].k;
    int threads = work < 2 * PER_THREAD ? 1 : cpu_threads();
    if (threads > 1 && threads > work / PER_THREAD) threads = (int)(work / PER_THREAD);
    return run(made, its_rows, g, n, threads) || td_fail_as(TD_ENOMEM, "matmul: out of memory");
}

bool ISA(cpu_sgemm)(const sgemm_args *g, int n) { return ISA(cpu_sgemm_made)(NULL, false, g, n); }

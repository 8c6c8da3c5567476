/* small_gemm.h - matrix products for any strides, without BLAS and without threads: for products too small for
 * OpenBLAS, where a call costs more than the arithmetic, and for operands that it cannot take. Included once per
 * element type, with REAL, VEC, LANES and G(name) defined.
 *
 * A panel of B (at most DEEP rows, two vectors wide) is copied to the stack, zeros to its right; four rows of C by two
 * vectors
 * stay in registers while the panel is walked.    A (m, k)   B (k, n)   C (m, n)   bias (n) or NULL */

enum { G(WIDE) = 2 * LANES };

/* A panel, and where its sums go. */
typedef struct {
    const REAL *a; /* A's first element for this panel                                     */
    REAL *c;       /* C's first element                                                    */
    int64_t k, w;  /* rows of the panel, true columns                                      */
    bool first;    /* C does not hold the sums of an earlier panel: they begin with `start` */
    REAL start[G(WIDE)] __attribute__((aligned(64)));
    REAL b[DEEP][G(WIDE)] __attribute__((aligned(64)));
} G(panel);

/* mr rows of C from row i on, nv vectors wide; straight: the columns of C are contiguous and fill the vectors. */
VEC_INLINE void G(tile)(const int mr, const int nv, const bool straight, const gemm_args *g, const G(panel) * p,
                        int64_t i)
{
    const REAL *a = p->a + i * g->ars;
    REAL *c = p->c + i * g->crs, t[G(WIDE)];
    VEC acc[4][2];
#pragma GCC unroll 4
    for (int r = 0; r < mr; r++) {
        const REAL *from = p->start;
        if (!p->first && straight) from = c + r * g->crs;
        else if (!p->first) {
            for (int64_t j = 0; j < G(WIDE); j++) t[j] = j < p->w ? c[r * g->crs + j * g->ccs] : 0;
            from = t;
        }
#pragma GCC unroll 2
        for (int v = 0; v < nv; v++) acc[r][v] = *(const VEC *)(from + v * LANES);
    }
    for (int64_t q = 0; q < p->k; q++) {
#pragma GCC unroll 4
        for (int r = 0; r < mr; r++)
#pragma GCC unroll 2
            for (int v = 0; v < nv; v++) acc[r][v] += a[r * g->ars + q * g->acs] * *(const VEC *)(p->b[q] + v * LANES);
    }
#pragma GCC unroll 4
    for (int r = 0; r < mr; r++) {
        REAL *to = straight ? c + r * g->crs : t;
#pragma GCC unroll 2
        for (int v = 0; v < nv; v++) *(VEC *)(to + v * LANES) = acc[r][v];
        if (straight) continue;
        for (int64_t j = 0; j < p->w; j++) c[r * g->crs + j * g->ccs] = t[j];
    }
}

VEC_INLINE void G(tiles)(const int nv, const bool straight, const gemm_args *g, const G(panel) * p)
{
    int64_t i = 0;
    for (; i + 4 <= g->m; i += 4) G(tile)(4, nv, straight, g, p, i);
    for (; i < g->m; i++) G(tile)(1, nv, straight, g, p, i);
}

/** C = A B + bias */
static void G(small_gemm)(const gemm_args *g)
{
    G(panel) p;
    for (int64_t j = 0; j < g->n; j += G(WIDE)) {
        int64_t w = p.w = g->n - j < G(WIDE) ? g->n - j : G(WIDE), columns = w <= LANES ? LANES : G(WIDE);
        p.c = (REAL *)g->c + j * g->ccs;
        const REAL *bias = g->bias ? (const REAL *)g->bias + j * g->bias_step : NULL;
        for (int64_t i = 0; i < columns; i++) p.start[i] = bias && i < w ? bias[i * g->bias_step] : 0;
        for (int64_t d = 0; d == 0 || d < g->k; d += DEEP) {
            p.k = g->k - d < DEEP ? g->k - d : DEEP;
            p.first = d == 0;
            p.a = (const REAL *)g->a + d * g->acs;
            for (int64_t q = 0; q < p.k; q++) {
                const REAL *b = (const REAL *)g->b + (d + q) * g->brs + j * g->bcs;
                for (int64_t i = 0; i < columns; i++) p.b[q][i] = i < w ? b[i * g->bcs] : 0;
            }
            bool contiguous = g->ccs == 1;
            if (contiguous && w == LANES) G(tiles)(1, true, g, &p);
            else if (contiguous && w == G(WIDE)) G(tiles)(2, true, g, &p);
            else if (columns == LANES) G(tiles)(1, false, g, &p);
            else G(tiles)(2, false, g, &p);
        }
    }
}

/* vec_transpose.h - a square of LANES by LANES elements turned in registers; included once per element type, with VEC, IVEC,
 * LANES and R(name) defined. */

#define LANE_LOW(w, l) ((l) & (w) ? LANES + (l) - (w) : (l))
#define LANE_HIGH(w, l) ((l) & (w) ? LANES + (l) : (l) + (w))
/* Lanes with bit w of row i and those without it of row i + w change places. */
#define TRANSPOSE_STEP(w)                                                                       \
    _Pragma("GCC unroll 16") for (int i = 0; i < LANES && (w) < LANES; i++) if (!(i & (w)))     \
    {                                                                                           \
        VEC a = r[i], b = r[(i + (w)) % LANES];                                                 \
        r[i] = __builtin_shuffle(a, b, (IVEC){EACH_LANE(LANES, LANE_LOW, w)});                  \
        r[(i + (w)) % LANES] = __builtin_shuffle(a, b, (IVEC){EACH_LANE(LANES, LANE_HIGH, w)}); \
    }

/** Transposes LANES rows of LANES elements. */
VEC_INLINE void R(transpose)(VEC *r)
{
    TRANSPOSE_STEP(8)
    TRANSPOSE_STEP(4)
    TRANSPOSE_STEP(2)
    TRANSPOSE_STEP(1)
}
#undef LANE_LOW
#undef LANE_HIGH
#undef TRANSPOSE_STEP

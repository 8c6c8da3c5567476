/* vec.h - vectors of the width that this build of the kernels has: GCC's vector extension, no intrinsics.
 * VEC_BYTES is 64 with AVX-512, 32 with AVX2, 16 otherwise (SSE2, NEON). */
#ifndef TIDE_CPU_VEC_H
#define TIDE_CPU_VEC_H
#include <stdint.h>

#if defined __AVX512F__
#define VEC_BYTES 64
#define VEC_F32 16 /* lanes, as plain numbers for the preprocessor */
#define VEC_F64 8
#elif defined __AVX2__
#define VEC_BYTES 32
#define VEC_F32 8
#define VEC_F64 4
#else
#define VEC_BYTES 16
#define VEC_F32 4
#define VEC_F64 2
#endif

/** Vectors that may lie at any address of their elements. */
typedef float vec_f32 __attribute__((vector_size(VEC_BYTES), aligned(4), may_alias));
typedef double vec_f64 __attribute__((vector_size(VEC_BYTES), aligned(8), may_alias));
typedef int32_t vec_i32 __attribute__((vector_size(VEC_BYTES), aligned(4), may_alias));
typedef int64_t vec_i64 __attribute__((vector_size(VEC_BYTES), aligned(8), may_alias));

/** X(w, 0), X(w, 1), … for each lane:  EACH_LANE(VEC_F32, X, w) */
#define EACH_LANE_2(X, w) X(w, 0), X(w, 1)
#define EACH_LANE_4(X, w) EACH_LANE_2(X, w), X(w, 2), X(w, 3)
#define EACH_LANE_8(X, w) EACH_LANE_4(X, w), X(w, 4), X(w, 5), X(w, 6), X(w, 7)
#define EACH_LANE_16(X, w) \
    EACH_LANE_8(X, w), X(w, 8), X(w, 9), X(w, 10), X(w, 11), X(w, 12), X(w, 13), X(w, 14), X(w, 15)
#define EACH_LANE_OF(n, X, w) EACH_LANE_##n(X, w)
#define EACH_LANE(n, X, w) EACH_LANE_OF(n, X, w)

#define VEC_INLINE static inline __attribute__((always_inline))

/** A vector of ones from byte `first` on, zeros before it. */
VEC_INLINE vec_i32 lanes_from(int first)
{
    static const int32_t bits[VEC_BYTES / 2] = {[VEC_BYTES / 4 ... VEC_BYTES / 2 - 1] = -1};
    return *(const vec_i32 *)((const unsigned char *)bits + VEC_BYTES - first);
}

/** Copies n bytes; for the short rows of images, where a call of memcpy costs more than the copy. */
VEC_INLINE void copy_short(void *restrict to, const void *restrict from, int64_t n)
{
    unsigned char *t = to;
    const unsigned char *f = from;
    if (n >= VEC_BYTES) {
        int64_t i = 0;
        for (; i + VEC_BYTES <= n; i += VEC_BYTES) __builtin_memcpy(t + i, f + i, VEC_BYTES);
        if (i < n) __builtin_memcpy(t + n - VEC_BYTES, f + n - VEC_BYTES, VEC_BYTES); /* overlaps the one before */
    } else if (n >= 32) {
        __builtin_memcpy(t, f, 32);
        __builtin_memcpy(t + n - 32, f + n - 32, 32);
    } else if (n >= 16) {
        __builtin_memcpy(t, f, 16);
        __builtin_memcpy(t + n - 16, f + n - 16, 16);
    } else if (n >= 8) {
        __builtin_memcpy(t, f, 8);
        __builtin_memcpy(t + n - 8, f + n - 8, 8);
    } else {
        for (int64_t i = 0; i < n; i++) t[i] = f[i];
    }
}

#endif

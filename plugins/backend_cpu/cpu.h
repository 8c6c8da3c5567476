/* cpu.h - what the files of this backend share. Each kernel file is compiled once per instruction set, with TD_ISA set to
 * plain, avx2 or avx512; every name that leaves it goes through ISA(). backend.c picks one set when it registers. */
#ifndef TIDE_BACKEND_CPU_H
#define TIDE_BACKEND_CPU_H
#include <tide/plugin.h>

#define CPU_JOIN2(a, b) a##_##b
#define CPU_JOIN(a, b) CPU_JOIN2(a, b)
#ifndef TD_ISA
#define TD_ISA plain
#endif
#define ISA(name) CPU_JOIN(name, TD_ISA)

/** Elements of work below which a loop stays on one thread: waking the pool costs a few microseconds. */
enum { TD_PAR_MIN = 32768 };

/** The kernels of one file for one instruction set. */
typedef struct {
    uint32_t n;
    const td_kernel *rows;
} cpu_table;

/** A row:  CPU_KERNEL("softmax", TD_BITS_FLOAT, 0, run_softmax, .accepts = last_axis)  - priority and hooks may follow. */
#define CPU_KERNEL(op_, dtypes_, flags_, run_, ...)                                            \
    {                                                                                          \
        .size = sizeof(td_kernel), .op = (op_), .device = "cpu", .dtypes = (dtypes_),          \
        .flags = (flags_) | TD_K_CAPTURABLE | TD_K_DETERMINISTIC, .run = (run_), ##__VA_ARGS__ \
    }

/** Ends a kernel file:  CPU_TABLE(softmax, rows)  defines cpu_softmax_<isa>. */
#define CPU_TABLE(file, rows_)              \
    extern const cpu_table ISA(cpu_##file); \
    const cpu_table ISA(cpu_##file) = {sizeof(rows_) / sizeof *(rows_), (rows_)};

/**
 * C = alpha op(A) op(B) + beta C, row-major, by OpenBLAS; op transposes where ta, tb are set.
 *
 * dt         TD_F32 or TD_F64; alpha and beta are rounded to it
 * m n k      rows of C, columns of C, inner extent; any may be 0
 * lda …      row strides, in elements
 * return     false after td_fail when the BLAS cannot be loaded
 */
bool cpu_gemm(td_dtype dt, bool ta, bool tb, int64_t m, int64_t n, int64_t k, double alpha, const void *a, int64_t lda,
              const void *b, int64_t ldb, double beta, void *c, int64_t ldc);

/** Threads that a parallel region of the calling thread would get: 1 in a loader's worker. */
int cpu_threads(void);

#endif

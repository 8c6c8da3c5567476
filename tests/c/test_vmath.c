/* test_vmath.c - the f32 functions of vmath.h stay within 2 units of the last place of the C library's f64 functions. Every STEP-th
 * of all 2^32 arguments, and those where something ends: zeros, infinities, NaN, denormals, the edges of ranges. */
#include "../../plugins/backend_cpu/vmath.h"
#include "check.h"

enum { STEP = 1021 };

static float sigmoid_f(float x) { return vm_sigmoidf(x); }
static float exp_f(float x) { return vm_expf(x); }
static float expm1_f(float x) { return vm_expm1f(x); }
static float log_f(float x) { return vm_logf(x); }
static float log1p_f(float x) { return vm_log1pf(x); }
static float tanh_f(float x) { return vm_tanhf(x); }
static float erf_f(float x) { return vm_erff(x); }
static float sin_f(float x) { return vm_sinf(x); }
static float cos_f(float x) { return vm_cosf(x); }
static double sigmoid(double x) { return x < 0 ? exp(x) / (1 + exp(x)) : 1 / (1 + exp(-x)); }

/* The distance of two neighbours of f32 at y. */
static double ulp_at(double y)
{
    int e;
    frexp(fabs(y), &e);
    return ldexp(1, (e < -125 ? -125 : e) - 24);
}

static double error_of(float got, double exact)
{
    float rounded = (float)exact;
    if (rounded != rounded) return got != got ? 0 : INFINITY;
    if (isinf(rounded)) return got == rounded ? 0 : INFINITY;
    return fabs((double)got - exact) / ulp_at(exact);
}

static void within(const char *name, float (*f)(float), double (*exact)(double), float limit)
{
    static const float edges[] = {0.0f,    -0.0f,    1.0f,    -1.0f,    INFINITY, -INFINITY, NAN,     1e-45f,
                                  -1e-45f, 1e-38f,   -1e-38f, 88.72f,   88.73f,   -87.3f,    -103.9f, -104.1f,
                                  3.4e38f, -3.4e38f, 0.6f,    0.60001f, 10.0f,    -0.99999f, 87.0f,   -87.01f};
    double worst = 0;
    float at = 0;
    for (uint64_t u = 0; u < (1ull << 32) + STEP * sizeof edges / sizeof *edges; u += STEP) {
        float x = u < 1ull << 32 ? vm_float((uint32_t)u) : edges[(u - (1ull << 32)) / STEP];
        if (!(fabsf(x) <= limit) && x == x) continue;
        double e = error_of(f(x), exact((double)x));
        if (e > worst) {
            worst = e;
            at = x;
        }
    }
    printf("    %s: %.2f ulp at %.9g\n", name, worst, (double)at);
    CHECK(worst <= 2);
}

static void functions(void)
{
    within("exp", exp_f, exp, INFINITY);
    within("expm1", expm1_f, expm1, INFINITY);
    within("log", log_f, log, INFINITY);
    within("log1p", log1p_f, log1p, INFINITY);
    within("sigmoid", sigmoid_f, sigmoid, INFINITY);
    within("tanh", tanh_f, tanh, INFINITY);
    within("erf", erf_f, erf, INFINITY);
    within("sin", sin_f, sin, VM_TRIG_MAX);
    within("cos", cos_f, cos, VM_TRIG_MAX);
}

/* One value for both tails: absolute errors, as its doc comment gives them. */
static void normal_distribution(void)
{
    double worst = 0, worst_density = 0;
    for (int64_t i = -130000; i <= 130000; i++) {
        float x = (float)i * 1e-4f, density, below = vm_normalf(x, &density);
        double e = fabs((double)below - 0.5 * erfc(-(double)x * 0.70710678118654752440));
        double d = fabs((double)density - 0.39894228040143267794 * exp(-0.5 * (double)x * (double)x));
        if (e > worst) worst = e;
        if (d > worst_density) worst_density = d;
    }
    printf("    normal: %.2g, density: %.2g\n", worst, worst_density);
    CHECK(worst <= 2e-7 && worst_density <= 6e-8);
    float density;
    CHECK(vm_normalf(INFINITY, &density) == 1.0f && density == 0.0f);
    CHECK(vm_normalf(-INFINITY, &density) == 0.0f && density == 0.0f);
    CHECK(isnan(vm_normalf(NAN, &density)) && vm_normalf(0.0f, &density) == 0.5f);
}

static void signs_of_zero(void)
{
    CHECK(signbit(vm_tanhf(-0.0f)) && signbit(vm_erff(-0.0f)) && signbit(vm_expm1f(-0.0f)) &&
          signbit(vm_log1pf(-0.0f)));
    CHECK(!signbit(vm_tanhf(0.0f)) && vm_expf(0.0f) == 1.0f && vm_sigmoidf(0.0f) == 0.5f);
}

int main(void)
{
    RUN(functions);
    RUN(normal_distribution);
    RUN(signs_of_zero);
    return check_done();
}

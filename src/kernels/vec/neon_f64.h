/* The words for NEON on aarch64, double: see vec/words.md for what each one means. */
#include <arm_neon.h>
#include <stdint.h>
#if defined(_MSC_VER) && !defined(__clang__)
#include <intrin.h>
#endif

#define ISA_NAME "neon"
#define REAL_IS_DOUBLE 1

typedef double real;
typedef float64x2_t vec;
typedef uint64x2_t mask; /* all bits of a lane set, or none */

/* 32 registers: 4 x 6 sums, 4 rows, 1 weight; 12 x 2 sums, 2 rows, 1 residual. */
enum { VEC_WIDTH = 2 };
#define TILE_CLASSES 6
#define GRAD_CLASSES 12

static inline vec v_set1(real x) { return vdupq_n_f64(x); }
static inline vec v_load(const real *p) { return vld1q_f64(p); }
static inline void v_store(real *p, vec a) { vst1q_f64(p, a); }
static inline vec v_load_tail(const real *p, ptrdiff_t n, real fill) {
    if (n == VEC_WIDTH) return vld1q_f64(p);
    vec r = vdupq_n_f64(fill);
    return n > 0 ? vld1q_lane_f64(p, r, 0) : r;
}
static inline void v_store_tail(real *p, vec a, ptrdiff_t n) {
    if (n == VEC_WIDTH)
        vst1q_f64(p, a);
    else if (n > 0)
        vst1q_lane_f64(p, a, 0);
}

static inline vec v_load_f32(const float *p) { return vcvt_f64_f32(vld1_f32(p)); }
static inline vec v_load_u8(const uint8_t *p) {
    return vcvtq_f64_u64(vcombine_u64(vcreate_u64(p[0]), vcreate_u64(p[1])));
}
static inline vec v_load_i8(const int8_t *p) {
    const int64x1_t low = vcreate_s64((uint64_t)p[0]), high = vcreate_s64((uint64_t)p[1]);
    return vcvtq_f64_s64(vcombine_s64(low, high));
}
static inline vec v_load_f16(const uint16_t *p) {
    const uint16_t four[4] = {p[0], p[1], 0, 0};
    return vcvt_f64_f32(vget_low_f32(vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(four)))));
}

static inline vec v_add(vec a, vec b) { return vaddq_f64(a, b); }
static inline vec v_sub(vec a, vec b) { return vsubq_f64(a, b); }
static inline vec v_mul(vec a, vec b) { return vmulq_f64(a, b); }
static inline vec v_div(vec a, vec b) { return vdivq_f64(a, b); }
static inline vec v_fma(vec a, vec b, vec c) { return vfmaq_f64(c, a, b); }
static inline vec v_fnma(vec a, vec b, vec c) { return vfmsq_f64(c, a, b); }
static inline vec v_max(vec a, vec b) { return vmaxq_f64(a, b); }
static inline vec v_round(vec a) { return vrndnq_f64(a); }

static inline mask v_lt(vec a, vec b) { return vcltq_f64(a, b); }
static inline mask v_eq(vec a, vec b) { return vceqq_f64(a, b); }
static inline vec v_select(mask m, vec a, vec b) { return vbslq_f64(m, a, b); }

/* 2^n for an n whose exponent field is in range. */
static inline vec power_of_two(int64x2_t n) {
    return vreinterpretq_f64_s64(vshlq_n_s64(vaddq_s64(n, vdupq_n_s64(1023)), 52));
}
/* In two factors, the first product exact: a subnormal result is rounded once. */
static inline vec v_scale2(vec a, vec n) {
    int64x2_t whole = vcvtq_s64_f64(n), half = vshrq_n_s64(whole, 1);
    vec scaled = v_mul(v_mul(a, power_of_two(half)), power_of_two(vsubq_s64(whole, half)));
    return v_select(v_eq(n, n), scaled, n);
}
static inline vec v_frexp(vec a, vec *exponent) {
    uint64x2_t bits = vreinterpretq_u64_f64(a), one = vreinterpretq_u64_f64(v_set1(1));
    int64x2_t e = vsubq_s64(vreinterpretq_s64_u64(vshrq_n_u64(bits, 52)), vdupq_n_s64(1023));
    uint64x2_t fraction = vandq_u64(bits, vdupq_n_u64(0xfffffffffffffu));
    vec m = vreinterpretq_f64_u64(vorrq_u64(fraction, one));
    mask high = v_lt(v_set1(1.41421356), m);
    *exponent = vcvtq_f64_s64(vsubq_s64(e, vreinterpretq_s64_u64(high))); /* true is -1 */
    return v_select(high, v_mul(m, v_set1(0.5)), m);
}

static inline real v_max_lanes(vec a) { return vmaxvq_f64(a); }
static inline void v_sum4(real *out, vec a, vec b, vec c, vec d) {
    vst1q_f64(out, vpaddq_f64(a, b));
    vst1q_f64(out + 2, vpaddq_f64(c, d));
}

#if defined(_MSC_VER) && !defined(__clang__)
#define v_prefetch(p) __prefetch2(p, 2) /* PLDL2KEEP */
#else
#define v_prefetch(p) __builtin_prefetch(p, 0, 2)
#endif

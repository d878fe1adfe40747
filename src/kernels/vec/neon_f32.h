/* The words for NEON on aarch64, float: see vec/words.md for what each one means. */
#include <arm_neon.h>
#include <stdint.h>
#include <string.h>
#if defined(_MSC_VER) && !defined(__clang__)
#include <intrin.h>
#endif

#define ISA_NAME "neon"
#define REAL_IS_DOUBLE 0

typedef float real;
typedef float32x4_t vec;
typedef uint32x4_t mask; /* all bits of a lane set, or none */

/* 32 registers: 4 x 6 sums, 4 rows, 1 weight; 12 x 2 sums, 2 rows, 1 residual. */
enum { VEC_WIDTH = 4 };
#define TILE_CLASSES 6
#define GRAD_CLASSES 12

static inline vec v_set1(real x) { return vdupq_n_f32(x); }
static inline vec v_load(const real *p) { return vld1q_f32(p); }
static inline void v_store(real *p, vec a) { vst1q_f32(p, a); }
static inline vec v_load_tail(const real *p, ptrdiff_t n, real fill) {
    if (n == VEC_WIDTH) return vld1q_f32(p);
    vec r = vdupq_n_f32(fill);
    if (n > 0) r = vld1q_lane_f32(p, r, 0);
    if (n > 1) r = vld1q_lane_f32(p + 1, r, 1);
    if (n > 2) r = vld1q_lane_f32(p + 2, r, 2);
    return r;
}
static inline void v_store_tail(real *p, vec a, ptrdiff_t n) {
    if (n == VEC_WIDTH) {
        vst1q_f32(p, a);
        return;
    }
    if (n > 0) vst1q_lane_f32(p, a, 0);
    if (n > 1) vst1q_lane_f32(p + 1, a, 1);
    if (n > 2) vst1q_lane_f32(p + 2, a, 2);
}

static inline vec v_load_f32(const float *p) { return v_load(p); }
static inline vec v_load_u8(const uint8_t *p) {
    uint32_t bytes;
    memcpy(&bytes, p, sizeof bytes);
    uint8x8_t narrow = vreinterpret_u8_u32(vdup_n_u32(bytes));
    return vcvtq_f32_u32(vmovl_u16(vget_low_u16(vmovl_u8(narrow))));
}
static inline vec v_load_i8(const int8_t *p) {
    int32_t bytes;
    memcpy(&bytes, p, sizeof bytes);
    int8x8_t narrow = vreinterpret_s8_s32(vdup_n_s32(bytes));
    return vcvtq_f32_s32(vmovl_s16(vget_low_s16(vmovl_s8(narrow))));
}
static inline vec v_load_f16(const uint16_t *p) {
    return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p)));
}

static inline vec v_add(vec a, vec b) { return vaddq_f32(a, b); }
static inline vec v_sub(vec a, vec b) { return vsubq_f32(a, b); }
static inline vec v_mul(vec a, vec b) { return vmulq_f32(a, b); }
static inline vec v_div(vec a, vec b) { return vdivq_f32(a, b); }
static inline vec v_fma(vec a, vec b, vec c) { return vfmaq_f32(c, a, b); }
static inline vec v_fnma(vec a, vec b, vec c) { return vfmsq_f32(c, a, b); }
static inline vec v_max(vec a, vec b) { return vmaxq_f32(a, b); }
static inline vec v_round(vec a) { return vrndnq_f32(a); }

static inline mask v_lt(vec a, vec b) { return vcltq_f32(a, b); }
static inline mask v_eq(vec a, vec b) { return vceqq_f32(a, b); }
static inline vec v_select(mask m, vec a, vec b) { return vbslq_f32(m, a, b); }

/* 2^n for an n whose exponent field is in range. */
static inline vec power_of_two(int32x4_t n) {
    return vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(n, vdupq_n_s32(127)), 23));
}
/* In two factors, the first product exact: a subnormal result is rounded once. */
static inline vec v_scale2(vec a, vec n) {
    int32x4_t whole = vcvtq_s32_f32(n), half = vshrq_n_s32(whole, 1);
    vec scaled = v_mul(v_mul(a, power_of_two(half)), power_of_two(vsubq_s32(whole, half)));
    return v_select(v_eq(n, n), scaled, n);
}
static inline vec v_frexp(vec a, vec *exponent) {
    uint32x4_t bits = vreinterpretq_u32_f32(a), one = vreinterpretq_u32_f32(v_set1(1));
    int32x4_t e = vsubq_s32(vreinterpretq_s32_u32(vshrq_n_u32(bits, 23)), vdupq_n_s32(127));
    vec m = vreinterpretq_f32_u32(vorrq_u32(vandq_u32(bits, vdupq_n_u32(0x7fffff)), one));
    mask high = v_lt(v_set1(1.41421356f), m);
    *exponent = vcvtq_f32_s32(vsubq_s32(e, vreinterpretq_s32_u32(high))); /* true is -1 */
    return v_select(high, v_mul(m, v_set1(0.5f)), m);
}

static inline real v_max_lanes(vec a) { return vmaxvq_f32(a); }
static inline void v_sum4(real *out, vec a, vec b, vec c, vec d) {
    vst1q_f32(out, vpaddq_f32(vpaddq_f32(a, b), vpaddq_f32(c, d)));
}

#if defined(_MSC_VER) && !defined(__clang__)
#define v_prefetch(p) __prefetch2(p, 2) /* PLDL2KEEP */
#else
#define v_prefetch(p) __builtin_prefetch(p, 0, 2)
#endif

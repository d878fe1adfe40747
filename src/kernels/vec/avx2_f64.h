/* The words for AVX2 with FMA, double: see vec/words.md for what each one means. */
#include <immintrin.h>
#include <stdint.h>
#include <string.h>

#define ISA_NAME "avx2"
#define REAL_IS_DOUBLE 1

typedef double real;
typedef __m256d vec;
typedef __m256d mask; /* all bits of a lane set, or none */

/* 16 registers: 4 x 3 sums and 4 rows; 6 x 2 sums, 2 rows, 1 residual. */
enum { VEC_WIDTH = 4 };
#define TILE_CLASSES 3
#define GRAD_CLASSES 6

static inline __m256i first_lanes(ptrdiff_t n) {
    return _mm256_cmpgt_epi64(_mm256_set1_epi64x((long long)n), _mm256_setr_epi64x(0, 1, 2, 3));
}

static inline vec v_set1(real x) { return _mm256_set1_pd(x); }
static inline vec v_load(const real *p) { return _mm256_loadu_pd(p); }
static inline void v_store(real *p, vec a) { _mm256_storeu_pd(p, a); }
static inline vec v_load_tail(const real *p, ptrdiff_t n, real fill) {
    __m256i m = first_lanes(n);
    return _mm256_blendv_pd(_mm256_set1_pd(fill), _mm256_maskload_pd(p, m), _mm256_castsi256_pd(m));
}
static inline void v_store_tail(real *p, vec a, ptrdiff_t n) {
    _mm256_maskstore_pd(p, first_lanes(n), a);
}

static inline vec v_load_f32(const float *p) { return _mm256_cvtps_pd(_mm_loadu_ps(p)); }
static inline vec v_load_u8(const uint8_t *p) {
    int32_t bytes;
    memcpy(&bytes, p, sizeof bytes);
    return _mm256_cvtepi32_pd(_mm_cvtepu8_epi32(_mm_cvtsi32_si128(bytes)));
}
static inline vec v_load_i8(const int8_t *p) {
    int32_t bytes;
    memcpy(&bytes, p, sizeof bytes);
    return _mm256_cvtepi32_pd(_mm_cvtepi8_epi32(_mm_cvtsi32_si128(bytes)));
}
static inline vec v_load_f16(const uint16_t *p) {
    return _mm256_cvtps_pd(_mm_cvtph_ps(_mm_loadl_epi64((const __m128i *)p)));
}

static inline vec v_add(vec a, vec b) { return _mm256_add_pd(a, b); }
static inline vec v_sub(vec a, vec b) { return _mm256_sub_pd(a, b); }
static inline vec v_mul(vec a, vec b) { return _mm256_mul_pd(a, b); }
static inline vec v_div(vec a, vec b) { return _mm256_div_pd(a, b); }
static inline vec v_fma(vec a, vec b, vec c) { return _mm256_fmadd_pd(a, b, c); }
static inline vec v_fnma(vec a, vec b, vec c) { return _mm256_fnmadd_pd(a, b, c); }
static inline vec v_max(vec a, vec b) { return _mm256_max_pd(a, b); }
static inline vec v_round(vec a) { return _mm256_round_pd(a, 0x08); }

static inline mask v_lt(vec a, vec b) { return _mm256_cmp_pd(a, b, _CMP_LT_OQ); }
static inline mask v_eq(vec a, vec b) { return _mm256_cmp_pd(a, b, _CMP_EQ_OQ); }
static inline vec v_select(mask m, vec a, vec b) { return _mm256_blendv_pd(b, a, m); }

/* 2^n in two factors, the first product exact: a subnormal result is rounded once. AVX2 converts
 * double to no integer but int32, so exponents are cut as such. */
static inline vec power_of_two(__m128i n) {
    __m256i wide = _mm256_cvtepi32_epi64(_mm_add_epi32(n, _mm_set1_epi32(1023)));
    return _mm256_castsi256_pd(_mm256_slli_epi64(wide, 52));
}
static inline vec v_scale2(vec a, vec n) {
    __m128i whole = _mm256_cvtpd_epi32(n), half = _mm_srai_epi32(whole, 1);
    vec scaled = v_mul(v_mul(a, power_of_two(half)), power_of_two(_mm_sub_epi32(whole, half)));
    return v_select(v_eq(n, n), scaled, n);
}
static inline vec v_frexp(vec a, vec *exponent) {
    /* the exponent field, as a double: its bits become the low bits of 2^52 */
    const __m256i field = _mm256_srli_epi64(_mm256_castpd_si256(a), 52);
    const vec magic = v_set1(4503599627370496.0);
    vec e = v_sub(_mm256_or_pd(_mm256_castsi256_pd(field), magic), v_add(magic, v_set1(1023)));
    vec m = _mm256_or_pd(
        _mm256_and_pd(a, _mm256_castsi256_pd(_mm256_set1_epi64x(0xfffffffffffffLL))), v_set1(1));
    mask high = v_lt(v_set1(1.41421356), m);
    *exponent = v_add(e, _mm256_and_pd(high, v_set1(1)));
    return v_select(high, v_mul(m, v_set1(0.5)), m);
}

static inline real v_max_lanes(vec a) {
    __m128d x = _mm_max_pd(_mm256_castpd256_pd128(a), _mm256_extractf128_pd(a, 1));
    return _mm_cvtsd_f64(_mm_max_sd(x, _mm_unpackhi_pd(x, x)));
}
static inline void v_sum4(real *out, vec a, vec b, vec c, vec d) {
    vec ab = _mm256_hadd_pd(a, b), cd = _mm256_hadd_pd(c, d);
    _mm_storeu_pd(out, _mm_add_pd(_mm256_castpd256_pd128(ab), _mm256_extractf128_pd(ab, 1)));
    _mm_storeu_pd(out + 2, _mm_add_pd(_mm256_castpd256_pd128(cd), _mm256_extractf128_pd(cd, 1)));
}

#define v_prefetch(p) _mm_prefetch((const char *)(p), _MM_HINT_T1)

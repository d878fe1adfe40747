/* The words for AVX2 with FMA, float: see vec/words.md for what each one means. */
#include <immintrin.h>
#include <stdint.h>
#include <string.h>

#define ISA_NAME "avx2"
#define REAL_IS_DOUBLE 0

typedef float real;
typedef __m256 vec;
typedef __m256 mask; /* all bits of a lane set, or none */

/* 16 registers: 4 x 3 sums and 4 rows; 6 x 2 sums, 2 rows, 1 residual. */
enum { VEC_WIDTH = 8 };
#define TILE_CLASSES 3
#define GRAD_CLASSES 6

static inline __m256i first_lanes(ptrdiff_t n) {
    const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)n), lane);
}

static inline vec v_set1(real x) { return _mm256_set1_ps(x); }
static inline vec v_load(const real *p) { return _mm256_loadu_ps(p); }
static inline void v_store(real *p, vec a) { _mm256_storeu_ps(p, a); }
static inline vec v_load_tail(const real *p, ptrdiff_t n, real fill) {
    __m256i m = first_lanes(n);
    return _mm256_blendv_ps(_mm256_set1_ps(fill), _mm256_maskload_ps(p, m), _mm256_castsi256_ps(m));
}
static inline void v_store_tail(real *p, vec a, ptrdiff_t n) {
    _mm256_maskstore_ps(p, first_lanes(n), a);
}

static inline vec v_load_f32(const float *p) { return v_load(p); }
static inline vec v_load_u8(const uint8_t *p) {
    return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)p)));
}
static inline vec v_load_i8(const int8_t *p) {
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)p)));
}
static inline vec v_load_f16(const uint16_t *p) {
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p));
}

static inline vec v_add(vec a, vec b) { return _mm256_add_ps(a, b); }
static inline vec v_sub(vec a, vec b) { return _mm256_sub_ps(a, b); }
static inline vec v_mul(vec a, vec b) { return _mm256_mul_ps(a, b); }
static inline vec v_div(vec a, vec b) { return _mm256_div_ps(a, b); }
static inline vec v_fma(vec a, vec b, vec c) { return _mm256_fmadd_ps(a, b, c); }
static inline vec v_fnma(vec a, vec b, vec c) { return _mm256_fnmadd_ps(a, b, c); }
static inline vec v_max(vec a, vec b) { return _mm256_max_ps(a, b); }
static inline vec v_round(vec a) { return _mm256_round_ps(a, 0x08); }

static inline mask v_lt(vec a, vec b) { return _mm256_cmp_ps(a, b, _CMP_LT_OQ); }
static inline mask v_eq(vec a, vec b) { return _mm256_cmp_ps(a, b, _CMP_EQ_OQ); }
static inline vec v_select(mask m, vec a, vec b) { return _mm256_blendv_ps(b, a, m); }

/* 2^n in two factors: n is cut in halves so that each exponent is in range; the first product is
 * exact, so a subnormal result is rounded once. */
static inline vec v_scale2(vec a, vec n) {
    const __m256i bias = _mm256_set1_epi32(127);
    __m256i whole = _mm256_cvtps_epi32(n);
    __m256i half = _mm256_srai_epi32(whole, 1);
    __m256i rest = _mm256_sub_epi32(whole, half);
    vec first = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(half, bias), 23));
    vec second = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(rest, bias), 23));
    vec scaled = v_mul(v_mul(a, first), second);
    return v_select(v_eq(n, n), scaled, n);
}
static inline vec v_frexp(vec a, vec *exponent) {
    const __m256i bits = _mm256_castps_si256(a);
    __m256i e = _mm256_sub_epi32(_mm256_srli_epi32(bits, 23), _mm256_set1_epi32(127));
    vec m =
        _mm256_or_ps(_mm256_and_ps(a, _mm256_castsi256_ps(_mm256_set1_epi32(0x7fffff))), v_set1(1));
    mask high = v_lt(v_set1(1.41421356f), m);
    *exponent = v_add(_mm256_cvtepi32_ps(e), _mm256_and_ps(high, v_set1(1)));
    return v_select(high, v_mul(m, v_set1(0.5f)), m);
}

static inline real v_max_lanes(vec a) {
    __m128 x = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    x = _mm_max_ps(x, _mm_movehl_ps(x, x));
    return _mm_cvtss_f32(_mm_max_ss(x, _mm_movehdup_ps(x)));
}
static inline void v_sum4(real *out, vec a, vec b, vec c, vec d) {
    vec abcd = _mm256_hadd_ps(_mm256_hadd_ps(a, b), _mm256_hadd_ps(c, d));
    _mm_storeu_ps(out, _mm_add_ps(_mm256_castps256_ps128(abcd), _mm256_extractf128_ps(abcd, 1)));
}

#define v_prefetch(p) _mm_prefetch((const char *)(p), _MM_HINT_T1)

/* The words for AVX-512 (F, DQ, BW, VL), double: see vec/words.md for what each one means. */
#include <immintrin.h>
#include <stdint.h>

#define ISA_NAME "avx512"
#define REAL_IS_DOUBLE 1

typedef double real;
typedef __m512d vec;
typedef __mmask8 mask;

/* 32 registers: 4 x 6 sums, 4 rows, 1 weight; 12 x 2 sums, 2 rows, 1 residual. */
enum { VEC_WIDTH = 8 };
#define TILE_CLASSES 6
#define GRAD_CLASSES 12

static inline mask first_lanes(ptrdiff_t n) { return (mask)_cvtu32_mask8((1u << n) - 1u); }

static inline vec v_set1(real x) { return _mm512_set1_pd(x); }
static inline vec v_load(const real *p) { return _mm512_loadu_pd(p); }
static inline void v_store(real *p, vec a) { _mm512_storeu_pd(p, a); }
static inline vec v_load_tail(const real *p, ptrdiff_t n, real fill) {
    return _mm512_mask_loadu_pd(_mm512_set1_pd(fill), first_lanes(n), p);
}
static inline void v_store_tail(real *p, vec a, ptrdiff_t n) {
    _mm512_mask_storeu_pd(p, first_lanes(n), a);
}

static inline vec v_load_f32(const float *p) { return _mm512_cvtps_pd(_mm256_loadu_ps(p)); }
static inline vec v_load_u8(const uint8_t *p) {
    return _mm512_cvtepi32_pd(_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)p)));
}
static inline vec v_load_i8(const int8_t *p) {
    return _mm512_cvtepi32_pd(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)p)));
}
static inline vec v_load_f16(const uint16_t *p) {
    return _mm512_cvtps_pd(_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p)));
}

static inline vec v_add(vec a, vec b) { return _mm512_add_pd(a, b); }
static inline vec v_sub(vec a, vec b) { return _mm512_sub_pd(a, b); }
static inline vec v_mul(vec a, vec b) { return _mm512_mul_pd(a, b); }
static inline vec v_div(vec a, vec b) { return _mm512_div_pd(a, b); }
static inline vec v_fma(vec a, vec b, vec c) { return _mm512_fmadd_pd(a, b, c); }
static inline vec v_fnma(vec a, vec b, vec c) { return _mm512_fnmadd_pd(a, b, c); }
static inline vec v_max(vec a, vec b) { return _mm512_max_pd(a, b); }
static inline vec v_round(vec a) { return _mm512_roundscale_pd(a, 0x08); }

static inline mask v_lt(vec a, vec b) { return _mm512_cmp_pd_mask(a, b, _CMP_LT_OQ); }
static inline mask v_eq(vec a, vec b) { return _mm512_cmp_pd_mask(a, b, _CMP_EQ_OQ); }
static inline vec v_select(mask m, vec a, vec b) { return _mm512_mask_blend_pd(m, b, a); }

static inline vec v_scale2(vec a, vec n) { return _mm512_scalef_pd(a, n); }
static inline vec v_frexp(vec a, vec *exponent) {
    vec m = _mm512_getmant_pd(a, _MM_MANT_NORM_1_2, _MM_MANT_SIGN_src);
    vec e = _mm512_getexp_pd(a);
    mask high = v_lt(v_set1((real)1.41421356), m);
    *exponent = _mm512_mask_add_pd(e, high, e, v_set1(1));
    return _mm512_mask_mul_pd(m, high, m, v_set1((real)0.5));
}

static inline real v_max_lanes(vec a) { return _mm512_reduce_max_pd(a); }
static inline void v_sum4(real *out, vec a, vec b, vec c, vec d) {
    vec ab = v_add(_mm512_unpacklo_pd(a, b), _mm512_unpackhi_pd(a, b));
    vec cd = v_add(_mm512_unpacklo_pd(c, d), _mm512_unpackhi_pd(c, d));
    __m256d ab4 = _mm256_add_pd(_mm512_castpd512_pd256(ab), _mm512_extractf64x4_pd(ab, 1));
    __m256d cd4 = _mm256_add_pd(_mm512_castpd512_pd256(cd), _mm512_extractf64x4_pd(cd, 1));
    _mm_storeu_pd(out, _mm_add_pd(_mm256_castpd256_pd128(ab4), _mm256_extractf128_pd(ab4, 1)));
    _mm_storeu_pd(out + 2, _mm_add_pd(_mm256_castpd256_pd128(cd4), _mm256_extractf128_pd(cd4, 1)));
}

#define v_prefetch(p) _mm_prefetch((const char *)(p), _MM_HINT_T1)

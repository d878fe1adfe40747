/* The words for AVX-512 (F, DQ, BW, VL), float: see vec/words.md for what each one means. */
#include <immintrin.h>
#include <stdint.h>

#define ISA_NAME "avx512"
#define REAL_IS_DOUBLE 0

typedef float real;
typedef __m512 vec;
typedef __mmask16 mask;

/* 32 registers: 4 x 6 sums, 4 rows, 1 weight; 12 x 2 sums, 2 rows, 1 residual. */
enum { VEC_WIDTH = 16 };
#define TILE_CLASSES 6
#define GRAD_CLASSES 12

static inline mask first_lanes(ptrdiff_t n) { return (mask)_cvtu32_mask16((1u << n) - 1u); }

static inline vec v_set1(real x) { return _mm512_set1_ps(x); }
static inline vec v_load(const real *p) { return _mm512_loadu_ps(p); }
static inline void v_store(real *p, vec a) { _mm512_storeu_ps(p, a); }
static inline vec v_load_tail(const real *p, ptrdiff_t n, real fill) {
    return _mm512_mask_loadu_ps(_mm512_set1_ps(fill), first_lanes(n), p);
}
static inline void v_store_tail(real *p, vec a, ptrdiff_t n) {
    _mm512_mask_storeu_ps(p, first_lanes(n), a);
}

static inline vec v_load_f32(const float *p) { return v_load(p); }
static inline vec v_load_u8(const uint8_t *p) {
    return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)p)));
}
static inline vec v_load_i8(const int8_t *p) {
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)p)));
}
static inline vec v_load_f16(const uint16_t *p) {
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p));
}

static inline vec v_add(vec a, vec b) { return _mm512_add_ps(a, b); }
static inline vec v_sub(vec a, vec b) { return _mm512_sub_ps(a, b); }
static inline vec v_mul(vec a, vec b) { return _mm512_mul_ps(a, b); }
static inline vec v_div(vec a, vec b) { return _mm512_div_ps(a, b); }
static inline vec v_fma(vec a, vec b, vec c) { return _mm512_fmadd_ps(a, b, c); }
static inline vec v_fnma(vec a, vec b, vec c) { return _mm512_fnmadd_ps(a, b, c); }
static inline vec v_max(vec a, vec b) { return _mm512_max_ps(a, b); }
static inline vec v_round(vec a) { return _mm512_roundscale_ps(a, 0x08); }

static inline mask v_lt(vec a, vec b) { return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ); }
static inline mask v_eq(vec a, vec b) { return _mm512_cmp_ps_mask(a, b, _CMP_EQ_OQ); }
static inline vec v_select(mask m, vec a, vec b) { return _mm512_mask_blend_ps(m, b, a); }

static inline vec v_scale2(vec a, vec n) { return _mm512_scalef_ps(a, n); }
static inline vec v_frexp(vec a, vec *exponent) {
    vec m = _mm512_getmant_ps(a, _MM_MANT_NORM_1_2, _MM_MANT_SIGN_src);
    vec e = _mm512_getexp_ps(a);
    mask high = v_lt(v_set1((real)1.41421356), m);
    *exponent = _mm512_mask_add_ps(e, high, e, v_set1(1));
    return _mm512_mask_mul_ps(m, high, m, v_set1((real)0.5));
}

static inline real v_max_lanes(vec a) { return _mm512_reduce_max_ps(a); }
static inline void v_sum4(real *out, vec a, vec b, vec c, vec d) {
    vec ab = v_add(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
    vec cd = v_add(_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
    vec abcd = v_add(_mm512_shuffle_ps(ab, cd, 0x44), _mm512_shuffle_ps(ab, cd, 0xee));
    __m256 half = _mm256_add_ps(_mm512_castps512_ps256(abcd), _mm512_extractf32x8_ps(abcd, 1));
    _mm_storeu_ps(out, _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1)));
}

#define v_prefetch(p) _mm_prefetch((const char *)(p), _MM_HINT_T1)

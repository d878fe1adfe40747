/* The words in plain C, for processors without a header of their own and as the plainest statement
 * of what the words mean: see vec/words.md. `real` and `integer` (as wide) come from base_f32.h and
 * base_f64.h. A vector is a few lanes in an array; compilers make of the loops what they can. */
#include <math.h>
#include <string.h>

#define ISA_NAME "base"

typedef struct {
    real lane[VEC_WIDTH];
} vec;
typedef struct {
    int lane[VEC_WIDTH];
} mask;

#define TILE_CLASSES 3
#define GRAD_CLASSES 6

#define EACH_LANE for (int l = 0; l < VEC_WIDTH; ++l)

static inline vec v_set1(real x) {
    vec r;
    EACH_LANE
    r.lane[l] = x;
    return r;
}
static inline vec v_load(const real *p) {
    vec r;
    memcpy(r.lane, p, sizeof r.lane);
    return r;
}
static inline void v_store(real *p, vec a) { memcpy(p, a.lane, sizeof a.lane); }
static inline vec v_load_tail(const real *p, ptrdiff_t n, real fill) {
    vec r;
    EACH_LANE
    r.lane[l] = l < n ? p[l] : fill;
    return r;
}
static inline void v_store_tail(real *p, vec a, ptrdiff_t n) {
    for (ptrdiff_t l = 0; l < n; ++l) p[l] = a.lane[l];
}

static inline vec v_load_f32(const float *p) {
    vec r;
    EACH_LANE
    r.lane[l] = p[l];
    return r;
}
static inline vec v_load_u8(const uint8_t *p) {
    vec r;
    EACH_LANE
    r.lane[l] = p[l];
    return r;
}
static inline vec v_load_i8(const int8_t *p) {
    vec r;
    EACH_LANE
    r.lane[l] = p[l];
    return r;
}
/* IEEE 754 binary16: the bits of exponent and mantissa, moved to a float's place, are the value
 * times 2^-112, subnormals too; infinity and NaN keep their all-ones exponent. */
static inline vec v_load_f16(const uint16_t *p) {
    vec r;
    EACH_LANE
    {
        uint32_t bits = (uint32_t)(p[l] & 0x7fff) << 13;
        float value;
        memcpy(&value, &bits, sizeof value);
        value *= 5.192296858534828e33f; /* 2^112 */
        if ((p[l] & 0x7c00) == 0x7c00) {
            bits |= 0x7f800000u;
            memcpy(&value, &bits, sizeof value);
        }
        r.lane[l] = (real)(p[l] & 0x8000 ? -value : value);
    }
    return r;
}

static inline vec v_add(vec a, vec b) {
    EACH_LANE
    a.lane[l] += b.lane[l];
    return a;
}
static inline vec v_sub(vec a, vec b) {
    EACH_LANE
    a.lane[l] -= b.lane[l];
    return a;
}
static inline vec v_mul(vec a, vec b) {
    EACH_LANE
    a.lane[l] *= b.lane[l];
    return a;
}
static inline vec v_div(vec a, vec b) {
    EACH_LANE
    a.lane[l] /= b.lane[l];
    return a;
}
static inline vec v_fma(vec a, vec b, vec c) {
    EACH_LANE
    c.lane[l] = a.lane[l] * b.lane[l] + c.lane[l];
    return c;
}
static inline vec v_fnma(vec a, vec b, vec c) {
    EACH_LANE
    c.lane[l] = c.lane[l] - a.lane[l] * b.lane[l];
    return c;
}
static inline vec v_max(vec a, vec b) {
    EACH_LANE
    a.lane[l] = a.lane[l] > b.lane[l] ? a.lane[l] : b.lane[l];
    return a;
}
/* Adding and taking away 1.5 * 2^(mantissa bits) leaves the nearest integer. */
static inline vec v_round(vec a) {
    EACH_LANE
    a.lane[l] = (a.lane[l] + ROUND_SHIFT) - ROUND_SHIFT;
    return a;
}

static inline mask v_lt(vec a, vec b) {
    mask m;
    EACH_LANE
    m.lane[l] = a.lane[l] < b.lane[l];
    return m;
}
static inline mask v_eq(vec a, vec b) {
    mask m;
    EACH_LANE
    m.lane[l] = a.lane[l] == b.lane[l];
    return m;
}
static inline vec v_select(mask m, vec a, vec b) {
    EACH_LANE
    a.lane[l] = m.lane[l] ? a.lane[l] : b.lane[l];
    return a;
}

/* 2^n for an n whose exponent field is in range; other n give some number. */
static inline real power_of_two(integer n) {
    integer bits = (integer)((unsigned_integer)(n + EXPONENT_BIAS) << MANTISSA_BITS);
    real r;
    memcpy(&r, &bits, sizeof r);
    return r;
}
/* In two factors, the first product exact: a subnormal result is rounded once. */
static inline vec v_scale2(vec a, vec n) {
    EACH_LANE
    {
        real x = n.lane[l];
        x = x > LARGEST_SCALE ? LARGEST_SCALE : x;
        x = x > -LARGEST_SCALE ? x : -LARGEST_SCALE;
        integer e = (integer)x, half = e / 2;
        real value = a.lane[l] * power_of_two(half) * power_of_two(e - half);
        a.lane[l] = n.lane[l] == n.lane[l] ? value : n.lane[l];
    }
    return a;
}
static inline vec v_frexp(vec a, vec *exponent) {
    EACH_LANE
    {
        integer bits;
        memcpy(&bits, &a.lane[l], sizeof bits);
        integer e = (integer)((unsigned_integer)bits >> MANTISSA_BITS) - EXPONENT_BIAS;
        bits = (bits & MANTISSA_MASK) | ((integer)EXPONENT_BIAS << MANTISSA_BITS);
        real m;
        memcpy(&m, &bits, sizeof m);
        int high = m > (real)1.41421356;
        a.lane[l] = high ? m * (real)0.5 : m;
        exponent->lane[l] = (real)(e + high);
    }
    return a;
}

static inline real v_max_lanes(vec a) {
    real max = a.lane[0];
    EACH_LANE
    max = a.lane[l] > max ? a.lane[l] : max;
    return max;
}
static inline real lanes_sum(vec a) {
    for (int half = VEC_WIDTH / 2; half > 0; half /= 2)
        for (int l = 0; l < half; ++l) a.lane[l] += a.lane[l + half];
    return a.lane[0];
}
static inline void v_sum4(real *out, vec a, vec b, vec c, vec d) {
    out[0] = lanes_sum(a);
    out[1] = lanes_sum(b);
    out[2] = lanes_sum(c);
    out[3] = lanes_sum(d);
}

#define v_prefetch(p) ((void)(p))

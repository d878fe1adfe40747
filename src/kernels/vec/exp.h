/* exp, log and log1p from the words. Measured over all floats and 10^8 doubles (tests/test_exp.py):
 * exp <= 1.01 ulp (1.009 over all floats), log <= 0.85 ulp (0.840 over all floats), "base"
 * included.
 *
 * exp: n = round(x / ln 2), r = x - n ln 2 in two parts (the first has so few bits that n times it
 * is exact without fma), exp(r) = 1 + r + r^2 q(r), q the minimax polynomial of relative error
 * 2^-28 (float), 2^-64 (double) for |r| <= ln(2) / 2.
 * log: x = 2^e m, f = m - 1, s = f / (2 + f), log(m) = 2 atanh(s) = 2 s + s z P(z) with z = s^2,
 * P minimax of relative error 2^-30, 2^-59; arranged so that f, the largest term, is added last. */

#if REAL_IS_DOUBLE
#define EXP_LOWEST (-745.2) /* below: exactly 0 */
#define EXP_HIGHEST 709.8   /* above: inf */
#define LOG2_E 1.4426950408889634074
#define LN2_HIGH 6.93147180369123816490e-01
#define LN2_LOW 1.90821492927058770002e-10
#define SMALLEST_NORMAL 2.2250738585072014e-308
#define SUBNORMAL_SHIFT 54
#else
#define EXP_LOWEST (-104.0f)
#define EXP_HIGHEST 88.73f
#define LOG2_E 1.44269504f
#define LN2_HIGH 0x1.62e4p-1f
#define LN2_LOW 1.42860682030941723212e-6f
#define SMALLEST_NORMAL 1.17549435e-38f
#define SUBNORMAL_SHIFT 25
#endif

static inline vec v_polynomial(vec x, const real *coefficient, int degree) {
    vec sum = v_set1(coefficient[degree]);
    for (int i = degree - 1; i >= 0; --i) sum = v_fma(sum, x, v_set1(coefficient[i]));
    return sum;
}

/* exp(x + x_low), x_low a rounding remainder of x (at most an ulp of it). */
static inline vec v_exp_sum(vec x, vec x_low) {
#if REAL_IS_DOUBLE
    static const real q[] = {0x1.0000000000000p-1,  0x1.555555555555bp-3,  0x1.5555555555503p-5,
                             0x1.111111110ec5dp-7,  0x1.6c16c16c3048ep-10, 0x1.a01a01b37e34fp-13,
                             0x1.a01a01368ece6p-16, 0x1.71ddf020d45a0p-19, 0x1.27e5b447b7c50p-22,
                             0x1.af6be7db3dbd2p-26, 0x1.1e3d2ae1ba11ep-29};
#else
    static const real q[] = {0x1.fffffcp-2f, 0x1.555492p-3f, 0x1.5558f2p-5f, 0x1.1239e2p-7f,
                             0x1.6a2452p-10f};
#endif
    vec n = v_round(v_mul(x, v_set1(LOG2_E)));
    vec r = v_fnma(n, v_set1(LN2_HIGH), x);
    r = v_add(v_fnma(n, v_set1(LN2_LOW), r), x_low);
    vec tail = v_fma(v_mul(r, r), v_polynomial(r, q, (int)(sizeof q / sizeof q[0]) - 1), r);
    vec result = v_scale2(v_add(v_set1(1), tail), n);
    return v_select(v_lt(x, v_set1(EXP_LOWEST)), v_set1(0), result);
}

/* exp over the whole line: NaN stays NaN, overflow is inf, underflow is gradual. */
static inline vec v_exp(vec x) {
    return v_exp_sum(v_select(v_lt(v_set1(EXP_HIGHEST), x), v_set1(EXP_HIGHEST), x), v_set1(0));
}

/* exp(x - m) for x <= m, m finite; -inf gives 0, NaN NaN. The rounding of x - m, which alone would
 * cost |x - m| / 2 ulp, is carried along (Dekker's two-sum). */
static inline vec v_exp_difference(vec x, vec m) {
    vec t = v_sub(x, m);
    vec x_part = v_add(t, m);
    vec low = v_add(v_sub(x, x_part), v_sub(v_sub(x_part, t), m));
    return v_exp_sum(t, low);
}

/* log(x) for positive, normal, finite x; e2 is added to the exponent. */
static inline vec v_log_scaled(vec x, vec e2) {
#if REAL_IS_DOUBLE
    static const real p[] = {0x1.5555555555593p-1, 0x1.999999997fc71p-2, 0x1.2492494204976p-2,
                             0x1.c71c51f88027bp-3, 0x1.74664292d64a8p-3, 0x1.39a1570d23442p-3,
                             0x1.2f0980fc24595p-3};
#else
    static const real p[] = {0x1.55557ap-1f, 0x1.995eaap-2f, 0x1.31e4b6p-2f};
#endif
    vec e;
    vec f = v_sub(v_frexp(x, &e), v_set1(1));
    e = v_add(e, e2);
    vec s = v_div(f, v_add(f, v_set1(2)));
    vec z = v_mul(s, s);
    vec half_square = v_mul(v_mul(f, f), v_set1((real)0.5));
    vec tail = v_mul(z, v_polynomial(z, p, (int)(sizeof p / sizeof p[0]) - 1));
    /* log(1 + f) = f - (half_square - s (half_square + tail)) */
    vec low = v_fma(e, v_set1(LN2_LOW), v_mul(s, v_add(half_square, tail)));
    return v_fma(e, v_set1(LN2_HIGH), v_sub(f, v_sub(half_square, low)));
}

/* log over the whole line: NaN for negative x, -inf at 0, inf at inf. */
static inline vec v_log(vec x) {
    const real shift = REAL_IS_DOUBLE ? (real)18014398509481984.0 : (real)33554432.0;
    mask subnormal = v_lt(x, v_set1(SMALLEST_NORMAL));
    vec scaled = v_select(subnormal, v_mul(x, v_set1(shift)), x);
    vec e2 = v_select(subnormal, v_set1(-SUBNORMAL_SHIFT), v_set1(0));
    vec result = v_log_scaled(scaled, e2);
    vec zero = v_set1(0), infinity = v_set1((real)INFINITY);
    result = v_select(v_eq(x, infinity), infinity, result);
    result = v_select(v_eq(x, zero), v_set1(-(real)INFINITY), result);
    result = v_select(v_lt(x, zero), v_set1((real)NAN), result);
    return v_select(v_eq(x, x), result, x);
}

/* log(1 + x) for finite x >= 0, or NaN, inverse 1 / (1 + x): the rounding of 1 + x is carried
 * along.
 */
static inline vec v_log1p_by(vec x, vec inverse) {
    vec u = v_add(v_set1(1), x);
    vec lost =
        v_select(v_lt(x, v_set1(1)), v_sub(x, v_sub(u, v_set1(1))), v_sub(v_set1(1), v_sub(u, x)));
    vec result = v_add(v_log_scaled(u, v_set1(0)), v_mul(lost, inverse));
    return v_select(v_eq(x, x), result, x);
}

static inline vec v_log1p(vec x) { return v_log1p_by(x, v_div(v_set1(1), v_add(v_set1(1), x))); }

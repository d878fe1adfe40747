/* Whether every element of an (n_rows, n_classes) matrix, rows stride apart, is finite: 0 times
 * anything else is NaN, and stays in a sum. */
static int finite_rows(const void *x_, ptrdiff_t stride, ptrdiff_t n_rows, ptrdiff_t n_classes) {
    const real *x = x_;
    const vec zero = v_set1(0);
    vec sum = zero;
    if (stride == n_classes) { /* one long row: a tail less for each */
        n_classes *= n_rows;
        n_rows = 1;
    }
    for (ptrdiff_t i = 0; i < n_rows; ++i, x += stride) {
        ptrdiff_t k = 0;
        for (; k + VEC_WIDTH <= n_classes; k += VEC_WIDTH) sum = v_fma(v_load(x + k), zero, sum);
        if (k < n_classes) sum = v_fma(v_load_tail(x + k, n_classes - k, 0), zero, sum);
    }
    return v_sum_lanes(sum) == 0;
}

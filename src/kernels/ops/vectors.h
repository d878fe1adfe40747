/* What a solver does with vectors of as many numbers as there are coefficients. Where the weights
 * of a problem leave the caches, each of these costs what it reads and writes, so they are joined.
 * Double alone: gradients and the solvers' vectors are, whatever the rows are computed in. */
#if REAL_IS_DOUBLE

/* Columns of a matrix that are worked on together: a row of them lies in the first-level cache. */
enum { CHUNK = 256 };

static double dot(const double *a, const double *b, ptrdiff_t n) {
    vec sum0 = v_set1(0), sum1 = v_set1(0);
    ptrdiff_t i = 0;
    for (; i + 2 * VEC_WIDTH <= n; i += 2 * VEC_WIDTH) {
        sum0 = v_fma(v_load(a + i), v_load(b + i), sum0);
        sum1 = v_fma(v_load(a + i + VEC_WIDTH), v_load(b + i + VEC_WIDTH), sum1);
    }
    for (; i < n; i += VEC_WIDTH) {
        const ptrdiff_t lanes = min_size(VEC_WIDTH, n - i);
        sum0 = v_fma(v_load_tail(a + i, lanes, 0), v_load_tail(b + i, lanes, 0), sum0);
    }
    return v_sum_lanes(v_add(sum0, sum1));
}

static double add_scaled(double *out, const double *y, double scale, const double *x,
                         const double *with, ptrdiff_t n) {
    const vec scales = v_set1(scale);
    vec sum = v_set1(0);
    for (ptrdiff_t i = 0; i < n; i += VEC_WIDTH) {
        const ptrdiff_t lanes = min_size(VEC_WIDTH, n - i);
        const vec r = v_fma(scales, v_load_tail(x + i, lanes, 0), v_load_tail(y + i, lanes, 0));
        if (with) sum = v_fma(v_load_tail(with + i, lanes, 0), r, sum);
        v_store_tail(out + i, r, lanes);
    }
    return v_sum_lanes(sum);
}

static void round_weights(void *weights, double *along, const fs_rounding *of, ptrdiff_t begin,
                          ptrdiff_t end) {
    const double *scaled = of->scaled, *scale = of->scale, *center = of->center;
    const ptrdiff_t n_logits = of->n_logits, n_features = of->n_features;
    const int to_float = of->to_float;
    double product[CHUNK];
    for (ptrdiff_t k = 0; k < n_logits; ++k) {
        along[k] = 0;
        for (ptrdiff_t j0 = begin; j0 < end; j0 += CHUNK) {
            const ptrdiff_t n = min_size(CHUNK, end - j0), first = k * n_features + j0;
            const double *w = scaled + first;
            if (scale) {
                for (ptrdiff_t j = 0; j < n; ++j) product[j] = w[j] * scale[j0 + j];
                w = product;
            }
            along[k] += dot(w, center + j0, n);
            if (to_float)
                for (ptrdiff_t j = 0; j < n; ++j) ((float *)weights)[first + j] = (float)w[j];
            else
                memcpy((double *)weights + first, w, (size_t)n * sizeof *w);
        }
    }
}

/* The mean over the classes of columns of a matrix. */
static void column_means(double *means, const double *matrix, ptrdiff_t n_logits,
                         ptrdiff_t n_features, ptrdiff_t n) {
    memset(means, 0, (size_t)n * sizeof *means);
    if (n_logits == 1) return;
    for (ptrdiff_t k = 0; k < n_logits; ++k)
        for (ptrdiff_t j = 0; j < n; ++j) means[j] += matrix[k * n_features + j];
    for (ptrdiff_t j = 0; j < n; ++j) means[j] /= (double)n_logits;
}

static void assemble_gradient(double *gradient, double *dots, const fs_gradient_terms *of,
                              ptrdiff_t begin, ptrdiff_t end) {
    const void *weights = of->weights;
    const double *grad_bias = of->grad_bias, *center = of->center;
    const double *scale = of->scale, *base = of->base;
    const double share = of->share, l2 = of->l2;
    const ptrdiff_t n_logits = of->n_logits, n_features = of->n_features;
    const int from_float = of->from_float;
    double means[CHUNK], scaled[CHUNK];
    double *along = dots + FS_N_DOTS;
    for (ptrdiff_t i = 0; i < FS_N_DOTS + n_logits; ++i) dots[i] = 0;
    for (ptrdiff_t j0 = begin; j0 < end; j0 += CHUNK) {
        const ptrdiff_t n = min_size(CHUNK, end - j0);
        column_means(means, gradient + j0, n_logits, n_features, n);
        for (ptrdiff_t k = 0; k < n_logits; ++k) {
            const ptrdiff_t first = k * n_features + j0;
            double *g = gradient + first;
            if (from_float)
                for (ptrdiff_t j = 0; j < n; ++j) scaled[j] = ((const float *)weights)[first + j];
            else
                memcpy(scaled, (const double *)weights + first, (size_t)n * sizeof *scaled);
            along[k] += dot(scaled, center + j0, n);
            for (ptrdiff_t j = 0; j < n; ++j)
                g[j] = (g[j] - means[j]) * share - grad_bias[k] * center[j0 + j];
            if (scale)
                for (ptrdiff_t j = 0; j < n; ++j) {
                    scaled[j] /= scale[j0 + j];
                    g[j] *= scale[j0 + j];
                }
            for (ptrdiff_t j = 0; j < n; ++j) g[j] += l2 * scaled[j];
            dots[0] += dot(scaled, scaled, n);
            dots[1] += dot(g, g, n);
            dots[2] += dot(g, scaled, n);
            if (base) {
                dots[3] += dot(g, base + first, n);
                dots[4] += dot(scaled, base + first, n);
            }
        }
    }
}

static void within_product(double *result, double *dots, const fs_within *of, ptrdiff_t begin,
                           ptrdiff_t end) {
    const double *gradient = of->gradient, *inverse = of->inverse;
    const double *means = of->means, *grad_bias = of->grad_bias;
    const ptrdiff_t inverse_stride = of->inverse_stride;
    const ptrdiff_t n_logits = of->n_logits, n_features = of->n_features;
    double shared[CHUNK];
    for (ptrdiff_t k = 0; k < n_logits; ++k) dots[k] = 0;
    for (ptrdiff_t j0 = begin; j0 < end; j0 += CHUNK) {
        const ptrdiff_t n = min_size(CHUNK, end - j0);
        for (ptrdiff_t k = 0; k < n_logits; ++k) {
            const ptrdiff_t first = k * n_features + j0;
            const double *g = gradient + first, *d = inverse + k * inverse_stride + j0;
            double *w = result + first;
            if (means) {
                const double *m = means + first;
                for (ptrdiff_t j = 0; j < n; ++j) w[j] = (g[j] - m[j] * grad_bias[k]) * d[j];
                dots[k] += dot(w, m, n);
            } else {
                for (ptrdiff_t j = 0; j < n; ++j) w[j] = g[j] * d[j];
            }
        }
        if (n_logits == 1) continue;
        column_means(shared, result + j0, n_logits, n_features, n);
        for (ptrdiff_t k = 0; k < n_logits; ++k)
            for (ptrdiff_t j = 0; j < n; ++j) result[k * n_features + j0 + j] -= shared[j];
    }
}
#endif

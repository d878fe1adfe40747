/* A pass of Newton's method over the rows of a small problem: loss, gradient and Hessian at once.
 * Double alone. Row by row: of so few numbers everything stays in the first-level cache. */
#if REAL_IS_DOUBLE

/* target[k] of a row, smoothed; returns the class that is the right one. */
static ptrdiff_t small_target(double *target, const fs_small *problem, ptrdiff_t i) {
    const ptrdiff_t n_classes = problem->n_classes;
    const double kept = 1 - problem->label_smoothing;
    const double *probs =
        problem->labels ? NULL : (const double *)problem->target_probs + i * n_classes;
    ptrdiff_t right = problem->labels ? problem->labels[i] : 0;
    for (ptrdiff_t k = 0; k < n_classes; ++k) {
        const double t = probs ? probs[k] : (k == right);
        target[k] = kept * t + problem->label_smoothing / (double)n_classes;
        if (probs && t > probs[right]) right = k;
    }
    return right;
}

/* Rows whose products are added up in registers before they reach the Hessian. */
enum { NEWTON_ROWS = 8 };

/* matrix[a * stride + j] += sum_i factor_i z_ia z_ij, i < n_rows, rows of z m apart; lower: only
 * the lower triangle has to be right. */
static void add_products(double *matrix, const double *z, const double *factor, ptrdiff_t n_rows,
                         ptrdiff_t m, ptrdiff_t stride, int lower) {
    for (ptrdiff_t a = 0; a < m; ++a, matrix += stride) {
        double share[NEWTON_ROWS];
        for (ptrdiff_t i = 0; i < n_rows; ++i) share[i] = factor[i] * z[i * m + a];
        for (ptrdiff_t j = 0; j < (lower ? a + 1 : m); j += VEC_WIDTH) {
            const ptrdiff_t lanes = min_size(VEC_WIDTH, m - j);
            if (lanes == VEC_WIDTH) {
                vec sum = v_load(matrix + j);
                for (ptrdiff_t i = 0; i < n_rows; ++i)
                    sum = v_fma(v_set1(share[i]), v_load(z + i * m + j), sum);
                v_store(matrix + j, sum);
            } else {
                vec sum = v_load_tail(matrix + j, lanes, 0);
                for (ptrdiff_t i = 0; i < n_rows; ++i)
                    sum = v_fma(v_set1(share[i]), v_load_tail(z + i * m + j, lanes, 0), sum);
                v_store_tail(matrix + j, sum, lanes);
            }
        }
    }
}

/* Probabilities and targets of row i, and what it adds to the sums. */
static void newton_row(double *probs, double *target, fs_sums *sums, const fs_small *problem,
                       const double *params, ptrdiff_t i) {
    const ptrdiff_t m = problem->n_columns, n_classes = problem->n_classes;
    const ptrdiff_t first_class = n_classes - problem->n_logits; /* class 0 may have the logit 0 */
    const double weight = problem->row_weights[i], *z = problem->z + i * m;
    const ptrdiff_t right = small_target(target, problem, i);
    probs[0] = 0;
    for (ptrdiff_t l = 0; l < problem->n_logits; ++l)
        probs[first_class + l] = dot(z, params + l * m, m);
    ptrdiff_t largest = 0;
    for (ptrdiff_t k = 1; k < n_classes; ++k)
        if (probs[k] > probs[largest]) largest = k;
    const double max = probs[largest];
    double others = 0, gap = 0;
    for (ptrdiff_t k = 0; k < n_classes; ++k) {
        probs[k] -= max;
        if (target[k] != 0) gap -= target[k] * probs[k];
    }
    for (ptrdiff_t k = 0; k < n_classes; k += VEC_WIDTH) {
        const ptrdiff_t lanes = min_size(VEC_WIDTH, n_classes - k);
        v_store_tail(probs + k, v_exp(v_load_tail(probs + k, lanes, 0)), lanes);
    }
    for (ptrdiff_t k = 0; k < n_classes; ++k)
        if (k != largest) others += probs[k];
    sums->loss += weight * (log1p(others) + gap);
    sums->correct += largest == right ? weight : 0;
    for (ptrdiff_t k = 0; k < n_classes; ++k) probs[k] /= 1 + others;
}

static fs_sums newton_rows(double *hessian, double *gradient, const fs_small *problem,
                           const double *params, double *work) {
    const ptrdiff_t m = problem->n_columns, n_logits = problem->n_logits;
    const ptrdiff_t n_classes = problem->n_classes, size = n_logits * m;
    const ptrdiff_t first_class = n_classes - n_logits;
    double *target = work + NEWTON_ROWS * n_classes;
    fs_sums sums = {0, 0};
    memset(gradient, 0, (size_t)size * sizeof *gradient);
    memset(hessian, 0, (size_t)(size * size) * sizeof *hessian);
    for (ptrdiff_t first = 0; first < problem->n_rows; first += NEWTON_ROWS) {
        const ptrdiff_t n = min_size(NEWTON_ROWS, problem->n_rows - first);
        const double *z = problem->z + first * m, *weights = problem->row_weights + first;
        double factor[NEWTON_ROWS];
        for (ptrdiff_t i = 0; i < n; ++i) {
            double *probs = work + i * n_classes;
            newton_row(probs, target, &sums, problem, params, first + i);
            for (ptrdiff_t k = 0; k < n_logits; ++k) {
                const double residual =
                    weights[i] * (probs[first_class + k] - target[first_class + k]);
                for (ptrdiff_t j = 0; j < m; ++j) gradient[k * m + j] += residual * z[i * m + j];
            }
        }
        const double *probs = work + first_class;
        for (ptrdiff_t k = 0; k < n_logits; ++k)
            for (ptrdiff_t l = 0; l <= k; ++l) {
                for (ptrdiff_t i = 0; i < n; ++i)
                    factor[i] = weights[i] * probs[i * n_classes + k] *
                                ((k == l) - probs[i * n_classes + l]);
                add_products(hessian + k * m * size + l * m, z, factor, n, m, size, k == l);
            }
    }
    return sums;
}
#endif

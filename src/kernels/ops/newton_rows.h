/* Newton's method for a small problem, its parts over the rows: all of it stays in near caches.
 * Double alone. Matrices of logits, probabilities and targets are (n_classes or n_logits, n_rows):
 * rows lie side by side, and so do the lanes of a vector. */
#if REAL_IS_DOUBLE

static void newton_logits(double *logits, const fs_curved_rows *block, const double *params) {
    const ptrdiff_t n = block->n_rows, n_panels = even_parts(block->n_columns, PANEL_WIDTH);
    const double *panels = block->z;
    for (ptrdiff_t i = 0; i < n; i += 4) {
        const ptrdiff_t n_tile = min_size(4, n - i);
        const double *w = params;
        for (ptrdiff_t l = 0; l < block->n_logits; ++l) {
            vec sum[4] = {v_set1(0), v_set1(0), v_set1(0), v_set1(0)};
            double sums[4];
            for (ptrdiff_t panel = 0; panel < n_panels; ++panel, w += PANEL_WIDTH) {
                const double *z = panels + (panel * (n + 1) + i) * PANEL_WIDTH;
                for (ptrdiff_t at = 0; at < PANEL_WIDTH; at += VEC_WIDTH) {
                    const vec wj = v_load(w + at);
                    for (ptrdiff_t r = 0; r < 4; ++r)
                        sum[r] = v_fma(v_load(z + min_size(r, n_tile - 1) * PANEL_WIDTH + at), wj,
                                       sum[r]);
                }
            }
            v_sum4(sums, sum[0], sum[1], sum[2], sum[3]);
            memcpy(logits + l * block->stride + i, sums, (size_t)n_tile * sizeof *sums);
        }
    }
}

/* newton_line for two classes with one logit o: p of class 1 and of class 0 come from one
 * exponential, exp(-|o|). */
static fs_line newton_line_of_one(double *probs, double *rest, const fs_rows *rows,
                                  const double *targets, const double *right, const double *logits,
                                  const double *along, double length) {
    const double *row_weights = rows->row_weights;
    const ptrdiff_t n = rows->n_rows;
    const vec zero = v_set1(0), one = v_set1(1), t = v_set1(length);
    vec loss = zero, correct = zero, slope = zero, curvature = zero;
    for (ptrdiff_t i = 0; i < n; i += VEC_WIDTH) {
        const ptrdiff_t lanes = min_size(VEC_WIDTH, n - i);
        const vec a = v_load_tail(along + i, lanes, 0);
        const vec o = v_fma(t, a, v_load_tail(logits + i, lanes, 0));
        const mask is_higher = v_lt(zero, o);
        const vec below = v_select(is_higher, v_sub(zero, o), o), e = v_exp(below);
        const vec share = v_div(one, v_add(one, e)), others = v_mul(e, share);
        const vec p0 = v_select(is_higher, others, share);
        const vec p1 = v_select(is_higher, share, others);
        v_store_tail(probs + i, p0, lanes);
        v_store_tail(probs + n + i, p1, lanes);
        v_store_tail(rest + i, p1, lanes);
        v_store_tail(rest + n + i, p0, lanes);

        const vec target0 = v_load_tail(targets + i, lanes, 0);
        const vec target1 = v_load_tail(targets + n + i, lanes, 0);
        const vec gap = v_mul(v_select(is_higher, target0, target1), below);
        const vec weight = v_load_tail(row_weights + i, lanes, 0);
        const mask hit = v_eq(v_select(is_higher, one, zero), v_load_tail(right + i, lanes, 0));
        loss = v_fma(weight, v_sub(v_log1p_by(e, share), gap), loss);
        correct = v_add(correct, v_select(hit, weight, zero));
        slope = v_fma(weight, v_mul(v_sub(p1, target1), a), slope);
        curvature = v_fma(weight, v_mul(v_mul(p0, p1), v_mul(a, a)), curvature);
    }
    return (fs_line){v_sum_lanes(loss), v_sum_lanes(correct), v_sum_lanes(slope),
                     v_sum_lanes(curvature)};
}

static fs_line newton_line(double *probs, double *rest, const fs_rows *rows, const double *targets,
                           const double *right, const double *logits, const double *along,
                           double length) {
    const double *row_weights = rows->row_weights;
    const ptrdiff_t n_rows = rows->n_rows, n_classes = rows->n_classes;
    const ptrdiff_t first = n_classes - rows->n_logits; /* class 0 may have the logit 0 */
    if (first) return newton_line_of_one(probs, rest, rows, targets, right, logits, along, length);
    const vec zero = v_set1(0), t = v_set1(length);
    vec loss = zero, correct = zero, slope = zero, curvature = zero;
    for (ptrdiff_t i = 0; i < n_rows; i += VEC_WIDTH) {
        const ptrdiff_t lanes = min_size(VEC_WIDTH, n_rows - i);
        vec max = zero, largest = zero;
        for (ptrdiff_t k = 0; k < n_classes; ++k) {
            const ptrdiff_t at = (k - first) * n_rows + i;
            const vec o = k < first ? zero
                                    : v_fma(t, v_load_tail(along + at, lanes, 0),
                                            v_load_tail(logits + at, lanes, 0));
            const mask higher = v_lt(max, o);
            max = k ? v_select(higher, o, max) : o;
            largest = k ? v_select(higher, v_set1((double)k), largest) : zero;
            v_store_tail(probs + k * n_rows + i, o, lanes);
        }
        vec others = zero, gap = zero, mean = zero, square = zero, wanted = zero;
        for (ptrdiff_t k = 0; k < n_classes; ++k) {
            const ptrdiff_t at = k * n_rows + i;
            const vec target = v_load_tail(targets + at, lanes, 0);
            const vec below = v_sub(max, v_load_tail(probs + at, lanes, 0));
            const vec e = v_exp(v_sub(zero, below));
            gap = v_fma(target, below, gap);
            others = v_add(others, v_select(v_eq(largest, v_set1((double)k)), zero, e));
            v_store_tail(probs + at, e, lanes);
            if (k < first) continue;
            const vec a = v_load_tail(along + at - first * n_rows, lanes, 0), ea = v_mul(e, a);
            mean = v_add(mean, ea);
            square = v_fma(ea, a, square);
            wanted = v_fma(target, a, wanted);
        }
        const vec share = v_div(v_set1(1), v_add(v_set1(1), others));
        for (ptrdiff_t k = 0; k < n_classes; ++k) {
            const ptrdiff_t at = k * n_rows + i;
            const vec p = v_mul(v_load_tail(probs + at, lanes, 0), share);
            const mask is_largest = v_eq(largest, v_set1((double)k));
            v_store_tail(probs + at, p, lanes);
            v_store_tail(rest + at, v_select(is_largest, v_mul(others, share), v_sub(v_set1(1), p)),
                         lanes);
        }
        const vec weight = v_load_tail(row_weights + i, lanes, 0);
        const mask hit = v_eq(largest, v_load_tail(right + i, lanes, 0));
        mean = v_mul(mean, share);
        loss = v_fma(weight, v_add(v_log1p(others), gap), loss);
        correct = v_add(correct, v_select(hit, weight, zero));
        slope = v_fma(weight, v_sub(mean, wanted), slope);
        curvature = v_fma(weight, v_fnma(mean, mean, v_mul(square, share)), curvature);
    }
    return (fs_line){v_sum_lanes(loss), v_sum_lanes(correct), v_sum_lanes(slope),
                     v_sum_lanes(curvature)};
}

/* Vectors of a gradient that are added up in registers at once, and rows of a Hessian that are
 * taken from the others at once. */
enum { NEWTON_VECS = 4, NEWTON_PIVOTS = 4 };

/* For n_vecs vectors of places, a constant where this is inlined, from `place` on: gradient[place]
 * += sum_i residual_i z[i, place]. */
FORCE_INLINE void add_residuals(double *gradient, const double *panels, const double *residual,
                                ptrdiff_t n_rows, ptrdiff_t place, int n_vecs) {
    vec sums[NEWTON_VECS];
    const double *z[NEWTON_VECS];
    UNROLL
    for (int v = 0; v < n_vecs; ++v) {
        sums[v] = v_load(gradient + place + v * VEC_WIDTH);
        z[v] = panels + panel_place(place + v * VEC_WIDTH, n_rows);
    }
    for (ptrdiff_t i = 0; i < n_rows; ++i) {
        const vec factor = v_set1(residual[i]);
        UNROLL
        for (int v = 0; v < n_vecs; ++v)
            sums[v] = v_fma(factor, v_load(z[v] + i * PANEL_WIDTH), sums[v]);
    }
    UNROLL
    for (int v = 0; v < n_vecs; ++v) v_store(gradient + place + v * VEC_WIDTH, sums[v]);
}

static void newton_gradient(double *gradient, const fs_curved_rows *block, const double *targets) {
    const ptrdiff_t n = block->n_rows;
    const ptrdiff_t n_places = even_parts(block->n_columns, PANEL_WIDTH) * PANEL_WIDTH;
    const double *probs = block->probs, *row_weights = block->row_weights;
    double residual[MAX_BLOCK_ROWS];
    for (ptrdiff_t l = 0; l < block->n_logits; ++l, gradient += n_places) {
        const ptrdiff_t at = l * block->stride;
        for (ptrdiff_t i = 0; i < n; ++i)
            residual[i] = row_weights[i] * (probs[at + i] - targets[at + i]);
        ptrdiff_t place = 0;
        for (; place + NEWTON_VECS * VEC_WIDTH <= n_places; place += NEWTON_VECS * VEC_WIDTH)
            add_residuals(gradient, block->z, residual, n, place, NEWTON_VECS);
        for (; place < n_places; place += VEC_WIDTH)
            add_residuals(gradient, block->z, residual, n, place, 1);
    }
}

/* y[j] += scale * x[j] for j in [begin, n), and perhaps some before, of the same vector. */
FORCE_INLINE void add_row(double *y, double scale, const double *x, ptrdiff_t begin, ptrdiff_t n) {
    const vec scales = v_set1(scale);
    ptrdiff_t j = begin / VEC_WIDTH * VEC_WIDTH;
    for (; j + VEC_WIDTH <= n; j += VEC_WIDTH)
        v_store(y + j, v_fma(scales, v_load(x + j), v_load(y + j)));
    if (j < n)
        v_store_tail(y + j,
                     v_fma(scales, v_load_tail(x + j, n - j, 0), v_load_tail(y + j, n - j, 0)),
                     n - j);
}

/* y[j] -= sum_b x_b[i] x_b[j] for j in [i, n), and perhaps some before, of the same vector; x are
 * NEWTON_PIVOTS rows. */
FORCE_INLINE void subtract_rows(double *y, const double *x, ptrdiff_t i, ptrdiff_t n) {
    vec scales[NEWTON_PIVOTS];
    ptrdiff_t j = i / VEC_WIDTH * VEC_WIDTH;
    for (int b = 0; b < NEWTON_PIVOTS; ++b) scales[b] = v_set1(x[b * n + i]);
    for (; j + VEC_WIDTH <= n; j += VEC_WIDTH) {
        vec rest = v_load(y + j);
        for (int b = 0; b < NEWTON_PIVOTS; ++b)
            rest = v_fnma(scales[b], v_load(x + b * n + j), rest);
        v_store(y + j, rest);
    }
    if (j < n) {
        vec rest = v_load_tail(y + j, n - j, 0);
        for (int b = 0; b < NEWTON_PIVOTS; ++b)
            rest = v_fnma(scales[b], v_load_tail(x + b * n + j, n - j, 0), rest);
        v_store_tail(y + j, rest, n - j);
    }
}

static int newton_factor(double *hessian, double *diagonal, ptrdiff_t n) {
    for (ptrdiff_t i = 0; i < n; ++i) diagonal[i] = hessian[i * n + i];
    for (ptrdiff_t first = 0; first < n; first += NEWTON_PIVOTS) {
        const ptrdiff_t end = min_size(first + NEWTON_PIVOTS, n);
        for (ptrdiff_t k = first; k < end; ++k) {
            double *row = hessian + k * n;
            if (!(row[k] > 1e-14 * diagonal[k])) return 0;
            const double scale = 1 / sqrt(row[k]);
            for (ptrdiff_t j = k; j < n; ++j) row[j] *= scale;
            for (ptrdiff_t i = k + 1; i < end; ++i) add_row(hessian + i * n, -row[i], row, i, n);
        }
        for (ptrdiff_t i = end; i < n; ++i)
            subtract_rows(hessian + i * n, hessian + first * n, i, n);
    }
    return 1;
}

static void newton_solve(double *vector, const double *factor, ptrdiff_t n) {
    for (ptrdiff_t i = 0; i < n; ++i) {
        const double *row = factor + i * n;
        vector[i] /= row[i];
        for (ptrdiff_t j = i + 1; j < n; ++j) vector[j] -= vector[i] * row[j];
    }
    for (ptrdiff_t i = n - 1; i >= 0; --i) {
        const double *row = factor + i * n;
        vector[i] = (vector[i] - dot(row + i + 1, vector + i + 1, n - i - 1)) / row[i];
    }
}
#endif

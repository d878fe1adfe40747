/* Cross-entropy of given logits, row by row, and its gradient by the logits:
 *   loss_i = w_i (log1p(rest) + sum_k t_k (m - o_k)),   grad_ik = w_i (softmax_k - t_k),
 * m and rest as in softmax_rows.h. Targets t: with e = label_smoothing, (1 - e) target + e / K.
 * Every term is >= 0, so a loss near zero keeps its relative accuracy. So does the gradient at the
 * largest logit where its target is near 1: it is taken as (1 - t) - rest / (1 + rest) there, not
 * as p - t.
 * grad may be NULL, or logits when the strides agree. n_classes >= 1. */

/* sum_k t_k (m - o_k) for t = smoothed target_probs (or, without them, 1 / n for every class). A
 * class of target 0 adds 0, also at -inf. */
FORCE_INLINE real target_gap(const real *logits, const real *target, real max, real kept,
                             real spread, ptrdiff_t n) {
    const vec m = v_set1(max), zero = v_set1(0);
    long_sum sum = {zero, zero, zero, 0};
    for (ptrdiff_t k = 0; k < n; k += VEC_WIDTH) {
        const ptrdiff_t lanes = min_size(n - k, VEC_WIDTH);
        vec t = v_set1(spread);
        if (target) t = v_fma(v_set1(kept), v_load_tail(target + k, lanes, 0), t);
        vec gap = v_sub(m, v_load_tail(logits + k, lanes, max));
        long_sum_add(&sum, v_select(v_eq(t, zero), zero, v_mul(t, gap)));
    }
    return v_sum_lanes(long_sum_lanes(&sum));
}

/* grad holds exp(o_k - m) and becomes weight * (softmax - t); largest is the index of m. */
FORCE_INLINE void finish_gradient(real *grad, const real *target, ptrdiff_t label,
                                  ptrdiff_t largest, real rest, real kept, real spread, real weight,
                                  ptrdiff_t n) {
    const vec sum = v_set1(1 + rest), w = v_set1(weight), even = v_set1(spread);
    const real at_largest = target ? target[largest] : (real)(largest == label);
    const real at_label = target ? 0 : grad[label];
    for (ptrdiff_t k = 0; k < n; k += VEC_WIDTH) {
        const ptrdiff_t lanes = min_size(n - k, VEC_WIDTH);
        vec t = even;
        if (target) t = v_fma(v_set1(kept), v_load_tail(target + k, lanes, 0), t);
        vec p = v_div(v_load_tail(grad + k, lanes, 0), sum);
        v_store_tail(grad + k, v_mul(w, v_sub(p, t)), lanes);
    }
    if (!target) grad[label] = weight * (at_label / (1 + rest) - (kept + spread));
    const real t = kept * at_largest + spread;
    if (t > (real)0.5) grad[largest] = weight * ((1 - t) - rest / (1 + rest));
}

static void cross_entropy_rows(void *loss_, void *grad_, const void *logits_, ptrdiff_t grad_stride,
                               ptrdiff_t logits_stride, const fs_rows *rows, ptrdiff_t first,
                               ptrdiff_t n_block_rows) {
    const ptrdiff_t n = rows->n_classes;
    const real spread = (real)(rows->label_smoothing / (double)n);
    const real kept = (real)(1 - rows->label_smoothing);
    for (ptrdiff_t i = first; i < first + n_block_rows; ++i) {
        const real *o = (const real *)logits_ + i * logits_stride;
        const real weight = ((const real *)rows->row_weights)[i];
        const real *target = rows->labels ? NULL : (const real *)rows->target_probs + i * n;
        const ptrdiff_t label = rows->labels ? rows->labels[i] : -1;
        real *grad = grad_ ? (real *)grad_ + i * grad_stride : NULL;

        const real max = row_max(o, n);
        real gap = target || spread > 0 ? target_gap(o, target, max, kept, spread, n) : 0;
        if (!target && kept > 0) gap += kept * (max - o[label]);
        ptrdiff_t largest = 0;
        while (grad && largest < n - 1 && !(o[largest] == max)) ++largest;
        const real rest = row_rest(grad, o, max, n);
        if (grad) {
            finish_gradient(grad, target, label, largest, rest, kept, spread, weight, n);
            if (!(max - max == 0) || rest != rest)
                for (ptrdiff_t k = 0; k < n; ++k) grad[k] = (real)NAN;
        }
        /* an infinite maximum makes the row NaN, as it does softmax; weight 0 removes the row */
        ((real *)loss_)[i] = weight == 0 ? 0 : weight * (scalar_log1p(rest) + gap + (max - max));
    }
}

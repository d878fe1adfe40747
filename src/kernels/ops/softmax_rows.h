/* softmax, log-softmax and log-sum-exp of each row of an (n_rows, n_classes) matrix, n_classes >=
 * 1, rows stride elements apart; out may be logits when the strides agree.
 *
 * With m the largest logit and rest = sum over the other classes of exp(o_k - m):
 *   softmax_k = exp(o_k - m) / (1 + rest),  log softmax_k = (o_k - m) - log1p(rest),
 *   logsumexp = m + log1p(rest),
 * so that what is near zero keeps its relative accuracy. Special rows come out as in torch: NaN
 * anywhere, +inf, or -inf everywhere make the row NaN (logsumexp: NaN, inf, -inf); -inf among
 * finite logits has probability exactly 0. */

FORCE_INLINE real row_max(const real *logits, ptrdiff_t n) {
    vec max = v_set1(logits[0]);
    ptrdiff_t k = 0;
    for (; k + VEC_WIDTH <= n; k += VEC_WIDTH) max = v_max(max, v_load(logits + k));
    if (k < n) max = v_max(max, v_load_tail(logits + k, n - k, logits[0]));
    return v_max_lanes(max);
}

/* A sum in runs of this many vectors; the runs are added with their rounding errors (Knuth's
 * two-sum), so the error does not grow with the length of the row. */
enum { SUM_RUN = 8 };

typedef struct {
    vec run, total, error;
    int n_run;
} long_sum;

FORCE_INLINE void long_sum_fold(long_sum *sum) {
    vec total = v_add(sum->total, sum->run);
    vec part = v_sub(total, sum->total);
    vec error = v_add(v_sub(sum->total, v_sub(total, part)), v_sub(sum->run, part));
    sum->error = v_add(sum->error, error);
    sum->total = total;
    sum->run = v_set1(0);
    sum->n_run = 0;
}

FORCE_INLINE void long_sum_add(long_sum *sum, vec term) {
    sum->run = v_add(sum->run, term);
    if (++sum->n_run == SUM_RUN) long_sum_fold(sum);
}

/* The sum of each lane; of an infinite sum the error is NaN, and left out. */
FORCE_INLINE vec long_sum_lanes(long_sum *sum) {
    long_sum_fold(sum);
    vec total = sum->total, error = sum->error;
    return v_select(v_eq(error, error), v_add(total, error), total);
}

/* rest of one row; where exps is given, exps[k] = exp(o_k - max) (exps may be logits). Every class
 * that equals the maximum counts 1, the first of them not at all. */
FORCE_INLINE real row_rest(real *exps, const real *logits, real max, ptrdiff_t n) {
    const vec m = v_set1(max), zero = v_set1(0), one = v_set1(1);
    long_sum sum = {zero, zero, zero, 0};
    vec ties = zero;
    ptrdiff_t k = 0;
    for (; k < n; k += VEC_WIDTH) {
        const ptrdiff_t lanes = min_size(n - k, VEC_WIDTH);
        vec o = lanes == VEC_WIDTH ? v_load(logits + k)
                                   : v_load_tail(logits + k, lanes, -(real)INFINITY);
        vec e = v_exp_difference(o, m);
        mask is_max = v_eq(o, m);
        if (exps) {
            if (lanes == VEC_WIDTH)
                v_store(exps + k, e);
            else
                v_store_tail(exps + k, e, lanes);
        }
        ties = v_add(ties, v_select(is_max, one, zero));
        long_sum_add(&sum, v_select(is_max, zero, e));
    }
    return v_sum_lanes(long_sum_lanes(&sum)) + (v_sum_lanes(ties) - 1);
}

/* Of two classes the larger probability is 1 less the smaller one: their sum is exactly 1. Its
 * error stays below 3 units in the last place, as that of the quotient. NaN stays. */
FORCE_INLINE void sum_to_one(real *probs) {
    if (probs[0] < probs[1])
        probs[1] = 1 - probs[0];
    else if (probs[1] <= probs[0])
        probs[0] = 1 - probs[1];
}

static void softmax_rows(void *out_, const void *logits_, ptrdiff_t out_stride,
                         ptrdiff_t logits_stride, ptrdiff_t n_rows, ptrdiff_t n_classes) {
    real *out = out_;
    const real *logits = logits_;
    for (ptrdiff_t i = 0; i < n_rows; ++i, out += out_stride, logits += logits_stride) {
        const real max = row_max(logits, n_classes);
        /* max - max makes the row NaN where max is infinite */
        const vec sum = v_set1(1 + row_rest(out, logits, max, n_classes) + (max - max));
        ptrdiff_t k = 0;
        for (; k + VEC_WIDTH <= n_classes; k += VEC_WIDTH)
            v_store(out + k, v_div(v_load(out + k), sum));
        if (k < n_classes)
            v_store_tail(out + k, v_div(v_load_tail(out + k, n_classes - k, 0), sum),
                         n_classes - k);
        if (n_classes == 2) sum_to_one(out);
    }
}

FORCE_INLINE real scalar_log1p(real x) {
    real lanes[VEC_WIDTH];
    v_store(lanes, v_log1p(v_set1(x)));
    return lanes[0];
}

static void logsumexp_rows(void *out_, const void *logits_, ptrdiff_t logits_stride,
                           ptrdiff_t n_rows, ptrdiff_t n_classes) {
    real *out = out_;
    const real *logits = logits_;
    for (ptrdiff_t i = 0; i < n_rows; ++i, logits += logits_stride) {
        const real max = row_max(logits, n_classes);
        const real rest = row_rest(NULL, logits, max, n_classes);
        out[i] = max + (max - max == 0 || rest != rest ? scalar_log1p(rest) : 0);
    }
}

/* (o - m) - log1p(rest), the rounding of o - m carried along; -inf stays -inf. */
FORCE_INLINE vec log_softmax_of(vec o, vec m, vec log_sum, vec lowest) {
    vec t = v_sub(o, m);
    vec o_part = v_add(t, m);
    vec low = v_add(v_sub(o, o_part), v_sub(v_sub(o_part, t), m));
    return v_add(t, v_select(v_lt(t, lowest), v_sub(v_set1(0), log_sum), v_sub(low, log_sum)));
}

static void log_softmax_rows(void *out_, const void *logits_, ptrdiff_t out_stride,
                             ptrdiff_t logits_stride, ptrdiff_t n_rows, ptrdiff_t n_classes) {
    real *out = out_;
    const real *logits = logits_;
    const vec lowest = v_set1(REAL_IS_DOUBLE ? (real)-1e300 : (real)-1e38f);
    for (ptrdiff_t i = 0; i < n_rows; ++i, out += out_stride, logits += logits_stride) {
        const real max = row_max(logits, n_classes);
        const real rest = row_rest(NULL, logits, max, n_classes);
        const vec m = v_set1(max), log_sum = v_set1(scalar_log1p(rest) + (max - max));
        ptrdiff_t k = 0;
        for (; k + VEC_WIDTH <= n_classes; k += VEC_WIDTH)
            v_store(out + k, log_softmax_of(v_load(logits + k), m, log_sum, lowest));
        if (k < n_classes)
            v_store_tail(
                out + k,
                log_softmax_of(v_load_tail(logits + k, n_classes - k, max), m, log_sum, lowest),
                n_classes - k);
    }
}

/* Cross-entropy and residual of two classes with one logit o, that of class 0 being 0: VEC_WIDTH
 * rows at a time, one row a lane. The formulas of residual_lanes.h with one exponential, exp(-|o|),
 * since the other is 1: loss = log1p(exp(-|o|)) + target of the smaller logit * |o|. */

/* Rows that are worked on together: whole vectors, and whole tiles of one_logit.h, which are of
 * DOT_ROWS rows. NEAR_BYTES of features are half of a first-level cache. */
enum { LOGISTIC_ROWS = VEC_WIDTH > 8 ? VEC_WIDTH : 8, DOT_ROWS = 8, NEAR_BYTES = 16 * 1024 };

/* Of the rows of a block: row weights and classes, or probabilities of both of them; and the bias
 * of the logit. */
typedef struct {
    real weight[MAX_BLOCK_ROWS], label[MAX_BLOCK_ROWS], probs[2][MAX_BLOCK_ROWS];
    real at_label, elsewhere, kept, bias;
    int soft;
} logistic_targets;

static void take_logistic_targets(logistic_targets *targets, const fs_rows *rows, real bias,
                                  fs_block block) {
    const ptrdiff_t n = block.n_rows, first = block.first;
    const real *weights = rows->row_weights, *probs = rows->target_probs;
    const double smoothing = rows->label_smoothing;
    targets->at_label = (real)(1 - smoothing + smoothing / 2);
    targets->elsewhere = (real)(smoothing / 2);
    targets->kept = (real)(1 - smoothing);
    targets->bias = bias;
    targets->soft = !rows->labels;
    for (ptrdiff_t i = n; i % LOGISTIC_ROWS; ++i)
        targets->weight[i] = targets->label[i] = targets->probs[0][i] = targets->probs[1][i] = 0;
    if (!block.row_index) {
        memcpy(targets->weight, weights + first, (size_t)n * sizeof(real));
        for (ptrdiff_t i = 0; rows->labels && i < n; ++i)
            targets->label[i] = (real)rows->labels[first + i];
    } else {
        for (ptrdiff_t i = 0; i < n; ++i) targets->weight[i] = weights[row_of(block, i)];
        for (ptrdiff_t i = 0; rows->labels && i < n; ++i)
            targets->label[i] = (real)rows->labels[row_of(block, i)];
    }
    for (ptrdiff_t i = 0; targets->soft && i < n; ++i) {
        targets->probs[0][i] = probs[2 * row_of(block, i)];
        targets->probs[1][i] = probs[2 * row_of(block, i) + 1];
    }
}

/* One vector of rows, of a block the i-th and those that follow: products become residuals,
 * with their weights. */
FORCE_INLINE void logistic_lanes(real *logits, real *loss, real *hit,
                                 const logistic_targets *targets, ptrdiff_t i, int soft) {
    const vec zero = v_set1(0), one = v_set1(1), o = v_add(v_load(logits), v_set1(targets->bias));
    const vec weight = v_load(targets->weight + i), elsewhere = v_set1(targets->elsewhere);
    const mask is_higher = v_lt(zero, o); /* class 1 is the likelier one */
    vec target0, target1, right;
    if (soft) {
        const vec kept = v_set1(targets->kept);
        target0 = v_fma(kept, v_load(targets->probs[0] + i), elsewhere);
        target1 = v_fma(kept, v_load(targets->probs[1] + i), elsewhere);
        right = v_select(v_lt(target0, target1), one, zero);
    } else {
        const vec at_label = v_set1(targets->at_label);
        right = v_load(targets->label + i);
        target0 = v_select(v_eq(right, one), elsewhere, at_label);
        target1 = v_select(v_eq(right, one), at_label, elsewhere);
    }
    v_store(hit, v_select(v_eq(right, v_select(is_higher, one, zero)), weight, zero));

    const vec max = v_select(is_higher, o, zero);
    const vec t = v_select(is_higher, v_sub(zero, o), o), e = v_exp_sum(t, zero);
    const vec smaller = v_select(is_higher, target0, target1); /* 0 counts 0, also at -inf */
    const vec gap = v_select(v_eq(smaller, zero), zero, v_fnma(smaller, t, zero));
    /* max - max makes the row NaN where max is infinite */
    const vec rest = v_add(e, v_sub(max, max)), share = v_div(one, v_add(one, rest));
    v_store(loss, v_add(v_log1p_by(rest, share), gap));

    const vec others = v_mul(rest, share);
    const vec r = v_sub(v_select(is_higher, share, others), target1);
    const vec near_one = v_sub(v_sub(one, target1), others);
    const vec high = v_select(v_lt(v_set1((real)0.5), target1), near_one, r);
    v_store(logits, v_mul(weight, v_select(is_higher, high, r)));
}

/* The products of n rows, of a block the i-th and those that follow, become residuals; *sums +=
 * loss and hits, in double. What follows them, up to whole LOGISTIC_ROWS, is scratch. */
static void logistic_rows(real *logits, fs_sums *sums, const logistic_targets *targets,
                          ptrdiff_t first, ptrdiff_t n) {
    real loss[MAX_BLOCK_ROWS], hit[MAX_BLOCK_ROWS];
    double losses[LOGISTIC_ROWS] = {0}, hits[LOGISTIC_ROWS] = {0};
    for (ptrdiff_t i = 0; i < n; i += VEC_WIDTH)
        if (targets->soft)
            logistic_lanes(logits + i, loss + i, hit + i, targets, first + i, 1);
        else
            logistic_lanes(logits + i, loss + i, hit + i, targets, first + i, 0);
    for (ptrdiff_t i = n; i % LOGISTIC_ROWS; ++i) loss[i] = hit[i] = 0;
    for (ptrdiff_t i = 0; i < n; i += LOGISTIC_ROWS)
        for (ptrdiff_t l = 0; l < LOGISTIC_ROWS; ++l) {
            losses[l] += (double)targets->weight[first + i + l] * (double)loss[i + l];
            hits[l] += (double)hit[i + l];
        }
    for (int l = 0; l < LOGISTIC_ROWS; ++l) {
        sums->loss += losses[l];
        sums->correct += hits[l];
    }
}

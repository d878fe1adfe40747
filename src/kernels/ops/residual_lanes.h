/* Softmax, cross-entropy and residual of VEC_WIDTH rows at a time, one row a lane. Their logits lie
 * class by class, stride apart, so no sum over classes crosses lanes and no number of classes
 * leaves lanes idle. Formulas as in cross_entropy_rows.h. */

/* Where class k's logits lie: for two classes with one logit, class 1 is row 0 and row 1 is 0. */
FORCE_INLINE ptrdiff_t logit_row(const fs_rows *rows, ptrdiff_t k) {
    return rows->n_logits < rows->n_classes ? 1 - k : k;
}

/* The targets of VEC_WIDTH rows, one row a lane. */
typedef struct {
    const real *const *probs; /* rows of target_probs, where there are no labels */
    vec label, at_label, elsewhere, kept;
} lane_targets;

FORCE_INLINE vec lane_target(const lane_targets *targets, ptrdiff_t k, int soft) {
    if (!soft)
        return v_select(v_eq(targets->label, v_set1((real)k)), targets->at_label,
                        targets->elsewhere);
    real t[VEC_WIDTH];
    for (int lane = 0; lane < VEC_WIDTH; ++lane) t[lane] = targets->probs[lane][k];
    return v_fma(targets->kept, v_load(t), targets->elsewhere);
}

/* One vector of rows: residual (weight not yet applied) over the logits in place. */
FORCE_INLINE void residual_lanes(real *logits, vec *loss, vec *hit, const fs_rows *rows,
                                 ptrdiff_t stride, const lane_targets *targets, int soft) {
    const vec zero = v_set1(0), one = v_set1(1);
    vec max = v_load(logits + logit_row(rows, 0) * stride), largest = zero;
    vec best_target = lane_target(targets, 0, soft), best_class = zero;
    for (ptrdiff_t k = 1; k < rows->n_classes; ++k) {
        vec o = v_load(logits + logit_row(rows, k) * stride), class_k = v_set1((real)k);
        largest = v_select(v_lt(max, o), class_k, largest);
        max = v_select(v_lt(max, o), o, max);
        if (soft) {
            vec t = lane_target(targets, k, soft);
            best_class = v_select(v_lt(best_target, t), class_k, best_class);
            best_target = v_max(best_target, t);
        }
    }
    *hit = v_select(v_eq(largest, soft ? best_class : targets->label), one, zero);

    long_sum others_sum = {zero, zero, zero, 0}, gap_sum = others_sum;
    for (ptrdiff_t k = 0; k < rows->n_classes; ++k) {
        real *o = logits + logit_row(rows, k) * stride;
        vec t = v_sub(v_load(o), max);
        vec e = v_exp_sum(t, zero);
        vec target = lane_target(targets, k, soft); /* 0 counts 0, also at a logit of -inf */
        long_sum_add(&gap_sum, v_select(v_eq(target, zero), zero, v_fnma(target, t, zero)));
        long_sum_add(&others_sum, v_select(v_eq(largest, v_set1((real)k)), zero, e));
        v_store(o, e);
    }
    /* max - max makes the row NaN where max is infinite */
    const vec rest = v_add(long_sum_lanes(&others_sum), v_sub(max, max));
    *loss = v_add(v_log1p(rest), long_sum_lanes(&gap_sum));

    const vec half = v_set1((real)0.5), inverse = v_div(one, v_add(one, rest)),
              others = v_mul(rest, inverse);
    for (ptrdiff_t k = 0; k < rows->n_classes; ++k) {
        real *e = logits + logit_row(rows, k) * stride;
        vec t = lane_target(targets, k, soft);
        vec r = v_sub(v_mul(v_load(e), inverse), t);
        vec near_one = v_select(v_lt(half, t), v_sub(v_sub(one, t), others), r);
        v_store(e, v_select(v_eq(largest, v_set1((real)k)), near_one, r));
    }
}

/* The logits of a block, class by class, become its residual; *sums += loss and hits. */
static void block_residual(real *residual, fs_sums *sums, const fs_rows *rows,
                           ptrdiff_t residual_stride, fs_block block) {
    const double smoothing = rows->label_smoothing, n_classes = (double)rows->n_classes;
    const real *probs[VEC_WIDTH] = {NULL};
    lane_targets targets;
    targets.probs = probs;
    targets.kept = v_set1((real)(1 - smoothing));
    targets.elsewhere = v_set1((real)(smoothing / n_classes));
    targets.at_label = v_set1((real)(1 - smoothing + smoothing / n_classes));

    double loss = 0, correct = 0;
    for (ptrdiff_t i = 0; i < block.n_rows; i += VEC_WIDTH) {
        const ptrdiff_t n_lanes = min_size(VEC_WIDTH, block.n_rows - i);
        real weight[VEC_WIDTH] = {0}, label[VEC_WIDTH] = {0}, lane_loss[VEC_WIDTH],
             lane_hit[VEC_WIDTH];
        for (ptrdiff_t lane = 0; lane < VEC_WIDTH; ++lane) {
            const ptrdiff_t row = row_of(block, i + min_size(lane, n_lanes - 1));
            if (rows->labels)
                label[lane] = (real)rows->labels[row];
            else
                probs[lane] = (const real *)rows->target_probs + row * rows->n_classes;
            if (lane < n_lanes) weight[lane] = ((const real *)rows->row_weights)[row];
        }
        targets.label = v_load(label);
        vec vec_loss, vec_hit;
        if (rows->labels)
            residual_lanes(residual + i, &vec_loss, &vec_hit, rows, residual_stride, &targets, 0);
        else
            residual_lanes(residual + i, &vec_loss, &vec_hit, rows, residual_stride, &targets, 1);
        v_store(lane_loss, vec_loss);
        v_store(lane_hit, vec_hit);
        for (ptrdiff_t lane = 0; lane < n_lanes; ++lane) {
            loss += (double)weight[lane] * (double)lane_loss[lane];
            correct += (double)weight[lane] * (double)lane_hit[lane];
        }
        const vec w = v_load(weight);
        for (ptrdiff_t k = 0; k < rows->n_logits; ++k) {
            real *r = residual + k * residual_stride + i;
            v_store(r, v_mul(w, v_load(r)));
        }
    }
    sums->loss += loss;
    sums->correct += correct;
}

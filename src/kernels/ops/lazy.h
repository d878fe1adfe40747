/* Steps of gradient descent without a gradient. They are made up for when a feature is needed: its
 * weights shrink by l2 and its velocity goes on, which is a linear map of the two. The map depends
 * on the number of steps alone. With powers[4 s .. 4 s + 3] = (a, b, c, d) for s steps,
 *   weight, velocity = a weight + b velocity, c weight + d velocity.
 * steps[j] is the step that the weights of feature j have got to. velocity may be NULL. */

FORCE_INLINE void advance(real *weights, real *velocity, const double *power, ptrdiff_t n_logits) {
    const vec a = v_set1((real)power[0]), b = v_set1((real)power[1]), c = v_set1((real)power[2]),
              d = v_set1((real)power[3]);
    for (ptrdiff_t k = 0; k < n_logits; k += VEC_WIDTH) {
        const ptrdiff_t n = min_size(VEC_WIDTH, n_logits - k);
        const vec w = v_load(weights + k);
        if (velocity) {
            const vec v = v_load(velocity + k);
            v_store_tail(velocity + k, v_fma(c, w, v_mul(d, v)), n);
            v_store_tail(weights + k, v_fma(a, w, v_mul(b, v)), n);
        } else {
            v_store_tail(weights + k, v_mul(a, w), n);
        }
    }
}

/* table by value: a copy that no store can change stays in registers. */
FORCE_INLINE void advance_feature(fs_lazy table, ptrdiff_t j, int32_t step) {
    real *weights = table.weights, *velocity = table.velocity;
    if (table.steps[j] < step)
        advance(weights + j * table.stride, velocity ? velocity + j * table.stride : NULL,
                table.powers + 4 * (step - table.steps[j]), table.n_logits);
    table.steps[j] = step;
}

static void advance_rows(const fs_lazy *table, const fs_rows *rows, int32_t step, fs_block block) {
    const fs_lazy t = *table;
    const int wide = rows->wide_index;
    for (ptrdiff_t i = 0; i < block.n_rows; ++i) {
        const ptrdiff_t row = row_of(block, i), end = INDEX_AT(rows->indptr, row + 1, wide);
        for (ptrdiff_t p = INDEX_AT(rows->indptr, row, wide); p < end; ++p)
            advance_feature(t, INDEX_AT(rows->indices, p, wide), step);
    }
}

static void advance_features(const fs_lazy *table, int32_t step, ptrdiff_t begin, ptrdiff_t end) {
    const fs_lazy t = *table;
    for (ptrdiff_t j = begin; j < end; ++j) advance_feature(t, j, step);
}

/* What add_to_rows added up in grad, which becomes zero, goes to weights and velocity: once for
 * each feature of the rows, for the second time there is nothing left. */
static void apply_rows(const fs_lazy *table, void *grad_, const fs_rows *rows,
                       const fs_descent *how, double scale, fs_block block) {
    const real *feature_scale = how->squared_scale;
    real *weights = table->weights, *velocity = table->velocity;
    const ptrdiff_t n_logits = table->n_logits, stride = table->stride;
    const vec rate = v_set1((real)how->learning_rate), zero = v_set1(0);
    const int wide = rows->wide_index;
    for (ptrdiff_t i = 0; i < block.n_rows; ++i) {
        const ptrdiff_t row = row_of(block, i), end = INDEX_AT(rows->indptr, row + 1, wide);
        for (ptrdiff_t p = INDEX_AT(rows->indptr, row, wide); p < end; ++p) {
            const ptrdiff_t j = INDEX_AT(rows->indices, p, wide), first = j * stride;
            real *w = weights + first, *g = (real *)grad_ + first;
            real *v = velocity ? velocity + first : NULL;
            const vec s = v_set1((real)(feature_scale ? scale * (double)feature_scale[j] : scale));
            for (ptrdiff_t k = 0; k < n_logits; k += VEC_WIDTH) {
                const ptrdiff_t n = min_size(VEC_WIDTH, n_logits - k);
                const vec step = v_mul(s, v_load(g + k));
                v_store_tail(g + k, zero, n);
                v_store_tail(w + k, v_fnma(rate, step, v_load(w + k)), n);
                if (v) v_store_tail(v + k, v_add(v_load(v + k), step), n);
            }
        }
    }
}

/* (Read by dense.h, once for each x_t.) A pass over a block of rows of two classes with one logit.
 * There is so little arithmetic for each number that the pass should wait for memory alone: logits,
 * residuals and gradient of a few rows follow each other while those are in the first-level cache.
 * Twice as many rows as in dot_tile share what is loaded of the weights, in as many sums as the
 * latency of a multiply-add asks for. The next rows are asked for while the gradient is added up,
 * which finds its own in a near cache (5-10 % less time than beside the logits). */

/* sums[r] = x[r] . weights; what lies `ahead` elements after x is asked for meanwhile (0: nothing
 * is). The order of the additions depends on n_features alone. */
static void dot_rows(real sums[DOT_ROWS], const x_t *const x[DOT_ROWS], const real *weights,
                     ptrdiff_t n_features, ptrdiff_t ahead) {
    enum { LINE_ELEMENTS = 64 / (int)sizeof(x_t) };
    vec acc[DOT_ROWS];
    ptrdiff_t j = 0;
    UNROLL
    for (int r = 0; r < DOT_ROWS; ++r) acc[r] = v_set1(0);
    for (; j + VEC_WIDTH <= n_features; j += VEC_WIDTH) {
        const vec w = v_load(weights + j);
        if (ahead && j % LINE_ELEMENTS == 0) {
            UNROLL
            for (int r = 0; r < DOT_ROWS; ++r) v_prefetch(x[r] + j + ahead);
        }
        UNROLL
        for (int r = 0; r < DOT_ROWS; ++r) acc[r] = v_fma(x_load(x[r] + j), w, acc[r]);
    }
    if (j < n_features) {
        const ptrdiff_t n = n_features - j;
        const vec w = v_load_tail(weights + j, n, 0);
        UNROLL
        for (int r = 0; r < DOT_ROWS; ++r) acc[r] = v_fma(x_load_tail(x[r] + j, n), w, acc[r]);
    }
    v_sum4(sums, acc[0], acc[1], acc[2], acc[3]);
    v_sum4(sums + TILE_ROWS, acc[4], acc[5], acc[6], acc[7]);
}

/* Products of n rows; past them the last one stands in, to a multiple of DOT_ROWS. */
static void one_logit_rows(real *products, const x_t *const *x, const real *weights,
                           ptrdiff_t n_features, ptrdiff_t n, ptrdiff_t ahead) {
    for (ptrdiff_t i = 0; i < n; i += DOT_ROWS) {
        const x_t *rows[DOT_ROWS];
        for (ptrdiff_t r = 0; r < DOT_ROWS; ++r) rows[r] = x[min_size(i + r, n - 1)];
        dot_rows(products + i, rows, weights, n_features, ahead);
    }
}

/* For v < n_vecs, a constant where this is inlined: grad[v * VEC_WIDTH ..] += sum_i residual[i]
 * x[i][j + v * VEC_WIDTH ..]; rows of even and of odd number have sums of their own. n_lanes <
 * VEC_WIDTH only with one vector. What lies `ahead` elements after x is asked for meanwhile. */
FORCE_INLINE void one_grad_tile(real *grad, const real *residual, const x_t *const *x, ptrdiff_t n,
                                ptrdiff_t j, ptrdiff_t n_lanes, int n_vecs, ptrdiff_t ahead) {
    enum { WAYS = 2, MOST_VECS = 4, LINE_ELEMENTS = 64 / (int)sizeof(x_t) };
    vec acc[WAYS][MOST_VECS];
    ptrdiff_t i = 0;
    UNROLL
    for (int v = 0; v < n_vecs; ++v) acc[0][v] = acc[1][v] = v_set1(0);
    for (; i + WAYS <= n; i += WAYS) {
        UNROLL
        for (int way = 0; way < WAYS; ++way) {
            const vec r = v_set1(residual[i + way]);
            const x_t *x_i = x[i + way] + j;
            if (ahead) {
                UNROLL
                for (int v = 0; v < n_vecs; ++v)
                    if (v * VEC_WIDTH % LINE_ELEMENTS == 0) v_prefetch(x_i + v * VEC_WIDTH + ahead);
            }
            UNROLL
            for (int v = 0; v < n_vecs; ++v)
                acc[way][v] = v_fma(
                    r,
                    n_lanes == VEC_WIDTH ? x_load(x_i + v * VEC_WIDTH) : x_load_tail(x_i, n_lanes),
                    acc[way][v]);
        }
    }
    if (i < n) {
        const vec r = v_set1(residual[i]);
        UNROLL
        for (int v = 0; v < n_vecs; ++v)
            acc[0][v] = v_fma(r,
                              n_lanes == VEC_WIDTH ? x_load(x[i] + j + v * VEC_WIDTH)
                                                   : x_load_tail(x[i] + j, n_lanes),
                              acc[0][v]);
    }
    UNROLL
    for (int v = 0; v < n_vecs; ++v) {
        real *g = grad + j + v * VEC_WIDTH;
        const vec sum = v_add(acc[0][v], acc[1][v]);
        if (n_lanes == VEC_WIDTH)
            v_store(g, v_add(v_load(g), sum));
        else
            v_store_tail(g, v_add(v_load_tail(g, n_lanes, 0), sum), n_lanes);
    }
}

static void one_grad_rows(real *grad, const real *residual, const x_t *const *x, ptrdiff_t n,
                          ptrdiff_t n_features, ptrdiff_t ahead) {
    ptrdiff_t j = 0;
    for (; j + 4 * VEC_WIDTH <= n_features; j += 4 * VEC_WIDTH)
        one_grad_tile(grad, residual, x, n, j, VEC_WIDTH, 4, ahead);
    if (j + 2 * VEC_WIDTH <= n_features) {
        one_grad_tile(grad, residual, x, n, j, VEC_WIDTH, 2, ahead);
        j += 2 * VEC_WIDTH;
    }
    if (j + VEC_WIDTH <= n_features) {
        one_grad_tile(grad, residual, x, n, j, VEC_WIDTH, 1, ahead);
        j += VEC_WIDTH;
    }
    if (j < n_features) one_grad_tile(grad, residual, x, n, j, n_features - j, 1, ahead);
}

static void one_logit_block(void *grad_weights, void *grad_bias, fs_sums *sums, const fs_rows *rows,
                            const void *weights, const void *bias, fs_block block) {
    const ptrdiff_t d = rows->n_features, row_bytes = (d + 1) * (ptrdiff_t)sizeof(x_t);
    const ptrdiff_t fitting = NEAR_BYTES / row_bytes / LOGISTIC_ROWS * LOGISTIC_ROWS;
    const ptrdiff_t step = fitting > LOGISTIC_ROWS ? fitting : LOGISTIC_ROWS;
    const ptrdiff_t ahead = block.row_index || block.packed ? 0 : step * rows->x_stride;
    const x_t *x[MAX_BLOCK_ROWS];
    real residual[MAX_BLOCK_ROWS];
    vec total = v_set1(0);
    logistic_targets targets;
    take_logistic_targets(&targets, rows, *(const real *)bias, block);
    for (ptrdiff_t i = 0; i < block.n_rows; ++i) x[i] = x_row(rows, block, i);
    for (ptrdiff_t first = 0; first < block.n_rows; first += step) {
        const ptrdiff_t n = min_size(step, block.n_rows - first);
        one_logit_rows(residual, x + first, weights, d, n, grad_weights ? 0 : ahead);
        logistic_rows(residual, sums, &targets, first, n);
        if (!grad_weights) continue;
        one_grad_rows(grad_weights, residual, x + first, n, d, ahead);
        for (ptrdiff_t i = 0; i < n; i += VEC_WIDTH)
            total = v_add(total, v_load_tail(residual + i, min_size(VEC_WIDTH, n - i), 0));
    }
    if (grad_bias) *(real *)grad_bias += v_sum_lanes(total);
}

/* (Read by dense.h, once for each x_t.) Forward half of a pass over a block of rows: logits, then
 * softmax, cross-entropy and residual. The block's logits lie class by class, residual[k * stride +
 * i]; 0 < n_rows <= MAX_BLOCK_ROWS. */

static void block_logits(real *out, const fs_rows *rows, const real *weights, const real *bias,
                         ptrdiff_t stride, fs_block block, fs_block next) {
    ptrdiff_t n_fetched = 0;
    const ptrdiff_t n_tiles = even_parts(rows->n_logits, TILE_CLASSES);
    for (ptrdiff_t tile = 0; tile < n_tiles; ++tile) {
        const ptrdiff_t k0 = even_part(rows->n_logits, n_tiles, tile);
        const ptrdiff_t n_tile = even_part(rows->n_logits, n_tiles, tile + 1) - k0;
        for (ptrdiff_t i = 0; i < block.n_rows; i += TILE_ROWS) {
            const x_t *x[TILE_ROWS];
            real sums[TILE_CLASSES][TILE_ROWS];
            const x_t *fetch[FETCH_ROWS];
            const int fetches = n_fetched < next.n_rows;
            tile_rows(x, rows, block, i);
            for (int f = 0; fetches && f < FETCH_ROWS; ++f, ++n_fetched)
                fetch[f] = x_row(rows, row_of(next, min_size(n_fetched, next.n_rows - 1)));
            dot_tile_of(sums, x, fetches ? fetch : NULL, weights + k0 * rows->n_features,
                        rows->n_features, n_tile);
            for (ptrdiff_t k = 0; k < n_tile; ++k)
                for (int r = 0; r < TILE_ROWS; ++r) /* the stride leaves room for whole tiles */
                    out[(k0 + k) * stride + i + r] = sums[k][r] + bias[k0 + k];
        }
    }
    if (rows->n_logits < rows->n_classes)
        for (ptrdiff_t i = 0; i < block.n_rows; ++i) out[stride + i] = 0;
}

static void residual_block(void *residual_, fs_sums *sums, const fs_rows *rows, const void *weights,
                           const void *bias, ptrdiff_t residual_stride, fs_block block,
                           fs_block next) {
    real *residual = residual_;
    const double smoothing = rows->label_smoothing, n_classes = (double)rows->n_classes;
    const real *probs[VEC_WIDTH] = {NULL};
    lane_targets targets;
    targets.probs = probs;
    targets.kept = v_set1((real)(1 - smoothing));
    targets.elsewhere = v_set1((real)(smoothing / n_classes));
    targets.at_label = v_set1((real)(1 - smoothing + smoothing / n_classes));

    block_logits(residual, rows, weights, bias, residual_stride, block, next);
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

/* (Read by dense.h, once for each x_t.) Forward half of a pass over a block of rows: logits, then
 * softmax, cross-entropy and residual. The block's logits lie class by class, residual[k * stride +
 * i]; 0 < n_rows <= MAX_BLOCK_ROWS. */

static void block_logits(real *out, const fs_rows *rows, const real *weights, const real *bias,
                         ptrdiff_t stride, fs_block block, fs_block next) {
    const ptrdiff_t to_next =
        block.row_index || block.packed ? 0 : (next.first - block.first) * rows->x_stride;
    const ptrdiff_t n_tiles = even_parts(rows->n_logits, TILE_CLASSES);
    for (ptrdiff_t tile = 0; tile < n_tiles; ++tile) {
        const ptrdiff_t k0 = even_part(rows->n_logits, n_tiles, tile);
        const ptrdiff_t n_tile = even_part(rows->n_logits, n_tiles, tile + 1) - k0;
        for (ptrdiff_t i = 0; i < block.n_rows; i += TILE_ROWS) {
            const x_t *x[TILE_ROWS];
            real sums[TILE_CLASSES][TILE_ROWS];
            tile_rows(x, rows, block, i);
            dot_tile_of(sums, x, weights + k0 * rows->n_features, rows->n_features,
                        tile == 0 && i + TILE_ROWS <= next.n_rows ? to_next : 0, n_tile);
            for (ptrdiff_t k = 0; k < n_tile; ++k)
                for (int r = 0; r < TILE_ROWS; ++r) /* the stride leaves room for whole tiles */
                    out[(k0 + k) * stride + i + r] = sums[k][r] + bias[k0 + k];
        }
    }
    if (rows->n_logits < rows->n_classes)
        for (ptrdiff_t i = 0; i < block.n_rows; ++i) out[stride + i] = 0;
}

static void residual_block(void *residual, fs_sums *sums, const fs_rows *rows, const void *weights,
                           const void *bias, ptrdiff_t residual_stride, fs_block block,
                           fs_block next) {
    block_logits(residual, rows, weights, bias, residual_stride, block, next);
    block_residual(residual, sums, rows, residual_stride, block);
}

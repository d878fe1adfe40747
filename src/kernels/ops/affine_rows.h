/* (Read by dense.h, once for each x_t.) The product of rows and weights in register tiles of
 * 4 rows by up to TILE_CLASSES classes, the lanes running over the features; and affine_rows,
 * logits[i - first, k] = x_i . weights_k + bias_k. The order of the additions of one product
 * depends on n_features alone, so a row's logits are the same bits whatever stands beside it. */

/* sums[k][r] = x[r] . weights[k * stride ..], k < n_tile, a constant where this is inlined. What
 * lies `ahead` elements after x is asked for meanwhile (0: nothing is): the processor's own
 * prefetcher stops at every page, about at every row of 784 floats. */
FORCE_INLINE void dot_tile(real sums[][TILE_ROWS], const x_t *const x[TILE_ROWS],
                           const real *weights, ptrdiff_t n_features, ptrdiff_t ahead, int n_tile) {
    vec acc[TILE_CLASSES][TILE_ROWS];
    const x_t *x0 = x[0], *x1 = x[1], *x2 = x[2], *x3 = x[3];
    UNROLL
    for (int k = 0; k < n_tile; ++k) acc[k][0] = acc[k][1] = acc[k][2] = acc[k][3] = v_set1(0);
    enum { LINE_ELEMENTS = 64 / (int)sizeof(x_t) };
    ptrdiff_t j = 0;
    for (; j + VEC_WIDTH <= n_features; j += VEC_WIDTH) {
        vec a = x_load(x0 + j), b = x_load(x1 + j), c = x_load(x2 + j), d = x_load(x3 + j);
        if (ahead && j % LINE_ELEMENTS == 0) {
            v_prefetch(x0 + j + ahead);
            v_prefetch(x1 + j + ahead);
            v_prefetch(x2 + j + ahead);
            v_prefetch(x3 + j + ahead);
        }
        UNROLL
        for (int k = 0; k < n_tile; ++k) {
            vec w = v_load(weights + k * n_features + j);
            acc[k][0] = v_fma(a, w, acc[k][0]);
            acc[k][1] = v_fma(b, w, acc[k][1]);
            acc[k][2] = v_fma(c, w, acc[k][2]);
            acc[k][3] = v_fma(d, w, acc[k][3]);
        }
    }
    if (j < n_features) {
        const ptrdiff_t n = n_features - j;
        vec a = x_load_tail(x0 + j, n), b = x_load_tail(x1 + j, n);
        vec c = x_load_tail(x2 + j, n), d = x_load_tail(x3 + j, n);
        UNROLL
        for (int k = 0; k < n_tile; ++k) {
            vec w = v_load_tail(weights + k * n_features + j, n, 0);
            acc[k][0] = v_fma(a, w, acc[k][0]);
            acc[k][1] = v_fma(b, w, acc[k][1]);
            acc[k][2] = v_fma(c, w, acc[k][2]);
            acc[k][3] = v_fma(d, w, acc[k][3]);
        }
    }
    UNROLL
    for (int k = 0; k < n_tile; ++k) v_sum4(sums[k], acc[k][0], acc[k][1], acc[k][2], acc[k][3]);
}

static void dot_tile_of(real sums[][TILE_ROWS], const x_t *const x[TILE_ROWS], const real *weights,
                        ptrdiff_t n_features, ptrdiff_t ahead, ptrdiff_t n_tile) {
    switch (n_tile) {
        case 1: dot_tile(sums, x, weights, n_features, ahead, 1); break;
        case 2: dot_tile(sums, x, weights, n_features, ahead, 2); break;
        case 3: dot_tile(sums, x, weights, n_features, ahead, 3); break;
#if TILE_CLASSES >= 6
        case 4: dot_tile(sums, x, weights, n_features, ahead, 4); break;
        case 5: dot_tile(sums, x, weights, n_features, ahead, 5); break;
        case 6: dot_tile(sums, x, weights, n_features, ahead, 6); break;
#endif
        default: break;
    }
}

/* The rows of tile i .. i + 3 of a block; past its end the last row stands in. */
FORCE_INLINE void tile_rows(const x_t *x[TILE_ROWS], const fs_rows *rows, fs_block block,
                            ptrdiff_t i) {
    for (int r = 0; r < TILE_ROWS; ++r)
        x[r] = x_row(rows, block, min_size(i + r, block.n_rows - 1));
}

static void affine_rows(void *logits_, const fs_rows *rows, const void *weights_, const void *bias_,
                        ptrdiff_t logits_stride, fs_block block) {
    const real *weights = weights_, *bias = bias_;
    const ptrdiff_t n_tiles = even_parts(rows->n_logits, TILE_CLASSES);
    const ptrdiff_t step = rows_at_a_time(rows);
    for (ptrdiff_t first = 0; first < block.n_rows; first += step)
        for (ptrdiff_t tile = 0; tile < n_tiles; ++tile) {
            const ptrdiff_t k0 = even_part(rows->n_logits, n_tiles, tile);
            const ptrdiff_t n_tile = even_part(rows->n_logits, n_tiles, tile + 1) - k0;
            const ptrdiff_t end = min_size(first + step, block.n_rows);
            for (ptrdiff_t i = first; i < end; i += TILE_ROWS) {
                const x_t *x[TILE_ROWS];
                real sums[TILE_CLASSES][TILE_ROWS];
                tile_rows(x, rows, block, i);
                const int four_more = block.first + i + 2 * TILE_ROWS <= rows->n_rows &&
                                      !block.row_index && !block.packed;
                dot_tile_of(sums, x, weights + k0 * rows->n_features, rows->n_features,
                            four_more && tile == 0 ? TILE_ROWS * rows->x_stride : 0, n_tile);
                for (ptrdiff_t r = 0; r < min_size(TILE_ROWS, block.n_rows - i); ++r) {
                    real *out = (real *)logits_ + (i + r) * logits_stride + k0;
                    for (ptrdiff_t k = 0; k < n_tile; ++k) out[k] = sums[k][r] + bias[k0 + k];
                }
            }
        }
}

/* (Read by dense.h, once for each x_t.) The product of rows and class weights in register tiles of
 * 4 rows by up to TILE_CLASSES classes, the lanes running over the features; and affine_rows,
 * logits[i - first, k] = x_i . weights_k + bias_k. The order of the additions of one product
 * depends on n_features alone, so a row's logits are the same bits whatever stands beside it. */

/* sums[k][r] = x[r] . weights[k * stride ..], k < n_tile, a constant where this is inlined, as is
 * whether fetch is NULL: else it holds rows to be read soon, which are fetched meanwhile. */
FORCE_INLINE void dot_tile(real sums[][TILE_ROWS], const x_t *const x[TILE_ROWS],
                           const x_t *const *fetch, const real *weights, ptrdiff_t n_features,
                           int n_tile) {
    vec acc[TILE_CLASSES][TILE_ROWS];
    const x_t *x0 = x[0], *x1 = x[1], *x2 = x[2], *x3 = x[3];
    UNROLL
    for (int k = 0; k < n_tile; ++k) acc[k][0] = acc[k][1] = acc[k][2] = acc[k][3] = v_set1(0);
    ptrdiff_t j = 0;
    for (; j + VEC_WIDTH <= n_features; j += VEC_WIDTH) {
        vec a = x_load(x0 + j), b = x_load(x1 + j), c = x_load(x2 + j), d = x_load(x3 + j);
        for (int f = 0; fetch && f < FETCH_ROWS; ++f) v_prefetch(fetch[f] + j);
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

#ifndef DOT_CASE
#define DOT_CASE(n)                                           \
    case n:                                                   \
        if (fetch)                                            \
            dot_tile(sums, x, fetch, weights, n_features, n); \
        else                                                  \
            dot_tile(sums, x, NULL, weights, n_features, n);  \
        break;
#endif

static void dot_tile_of(real sums[][TILE_ROWS], const x_t *const x[TILE_ROWS],
                        const x_t *const *fetch, const real *weights, ptrdiff_t n_features,
                        ptrdiff_t n_tile) {
    switch (n_tile) {
        DOT_CASE(1)
        DOT_CASE(2)
        DOT_CASE(3)
#if TILE_CLASSES >= 6
        DOT_CASE(4)
        DOT_CASE(5)
        DOT_CASE(6)
#endif
        default: break;
    }
}

/* The rows of tile i .. i + 3 of a block; past its end the last row stands in. */
FORCE_INLINE void tile_rows(const x_t *x[TILE_ROWS], const fs_rows *rows, fs_block block,
                            ptrdiff_t i) {
    for (int r = 0; r < TILE_ROWS; ++r)
        x[r] = x_row(rows, row_of(block, min_size(i + r, block.n_rows - 1)));
}

static void affine_rows(void *logits_, const fs_rows *rows, const void *weights_, const void *bias_,
                        ptrdiff_t logits_stride, fs_block block) {
    const real *weights = weights_, *bias = bias_;
    const ptrdiff_t n_tiles = even_parts(rows->n_logits, TILE_CLASSES);
    for (ptrdiff_t i = 0; i < block.n_rows; i += TILE_ROWS) {
        const x_t *x[TILE_ROWS];
        tile_rows(x, rows, block, i);
        for (ptrdiff_t tile = 0; tile < n_tiles; ++tile) {
            const ptrdiff_t k0 = even_part(rows->n_logits, n_tiles, tile);
            const ptrdiff_t n_tile = even_part(rows->n_logits, n_tiles, tile + 1) - k0;
            real sums[TILE_CLASSES][TILE_ROWS];
            dot_tile_of(sums, x, NULL, weights + k0 * rows->n_features, rows->n_features, n_tile);
            for (ptrdiff_t r = 0; r < min_size(TILE_ROWS, block.n_rows - i); ++r) {
                real *out = (real *)logits_ + (i + r) * logits_stride + k0;
                for (ptrdiff_t k = 0; k < n_tile; ++k) out[k] = sums[k][r] + bias[k0 + k];
            }
        }
    }
}

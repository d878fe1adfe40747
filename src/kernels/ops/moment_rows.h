/* (Read by dense.h, once for each x_t.) Sums over a block of rows of y = unit * (x - shift) and of
 * its squares, by feature, each times the row weight; and the largest squared length of a row y.
 * The lanes run over the features, four rows at a time. partial is scratch, 2 n_features reals. */

static void moment_rows(double *sums, double *squares, double *largest, void *partial,
                        const fs_rows *rows, const void *shift_, const void *units_,
                        fs_block block) {
    const ptrdiff_t d = rows->n_features;
    const real *shift = shift_, *units = units_, *row_weights = rows->row_weights;
    real *sum = partial, *square = sum + d;
    memset(sum, 0, (size_t)(2 * d) * sizeof *sum);
    for (ptrdiff_t i = 0; i < block.n_rows; i += TILE_ROWS) {
        const x_t *x[TILE_ROWS];
        vec weight[TILE_ROWS], length[TILE_ROWS];
        real lengths[TILE_ROWS];
        tile_rows(x, rows, block, i);
        UNROLL
        for (int r = 0; r < TILE_ROWS; ++r) {
            const int inside = i + r < block.n_rows; /* past the end the last row stands in */
            weight[r] = v_set1(inside ? row_weights[row_of(block, i + r)] : 0);
            length[r] = v_set1(0);
        }
        for (ptrdiff_t j = 0; j < d; j += VEC_WIDTH) {
            const ptrdiff_t n = min_size(VEC_WIDTH, d - j);
            const int whole = n == VEC_WIDTH;
            const vec c = whole ? v_load(shift + j) : v_load_tail(shift + j, n, 0);
            const vec u = whole ? v_load(units + j) : v_load_tail(units + j, n, 0);
            vec s = whole ? v_load(sum + j) : v_load_tail(sum + j, n, 0);
            vec q = whole ? v_load(square + j) : v_load_tail(square + j, n, 0);
            UNROLL
            for (int r = 0; r < TILE_ROWS; ++r) {
                const vec x_r = whole ? x_load(x[r] + j) : x_load_tail(x[r] + j, n);
                const vec y = v_mul(v_sub(x_r, c), u), weighted = v_mul(weight[r], y);
                s = v_add(s, weighted);
                q = v_fma(weighted, y, q);
                length[r] = v_fma(y, y, length[r]);
            }
            if (whole) {
                v_store(sum + j, s);
                v_store(square + j, q);
            } else {
                v_store_tail(sum + j, s, n);
                v_store_tail(square + j, q, n);
            }
        }
        v_sum4(lengths, length[0], length[1], length[2], length[3]);
        for (int r = 0; r < TILE_ROWS; ++r)
            if (*largest == *largest && !((double)lengths[r] <= *largest)) /* NaN stays */
                *largest = (double)lengths[r];
    }
    for (ptrdiff_t j = 0; j < d; ++j) {
        sums[j] += (double)sum[j];
        squares[j] += (double)square[j];
    }
}

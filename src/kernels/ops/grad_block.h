/* (Read by dense.h, once for each x_t.) Backward half of a pass over a block: grad_weights[k, :] +=
 * sum_i residual[k, i] x_i and grad_bias[k] += sum_i residual[k, i] for the classes [class_begin,
 * class_end), the lanes running over the features. A register tile holds 2 vectors of features for
 * up to GRAD_CLASSES classes while all rows of the block go by. Meanwhile the rows of `next` are
 * fetched into the second-level cache, line by line beside those in use: this half is bound by
 * arithmetic and leaves the memory idle otherwise. */

typedef struct {
    const x_t *x[MAX_BLOCK_ROWS], *next[MAX_BLOCK_ROWS];
    ptrdiff_t n_rows, n_next;
} row_pointers;

/* n_tile classes and n_vecs vectors are constants where this is inlined; n_lanes < VEC_WIDTH only
 * with one vector. */
FORCE_INLINE void grad_tile(real *grad, const real *residual, const row_pointers *rows, ptrdiff_t j,
                            ptrdiff_t grad_stride, ptrdiff_t residual_stride, ptrdiff_t n_lanes,
                            int fetch, int n_tile, int n_vecs) {
    vec acc[GRAD_CLASSES][2];
    UNROLL
    for (int k = 0; k < n_tile; ++k) acc[k][0] = acc[k][1] = v_set1(0);
    for (ptrdiff_t i = 0; i < rows->n_rows; ++i) {
        const x_t *x = rows->x[i] + j;
        vec x0 = n_vecs == 2 ? x_load(x) : x_load_tail(x, n_lanes);
        vec x1 = n_vecs == 2 ? x_load(x + VEC_WIDTH) : x0;
        if (fetch && i < rows->n_next) {
            v_prefetch(rows->next[i] + j);
            if (2 * VEC_WIDTH * sizeof(x_t) > 64) v_prefetch(rows->next[i] + j + 64 / sizeof(x_t));
        }
        UNROLL
        for (int k = 0; k < n_tile; ++k) {
            vec r = v_set1(residual[k * residual_stride + i]);
            acc[k][0] = v_fma(r, x0, acc[k][0]);
            if (n_vecs == 2) acc[k][1] = v_fma(r, x1, acc[k][1]);
        }
    }
    UNROLL
    for (int k = 0; k < n_tile; ++k) {
        real *g = grad + k * grad_stride + j;
        if (n_vecs == 2) {
            v_store(g, v_add(v_load(g), acc[k][0]));
            v_store(g + VEC_WIDTH, v_add(v_load(g + VEC_WIDTH), acc[k][1]));
        } else {
            v_store_tail(g, v_add(v_load_tail(g, n_lanes, 0), acc[k][0]), n_lanes);
        }
    }
}

#ifndef GRAD_CASE
#define GRAD_CASE(n)                                                                              \
    case n:                                                                                       \
        if (n_lanes == 2 * VEC_WIDTH)                                                             \
            grad_tile(grad, residual, rows, j, grad_stride, residual_stride, VEC_WIDTH, fetch, n, \
                      2);                                                                         \
        else                                                                                      \
            grad_tile(grad, residual, rows, j, grad_stride, residual_stride, n_lanes, fetch, n,   \
                      1);                                                                         \
        break;
#endif

static void grad_tile_of(real *grad, const real *residual, const row_pointers *rows, ptrdiff_t j,
                         ptrdiff_t grad_stride, ptrdiff_t residual_stride, ptrdiff_t n_lanes,
                         int fetch, ptrdiff_t n_tile) {
    switch (n_tile) {
        GRAD_CASE(1)
        GRAD_CASE(2)
        GRAD_CASE(3)
        GRAD_CASE(4)
        GRAD_CASE(5)
        GRAD_CASE(6)
#if GRAD_CLASSES >= 12
        GRAD_CASE(7)
        GRAD_CASE(8)
        GRAD_CASE(9)
        GRAD_CASE(10)
        GRAD_CASE(11)
        GRAD_CASE(12)
#endif
        default: break;
    }
}

static void grad_block(void *grad_weights_, void *grad_bias_, const void *residual_,
                       const fs_rows *rows, ptrdiff_t residual_stride, fs_block block,
                       fs_block next, ptrdiff_t class_begin, ptrdiff_t class_end) {
    real *grad_weights = grad_weights_, *grad_bias = grad_bias_;
    const real *residual = residual_;
    const ptrdiff_t d = rows->n_features, n_classes = class_end - class_begin;
    const ptrdiff_t n_tiles = even_parts(n_classes, GRAD_CLASSES);
    row_pointers pointers;
    pointers.n_rows = block.n_rows;
    pointers.n_next = min_size(next.n_rows, MAX_BLOCK_ROWS);
    for (ptrdiff_t i = 0; i < block.n_rows; ++i) pointers.x[i] = x_row(rows, block, i);
    for (ptrdiff_t i = 0; i < pointers.n_next; ++i) pointers.next[i] = x_row(rows, next, i);

    for (ptrdiff_t j = 0, n_lanes; j < d; j += n_lanes) {
        n_lanes = d - j >= 2 * VEC_WIDTH ? 2 * VEC_WIDTH : min_size(d - j, VEC_WIDTH);
        for (ptrdiff_t tile = 0; tile < n_tiles; ++tile) {
            const ptrdiff_t k0 = class_begin + even_part(n_classes, n_tiles, tile);
            const ptrdiff_t n_tile = class_begin + even_part(n_classes, n_tiles, tile + 1) - k0;
            grad_tile_of(grad_weights + k0 * d, residual + k0 * residual_stride, &pointers, j, d,
                         residual_stride, n_lanes, tile == 0, n_tile);
        }
    }
    for (ptrdiff_t k = class_begin; k < class_end; ++k) {
        const real *r = residual + k * residual_stride;
        vec sum = v_set1(0);
        for (ptrdiff_t i = 0; i < block.n_rows; i += VEC_WIDTH)
            sum = v_add(sum, v_load_tail(r + i, min_size(VEC_WIDTH, block.n_rows - i), 0));
        grad_bias[k] += v_sum_lanes(sum);
    }
}

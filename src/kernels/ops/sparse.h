/* The operations that read features in CSR form, for one type of their values (x_t, X_NAME as in
 * dense.h). All of them are one gather: a row's logits are the rows of weights_by_feature that its
 * indices name, times its values; a feature's gradient is the residuals of the rows that its column
 * names, times its values. The lanes run over the logits, which lie side by side in both tables;
 * rows of a table are `stride` reals apart, and the table's end has room for one vector more, so
 * that no load needs a mask (what is in the lanes past n_logits is never used). */

#define X_JOIN_(name, type) name##_##type
#define X_JOIN(name, type) X_JOIN_(name, type)
#define gather_tile X_JOIN(gather_tile_sparse, X_NAME)
#define gather_one X_JOIN(gather_one_sparse, X_NAME)
#define gather_of X_JOIN(gather_of_sparse, X_NAME)
#define row_tile X_JOIN(row_tile_sparse, X_NAME)
#define affine_rows X_JOIN(affine_rows_sparse, X_NAME)
#define residual_block X_JOIN(residual_block_sparse, X_NAME)
#define grad_columns X_JOIN(grad_columns_sparse, X_NAME)
#define add_rows X_JOIN(add_rows_sparse, X_NAME)
#define add_to_rows X_JOIN(add_to_rows_sparse, X_NAME)

#ifndef SPARSE_SIZES
#define SPARSE_SIZES
/* Vectors of logits that are gathered at once; n_lanes of them count. */
enum { GATHER_VECS = 6 };

/* Entries of a column that are added up in real before they go to a double. */
enum { COLUMN_RUN = 512 };
#endif

/* out[l] = sum_p values[p] * table[indices[p] * stride + l], p in [begin, end), in two sums so that
 * one addition need not wait for the last. wide and n_vecs are constants where this is inlined. */
FORCE_INLINE void gather_tile(real *out, const x_t *values, const void *indices, ptrdiff_t begin,
                              ptrdiff_t end, const real *table, ptrdiff_t stride, int wide,
                              int n_vecs) {
    vec even[GATHER_VECS], odd[GATHER_VECS];
    UNROLL
    for (int l = 0; l < n_vecs; ++l) even[l] = odd[l] = v_set1(0);
    ptrdiff_t p = begin;
    for (; p + 2 <= end; p += 2) {
        const real *a = table + INDEX_AT(indices, p, wide) * stride;
        const real *b = table + INDEX_AT(indices, p + 1, wide) * stride;
        const vec x = v_set1((real)values[p]), y = v_set1((real)values[p + 1]);
        UNROLL
        for (int l = 0; l < n_vecs; ++l) {
            even[l] = v_fma(x, v_load(a + l * VEC_WIDTH), even[l]);
            odd[l] = v_fma(y, v_load(b + l * VEC_WIDTH), odd[l]);
        }
    }
    if (p < end) {
        const real *a = table + INDEX_AT(indices, p, wide) * stride;
        const vec x = v_set1((real)values[p]);
        UNROLL
        for (int l = 0; l < n_vecs; ++l) even[l] = v_fma(x, v_load(a + l * VEC_WIDTH), even[l]);
    }
    UNROLL
    for (int l = 0; l < n_vecs; ++l) v_store(out + l * VEC_WIDTH, v_add(even[l], odd[l]));
}

/* The same for one lane, with the same order of additions. */
FORCE_INLINE real gather_one(const x_t *values, const void *indices, ptrdiff_t begin, ptrdiff_t end,
                             const real *table, ptrdiff_t stride, int wide) {
    vec even = v_set1(0), odd = even;
    ptrdiff_t p = begin;
    for (; p + 2 <= end; p += 2) {
        const real a = table[INDEX_AT(indices, p, wide) * stride];
        const real b = table[INDEX_AT(indices, p + 1, wide) * stride];
        even = v_fma(v_set1((real)values[p]), v_set1(a), even);
        odd = v_fma(v_set1((real)values[p + 1]), v_set1(b), odd);
    }
    if (p < end)
        even = v_fma(v_set1((real)values[p]), v_set1(table[INDEX_AT(indices, p, wide) * stride]),
                     even);
    real lanes[VEC_WIDTH];
    v_store(lanes, v_add(even, odd));
    return lanes[0];
}

#ifndef GATHER_CASE
#define GATHER_CASE(n)                                                          \
    case n:                                                                     \
        if (wide)                                                               \
            gather_tile(out, values, indices, begin, end, table, stride, 1, n); \
        else                                                                    \
            gather_tile(out, values, indices, begin, end, table, stride, 0, n); \
        break;
#endif

/* n_lanes <= GATHER_VECS * VEC_WIDTH columns of the table; out has room for whole vectors. */
static void gather_of(real *out, const x_t *values, const void *indices, int wide, ptrdiff_t begin,
                      ptrdiff_t end, const real *table, ptrdiff_t stride, ptrdiff_t n_lanes) {
    if (n_lanes == 1) {
        out[0] = wide ? gather_one(values, indices, begin, end, table, stride, 1)
                      : gather_one(values, indices, begin, end, table, stride, 0);
        return;
    }
    switch (even_parts(n_lanes, VEC_WIDTH)) {
        GATHER_CASE(1)
        GATHER_CASE(2)
        GATHER_CASE(3)
        GATHER_CASE(4)
        GATHER_CASE(5)
        GATHER_CASE(6)
        default: break;
    }
}

/* Logits k0 .. k0 + n_lanes - 1 of a row, without the bias. */
FORCE_INLINE void row_tile(real *out, const fs_rows *rows, ptrdiff_t row, const real *weights,
                           ptrdiff_t stride, ptrdiff_t n_lanes) {
    gather_of(out, rows->x, rows->indices, rows->wide_index,
              INDEX_AT(rows->indptr, row, rows->wide_index),
              INDEX_AT(rows->indptr, row + 1, rows->wide_index), weights, stride, n_lanes);
}

static void affine_rows(void *logits_, const fs_rows *rows, const void *weights_, const void *bias_,
                        ptrdiff_t logits_stride, ptrdiff_t weights_stride, ptrdiff_t class_stride,
                        fs_block block) {
    const real *weights = weights_, *bias = bias_;
    const ptrdiff_t most = class_stride == 1 ? GATHER_VECS * VEC_WIDTH : 1;
    const ptrdiff_t n_tiles = even_parts(rows->n_logits, most);
    for (ptrdiff_t i = 0; i < block.n_rows; ++i) {
        real *out = (real *)logits_ + i * logits_stride;
        for (ptrdiff_t tile = 0; tile < n_tiles; ++tile) {
            const ptrdiff_t k0 = tile * most, n = min_size(most, rows->n_logits - k0);
            real sums[GATHER_VECS * VEC_WIDTH];
            row_tile(sums, rows, row_of(block, i), weights + k0 * class_stride, weights_stride, n);
            for (ptrdiff_t k = 0; k < n; ++k) out[k0 + k] = sums[k] + bias[k0 + k];
        }
    }
}

static void residual_block(void *residual_, fs_sums *sums, const fs_rows *rows,
                           const void *weights_, const void *bias_, void *logits_,
                           ptrdiff_t residual_stride, ptrdiff_t weights_stride,
                           ptrdiff_t logits_stride, fs_block block) {
    real *residual = residual_, *logits = logits_;
    const real *weights = weights_, *bias = bias_;
    const ptrdiff_t most = GATHER_VECS * VEC_WIDTH, n_tiles = even_parts(rows->n_logits, most);
    for (ptrdiff_t tile = 0; tile < n_tiles; ++tile) {
        const ptrdiff_t k0 = tile * most, n = min_size(most, rows->n_logits - k0);
        for (ptrdiff_t i = 0; i < block.n_rows; ++i) {
            real row_logits[GATHER_VECS * VEC_WIDTH];
            row_tile(row_logits, rows, row_of(block, i), weights + k0, weights_stride, n);
            for (ptrdiff_t k = 0; k < n; ++k)
                logits[(k0 + k) * logits_stride + i] = row_logits[k] + bias[k0 + k];
        }
    }
    if (rows->n_logits < rows->n_classes)
        for (ptrdiff_t i = 0; i < block.n_rows; ++i) logits[logits_stride + i] = 0;
    block_residual(logits, sums, rows, logits_stride, block);
    for (ptrdiff_t i = 0; i < block.n_rows; ++i)
        for (ptrdiff_t k = 0; k < residual_stride; ++k)
            residual[i * residual_stride + k] =
                k < rows->n_logits ? logits[k * logits_stride + i] : 0;
}

static void grad_columns(double *grad_weights, const void *residual_, const fs_rows *rows,
                         ptrdiff_t residual_stride, ptrdiff_t column_begin, ptrdiff_t column_end) {
    const real *residual = residual_;
    const fs_columns *columns = rows->columns;
    const ptrdiff_t most = GATHER_VECS * VEC_WIDTH, n_tiles = even_parts(rows->n_logits, most);
    for (ptrdiff_t c = column_begin; c < column_end; ++c) {
        const ptrdiff_t end = (ptrdiff_t)columns->starts[c + 1];
        double *grad = grad_weights + columns->features[c];
        for (ptrdiff_t p = (ptrdiff_t)columns->starts[c], next; p < end; p = next) {
            next = min_size(p + COLUMN_RUN, end);
            for (ptrdiff_t tile = 0; tile < n_tiles; ++tile) {
                const ptrdiff_t k0 = tile * most, n = min_size(most, rows->n_logits - k0);
                real sums[GATHER_VECS * VEC_WIDTH];
                gather_of(sums, columns->values, columns->rows, 0, p, next, residual + k0,
                          residual_stride, n);
                for (ptrdiff_t k = 0; k < n; ++k)
                    grad[(k0 + k) * rows->n_features] += (double)sums[k];
            }
        }
    }
}

static void add_rows(double *grad_weights, const void *residual_, const fs_rows *rows,
                     fs_block block) {
    const real *residual = residual_;
    const int wide = rows->wide_index;
    for (ptrdiff_t i = 0; i < block.n_rows; ++i) {
        const ptrdiff_t row = row_of(block, i), end = INDEX_AT(rows->indptr, row + 1, wide);
        const double r = (double)residual[i];
        for (ptrdiff_t p = INDEX_AT(rows->indptr, row, wide); p < end; ++p)
            grad_weights[INDEX_AT(rows->indices, p, wide)] += r * (double)((const x_t *)rows->x)[p];
    }
}

/* weights[j, :] += scale * feature_scale_j * x_ij residual_i for the features j of the rows of a
 * block, rows in order. */
static void add_to_rows(void *weights_, const void *residual_, const fs_rows *rows,
                        const void *feature_scale_, double scale, ptrdiff_t weights_stride,
                        ptrdiff_t residual_stride, fs_block block) {
    real *weights = weights_;
    const real *residual = residual_, *feature_scale = feature_scale_;
    const int wide = rows->wide_index;
    for (ptrdiff_t i = 0; i < block.n_rows; ++i, residual += residual_stride) {
        const ptrdiff_t row = row_of(block, i), end = INDEX_AT(rows->indptr, row + 1, wide);
        for (ptrdiff_t p = INDEX_AT(rows->indptr, row, wide); p < end; ++p) {
            const ptrdiff_t j = INDEX_AT(rows->indices, p, wide);
            real *w = weights + j * weights_stride;
            const double x = scale * (double)((const x_t *)rows->x)[p];
            const vec step = v_set1((real)(feature_scale ? x * (double)feature_scale[j] : x));
            for (ptrdiff_t k = 0; k < rows->n_logits; k += VEC_WIDTH) {
                const ptrdiff_t n = min_size(VEC_WIDTH, rows->n_logits - k);
                v_store_tail(w + k, v_fma(step, v_load(residual + k), v_load(w + k)), n);
            }
        }
    }
}

#undef X_NAME
#undef x_t
#undef gather_tile
#undef gather_one
#undef gather_of
#undef row_tile
#undef affine_rows
#undef residual_block
#undef grad_columns
#undef add_rows
#undef add_to_rows
#undef X_JOIN
#undef X_JOIN_

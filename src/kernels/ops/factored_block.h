/* The solve with one block of a block-diagonal matrix. Rows of the factor and of the block are
 * taken four at a time: each is read once from memory, and the vector once for four. */

enum { AT_ONCE = 4 };

/* The rows r .. r + AT_ONCE - 1 of a matrix; those behind the last one are the row r. */
typedef struct {
    const real *row[AT_ONCE];
    ptrdiff_t n;
} few_rows;

static inline few_rows rows_from(const real *matrix, ptrdiff_t r, ptrdiff_t n_rows,
                                 ptrdiff_t stride) {
    few_rows rows = {.n = min_size(AT_ONCE, n_rows - r)};
    for (ptrdiff_t i = 0; i < AT_ONCE; ++i)
        rows.row[i] = matrix + (r + (i < rows.n ? i : 0)) * stride;
    return rows;
}

/* The products of the rows with v (n). */
static inline void products_of(real *out, few_rows rows, const real *v, ptrdiff_t n) {
    vec sum[AT_ONCE] = {v_set1(0), v_set1(0), v_set1(0), v_set1(0)};
    ptrdiff_t j = 0;
    for (; j + VEC_WIDTH <= n; j += VEC_WIDTH) {
        const vec x = v_load(v + j);
        for (int i = 0; i < AT_ONCE; ++i) sum[i] = v_fma(v_load(rows.row[i] + j), x, sum[i]);
    }
    if (j < n) {
        const vec x = v_load_tail(v + j, n - j, 0);
        for (int i = 0; i < AT_ONCE; ++i)
            sum[i] = v_fma(v_load_tail(rows.row[i] + j, n - j, 0), x, sum[i]);
    }
    v_sum4(out, sum[0], sum[1], sum[2], sum[3]);
}

/* v -= sum_i factors[i] row_i, of n numbers. */
static inline void subtract_multiples(real *v, few_rows rows, const real *factors, ptrdiff_t n) {
    vec factor[AT_ONCE];
    for (int i = 0; i < AT_ONCE; ++i) factor[i] = v_set1(i < rows.n ? factors[i] : 0);
    ptrdiff_t j = 0;
    for (; j + VEC_WIDTH <= n; j += VEC_WIDTH) {
        vec x = v_load(v + j);
        for (int i = 0; i < AT_ONCE; ++i) x = v_fnma(factor[i], v_load(rows.row[i] + j), x);
        v_store(v + j, x);
    }
    if (j < n) {
        vec x = v_load_tail(v + j, n - j, 0);
        for (int i = 0; i < AT_ONCE; ++i)
            x = v_fnma(factor[i], v_load_tail(rows.row[i] + j, n - j, 0), x);
        v_store_tail(v + j, x, n - j);
    }
}

/* v = (L L^T)^-1 v for the lower triangle L (n, n), rows adjacent. */
static void solve_cholesky(real *v, const real *L, ptrdiff_t n) {
    real known[AT_ONCE];
    for (ptrdiff_t r = 0; r < n; r += AT_ONCE) {
        const few_rows rows = rows_from(L, r, n, n);
        products_of(known, rows, v, r);
        for (ptrdiff_t i = 0; i < rows.n; ++i) {
            real x = v[r + i] - known[i];
            for (ptrdiff_t q = 0; q < i; ++q) x -= rows.row[i][r + q] * v[r + q];
            v[r + i] = x / rows.row[i][r + i];
        }
    }
    for (ptrdiff_t r = (n - 1) / AT_ONCE * AT_ONCE; r >= 0; r -= AT_ONCE) {
        const few_rows rows = rows_from(L, r, n, n);
        for (ptrdiff_t i = rows.n - 1; i >= 0; --i) {
            real x = v[r + i];
            for (ptrdiff_t q = i + 1; q < rows.n; ++q) x -= rows.row[q][r + i] * v[r + q];
            v[r + i] = x / rows.row[i][r + i];
        }
        subtract_multiples(v, rows, v + r, r);
    }
}

static void solve_block(void *vector, void *inner, const fs_factored *block, ptrdiff_t n) {
    const real *L = block->factor, *Z = block->rows;
    const ptrdiff_t order = block->order;
    real *v = vector, *t = inner;
    if (order == 0) return;
    if (!Z) {
        solve_cholesky(v, L, n);
        return;
    }
    for (ptrdiff_t r = 0; r < order; r += AT_ONCE) {
        real products[AT_ONCE];
        const few_rows rows = rows_from(Z, r, order, n);
        products_of(products, rows, v, n);
        for (ptrdiff_t i = 0; i < rows.n; ++i) t[r + i] = products[i];
    }
    solve_cholesky(t, L, order);
    for (ptrdiff_t r = 0; r < order; r += AT_ONCE)
        subtract_multiples(v, rows_from(Z, r, order, n), t + r, n);
}

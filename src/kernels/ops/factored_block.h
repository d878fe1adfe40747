/* The factor of one block of a block-diagonal matrix, and the solve with it. Rows of the factor and
 * of the block are taken four at a time: each is read once from memory, and what they are
 * multiplied by once for four. */

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

/* Rows of a tile of products, beside AT_ONCE others, in registers. */
enum { FACTOR_ROWS = GRAD_CLASSES >= 12 ? 4 : 2 };

/* sums += a b^T, by lanes, or -= where is_less: for n columns, fewer than a vector where is_tail.
 */
FORCE_INLINE void add_row_products(vec sums[FACTOR_ROWS][AT_ONCE], const few_rows *a,
                                   const few_rows *b, ptrdiff_t j, ptrdiff_t n, int is_less,
                                   int is_tail) {
    vec x[AT_ONCE];
    UNROLL
    for (int c = 0; c < AT_ONCE; ++c)
        x[c] = is_tail ? v_load_tail(b->row[c] + j, n, 0) : v_load(b->row[c] + j);
    UNROLL
    for (int r = 0; r < FACTOR_ROWS; ++r) {
        const vec y = is_tail ? v_load_tail(a->row[r] + j, n, 0) : v_load(a->row[r] + j);
        UNROLL
        for (int c = 0; c < AT_ONCE; ++c)
            sums[r][c] = is_less ? v_fnma(y, x[c], sums[r][c]) : v_fma(y, x[c], sums[r][c]);
    }
}

FORCE_INLINE void add_all_products(vec sums[FACTOR_ROWS][AT_ONCE], const few_rows *a,
                                   const few_rows *b, ptrdiff_t n, int is_less) {
    ptrdiff_t j = 0;
    for (; j + VEC_WIDTH <= n; j += VEC_WIDTH)
        add_row_products(sums, a, b, j, VEC_WIDTH, is_less, 0);
    if (j < n) add_row_products(sums, a, b, j, n - j, is_less, 1);
}

/* Whether the factor of I + Z Z^T was found: L (order, order), of which only the lower triangle is
 * written, column by column of tiles, from the rows of Z and of L to the left. */
static int factor_block(void *factor, const void *rows, ptrdiff_t order, ptrdiff_t n) {
    real *L = factor;
    for (ptrdiff_t c = 0; c < order; c += AT_ONCE) {
        real inverse[AT_ONCE] = {0}; /* of the diagonal */
        const few_rows z = rows_from(rows, c, order, n), left = rows_from(L, c, order, order);
        for (ptrdiff_t r = c; r < order; r += FACTOR_ROWS) {
            vec sums[FACTOR_ROWS][AT_ONCE];
            UNROLL
            for (int i = 0; i < FACTOR_ROWS; ++i) {
                UNROLL
                for (int j = 0; j < AT_ONCE; ++j) sums[i][j] = v_set1(0);
            }
            const few_rows own_z = rows_from(rows, r, order, n);
            const few_rows own = rows_from(L, r, order, order);
            add_all_products(sums, &own_z, &z, n, 0);
            add_all_products(sums, &own, &left, c, 1);
            for (ptrdiff_t i = 0; i < min_size(FACTOR_ROWS, order - r); ++i) {
                real known[AT_ONCE], *row = L + (r + i) * order + c;
                v_sum4(known, sums[i][0], sums[i][1], sums[i][2], sums[i][3]);
                for (ptrdiff_t j = 0; j < left.n && c + j <= r + i; ++j) {
                    const real *above = L + (c + j) * order + c;
                    real x = known[j];
                    for (ptrdiff_t q = 0; q < j; ++q) x -= row[q] * above[q];
                    if (c + j < r + i) {
                        row[j] = x * inverse[j];
                        continue;
                    }
                    x += 1;
                    if (!(x > 0 && x < (real)HUGE_VALF)) return 0;
                    row[j] = (real)sqrt((double)x);
                    inverse[j] = 1 / row[j];
                }
            }
        }
    }
    return 1;
}

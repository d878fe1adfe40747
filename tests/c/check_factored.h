/* Checks of the factors of a block-diagonal matrix, and of the solve with it. Every number comes
 * with the sum of the magnitudes that it is made of, of which rounding is a small share. */

typedef struct {
    wide *value, *size;
} sized;

static sized new_sized(ptrdiff_t n) { return (sized){new_wides(n), new_wides(n)}; }

static void add_product(sized to, ptrdiff_t i, wide factor, sized from, ptrdiff_t j) {
    to.value[i] += factor * from.value[j];
    to.size[i] += fabsl(factor) * from.size[j];
}

static void divide(sized v, ptrdiff_t i, wide by) {
    v.value[i] /= by;
    v.size[i] /= fabsl(by);
}

/* v = (L L^T)^-1 v. */
static void naive_cholesky_solve(sized v, const void *L, ptrdiff_t n) {
    for (ptrdiff_t r = 0; r < n; ++r) {
        for (ptrdiff_t c = 0; c < r; ++c) add_product(v, r, -get(L, r * n + c), v, c);
        divide(v, r, get(L, r * n + r));
    }
    for (ptrdiff_t r = n - 1; r >= 0; --r) {
        divide(v, r, get(L, r * n + r));
        for (ptrdiff_t c = 0; c < r; ++c) add_product(v, c, -get(L, r * n + c), v, r);
    }
}

static void naive_block_solve(sized v, const fs_factored *block, ptrdiff_t n) {
    const ptrdiff_t order = block->order;
    if (!block->rows) {
        if (order) naive_cholesky_solve(v, block->factor, n);
        return;
    }
    const sized t = new_sized(order);
    for (ptrdiff_t r = 0; r < order; ++r)
        for (ptrdiff_t j = 0; j < n; ++j) add_product(t, r, get(block->rows, r * n + j), v, j);
    naive_cholesky_solve(t, block->factor, order);
    for (ptrdiff_t r = 0; r < order; ++r)
        for (ptrdiff_t j = 0; j < n; ++j) add_product(v, j, -get(block->rows, r * n + j), t, r);
}

static ptrdiff_t place_in(const fs_block_diagonal *of, ptrdiff_t k, ptrdiff_t j) {
    return j < of->n_features ? k * of->n_features + j : of->n_logits * of->n_features + k;
}

static sized naive_solve(const double *gradient, const fs_block_diagonal *of) {
    const ptrdiff_t n = of->n_columns, n_logits = of->n_logits;
    const sized want = new_sized(n_logits * n), v = new_sized(n);
    for (ptrdiff_t k = 0; k < n_logits; ++k) {
        for (ptrdiff_t j = 0; j < n; ++j) {
            v.value[j] = (wide)gradient[place_in(of, k, j)] * (wide)of->roots[k * n + j];
            v.size[j] = fabsl(v.value[j]);
        }
        naive_block_solve(v, of->blocks + k, n);
        for (ptrdiff_t j = 0; j < n; ++j)
            add_product(want, place_in(of, k, j), (wide)of->roots[k * n + j], v, j);
    }
    const sized sum = new_sized(1);
    for (ptrdiff_t j = 0; j < n && n_logits > 1; ++j) {
        sum.value[0] = sum.size[0] = 0;
        for (ptrdiff_t k = 0; k < n_logits; ++k)
            add_product(sum, 0, (wide)1 / (wide)n_logits, want, place_in(of, k, j));
        for (ptrdiff_t k = 0; k < n_logits; ++k) add_product(want, place_in(of, k, j), -1, sum, 0);
    }
    return want;
}

/* A lower triangle with NaN above, which must not be read. */
static void *random_factor(ptrdiff_t n) {
    void *L = new_reals(n * n);
    for (ptrdiff_t r = 0; r < n; ++r)
        for (ptrdiff_t c = 0; c < n; ++c)
            put(L, r * n + c,
                c > r    ? (wide)NAN
                : c == r ? uniform(1, 2)
                         : uniform(-1, 1) / (double)n);
    return L;
}

/* Of n_rows rows or fewer; of none: blocks without rows. Every fifth is the identity. */
static fs_factored *random_blocks(ptrdiff_t n_logits, ptrdiff_t n, ptrdiff_t n_rows) {
    fs_factored *blocks =
        new_buffer(n_logits * (ptrdiff_t)sizeof *blocks, (ptrdiff_t)sizeof(void *));
    for (ptrdiff_t k = 0; k < n_logits; ++k) {
        const ptrdiff_t order = k % 5 == 4 ? 0 : n_rows ? 1 + random_below(n_rows) : n;
        blocks[k] = (fs_factored){random_factor(order), NULL, order};
        if (order && n_rows) blocks[k].rows = random_reals(order * n, -0.3, 0.3);
    }
    return blocks;
}

static void check_blocks_solve(ptrdiff_t n_logits, ptrdiff_t d, int with_bias, ptrdiff_t n_rows) {
    const ptrdiff_t n = d + with_bias, size = n_logits * n;
    double *roots = new_buffer(size * 8, 8), *gradient = new_buffer(size * 8, 8);
    for (ptrdiff_t i = 0; i < size; ++i) {
        roots[i] = uniform(0.5, 2);
        gradient[i] = uniform(-1, 1) * 1e-60; /* float does not hold these */
    }
    const fs_block_diagonal of = {random_blocks(n_logits, n, n_rows), roots, n_logits, d, n};
    const sized want = naive_solve(gradient, &of);
    const wide unit = real_size == 4 ? FLT_EPSILON / 2 : DBL_EPSILON / 2;
    seal_buffers();
    running = "fs_solve_blocks";
    for (int table = 0; table < n_tables; ++table) {
        const kernels *kern = tables[table];
        double *expected = NULL;
        const int held = n_buffers;
        for (int t = 0; t < N_THREAD_COUNTS; ++t) {
            double *out = new_buffer(size * 8, 8);
            void *scratch = new_scratch(fs_blocks_scratch(kern, &of, thread_counts[t]));
            fs_solve_blocks(kern, out, gradient, &of, scratch, thread_counts[t]);
            if (t == 0) expected = out;
            expect(memcmp(out, expected, (size_t)(size * 8)) == 0, table, BLOCKS,
                   "bits are the same for any threads");
        }
        for (ptrdiff_t i = 0; i < size; ++i)
            if (want.size[i] > 0)
                note(table, BLOCKS, fabsl((wide)expected[i] - want.value[i]) / unit / want.size[i],
                     (wide)n);
        expect(free_buffers(held), table, BLOCKS, "nothing is written outside of the result");
    }
    free_buffers(0);
}

/* The products of the factor with itself are those of the rows, and 1 on the diagonal. */
static void check_factor(ptrdiff_t order, ptrdiff_t n) {
    const void *Z = random_reals(order * n, -1, 1);
    const wide unit = real_size == 4 ? FLT_EPSILON / 2 : DBL_EPSILON / 2;
    seal_buffers();
    running = "fs_factor_block";
    for (int table = 0; table < n_tables; ++table) {
        const int held = n_buffers;
        void *L = new_reals(order * order);
        for (ptrdiff_t i = 0; i < order * order; ++i) put(L, i, (wide)NAN);
        const int found = fs_factor_block(tables[table], L, Z, order, n);
        expect(found, table, FACTOR, "there is a factor");
        for (ptrdiff_t r = 0; r < order && found; ++r)
            for (ptrdiff_t c = 0; c < order; ++c) {
                if (c > r) {
                    expect(isnan(get(L, r * order + c)), table, FACTOR, "nothing is written above");
                    continue;
                }
                wide error = r == c ? -1 : 0, size = r == c ? 1 : 0;
                for (ptrdiff_t j = 0; j < n; ++j) {
                    const wide x = get(Z, r * n + j) * get(Z, c * n + j);
                    error -= x;
                    size += fabsl(x);
                }
                for (ptrdiff_t j = 0; j <= c; ++j) {
                    const wide x = get(L, r * order + j) * get(L, c * order + j);
                    error += x;
                    size += fabsl(x);
                }
                note(table, FACTOR, fabsl(error) / unit / size, (wide)n);
            }
        expect(free_buffers(held), table, FACTOR, "nothing is written outside of the factor");
    }
    free_buffers(0);
}

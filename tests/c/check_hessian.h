/* Checks of the Hessian of the loss over dense rows, and of sums by feature. */

typedef struct {
    wide *sums, *scale; /* (n_logits m, n_logits m): the matrix, and the sizes of what it adds up */
    ptrdiff_t size;
} hessian_result;

/* z of a row, and the sizes of what it is the difference of. */
static void naive_z(wide *z, wide *scale, const fs_rows *rows, ptrdiff_t i,
                    const fs_coordinates *of) {
    for (ptrdiff_t j = 0; j < rows->n_features; ++j) {
        const wide x = feature(rows, i, j), center = (wide)of->center[j];
        const wide factor = of->scale ? (wide)of->scale[j] : 1;
        z[j] = factor * (x - center);
        scale[j] = factor * (fabsl(x) + fabsl(center));
    }
    if (of->with_bias) z[rows->n_features] = scale[rows->n_features] = 1;
}

static hessian_result naive_hessian(const problem *p, const fs_coordinates *of) {
    const fs_rows *rows = &p->plain;
    const ptrdiff_t K = rows->n_classes, n_logits = rows->n_logits, first = K - n_logits;
    const ptrdiff_t m = rows->n_features + of->with_bias, size = n_logits * m;
    hessian_result want = {new_wides(size * size), new_wides(size * size), size};
    wide *params = new_wides(p->n_params), *o = new_wides(K), *z = new_wides(m);
    wide *z_scale = new_wides(m);
    for (ptrdiff_t c = 0; c < p->n_params; ++c) params[c] = get(p->params, c);
    for (ptrdiff_t i = 0; i < rows->n_rows; ++i) {
        const wide spread = naive_logits(o, rows, i, params, params + n_logits * rows->n_features);
        const row_summary row = summarize(o, K);
        const wide weight = get(rows->row_weights, i);
        naive_z(z, z_scale, rows, i, of);
        for (ptrdiff_t c = 0; c < size * size; ++c) {
            const ptrdiff_t k = c / size / m, l = c % size / m, a = c / size % m, b = c % m;
            const wide p_k = naive_softmax(&row, o[first + k]);
            const wide rest = k + first == row.largest ? row.others / (1 + row.others) : 1 - p_k;
            const wide h = k == l ? p_k * rest : -p_k * naive_softmax(&row, o[first + l]);
            want.sums[c] += weight * h * z[a] * z[b];
            want.scale[c] += weight * fabsl(h) * (1 + spread) * z_scale[a] * z_scale[b];
        }
    }
    free_buffers(n_buffers - 4);
    return want;
}

static void check_hessian_of(const problem *p, int table, const fs_coordinates *of,
                             const hessian_result *want) {
    const kernels *kern = tables[table];
    const ptrdiff_t n = want->size * want->size;
    double *expected = NULL;
    const int held = n_buffers;
    running = "fs_hessian_sums";
    for (int t = 0; t < N_THREAD_COUNTS; ++t) {
        double *out = new_buffer(n * 8, 8);
        const int n_threads = thread_counts[t];
        void *scratch = new_scratch(fs_hessian_scratch(kern, &p->rows, of->with_bias, n_threads));
        fs_hessian_sums(kern, out, &p->rows, p->params, bias_of(p), of, scratch, n_threads);
        if (t == 0) expected = out;
        expect(memcmp(out, expected, (size_t)(n * 8)) == 0, table, HESSIAN,
               "bits are the same for any threads");
    }
    for (ptrdiff_t c = 0; c < n; ++c) {
        /* in roundings of real, which the sums in double are of */
        const wide unit = real_size == 4 ? FLT_EPSILON / 2 : DBL_EPSILON / 2;
        const wide error = fabsl((wide)expected[c] - want->sums[c]);
        if (want->scale[c] > 0) note(table, HESSIAN, error / unit / want->scale[c], (wide)n);
        expect(want->scale[c] > 0 || error == 0, table, HESSIAN, "sums of zeros are 0");
        expect(expected[c] == expected[c % want->size * want->size + c / want->size], table,
               HESSIAN, "the matrix is symmetric");
    }
    expect(free_buffers(held), table, HESSIAN, "nothing is written outside of the matrix");
}

static void check_hessian(layout how, ptrdiff_t n, ptrdiff_t d, ptrdiff_t n_classes) {
    const problem p = random_problem(how, n, d, n_classes);
    const double largest = largest_feature[p.rows.x_type];
    double *center = new_buffer(d * 8, 8), *scale = new_buffer(d * 8, 8);
    for (ptrdiff_t j = 0; j < d; ++j) {
        center[j] = uniform(-largest / 2, largest / 2);
        scale[j] = uniform(0.5, 2) / largest;
    }
    const fs_coordinates of = {center, random_below(2) ? scale : NULL, (int)random_below(2)};
    const hessian_result want = naive_hessian(&p, &of);
    seal_buffers();
    for (int table = 0; table < n_tables; ++table) check_hessian_of(&p, table, &of, &want);
    free_buffers(0);
}

/* Sums of y = units * (x - shift) and of its squares, and the longest y. */
static void check_moments(layout how, ptrdiff_t n, ptrdiff_t d) {
    const problem p = random_problem(how, n, d, 2);
    const fs_rows *rows = &p.plain;
    const double size = largest_feature[p.rows.x_type];
    double *shifts = new_buffer(d * 8, 8), *factors = new_buffer(d * 8, 8);
    wide *want = new_wides(2 * d), *scale = new_wides(2 * d), longest = 0, longest_scale = 0;
    for (ptrdiff_t j = 0; j < d; ++j) { /* (floats: the same for both types) */
        shifts[j] = (float)uniform(-size / 2, size / 2);
        factors[j] = (float)(uniform(0.5, 2) / size);
    }
    for (ptrdiff_t i = 0; i < n; ++i) {
        wide square = 0, square_scale = 0;
        for (ptrdiff_t j = 0; j < d; ++j) {
            const wide x = feature(rows, i, j), weight = get(rows->row_weights, i);
            const wide y = (wide)factors[j] * (x - (wide)shifts[j]);
            const wide y_scale = (wide)factors[j] * (fabsl(x) + fabsl((wide)shifts[j]));
            want[j] += weight * y;
            want[d + j] += weight * y * y;
            scale[j] += weight * y_scale;
            scale[d + j] += weight * y_scale * y_scale;
            square += y * y;
            square_scale += y_scale * y_scale;
        }
        if (square > longest) longest = square;
        if (square_scale > longest_scale) longest_scale = square_scale;
    }
    const wide unit = real_size == 4 ? FLT_EPSILON / 2 : DBL_EPSILON / 2;
    void *shift = new_buffer(d * real_size, real_size);
    void *units = new_buffer(d * real_size, real_size);
    for (ptrdiff_t j = 0; j < d; ++j) {
        put(shift, j, (wide)shifts[j]);
        put(units, j, (wide)factors[j]);
    }
    seal_buffers();
    running = "fs_feature_moments";
    for (int table = 0; table < n_tables; ++table) {
        const kernels *kern = tables[table];
        double *expected = NULL, first = 0;
        const int held = n_buffers;
        for (int t = 0; t < N_THREAD_COUNTS; ++t) {
            double *out = new_buffer(2 * d * 8, 8);
            void *scratch = new_scratch(fs_moments_scratch(kern, &p.rows, thread_counts[t]));
            const double largest = fs_feature_moments(kern, out, out + d, &p.rows, shift, units,
                                                      scratch, thread_counts[t]);
            if (t == 0) {
                expected = out;
                first = largest;
            }
            expect(memcmp(out, expected, (size_t)(2 * d * 8)) == 0 && largest == first, table,
                   MOMENTS, "bits are the same for any threads");
        }
        for (ptrdiff_t c = 0; c < 2 * d; ++c)
            if (scale[c] > 0)
                note(table, MOMENTS, fabsl((wide)expected[c] - want[c]) / unit / scale[c], (wide)d);
        if (longest_scale > 0)
            note(table, MOMENTS, fabsl((wide)first - longest) / unit / longest_scale, (wide)d);
        expect(free_buffers(held), table, MOMENTS, "nothing is written outside of the sums");
    }
    free_buffers(0);
}

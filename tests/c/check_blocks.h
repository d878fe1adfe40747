/* Checks of single kernels, each in arrays that have exactly the room that kernels.h names. In the
 * passes their arrays lie side by side in scratch, where one that is left goes unseen. */

/* n reals of NaN: what is read of them must not reach a result. */
static void *unset_reals(ptrdiff_t n) {
    void *reals = new_reals(n);
    memset(reals, 0xff, (size_t)(n * real_size));
    return reals;
}

/* Weights by feature, stride apart, and a vector's room of NaN. */
static void *new_table(const problem *p, int table, ptrdiff_t stride) {
    const ptrdiff_t d = p->rows.n_features, K = p->rows.n_logits;
    void *weights = unset_reals(d * stride + tables[table]->vec_width);
    for (ptrdiff_t j = 0; j < d; ++j)
        for (ptrdiff_t k = 0; k < stride; ++k)
            put(weights, j * stride + k, k < K ? get(p->params, k * d + j) : 0);
    return weights;
}

static const char *bias_of(const problem *p) {
    return (const char *)p->params + p->rows.n_logits * p->rows.n_features * real_size;
}

/* ---- dense rows ---- */

/* All rows as one block: in order, backwards by an index, or packed. */
static fs_block whole_block(const problem *p) {
    const fs_rows *rows = &p->rows;
    const ptrdiff_t n = rows->n_rows, d = rows->n_features, size = element_size[rows->x_type];
    fs_block block = {NULL, 0, n, NULL};
    if (random_below(2)) {
        int64_t *index = new_buffer(n * 8, 8);
        for (ptrdiff_t i = 0; i < n; ++i) index[i] = n - 1 - i;
        block.row_index = index;
    }
    if (rows->indptr || (rows->x_feature_stride == 1 && random_below(2))) return block;
    char *packed = new_buffer(n * d * size, size);
    for (ptrdiff_t i = 0; i < n; ++i) {
        const ptrdiff_t row = block.row_index ? n - 1 - i : i;
        for (ptrdiff_t j = 0; j < d; ++j)
            memcpy(
                packed + (i * d + j) * size,
                (const char *)rows->x + (row * rows->x_stride + j * rows->x_feature_stride) * size,
                (size_t)size);
    }
    block.packed = packed;
    return block;
}

static void check_dense_block(const problem *p, int table, const pass_result *want) {
    const fs_rows *rows = &p->rows;
    const ptrdiff_t n = rows->n_rows, K = rows->n_logits, d = rows->n_features;
    const ptrdiff_t stride = (n + 15) / 16 * 16, cut = random_below(K + 1);
    const fs_dense *dense = &tables[table]->dense[rows->x_type];
    const fs_block block = whole_block(p);
    fs_block next = {block.row_index, random_below(n), 0, NULL};
    if (!block.packed) next.n_rows = random_below(n - next.first + 1);
    void *residual = unset_reals(rows->n_classes * stride);
    void *weights = random_reals(K * d, 0, 0), *bias = random_reals(K, 0, 0);
    fs_sums sums = {0, 0};
    dense->residual_block(residual, &sums, rows, p->params, bias_of(p), stride, block, next);
    dense->grad_block(weights, bias, residual, rows, stride, block, next, 0, cut);
    dense->grad_block(weights, bias, residual, rows, stride, block, next, cut, K);
    for (ptrdiff_t c = 0; c < p->n_params; ++c) {
        const wide got = c < K * d ? get(weights, c) : get(bias, c - K * d);
        note(table, PASS_GRAD, roundings(got, want->grad[c], want->scale[c]), (wide)K);
    }
    note(table, PASS_LOSS, roundings(sums.loss, want->loss, want->loss_scale), (wide)K);
}

/* ---- rows in CSR form ---- */

static void check_sparse_logits(const problem *p, int table, const void *weights,
                                ptrdiff_t stride) {
    const fs_rows *rows = &p->rows;
    const ptrdiff_t n = rows->n_rows, K = rows->n_logits;
    const fs_sparse *sparse = &tables[table]->sparse[rows->x_type];
    const fs_block block = {NULL, 0, n, NULL};
    void *by_table = new_reals(n * K), *by_class = new_reals(n * K);
    sparse->affine_rows(by_table, rows, weights, bias_of(p), K, stride, 1, block);
    if (rows->n_features == 1) return; /* a class stride of 1 says that there is room to read */
    sparse->affine_rows(by_class, rows, p->params, bias_of(p), K, 1, rows->n_features, block);
    expect(memcmp(by_table, by_class, (size_t)(n * K * real_size)) == 0, table, AFFINE,
           "bits are the same however weights lie");
}

/* The gradient of residuals of which the columns are those of one panel. */
static void check_columns(const problem *p, int table, const void *residual, ptrdiff_t stride,
                          const pass_result *want) {
    const fs_rows *rows = &p->rows;
    const ptrdiff_t n_weights = rows->n_logits * rows->n_features;
    const ptrdiff_t n_columns = (ptrdiff_t)rows->columns->panel_columns[1];
    const ptrdiff_t cut = random_below(n_columns + 1);
    const fs_sparse *sparse = &tables[table]->sparse[rows->x_type];
    double *grad = new_buffer(n_weights * 8, 8);
    for (ptrdiff_t c = 0; c < n_weights; ++c) grad[c] = 0;
    sparse->grad_columns(grad, residual, rows, stride, 0, cut);
    sparse->grad_columns(grad, residual, rows, stride, cut, n_columns);
    for (ptrdiff_t c = 0; c < n_weights; ++c)
        note(table, PASS_GRAD, roundings(grad[c], want->grad[c], want->scale[c]),
             (wide)rows->n_classes);
}

/* weights, stride apart, after the residuals of all rows of a block were added to them. */
static void check_add_to_rows(const problem *p, int table, void *weights, ptrdiff_t stride,
                              const void *residual, fs_block block) {
    const fs_rows *rows = &p->rows;
    const ptrdiff_t d = rows->n_features, K = rows->n_logits;
    const double rate = -0.37;
    wide *want = new_wides(d * K), *scale = new_wides(d * K);
    for (ptrdiff_t j = 0; j < d; ++j)
        for (ptrdiff_t k = 0; k < K; ++k) {
            want[j * K + k] = get(weights, j * stride + k);
            scale[j * K + k] = fabsl(want[j * K + k]);
        }
    for (ptrdiff_t i = 0; i < block.n_rows; ++i) {
        const ptrdiff_t row = block.row_index ? (ptrdiff_t)block.row_index[i] : i;
        for (ptrdiff_t j = 0; j < d; ++j)
            for (ptrdiff_t k = 0; k < K; ++k) {
                const wide s = p->descent.squared_scale ? get(p->descent.squared_scale, j) : 1;
                const wide step =
                    (wide)rate * s * feature(&p->plain, row, j) * get(residual, i * stride + k);
                want[j * K + k] += step;
                scale[j * K + k] += fabsl(step);
            }
    }
    tables[table]->sparse[rows->x_type].add_to_rows(
        weights, residual, rows, p->descent.squared_scale, rate, stride, stride, block);
    for (ptrdiff_t c = 0; c < d * K; ++c) /* weights are rounded for every entry */
        note(table, UPDATE,
             roundings(get(weights, c / K * stride + c % K), want[c],
                       sqrtl((wide)block.n_rows) * scale[c]),
             (wide)K);
}

static void check_sparse_block(const problem *p, int table, const pass_result *want) {
    const fs_rows *rows = &p->rows;
    const ptrdiff_t n = rows->n_rows, K = rows->n_logits, room = tables[table]->vec_width;
    const ptrdiff_t stride = K + random_below(3), logits_stride = (n + 15) / 16 * 16;
    const fs_block block = whole_block(p);
    void *weights = new_table(p, table, stride);
    void *residual = unset_reals(n * stride + room);
    void *logits = unset_reals(rows->n_classes * logits_stride);
    fs_sums sums = {0, 0};
    check_sparse_logits(p, table, weights, stride);
    tables[table]->sparse[rows->x_type].residual_block(
        residual, &sums, rows, weights, bias_of(p), logits, stride, stride, logits_stride, block);
    note(table, PASS_LOSS, roundings(sums.loss, want->loss, want->loss_scale), (wide)K);
    if (!block.row_index && rows->columns->panel_rows >= n)
        check_columns(p, table, residual, stride, want);
    check_add_to_rows(p, table, weights, stride, residual, block);
}

/* ---- steps without a gradient ---- */

/* Feature j after the steps it lacks, where it is wanted; else as it was. */
static void check_advanced(int table, const void *was, const void *is, const void *velocity_was,
                           const void *velocity, const double *power, ptrdiff_t at, wide K) {
    const wide w = get(was, at), v = velocity ? get(velocity_was, at) : 0;
    const wide want = (wide)power[0] * w + (wide)power[1] * v;
    const wide want_v = (wide)power[2] * w + (wide)power[3] * v;
    note(table, UPDATE, roundings(get(is, at), want, fabsl(power[0] * w) + fabsl(power[1] * v)), K);
    if (velocity)
        note(table, UPDATE,
             roundings(get(velocity, at), want_v, fabsl(power[2] * w) + fabsl(power[3] * v)), K);
}

static void check_lazy(const problem *p, int table) {
    enum { STEPS = 5 };
    static const double none[4] = {1, 0, 0, 1};
    const fs_rows *rows = &p->rows;
    const ptrdiff_t d = rows->n_features, K = rows->n_logits, stride = K + random_below(3);
    const ptrdiff_t n_reals = d * stride + tables[table]->vec_width;
    const ptrdiff_t begin = random_below(d + 1), end = begin + random_below(d - begin + 1);
    void *weights = new_table(p, table, stride), *was = new_table(p, table, stride);
    void *velocity = random_below(2) ? random_reals(n_reals, -1, 1) : NULL;
    void *velocity_was = new_reals(n_reals);
    int32_t *steps = new_buffer(d * 4, 4), *steps_were = new_buffer(d * 4, 4);
    double *powers = new_buffer(4 * (STEPS + 1) * 8, 8);
    if (velocity) memcpy(velocity_was, velocity, (size_t)(n_reals * real_size));
    for (ptrdiff_t j = 0; j < d; ++j) steps[j] = steps_were[j] = (int32_t)random_below(STEPS + 1);
    for (int c = 0; c < 4 * (STEPS + 1); ++c) powers[c] = c < 4 ? none[c] : uniform(-1, 1);
    const fs_lazy lazy = {weights, velocity, steps, powers, K, stride};
    tables[table]->advance_rows(&lazy, rows, STEPS, whole_block(p));
    tables[table]->advance_features(&lazy, STEPS, begin, end);
    for (ptrdiff_t j = 0; j < d; ++j) {
        int wanted = j >= begin && j < end;
        for (ptrdiff_t i = row_begin(rows, 0); i < row_begin(rows, rows->n_rows); ++i)
            wanted |= index_at(rows->indices, i, rows->wide_index) == j;
        expect(steps[j] == (wanted ? STEPS : steps_were[j]), table, UPDATE, "steps are counted");
        for (ptrdiff_t k = 0; k < K; ++k)
            check_advanced(table, was, weights, velocity_was, velocity,
                           powers + (wanted ? 4 * (STEPS - steps_were[j]) : 0), j * stride + k,
                           (wide)K);
    }
}

static void check_blocks(const problem *p, int table, const pass_result *want) {
    const int held = n_buffers;
    if (p->rows.n_rows == 0 || p->rows.n_rows > 128) return;
    running = "a block";
    if (p->rows.indptr) {
        check_sparse_block(p, table, want);
        running = "advance_rows";
        check_lazy(p, table);
    } else {
        check_dense_block(p, table, want);
    }
    expect(free_buffers(held), table, UPDATE, "nothing is written outside");
}

/* ---- partial gradients ---- */

typedef struct {
    ptrdiff_t n_logits, n_features, n_params, stride, n_partials;
    const void *partials;
    double scale;
    fs_descent how;
} update_case;

/* The formulas of kernels.h for one class; params, velocity and their scales in place. */
static void naive_update(const update_case *u, ptrdiff_t k, wide *params, wide *velocity,
                         wide *scale, wide *velocity_scale) {
    const ptrdiff_t d = u->n_features, at_bias = u->n_logits * d + k;
    wide shift = 0, shift_scale = 0;
    for (ptrdiff_t j = 0; j <= d; ++j) {
        const ptrdiff_t c = j < d ? k * d + j : at_bias;
        const wide square = u->how.squared_scale && j < d ? get(u->how.squared_scale, j) : 1;
        const wide center = u->how.center && j < d ? get(u->how.center, j) : 0;
        wide grad = 0, magnitude = 0;
        for (ptrdiff_t p = 0; p < u->n_partials; ++p) {
            const wide g = get(u->partials, p * u->stride + c);
            const wide g_bias = center == 0 ? 0 : get(u->partials, p * u->stride + at_bias);
            grad += g - center * g_bias;
            magnitude += fabsl(g) + fabsl(center * g_bias);
        }
        if (u->how.squared_scale && j == d && !u->how.fit_bias) grad = magnitude = 0;
        const wide decay = u->how.squared_scale && j == d ? 0 : (wide)u->how.l2;
        velocity[c] = (wide)u->how.momentum * velocity[c] + square * (wide)u->scale * grad +
                      decay * params[c];
        velocity_scale[c] = (wide)u->how.momentum * velocity_scale[c] +
                            square * (wide)u->scale * magnitude + fabsl(decay * params[c]);
        shift += velocity[c] * center;
        shift_scale += velocity_scale[c] * fabsl(center);
        params[c] -= (wide)u->how.learning_rate * (velocity[c] - (j == d ? shift : 0));
        scale[c] = fabsl(params[c]) +
                   (wide)u->how.learning_rate * (velocity_scale[c] + (j == d ? shift_scale : 0));
    }
}

static void run_update(const update_case *u, int table, void *params, void *velocity) {
    const kernels *kern = tables[table];
    const ptrdiff_t cut = random_below(u->n_logits + 1), at = random_below(u->n_params + 1);
    const fs_partials gradient = {u->partials, u->stride, u->n_partials, u->scale};
    for (int side = 0; side < 2; ++side)
        if (u->how.squared_scale)
            kern->sgd_update_scaled(params, velocity, &gradient, &u->how, u->n_logits,
                                    u->n_features, side ? cut : 0, side ? u->n_logits : cut);
        else
            kern->sgd_update(params, velocity, &gradient, &u->how, side ? at : 0,
                             side ? u->n_params : at);
}

static void check_update(const update_case *u, int table, int with_velocity) {
    const ptrdiff_t n = u->n_params;
    const int held = n_buffers;
    void *params = random_reals(n, -1, 1);
    void *velocity = with_velocity ? random_reals(n, -1, 1) : NULL;
    wide *want = new_wides(n), *want_v = new_wides(n);
    wide *scale = new_wides(n), *scale_v = new_wides(n);
    for (ptrdiff_t c = 0; c < n; ++c) {
        want[c] = get(params, c);
        want_v[c] = velocity ? get(velocity, c) : 0;
        scale_v[c] = fabsl(want_v[c]);
    }
    for (ptrdiff_t k = 0; k < u->n_logits; ++k) naive_update(u, k, want, want_v, scale, scale_v);
    run_update(u, table, params, velocity);
    for (ptrdiff_t c = 0; c < n; ++c) {
        note(table, UPDATE, roundings(get(params, c), want[c], scale[c]), (wide)u->n_logits);
        if (velocity)
            note(table, UPDATE, roundings(get(velocity, c), want_v[c], scale_v[c]),
                 (wide)u->n_logits);
    }
    expect(free_buffers(held), table, UPDATE, "nothing is written outside");
}

static void check_sum_partials(const update_case *u, int table) {
    const ptrdiff_t n = u->n_params, at = random_below(n + 1);
    double *sums = new_buffer(n * 8, 8);
    int right = 1;
    for (ptrdiff_t c = 0; c < n; ++c) sums[c] = (double)c;
    tables[table]->sum_partials(sums, u->partials, u->stride, u->n_partials, 0, at);
    tables[table]->sum_partials(sums, u->partials, u->stride, u->n_partials, at, n);
    for (ptrdiff_t c = 0; c < n; ++c) {
        double want = (double)c;
        for (ptrdiff_t p = 0; p < u->n_partials; ++p)
            want += (double)get(u->partials, p * u->stride + c);
        right &= sums[c] == want;
    }
    expect(right, table, UPDATE, "partial gradients are added in order, in double");
    expect(free_buffers(n_buffers - 1), table, UPDATE, "nothing is written outside");
}

static void check_updates(ptrdiff_t n_logits, ptrdiff_t d, ptrdiff_t n_partials) {
    update_case u = {n_logits, d, n_logits * (d + 1), 0, n_partials, NULL, 0.3, {0}};
    u.how.learning_rate = 0.2;
    u.how.l2 = 0.05;
    u.how.fit_bias = (int)random_below(2);
    u.stride = u.n_params + random_below(3);
    u.partials = random_reals((n_partials - 1) * u.stride + u.n_params, -1, 1);
    const void *squares = random_reals(d, 0.5, 2), *center = random_reals(d, -1, 1);
    seal_buffers();
    running = "sgd_update";
    for (int table = 0; table < n_tables; ++table) {
        check_sum_partials(&u, table);
        for (int way = 0; way < 6; ++way) {
            u.how.squared_scale = way < 2 ? NULL : squares;
            u.how.center = way < 4 ? NULL : center;
            u.how.momentum = way % 2 ? 0.9 : 0;
            check_update(&u, table, way % 2);
        }
    }
    free_buffers(0);
}

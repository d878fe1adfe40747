/* Checks of the operations that read features: affine_rows, and the passes fs_loss_grad and
 * fs_sgd_steps, through which residual_block, grad_block, sum_partials and sgd_update run. */
typedef struct {
    fs_rows rows;
    const void *params; /* weights, then bias */
    const int64_t *order;
    ptrdiff_t n_params, batch_size;
    double learning_rate, momentum, weight_decay;
    int fit_bias;
} problem;

static const ptrdiff_t element_size[FS_N_X_TYPES] = {4, 8, 1, 1, 2};
static const double largest_feature[FS_N_X_TYPES] = {1, 1, 255, 128, 2};

/* Elements of any value for the small integers, of any up to 2 for the others. */
static void *random_features(fs_x_type type, ptrdiff_t n) {
    void *x = new_buffer(n * element_size[type], element_size[type]);
    for (ptrdiff_t i = 0; i < n; ++i) {
        if (type == FS_X_F32) ((float *)x)[i] = (float)uniform(-1, 1);
        if (type == FS_X_F64) ((double *)x)[i] = uniform(-1, 1);
        if (type == FS_X_F16) ((uint16_t *)x)[i] = (uint16_t)(random_bits() >> 48 & 0xbfff);
        if (element_size[type] == 1) ((uint8_t *)x)[i] = (uint8_t)(random_bits() >> 56);
    }
    return x;
}

static problem random_problem(ptrdiff_t n, ptrdiff_t d, ptrdiff_t n_classes) {
    problem p;
    const int soft = random_below(2) == 0, smooth = random_below(2) == 0;
    p.rows = random_targets(n, n_classes, soft, smooth ? 0.1 : 0);
    p.rows.n_features = d;
    p.rows.n_logits = n_classes == 2 && random_below(2) ? 1 : n_classes;
    do p.rows.x_type = (fs_x_type)random_below(FS_N_X_TYPES);
    while (!tables[0]->dense[p.rows.x_type].affine_rows);
    const ptrdiff_t stride = d + random_below(3), last = n > 0 ? (n - 1) * stride : 0;
    const char *x = random_features(p.rows.x_type, n > 0 ? last + d : 0);
    const int backwards = random_below(3) == 0;
    p.rows.x_stride = backwards ? -stride : stride;
    p.rows.x = backwards ? x + last * element_size[p.rows.x_type] : x;
    const double largest = largest_feature[p.rows.x_type];
    p.n_params = p.rows.n_logits * (d + 1);
    p.params = random_reals(p.n_params, -1 / largest, 1 / largest);
    int64_t *order = new_buffer(n * (ptrdiff_t)sizeof *order, sizeof *order);
    for (ptrdiff_t i = 0; i < n; ++i) order[i] = random_below(n);
    p.order = order;
    p.batch_size = 1 + random_below(n + 2);
    if (n / p.batch_size > 6) p.batch_size = n / 3 + 1;
    p.learning_rate = 0.25 / largest / largest;
    p.momentum = random_below(2) ? 0.9 : 0;
    p.weight_decay = random_below(2) ? 0.01 : 0;
    p.fit_bias = (int)random_below(2);
    return p;
}

/* Adds up the rows order[0 .. n-1], or 0 .. n-1 without an order. */
static pass_result naive_pass(const problem *p, const wide *params, const int64_t *order,
                              ptrdiff_t n) {
    pass_result result = {new_wides(p->n_params), new_wides(p->n_params), 0, 0, 0, 0};
    wide *o = new_wides(p->rows.n_classes), *residual = new_wides(p->rows.n_classes);
    const wide *bias = params + p->rows.n_logits * p->rows.n_features;
    for (ptrdiff_t i = 0; i < n; ++i)
        add_row(&result, &p->rows, order ? (ptrdiff_t)order[i] : i, params, bias, o, residual);
    free_buffers(n_buffers - 2);
    return result;
}

static void *new_scratch(ptrdiff_t n_bytes) {
    void *scratch = new_buffer(n_bytes, 64);
    memset(scratch, 0xff, (size_t)n_bytes); /* NaN: what is read must have been written */
    return scratch;
}

static void check_loss_grad(const problem *p, int table, const pass_result *want) {
    const ptrdiff_t n_weights = p->n_params - p->rows.n_logits, n_classes = p->rows.n_classes;
    const void *bias = (const char *)p->params + n_weights * real_size;
    const int held = n_buffers;
    const size_t n_bytes = (size_t)p->n_params * sizeof(double);
    double *first = new_buffer((ptrdiff_t)n_bytes, sizeof(double));
    fs_sums first_sums = {0, 0};
    running = ops[PASS_GRAD].name;
    for (int t = 0; t <= N_THREAD_COUNTS; ++t) { /* the last time the loss alone */
        const int threads = thread_counts[t % N_THREAD_COUNTS], with_grad = t < N_THREAD_COUNTS;
        double *grad = t ? new_buffer((ptrdiff_t)n_bytes, sizeof(double)) : first;
        void *scratch =
            new_scratch(fs_loss_grad_scratch(tables[table], &p->rows, with_grad, threads));
        const fs_sums sums = fs_loss_grad(tables[table], with_grad ? grad : NULL,
                                          with_grad ? grad + n_weights : NULL, &p->rows, p->params,
                                          bias, scratch, threads);
        if (t == 0) first_sums = sums;
        expect(memcmp(&sums, &first_sums, sizeof sums) == 0, table, PASS_LOSS,
               "bits are the same for any threads, and without a gradient");
        expect(!with_grad || memcmp(grad, first, n_bytes) == 0, table, PASS_GRAD,
               "bits are the same for any threads");
        expect(free_buffers(held + 1), table, PASS_GRAD, "nothing is written outside");
    }
    note(table, PASS_LOSS, roundings(first_sums.loss, want->loss, want->loss_scale),
         (wide)n_classes);
    expect(fabsl(first_sums.correct - want->correct) <= want->undecided + 1e-9L, table, PASS_LOSS,
           "the rows whose largest logit is that of the target are counted");
    for (ptrdiff_t c = 0; c < p->n_params; ++c)
        note(table, PASS_GRAD, roundings(first[c], want->grad[c], want->scale[c]), (wide)n_classes);
    expect(free_buffers(held), table, PASS_GRAD, "nothing is written outside of the gradient");
}

/* The rows in order by threads, then one at a time in the order of p->order. */
static void check_affine_rows(const problem *p, int table, const wide *params) {
    const ptrdiff_t n = p->rows.n_rows, n_logits = p->rows.n_logits, n_classes = p->rows.n_classes;
    const ptrdiff_t stride = n_logits + 1, n_weights = n_logits * p->rows.n_features;
    const ptrdiff_t n_out = n > 0 ? (n - 1) * stride + n_logits : 0;
    const size_t row_bytes = (size_t)(n_logits * real_size);
    const char *bias = (const char *)p->params + n_weights * real_size;
    const int held = n_buffers;
    char *first = new_reals(n_out);
    wide *o = new_wides(n_classes);
    running = ops[AFFINE].name;
    for (int t = 0; t < N_THREAD_COUNTS; ++t) {
        char *out = t ? new_reals(n_out) : first;
        fs_affine_rows(tables[table], out, &p->rows, p->params, bias, stride, thread_counts[t]);
        expect(memcmp(out, first, (size_t)(n_out * real_size)) == 0, table, AFFINE,
               "bits are the same for any threads");
        expect(free_buffers(held + 2), table, AFFINE, "nothing is written outside");
    }
    for (ptrdiff_t i = 0; i < n; ++i) {
        const char *row = first + i * stride * real_size;
        const wide scale = naive_logits(o, &p->rows, i, params, params + n_weights);
        for (ptrdiff_t k = 0; k < n_logits; ++k) {
            const wide want = o[n_classes - n_logits + k];
            note(table, AFFINE, roundings(get(row, k), want, scale), (wide)n_classes);
        }
        expect(i == n - 1 || is_pattern(row + row_bytes, (size_t)real_size), table, AFFINE,
               "nothing is written between the rows");
    }
    const ptrdiff_t n_listed = n < 9 ? n : 9;
    for (ptrdiff_t at = 0; at < n_listed; ++at) {
        const char *row = first + p->order[at] * stride * real_size;
        void *alone = new_reals(n_logits);
        const fs_block block = {p->order, at, 1};
        tables[table]->dense[p->rows.x_type].affine_rows(alone, &p->rows, p->params, bias, n_logits,
                                                         block);
        expect(memcmp(alone, row, row_bytes) == 0, table, AFFINE,
               "bits of a row do not depend on the rows beside it");
        expect(free_buffers(n_buffers - 1), table, AFFINE, "nothing is written outside");
    }
    expect(free_buffers(held), table, AFFINE, "nothing is written outside of the logits");
}

/* params becomes what a pass of gradient descent makes of it, scale the magnitudes it went through.
 */
static void naive_sgd(const problem *p, wide *params, wide *scale) {
    const ptrdiff_t n = p->rows.n_rows, n_weights = p->n_params - p->rows.n_logits;
    const wide rate = (wide)p->learning_rate, batch_size = (wide)p->batch_size;
    wide *velocity = new_wides(p->n_params);
    for (ptrdiff_t c = 0; c < p->n_params; ++c) scale[c] = fabsl(params[c]);
    for (ptrdiff_t first = 0; first < n; first += p->batch_size) {
        const ptrdiff_t m = n - first < p->batch_size ? n - first : p->batch_size;
        const pass_result batch = naive_pass(p, params, p->order + first, m);
        for (ptrdiff_t c = 0; c < (p->fit_bias ? p->n_params : n_weights); ++c) {
            const wide decay = c < n_weights ? (wide)p->weight_decay * params[c] * (wide)m : 0;
            velocity[c] = (wide)p->momentum * velocity[c] + (batch.grad[c] + decay) / batch_size;
            params[c] -= rate * velocity[c];
            scale[c] += rate * (fabsl(velocity[c]) + batch.scale[c] / batch_size);
        }
        free_buffers(n_buffers - 2);
    }
}

static void check_sgd_steps(const problem *p, int table, const wide *want, const wide *scale) {
    const int held = n_buffers;
    const size_t n_bytes = (size_t)(p->n_params * real_size);
    void *first = new_reals(p->n_params);
    running = ops[SGD].name;
    for (int t = 0; t < N_THREAD_COUNTS; ++t) {
        void *params = t ? new_reals(p->n_params) : first;
        void *velocity = p->momentum > 0 ? random_reals(p->n_params, 0, 0) : NULL;
        const int threads = thread_counts[t];
        void *scratch =
            new_scratch(fs_sgd_scratch(tables[table], &p->rows, p->batch_size, threads));
        memcpy(params, p->params, n_bytes);
        fs_sgd_steps(tables[table], params, velocity, &p->rows, p->order, p->rows.n_rows,
                     p->batch_size, p->learning_rate, p->momentum, p->weight_decay, p->fit_bias,
                     scratch, threads);
        expect(memcmp(params, first, n_bytes) == 0, table, SGD,
               "bits are the same for any threads");
        expect(free_buffers(held + 1), table, SGD, "nothing is written outside");
    }
    for (ptrdiff_t c = 0; c < p->n_params; ++c)
        note(table, SGD, roundings(get(first, c), want[c], scale[c]), (wide)p->rows.n_classes);
    expect(free_buffers(held), table, SGD, "nothing is written outside of the parameters");
}

static void check_passes(ptrdiff_t n, ptrdiff_t d, ptrdiff_t n_classes) {
    const problem p = random_problem(n, d, n_classes);
    seal_buffers();
    wide *params = new_wides(p.n_params), *updated = new_wides(p.n_params);
    wide *scale = new_wides(p.n_params);
    for (ptrdiff_t c = 0; c < p.n_params; ++c) params[c] = updated[c] = get(p.params, c);
    const pass_result want = naive_pass(&p, params, NULL, n);
    naive_sgd(&p, updated, scale);
    for (int table = 0; table < n_tables; ++table) {
        check_affine_rows(&p, table, params);
        check_loss_grad(&p, table, &want);
        check_sgd_steps(&p, table, updated, scale);
    }
    free_buffers(0);
}

/* Every value of a small type, alone in its row and as one of a whole vector, comes out of a
 * product with 1 as itself. */
static void check_stored_values(fs_x_type type) {
    const ptrdiff_t n = element_size[type] == 1 ? 256 : 65536;
    unsigned char *x = new_buffer(n * element_size[type], element_size[type]);
    for (ptrdiff_t i = 0; i < n; ++i) {
        const uint16_t bits = (uint16_t)i;
        if (element_size[type] == 1)
            x[i] = (unsigned char)i;
        else
            memcpy(x + 2 * i, &bits, sizeof bits);
    }
    for (int table = 0; table < n_tables; ++table)
        for (ptrdiff_t d = 1; d <= tables[table]->vec_width; d += tables[table]->vec_width - 1) {
            fs_rows rows = {.x = x, .x_type = type, .x_stride = d, .n_rows = n / d};
            rows.n_features = rows.n_classes = rows.n_logits = d;
            void *weights = new_reals(d * d), *bias = new_reals(d), *logits = new_reals(n);
            for (ptrdiff_t c = 0; c < d * d; ++c) put(weights, c, c % (d + 1) == 0);
            for (ptrdiff_t k = 0; k < d; ++k) put(bias, k, 0);
            fs_affine_rows(tables[table], logits, &rows, weights, bias, d, 1);
            int same = 1;
            for (ptrdiff_t i = 0; i < n; ++i) {
                const wide want = feature(&rows, i / d, i % d);
                const int is_finite =
                    want - want == 0; /* else, in a vector, NaN for its neighbours */
                same &= ulps(get(logits, i), want) == 0 || (d > 1 && !is_finite);
                if (d > 1 && !is_finite) i += d - 1 - i % d;
            }
            expect(same, table, AFFINE, "stored values are converted exactly");
            free_buffers(n_buffers - 3);
        }
    free_buffers(0);
}

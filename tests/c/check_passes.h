/* Checks of what runs over all rows: fs_affine_rows, fs_loss_grad and fs_sgd_steps, of dense rows
 * and of those in CSR form. */

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

/* Rows one at a time, in the order of p->order: the bits of logits, which lie stride apart. */
static void check_lone_rows(const problem *p, int table, const char *logits, ptrdiff_t stride) {
    const fs_rows *rows = &p->rows;
    const kernels *kern = tables[table];
    const ptrdiff_t d = rows->n_features, K = rows->n_logits, size = element_size[rows->x_type];
    const char *bias = (const char *)p->params + K * d * real_size;
    if (rows->indptr && d == 1) return; /* a class stride of 1 says that there is room to read */
    for (ptrdiff_t at = 0; at < (p->n_order < 9 ? p->n_order : 9); ++at) {
        const int held = n_buffers;
        void *alone = new_reals(K);
        fs_block block = {p->order, at, 1, NULL};
        if (!rows->indptr && rows->x_feature_stride != 1) {
            const char *x = (const char *)rows->x + p->order[at] * rows->x_stride * size;
            char *packed = new_buffer(d * size, size);
            for (ptrdiff_t j = 0; j < d; ++j)
                memcpy(packed + j * size, x + j * rows->x_feature_stride * size, (size_t)size);
            block.packed = packed;
        }
        if (rows->indptr)
            kern->sparse[rows->x_type].affine_rows(alone, rows, p->params, bias, K, 1, d, block);
        else
            kern->dense[rows->x_type].affine_rows(alone, rows, p->params, bias, K, block);
        expect(
            memcmp(alone, logits + p->order[at] * stride * real_size, (size_t)(K * real_size)) == 0,
            table, AFFINE, "bits of a row do not depend on the rows beside it");
        expect(free_buffers(held), table, AFFINE, "nothing is written outside");
    }
}

/* The rows in order by threads, then one at a time. */
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
        const int threads = thread_counts[t];
        void *scratch = new_scratch(fs_affine_scratch(tables[table], &p->rows, threads));
        fs_affine_rows(tables[table], out, &p->rows, p->params, bias, stride, scratch, threads);
        expect(memcmp(out, first, (size_t)(n_out * real_size)) == 0, table, AFFINE,
               "bits are the same for any threads");
        expect(free_buffers(held + 2), table, AFFINE, "nothing is written outside");
    }
    for (ptrdiff_t i = 0; i < n; ++i) {
        const char *row = first + i * stride * real_size;
        const wide scale = naive_logits(o, &p->plain, i, params, params + n_weights);
        for (ptrdiff_t k = 0; k < n_logits; ++k) {
            const wide want = o[n_classes - n_logits + k];
            note(table, AFFINE, roundings(get(row, k), want, scale), (wide)n_classes);
        }
        expect(i == n - 1 || is_pattern(row + row_bytes, (size_t)real_size), table, AFFINE,
               "nothing is written between the rows");
    }
    check_lone_rows(p, table, first, stride);
    expect(free_buffers(held), table, AFFINE, "nothing is written outside of the logits");
}

/* What a pass of gradient descent makes of the parameters, and the magnitudes it went through. */
typedef struct {
    wide *params, *velocity, *scale, *velocity_scale;
    wide loss, loss_scale;
} descent_result;

/* One step, in the coordinates of the scaled features s (x - c): there weights are w / s, their
 * gradient is s (grad - c grad_bias), and the bias is b + w . c. Of class k. */
static void naive_step(const problem *p, descent_result *r, const pass_result *batch, ptrdiff_t k,
                       wide decay) {
    const ptrdiff_t d = p->rows.n_features, at_bias = p->rows.n_logits * d + k;
    const wide rate = (wide)p->descent.learning_rate, keep = (wide)p->descent.momentum;
    const wide n = (wide)p->descent.batch_size, bias_grad = batch->grad[at_bias];
    wide shift = 0, shift_scale = 0; /* of w . c */
    for (ptrdiff_t j = 0, c = k * d; j < d; ++j, ++c) {
        const wide square = p->descent.squared_scale ? get(p->descent.squared_scale, j) : 1;
        const wide center = p->descent.center ? get(p->descent.center, j) : 0, s = sqrtl(square);
        const wide grad = s * (batch->grad[c] - center * bias_grad) / n;
        const wide velocity = keep * r->velocity[c] / s + grad + decay * r->params[c] / s;
        const wide before = r->params[c];
        const wide magnitude = square * (batch->scale[c] + fabsl(center) * batch->scale[at_bias]);
        r->velocity[c] = velocity * s;
        r->velocity_scale[c] = keep * r->velocity_scale[c] + magnitude / n + decay * fabsl(before);
        r->params[c] = s * (before / s - rate * velocity);
        r->scale[c] += rate * (fabsl(r->velocity[c]) + r->velocity_scale[c]);
        shift -= rate * r->velocity[c] * center;
        shift_scale += rate * r->velocity_scale[c] * fabsl(center);
    }
    if (p->descent.fit_bias) {
        r->velocity[at_bias] = keep * r->velocity[at_bias] + bias_grad / n;
        r->velocity_scale[at_bias] = keep * r->velocity_scale[at_bias] + batch->scale[at_bias] / n;
        r->params[at_bias] -= rate * r->velocity[at_bias];
        r->scale[at_bias] += rate * r->velocity_scale[at_bias];
    }
    r->params[at_bias] -= shift;
    r->scale[at_bias] += shift_scale;
}

static descent_result naive_sgd(const problem *p) {
    const ptrdiff_t n = p->n_order;
    descent_result r = {new_wides(p->n_params),
                        new_wides(p->n_params),
                        new_wides(p->n_params),
                        new_wides(p->n_params),
                        0,
                        0};
    for (ptrdiff_t c = 0; c < p->n_params; ++c) {
        r.params[c] = get(p->params, c);
        r.scale[c] = fabsl(r.params[c]);
        r.velocity[c] = p->velocity ? get(p->velocity, c) : 0;
        r.velocity_scale[c] = fabsl(r.velocity[c]);
    }
    for (ptrdiff_t first = 0; first < n; first += p->descent.batch_size) {
        const ptrdiff_t m = n - first < p->descent.batch_size ? n - first : p->descent.batch_size;
        const wide decay = (wide)p->descent.l2 * (wide)m / (wide)p->descent.batch_size;
        const int held = n_buffers;
        const pass_result batch = naive_pass(p, r.params, p->order + first, m);
        for (ptrdiff_t k = 0; k < p->rows.n_logits; ++k) naive_step(p, &r, &batch, k, decay);
        r.loss += batch.loss;
        r.loss_scale += batch.loss_scale;
        /* Weights are rounded in each of many steps, and those of CSR form for many entries. */
        if (p->rows.indptr || p->descent.batch_size == 1)
            for (ptrdiff_t c = 0; c < p->n_params; ++c)
                r.scale[c] += sqrtl((wide)m) * fabsl(r.params[c]);
        free_buffers(held);
    }
    return r;
}

static void check_sgd_steps(const problem *p, int table, const descent_result *want) {
    const int held = n_buffers;
    const size_t n_bytes = (size_t)(p->n_params * real_size);
    const wide near = real_size == 4 ? 1e-4L : 1e-11L;
    void *first = new_reals(p->n_params), *velocity = new_reals(p->n_params);
    running = ops[SGD].name;
    for (int t = 0; t < N_THREAD_COUNTS; ++t) {
        void *params = t ? new_reals(p->n_params) : first;
        const int threads = thread_counts[t];
        void *scratch =
            new_scratch(fs_sgd_scratch(tables[table], &p->rows, p->descent.batch_size, threads));
        memcpy(params, p->params, n_bytes);
        if (p->velocity) memcpy(velocity, p->velocity, n_bytes);
        const fs_sums sums =
            fs_sgd_steps(tables[table], params, p->velocity ? velocity : NULL, &p->rows,
                         (fs_order){p->order, p->n_order}, &p->descent, scratch, threads);
        expect(memcmp(params, first, n_bytes) == 0, table, SGD,
               "bits are the same for any threads");
        expect(fabsl(sums.loss - want->loss) <= near * want->loss_scale, table, SGD,
               "the loss that the batches saw is returned");
        expect(free_buffers(held + 2), table, SGD, "nothing is written outside");
    }
    for (ptrdiff_t c = 0; c < p->n_params; ++c) {
        const wide n_classes = (wide)p->rows.n_classes;
        note(table, SGD, roundings(get(first, c), want->params[c], want->scale[c]), n_classes);
        if (p->velocity)
            note(table, SGD,
                 roundings(get(velocity, c), want->velocity[c],
                           want->velocity_scale[c] + want->scale[c]),
                 n_classes);
    }
    expect(free_buffers(held), table, SGD, "nothing is written outside of the parameters");
}

static void check_problem(const problem *p) {
    wide *params = new_wides(p->n_params);
    for (ptrdiff_t c = 0; c < p->n_params; ++c) params[c] = get(p->params, c);
    const pass_result want = naive_pass(p, params, NULL, p->rows.n_rows);
    const descent_result descended = naive_sgd(p);
    for (int table = 0; table < n_tables; ++table) {
        check_affine_rows(p, table, params);
        check_loss_grad(p, table, &want);
        check_sgd_steps(p, table, &descended);
        check_predictions(p, table);
        check_blocks(p, table, &want);
    }
    free_buffers(0);
}

static void check_passes(layout how, ptrdiff_t n, ptrdiff_t d, ptrdiff_t n_classes) {
    const problem p = random_problem(how, n, d, n_classes);
    seal_buffers();
    check_problem(&p);
}

/* So many batches of one row that features in CSR form are brought up to date in between. */
static void check_many_steps(layout how, ptrdiff_t n_steps) {
    problem p = random_problem(how, 40, 13, 1 + random_below(4));
    choose_descent(&p, n_steps, 1, how == CSR);
    p.descent.learning_rate /= 25;
    seal_buffers();
    check_problem(&p);
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
            rows.x_feature_stride = 1;
            rows.n_features = rows.n_classes = rows.n_logits = d;
            void *weights = new_reals(d * d), *bias = new_reals(d), *logits = new_reals(n);
            for (ptrdiff_t c = 0; c < d * d; ++c) put(weights, c, c % (d + 1) == 0);
            for (ptrdiff_t k = 0; k < d; ++k) put(bias, k, 0);
            fs_affine_rows(tables[table], logits, &rows, weights, bias, d, NULL, 1);
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

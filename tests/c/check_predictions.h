/* Checks of the predictions: they are the bits of the logits' operations, one after the other, and
 * those of finite_rows and top_rows for logits of every kind. */

/* The n_top classes of a row that come first: the largest logits, of equal ones the smaller class,
 * NaN as -inf. */
static int is_before(const void *logits, ptrdiff_t a, ptrdiff_t b) {
    const wide lowest = -(wide)INFINITY;
    const wide o_a = isnan(get(logits, a)) ? lowest : get(logits, a);
    const wide o_b = isnan(get(logits, b)) ? lowest : get(logits, b);
    return o_a > o_b || (o_a == o_b && a < b);
}

static int is_top(const int64_t *top, const void *logits, ptrdiff_t n_classes, ptrdiff_t n_top) {
    int good = 1;
    for (ptrdiff_t p = 0; p < n_top; ++p) { /* at place p is the class that p others come before */
        ptrdiff_t n_before = 0;
        if (top[p] < 0 || top[p] >= n_classes) return 0;
        for (ptrdiff_t k = 0; k < n_classes; ++k)
            n_before += is_before(logits, k, (ptrdiff_t)top[p]);
        good &= n_before == p;
    }
    return good;
}

/* Rows of top classes, and of their probabilities (or NULL) against those of all classes. */
static void check_top(int table, const int64_t *classes, const void *probs, ptrdiff_t stride,
                      const void *logits, const void *softmax, ptrdiff_t n, ptrdiff_t n_classes,
                      ptrdiff_t n_top) {
    int right = 1, same = 1;
    for (ptrdiff_t i = 0; i < n; ++i) {
        const char *row = (const char *)logits + i * n_classes * real_size;
        right &= is_top(classes + i * stride, row, n_classes, n_top);
        for (ptrdiff_t p = 0; p < n_top && right && probs; ++p)
            same &= ulps(get(probs, i * stride + p),
                         get(softmax, i * n_classes + (ptrdiff_t)classes[i * stride + p])) == 0;
    }
    expect(right, table, TOP, "the largest logits come first");
    expect(same, table, TOP, "probabilities have the bits of softmax_rows");
}

static ptrdiff_t end_of_rows(ptrdiff_t n, ptrdiff_t stride, ptrdiff_t length) {
    return n > 0 ? (n - 1) * stride + length : 0;
}

/* All logits, (n_rows, n_classes), by the operations that predictions are made of. */
static void *all_logits(const problem *p, int table, const void *bias) {
    const ptrdiff_t n = p->rows.n_rows, K = p->rows.n_classes, left_out = K - p->rows.n_logits;
    char *logits = new_reals(n * K);
    for (ptrdiff_t i = 0; i < n && left_out; ++i) put(logits, i * K, 0);
    char *scratch = new_scratch(fs_affine_scratch(tables[table], &p->rows, 1));
    fs_affine_rows(tables[table], logits + left_out * real_size, &p->rows, p->params, bias, K,
                   scratch, 1);
    expect(free_buffers(n_buffers - 1), table, PREDICT, "nothing is written outside");
    return logits;
}

static void check_predict_rows(const problem *p, int table, const void *bias, const void *logits,
                               int n_threads, int finite) {
    const kernels *kern = tables[table];
    const ptrdiff_t n = p->rows.n_rows, K = p->rows.n_classes, stride = K + random_below(2);
    for (int as_log = 0; as_log < 2; ++as_log) {
        const int held = n_buffers;
        char *want = new_reals(n * K), *got = new_reals(end_of_rows(n, stride, K));
        void *scratch = new_scratch(fs_predict_scratch(kern, &p->rows, 0, n_threads));
        (as_log ? fs_log_softmax_rows : fs_softmax_rows)(kern, want, logits, K, K, n, K, 1);
        const int found = fs_predict_rows(kern, got, &p->rows, p->params, bias, stride, as_log,
                                          scratch, n_threads);
        int same = 1;
        for (ptrdiff_t i = 0; i < n; ++i)
            same &= memcmp(got + i * stride * real_size, want + i * K * real_size,
                           (size_t)(K * real_size)) == 0;
        expect(same, table, PREDICT, "bits are those of the logits' softmax");
        expect(found == finite, table, PREDICT, "logits that are not finite are told of");
        expect(free_buffers(held), table, PREDICT, "nothing is written outside");
    }
}

static void check_predict_top(const problem *p, int table, const void *bias, const void *logits,
                              int n_threads, int finite) {
    const kernels *kern = tables[table];
    const ptrdiff_t n = p->rows.n_rows, K = p->rows.n_classes;
    const ptrdiff_t n_top = 1 + random_below(K < 5 ? K : 5), stride = n_top + random_below(2);
    const ptrdiff_t n_out = end_of_rows(n, stride, n_top);
    const int held = n_buffers;
    int64_t *classes = new_buffer(n_out * 8, 8);
    void *softmax = new_reals(n * K), *probs = random_below(2) ? new_reals(n_out) : NULL;
    void *scratch = new_scratch(fs_predict_scratch(kern, &p->rows, 1, n_threads));
    fs_softmax_rows(kern, softmax, logits, K, K, n, K, 1);
    const fs_top top = {classes, probs, stride, stride, n_top};
    const int found = fs_predict_top(kern, &top, &p->rows, p->params, bias, scratch, n_threads);
    check_top(table, classes, probs, stride, logits, softmax, n, K, n_top);
    expect(found == finite, table, TOP, "logits that are not finite are told of");
    expect(free_buffers(held), table, TOP, "nothing is written outside");
}

static void check_predictions(const problem *p, int table) {
    const ptrdiff_t K = p->rows.n_logits, n_weights = K * p->rows.n_features;
    for (int t = 0; t < N_THREAD_COUNTS; ++t) {
        const int held = n_buffers, spoil = random_below(4) == 0;
        running = ops[PREDICT].name;
        void *bias = new_reals(K);
        memcpy(bias, (const char *)p->params + n_weights * real_size, (size_t)(K * real_size));
        if (spoil) put(bias, random_below(K), random_below(2) ? (wide)NAN : (wide)INFINITY);
        const void *logits = all_logits(p, table, bias);
        const int finite = !(spoil && p->rows.n_rows > 0);
        check_predict_rows(p, table, bias, logits, thread_counts[t], finite);
        running = ops[TOP].name;
        check_predict_top(p, table, bias, logits, thread_counts[t], finite);
        free_buffers(held);
    }
}

/* finite_rows sees a single value that is not, wherever it is, and no others. */
static void check_finite_rows(ptrdiff_t n, ptrdiff_t n_classes, ptrdiff_t pad) {
    static const double strange[] = {INFINITY, -INFINITY, NAN};
    const ptrdiff_t stride = n_classes + pad, n_out = end_of_rows(n, stride, n_classes);
    const wide largest = real_size == 4 ? 0x1.fffffep127L : 0x1.fffffffffffffp1023L;
    void *x = new_reals(n_out);
    for (ptrdiff_t c = 0; c < n_out; ++c) {
        const int between = c % stride >= n_classes;
        put(x, c, between ? (wide)NAN : random_below(2) ? largest : -largest);
    }
    for (int table = 0; table < n_tables; ++table) {
        running = "finite_rows";
        expect(tables[table]->finite_rows(x, stride, n, n_classes), table, PREDICT,
               "every value is finite");
        for (ptrdiff_t i = 0; i < n; ++i)
            for (ptrdiff_t k = 0; k < n_classes; ++k) {
                const wide was = get(x, i * stride + k);
                put(x, i * stride + k, strange[(i + k) % 3]);
                expect(!tables[table]->finite_rows(x, stride, n, n_classes), table, PREDICT,
                       "one value is not finite");
                put(x, i * stride + k, was);
            }
    }
    expect(free_buffers(0), 0, PREDICT, "nothing is written");
}

/* top_rows of logits with ties, infinities and NaN, for every number of classes to be found. */
static void check_top_rows(ptrdiff_t n, ptrdiff_t n_classes) {
    static const double strange[] = {INFINITY, -INFINITY, NAN, 0};
    void *logits = new_reals(n * n_classes);
    for (ptrdiff_t i = 0; i < n; ++i)
        for (ptrdiff_t k = 0; k < n_classes; ++k) {
            const int kind = (int)(i % 4); /* of any value; with ties; and with every other sort */
            wide o = kind == 0 ? uniform(-9, 9) : (wide)random_below(4);
            if (kind == 2 && random_below(2)) o = -(wide)INFINITY;
            if (kind == 3) o = strange[random_below(i % 8 == 3 ? 4 : 3)];
            put(logits, i * n_classes + k, o);
        }
    seal_buffers();
    for (int table = 0; table < n_tables; ++table)
        for (ptrdiff_t n_top = 1; n_top <= n_classes; n_top += n_top < 4 ? 1 : 1 + n_classes / 4) {
            const int held = n_buffers;
            const ptrdiff_t stride = n_top + random_below(2), n_out = end_of_rows(n, stride, n_top);
            running = "top_rows";
            int64_t *classes = new_buffer(n_out * 8, 8);
            void *probs = new_reals(n_out), *softmax = new_reals(n * n_classes);
            fs_softmax_rows(tables[table], softmax, logits, n_classes, n_classes, n, n_classes, 1);
            const fs_top top = {classes, probs, stride, stride, n_top};
            tables[table]->top_rows(&top, logits, n_classes, n, n_classes);
            check_top(table, classes, probs, stride, logits, softmax, n, n_classes, n_top);
            expect(free_buffers(held), table, TOP, "nothing is written outside");
        }
    free_buffers(0);
}

/* Random problems: rows of features in every form that the kernels read, and parameters for them.
 */
typedef enum { BY_ROWS, ANY_STRIDES, CSR, N_LAYOUTS } layout;

typedef struct {
    fs_rows rows;
    fs_rows plain;        /* the same as dense rows, which the naive code reads */
    const void *params;   /* weights, then bias */
    const void *velocity; /* to begin with, or NULL */
    const int64_t *order;
    ptrdiff_t n_params, n_order;
    fs_descent descent;
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

/* ---- dense rows ---- */

/* Strides of a matrix by rows, or by columns, or of every so manieth element of either; forwards or
 * backwards. The buffer has no byte beyond the matrix. */
static void place_dense(fs_rows *rows, layout how) {
    const ptrdiff_t n = rows->n_rows, d = rows->n_features;
    ptrdiff_t row = d + random_below(3), feature = 1;
    if (how == ANY_STRIDES && random_below(3) > 0) {
        row = 1 + random_below(2);
        feature = (n > 0 ? n : 1) * row + random_below(2);
    } else if (how == ANY_STRIDES) {
        feature = 2 + random_below(2);
        row = d * feature + random_below(2);
    }
    const ptrdiff_t last_row = n > 0 ? (n - 1) * row : 0;
    const ptrdiff_t last_feature = d > 0 ? (d - 1) * feature : 0;
    const char *x = random_features(rows->x_type, n * d > 0 ? last_row + last_feature + 1 : 0);
    const int rows_back = random_below(3) == 0;
    const int features_back = how == ANY_STRIDES && random_below(3) == 0;
    const ptrdiff_t first = (rows_back ? last_row : 0) + (features_back ? last_feature : 0);
    rows->x = n * d > 0 ? x + first * element_size[rows->x_type] : x;
    rows->x_stride = rows_back ? -row : row;
    rows->x_feature_stride = features_back ? -feature : feature;
}

/* ---- rows in CSR form ---- */

static ptrdiff_t index_at(const void *indices, ptrdiff_t p, int is_wide) {
    return is_wide ? (ptrdiff_t)((const int64_t *)indices)[p]
                   : (ptrdiff_t)((const int32_t *)indices)[p];
}

static void put_index(void *indices, ptrdiff_t p, int is_wide, ptrdiff_t index) {
    if (is_wide)
        ((int64_t *)indices)[p] = index;
    else
        ((int32_t *)indices)[p] = (int32_t)index;
}

static wide value_at(const void *values, ptrdiff_t p, fs_x_type type) {
    return type == FS_X_F32 ? (wide)((const float *)values)[p] : (wide)((const double *)values)[p];
}

static void put_value(void *values, ptrdiff_t p, fs_x_type type, wide value) {
    if (type == FS_X_F32)
        ((float *)values)[p] = (float)value;
    else
        ((double *)values)[p] = (double)value;
}

static void *new_indices(ptrdiff_t n, int is_wide) {
    const ptrdiff_t size = is_wide ? 8 : 4;
    return new_buffer(n * size, size);
}

/* Entries in any order, some features twice (of one sign, and so few bits that their sum is exact),
 * some rows empty; what precedes the first row's must not be used. few: fewer entries than
 * features, if there are any. */
static void place_csr(fs_rows *rows, int few) {
    const ptrdiff_t n = rows->n_rows, d = rows->n_features, begin = random_below(3);
    const int is_wide = random_below(2) == 0;
    void *indptr = new_indices(n + 1, is_wide);
    put_index(indptr, 0, is_wide, begin);
    ptrdiff_t end = begin;
    for (ptrdiff_t i = 0; i < n; ++i) {
        const ptrdiff_t most = few ? d - 1 - (end - begin) : 9;
        const ptrdiff_t n_entries = d > 0 && random_below(4) > 0 ? random_below(10) : 0;
        end += n_entries < most ? n_entries : most > 0 ? most : 0;
        put_index(indptr, i + 1, is_wide, end);
    }
    void *indices = new_indices(end, is_wide);
    void *values = new_buffer(end * element_size[rows->x_type], element_size[rows->x_type]);
    for (ptrdiff_t p = 0; p < end; ++p) {
        const ptrdiff_t j = p < begin ? INT32_MAX : random_below(d);
        const int negative = j % 2 == 0;
        put_index(indices, p, is_wide, j);
        put_value(values, p, rows->x_type, (wide)(1 + random_below(63)) / (negative ? -64 : 64));
    }
    rows->wide_index = is_wide;
    rows->indptr = indptr;
    rows->indices = indices;
    rows->x = values;
    rows->x_stride = rows->x_feature_stride = PTRDIFF_MAX / 2; /* count for nothing */
}

/* Where the entries of row i are. */
static ptrdiff_t row_begin(const fs_rows *rows, ptrdiff_t i) {
    return index_at(rows->indptr, i, rows->wide_index);
}

static fs_rows plain_rows(const fs_rows *rows) {
    const ptrdiff_t n = rows->n_rows, d = rows->n_features;
    fs_rows plain = *rows;
    double *x = new_buffer(n * d * (ptrdiff_t)sizeof *x, sizeof *x);
    for (ptrdiff_t c = 0; c < n * d; ++c) x[c] = 0;
    for (ptrdiff_t i = 0; i < n; ++i)
        for (ptrdiff_t p = row_begin(rows, i); p < row_begin(rows, i + 1); ++p)
            x[i * d + index_at(rows->indices, p, rows->wide_index)] +=
                (double)value_at(rows->x, p, rows->x_type);
    plain.x = x;
    plain.x_type = FS_X_F64;
    plain.indices = plain.indptr = NULL;
    plain.x_stride = d;
    plain.x_feature_stride = 1;
    return plain;
}

/* One panel's columns: entries from *n_entries on, columns from *n_columns on. */
static void add_panel(const fs_rows *rows, ptrdiff_t begin, ptrdiff_t end, int64_t *starts,
                      int32_t *features, int32_t *row, void *values, ptrdiff_t *n_columns,
                      ptrdiff_t *n_entries) {
    for (ptrdiff_t j = 0; j < rows->n_features; ++j) {
        const ptrdiff_t first = *n_entries;
        for (ptrdiff_t i = begin; i < end; ++i)
            for (ptrdiff_t p = row_begin(rows, i); p < row_begin(rows, i + 1); ++p)
                if (index_at(rows->indices, p, rows->wide_index) == j) {
                    row[*n_entries] = (int32_t)(i - begin);
                    put_value(values, (*n_entries)++, rows->x_type,
                              value_at(rows->x, p, rows->x_type));
                }
        if (*n_entries == first) continue;
        if (features) {
            features[*n_columns] = (int32_t)j;
            starts[*n_columns + 1] = *n_entries;
        }
        ++*n_columns;
    }
}

/* The columns, first counted, then written to arrays of their size. */
static void place_columns(fs_rows *rows, ptrdiff_t panel_rows) {
    const ptrdiff_t n = rows->n_rows, n_panels = (n + panel_rows - 1) / panel_rows;
    const ptrdiff_t n_entries = row_begin(rows, n) - row_begin(rows, 0);
    int64_t *panels = new_buffer((n_panels + 1) * 8, 8), *starts = NULL;
    int32_t *features = NULL, *row = new_buffer(n_entries * 4, 4);
    void *values = new_buffer(n_entries * element_size[rows->x_type], element_size[rows->x_type]);
    fs_columns *columns = new_buffer(sizeof *columns, 64);
    for (int pass = 0; pass < 2; ++pass) {
        ptrdiff_t n_columns = 0, entries = 0;
        for (ptrdiff_t panel = 0; panel < n_panels; ++panel) {
            const ptrdiff_t end = (panel + 1) * panel_rows;
            panels[panel] = n_columns;
            add_panel(rows, panel * panel_rows, end < n ? end : n, starts, features, row, values,
                      &n_columns, &entries);
        }
        panels[n_panels] = n_columns;
        if (pass == 0) {
            starts = new_buffer((n_columns + 1) * 8, 8);
            features = new_buffer(n_columns * 4, 4);
            starts[0] = 0;
        }
    }
    *columns = (fs_columns){panel_rows, panels, starts, features, row, values};
    rows->columns = columns;
}

/* ---- everything ---- */

static void choose_descent(problem *p, ptrdiff_t n_order, ptrdiff_t batch_size, int is_csr) {
    const ptrdiff_t d = p->rows.n_features, n_weights = p->n_params - p->rows.n_logits;
    const double largest = largest_feature[p->rows.x_type];
    int64_t *order = new_buffer(n_order * (ptrdiff_t)sizeof *order, sizeof *order);
    for (ptrdiff_t i = 0; i < n_order; ++i) order[i] = random_below(p->rows.n_rows);
    p->order = order;
    p->n_order = n_order;
    p->descent.batch_size = batch_size;
    p->descent.learning_rate = 0.25 / largest / largest;
    p->descent.momentum = random_below(2) ? 0.9 : 0;
    p->descent.l2 = random_below(2) ? 0.01 : 0;
    p->descent.fit_bias = (int)random_below(2);
    if (p->descent.momentum > 0 || random_below(4) == 0) {
        void *velocity = random_reals(p->n_params, -0.1 / largest, 0.1 / largest);
        for (ptrdiff_t k = 0; k < p->rows.n_logits && !p->descent.fit_bias; ++k)
            put(velocity, n_weights + k, 0);
        p->velocity = velocity;
    }
    if (random_below(2)) p->descent.squared_scale = random_reals(d, 0.5, 2);
    if (p->descent.squared_scale && !is_csr && random_below(2))
        p->descent.center = random_reals(d, -largest / 2, largest / 2);
}

static problem random_problem(layout how, ptrdiff_t n, ptrdiff_t d, ptrdiff_t n_classes) {
    const int soft = random_below(2) == 0, smooth = random_below(2) == 0;
    problem p = {0};
    p.rows = random_targets(n, n_classes, soft, smooth ? 0.1 : 0);
    p.rows.n_features = d;
    p.rows.n_logits = n_classes == 2 && random_below(2) ? 1 : n_classes;
    do p.rows.x_type = (fs_x_type)random_below(how == CSR ? 2 : FS_N_X_TYPES);
    while (!tables[0]->dense[p.rows.x_type].affine_rows);
    p.n_params = p.rows.n_logits * (d + 1);
    if (how == CSR) {
        const ptrdiff_t panels[] = {n < 1000 ? 1 : 256, /* losses of panels are added one by one */
                                    7,
                                    64,
                                    n > 0 ? n : 1,
                                    1 << 20,
                                    fs_panel_rows(tables[0], p.rows.n_logits)};
        place_csr(&p.rows, random_below(4) == 0);
        place_columns(&p.rows, panels[random_below(6)]);
        p.plain = plain_rows(&p.rows);
    } else {
        place_dense(&p.rows, how);
        p.plain = p.rows;
    }
    const double largest = largest_feature[p.rows.x_type];
    p.params = random_reals(p.n_params, -1 / largest, 1 / largest);
    ptrdiff_t batch_size = 1 + random_below(n + 2);
    if (n / batch_size > 6) batch_size = n / 3 + 1;
    choose_descent(&p, n, batch_size, how == CSR);
    return p;
}

/* Adds up the rows order[0 .. n-1], or 0 .. n-1 without an order. */
static pass_result naive_pass(const problem *p, const wide *params, const int64_t *order,
                              ptrdiff_t n) {
    pass_result result = {new_wides(p->n_params), new_wides(p->n_params), 0, 0, 0, 0};
    wide *o = new_wides(p->rows.n_classes), *residual = new_wides(p->rows.n_classes);
    const wide *bias = params + p->rows.n_logits * p->rows.n_features;
    for (ptrdiff_t i = 0; i < n; ++i)
        add_row(&result, &p->plain, order ? (ptrdiff_t)order[i] : i, params, bias, o, residual);
    free_buffers(n_buffers - 2);
    return result;
}

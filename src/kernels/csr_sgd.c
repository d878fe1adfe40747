/* Stochastic gradient descent over rows in CSR form. A batch has few of the features, so a step
 * touches those alone. What l2 and momentum do to the others is made up for when a batch needs
 * them, and for all at the end (ops/lazy.h). Residuals are computed in parallel. The updates, which
 * are as many multiply-adds, are made in order by one thread. */
#include <string.h>

#include "csr.h"
#include "rows.h"

/* Steps until every feature is brought up to date: bounds the table of powers. */
enum { MOST_STEPS = 4096 };

/* Most rows of a batch whose residuals are added to the weights one by one. Those of more rows are
 * added up first: a row's share of a large batch's step can be less than half an ulp of the weight,
 * and would be lost for each row alone. */
enum { FEW_ROWS = 16 };

typedef struct {
    csr_task batch;
    fs_lazy table;
    char *grad, *bias, *bias_velocity;
    double *powers; /* of the table, to be written */
    const fs_descent *how;
    double scale;
    int lazy; /* weights or velocity change without a gradient */
    int32_t step;
} descent;

/* The descent before its first step, and its memory. */
static void begin_steps(descent *t, const kernels *kern, const fs_rows *rows, ptrdiff_t batch_size,
                        int with_velocity, int n_threads, arena *memory) {
    const ptrdiff_t d = rows->n_features, n_logits = rows->n_logits;
    *t = (descent){.batch = {.kern = kern, .rows = rows}, .table.n_logits = n_logits};
    t->table.weights = fs_take_table(memory, kern, d, n_logits);
    if (with_velocity) t->table.velocity = fs_take_table(memory, kern, d, n_logits);
    if (batch_size > FEW_ROWS) t->grad = fs_take_table(memory, kern, d, n_logits);
    fs_take_residuals(&t->batch, memory, batch_size, n_threads);
    t->table.steps = take(memory, (double)d * (double)sizeof(int32_t));
    t->powers = take(memory, 4.0 * (MOST_STEPS + 1) * (double)sizeof(double));
    t->table.powers = t->powers;
    t->table.stride = fs_table_stride(n_logits);
}

ptrdiff_t fs_csr_sgd_scratch(const kernels *kern, const fs_rows *rows, ptrdiff_t batch_size,
                             int n_threads) {
    arena memory = {0};
    descent t;
    begin_steps(&t, kern, rows, batch_size, 1, n_threads, &memory);
    return taken_bytes(&memory);
}

/* powers of one step without a gradient: v = momentum v + l2 w; w = w - rate v. */
static void set_powers(descent *t, double l2) {
    const double rate = t->how->learning_rate, keep = t->how->momentum;
    const double one[4] = {1 - rate * l2, -rate * keep, l2, keep};
    double *p = t->powers;
    p[0] = p[3] = 1;
    p[1] = p[2] = 0;
    for (int s = 1; s <= MOST_STEPS; ++s, p += 4) {
        p[4] = one[0] * p[0] + one[1] * p[2];
        p[5] = one[0] * p[1] + one[1] * p[3];
        p[6] = one[2] * p[0] + one[3] * p[2];
        p[7] = one[2] * p[1] + one[3] * p[3];
    }
    t->lazy = l2 != 0 || t->table.velocity; /* which ends in a step also without momentum */
}

/* Every feature up to date; steps are counted from 0 again. */
static void catch_up(descent *t) {
    const csr_task *batch = &t->batch;
    const ptrdiff_t d = batch->rows->n_features;
    if (t->lazy) batch->kern->advance_features(&t->table, t->step, 0, d);
    t->step = 0;
    memset(t->table.steps, 0, (size_t)d * sizeof(int32_t));
}

static void add_gradient(descent *t, fs_block block) {
    const csr_task *batch = &t->batch;
    const fs_sparse *sparse = &batch->kern->sparse[batch->rows->x_type];
    if (block.n_rows > FEW_ROWS) {
        sparse->add_to_rows(t->grad, batch->residuals, batch->rows, NULL, 1, t->table.stride,
                            t->table.stride, block);
        batch->kern->apply_rows(&t->table, t->grad, batch->rows, t->how, t->scale, block);
        return;
    }
    sparse->add_to_rows(t->table.weights, batch->residuals, batch->rows, t->how->squared_scale,
                        -t->how->learning_rate * t->scale, t->table.stride, t->table.stride, block);
    if (t->table.velocity)
        sparse->add_to_rows(t->table.velocity, batch->residuals, batch->rows, t->how->squared_scale,
                            t->scale, t->table.stride, t->table.stride, block);
}

/* Adds the sums of a batch. Returns whether it was interrupted, before the step was taken. */
static int run_batch(descent *t, fs_sums *total, int n_threads) {
    csr_task *batch = &t->batch;
    const kernels *kern = batch->kern;
    const fs_block block = {batch->order, batch->first, batch->n_rows, NULL};
    const ptrdiff_t n_blocks = ceil_div(batch->n_rows, CSR_BLOCK_ROWS);
    if (t->step == MOST_STEPS) catch_up(t);
    if (t->lazy) kern->advance_rows(&t->table, batch->rows, t->step, block);
    if (fs_csr_residuals(batch, n_threads)) return 1;
    ++t->step;
    if (t->lazy) kern->advance_rows(&t->table, batch->rows, t->step, block);
    add_gradient(t, block);
    if (t->how->fit_bias) {
        const fs_partials gradient = {batch->residuals, t->table.stride, batch->n_rows, t->scale};
        fs_descent how = *t->how;
        how.l2 = 0;
        kern->sgd_update(t->bias, t->bias_velocity, &gradient, &how, 0, batch->rows->n_logits);
    }
    const fs_sums sums = fs_add_sums(batch->sums, n_blocks);
    total->loss += sums.loss;
    total->correct += sums.correct;
    return 0;
}

fs_sums fs_csr_sgd_steps(const kernels *kern, void *params, void *velocity, const fs_rows *rows,
                         fs_order order, const fs_descent *how, void *scratch, int n_threads) {
    const ptrdiff_t d = rows->n_features, K = rows->n_logits, batch_size = how->batch_size;
    arena memory = arena_in(scratch);
    descent t;
    begin_steps(&t, kern, rows, batch_size, velocity != NULL, n_threads, &memory);
    t.how = how;
    t.scale = 1 / (double)batch_size;
    t.bias = at(params, K * d, kern->real_size);
    t.bias_velocity = velocity ? at(velocity, K * d, kern->real_size) : NULL;
    t.batch.table = t.table.weights;
    t.batch.bias = t.bias;
    t.batch.order = order.rows;
    fs_clear_table(kern, t.batch.residuals, batch_size, K);
    if (t.grad) fs_clear_table(kern, t.grad, d, K);
    memset(t.table.steps, 0, (size_t)d * sizeof(int32_t));
    fs_weights_to_table(kern, t.table.weights, params, d, K, n_threads);
    if (velocity) fs_weights_to_table(kern, t.table.velocity, velocity, d, K, n_threads);
    fs_sums total = {0, 0};
    const double step_work =
        dense_products(rows, (double)fs_pass_work(rows, batch_size)) + STEP_PRODUCTS;
    double work = 0;
    for (; t.batch.first < order.n; t.batch.first += batch_size, work += step_work) {
        if (work >= PIECE_PRODUCTS) {
            if (is_interrupted(rows)) break;
            work = 0;
        }
        t.batch.n_rows = min_size(batch_size, order.n - t.batch.first);
        const int is_short = t.batch.n_rows < batch_size;
        if (t.batch.first == 0 || is_short) {
            catch_up(&t);
            set_powers(&t, how->l2 * (double)t.batch.n_rows / (double)batch_size);
        }
        if (run_batch(&t, &total, n_threads)) break;
    }
    catch_up(&t);
    fs_table_to_weights(kern, params, t.table.weights, d, K, n_threads);
    if (velocity) fs_table_to_weights(kern, velocity, t.table.velocity, d, K, n_threads);
    return total;
}

/* Stochastic gradient descent over rows in CSR form. A batch has few of the features, so a step
 * touches those alone; decay and momentum of the others are made up for when a batch needs them,
 * and of all at the end (ops/lazy.h). Residuals are computed in parallel, the updates, which are as
 * many multiply-adds, in order by one thread. */
#include <string.h>

#include "csr.h"
#include "pass.h"

/* Steps until every feature is brought up to date: bounds the table of powers. */
enum { MOST_STEPS = 4096 };

/* Most rows of a batch whose residuals are added to the weights one by one. Those of more rows are
 * added up first: a row's share of a large batch's step can be less than half an ulp of the weight,
 * and would be lost for each row alone. */
enum { FEW_ROWS = 16 };

typedef struct {
    csr_task batch;
    char *weights, *velocity, *grad, *bias, *bias_velocity;
    int32_t *steps;
    double *powers;
    fs_sgd sgd;
    fs_scaling scaling;
    ptrdiff_t stride;
    double scale;
    int lazy; /* weights or velocity change without a gradient */
    int32_t step;
} descent;

/* Memory in the order in which it lies in scratch. */
static double place(descent *t, const kernels *kern, const fs_rows *rows, ptrdiff_t batch_size,
                    char *scratch, int n_threads, int with_velocity) {
    const double size = (double)kern->real_size;
    double used = 0;
#define PLACE(field, type, bytes)                                        \
    if (scratch) t->field = (type *)(void *)(scratch + (ptrdiff_t)used); \
    used += (double)line_bytes(bytes)
    PLACE(weights, char, fs_table_bytes(kern, (double)rows->n_features, rows->n_logits));
    PLACE(velocity, char,
          with_velocity ? fs_table_bytes(kern, (double)rows->n_features, rows->n_logits) : 0.0);
    PLACE(grad, char,
          batch_size > FEW_ROWS ? fs_table_bytes(kern, (double)rows->n_features, rows->n_logits)
                                : 0.0);
    PLACE(batch.residuals, char, fs_table_bytes(kern, (double)batch_size, rows->n_logits));
    PLACE(batch.logits, char, (double)rows->n_classes *CSR_BLOCK_ROWS *(double)n_threads *size);
    PLACE(batch.sums, fs_sums,
          (double)ceil_div(batch_size, CSR_BLOCK_ROWS) * (double)sizeof(fs_sums));
    PLACE(steps, int32_t, (double)rows->n_features *(double)sizeof(int32_t));
    PLACE(powers, double, 4.0 * (MOST_STEPS + 1) * (double)sizeof(double));
#undef PLACE
    return used;
}

ptrdiff_t fs_csr_sgd_scratch(const kernels *kern, const fs_rows *rows, ptrdiff_t batch_size,
                             int n_threads) {
    const double bytes = place(NULL, kern, rows, batch_size, NULL, n_threads, 1);
    return scratch_bytes(bytes);
}

/* powers of one step without a gradient: v = momentum v + decay w; w = w - rate v. */
static void set_powers(descent *t, double weight_decay) {
    const double rate = t->sgd.learning_rate, keep = t->sgd.momentum;
    const double one[4] = {1 - rate * weight_decay, -rate * keep, weight_decay, keep};
    double *p = t->powers;
    p[0] = p[3] = 1;
    p[1] = p[2] = 0;
    for (int s = 1; s <= MOST_STEPS; ++s, p += 4) {
        p[4] = one[0] * p[0] + one[1] * p[2];
        p[5] = one[0] * p[1] + one[1] * p[3];
        p[6] = one[2] * p[0] + one[3] * p[2];
        p[7] = one[2] * p[1] + one[3] * p[3];
    }
    t->lazy = weight_decay != 0 || t->velocity; /* which ends in a step also without momentum */
}

/* Every feature up to date; steps are counted from 0 again. */
static void catch_up(descent *t) {
    const csr_task *batch = &t->batch;
    const ptrdiff_t d = batch->rows->n_features;
    if (t->lazy)
        batch->kern->advance_features(t->weights, t->velocity, t->steps, t->powers,
                                      batch->rows->n_logits, t->stride, t->step, 0, d);
    t->step = 0;
    memset(t->steps, 0, (size_t)d * sizeof(int32_t));
}

static void add_gradient(descent *t, fs_block block) {
    const csr_task *batch = &t->batch;
    const fs_sparse *sparse = &batch->kern->sparse[batch->rows->x_type];
    if (block.n_rows > FEW_ROWS) {
        sparse->add_to_rows(t->grad, batch->residuals, batch->rows, NULL, 1, t->stride, t->stride,
                            block);
        batch->kern->apply_rows(t->weights, t->velocity, t->grad, batch->rows,
                                t->scaling.squared_scale, t->scale, t->sgd.learning_rate, t->stride,
                                block);
        return;
    }
    sparse->add_to_rows(t->weights, batch->residuals, batch->rows, t->scaling.squared_scale,
                        -t->sgd.learning_rate * t->scale, t->stride, t->stride, block);
    if (t->velocity)
        sparse->add_to_rows(t->velocity, batch->residuals, batch->rows, t->scaling.squared_scale,
                            t->scale, t->stride, t->stride, block);
}

/* Adds the sums of a batch. Returns whether it was interrupted, before the step was taken. */
static int run_batch(descent *t, fs_sums *total, int n_threads) {
    csr_task *batch = &t->batch;
    const kernels *kern = batch->kern;
    const fs_block block = {batch->order, batch->first, batch->n_rows, NULL};
    const ptrdiff_t n_blocks = ceil_div(batch->n_rows, CSR_BLOCK_ROWS);
    if (t->step == MOST_STEPS) catch_up(t);
    if (t->lazy)
        kern->advance_rows(t->weights, t->velocity, t->steps, t->powers, batch->rows, t->stride,
                           t->step, block);
    if (fs_csr_residuals(batch, n_threads)) return 1;
    ++t->step;
    if (t->lazy)
        kern->advance_rows(t->weights, t->velocity, t->steps, t->powers, batch->rows, t->stride,
                           t->step, block);
    add_gradient(t, block);
    if (t->sgd.fit_bias)
        kern->sgd_update(t->bias, t->bias_velocity, batch->residuals, t->stride, batch->n_rows, 0,
                         batch->rows->n_logits, t->scale, t->sgd.learning_rate, t->sgd.momentum, 0);
    const fs_sums sums = fs_add_sums(batch->sums, n_blocks);
    total->loss += sums.loss;
    total->correct += sums.correct;
    return 0;
}

fs_sums fs_csr_sgd_steps(const kernels *kern, void *params, void *velocity, const fs_rows *rows,
                         const int64_t *order, ptrdiff_t n_order, ptrdiff_t batch_size, fs_sgd sgd,
                         fs_scaling scaling, void *scratch, int n_threads) {
    const ptrdiff_t d = rows->n_features, K = rows->n_logits;
    descent t = {0};
    place(&t, kern, rows, batch_size, scratch, n_threads, 1);
    t.sgd = sgd;
    t.scaling = scaling;
    t.stride = fs_table_stride(K);
    t.scale = 1 / (double)batch_size;
    t.bias = at(params, K * d, kern->real_size);
    t.bias_velocity = velocity ? at(velocity, K * d, kern->real_size) : NULL;
    if (!velocity) t.velocity = NULL;
    t.batch.kern = kern;
    t.batch.rows = rows;
    t.batch.table = t.weights;
    t.batch.bias = t.bias;
    t.batch.order = order;
    const double residual_bytes = fs_table_bytes(kern, (double)batch_size, K);
    memset(t.batch.residuals, 0, (size_t)residual_bytes);
    if (batch_size > FEW_ROWS) memset(t.grad, 0, (size_t)fs_table_bytes(kern, (double)d, K));
    memset(t.steps, 0, (size_t)d * sizeof(int32_t));
    fs_weights_to_table(kern, t.weights, params, d, K, n_threads);
    if (velocity) fs_weights_to_table(kern, t.velocity, velocity, d, K, n_threads);
    fs_sums total = {0, 0};
    const double step_work = CSR_PRODUCT * (double)fs_pass_work(rows, batch_size) + STEP_PRODUCTS;
    double work = 0;
    for (; t.batch.first < n_order; t.batch.first += batch_size, work += step_work) {
        if (work >= PIECE_PRODUCTS) {
            if (is_interrupted(rows)) break;
            work = 0;
        }
        t.batch.n_rows = min_size(batch_size, n_order - t.batch.first);
        const int is_short = t.batch.n_rows < batch_size;
        if (t.batch.first == 0 || is_short) {
            catch_up(&t);
            set_powers(&t, sgd.weight_decay * (double)t.batch.n_rows / (double)batch_size);
        }
        if (run_batch(&t, &total, n_threads)) break;
    }
    catch_up(&t);
    fs_table_to_weights(kern, params, t.weights, d, K, n_threads);
    if (velocity) fs_table_to_weights(kern, velocity, t.velocity, d, K, n_threads);
    return total;
}

/* Stochastic gradient descent: each batch is a pass over few rows, and an update. */
#include "csr.h"
#include "pack.h"
#include "pass.h"
#include "rows.h"

/* A batch is cut into even blocks of whole vectors, a part for each block's worth of work, and from
 * eight parts on for two of them: each part has a gradient of its own, which is set to 0 and added
 * up (20000 x 784, K = 10, batch 1024: 15 parts 10.2 ms, 8 parts 8.3 ms by one thread, 5.3 and 4.5
 * by two). */
enum { FREE_PARTS = 8 };
static pass_plan plan_batch(const kernels *kern, const fs_rows *rows, ptrdiff_t batch_size) {
    pass_plan plan = fs_plan_pass(kern, rows);
    const double most_parts =
        PARTS_BYTES / ((double)plan.partial_stride * (double)kern->real_size + 1);
    const ptrdiff_t by_work = fs_pass_work(rows, batch_size) / GRAIN_PRODUCTS;
    const ptrdiff_t n_blocks = max_size(ceil_div(batch_size, plan.block_rows),
                                        min_size(by_work, ceil_div(batch_size, LEAST_ROWS)));
    plan.block_rows = ceil_div(ceil_div(batch_size, max_size(1, n_blocks)), 16) * 16;
    plan.n_blocks = ceil_div(batch_size, plan.block_rows);
    plan.residual_size = rows->n_classes * plan.block_rows;
    const ptrdiff_t parts = max_size(min_size(FREE_PARTS, by_work), by_work / 2);
    plan.n_parts = min_size(min_size(MOST_PARTS, plan.n_blocks), max_size(1, parts));
    if (most_parts < (double)plan.n_parts) plan.n_parts = max_size(1, (ptrdiff_t)most_parts);
    plan.pack_bytes = fs_pack_bytes(rows, plan.block_rows);
    plan.panel_blocks = 0;
    return plan;
}

/* The task of the first batch, and its memory. */
static void begin_steps(pass_task *task, const kernels *kern, const fs_rows *rows,
                        ptrdiff_t batch_size, int n_threads, arena *memory) {
    *task = (pass_task){0};
    task->kern = kern;
    task->rows = rows;
    task->plan = plan_batch(kern, rows, batch_size);
    task->to_next = batch_size;
    fs_take_pass(task, memory, task->plan.n_parts, n_threads);
}

ptrdiff_t fs_sgd_scratch(const kernels *kern, const fs_rows *rows, ptrdiff_t batch_size,
                         int n_threads) {
    if (rows->indptr) return fs_csr_sgd_scratch(kern, rows, batch_size, n_threads);
    arena memory = {0};
    pass_task task;
    begin_steps(&task, kern, rows, batch_size, n_threads, &memory);
    return taken_bytes(&memory);
}

typedef struct {
    const pass_task *pass;
    void *params, *velocity;
    fs_partials gradient;
    fs_descent how, how_bias; /* in this batch, for the weights and for the bias: no l2 there */
} step_task;

static void update_range(const step_task *t, const fs_descent *how, ptrdiff_t begin,
                         ptrdiff_t end) {
    if (begin < end)
        t->pass->kern->sgd_update(t->params, t->velocity, &t->gradient, how, begin, end);
}

static void update_part(void *task_, ptrdiff_t part, int thread) {
    const step_task *t = task_;
    const ptrdiff_t n_weights = t->pass->rows->n_logits * t->pass->rows->n_features;
    const ptrdiff_t begin = part * SUM_RANGE;
    const ptrdiff_t end = min_size(begin + SUM_RANGE, t->pass->plan.n_params);
    (void)thread;
    update_range(t, &t->how, begin, min_size(end, n_weights));
    if (t->how.fit_bias) update_range(t, &t->how_bias, max_size(begin, n_weights), end);
}

static void update_class(void *task_, ptrdiff_t k, int thread) {
    const step_task *t = task_;
    const fs_rows *rows = t->pass->rows;
    (void)thread;
    t->pass->kern->sgd_update_scaled(t->params, t->velocity, &t->gradient, &t->how, rows->n_logits,
                                     rows->n_features, k, k + 1);
}

/* An update of fewer sums than this is not shared among threads. */
enum { SERIAL_UPDATE = 1 << 17 };

static void update(const step_task *step, int n_threads) {
    const pass_plan *plan = &step->pass->plan;
    step_task task = *step;
    if (plan->n_params < SERIAL_UPDATE / plan->n_parts) n_threads = 1;
    if (step->how.squared_scale)
        fs_for_parts(update_class, &task, step->pass->rows->n_logits, n_threads, 0);
    else
        fs_for_parts(update_part, &task, ceil_div(plan->n_params, SUM_RANGE), n_threads, 0);
}

fs_sums fs_sgd_steps(const kernels *kern, void *params, void *velocity, const fs_rows *rows,
                     fs_order order, const fs_descent *how, void *scratch, int n_threads) {
    const ptrdiff_t batch_size = how->batch_size;
    if (rows->indptr)
        return fs_csr_sgd_steps(kern, params, velocity, rows, order, how, scratch, n_threads);
    arena memory = arena_in(scratch);
    pass_task pass;
    begin_steps(&pass, kern, rows, batch_size, n_threads, &memory);
    pass.weights = params;
    pass.bias = at(params, rows->n_logits * rows->n_features, kern->real_size);
    pass.order = order.rows;
    const fs_partials gradient = {pass.partials, pass.plan.partial_stride, pass.plan.n_parts,
                                  1 / (double)batch_size};
    step_task step = {&pass, params, velocity, gradient, *how, *how};
    step.how_bias.l2 = 0;
    const double step_work = (double)fs_pass_work(rows, batch_size) + STEP_PRODUCTS;
    double work = 0;
    fs_sums total = {0, 0};
    for (ptrdiff_t first = 0; first < order.n; first += batch_size, work += step_work) {
        if (work >= PIECE_PRODUCTS) {
            if (is_interrupted(rows)) break;
            work = 0;
        }
        pass.first = first;
        pass.n_rows = min_size(batch_size, order.n - first);
        pass.end_next = first + min_size(2 * batch_size, order.n - first);
        pass.to_come = (double)fs_pass_work(rows, order.n - first - pass.n_rows);
        step.how.l2 = how->l2 * (double)pass.n_rows / (double)batch_size;
        if (fs_gradient_parts(&pass, n_threads)) break;
        update(&step, n_threads);
        const fs_sums sums = fs_add_sums(pass.sums, pass.plan.n_parts);
        total.loss += sums.loss;
        total.correct += sums.correct;
    }
    return total;
}

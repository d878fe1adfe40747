/* Threads: the only file with OpenMP. It cuts the rows into parts, runs the kernels on them and adds
 * the partial results.
 *
 * The cut depends on the sizes of the problem alone, each part writes to a place of its own, and
 * parts are added in their order, so the bits of a result are the same for any number of threads.
 * Threads take parts as they come free (schedule(dynamic)): who computes a part changes nothing. */
#include <string.h>

#include "kernels.h"

#if defined(_OPENMP)
#include <omp.h>
#endif
#if !defined(_WIN32)
#include <pthread.h>
#endif

/* ---- threads and forks ----
 * GNU's OpenMP hangs when a child forked after a parallel region enters one: its threads are gone.
 * Such a child runs serially, which gives the same bits. These two flags are the only state. */
static int team_started = 0;
static int forked_from_team = 0;

#if !defined(_WIN32)
static void in_child(void) {
    if (team_started) forked_from_team = 1;
}
#endif

void fs_watch_forks(void) {
#if !defined(_WIN32)
    pthread_atfork(NULL, NULL, in_child);
#endif
}

int fs_has_openmp(void) {
#if defined(_OPENMP)
    return 1;
#else
    return 0;
#endif
}

int fs_max_threads(void) {
#if defined(_OPENMP)
    return forked_from_team ? 1 : omp_get_max_threads();
#else
    return 1;
#endif
}

typedef void (*part_body)(void *task, ptrdiff_t part, int thread);

/* body(task, part, thread) for every part; thread < n_threads tells which scratch it may use. */
static void for_parts(part_body body, void *task, ptrdiff_t n_parts, int n_threads) {
    if (n_threads > n_parts) n_threads = (int)n_parts;
#if defined(_OPENMP)
    if (n_threads > 1 && !forked_from_team) {
        team_started = 1;
#pragma omp parallel for num_threads(n_threads) schedule(dynamic, 1)
        for (ptrdiff_t part = 0; part < n_parts; ++part) body(task, part, omp_get_thread_num());
        return;
    }
#endif
    for (ptrdiff_t part = 0; part < n_parts; ++part) body(task, part, 0);
}

static ptrdiff_t min_size(ptrdiff_t a, ptrdiff_t b) { return a < b ? a : b; }
static ptrdiff_t max_size(ptrdiff_t a, ptrdiff_t b) { return a > b ? a : b; }
static ptrdiff_t ceil_div(ptrdiff_t a, ptrdiff_t b) { return a / b + (a % b != 0); }

/* Where part p of n things begins when they are cut into n_parts even parts. */
static ptrdiff_t part_begin(ptrdiff_t n, ptrdiff_t n_parts, ptrdiff_t p) {
    return n / n_parts * p + min_size(p, n % n_parts);
}

static char *at(const void *base, ptrdiff_t i, ptrdiff_t size) {
    return (char *)base + i * size;
}

/* ---- operations on the rows of a matrix of logits ---- */

/* Work for a thread below which starting another costs more than it gives: about 20 microseconds
 * (a parallel region costs 2 to 5). In values of softmax, and in multiply-adds of a product. */
#define GRAIN_VALUES ((ptrdiff_t)1 << 14)
#define GRAIN_PRODUCTS ((ptrdiff_t)1 << 20)

static ptrdiff_t row_parts(ptrdiff_t n_rows, ptrdiff_t row_work, ptrdiff_t grain) {
    const ptrdiff_t rows = max_size(1, grain / max_size(1, row_work));
    return min_size(1024, ceil_div(n_rows, rows));
}

typedef struct {
    const kernels *kern;
    fs_row_op op; /* NULL: logsumexp */
    void *out;
    const void *logits;
    ptrdiff_t out_stride, logits_stride, n_rows, n_classes, n_parts;
} row_task;

static void row_part(void *task_, ptrdiff_t part, int thread) {
    const row_task *t = task_;
    const ptrdiff_t size = t->kern->real_size;
    const ptrdiff_t begin = part_begin(t->n_rows, t->n_parts, part);
    const ptrdiff_t n = part_begin(t->n_rows, t->n_parts, part + 1) - begin;
    const void *logits = at(t->logits, begin * t->logits_stride, size);
    (void)thread;
    if (t->op)
        t->op(at(t->out, begin * t->out_stride, size), logits, t->out_stride, t->logits_stride, n,
              t->n_classes);
    else
        t->kern->logsumexp_rows(at(t->out, begin, size), logits, t->logits_stride, n,
                                t->n_classes);
}

static void run_rows(row_task task, int n_threads) {
    task.n_parts = row_parts(task.n_rows, task.n_classes, GRAIN_VALUES);
    for_parts(row_part, &task, task.n_parts, n_threads);
}

void fs_softmax_rows(const kernels *kern, void *out, const void *logits, ptrdiff_t out_stride,
                     ptrdiff_t logits_stride, ptrdiff_t n_rows, ptrdiff_t n_classes,
                     int n_threads) {
    run_rows((row_task){kern, kern->softmax_rows, out, logits, out_stride, logits_stride, n_rows,
                        n_classes, 0},
             n_threads);
}

void fs_log_softmax_rows(const kernels *kern, void *out, const void *logits, ptrdiff_t out_stride,
                         ptrdiff_t logits_stride, ptrdiff_t n_rows, ptrdiff_t n_classes,
                         int n_threads) {
    run_rows((row_task){kern, kern->log_softmax_rows, out, logits, out_stride, logits_stride,
                        n_rows, n_classes, 0},
             n_threads);
}

void fs_logsumexp_rows(const kernels *kern, void *out, const void *logits,
                       ptrdiff_t logits_stride, ptrdiff_t n_rows, ptrdiff_t n_classes,
                       int n_threads) {
    run_rows((row_task){kern, NULL, out, logits, 1, logits_stride, n_rows, n_classes, 0},
             n_threads);
}

typedef struct {
    const kernels *kern;
    void *loss, *out; /* out: gradient by the logits, or the logits of affine_rows */
    const void *logits, *weights, *bias;
    const fs_rows *rows;
    ptrdiff_t out_stride, logits_stride, n_parts;
} problem_task;

static void cross_entropy_part(void *task_, ptrdiff_t part, int thread) {
    const problem_task *t = task_;
    const ptrdiff_t begin = part_begin(t->rows->n_rows, t->n_parts, part);
    const ptrdiff_t end = part_begin(t->rows->n_rows, t->n_parts, part + 1);
    (void)thread;
    t->kern->cross_entropy_rows(t->loss, t->out, t->logits, t->out_stride, t->logits_stride,
                                t->rows, begin, end - begin);
}

void fs_cross_entropy_rows(const kernels *kern, void *loss, void *grad, const void *logits,
                           ptrdiff_t grad_stride, ptrdiff_t logits_stride, const fs_rows *rows,
                           int n_threads) {
    problem_task task = {kern, loss, grad, logits, NULL, NULL, rows, grad_stride, logits_stride, 0};
    task.n_parts = row_parts(rows->n_rows, rows->n_classes, GRAIN_VALUES);
    for_parts(cross_entropy_part, &task, task.n_parts, n_threads);
}

static void affine_part(void *task_, ptrdiff_t part, int thread) {
    const problem_task *t = task_;
    const ptrdiff_t begin = part_begin(t->rows->n_rows, t->n_parts, part);
    const ptrdiff_t end = part_begin(t->rows->n_rows, t->n_parts, part + 1);
    (void)thread;
    t->kern->dense[t->rows->x_type].affine_rows(at(t->out, begin * t->out_stride, t->kern->real_size), t->rows,
                         t->weights, t->bias, t->out_stride,
                         (fs_block){NULL, begin, end - begin});
}

void fs_affine_rows(const kernels *kern, void *logits, const fs_rows *rows, const void *weights,
                    const void *bias, ptrdiff_t logits_stride, int n_threads) {
    problem_task task = {kern, NULL, logits, NULL, weights, bias, rows, logits_stride, 0, 0};
    const ptrdiff_t row_work = rows->n_features < GRAIN_PRODUCTS / max_size(1, rows->n_logits)
                                   ? rows->n_features * rows->n_logits
                                   : GRAIN_PRODUCTS;
    task.n_parts = row_parts(rows->n_rows, row_work, GRAIN_PRODUCTS);
    for_parts(affine_part, &task, task.n_parts, n_threads);
}

/* ---- how a pass is cut ---- */

/* Rows of a block: its features stay in half of a small second-level cache between the two halves of
 * the pass. A multiple of 16 in [16, 128], which kernels.h promises the operations. */
enum { BLOCK_BYTES = 256 * 1024, LEAST_ROWS = 16, MOST_ROWS = 128 };

static ptrdiff_t block_rows(const fs_rows *problem) {
    static const ptrdiff_t element_size[FS_N_X_TYPES] = {4, 8, 1, 1, 2};
    const ptrdiff_t row_elements = BLOCK_BYTES / element_size[problem->x_type];
    const ptrdiff_t rows = row_elements / max_size(1, problem->n_features) / 16 * 16;
    return max_size(LEAST_ROWS, min_size(MOST_ROWS, rows));
}

/* Multiply-adds of a pass's two halves for one row, bounded so that sums of them cannot overflow. */
static ptrdiff_t pass_work(const fs_rows *rows, ptrdiff_t n_rows) {
    const double work = 2.0 * (double)n_rows * (double)(rows->n_features + 8) *
                        (double)max_size(1, rows->n_logits);
    return work < 1e15 ? (ptrdiff_t)work : (ptrdiff_t)1000000 * 1000000;
}

/* Two ways to add up the gradient. With few coefficients each part of the rows has a gradient of
 * its own, and the parts are added at the end ("parts"). With many, that memory would be large: the
 * rows go by in panels; first the residuals of a panel are computed, blocks in parallel, then every
 * range of classes is added up over the panel's blocks by one thread ("panels").
 * Threshold: 16 parts must fit PARTS_BYTES. */
#define PARTS_BYTES ((double)(16 << 20))
#define PANEL_BYTES ((double)(8 << 20))
enum { MOST_PARTS = 64, FEWEST_PARTS = 16, PANEL_CLASSES = 48 };

typedef struct {
    ptrdiff_t n_blocks, block_rows;
    ptrdiff_t n_parts;        /* parts of the rows; with panels, of one panel */
    ptrdiff_t n_params;       /* weights and bias */
    ptrdiff_t partial_stride; /* reals from one partial gradient to the next */
    ptrdiff_t residual_size;  /* reals in the residuals of one block */
    ptrdiff_t panel_blocks;   /* 0: gradient by parts */
} pass_plan;

static pass_plan plan_pass(const kernels *kern, const fs_rows *rows) {
    pass_plan plan;
    const double n_params = (double)rows->n_logits * ((double)rows->n_features + 1);
    const double most_parts = PARTS_BYTES / (n_params * (double)kern->real_size + 1);
    plan.block_rows = block_rows(rows);
    plan.n_blocks = ceil_div(rows->n_rows, plan.block_rows);
    plan.n_params = rows->n_logits * (rows->n_features + 1);
    plan.partial_stride = ceil_div(plan.n_params, 16) * 16;
    plan.residual_size = rows->n_classes * plan.block_rows;
    plan.n_parts = max_size(1, min_size(min_size(MOST_PARTS, plan.n_blocks),
                                        pass_work(rows, rows->n_rows) / GRAIN_PRODUCTS));
    plan.panel_blocks = 0;
    if (most_parts < FEWEST_PARTS && most_parts < (double)plan.n_parts) {
        const double block_bytes = (double)plan.residual_size * (double)kern->real_size;
        const double blocks = PANEL_BYTES / (block_bytes + 1);
        plan.panel_blocks = max_size(4, min_size(64, (ptrdiff_t)blocks));
        plan.n_parts = min_size(plan.panel_blocks, max_size(1, plan.n_blocks));
    } else if (most_parts < (double)plan.n_parts) {
        plan.n_parts = (ptrdiff_t)most_parts;
    }
    return plan;
}

static double line_bytes(double n_reals, const kernels *kern) {
    return n_reals * (double)kern->real_size + 64;
}

ptrdiff_t fs_loss_grad_scratch(const kernels *kern, const fs_rows *rows, int with_grad,
                               int n_threads) {
    const pass_plan plan = plan_pass(kern, rows);
    const double n_residuals = plan.panel_blocks ? (double)plan.n_parts : (double)n_threads;
    const double n_partials = !with_grad ? 0 : plan.panel_blocks ? 1 : (double)plan.n_parts;
    const double bytes = n_residuals * line_bytes((double)plan.residual_size, kern) +
                         n_partials * line_bytes((double)plan.partial_stride, kern) +
                         (double)plan.n_parts * 64 + 256;
    return bytes < 9e18 / 2 ? (ptrdiff_t)bytes : -1;
}

/* ---- loss and gradient ---- */

typedef struct {
    const kernels *kern;
    const fs_rows *rows;
    const void *weights, *bias;
    pass_plan plan;
    fs_sums *sums;     /* one for each part */
    char *residuals;   /* one block of them for each thread; with panels for each block */
    char *partials;    /* gradients in real; NULL: the loss alone */
    double *grad_weights, *grad_bias;
    const int64_t *order; /* the rows in use, NULL: all in order */
    ptrdiff_t first, n_rows; /* the range of rows (or of order) to pass over */
    ptrdiff_t to_next, end_next; /* stochastic steps: from a batch to the next, and where that ends */
} pass_task;

static fs_block block_at(const pass_task *t, ptrdiff_t row, ptrdiff_t end) {
    return (fs_block){t->order, row, max_size(0, min_size(t->plan.block_rows, end - row))};
}

static const fs_dense *dense_of(const pass_task *t) { return &t->kern->dense[t->rows->x_type]; }

static char *residual_of(const pass_task *t, ptrdiff_t i) {
    return at(t->residuals, i * t->plan.residual_size, t->kern->real_size);
}

/* One part of the rows, its gradient added up in a place of its own. */
static void gradient_part(void *task_, ptrdiff_t part, int thread) {
    const pass_task *t = task_;
    const ptrdiff_t size = t->kern->real_size, n_logits = t->rows->n_logits;
    const ptrdiff_t block = t->plan.block_rows, n_blocks = ceil_div(t->n_rows, block);
    const ptrdiff_t begin = t->first + part_begin(n_blocks, t->plan.n_parts, part) * block;
    const ptrdiff_t end_block = part_begin(n_blocks, t->plan.n_parts, part + 1);
    const ptrdiff_t end = t->first + min_size(t->n_rows, end_block * block);
    char *residual = residual_of(t, thread);
    char *partial = t->partials ? at(t->partials, part * t->plan.partial_stride, size) : NULL;
    fs_sums sums = {0, 0};
    if (partial) memset(partial, 0, (size_t)(t->plan.n_params * size));
    for (ptrdiff_t row = begin; row < end; row += block) {
        const fs_block now = block_at(t, row, end);
        const fs_block next = row + block < end ? block_at(t, row + block, end)
                                              : block_at(t, begin + t->to_next, t->end_next);
        dense_of(t)->residual_block(residual, &sums, t->rows, t->weights, t->bias, block, now);
        if (partial)
            dense_of(t)->grad_block(partial, at(partial, n_logits * t->rows->n_features, size),
                                residual, t->rows, block, now, next, 0, n_logits);
    }
    t->sums[part] = sums;
}

/* Adding partial gradients: ranges of coefficients, each by one thread. */
enum { SUM_RANGE = 4096 };

static void sum_part(void *task_, ptrdiff_t part, int thread) {
    const pass_task *t = task_;
    const ptrdiff_t n_weights = t->rows->n_logits * t->rows->n_features;
    const ptrdiff_t begin = part * SUM_RANGE, end = min_size(begin + SUM_RANGE, t->plan.n_params);
    (void)thread;
    if (begin < n_weights)
        t->kern->sum_partials(t->grad_weights, t->partials, t->plan.partial_stride,
                              t->plan.n_parts, begin, min_size(end, n_weights));
    if (end > n_weights)
        t->kern->sum_partials(t->grad_bias - n_weights, t->partials, t->plan.partial_stride,
                              t->plan.n_parts, max_size(begin, n_weights), end);
}

/* One block of a panel: residuals only. */
static void panel_residual_part(void *task_, ptrdiff_t part, int thread) {
    const pass_task *t = task_;
    const ptrdiff_t end = t->first + t->n_rows, row = t->first + part * t->plan.block_rows;
    (void)thread;
    t->sums[part] = (fs_sums){0, 0};
    dense_of(t)->residual_block(residual_of(t, part), &t->sums[part], t->rows, t->weights, t->bias,
                            t->plan.block_rows, block_at(t, row, end));
}

/* One range of classes, over all blocks of the panel in order. */
static void panel_gradient_part(void *task_, ptrdiff_t part, int thread) {
    const pass_task *t = task_;
    const ptrdiff_t size = t->kern->real_size, d = t->rows->n_features;
    const ptrdiff_t n_weights = t->rows->n_logits * d;
    const ptrdiff_t k0 = part * PANEL_CLASSES;
    const ptrdiff_t k1 = min_size(k0 + PANEL_CLASSES, t->rows->n_logits);
    const ptrdiff_t end = t->first + t->n_rows;
    const fs_block none = {NULL, 0, 0};
    char *bias = at(t->partials, n_weights, size);
    (void)thread;
    memset(at(t->partials, k0 * d, size), 0, (size_t)((k1 - k0) * d * size));
    memset(at(bias, k0, size), 0, (size_t)((k1 - k0) * size));
    for (ptrdiff_t row = t->first, i = 0; row < end; row += t->plan.block_rows, ++i)
        dense_of(t)->grad_block(t->partials, bias, residual_of(t, i), t->rows, t->plan.block_rows,
                            block_at(t, row, end), none, k0, k1);
    t->kern->sum_partials(t->grad_weights, t->partials, 0, 1, k0 * d, k1 * d);
    t->kern->sum_partials(t->grad_bias, bias, 0, 1, k0, k1);
}

static fs_sums add_sums(const fs_sums *sums, ptrdiff_t n) {
    fs_sums total = {0, 0};
    for (ptrdiff_t part = 0; part < n; ++part) {
        total.loss += sums[part].loss;
        total.correct += sums[part].correct;
    }
    return total;
}

static fs_sums pass_by_panels(pass_task *task, int n_threads) {
    const ptrdiff_t n_rows = task->rows->n_rows;
    const ptrdiff_t panel_rows = task->plan.panel_blocks * task->plan.block_rows;
    fs_sums total = {0, 0};
    for (ptrdiff_t first = 0; first < n_rows; first += panel_rows) {
        task->first = first;
        task->n_rows = min_size(panel_rows, n_rows - first);
        const ptrdiff_t n_blocks = ceil_div(task->n_rows, task->plan.block_rows);
        for_parts(panel_residual_part, task, n_blocks, n_threads);
        if (task->partials)
            for_parts(panel_gradient_part, task, ceil_div(task->rows->n_logits, PANEL_CLASSES),
                      n_threads);
        const fs_sums sums = add_sums(task->sums, n_blocks);
        total.loss += sums.loss;
        total.correct += sums.correct;
    }
    return total;
}

/* Places in the scratch: partial gradients, sums, residuals, each from a line of its own. */
static void place_scratch(pass_task *task, void *scratch, ptrdiff_t n_partials) {
    char *p = scratch;
    task->partials = n_partials ? p : NULL;
    p += n_partials * task->plan.partial_stride * task->kern->real_size;
    p += (64 - (p - (char *)scratch) % 64) % 64;
    task->sums = (fs_sums *)(void *)p;
    p += ceil_div(task->plan.n_parts * (ptrdiff_t)sizeof(fs_sums), 64) * 64;
    task->residuals = p;
}

fs_sums fs_loss_grad(const kernels *kern, double *grad_weights, double *grad_bias,
                     const fs_rows *rows, const void *weights, const void *bias, void *scratch,
                     int n_threads) {
    pass_task task = {0};
    task.kern = kern;
    task.rows = rows;
    task.weights = weights;
    task.bias = bias;
    task.plan = plan_pass(kern, rows);
    task.grad_weights = grad_weights;
    task.grad_bias = grad_bias;
    task.n_rows = rows->n_rows;
    place_scratch(&task, scratch, !grad_weights ? 0 : task.plan.panel_blocks ? 1 : task.plan.n_parts);
    if (grad_weights) {
        memset(grad_weights, 0, (size_t)(rows->n_logits * rows->n_features) * sizeof(double));
        memset(grad_bias, 0, (size_t)rows->n_logits * sizeof(double));
    }
    if (rows->n_rows == 0 || rows->n_logits == 0) return (fs_sums){0, 0};
    if (task.plan.panel_blocks) return pass_by_panels(&task, n_threads);
    for_parts(gradient_part, &task, task.plan.n_parts, n_threads);
    if (grad_weights)
        for_parts(sum_part, &task, ceil_div(task.plan.n_params, SUM_RANGE),
                  task.plan.n_parts > 1 ? n_threads : 1);
    return add_sums(task.sums, task.plan.n_parts);
}

/* ---- stochastic gradient descent ---- */

/* A batch is cut into even blocks of whole vectors, a part for each block's worth of work. */
static pass_plan plan_batch(const kernels *kern, const fs_rows *rows, ptrdiff_t batch_size) {
    pass_plan plan = plan_pass(kern, rows);
    const double most_parts = PARTS_BYTES / ((double)plan.partial_stride * (double)kern->real_size + 1);
    const ptrdiff_t by_work = pass_work(rows, batch_size) / GRAIN_PRODUCTS;
    const ptrdiff_t n_blocks = max_size(ceil_div(batch_size, plan.block_rows),
                                        min_size(by_work, ceil_div(batch_size, LEAST_ROWS)));
    plan.block_rows = ceil_div(ceil_div(batch_size, max_size(1, n_blocks)), 16) * 16;
    plan.n_blocks = ceil_div(batch_size, plan.block_rows);
    plan.residual_size = rows->n_classes * plan.block_rows;
    plan.n_parts = min_size(min_size(MOST_PARTS, plan.n_blocks), max_size(1, by_work));
    if (most_parts < (double)plan.n_parts) plan.n_parts = max_size(1, (ptrdiff_t)most_parts);
    plan.panel_blocks = 0;
    return plan;
}

ptrdiff_t fs_sgd_scratch(const kernels *kern, const fs_rows *rows, ptrdiff_t batch_size,
                         int n_threads) {
    const pass_plan plan = plan_batch(kern, rows, batch_size);
    const double bytes = (double)n_threads * line_bytes((double)plan.residual_size, kern) +
                         (double)plan.n_parts * line_bytes((double)plan.partial_stride, kern) +
                         (double)plan.n_parts * 64 + 256;
    return bytes < 9e18 / 2 ? (ptrdiff_t)bytes : -1;
}

typedef struct {
    const pass_task *pass;
    void *params, *velocity;
    double scale, learning_rate, momentum, weight_decay;
    int fit_bias;
} step_task;

static void update_range(const step_task *t, ptrdiff_t begin, ptrdiff_t end, double weight_decay) {
    const pass_task *pass = t->pass;
    if (begin < end)
        pass->kern->sgd_update(t->params, t->velocity, pass->partials, pass->plan.partial_stride,
                               pass->plan.n_parts, begin, end, t->scale, t->learning_rate,
                               t->momentum, weight_decay);
}

static void update_part(void *task_, ptrdiff_t part, int thread) {
    const step_task *t = task_;
    const ptrdiff_t n_weights = t->pass->rows->n_logits * t->pass->rows->n_features;
    const ptrdiff_t begin = part * SUM_RANGE;
    const ptrdiff_t end = min_size(begin + SUM_RANGE, t->pass->plan.n_params);
    (void)thread;
    update_range(t, begin, min_size(end, n_weights), t->weight_decay);
    if (t->fit_bias) update_range(t, max_size(begin, n_weights), end, 0);
}

/* An update of fewer sums than this is not worth a parallel region. */
enum { SERIAL_UPDATE = 1 << 17 };

fs_sums fs_sgd_steps(const kernels *kern, void *params, void *velocity, const fs_rows *rows,
                     const int64_t *order, ptrdiff_t n_order, ptrdiff_t batch_size,
                     double learning_rate, double momentum, double weight_decay, int fit_bias,
                     void *scratch, int n_threads) {
    pass_task pass = {0};
    pass.kern = kern;
    pass.rows = rows;
    pass.weights = params;
    pass.bias = at(params, rows->n_logits * rows->n_features, kern->real_size);
    pass.plan = plan_batch(kern, rows, batch_size);
    pass.order = order;
    pass.to_next = batch_size;
    place_scratch(&pass, scratch, pass.plan.n_parts);
    step_task step = {&pass,         params,   velocity,     1 / (double)batch_size,
                      learning_rate, momentum, weight_decay, fit_bias};
    const int update_threads = pass.plan.n_params * pass.plan.n_parts < SERIAL_UPDATE ? 1 : n_threads;
    fs_sums total = {0, 0};
    for (ptrdiff_t first = 0; first < n_order; first += batch_size) {
        pass.first = first;
        pass.n_rows = min_size(batch_size, n_order - first);
        pass.end_next = min_size(first + 2 * batch_size, n_order);
        step.weight_decay = weight_decay * (double)pass.n_rows / (double)batch_size;
        for_parts(gradient_part, &pass, pass.plan.n_parts, n_threads);
        for_parts(update_part, &step, ceil_div(pass.plan.n_params, SUM_RANGE), update_threads);
        const fs_sums sums = add_sums(pass.sums, pass.plan.n_parts);
        total.loss += sums.loss;
        total.correct += sums.correct;
    }
    return total;
}

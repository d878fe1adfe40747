/* Operations on the rows of a matrix of logits, and the logits of rows of features. Every row is
 * computed by itself, so the cut changes nothing. */
#include "parallel.h"

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
        t->kern->logsumexp_rows(at(t->out, begin, size), logits, t->logits_stride, n, t->n_classes);
}

static void run_rows(row_task task, int n_threads) {
    task.n_parts = row_parts(task.n_rows, task.n_classes, GRAIN_VALUES);
    fs_for_parts(row_part, &task, task.n_parts, n_threads);
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

void fs_logsumexp_rows(const kernels *kern, void *out, const void *logits, ptrdiff_t logits_stride,
                       ptrdiff_t n_rows, ptrdiff_t n_classes, int n_threads) {
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
    fs_for_parts(cross_entropy_part, &task, task.n_parts, n_threads);
}

static void affine_part(void *task_, ptrdiff_t part, int thread) {
    const problem_task *t = task_;
    const ptrdiff_t begin = part_begin(t->rows->n_rows, t->n_parts, part);
    const ptrdiff_t end = part_begin(t->rows->n_rows, t->n_parts, part + 1);
    (void)thread;
    t->kern->dense[t->rows->x_type].affine_rows(
        at(t->out, begin * t->out_stride, t->kern->real_size), t->rows, t->weights, t->bias,
        t->out_stride, (fs_block){NULL, begin, end - begin});
}

void fs_affine_rows(const kernels *kern, void *logits, const fs_rows *rows, const void *weights,
                    const void *bias, ptrdiff_t logits_stride, int n_threads) {
    problem_task task = {kern, NULL, logits, NULL, weights, bias, rows, logits_stride, 0, 0};
    const ptrdiff_t row_work = rows->n_features < GRAIN_PRODUCTS / max_size(1, rows->n_logits)
                                   ? rows->n_features * rows->n_logits
                                   : GRAIN_PRODUCTS;
    task.n_parts = row_parts(rows->n_rows, row_work, GRAIN_PRODUCTS);
    fs_for_parts(affine_part, &task, task.n_parts, n_threads);
}

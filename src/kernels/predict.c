/* Prediction: the product of rows and weights, and what is made of the logits while they are
 * in the cache. Blocks of rows; every row is computed by itself, so the cut changes nothing. */
#include <string.h>

#include "csr.h"
#include "pack.h"
#include "rows.h"

/* Rows of a block, fewer where their logits would take more than BLOCK_BYTES; affine_rows takes
 * four at a time. */
#define BLOCK_BYTES ((ptrdiff_t)1 << 20)
enum { BLOCK_ROWS = 64, FEWEST_ROWS = 4, MOST_PREDICT_PARTS = 1024, LINE = 64 };

typedef struct {
    ptrdiff_t block_rows, n_blocks, n_parts;
    ptrdiff_t n_threads;    /* that have parts to do */
    ptrdiff_t logits_bytes; /* of a block, in whole lines */
    double pack_bytes;      /* see pack.h */
} predict_plan;

typedef struct {
    const kernels *kern;
    const fs_rows *rows;
    csr_weights weights;
    const void *bias;
    predict_plan plan;
    fs_row_op op; /* over the logits in place, which are in probs (n_rows, n_classes); or NULL: */
    fs_top top;   /* the largest of them, where there is no op */
    void *probs;
    ptrdiff_t probs_stride;
    char *flags, *packed,
        *block_logits; /* for each thread: a line with a flag, a block, its logits */
} predict_task;

static predict_plan plan_of(const kernels *kern, const fs_rows *rows, int n_threads) {
    predict_plan plan;
    const ptrdiff_t row_bytes = max_size(1, rows->n_classes) * kern->real_size;
    const ptrdiff_t fitting = max_size(FEWEST_ROWS, BLOCK_BYTES / row_bytes);
    plan.block_rows = max_size(1, min_size(rows->n_rows, min_size(BLOCK_ROWS, fitting)));
    plan.n_blocks = ceil_div(rows->n_rows, plan.block_rows);
    plan.n_parts = min_size(min_size(MOST_PREDICT_PARTS, plan.n_blocks),
                            1 + fs_pass_work(rows, rows->n_rows) / 2 / GRAIN_PRODUCTS);
    plan.n_threads = max_size(1, min_size(plan.n_parts, n_threads));
    plan.pack_bytes = fs_pack_bytes(rows, plan.block_rows);
    plan.logits_bytes = ceil_div(plan.block_rows * row_bytes, LINE) * LINE;
    return plan;
}

/* Plans, and takes the memory; returns the table for the weights. Without an op the logits need a
 * place of their own. */
static void *begin_predict(predict_task *task, arena *memory, int n_threads) {
    const predict_plan plan = task->plan = plan_of(task->kern, task->rows, n_threads);
    const double threads = (double)plan.n_threads;
    task->flags = take(memory, threads * (double)LINE);
    task->packed = take(memory, threads * plan.pack_bytes);
    task->block_logits = task->op ? NULL : take(memory, threads * (double)plan.logits_bytes);
    return fs_take_csr_weights(memory, task->kern, task->rows);
}

ptrdiff_t fs_predict_scratch(const kernels *kern, const fs_rows *rows, int with_logits,
                             int n_threads) {
    arena memory = {0};
    predict_task task = {.kern = kern, .rows = rows, .op = with_logits ? NULL : kern->softmax_rows};
    begin_predict(&task, &memory, n_threads);
    return taken_bytes(&memory);
}

/* Logits of all classes, class 0 of two with one logit included. Returns whether all are finite. */
static int block_logits(const predict_task *t, void *logits, ptrdiff_t stride, char *pack,
                        fs_block block) {
    const ptrdiff_t size = t->kern->real_size;
    const ptrdiff_t left_out = t->rows->n_classes - t->rows->n_logits;
    fs_affine_block(t->kern, at(logits, left_out, size), t->rows, &t->weights, t->bias, stride,
                    pack, block);
    for (ptrdiff_t i = 0; left_out && i < block.n_rows; ++i)
        memset(at(logits, i * stride, size), 0, (size_t)size);
    return t->kern->finite_rows(logits, stride, block.n_rows, t->rows->n_classes);
}

static void predict_part(void *task_, ptrdiff_t part, int thread) {
    const predict_task *t = task_;
    const predict_plan *plan = &t->plan;
    const ptrdiff_t size = t->kern->real_size, n_classes = t->rows->n_classes;
    const ptrdiff_t begin = part_begin(plan->n_blocks, plan->n_parts, part) * plan->block_rows;
    const ptrdiff_t end = min_size(
        t->rows->n_rows, part_begin(plan->n_blocks, plan->n_parts, part + 1) * plan->block_rows);
    char *pack = t->packed + thread * (ptrdiff_t)plan->pack_bytes;
    int finite = 1;
    for (ptrdiff_t row = begin; row < end; row += plan->block_rows) {
        const fs_block block = {NULL, row, min_size(plan->block_rows, end - row), NULL};
        if (t->op) {
            char *probs = at(t->probs, row * t->probs_stride, size);
            finite &= block_logits(t, probs, t->probs_stride, pack, block);
            t->op(probs, probs, t->probs_stride, t->probs_stride, block.n_rows, n_classes);
        } else {
            char *logits = t->block_logits + thread * plan->logits_bytes;
            fs_top top = t->top;
            top.classes += row * top.classes_stride;
            if (top.probs) top.probs = at(top.probs, row * top.probs_stride, size);
            finite &= block_logits(t, logits, n_classes, pack, block);
            t->kern->top_rows(&top, logits, n_classes, block.n_rows, n_classes);
        }
    }
    if (!finite) t->flags[thread * LINE] = 1;
}

static int run_predict(predict_task *task, const void *weights, void *scratch, int n_threads) {
    int finite = 1;
    arena memory = arena_in(scratch);
    void *table = begin_predict(task, &memory, n_threads);
    task->weights = fs_csr_weights(task->kern, task->rows, weights, table, n_threads);
    memset(task->flags, 0, (size_t)(task->plan.n_threads * LINE));
    fs_for_parts_in_pieces(predict_part, task, task->plan.n_parts, (int)task->plan.n_threads,
                           task->rows, (double)fs_pass_work(task->rows, task->rows->n_rows) / 2);
    for (ptrdiff_t thread = 0; thread < task->plan.n_threads; ++thread)
        finite &= !task->flags[thread * LINE];
    return finite;
}

int fs_predict_rows(const kernels *kern, void *probs, const fs_rows *rows, const void *weights,
                    const void *bias, ptrdiff_t probs_stride, int as_log, void *scratch,
                    int n_threads) {
    predict_task task = {.kern = kern, .rows = rows, .bias = bias};
    task.op = as_log ? kern->log_softmax_rows : kern->softmax_rows;
    task.probs = probs;
    task.probs_stride = probs_stride;
    return run_predict(&task, weights, scratch, n_threads);
}

int fs_predict_top(const kernels *kern, const fs_top *top, const fs_rows *rows, const void *weights,
                   const void *bias, void *scratch, int n_threads) {
    predict_task task = {.kern = kern, .rows = rows, .bias = bias, .top = *top};
    return run_predict(&task, weights, scratch, n_threads);
}

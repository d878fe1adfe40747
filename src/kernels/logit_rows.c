/* Operations on the rows of a matrix of logits, and the logits of rows of features. Every row is
 * computed by itself, so the cut changes nothing. */
#include "csr.h"
#include "pack.h"
#include "rows.h"

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
    fs_for_parts(row_part, &task, task.n_parts, n_threads,
                 (double)task.n_rows * (double)task.n_classes * VALUE_PRODUCTS);
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
    void *loss, *grad;
    const void *logits;
    const fs_rows *rows;
    ptrdiff_t grad_stride, logits_stride, n_parts;
} cross_entropy_task;

static void cross_entropy_part(void *task_, ptrdiff_t part, int thread) {
    const cross_entropy_task *t = task_;
    const ptrdiff_t begin = part_begin(t->rows->n_rows, t->n_parts, part);
    const ptrdiff_t end = part_begin(t->rows->n_rows, t->n_parts, part + 1);
    (void)thread;
    t->kern->cross_entropy_rows(t->loss, t->grad, t->logits, t->grad_stride, t->logits_stride,
                                t->rows, begin, end - begin);
}

void fs_cross_entropy_rows(const kernels *kern, void *loss, void *grad, const void *logits,
                           ptrdiff_t grad_stride, ptrdiff_t logits_stride, const fs_rows *rows,
                           int n_threads) {
    cross_entropy_task task = {kern, loss, grad, logits, rows, grad_stride, logits_stride, 0};
    task.n_parts = row_parts(rows->n_rows, rows->n_classes, GRAIN_VALUES);
    fs_for_parts(cross_entropy_part, &task, task.n_parts, n_threads,
                 (double)rows->n_rows * (double)rows->n_classes * VALUE_PRODUCTS);
}

typedef struct {
    const kernels *kern;
    void *logits;
    const fs_rows *rows;
    csr_weights weights;
    const void *bias;
    char *pack; /* for each thread */
    ptrdiff_t logits_stride, n_parts;
} affine_task;

/* Rows at a time where they have to be packed; of a part, where there are enough; and of a tile,
 * which parts are whole numbers of: weights are read once for each. */
enum { PACK_ROWS = 64, PART_ROWS = 64, TILE_ROWS = 4 };

static ptrdiff_t first_row(const affine_task *t, ptrdiff_t part) {
    const ptrdiff_t n_tiles = ceil_div(t->rows->n_rows, TILE_ROWS);
    return min_size(t->rows->n_rows, part_begin(n_tiles, t->n_parts, part) * TILE_ROWS);
}

static void affine_part(void *task_, ptrdiff_t part, int thread) {
    const affine_task *t = task_;
    const fs_rows *rows = t->rows;
    const ptrdiff_t begin = first_row(t, part), end = first_row(t, part + 1);
    const ptrdiff_t pack_bytes = (ptrdiff_t)fs_pack_bytes(rows, PACK_ROWS);
    const ptrdiff_t step = pack_bytes ? PACK_ROWS : end - begin;
    for (ptrdiff_t row = begin; row < end; row += step)
        fs_affine_block(t->kern, at(t->logits, row * t->logits_stride, t->kern->real_size), rows,
                        &t->weights, t->bias, t->logits_stride, t->pack + thread * pack_bytes,
                        (fs_block){NULL, row, min_size(step, end - row), NULL});
}

void fs_affine_block(const kernels *kern, void *logits, const fs_rows *rows,
                     const csr_weights *weights, const void *bias, ptrdiff_t logits_stride,
                     void *pack, fs_block block) {
    if (rows->indptr)
        kern->sparse[rows->x_type].affine_rows(logits, rows, weights->weights, bias, logits_stride,
                                               weights->weights_stride, weights->class_stride,
                                               block);
    else
        kern->dense[rows->x_type].affine_rows(logits, rows, weights->weights, bias, logits_stride,
                                              fs_pack(rows, block, pack));
}

/* Takes the memory of fs_affine_rows: of the rows to be packed; returns the table for weights. */
static void *take_affine(affine_task *task, arena *memory, int n_threads) {
    void *table = fs_take_csr_weights(memory, task->kern, task->rows);
    task->pack = take(memory, (double)n_threads * fs_pack_bytes(task->rows, PACK_ROWS));
    return table;
}

ptrdiff_t fs_affine_scratch(const kernels *kern, const fs_rows *rows, int n_threads) {
    arena memory = {0};
    affine_task task = {.kern = kern, .rows = rows};
    take_affine(&task, &memory, n_threads);
    return taken_bytes(&memory);
}

void fs_affine_rows(const kernels *kern, void *logits, const fs_rows *rows, const void *weights,
                    const void *bias, ptrdiff_t logits_stride, void *scratch, int n_threads) {
    arena memory = arena_in(scratch);
    affine_task task = {
        .kern = kern, .logits = logits, .rows = rows, .bias = bias, .logits_stride = logits_stride};
    void *table = take_affine(&task, &memory, n_threads);
    task.weights = fs_csr_weights(kern, rows, weights, table, n_threads);
    const ptrdiff_t n_products =
        rows->indptr ? fs_csr_entries(rows) / max_size(1, rows->n_rows) + 1 : rows->n_features;
    const ptrdiff_t row_work = n_products < GRAIN_PRODUCTS / max_size(1, rows->n_logits)
                                   ? n_products * rows->n_logits
                                   : GRAIN_PRODUCTS;
    const ptrdiff_t few = min_size(4 * n_threads, ceil_div(rows->n_rows, TILE_ROWS));
    task.n_parts = min_size(row_parts(rows->n_rows, row_work, GRAIN_PRODUCTS),
                            max_size(few, ceil_div(rows->n_rows, PART_ROWS)));
    fs_for_parts_in_pieces(affine_part, &task, task.n_parts, n_threads, rows,
                           (double)rows->n_rows * (double)n_products * (double)rows->n_logits);
}

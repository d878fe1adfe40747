/* Loss and gradient over rows in CSR form. The rows go by in panels: first the residuals of a
 * panel, blocks of rows in parallel; then the gradient, columns in parallel, each added up over its
 * entries in order by one thread. So nothing is added across threads, and memory is that of the
 * weights and of one panel's residuals.
 *
 * With one logit and no columns, rows add to the gradient instead: parts of a panel's rows, each to
 * one of its own. */
#include "csr.h"

#include <string.h>

#include "rows.h"

/* Residuals of a panel, which columns gather from: in a shared third-level cache. In smaller panels
 * the columns of rare features are cut into single entries, and what is done for each piece costs
 * more than the gather: 90000 x 200000, 77 a row, K = 20, one thread: panels of 0.5, 1.3, 2.6, 7 MB
 * take 140, 105, 80, 60 ms. */
#define PANEL_BYTES ((ptrdiff_t)8 << 20)
enum { FEWEST_ROWS = 256, MOST_PANEL_ROWS = 1 << 20 };

/* Multiply-adds of a pass that stays in one thread. */
#define SERIAL_CSR ((double)(1 << 21))

/* Most parts that the columns of a panel are cut into; most gradients that rows add to, and entries
 * of a part for each coefficient of its own. */
enum { COLUMN_PARTS = 64, MOST_GRADIENTS = 16, ENTRIES_PER_FEATURE = 8 };

enum { TABLE_ROOM = 64, TRANSPOSE_RANGE = 1024, TRANSPOSE_TILE = 16 };

ptrdiff_t fs_table_stride(ptrdiff_t n_logits) {
    return n_logits == 1 ? 1 : ceil_div(n_logits, 4) * 4;
}

static double table_bytes(const kernels *kern, ptrdiff_t n_rows, ptrdiff_t n_logits) {
    const double reals = (double)n_rows * (double)fs_table_stride(n_logits) + (double)TABLE_ROOM;
    return reals * (double)kern->real_size;
}

void *fs_take_table(arena *memory, const kernels *kern, ptrdiff_t n_rows, ptrdiff_t n_logits) {
    return take(memory, table_bytes(kern, n_rows, n_logits));
}

void fs_clear_table(const kernels *kern, void *table, ptrdiff_t n_rows, ptrdiff_t n_logits) {
    memset(table, 0, (size_t)table_bytes(kern, n_rows, n_logits));
}

ptrdiff_t fs_panel_rows(const kernels *kern, ptrdiff_t n_logits) {
    const ptrdiff_t row_bytes = fs_table_stride(n_logits) * kern->real_size;
    const ptrdiff_t rows = PANEL_BYTES / max_size(1, row_bytes) / CSR_BLOCK_ROWS * CSR_BLOCK_ROWS;
    return max_size(FEWEST_ROWS, min_size(MOST_PANEL_ROWS, rows));
}

/* ---- weights by feature ---- */

typedef struct {
    char *table, *weights;
    ptrdiff_t size, n_features, n_logits, stride;
    int back;
} transpose_task;

/* Tiles of both matrices stay in the first-level cache. The columns that pad the table are zeros:
 * lanes that nobody reads must not be slowed down by what memory held before. */
#define TRANSPOSE(type)                                                          \
    for (ptrdiff_t j0 = begin; j0 < end; j0 += TRANSPOSE_TILE) {                 \
        const ptrdiff_t j1 = min_size(j0 + TRANSPOSE_TILE, end);                 \
        type *table = (type *)(void *)t->table;                                  \
        for (ptrdiff_t k = 0; k < t->n_logits; ++k, ++table) {                   \
            type *w = (type *)(void *)t->weights + k * t->n_features;            \
            if (t->back)                                                         \
                for (ptrdiff_t j = j0; j < j1; ++j) w[j] = table[j * t->stride]; \
            else                                                                 \
                for (ptrdiff_t j = j0; j < j1; ++j) table[j * t->stride] = w[j]; \
        }                                                                        \
        for (ptrdiff_t k = t->n_logits; k < t->stride && !t->back; ++k, ++table) \
            for (ptrdiff_t j = j0; j < j1; ++j) table[j * t->stride] = 0;        \
    }

static void transpose_part(void *task_, ptrdiff_t part, int thread) {
    const transpose_task *t = task_;
    const ptrdiff_t begin = part * TRANSPOSE_RANGE;
    const ptrdiff_t end = min_size(begin + TRANSPOSE_RANGE, t->n_features);
    (void)thread;
    if (t->size == sizeof(float)) {
        TRANSPOSE(float)
    } else {
        TRANSPOSE(double)
    }
}

static void transpose(transpose_task task, int n_threads) {
    task.stride = fs_table_stride(task.n_logits);
    const int few = task.n_features < GRAIN_VALUES / max_size(1, task.n_logits);
    fs_for_parts(transpose_part, &task, ceil_div(task.n_features, TRANSPOSE_RANGE),
                 few ? 1 : n_threads,
                 (double)task.n_features * (double)task.n_logits * VALUE_PRODUCTS);
}

void fs_weights_to_table(const kernels *kern, void *table, const void *weights,
                         ptrdiff_t n_features, ptrdiff_t n_logits, int n_threads) {
    const ptrdiff_t n = n_features * fs_table_stride(n_logits);
    memset(at(table, n, kern->real_size), 0, (size_t)(TABLE_ROOM * kern->real_size));
    transpose(
        (transpose_task){table, at(weights, 0, 1), kern->real_size, n_features, n_logits, 0, 0},
        n_threads);
}

void fs_table_to_weights(const kernels *kern, void *weights, const void *table,
                         ptrdiff_t n_features, ptrdiff_t n_logits, int n_threads) {
    transpose(
        (transpose_task){at(table, 0, 1), weights, kern->real_size, n_features, n_logits, 0, 1},
        n_threads);
}

/* Fewer entries than features: turning the weights over would cost more than it gives. */
static int few_entries(const fs_rows *rows) { return fs_csr_entries(rows) < rows->n_features; }

void *fs_take_csr_weights(arena *memory, const kernels *kern, const fs_rows *rows) {
    if (!rows->indptr || few_entries(rows)) return NULL;
    return fs_take_table(memory, kern, rows->n_features, rows->n_logits);
}

csr_weights fs_csr_weights(const kernels *kern, const fs_rows *rows, const void *weights,
                           void *table, int n_threads) {
    if (!table) return (csr_weights){weights, 1, rows->n_features};
    fs_weights_to_table(kern, table, weights, rows->n_features, rows->n_logits, n_threads);
    return (csr_weights){table, fs_table_stride(rows->n_logits), 1};
}

/* ---- the pass ---- */

static void residual_part(void *task_, ptrdiff_t part, int thread) {
    const csr_task *t = task_;
    const fs_rows *rows = t->rows;
    const ptrdiff_t size = t->kern->real_size, stride = fs_table_stride(rows->n_logits);
    const ptrdiff_t begin = part * CSR_BLOCK_ROWS;
    const fs_block block = {t->order, t->first + begin, min_size(CSR_BLOCK_ROWS, t->n_rows - begin),
                            NULL};
    char *logits = at(t->logits, thread * rows->n_classes * CSR_BLOCK_ROWS, size);
    t->sums[part] = (fs_sums){0, 0};
    t->kern->sparse[rows->x_type].residual_block(at(t->residuals, begin * stride, size),
                                                 &t->sums[part], rows, t->table, t->bias, logits,
                                                 stride, stride, CSR_BLOCK_ROWS, block);
}

int fs_csr_residuals(csr_task *task, int n_threads) {
    return fs_for_parts_in_pieces(residual_part, task, ceil_div(task->n_rows, CSR_BLOCK_ROWS),
                                  n_threads, task->rows,
                                  (double)fs_pass_work(task->rows, task->n_rows) / 2);
}

typedef struct {
    const csr_task *pass;
    double *grad_weights, *grad_bias;
    double *gradients; /* of rows, without columns: of all parts but the first */
    ptrdiff_t panel, n_parts;
} column_task;

/* The first column in [begin, end) that does not end before the entry. */
static ptrdiff_t column_at(const int64_t *starts, int64_t entry, ptrdiff_t begin, ptrdiff_t end) {
    while (begin < end) {
        const ptrdiff_t middle = begin + (end - begin) / 2;
        if (starts[middle + 1] <= entry)
            begin = middle + 1;
        else
            end = middle;
    }
    return begin;
}

/* How many gradients rows add to where there are no columns. */
static ptrdiff_t n_gradients(const fs_rows *rows) {
    const ptrdiff_t most = fs_csr_entries(rows) / ENTRIES_PER_FEATURE;
    return max_size(1, min_size(MOST_GRADIENTS, most / max_size(1, rows->n_features)));
}

/* Rows of one logit add to their part's gradient. */
static void row_part(const column_task *t, ptrdiff_t part) {
    const csr_task *pass = t->pass;
    const fs_rows *rows = pass->rows;
    const ptrdiff_t begin = part_begin(pass->n_rows, t->n_parts, part);
    const ptrdiff_t end = part_begin(pass->n_rows, t->n_parts, part + 1);
    const fs_block block = {NULL, pass->first + begin, end - begin, NULL};
    double *gradient = part ? t->gradients + (part - 1) * rows->n_features : t->grad_weights;
    pass->kern->sparse[rows->x_type].add_rows(
        gradient, at(pass->residuals, begin, pass->kern->real_size), rows, block);
}

/* Part 0 adds up the bias; the others columns with about the same number of entries. */
static void column_part(void *task_, ptrdiff_t part, int thread) {
    const column_task *t = task_;
    const fs_rows *rows = t->pass->rows;
    const fs_columns *columns = rows->columns;
    const ptrdiff_t stride = fs_table_stride(rows->n_logits);
    (void)thread;
    if (part == 0) {
        t->pass->kern->sum_partials(t->grad_bias, t->pass->residuals, stride, t->pass->n_rows, 0,
                                    rows->n_logits);
        return;
    }
    if (!columns) {
        row_part(t, part - 1);
        return;
    }
    const ptrdiff_t begin = (ptrdiff_t)columns->panel_columns[t->panel];
    const ptrdiff_t end = (ptrdiff_t)columns->panel_columns[t->panel + 1];
    const int64_t first = columns->starts[begin], n = columns->starts[end] - first;
    ptrdiff_t cut[2];
    for (int side = 0; side < 2; ++side) {
        const ptrdiff_t entry = part_begin((ptrdiff_t)n, t->n_parts, part - 1 + side);
        cut[side] = part - 1 + side == t->n_parts
                        ? end
                        : column_at(columns->starts, first + entry, begin, end);
    }
    t->pass->kern->sparse[rows->x_type].grad_columns(t->grad_weights, t->pass->residuals, rows,
                                                     stride, cut[0], cut[1]);
}

static ptrdiff_t panel_rows_of(const kernels *kern, const fs_rows *rows) {
    return rows->columns ? rows->columns->panel_rows : fs_panel_rows(kern, rows->n_logits);
}

void fs_take_residuals(csr_task *task, arena *memory, ptrdiff_t n_rows, int n_threads) {
    const fs_rows *rows = task->rows;
    const double logits = (double)rows->n_classes * (double)CSR_BLOCK_ROWS * (double)n_threads;
    const double n_blocks = (double)ceil_div(n_rows, CSR_BLOCK_ROWS);
    task->residuals = fs_take_table(memory, task->kern, n_rows, rows->n_logits);
    task->logits = take(memory, logits * (double)task->kern->real_size);
    task->sums = take(memory, n_blocks * (double)sizeof(fs_sums));
}

/* The tasks of fs_csr_loss_grad, and their memory. */
static void begin_pass(csr_task *task, column_task *columns, const kernels *kern,
                       const fs_rows *rows, int with_grad, int n_threads, arena *memory) {
    const int by_rows = with_grad && !rows->columns;
    *task = (csr_task){.kern = kern, .rows = rows};
    *columns = (column_task){.pass = task, .n_parts = by_rows ? n_gradients(rows) : COLUMN_PARTS};
    task->table = fs_take_table(memory, kern, rows->n_features, rows->n_logits);
    fs_take_residuals(task, memory, min_size(panel_rows_of(kern, rows), rows->n_rows), n_threads);
    if (by_rows)
        columns->gradients = take(memory, ((double)columns->n_parts - 1) *
                                              (double)rows->n_features * (double)sizeof(double));
}

ptrdiff_t fs_csr_loss_grad_scratch(const kernels *kern, const fs_rows *rows, int with_grad,
                                   int n_threads) {
    arena memory = {0};
    csr_task task;
    column_task columns;
    begin_pass(&task, &columns, kern, rows, with_grad, n_threads, &memory);
    return taken_bytes(&memory);
}

/* Adds the gradients of all parts of the rows, in their order. */
static void add_gradients(const column_task *t) {
    const ptrdiff_t d = t->pass->rows->n_features;
    for (ptrdiff_t part = 1; part < t->n_parts; ++part)
        for (ptrdiff_t j = 0; j < d; ++j) t->grad_weights[j] += t->gradients[(part - 1) * d + j];
}

fs_sums fs_csr_loss_grad(const kernels *kern, double *grad_weights, double *grad_bias,
                         const fs_rows *rows, const void *weights, const void *bias, void *scratch,
                         int n_threads) {
    const ptrdiff_t n_rows = rows->n_rows, panel_rows = min_size(panel_rows_of(kern, rows), n_rows);
    const double work =
        ((double)fs_csr_entries(rows) + 8.0 * (double)n_rows) * (double)rows->n_logits;
    arena memory = arena_in(scratch);
    csr_task task;
    column_task columns;
    begin_pass(&task, &columns, kern, rows, grad_weights != NULL, n_threads, &memory);
    columns.grad_weights = grad_weights;
    columns.grad_bias = grad_bias;
    task.bias = bias;
    const ptrdiff_t n_residuals = panel_rows * fs_table_stride(rows->n_logits);
    memset(at(task.residuals, n_residuals, kern->real_size), 0,
           (size_t)(TABLE_ROOM * kern->real_size));
    if (work < SERIAL_CSR) n_threads = 1;
    fs_weights_to_table(kern, task.table, weights, rows->n_features, rows->n_logits, n_threads);
    fs_sums total = {0, 0};
    if (columns.gradients)
        memset(columns.gradients, 0,
               (size_t)((columns.n_parts - 1) * rows->n_features) * sizeof(double));
    for (; task.first < n_rows; task.first += panel_rows, ++columns.panel) {
        task.n_rows = min_size(panel_rows, n_rows - task.first);
        if ((task.first && is_interrupted(rows)) || fs_csr_residuals(&task, n_threads)) break;
        if (grad_weights &&
            fs_for_parts_in_pieces(column_part, &columns, 1 + columns.n_parts, n_threads, rows,
                                   (double)fs_pass_work(rows, task.n_rows) / 2))
            break;
        const ptrdiff_t n_blocks = ceil_div(task.n_rows, CSR_BLOCK_ROWS);
        for (ptrdiff_t block = 0; block < n_blocks; ++block) {
            total.loss += task.sums[block].loss;
            total.correct += task.sums[block].correct;
        }
    }
    if (columns.gradients) add_gradients(&columns);
    return total;
}

ptrdiff_t fs_columns_scratch(const kernels *kern, const fs_rows *rows) {
    const ptrdiff_t panel = min_size(panel_rows_of(kern, rows), rows->n_rows);
    arena memory = {0};
    fs_take_table(&memory, kern, panel, rows->n_logits);
    return taken_bytes(&memory);
}

void fs_columns_product(const kernels *kern, double *sums, double *totals, const fs_rows *rows,
                        const void *factors, ptrdiff_t panel, void *scratch, int n_threads) {
    const ptrdiff_t panel_rows = rows->columns->panel_rows, first = panel * panel_rows;
    const ptrdiff_t n_rows = min_size(panel_rows, rows->n_rows - first);
    const ptrdiff_t stride = fs_table_stride(rows->n_logits), size = kern->real_size;
    const ptrdiff_t row_bytes = rows->n_logits * size;
    csr_task task = {
        .kern = kern, .rows = rows, .residuals = scratch, .first = first, .n_rows = n_rows};
    column_task columns = {&task, sums, totals, NULL, panel, COLUMN_PARTS};
    memset(at(scratch, n_rows * stride, size), 0, (size_t)(TABLE_ROOM * size));
    for (ptrdiff_t i = 0; i < n_rows; ++i) {
        char *row = at(scratch, i * stride, size);
        memcpy(row, at(factors, i, row_bytes), (size_t)row_bytes);
        memset(row + row_bytes, 0, (size_t)(stride * size - row_bytes));
    }
    fs_for_parts(column_part, &columns, 1 + columns.n_parts, n_threads,
                 dense_products(rows, (double)fs_pass_work(rows, n_rows)));
}

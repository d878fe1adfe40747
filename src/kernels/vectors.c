/* The solvers' vectors, cut into ranges of elements or of columns; sums of the ranges in order. */
#include "arena.h"

/* Elements of a range, or about as many in the columns of one (256 KB). */
enum { RANGE = 1 << 15, LEAST_COLUMNS = 64 };

/* Ranges whose sums are on the stack. */
enum { MOST_RANGES = 512 };

/* Numbers from which on threads share them, as a call is short; and what one costs, as it is read
 * from memory, in multiply-adds of a pass. */
enum { LEAST_SHARED = 1 << 20, NUMBER_PRODUCTS = 16 };

static int threads_for(ptrdiff_t n, int n_threads) { return n < LEAST_SHARED ? 1 : n_threads; }

static double sum_in_order(const double *sums, ptrdiff_t n, ptrdiff_t stride) {
    double total = 0;
    for (ptrdiff_t i = 0; i < n; ++i) total += sums[i * stride];
    return total;
}

typedef struct {
    const fs_vectors *vectors;
    double *out;
    const double *y, *x, *with;
    double scale;
    ptrdiff_t n, n_parts;
    double sums[MOST_RANGES];
} line_task;

static void line_part(void *task_, ptrdiff_t part, int thread) {
    line_task *t = task_;
    const ptrdiff_t begin = part_begin(t->n, t->n_parts, part);
    const ptrdiff_t n = part_begin(t->n, t->n_parts, part + 1) - begin;
    (void)thread;
    if (t->out)
        t->sums[part] = t->vectors->add_scaled(t->out + begin, t->y + begin, t->scale, t->x + begin,
                                               t->with ? t->with + begin : NULL, n);
    else
        t->sums[part] = t->vectors->dot(t->y + begin, t->x + begin, n);
}

static double along_line(line_task *task, int n_threads) {
    task->n_parts = min_size(MOST_RANGES, max_size(1, task->n / RANGE));
    fs_for_parts(line_part, task, task->n_parts, threads_for(task->n, n_threads),
                 (double)task->n * (double)NUMBER_PRODUCTS);
    return sum_in_order(task->sums, task->n_parts, 1);
}

double fs_dot(const kernels *kern, const double *a, const double *b, ptrdiff_t n, int n_threads) {
    line_task task = {.vectors = &kern->vectors, .y = a, .x = b, .n = n};
    return along_line(&task, n_threads);
}

double fs_add_scaled(const kernels *kern, double *out, const double *y, double scale,
                     const double *x, const double *with, ptrdiff_t n, int n_threads) {
    line_task task = {&kern->vectors, out, y, x, with, scale, n, 0, {0}};
    return along_line(&task, n_threads);
}

/* ---- matrices (n_logits, n_features), by columns ---- */

typedef struct {
    const fs_vectors *vectors;
    void *out;
    double *sums;   /* n_sums for each range */
    const void *of; /* the inputs */
    ptrdiff_t n_logits, n_features, columns, n_sums;
} column_task;

static ptrdiff_t columns_of(ptrdiff_t n_logits) {
    return max_size(LEAST_COLUMNS, RANGE / max_size(1, n_logits) / LEAST_COLUMNS * LEAST_COLUMNS);
}

static ptrdiff_t ranges_of(ptrdiff_t n_logits, ptrdiff_t n_features) {
    return max_size(1, ceil_div(n_features, columns_of(n_logits)));
}

ptrdiff_t fs_column_scratch(ptrdiff_t n_logits, ptrdiff_t n_features) {
    arena memory = {0};
    take(&memory, (double)ranges_of(n_logits, n_features) * (double)(n_logits + FS_N_DOTS) *
                      (double)sizeof(double));
    return taken_bytes(&memory);
}

static void by_columns(part_body body, column_task *task, double *totals, int n_threads) {
    const ptrdiff_t n_ranges = ranges_of(task->n_logits, task->n_features);
    task->columns = columns_of(task->n_logits);
    const ptrdiff_t n = task->n_logits * task->n_features;
    fs_for_parts(body, task, n_ranges, threads_for(n, n_threads),
                 (double)n * (double)NUMBER_PRODUCTS);
    for (ptrdiff_t i = 0; i < task->n_sums; ++i)
        totals[i] = sum_in_order(task->sums + i, n_ranges, task->n_sums);
}

/* operation(out, sums, of, begin, end) of fs_vectors for a range of columns. */
#define RANGE_OF_COLUMNS(operation)                                                   \
    static void operation##_part(void *task_, ptrdiff_t part, int thread) {           \
        const column_task *t = task_;                                                 \
        const ptrdiff_t begin = part * t->columns;                                    \
        const ptrdiff_t end = min_size(begin + t->columns, t->n_features);            \
        (void)thread;                                                                 \
        t->vectors->operation(t->out, t->sums + part * t->n_sums, t->of, begin, end); \
    }

RANGE_OF_COLUMNS(round_weights)

void fs_round_weights(const kernels *kern, void *weights, double *along, const fs_rounding *of,
                      void *scratch, int n_threads) {
    column_task task = {.vectors = &kern->vectors,
                        .out = weights,
                        .sums = scratch,
                        .of = of,
                        .n_logits = of->n_logits,
                        .n_features = of->n_features,
                        .n_sums = of->n_logits};
    by_columns(round_weights_part, &task, along, n_threads);
}

RANGE_OF_COLUMNS(assemble_gradient)

void fs_assemble_gradient(const kernels *kern, double *gradient, double *dots,
                          const fs_gradient_terms *of, void *scratch, int n_threads) {
    column_task task = {.vectors = &kern->vectors,
                        .out = gradient,
                        .sums = scratch,
                        .of = of,
                        .n_logits = of->n_logits,
                        .n_features = of->n_features,
                        .n_sums = FS_N_DOTS + of->n_logits};
    by_columns(assemble_gradient_part, &task, dots, n_threads);
}

RANGE_OF_COLUMNS(within_product)

void fs_within_product(const kernels *kern, double *result, double *dots, const fs_within *of,
                       void *scratch, int n_threads) {
    column_task task = {.vectors = &kern->vectors,
                        .out = result,
                        .sums = scratch,
                        .of = of,
                        .n_logits = of->n_logits,
                        .n_features = of->n_features,
                        .n_sums = of->n_logits};
    by_columns(within_product_part, &task, dots, n_threads);
}

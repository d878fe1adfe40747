/* The factor of a block, by the calling thread alone: others have other blocks. And the solve with
 * a block-diagonal matrix: a part for each logit, then for ranges of columns, from which what all
 * logits have in common is taken. */
#include <math.h>

#include "arena.h"

/* Columns of a range, and numbers of the factors from which on threads share a solve. */
enum { COLUMNS = 256, LEAST_SHARED = 1 << 17 };

/* Multiply-adds that a number of a factor counts, as it is read from memory. */
enum { NUMBER_PRODUCTS = 8 };

int fs_factor_block(const kernels *kern, void *factor, const void *rows, ptrdiff_t order,
                    ptrdiff_t n_columns) {
    return kern->factor_block(factor, rows, order, n_columns);
}

typedef struct {
    const kernels *kern;
    double *result;
    const double *gradient;
    const fs_block_diagonal *of;
    ptrdiff_t order; /* the largest of all factors, or n_columns */
    ptrdiff_t bytes; /* of a thread's two vectors */
    char *vectors;
} solve_task;

static void take_vectors(solve_task *t, arena *memory, int n_threads) {
    t->order = t->of->n_columns;
    for (ptrdiff_t k = 0; k < t->of->n_logits; ++k)
        t->order = max_size(t->order, t->of->blocks[k].order);
    const double bytes = ceil((double)t->order * (double)t->kern->real_size / 64) * 64;
    t->vectors = take(memory, n_threads * 2 * bytes);
    t->bytes = memory->memory ? 2 * (ptrdiff_t)bytes : 0;
}

/* Where number j of logit k lies: the weights of all logits come first, then their intercepts. */
static inline ptrdiff_t place_of(const fs_block_diagonal *of, ptrdiff_t k, ptrdiff_t j) {
    return j < of->n_features ? k * of->n_features + j : of->n_logits * of->n_features + k;
}

/* Float holds no gradient of 1e-40: vectors are solved for at a size of 1. */
static double size_of(const fs_block_diagonal *of, const double *gradient, ptrdiff_t k) {
    const double *roots = of->roots + k * of->n_columns;
    double size = 0;
    for (ptrdiff_t j = 0; j < of->n_columns; ++j) {
        const double x = fabs(gradient[place_of(of, k, j)] * roots[j]);
        size = x > size ? x : size;
    }
    return size > 0 && size < HUGE_VAL ? size : 1;
}

#define SOLVE_LOGIT(type)                                                     \
    do {                                                                      \
        type *v = (type *)memory;                                             \
        for (ptrdiff_t j = 0; j < n; ++j)                                     \
            v[j] = (type)(t->gradient[place_of(of, k, j)] * roots[j] / size); \
        t->kern->solve_block(v, memory + t->bytes / 2, of->blocks + k, n);    \
        for (ptrdiff_t j = 0; j < n; ++j)                                     \
            t->result[place_of(of, k, j)] = (double)v[j] * roots[j] * size;   \
    } while (0)

static void solve_logit(void *task_, ptrdiff_t k, int thread) {
    const solve_task *t = task_;
    const fs_block_diagonal *of = t->of;
    const ptrdiff_t n = of->n_columns;
    const double *roots = of->roots + k * n, size = size_of(of, t->gradient, k);
    char *memory = t->vectors + thread * t->bytes;
    if (t->kern->real_size == 4)
        SOLVE_LOGIT(float);
    else
        SOLVE_LOGIT(double);
}

static void center_columns(void *task_, ptrdiff_t part, int thread) {
    const solve_task *t = task_;
    const fs_block_diagonal *of = t->of;
    const ptrdiff_t begin = part * COLUMNS, end = min_size(begin + COLUMNS, of->n_columns);
    double means[COLUMNS] = {0};
    (void)thread;
    for (ptrdiff_t k = 0; k < of->n_logits; ++k)
        for (ptrdiff_t j = begin; j < end; ++j) means[j - begin] += t->result[place_of(of, k, j)];
    for (ptrdiff_t j = begin; j < end; ++j) means[j - begin] /= (double)of->n_logits;
    for (ptrdiff_t k = 0; k < of->n_logits; ++k)
        for (ptrdiff_t j = begin; j < end; ++j) t->result[place_of(of, k, j)] -= means[j - begin];
}

ptrdiff_t fs_blocks_scratch(const kernels *kern, const fs_block_diagonal *of, int n_threads) {
    arena memory = {0};
    solve_task task = {.kern = kern, .of = of};
    take_vectors(&task, &memory, n_threads);
    return taken_bytes(&memory);
}

void fs_solve_blocks(const kernels *kern, double *result, const double *gradient,
                     const fs_block_diagonal *of, void *scratch, int n_threads) {
    arena memory = arena_in(scratch);
    solve_task task = {.kern = kern, .result = result, .gradient = gradient, .of = of};
    double numbers = 0;
    take_vectors(&task, &memory, n_threads);
    for (ptrdiff_t k = 0; k < of->n_logits; ++k) {
        const double order = (double)of->blocks[k].order;
        numbers += order * (of->blocks[k].rows ? order + (double)of->n_columns : order);
    }
    if (numbers < (double)LEAST_SHARED) n_threads = 1;
    fs_for_parts(solve_logit, &task, of->n_logits, n_threads, numbers * (double)NUMBER_PRODUCTS);
    if (of->n_logits > 1)
        fs_for_parts(center_columns, &task, ceil_div(of->n_columns, COLUMNS), n_threads,
                     (double)of->n_logits * (double)of->n_columns * (double)NUMBER_PRODUCTS);
}

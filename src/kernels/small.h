/* What newton.c and newton_model.c share: a small problem, and where its arrays are. */
#ifndef FASTSOFTMAX_SMALL_H
#define FASTSOFTMAX_SMALL_H

#include "kernels.h"
#include "parallel.h"

/* Rows of a block for the Hessian, as in hessian.c, and the pairs that a model keeps. */
enum { BLOCK_ROWS = 128, MOST_PAIRS = 6 };

/* The inverse of a Hessian by its Cholesky factor, and pairs of steps and changes of the gradient
 * since then, the latest one at `newest`. */
typedef struct {
    double *hessian, *steps, *changes;  /* factor (size, size); pairs (MOST_PAIRS, size) */
    double curvature[MOST_PAIRS];       /* the products of both of a pair */
    int n_pairs, newest, is_known, age; /* age: steps since the Hessian */
    /* of the latest direction, and of that by the Hessian alone, squared: minus the product with
     * the gradient */
    double decrement, first_decrement; /* 0 before the first one */
    double steps_for;                  /* steps that take as long as a Hessian */
} fs_newton_model;

typedef struct {
    const kernels *kern;
    const fs_small *problem;
    const fs_rows *rows;
    ptrdiff_t n_columns, size;
    double *gradient, *before, *step, *base, *mixture;       /* of the coefficients */
    double *targets, *probs, *rest, *logits, *along, *right; /* of the rows */
    double *z, *shares, *sums; /* blocks of rows in panels, scratch for one, sums of the Hessian */
    double *placed;            /* coefficients by place */
    void *packed;
    fs_panels panels;
    ptrdiff_t n_places;
    double base_square;
    fs_newton_model model;
} small_task;

/* Numbers of rows in panels; each block has a row more. */
static inline ptrdiff_t panel_numbers(const small_task *t, ptrdiff_t n_rows) {
    return (n_rows + ceil_div(n_rows, BLOCK_ROWS)) * t->n_places;
}

/* Sums of all pairs of logits. */
static inline double n_sums(const small_task *t) {
    const double n_logits = (double)t->rows->n_logits, n_places = (double)t->n_places;
    return n_logits * (n_logits + 1) / 2 * n_places * n_places;
}

/* The logits' first row in matrices of classes. */
static inline ptrdiff_t n_skipped(const small_task *t) {
    return (t->rows->n_classes - t->rows->n_logits) * t->rows->n_rows;
}

/* The block of rows that begins with `first`. */
static inline fs_curved_rows block_of(const small_task *t, ptrdiff_t first) {
    const ptrdiff_t n = t->rows->n_rows, skipped = n_skipped(t);
    return (fs_curved_rows){t->z + panel_numbers(t, first),
                            t->probs + skipped + first,
                            t->rest + skipped + first,
                            (const double *)t->rows->row_weights + first,
                            n,
                            min_size(BLOCK_ROWS, n - first),
                            t->n_columns,
                            t->rows->n_logits};
}

/* Columns that are penalised: all but that of the intercept. */
static inline ptrdiff_t n_penalised(const small_task *t) { return t->rows->n_features; }

static inline double along(const small_task *t, const double *a, const double *b, ptrdiff_t n) {
    return t->kern->vectors.dot(a, b, n);
}

/* newton_model.c: direction = step of the task, minus the model's inverse Hessian times gradient;
 * whether there is one. The Hessian is computed again where that is quicker than to go on without.
 * wanted is the decrement that ends the fit. */
int fs_newton_direction(small_task *t, double wanted);

/* The same with a Hessian of here. */
int fs_newton_renew(small_task *t);

/* Learn from a step of so many times `step`, with the gradients before and after it. */
void fs_newton_learn(small_task *t, double length);

#endif

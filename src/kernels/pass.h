/* A pass over the rows of a problem, for pass.c and sgd.c. */
#ifndef FASTSOFTMAX_PASS_H
#define FASTSOFTMAX_PASS_H

#include "arena.h"

/* Most parts that a pass is cut into, most memory for their gradients, fewest rows of a block, and
 * coefficients that one thread adds up at a time. */
#define PARTS_BYTES ((double)(16 << 20))
enum { MOST_PARTS = 64, LEAST_ROWS = 16, SUM_RANGE = 4096 };

typedef struct {
    ptrdiff_t n_blocks, block_rows;
    ptrdiff_t n_parts;        /* parts of the rows; with panels, of one panel */
    ptrdiff_t n_params;       /* weights and bias */
    ptrdiff_t partial_stride; /* reals from one partial gradient to the next */
    ptrdiff_t residual_size;  /* reals in the residuals of one block */
    double pack_bytes;        /* see pack.h */
    ptrdiff_t panel_blocks;   /* 0: gradient by parts */
} pass_plan;

typedef struct {
    const kernels *kern;
    const fs_rows *rows;
    const void *weights, *bias;
    pass_plan plan;
    fs_sums *sums;   /* one for each part */
    char *residuals; /* one block of them for each thread; with panels for each block */
    char *packed;    /* as many blocks of rows, of pack_bytes each, where they have to be packed */
    char *partials;  /* gradients in real; NULL: the loss alone */
    double *grad_weights, *grad_bias;
    const int64_t *order;      /* the rows in use, NULL: all in order */
    ptrdiff_t first, n_rows;   /* the range of rows (or of order) to pass over */
    ptrdiff_t round, n_rounds; /* of every part, its share of the blocks in the round */
    ptrdiff_t n_threads;       /* threads take parts in turn: how far to the next of one */
    ptrdiff_t to_next,
        end_next;   /* stochastic steps: from a batch to the next, and where that ends */
    double to_come; /* the same: multiply-adds of the batches that follow */
} pass_task;

pass_plan fs_plan_pass(const kernels *kern, const fs_rows *rows);

/* Takes the memory of a pass: partial gradients, sums, and residuals and rows of n_slots blocks. */
void fs_take_pass(pass_task *task, arena *memory, ptrdiff_t n_partials, ptrdiff_t n_slots);

/* The parts of the rows, the gradient of each added up in a place of its own; in rounds, each of
 * which goes on where the last one ended. Returns whether it was interrupted between them. */
int fs_gradient_parts(pass_task *task, int n_threads);

#endif

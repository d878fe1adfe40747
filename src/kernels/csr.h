/* Rows in CSR form, for pass.c, logit_rows.c and csr_sgd.c. */
#ifndef FASTSOFTMAX_CSR_H
#define FASTSOFTMAX_CSR_H

#include "arena.h"

/* Rows whose logits are computed together. */
enum { CSR_BLOCK_ROWS = 64 };

/* Distance of the rows of a table with n_logits columns: whole quarters of a cache line for float
 * (rows of 20 classes then touch two lines, as they would with more). */
ptrdiff_t fs_table_stride(ptrdiff_t n_logits);

/* Memory for such a table with the room behind it that may be read; and all of it 0. */
void *fs_take_table(arena *memory, const kernels *kern, ptrdiff_t n_rows, ptrdiff_t n_logits);
void fs_clear_table(const kernels *kern, void *table, ptrdiff_t n_rows, ptrdiff_t n_logits);

/* table[j * stride + k] = weights[k * n_features + j], and back. */
void fs_weights_to_table(const kernels *kern, void *table, const void *weights,
                         ptrdiff_t n_features, ptrdiff_t n_logits, int n_threads);
void fs_table_to_weights(const kernels *kern, void *weights, const void *table,
                         ptrdiff_t n_features, ptrdiff_t n_logits, int n_threads);

/* Weights as affine_rows of fs_sparse takes them: written to a table, or as they are, where the
 * rows are few or dense and fs_take_csr_weights gives none. */
typedef struct {
    const void *weights;
    ptrdiff_t weights_stride, class_stride;
} csr_weights;

void *fs_take_csr_weights(arena *memory, const kernels *kern, const fs_rows *rows);
csr_weights fs_csr_weights(const kernels *kern, const fs_rows *rows, const void *weights,
                           void *table, int n_threads);

/* The logits of a block of rows, dense or CSR; pack is fs_pack_bytes() for the block. */
void fs_affine_block(const kernels *kern, void *logits, const fs_rows *rows,
                     const csr_weights *weights, const void *bias, ptrdiff_t logits_stride,
                     void *pack, fs_block block);

/* Residuals, by row, and sums of a block of rows; table is the weights. */
typedef struct {
    const kernels *kern;
    const fs_rows *rows;
    const void *bias;
    void *table;
    char *residuals; /* (rows of the panel or batch, table stride) */
    char *logits;    /* n_classes x CSR_BLOCK_ROWS reals for each thread */
    fs_sums *sums;   /* for each block */
    const int64_t *order;
    ptrdiff_t first, n_rows; /* the panel, or the batch in order */
} csr_task;

/* Takes the memory for the residuals of n_rows rows. */
void fs_take_residuals(csr_task *task, arena *memory, ptrdiff_t n_rows, int n_threads);

/* Returns whether it was interrupted before the end. */
int fs_csr_residuals(csr_task *task, int n_threads);

ptrdiff_t fs_csr_loss_grad_scratch(const kernels *kern, const fs_rows *rows, int with_grad,
                                   int n_threads);
fs_sums fs_csr_loss_grad(const kernels *kern, double *grad_weights, double *grad_bias,
                         const fs_rows *rows, const void *weights, const void *bias, void *scratch,
                         int n_threads);

ptrdiff_t fs_csr_sgd_scratch(const kernels *kern, const fs_rows *rows, ptrdiff_t batch_size,
                             int n_threads);
fs_sums fs_csr_sgd_steps(const kernels *kern, void *params, void *velocity, const fs_rows *rows,
                         fs_order order, const fs_descent *how, void *scratch, int n_threads);

#endif

/* Rows in CSR form, for pass.c, logit_rows.c and csr_sgd.c. */
#ifndef FASTSOFTMAX_CSR_H
#define FASTSOFTMAX_CSR_H

#include "parallel.h"

ptrdiff_t fs_csr_entries(const fs_rows *rows);

/* Rows whose logits are computed together. */
enum { CSR_BLOCK_ROWS = 64 };

/* Distance of the rows of a table with n_logits columns: whole quarters of a cache line for float
 * (rows of 20 classes then touch two lines, as they would with more). */
ptrdiff_t fs_table_stride(ptrdiff_t n_logits);

/* Bytes of such a table with the room behind it that may be read, a multiple of 64. */
double fs_table_bytes(const kernels *kern, double n_rows, ptrdiff_t n_logits);

/* table[j * stride + k] = weights[k * n_features + j], and back. */
void fs_weights_to_table(const kernels *kern, void *table, const void *weights,
                         ptrdiff_t n_features, ptrdiff_t n_logits, int n_threads);
void fs_table_to_weights(const kernels *kern, void *weights, const void *table,
                         ptrdiff_t n_features, ptrdiff_t n_logits, int n_threads);

/* Weights as affine_rows of fs_sparse takes them: a table in scratch, of fs_csr_weights_bytes(), or
 * for few rows as they are. */
typedef struct {
    const void *weights;
    ptrdiff_t weights_stride, class_stride;
} csr_weights;

double fs_csr_weights_bytes(const kernels *kern, const fs_rows *rows);
csr_weights fs_csr_weights(const kernels *kern, const fs_rows *rows, const void *weights,
                           void *scratch, int n_threads);

/* The logits of a block of rows, dense or CSR; pack is fs_pack_bytes() for the block. */
void fs_affine_block(const kernels *kern, void *logits, const fs_rows *rows,
                     const csr_weights *weights, const void *bias, ptrdiff_t logits_stride,
                     void *pack, fs_block block);

/* Residuals, by row, and sums of a block of rows; table is the weights. */
typedef struct {
    const kernels *kern;
    const fs_rows *rows;
    const void *table, *bias;
    char *residuals; /* (rows of the panel or batch, table stride) */
    char *logits;    /* n_classes x CSR_BLOCK_ROWS reals for each thread */
    fs_sums *sums;   /* for each block */
    const int64_t *order;
    ptrdiff_t first, n_rows; /* the panel, or the batch in order */
} csr_task;

/* Returns whether it was interrupted before the end. */
int fs_csr_residuals(csr_task *task, int n_threads);

ptrdiff_t fs_csr_loss_grad_scratch(const kernels *kern, const fs_rows *rows, int n_threads);
fs_sums fs_csr_loss_grad(const kernels *kern, double *grad_weights, double *grad_bias,
                         const fs_rows *rows, const void *weights, const void *bias, void *scratch,
                         int n_threads);

ptrdiff_t fs_csr_sgd_scratch(const kernels *kern, const fs_rows *rows, ptrdiff_t batch_size,
                             int n_threads);
fs_sums fs_csr_sgd_steps(const kernels *kern, void *params, void *velocity, const fs_rows *rows,
                         const int64_t *order, ptrdiff_t n_order, ptrdiff_t batch_size, fs_sgd sgd,
                         fs_scaling scaling, void *scratch, int n_threads);

#endif

/* What rows in either form cost, and sums over them: what the passes stand on. */
#ifndef FASTSOFTMAX_ROWS_H
#define FASTSOFTMAX_ROWS_H

#include "kernels.h"

/* Entries of rows in CSR form. */
ptrdiff_t fs_csr_entries(const fs_rows *rows);

/* Multiply-adds of the two halves of a pass over n_rows of the rows, bounded so that sums of them
 * cannot overflow. */
ptrdiff_t fs_pass_work(const fs_rows *rows, ptrdiff_t n_rows);

/* The sums of n parts, in order. */
fs_sums fs_add_sums(const fs_sums *sums, ptrdiff_t n);

#endif

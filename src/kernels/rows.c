/* What rows in either form cost, and sums over them. */
#include "rows.h"

ptrdiff_t fs_csr_entries(const fs_rows *rows) {
    if (rows->wide_index) {
        const int64_t *indptr = rows->indptr;
        return (ptrdiff_t)(indptr[rows->n_rows] - indptr[0]);
    }
    const int32_t *indptr = rows->indptr;
    return (ptrdiff_t)indptr[rows->n_rows] - (ptrdiff_t)indptr[0];
}

ptrdiff_t fs_pass_work(const fs_rows *rows, ptrdiff_t n_rows) {
    const double n = (double)(rows->n_rows > 1 ? rows->n_rows : 1);
    const double n_logits = (double)(rows->n_logits > 1 ? rows->n_logits : 1);
    const double row_products =
        rows->indptr ? (double)fs_csr_entries(rows) / n : (double)rows->n_features;
    const double work = 2.0 * (double)n_rows * (row_products + 8) * n_logits;
    const double most = (double)(PTRDIFF_MAX / 2);
    return (ptrdiff_t)(work < most ? work : most / 2);
}

fs_sums fs_add_sums(const fs_sums *sums, ptrdiff_t n) {
    fs_sums total = {0, 0};
    for (ptrdiff_t part = 0; part < n; ++part) {
        total.loss += sums[part].loss;
        total.correct += sums[part].correct;
    }
    return total;
}

/* The operations that read features, for one type of their elements. X_NAME is that type's name,
 * x_t the type and X_LOAD the word that loads VEC_WIDTH of them as real; table.h includes this file
 * once for each type. What the type decides is the load alone. */

#define X_JOIN_(name, type) name##_##type
#define X_JOIN(name, type) X_JOIN_(name, type)
#define x_load X_LOAD
#define x_row X_JOIN(x_row, X_NAME)
#define x_load_tail X_JOIN(x_load_tail, X_NAME)
#define dot_tile X_JOIN(dot_tile, X_NAME)
#define dot_tile_of X_JOIN(dot_tile_of, X_NAME)
#define tile_rows X_JOIN(tile_rows, X_NAME)
#define affine_rows X_JOIN(affine_rows, X_NAME)
#define block_logits X_JOIN(block_logits, X_NAME)
#define residual_block X_JOIN(residual_block, X_NAME)
#define row_pointers X_JOIN(row_pointers, X_NAME)
#define grad_tile X_JOIN(grad_tile, X_NAME)
#define grad_tile_of X_JOIN(grad_tile_of, X_NAME)
#define grad_block X_JOIN(grad_block, X_NAME)
#define dot_rows X_JOIN(dot_rows, X_NAME)
#define one_logit_rows X_JOIN(one_logit_rows, X_NAME)
#define one_grad_tile X_JOIN(one_grad_tile, X_NAME)
#define one_grad_rows X_JOIN(one_grad_rows, X_NAME)
#define one_logit_block X_JOIN(one_logit_block, X_NAME)
#define panel_rows X_JOIN(panel_rows, X_NAME)
#define moment_rows X_JOIN(moment_rows, X_NAME)

/* Features of the i-th row of a block. */
FORCE_INLINE const x_t *x_row(const fs_rows *rows, fs_block block, ptrdiff_t i) {
    if (block.packed) return (const x_t *)block.packed + i * rows->n_features;
    return (const x_t *)rows->x + row_of(block, i) * rows->x_stride;
}

/* The first n elements, 0 <= n <= VEC_WIDTH, and zeros. */
FORCE_INLINE vec x_load_tail(const x_t *p, ptrdiff_t n) {
#ifdef X_LOAD_TAIL
    return X_LOAD_TAIL(p, n, 0);
#else
    x_t elements[VEC_WIDTH] = {0};
    for (ptrdiff_t l = 0; l < n; ++l) elements[l] = p[l];
    return x_load(elements);
#endif
}

#include "affine_rows.h"

#include "residual_block.h"

#include "grad_block.h"

#include "one_logit.h"

#include "panel_rows.h"

#include "moment_rows.h"

#undef X_NAME
#undef X_LOAD
#undef X_LOAD_TAIL
#undef x_t
#undef x_load
#undef x_row
#undef x_load_tail
#undef dot_tile
#undef dot_tile_of
#undef tile_rows
#undef affine_rows
#undef block_logits
#undef residual_block
#undef row_pointers
#undef grad_tile
#undef grad_tile_of
#undef grad_block
#undef dot_rows
#undef one_logit_rows
#undef one_grad_tile
#undef one_grad_rows
#undef one_logit_block
#undef panel_rows
#undef moment_rows
#undef X_JOIN
#undef X_JOIN_

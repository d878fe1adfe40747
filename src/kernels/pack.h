/* Blocks of rows whose elements are not adjacent, such as those of a matrix in Fortran order:
 * copied row after row into scratch, block by block, so X as a whole never is. */
#ifndef FASTSOFTMAX_PACK_H
#define FASTSOFTMAX_PACK_H

#include "parallel.h"

/* Bytes of an element, by fs_x_type. */
extern const ptrdiff_t fs_x_size[FS_N_X_TYPES];

/* Bytes of a block of rows, a multiple of 64; 0 where rows can be read as they lie. In double,
 * where they cannot overflow. */
double fs_pack_bytes(const fs_rows *rows, ptrdiff_t block_rows);

/* The same block, packed into scratch if fs_pack_bytes is not 0. */
fs_block fs_pack(const fs_rows *rows, fs_block block, void *scratch);

#endif

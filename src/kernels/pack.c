/* Copies of blocks of rows whose elements are not adjacent. */
#include "pack.h"

#include <math.h>
#include <string.h>

/* Bytes of an element, by fs_x_type. */
const ptrdiff_t fs_x_size[FS_N_X_TYPES] = {4, 8, 1, 1, 2};

/* Features that are copied together: of each row they are adjacent where they go, of a matrix in
 * Fortran order the rows are where they come from. */
enum { PACK_FEATURES = 8 };

double fs_pack_bytes(const fs_rows *rows, ptrdiff_t block_rows) {
    if (rows->indptr || rows->x_feature_stride == 1 || rows->n_features == 0) return 0;
    const double bytes =
        (double)block_rows * (double)rows->n_features * (double)fs_x_size[rows->x_type];
    return ceil(bytes / 64) * 64;
}

/* By memcpy: elements are read as they are written, whatever their type is. */
#define PACK(size)                                                                             \
    for (ptrdiff_t j0 = 0; j0 < d; j0 += PACK_FEATURES) {                                      \
        const ptrdiff_t n = min_size(PACK_FEATURES, d - j0), apart = rows->x_feature_stride;   \
        char *out = at(scratch, j0, size);                                                     \
        for (ptrdiff_t i = 0; i < block.n_rows; ++i, out += d * (size)) {                      \
            const char *x = at(rows->x, row_at(block, i) * rows->x_stride + j0 * apart, size); \
            if (n == PACK_FEATURES) {                                                          \
                char element[PACK_FEATURES * (size)];                                          \
                for (ptrdiff_t j = 0; j < PACK_FEATURES; ++j)                                  \
                    memcpy(element + j * (size), x + j * apart * (size), size);                \
                memcpy(out, element, sizeof element);                                          \
            } else {                                                                           \
                for (ptrdiff_t j = 0; j < n; ++j)                                              \
                    memcpy(out + j * (size), x + j * apart * (size), size);                    \
            }                                                                                  \
        }                                                                                      \
    }

static ptrdiff_t row_at(fs_block block, ptrdiff_t i) {
    return block.row_index ? (ptrdiff_t)block.row_index[block.first + i] : block.first + i;
}

fs_block fs_pack(const fs_rows *rows, fs_block block, void *scratch) {
    const ptrdiff_t d = rows->n_features;
    if (rows->indptr || rows->x_feature_stride == 1) return block;
    switch (fs_x_size[rows->x_type]) {
        case 1: PACK(1) break;
        case 2: PACK(2) break;
        case 4: PACK(4) break;
        default: PACK(8) break;
    }
    block.packed = scratch;
    return block;
}

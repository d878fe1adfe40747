/* Copies of blocks of rows whose elements are not adjacent. */
#include "pack.h"

/* Bytes of an element, by fs_x_type. */
const ptrdiff_t fs_x_size[FS_N_X_TYPES] = {4, 8, 1, 1, 2};

/* Features that are copied together: of each row they are adjacent where they go, of a matrix in
 * Fortran order the rows are where they come from. */
enum { PACK_FEATURES = 8 };

ptrdiff_t fs_pack_bytes(const fs_rows *rows, ptrdiff_t block_rows) {
    if (rows->indptr || rows->x_feature_stride == 1 || rows->n_features == 0) return 0;
    const double bytes =
        (double)block_rows * (double)rows->n_features * (double)fs_x_size[rows->x_type];
    return bytes < 4e18 ? ((ptrdiff_t)bytes + 63) / 64 * 64 : PTRDIFF_MAX / 64 * 64;
}

#define PACK(type)                                                                          \
    for (ptrdiff_t j0 = 0; j0 < d; j0 += PACK_FEATURES) {                                   \
        const ptrdiff_t n = min_size(PACK_FEATURES, d - j0);                                \
        for (ptrdiff_t i = 0; i < block.n_rows; ++i) {                                      \
            const ptrdiff_t row =                                                           \
                block.row_index ? (ptrdiff_t)block.row_index[block.first + i] : block.first + i; \
            const type *x = (const type *)rows->x + row * rows->x_stride +                  \
                            j0 * rows->x_feature_stride;                                    \
            type *out = (type *)scratch + i * d + j0;                                       \
            if (n == PACK_FEATURES)                                                         \
                for (ptrdiff_t j = 0; j < PACK_FEATURES; ++j)                               \
                    out[j] = x[j * rows->x_feature_stride];                                 \
            else                                                                            \
                for (ptrdiff_t j = 0; j < n; ++j) out[j] = x[j * rows->x_feature_stride];   \
        }                                                                                   \
    }

fs_block fs_pack(const fs_rows *rows, fs_block block, void *scratch) {
    const ptrdiff_t d = rows->n_features;
    if (rows->indptr || rows->x_feature_stride == 1) return block;
    switch (fs_x_size[rows->x_type]) {
        case 1: PACK(uint8_t) break;
        case 2: PACK(uint16_t) break;
        case 4: PACK(uint32_t) break;
        default: PACK(uint64_t) break;
    }
    block.packed = scratch;
    return block;
}

/* What the operations share. */
#include <math.h>
#include <string.h>

#include "../kernels.h"

/* Loops whose bounds are the compile-time sizes of a register tile must be unrolled for the sums to
 * stay in registers, so the functions around them are inlined into their callers' constants. */
#if defined(_MSC_VER)
#define FORCE_INLINE static __forceinline
#define UNROLL
#define RESTRICT __restrict
#elif defined(__clang__)
#define FORCE_INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("clang loop unroll(full)")
#define RESTRICT __restrict__
#else
#define FORCE_INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 16")
#define RESTRICT __restrict__
#endif

/* Most rows in a block: what a kernel keeps for each row of one lives on its stack. */
enum { MAX_BLOCK_ROWS = 128 };

FORCE_INLINE ptrdiff_t min_size(ptrdiff_t a, ptrdiff_t b) { return a < b ? a : b; }

FORCE_INLINE ptrdiff_t row_of(fs_block block, ptrdiff_t i) {
    return block.row_index ? (ptrdiff_t)block.row_index[block.first + i] : block.first + i;
}

FORCE_INLINE const real *x_row(const fs_rows *rows, ptrdiff_t row) {
    return (const real *)rows->x + row * rows->x_stride;
}

FORCE_INLINE real v_sum_lanes(vec a) {
    real sums[4];
    v_sum4(sums, a, a, a, a);
    return sums[0];
}

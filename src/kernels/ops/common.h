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

/* Rows in a register tile of the forward product. */
enum { TILE_ROWS = 4 };

FORCE_INLINE ptrdiff_t min_size(ptrdiff_t a, ptrdiff_t b) { return a < b ? a : b; }

FORCE_INLINE ptrdiff_t row_of(fs_block block, ptrdiff_t i) {
    return block.row_index ? (ptrdiff_t)block.row_index[block.first + i] : block.first + i;
}

/* n things in the fewest parts of at most `most`, sizes as even as can be: where part p begins. */
FORCE_INLINE ptrdiff_t even_parts(ptrdiff_t n, ptrdiff_t most) { return (n + most - 1) / most; }
FORCE_INLINE ptrdiff_t even_part(ptrdiff_t n, ptrdiff_t n_parts, ptrdiff_t p) {
    return n / n_parts * p + min_size(p, n % n_parts);
}

/* Rows whose products with one tile of classes are computed before the next tile's: a tile of rows,
 * unless the weights would have to come from a shared cache for each (K = 1000: 1.9 times slower).
 */
static ptrdiff_t rows_at_a_time(const fs_rows *rows) {
    enum { NEAR_WEIGHTS = 1 << 18, NEAR_ROWS = 1 << 18 };
    const ptrdiff_t row_bytes = (rows->n_features + 1) * (ptrdiff_t)sizeof(real);
    if (rows->n_logits <= NEAR_WEIGHTS / row_bytes) return TILE_ROWS;
    const ptrdiff_t n_rows = NEAR_ROWS / row_bytes / TILE_ROWS * TILE_ROWS;
    return n_rows > TILE_ROWS ? n_rows : TILE_ROWS;
}

FORCE_INLINE real v_sum_lanes(vec a) {
    real sums[4];
    v_sum4(sums, a, a, a, a);
    return sums[0];
}

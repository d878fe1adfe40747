#include <stddef.h>

#if defined(__aarch64__) || defined(_M_ARM64)
#if defined(__GNUC__) && !defined(__clang__)
/* GCC's first scheduling pass puts all loads of a register tile before its sums, some of which then
 * live on the stack (GCC 12: 1 of 24 in the forward product, 4 of 24 in the gradient). */
#pragma GCC optimize("no-schedule-insns")
#endif
#define KERNELS fs_neon_f64
#include "../vec/neon_f64.h"

#include "../ops/table.h"
#else
typedef int fs_not_for_this_processor; /* an empty file is not standard C */
#endif

#include <stddef.h>

#if defined(__aarch64__) || defined(_M_ARM64)
#define KERNELS fs_neon_f32
#include "../vec/neon_f32.h"

#include "../ops/table.h"
#else
typedef int fs_not_for_this_processor; /* an empty file is not standard C */
#endif

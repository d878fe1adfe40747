#include <stddef.h>

#define KERNELS fs_base_f32
#include "../vec/base_f32.h"

#include "../ops/table.h"

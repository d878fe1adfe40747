#include <stddef.h>

#define KERNELS fs_base_f64
#include "../vec/base_f64.h"

#include "../ops/table.h"

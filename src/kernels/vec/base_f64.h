/* The words in plain C, double. */
#include <stdint.h>

#define REAL_IS_DOUBLE 1
typedef double real;
typedef int64_t integer;
typedef uint64_t unsigned_integer;
enum { VEC_WIDTH = 2, MANTISSA_BITS = 52, EXPONENT_BIAS = 1023 };
#define MANTISSA_MASK INT64_C(0xfffffffffffff)
#define ROUND_SHIFT 6755399441055744.0
#define LARGEST_SCALE 2044.0

#include "base_lanes.h"

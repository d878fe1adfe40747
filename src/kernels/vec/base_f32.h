/* The words in plain C, float. */
#include <stdint.h>

#define REAL_IS_DOUBLE 0
typedef float real;
typedef int32_t integer;
typedef uint32_t unsigned_integer;
enum { VEC_WIDTH = 4, MANTISSA_BITS = 23, EXPONENT_BIAS = 127, MANTISSA_MASK = 0x7fffff };
#define ROUND_SHIFT 12582912.0f
#define LARGEST_SCALE 252.0f

#include "base_lanes.h"

#include <stddef.h>

#if defined(__x86_64__) || defined(_M_X64)
#if defined(__clang__)
#include <immintrin.h>
#pragma clang attribute push(                                                    \
    __attribute__((target("avx512f,avx512dq,avx512bw,avx512vl,avx2,fma,f16c"))), \
    apply_to = function)
#elif defined(__GNUC__)
#pragma GCC target("avx512f,avx512dq,avx512bw,avx512vl,avx2,fma,f16c")
#endif
#define KERNELS fs_avx512_f32
#include "../vec/avx512_f32.h"

#include "../ops/table.h"
#if defined(__clang__)
#pragma clang attribute pop
#endif
#else
typedef int fs_not_for_this_processor; /* an empty file is not standard C */
#endif

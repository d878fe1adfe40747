/* What this build holds and this CPU and operating system can run. No state: the CPU is asked each
 * time, so callers keep the answer. (In a virtual machine that takes some microseconds: a fit of a
 * small table calls a hundred kernels, and took twice as long.) */
#include "kernels.h"

extern const kernels fs_base_f32, fs_base_f64;

#if defined(__x86_64__) || defined(_M_X64)
extern const kernels fs_avx2_f32, fs_avx2_f64, fs_avx512_f32, fs_avx512_f64;

#if defined(_MSC_VER) && !defined(__clang__)
#include <immintrin.h>
#include <intrin.h>

/* Bits of XCR0: the registers that the operating system saves. */
enum { SAVES_YMM = 0x06, SAVES_ZMM = 0xe6 };

static int cpu_has(int leaf7_bits, unsigned long long saves) {
    int info[4];
    __cpuid(info, 1);
    const int needed = (1 << 27) | (1 << 12) | (1 << 29); /* OSXSAVE, FMA, F16C */
    if ((info[2] & needed) != needed) return 0;
    if ((_xgetbv(0) & saves) != saves) return 0;
    __cpuidex(info, 7, 0);
    return (info[1] & leaf7_bits) == leaf7_bits;
}

static int has_avx2(void) { return cpu_has(1 << 5, SAVES_YMM); }

static int has_avx512(void) { /* F, DQ, BW, VL */
    return cpu_has((1 << 16) | (1 << 17) | (1 << 30) | (int)(1u << 31), SAVES_ZMM);
}
#else
#include <cpuid.h>

static int has_f16c(void) { /* not every compiler's __builtin_cpu_supports knows it */
    unsigned a, b, c, d;
    return __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C);
}

static int has_avx2(void) {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c();
}

static int has_avx512(void) {
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
}
#endif
#elif defined(__aarch64__) || defined(_M_ARM64)
extern const kernels fs_neon_f32, fs_neon_f64;
#endif

const kernels *fs_kernels(ptrdiff_t real_size, int i) {
    const int is_float = real_size == 4;
#if defined(__x86_64__) || defined(_M_X64)
    if (has_avx512() && i-- == 0) return is_float ? &fs_avx512_f32 : &fs_avx512_f64;
    if (has_avx2() && i-- == 0) return is_float ? &fs_avx2_f32 : &fs_avx2_f64;
#elif defined(__aarch64__) || defined(_M_ARM64)
    if (i-- == 0) return is_float ? &fs_neon_f32 : &fs_neon_f64;
#endif
    return i == 0 ? (is_float ? &fs_base_f32 : &fs_base_f64) : NULL;
}

/* The limits of a core: read, copy, multiply-add. floor.py compiles this for the machine that it
 * runs on, once for each number type (-DREAL=float or double), and calls it from one Python thread
 * for each core. */
#include <stddef.h>
#include <string.h>

#if defined(__AVX512F__)
#define VEC_BYTES 64
#elif defined(__AVX__)
#define VEC_BYTES 32
#else
#define VEC_BYTES 16
#endif

typedef REAL vec __attribute__((vector_size(VEC_BYTES)));
typedef long long words __attribute__((vector_size(VEC_BYTES)));

/* Independent sums: more than latency times throughput of a multiply-add on current CPUs (4 cycles,
 * 2 a cycle), and together with two operands at most the 16 registers of AVX2. */
enum { CHAINS = 12, STREAMS = 8 };

/* Runs n_rounds rounds of CHAINS vector multiply-adds; returns their number of flops. */
double multiply_adds(ptrdiff_t n_rounds, REAL factor, REAL term, REAL *sink) {
    vec sum[CHAINS], f, t, all;
    for (size_t i = 0; i < sizeof(vec) / sizeof(REAL); ++i) {
        f[i] = factor;
        t[i] = term;
    }
    for (int c = 0; c < CHAINS; ++c) sum[c] = t * (REAL)c;
    for (ptrdiff_t round = 0; round < n_rounds; ++round) {
#pragma GCC unroll 12
        for (int c = 0; c < CHAINS; ++c) sum[c] = sum[c] * f + t;
    }
    all = sum[0];
    for (int c = 1; c < CHAINS; ++c) all += sum[c];
    *sink = all[0];
    return 2.0 * CHAINS * (sizeof(vec) / sizeof(REAL)) * (double)n_rounds;
}

/* Reads n_bytes (a multiple of STREAMS * VEC_BYTES) n_times; memory is aligned to 64 bytes. */
long long read_memory(const void *memory, ptrdiff_t n_bytes, ptrdiff_t n_times) {
    const words *x = memory;
    const ptrdiff_t n = n_bytes / (ptrdiff_t)sizeof(words);
    words sum[STREAMS] = {{0}};
    for (ptrdiff_t time = 0; time < n_times; ++time) {
        for (ptrdiff_t i = 0; i < n; i += STREAMS) {
#pragma GCC unroll 8
            for (int s = 0; s < STREAMS; ++s) sum[s] ^= x[i + s];
        }
        __asm__ volatile("" ::: "memory"); /* read again, do not reuse */
    }
    for (int s = 1; s < STREAMS; ++s) sum[0] ^= sum[s];
    return sum[0][0];
}

/* Copies n_bytes n_times, as the C library does. */
void copy_memory(void *to, const void *from, ptrdiff_t n_bytes, ptrdiff_t n_times) {
    for (ptrdiff_t time = 0; time < n_times; ++time) {
        memcpy(to, from, (size_t)n_bytes);
        __asm__ volatile("" ::: "memory");
    }
}

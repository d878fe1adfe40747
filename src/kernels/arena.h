/* Scratch memory, taken from one block array after array. A function that needs some has one
 * function that takes it, which is called twice: with an arena without memory it measures, and with
 * that of the caller it lays out. So no size is stated in two places. */
#ifndef FASTSOFTMAX_ARENA_H
#define FASTSOFTMAX_ARENA_H

#include <math.h>

#include "parallel.h"

typedef struct {
    char *memory; /* at the start of a line; NULL while it is measured */
    double used;  /* in double, where sums of sizes cannot overflow */
} arena;

/* Memory for so many bytes, in lines of its own; NULL while it is measured. */
static inline void *take(arena *a, double n_bytes) {
    char *taken = a->memory ? a->memory + (ptrdiff_t)a->used : NULL;
    a->used += ceil(n_bytes / 64) * 64;
    return taken;
}

/* An arena that lays out. Static analysers, which follow every path, are told that it has memory.
 */
static inline arena arena_in(void *memory) {
#ifdef FASTSOFTMAX_ANALYSED /* tests/c/analyse.sh */
    if (!memory) __builtin_unreachable();
#endif
    return (arena){memory, 0};
}

/* The bytes that were taken, as kernels.h wants them: negative where they are too many to address.
 */
static inline ptrdiff_t taken_bytes(const arena *a) {
    return a->used < (double)(PTRDIFF_MAX / 2) ? (ptrdiff_t)a->used : -1;
}

#endif

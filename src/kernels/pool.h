/* Threads that stay, and take parts of the loops of parallel.c. */
#ifndef FASTSOFTMAX_POOL_H
#define FASTSOFTMAX_POOL_H

#include "parallel.h"

/* It needs the atomics of C11, 64 bits of them without a lock. A few old compilers and processors
 * have none. */
#if !defined(__STDC_NO_ATOMICS__)
#include <stdatomic.h>
#define HAS_POOL (ATOMIC_LLONG_LOCK_FREE == 2)
#else
#define HAS_POOL 0
#endif

#if HAS_POOL

/* body(task, part, thread) for every part, by the calling thread and up to n_threads - 1 others;
 * 2 <= n_threads <= n_parts <= INT32_MAX. The calling thread does what the others do not.
 * is_long is whether threads that sleep are woken for it. */
void fs_pool_run(part_body body, void *task, ptrdiff_t n_parts, int n_threads, int is_long);

void fs_pool_watch_forks(void);

#endif
#endif

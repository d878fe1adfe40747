/* Who runs the parts of a loop. The only file with OpenMP. */
#include "system.h"

#include "parallel.h"

#include "pool.h"

#if defined(_OPENMP)
#include <omp.h>
#endif

int fs_has_openmp(void) {
#if defined(_OPENMP)
    return 1;
#else
    return 0;
#endif
}

/* OpenMP's number, where there is one, also for the threads of the pool: threadpoolctl sets it. */
int fs_max_threads(void) {
#if defined(_OPENMP)
    return omp_get_max_threads();
#elif HAS_POOL
    return fs_processors();
#else
    return 1;
#endif
}

void fs_watch_forks(void) {
#if HAS_POOL
    fs_pool_watch_forks();
#endif
}

void fs_for_parts(part_body body, void *task, ptrdiff_t n_parts, int n_threads, double products) {
    if (n_threads > n_parts) n_threads = (int)n_parts;
    (void)products;
#if HAS_POOL
    if (n_threads > 1 && n_parts <= INT32_MAX) {
        fs_pool_run(body, task, n_parts, n_threads, products >= WAKE_PRODUCTS);
        return;
    }
#elif defined(_OPENMP) && defined(_WIN32) /* elsewhere a forked child would hang */
    if (n_threads > 1) {
        ptrdiff_t part; /* Microsoft's C compiler wants it declared here */
#pragma omp parallel for num_threads(n_threads) schedule(dynamic, 1)
        for (part = 0; part < n_parts; ++part) body(task, part, omp_get_thread_num());
        return;
    }
#endif
    for (ptrdiff_t part = 0; part < n_parts; ++part) body(task, part, 0);
}

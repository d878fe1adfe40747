/* Threads: the only file with OpenMP. */
#include "parallel.h"

#if defined(_OPENMP)
#include <omp.h>
#endif
#if !defined(_WIN32)
#include <pthread.h>
#endif

/* ---- threads and forks ----
 * GNU's OpenMP hangs when a child forked after a parallel region enters one: its threads are gone.
 * Such a child runs serially, which gives the same bits. These two flags are the only state. */
static int team_started = 0;
static int forked_from_team = 0;

#if !defined(_WIN32)
static void in_child(void) {
    if (team_started) forked_from_team = 1;
}
#endif

void fs_watch_forks(void) {
#if !defined(_WIN32)
    pthread_atfork(NULL, NULL, in_child);
#endif
}

int fs_has_openmp(void) {
#if defined(_OPENMP)
    return 1;
#else
    return 0;
#endif
}

int fs_max_threads(void) {
#if defined(_OPENMP)
    return forked_from_team ? 1 : omp_get_max_threads();
#else
    return 1;
#endif
}

void fs_for_parts(part_body body, void *task, ptrdiff_t n_parts, int n_threads) {
    if (n_threads > n_parts) n_threads = (int)n_parts;
#if defined(_OPENMP)
    if (n_threads > 1 && !forked_from_team) {
        team_started = 1;
#pragma omp parallel for num_threads(n_threads) schedule(dynamic, 1)
        for (ptrdiff_t part = 0; part < n_parts; ++part) body(task, part, omp_get_thread_num());
        return;
    }
#endif
    for (ptrdiff_t part = 0; part < n_parts; ++part) body(task, part, 0);
}

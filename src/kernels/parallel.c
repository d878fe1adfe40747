/* Threads: the only file with OpenMP. */
#define _POSIX_C_SOURCE 200809L /* signal masks */
#include "parallel.h"

#if defined(_OPENMP)
#include <omp.h>
#endif
#if !defined(_WIN32)
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#endif

/* ---- threads and forks ----
 * GNU's OpenMP hangs when a child forked after a parallel region enters one: its threads are gone.
 * Such a child runs serially, which gives the same bits. These two flags are the only state of the
 * process. */
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

/* ---- threads that the system refuses ----
 * OpenMP ends the process where it cannot start a thread (RLIMIT_NPROC, a cgroup's pids.max, no
 * address space left). So before its team grows, as many threads are started here with a stack of
 * the same size, and one more, and joined. Where they are refused, a team gets half of those that
 * there were: stacks take the address space that others need. OpenMP keeps one team for each
 * calling thread, and its threads beyond the size of a region end: so the last size is what need
 * not be tried again, and regions of that size pay nothing. What remains: others that start
 * threads, or enter regions of the same OpenMP library in the same thread, between the trial and
 * the region. */
#if defined(_OPENMP) && !defined(_WIN32)

enum { MOST_THREADS = 1024, REFUSED_REGIONS = 256 };

/* Of the calling thread: the size of its last region, and the largest size that it was refused,
 * what it got in its place, and the regions until it asks again. */
static _Thread_local struct {
    int started, refused, granted, regions;
} mine = {1, 0, 1, 0};

typedef struct {
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    int may_end;
} trial;

static void *wait_for_the_others(void *trial_) {
    trial *t = trial_;
    pthread_mutex_lock(&t->mutex);
    while (!t->may_end) pthread_cond_wait(&t->changed, &t->mutex);
    pthread_mutex_unlock(&t->mutex);
    return NULL;
}

/* The size of a stack by OMP_STACKSIZE or GOMP_STACKSIZE, in kB without a unit; 0 for the system's
 * own. */
static size_t stack_size(void) {
    const char *text = getenv("OMP_STACKSIZE");
    if (!text) text = getenv("GOMP_STACKSIZE");
    if (!text) return 0;
    char *end;
    const unsigned long long number = strtoull(text, &end, 10);
    while (*end == ' ') ++end;
    const int shift = *end == 'b' || *end == 'B'   ? 0
                      : *end == 'm' || *end == 'M' ? 20
                      : *end == 'g' || *end == 'G' ? 30
                                                   : 10;
    return end == text || number > (SIZE_MAX >> 31) ? 0 : (size_t)(number << shift);
}

/* The number of threads, at most n, that can be started and are alive side by side. Signals go to
 * other threads than these. */
static int try_threads(int n) {
    trial t = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 0};
    pthread_t threads[MOST_THREADS];
    pthread_attr_t attributes;
    sigset_t all, before;
    if (pthread_attr_init(&attributes) != 0) return 0;
    const size_t size = stack_size();
    if (size) pthread_attr_setstacksize(&attributes, size); /* OpenMP too ignores a wrong size */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int started = 0;
    while (started < n &&
           pthread_create(&threads[started], &attributes, wait_for_the_others, &t) == 0)
        ++started;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    pthread_mutex_lock(&t.mutex);
    t.may_end = 1;
    pthread_cond_broadcast(&t.changed);
    pthread_mutex_unlock(&t.mutex);
    for (int i = 0; i < started; ++i) pthread_join(threads[i], NULL);
    pthread_mutex_destroy(&t.mutex);
    pthread_cond_destroy(&t.changed);
    return started;
}

/* The size of a team that OpenMP can start for the calling thread, n at most. */
static int team_size(int n) {
    if (n > MOST_THREADS) n = MOST_THREADS;
    if (n > mine.started && mine.refused && n >= mine.refused && mine.regions > 0) {
        --mine.regions;
        n = mine.granted;
    }
    if (n > mine.started) {
        const int wanted = n - mine.started + 1, found = try_threads(wanted); /* one to spare */
        mine.refused = 0;
        if (found < wanted) {
            mine.refused = n;
            mine.granted = n = mine.started + found / 2; /* the rest is for others */
            mine.regions = REFUSED_REGIONS;
        }
    }
    if (n > 1) mine.started = n;
    return n;
}

#elif defined(_OPENMP)

static int team_size(int n) { return n; }

#endif

void fs_for_parts(part_body body, void *task, ptrdiff_t n_parts, int n_threads) {
    if (n_threads > n_parts) n_threads = (int)n_parts;
#if defined(_OPENMP)
    if (n_threads > 1 && !forked_from_team) n_threads = team_size(n_threads);
    if (n_threads > 1 && !forked_from_team) {
        team_started = 1;
#pragma omp parallel for num_threads(n_threads) schedule(dynamic, 1)
        for (ptrdiff_t part = 0; part < n_parts; ++part) body(task, part, omp_get_thread_num());
        return;
    }
#endif
    for (ptrdiff_t part = 0; part < n_parts; ++part) body(task, part, 0);
}

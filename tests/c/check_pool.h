/* Loops of fs_for_parts by several callers at once, with the threads that they ask for, and in
 * forked children. */
#ifndef CHECK_POOL_H
#define CHECK_POOL_H

#include "pages.h"

#include <stdio.h>
#include <stdlib.h>

#include "parallel.h"

#include "pool.h"

#if !defined(_WIN32)
#include <sys/wait.h>
#endif

/* Coverage is written at a program's end by `exit` alone; there a leak sanitizer would look for
 * threads that a child has not. */
#if !defined(END_OF_CHILD)
#define END_OF_CHILD _exit
#endif

enum { MOST_POOL_PARTS = 300, MOST_POOL_THREADS = 9, N_CALLERS = 5, PATIENCE_SECONDS = 30 };

typedef struct {
    int done[MOST_POOL_PARTS];     /* by part: how many times */
    int inside[MOST_POOL_THREADS]; /* by thread: whether it is in a part */
    double out[MOST_POOL_PARTS];
    long length;
    int failures;
} pool_task;

static double pool_value(ptrdiff_t part, long length) {
    double x = (double)part;
    for (long i = 0; i < length; ++i) x = x * 1.0000001 + 1e-9;
    return x;
}

/* A thread's number is its own while it is in a part, and each part is done once. */
static void pool_part(void *task_, ptrdiff_t part, int thread) {
    pool_task *t = task_;
    t->inside[thread] += 1;
    t->done[part] += t->inside[thread];
    t->out[part] = pool_value(part, t->length);
    t->inside[thread] -= 1;
}

typedef struct {
    unsigned seed;
    int n_loops, n_failures;
} pool_caller;

static fs_thread_result FS_THREAD_CALL call_pool(void *caller_) {
    pool_caller *caller = caller_;
    unsigned random = caller->seed;
    for (int loop = 0; loop < caller->n_loops; ++loop) {
        pool_task t = {{0}, {0}, {0}, 0, 0};
        random = random * 1103515245u + 12345u;
        const int n_parts = 1 + (int)(random >> 8 & 255), n_threads = 1 + (int)(random >> 16 & 7);
        t.length = (long)(random >> 20 & 255);
        fs_for_parts(pool_part, &t, n_parts, n_threads, loop % 2 ? 1e9 : 0);
        for (int part = 0; part < n_parts; ++part)
            if (t.done[part] != 1 || t.out[part] != pool_value(part, t.length))
                ++caller->n_failures;
    }
    return 0;
}

static int run_callers(int n_loops) {
    check_thread threads[N_CALLERS];
    pool_caller callers[N_CALLERS];
    int n_started = 0, n_failures = 0;
    for (int i = 0; i < N_CALLERS; ++i)
        callers[i] = (pool_caller){7u + 77u * (unsigned)i, n_loops, 0};
    while (n_started < N_CALLERS - 1 &&
           start_check(&threads[n_started], call_pool, &callers[n_started]))
        ++n_started;
    call_pool(&callers[N_CALLERS - 1]);
    for (int i = 0; i < n_started; ++i) join_check(threads[i]);
    for (int i = 0; i < N_CALLERS; ++i) n_failures += callers[i].n_failures;
    return n_failures;
}

#if HAS_POOL

enum { MOST_MET = 5, N_MEETINGS = 150 };

/* A loop each of whose parts waits until all of them have begun. */
typedef struct {
    atomic_int n_begun, n_ended, by[MOST_MET]; /* by thread: parts */
    int n_threads, rest_of_workers;            /* milliseconds, after all have met */
} meeting;

static void meet(void *meeting_, ptrdiff_t part, int thread) {
    meeting *m = meeting_;
    const int64_t end = fs_nanoseconds() + (int64_t)PATIENCE_SECONDS * 1000000000;
    (void)part;
    atomic_fetch_add(&m->by[thread], 1);
    atomic_fetch_add(&m->n_begun, 1);
    while (atomic_load(&m->n_begun) < m->n_threads && fs_nanoseconds() < end) rest(0);
    if (thread && m->rest_of_workers) rest(m->rest_of_workers);
    atomic_fetch_add(&m->n_ended, 1);
}

/* Long loops have the threads that they ask for, whether those sleep or look out for work; each has
 * a number of its own; and a loop has ended when the last part has. The number of failures. */
static int run_meetings(int n_meetings) {
    int n_failures = 0;
    for (int i = 0; i < n_meetings && !n_failures; ++i) {
        const int n_threads = 2 + i % (MOST_MET - 1);
        meeting m = {.n_threads = n_threads, .rest_of_workers = i % 7 == 0 ? 5 : 0};
        if (i % 5 == 0) rest(5); /* threads that find no work fall asleep */
        fs_for_parts(meet, &m, n_threads, n_threads, WAKE_PRODUCTS);
        const int n_ended = atomic_load(&m.n_ended);
        int n_numbers = 0;
        for (int t = 0; t < n_threads; ++t) n_numbers += atomic_load(&m.by[t]) == 1;
        n_failures += n_ended != n_threads || n_numbers != n_threads;
        if (n_ended != n_threads) rest(100); /* m is still in use */
    }
    return n_failures;
}

enum { MANY_CALLERS = 70 }; /* more than the pool has places for */

/* As `meet`, of several callers. */
static void meet_callers(void *n_callers, ptrdiff_t part, int thread) {
    const int64_t end = fs_nanoseconds() + (int64_t)PATIENCE_SECONDS * 1000000000;
    if (part == 0 && thread == 0) atomic_fetch_add((atomic_int *)n_callers, 1);
    while (atomic_load((atomic_int *)n_callers) < MANY_CALLERS && fs_nanoseconds() < end) rest(1);
}

static fs_thread_result FS_THREAD_CALL call_with_others(void *n_callers) {
    fs_for_parts(meet_callers, n_callers, 2, 2, WAKE_PRODUCTS);
    return 0;
}

/* So many loops at once that some have no place in the pool: all of them run. */
static int run_many_callers(void) {
    check_thread threads[MANY_CALLERS];
    atomic_int n_callers = 0;
    int n_started = 0;
    while (n_started < MANY_CALLERS &&
           start_check(&threads[n_started], call_with_others, &n_callers))
        ++n_started;
    if (n_started < MANY_CALLERS) atomic_store(&n_callers, MANY_CALLERS); /* none waits */
    for (int i = 0; i < n_started; ++i) join_check(threads[i]);
    return atomic_load(&n_callers) < MANY_CALLERS;
}

#else

enum { N_MEETINGS = 0 };
static int run_meetings(int n_meetings) { return n_meetings; }
static int run_many_callers(void) { return 0; }

#endif

/* The same in a child that is forked; whether it failed. */
static int run_forked(int n_loops) {
#if defined(_WIN32)
    (void)n_loops;
    return 0;
#else
    int status = 1;
    fflush(stdout);
    const pid_t child = fork();
    if (child == 0) {
        alarm(10 * PATIENCE_SECONDS); /* one that hangs ends, also where its parent was killed */
        END_OF_CHILD(run_meetings(N_MEETINGS) + run_callers(n_loops) != 0);
    }
    return child < 0 || waitpid(child, &status, 0) != child || status != 0;
#endif
}

/* The number of failures. Sanitizers that watch threads do not follow them into a child. */
static int check_pool(int n_loops, int with_fork) {
    fs_watch_forks();
    int n_failures = run_callers(n_loops), n_missed = run_meetings(N_MEETINGS);
    n_missed += run_many_callers();
    if (with_fork) {
        n_failures += run_forked(n_loops / 10) + run_callers(n_loops / 10);
        n_missed += run_meetings(N_MEETINGS);
    }
    printf("loops by %d callers at once: %d wrong\n", N_CALLERS, n_failures);
    printf("loops with the threads that they ask for: %d wrong\n", n_missed);
    return n_failures + n_missed;
}

#endif

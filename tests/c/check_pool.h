/* Loops of fs_for_parts by several callers at once, and in forked children. */
#ifndef CHECK_POOL_H
#define CHECK_POOL_H

#include <stdio.h>
#include <stdlib.h>

#include "pages.h"

#include "parallel.h"

#if !defined(_WIN32)
#include <sys/wait.h>
#endif

enum { MOST_POOL_PARTS = 300, MOST_POOL_THREADS = 9, N_CALLERS = 5 };

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

/* The same in a child that is forked; whether it failed. */
static int run_forked(int n_loops) {
#if defined(_WIN32)
    (void)n_loops;
    return 0;
#else
    int status = 1;
    fflush(stdout);
    const pid_t child = fork();
    if (child == 0) _exit(run_callers(n_loops) != 0);
    return child < 0 || waitpid(child, &status, 0) != child || status != 0;
#endif
}

/* The number of failures. Sanitizers that watch threads do not follow them into a child. */
static int check_pool(int n_loops, int with_fork) {
    fs_watch_forks();
    int n_failures = run_callers(n_loops);
    if (with_fork) n_failures += run_forked(n_loops / 10) + run_callers(n_loops / 10);
    printf("loops by %d callers at once: %d wrong\n", N_CALLERS, n_failures);
    return n_failures;
}

#endif

/* fs_for_parts by POSIX threads, in place of src/kernels/parallel.c: the thread sanitizer does not
 * see how OpenMP's threads wait for each other, and would report every part. */
#include <pthread.h>
#include <stdatomic.h>

#include "parallel.h"

enum { MOST_THREADS = 16 };

typedef struct {
    part_body body;
    void *task;
    ptrdiff_t n_parts;
    atomic_ptrdiff_t next;
} team;

typedef struct {
    team *team;
    int number;
} member;

static void *work(void *member_) {
    const member *m = member_;
    for (ptrdiff_t part; (part = atomic_fetch_add(&m->team->next, 1)) < m->team->n_parts;)
        m->team->body(m->team->task, part, m->number);
    return NULL;
}

void fs_watch_forks(void) {}

int fs_has_openmp(void) { return 0; }

int fs_max_threads(void) { return MOST_THREADS; }

void fs_for_parts(part_body body, void *task, ptrdiff_t n_parts, int n_threads) {
    team t = {.body = body, .task = task, .n_parts = n_parts};
    member members[MOST_THREADS];
    pthread_t threads[MOST_THREADS];
    int n = 1; /* the calling thread is the first */
    for (; n < n_threads && n < n_parts && n < MOST_THREADS; ++n) {
        members[n] = (member){&t, n};
        if (pthread_create(&threads[n], NULL, work, &members[n]) != 0) break;
    }
    members[0] = (member){&t, 0};
    work(&members[0]);
    for (int i = 1; i < n; ++i) pthread_join(threads[i], NULL);
}

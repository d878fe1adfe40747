/* A pool of POSIX threads. All threads that call share it.
 *
 * A caller publishes its loop as a job and begins with the parts at once. Workers that are awake
 * or woken join and claim parts, one at a time, from the same counter. When none is left, the
 * caller waits for the parts that workers have claimed and not finished, and for nothing else: a
 * worker that the system does not run holds nobody up unless it is in the middle of a part. OpenMP
 * would wait for each of its threads at the end of each loop, a scheduler's tick beside a process
 * that is busy (an SGD epoch took up to 80 times as long).
 *
 * Between jobs a worker spins for a moment, for longer where jobs keep coming, and then sleeps. */
#define _POSIX_C_SOURCE 200809L /* signal masks, clocks */
#include "pool.h"

#if HAS_POOL
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <time.h>
#include <unistd.h>

enum {
    MOST_JOBS = 64,      /* threads that call at once; others find no help */
    MOST_WORKERS = 1023, /* of the process */
    STACK_BYTES = 1 << 20,
    CACHE_LINE = 128,
    LOOKS = 32,          /* between two readings of the clock */
    REFUSED_LOOPS = 256, /* until a thread that was refused is asked for again */
};

/* Nanoseconds that a worker looks out for the next job before it sleeps, and a caller for the end
 * of the last parts. To wake a thread takes 5 microseconds of the caller and 50 until it runs. */
enum { LEAST_SPIN = 10000, MOST_SPIN = 200000, CALLER_SPIN = 100000 };

/* A loop. The ticket has the workers that may still join in its upper half and the parts that are
 * not claimed in its lower half. The other members are written while `unfinished` is 0 and read by
 * those that hold a part, so nobody reads them while they change. */
typedef struct {
    _Alignas(CACHE_LINE) atomic_uint_fast64_t ticket;
    _Alignas(CACHE_LINE) atomic_int_fast32_t unfinished; /* parts */
    atomic_bool is_taken;                                /* by a caller */
    part_body body;
    void *task;
    ptrdiff_t n_parts;
    int n_threads, is_long;
} job;

static job jobs[MOST_JOBS];
static _Alignas(CACHE_LINE) atomic_uint n_published; /* jobs, ever */
static atomic_int most_jobs;                         /* of `jobs`, ever in use at once */
static _Alignas(CACHE_LINE) atomic_int n_workers;
static atomic_int n_spinning, n_asleep, n_waiting; /* workers, workers, callers */
static atomic_int refused_loops;
static atomic_int n_processors;

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t published = PTHREAD_COND_INITIALIZER; /* or a worker should look again */
static pthread_cond_t finished = PTHREAD_COND_INITIALIZER;

static const uint_fast64_t ONE_SEAT = (uint_fast64_t)1 << 32;

static uint_fast32_t parts_left(uint_fast64_t ticket) {
    return (uint_fast32_t)(ticket & UINT32_MAX);
}
static int seats_left(uint_fast64_t ticket) { return (int)(ticket >> 32); }
static int can_join(uint_fast64_t ticket) { return parts_left(ticket) && seats_left(ticket); }

/* ---- time ---- */

static int64_t nanoseconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* Tells the processor that this thread looks at the same memory again and again. */
static void look_again(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("isb" ::: "memory");
#endif
}

/* ---- parts ---- */

/* The parts that a thread has claimed of a job: it keeps the job alive until it counts them. */
static void do_parts(job *j, ptrdiff_t part, int thread) {
    const part_body body = j->body;
    void *const task = j->task;
    const ptrdiff_t n_parts = j->n_parts;
    int_fast32_t n_done = 0;
    for (;;) {
        body(task, part, thread);
        ++n_done;
        uint_fast64_t ticket = atomic_load_explicit(&j->ticket, memory_order_relaxed);
        do {
            if (!parts_left(ticket)) {
                if (atomic_fetch_sub(&j->unfinished, n_done) == n_done && thread > 0 &&
                    atomic_load(&n_waiting)) {
                    pthread_mutex_lock(&mutex);
                    pthread_cond_broadcast(&finished);
                    pthread_mutex_unlock(&mutex);
                }
                return;
            }
        } while (!atomic_compare_exchange_weak_explicit(
            &j->ticket, &ticket, ticket - 1, memory_order_relaxed, memory_order_relaxed));
        part = n_parts - (ptrdiff_t)parts_left(ticket);
    }
}

static void wake_one(void) {
    if (!atomic_load(&n_asleep)) return;
    pthread_mutex_lock(&mutex);
    pthread_cond_signal(&published);
    pthread_mutex_unlock(&mutex);
}

/* Joins a job, if it has a part and a seat left, and works until no part is left. */
static int join(job *j) {
    uint_fast64_t ticket = atomic_load_explicit(&j->ticket, memory_order_relaxed);
    do {
        if (!can_join(ticket)) return 0;
    } while (!atomic_compare_exchange_weak_explicit(&j->ticket, &ticket, ticket - ONE_SEAT - 1,
                                                    memory_order_acquire, memory_order_relaxed));
    if (j->is_long && can_join(ticket - ONE_SEAT - 1)) wake_one(); /* and that one the next */
    do_parts(j, j->n_parts - (ptrdiff_t)parts_left(ticket), j->n_threads - seats_left(ticket));
    return 1;
}

/* ---- workers ---- */

static int is_work_left(void) {
    const int n = atomic_load(&most_jobs);
    for (int i = 0; i < n; ++i)
        if (can_join(atomic_load(&jobs[i].ticket))) return 1;
    return 0;
}

/* Looks out for a job that is published after the first n; whether there was one in time. No more
 * workers look out than there are processors for. */
static int spin(unsigned n, int64_t time) {
    int in_time = 0;
    if (atomic_fetch_add(&n_spinning, 1) < atomic_load(&n_processors) - 1) {
        const int64_t end = nanoseconds() + time;
        do {
            for (int i = 0; i < LOOKS && !in_time; ++i) {
                in_time = atomic_load_explicit(&n_published, memory_order_relaxed) != n;
                look_again();
            }
        } while (!in_time && nanoseconds() < end);
    }
    atomic_fetch_sub(&n_spinning, 1);
    return in_time;
}

static void sleep_until_published(void) {
    pthread_mutex_lock(&mutex);
    atomic_fetch_add(&n_asleep, 1); /* before the look: who publishes after it will wake */
    if (!is_work_left()) pthread_cond_wait(&published, &mutex);
    atomic_fetch_sub(&n_asleep, 1);
    pthread_mutex_unlock(&mutex);
}

static void *serve(void *unused) {
    int64_t time = MOST_SPIN;
    (void)unused;
    for (;;) {
        const unsigned n = atomic_load(&n_published);
        const int n_jobs = atomic_load(&most_jobs);
        int has_worked = 0;
        for (int i = 0; i < n_jobs; ++i) has_worked |= join(&jobs[i]);
        if (has_worked || spin(n, time)) continue;
        /* to spin for longer next time pays if a job comes soon */
        const int64_t end = nanoseconds() - time + MOST_SPIN;
        sleep_until_published();
        time = nanoseconds() < end ? MOST_SPIN : time > 2 * LEAST_SPIN ? time / 2 : LEAST_SPIN;
    }
    return NULL;
}

/* Starts workers until there are n, or the system refuses one. Signals go to other threads. */
static void start_workers(int n) {
    if (atomic_load(&refused_loops) > 0) {
        atomic_fetch_sub(&refused_loops, 1);
        return;
    }
    pthread_attr_t attributes;
    if (pthread_attr_init(&attributes) != 0) return;
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&attributes,
                              STACK_BYTES); /* a size that is refused changes nothing */
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pthread_mutex_lock(&mutex);
    atomic_store(&n_processors, (int)sysconf(_SC_NPROCESSORS_ONLN));
    pthread_t thread;
    while (atomic_load(&n_workers) < n) {
        if (pthread_create(&thread, &attributes, serve, NULL) != 0) {
            atomic_store(&refused_loops, REFUSED_LOOPS);
            break;
        }
        atomic_fetch_add(&n_workers, 1);
    }
    pthread_mutex_unlock(&mutex);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
}

/* ---- callers ---- */

/* A job of the caller's own; NULL where too many have one. */
static job *take_job(void) {
    for (int i = 0; i < MOST_JOBS; ++i) {
        if (atomic_load_explicit(&jobs[i].is_taken, memory_order_relaxed) ||
            atomic_exchange(&jobs[i].is_taken, 1))
            continue;
        int most = atomic_load(&most_jobs);
        while (most <= i && !atomic_compare_exchange_weak(&most_jobs, &most, i + 1)) continue;
        return &jobs[i];
    }
    return NULL;
}

static void wait_for(job *j) {
    const int64_t end = nanoseconds() + CALLER_SPIN;
    do {
        for (int i = 0; i < LOOKS; ++i) {
            if (!atomic_load_explicit(&j->unfinished, memory_order_acquire)) return;
            look_again();
        }
    } while (nanoseconds() < end);
    pthread_mutex_lock(&mutex);
    atomic_fetch_add(&n_waiting, 1); /* before the look: who finishes after it will wake */
    while (atomic_load(&j->unfinished)) pthread_cond_wait(&finished, &mutex);
    atomic_fetch_sub(&n_waiting, 1);
    pthread_mutex_unlock(&mutex);
}

void fs_pool_run(part_body body, void *task, ptrdiff_t n_parts, int n_threads, int is_long) {
    if (n_threads > MOST_WORKERS + 1) n_threads = MOST_WORKERS + 1;
    if (atomic_load_explicit(&n_workers, memory_order_relaxed) < n_threads - 1)
        start_workers(n_threads - 1);
    job *const j = take_job();
    if (!j) {
        for (ptrdiff_t part = 0; part < n_parts; ++part) body(task, part, 0);
        return;
    }
    j->body = body;
    j->task = task;
    j->n_parts = n_parts;
    j->n_threads = n_threads;
    j->is_long = is_long;
    atomic_store_explicit(&j->unfinished, (int_fast32_t)n_parts, memory_order_relaxed);
    /* the first part is the caller's */
    atomic_store(&j->ticket,
                 (uint_fast64_t)(n_threads - 1) * ONE_SEAT + (uint_fast64_t)(n_parts - 1));
    atomic_fetch_add(&n_published, 1);
    if (is_long && atomic_load(&n_spinning) < n_threads - 1) wake_one();
    do_parts(j, 0, 0);
    if (atomic_load_explicit(&j->unfinished, memory_order_acquire)) wait_for(j);
    atomic_store_explicit(&j->is_taken, 0, memory_order_release);
}

/* ---- forks ----
 * A forked child has the thread that forked alone: its pool is empty, and is filled again by the
 * first loop. */

static void before_fork(void) { pthread_mutex_lock(&mutex); }

static void in_parent(void) { pthread_mutex_unlock(&mutex); }

static void in_child(void) {
    for (int i = 0; i < MOST_JOBS; ++i) {
        atomic_store(&jobs[i].ticket, 0);
        atomic_store(&jobs[i].is_taken, 0);
    }
    atomic_store(&n_workers, 0);
    atomic_store(&n_spinning, 0);
    atomic_store(&n_asleep, 0);
    atomic_store(&n_waiting, 0);
    atomic_store(&refused_loops, 0);
    pthread_cond_init(&published, NULL); /* those that waited are gone */
    pthread_cond_init(&finished, NULL);
    pthread_mutex_unlock(&mutex);
}

void fs_pool_watch_forks(void) { pthread_atfork(before_fork, in_parent, in_child); }

#else

typedef int no_pool; /* ISO C has no empty files */

#endif

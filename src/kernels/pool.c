/* A pool of threads. All threads that call share it.
 *
 * A caller publishes its loop as a job and begins with the parts at once. Workers that are awake
 * or woken join and claim parts, one at a time, from the same counter. When none is left, the
 * caller waits for the parts that workers have claimed and not finished, and for nothing else: a
 * worker that the system does not run holds nobody up unless it is in the middle of a part. OpenMP
 * would wait for each of its threads at the end of each loop, a scheduler's tick beside a process
 * that is busy (an SGD epoch took up to 80 times as long).
 *
 * Between jobs a worker spins for a moment, for longer where jobs keep coming, and then sleeps. */
#include "system.h"

#include "pool.h"

#if HAS_POOL

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

static fs_lock lock = FS_LOCK_INIT;
static fs_condition published = FS_CONDITION_INIT; /* or a worker should look again */
static fs_condition finished = FS_CONDITION_INIT;

static const uint_fast64_t ONE_SEAT = (uint_fast64_t)1 << 32;

static uint_fast32_t parts_left(uint_fast64_t ticket) {
    return (uint_fast32_t)(ticket & UINT32_MAX);
}
static int seats_left(uint_fast64_t ticket) { return (int)(ticket >> 32); }
static int can_join(uint_fast64_t ticket) { return parts_left(ticket) && seats_left(ticket); }

/* Tells the processor that this thread looks at the same memory again and again. */
static void look_again(void) {
#if defined(_WIN32)
    YieldProcessor();
#elif defined(__x86_64__) || defined(__i386__)
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
                    fs_acquire(&lock);
                    fs_wake_all(&finished);
                    fs_release(&lock);
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
    fs_acquire(&lock);
    fs_wake_one(&published);
    fs_release(&lock);
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
        const int64_t end = fs_nanoseconds() + time;
        do {
            for (int i = 0; i < LOOKS && !in_time; ++i) {
                in_time = atomic_load_explicit(&n_published, memory_order_relaxed) != n;
                look_again();
            }
        } while (!in_time && fs_nanoseconds() < end);
    }
    atomic_fetch_sub(&n_spinning, 1);
    return in_time;
}

static void sleep_until_published(void) {
    fs_acquire(&lock);
    atomic_fetch_add(&n_asleep, 1); /* before the look: who publishes after it will wake */
    if (!is_work_left()) fs_wait(&published, &lock);
    atomic_fetch_sub(&n_asleep, 1);
    fs_release(&lock);
}

static fs_thread_result FS_THREAD_CALL serve(void *unused) {
    int64_t time = MOST_SPIN;
    (void)unused;
    for (;;) {
        const unsigned n = atomic_load(&n_published);
        const int n_jobs = atomic_load(&most_jobs);
        int has_worked = 0;
        for (int i = 0; i < n_jobs; ++i) has_worked |= join(&jobs[i]);
        if (has_worked || spin(n, time)) continue;
        /* to spin for longer next time pays if a job comes soon */
        const int64_t end = fs_nanoseconds() - time + MOST_SPIN;
        sleep_until_published();
        time = fs_nanoseconds() < end ? MOST_SPIN : time > 2 * LEAST_SPIN ? time / 2 : LEAST_SPIN;
    }
    return 0;
}

/* Starts workers until there are n, or the system refuses one. */
static void start_workers(int n) {
    if (atomic_load(&refused_loops) > 0) {
        atomic_fetch_sub(&refused_loops, 1);
        return;
    }
    fs_acquire(&lock);
    atomic_store(&n_processors, fs_processors());
    while (atomic_load(&n_workers) < n) {
        if (!fs_start_thread(serve, STACK_BYTES)) {
            atomic_store(&refused_loops, REFUSED_LOOPS);
            break;
        }
        atomic_fetch_add(&n_workers, 1);
    }
    fs_release(&lock);
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
    const int64_t end = fs_nanoseconds() + CALLER_SPIN;
    do {
        for (int i = 0; i < LOOKS; ++i) {
            if (!atomic_load_explicit(&j->unfinished, memory_order_acquire)) return;
            look_again();
        }
    } while (fs_nanoseconds() < end);
    fs_acquire(&lock);
    atomic_fetch_add(&n_waiting, 1); /* before the look: who finishes after it will wake */
    while (atomic_load(&j->unfinished)) fs_wait(&finished, &lock);
    atomic_fetch_sub(&n_waiting, 1);
    fs_release(&lock);
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
 * first loop. Windows has no fork. */

#if defined(_WIN32)

void fs_pool_watch_forks(void) {}

#else

static void before_fork(void) { fs_acquire(&lock); }

static void in_parent(void) { fs_release(&lock); }

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
    published = (fs_condition)FS_CONDITION_INIT; /* those that waited are gone */
    finished = (fs_condition)FS_CONDITION_INIT;
    fs_release(&lock);
}

void fs_pool_watch_forks(void) { pthread_atfork(before_fork, in_parent, in_child); }

#endif

#else

typedef int no_pool; /* ISO C has no empty files */

#endif

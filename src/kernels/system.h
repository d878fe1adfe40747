/* Threads, a lock, waiting, time and processors, as the pool needs them: POSIX's or those of
 * Windows. Include it before all other headers. */
#ifndef FASTSOFTMAX_SYSTEM_H
#define FASTSOFTMAX_SYSTEM_H

#if defined(_WIN32)

#if !defined(WIN32_LEAN_AND_MEAN)
#define WIN32_LEAN_AND_MEAN
#endif
#if !defined(NOGDI)
#define NOGDI
#endif
#include <windows.h>

#include <process.h>
#include <stdint.h>
#undef near /* words of ours, and of 16-bit Windows */
#undef far

typedef SRWLOCK fs_lock;
typedef CONDITION_VARIABLE fs_condition;
#define FS_LOCK_INIT SRWLOCK_INIT
#define FS_CONDITION_INIT CONDITION_VARIABLE_INIT

static inline void fs_acquire(fs_lock *lock) { AcquireSRWLockExclusive(lock); }
static inline void fs_release(fs_lock *lock) { ReleaseSRWLockExclusive(lock); }
static inline void fs_wait(fs_condition *condition, fs_lock *lock) {
    SleepConditionVariableSRW(condition, lock, INFINITE, 0);
}
static inline void fs_wake_one(fs_condition *condition) { WakeConditionVariable(condition); }
static inline void fs_wake_all(fs_condition *condition) { WakeAllConditionVariable(condition); }

static inline int64_t fs_nanoseconds(void) {
    LARGE_INTEGER ticks, frequency; /* per second; neither call can fail */
    QueryPerformanceCounter(&ticks);
    QueryPerformanceFrequency(&frequency);
    const int64_t f = frequency.QuadPart, seconds = ticks.QuadPart / f;
    return seconds * 1000000000 + ticks.QuadPart % f * 1000000000 / f;
}

static inline int fs_processors(void) { return (int)GetActiveProcessorCount(ALL_PROCESSOR_GROUPS); }

typedef unsigned fs_thread_result;
#define FS_THREAD_CALL __stdcall

/* Starts a thread that nobody waits for; whether there is one. */
static inline int fs_start_thread(fs_thread_result(FS_THREAD_CALL *serve)(void *),
                                  unsigned stack_bytes) {
    const uintptr_t thread =
        _beginthreadex(NULL, stack_bytes, serve, NULL, STACK_SIZE_PARAM_IS_A_RESERVATION, NULL);
    return thread && CloseHandle((HANDLE)thread);
}

#else

/* With -std=c11, C libraries declare more than ISO C only where they are asked to. To ask for
 * POSIX would hide the number of processors on macOS and the BSDs. */
#if !defined(_DEFAULT_SOURCE)
#define _DEFAULT_SOURCE
#endif
#if !defined(_NETBSD_SOURCE)
#define _NETBSD_SOURCE
#endif
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <time.h>
#include <unistd.h>

typedef pthread_mutex_t fs_lock;
typedef pthread_cond_t fs_condition;
#define FS_LOCK_INIT PTHREAD_MUTEX_INITIALIZER
#define FS_CONDITION_INIT PTHREAD_COND_INITIALIZER

static inline void fs_acquire(fs_lock *lock) { pthread_mutex_lock(lock); }
static inline void fs_release(fs_lock *lock) { pthread_mutex_unlock(lock); }
static inline void fs_wait(fs_condition *condition, fs_lock *lock) {
    pthread_cond_wait(condition, lock);
}
static inline void fs_wake_one(fs_condition *condition) { pthread_cond_signal(condition); }
static inline void fs_wake_all(fs_condition *condition) { pthread_cond_broadcast(condition); }

static inline int64_t fs_nanoseconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static inline int fs_processors(void) {
    const long n = sysconf(_SC_NPROCESSORS_ONLN);
    return n < 1 ? 1 : n > 1024 ? 1024 : (int)n;
}

typedef void *fs_thread_result;
#define FS_THREAD_CALL

/* Starts a thread that nobody waits for and that gets no signals; whether there is one. */
static inline int fs_start_thread(fs_thread_result (*serve)(void *), unsigned stack_bytes) {
    pthread_attr_t attributes;
    pthread_t thread;
    sigset_t all, before;
    if (pthread_attr_init(&attributes) != 0) return 0;
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&attributes, stack_bytes); /* one that is refused changes nothing */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    const int is_started = pthread_create(&thread, &attributes, serve, NULL) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    return is_started;
}

#endif
#endif

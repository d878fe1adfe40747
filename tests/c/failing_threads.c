/* Loaded before other libraries (LD_PRELOAD): pthread_create fails from its n-th call on, as where
 * the system has no threads left. For tests/test_failing_threads.py. */
#define _GNU_SOURCE /* RTLD_NEXT */
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

static atomic_long n_calls, refused_from, refused_until;

/* Refuses calls from a number on (from 1) up to another one; none for 0. */
__attribute__((visibility("default"))) void refuse_threads(long from, long until) {
    atomic_store(&n_calls, 0);
    atomic_store(&refused_from, from);
    atomic_store(&refused_until, until);
}

__attribute__((visibility("default"))) long threads_asked_for(void) {
    return atomic_load(&n_calls);
}

__attribute__((visibility("default"))) int pthread_create(pthread_t *thread,
                                                          const pthread_attr_t *attributes,
                                                          void *(*start)(void *), void *argument) {
    int (*create)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
    void *const found = dlsym(RTLD_NEXT, "pthread_create");
    const long number = atomic_fetch_add(&n_calls, 1) + 1;
    const long from = atomic_load(&refused_from);
    if (from && number >= from && number < atomic_load(&refused_until)) return EAGAIN;
    memcpy(&create, &found, sizeof create); /* ISO C has no such cast */
    return create(thread, attributes, start, argument);
}

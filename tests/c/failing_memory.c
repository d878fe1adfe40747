/* Allocators that fail once, for tests/failing_memory.py: that of the interpreter's "raw" domain,
 * where requests of one library are refused, and that of numpy's arrays.
 *
 * They pass every request on to the allocators that there were. `fail_from(kind, n)` lets the
 * n-th request of a kind (from 1) return NULL, and `live_blocks` counts what was not freed.
 * Requests of other libraries to the raw domain are never refused: numpy reads from NULL then. */
#define _GNU_SOURCE /* dladdr */
#include <dlfcn.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>

#define PUBLIC __attribute__((visibility("default")))

enum { RAW, NUMPY, N_KINDS };

/* As PyMemAllocatorEx and, up to the last argument of free, PyDataMemAllocator. */
typedef struct {
    void *context;
    void *(*allocate)(void *, size_t);
    void *(*allocate_zeros)(void *, size_t, size_t);
    void *(*reallocate)(void *, void *, size_t);
    void (*release)(void *, void *);
} allocator;

static allocator raw_before;
static const void *library; /* its first address */
static atomic_long requests[N_KINDS], failing[N_KINDS], live[N_KINDS];

static int fails(int kind) {
    const long number = atomic_fetch_add(&requests[kind], 1) + 1;
    return number == atomic_load(&failing[kind]);
}

static void *counted(int kind, void *block) {
    if (block) atomic_fetch_add(&live[kind], 1);
    return block;
}

/* Whether an address is in the code of the library whose requests are refused. */
static int is_in_library(const void *address) {
    Dl_info info;
    return dladdr(address, &info) && info.dli_fbase == library;
}

/* PyMem_RawMalloc ends with a jump to this, so the address to return to is in its caller. */
static void *raw_allocate(void *context, size_t size) {
    (void)context;
    if (!is_in_library(__builtin_return_address(0)))
        return raw_before.allocate(raw_before.context, size);
    return fails(RAW) ? NULL : counted(RAW, raw_before.allocate(raw_before.context, size));
}

static void raw_release(void *context, void *block) {
    (void)context;
    if (block && is_in_library(__builtin_return_address(0))) atomic_fetch_sub(&live[RAW], 1);
    raw_before.release(raw_before.context, block);
}

static void *raw_zeros(void *context, size_t n, size_t size) {
    (void)context;
    return raw_before.allocate_zeros(raw_before.context, n, size);
}

static void *raw_reallocate(void *context, void *block, size_t size) {
    (void)context;
    return raw_before.reallocate(raw_before.context, block, size);
}

static void *numpy_allocate(void *context, size_t size) {
    (void)context;
    return fails(NUMPY) ? NULL : counted(NUMPY, malloc(size));
}

static void *numpy_zeros(void *context, size_t n, size_t size) {
    (void)context;
    return fails(NUMPY) ? NULL : counted(NUMPY, calloc(n, size));
}

static void *numpy_reallocate(void *context, void *block, size_t size) {
    (void)context;
    if (fails(NUMPY)) return NULL;
    void *const moved = realloc(block, size);
    return block ? moved : counted(NUMPY, moved);
}

static void numpy_release(void *context, void *block, size_t size) {
    (void)context, (void)size;
    if (block) atomic_fetch_sub(&live[NUMPY], 1);
    free(block);
}

/* As PyDataMem_Handler. */
PUBLIC struct {
    char name[127];
    unsigned char version;
    void *context;
    void *(*allocate)(void *, size_t);
    void *(*allocate_zeros)(void *, size_t, size_t);
    void *(*reallocate)(void *, void *, size_t);
    void (*release)(void *, void *, size_t);
} numpy_handler = {
    "fails once", 1, NULL, numpy_allocate, numpy_zeros, numpy_reallocate, numpy_release,
};

/* Takes over an allocator, which becomes one that fails for the library with this code. */
PUBLIC void wrap_raw(allocator *given, const void *code) {
    Dl_info info;
    if (dladdr(code, &info)) library = info.dli_fbase;
    raw_before = *given;
    *given = (allocator){NULL, raw_allocate, raw_zeros, raw_reallocate, raw_release};
}

/* Lets the n-th request from now on fail; none for 0. */
PUBLIC void fail_from(int kind, long n) {
    atomic_store(&failing[kind], 0);
    atomic_store(&requests[kind], 0);
    atomic_store(&failing[kind], n);
}

PUBLIC long requests_made(int kind) { return atomic_load(&requests[kind]); }
PUBLIC long live_blocks(int kind) { return atomic_load(&live[kind]); }

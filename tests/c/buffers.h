/* Memory that tells when a kernel leaves its arrays: each buffer ends where a page begins that may
 * not be touched, and what surrounds it is compared with a pattern; an address sanitizer is told
 * not to let that be read either. Sealed buffers may not be written. A page fault ends the program.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "pages.h"

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define HAS_ADDRESS_SANITIZER
#endif
#elif defined(__SANITIZE_ADDRESS__)
#define HAS_ADDRESS_SANITIZER
#endif

#ifdef HAS_ADDRESS_SANITIZER
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(p, n) ((void)(p), (void)(n))
#define ASAN_UNPOISON_MEMORY_REGION(p, n) ((void)(p), (void)(n))
#endif

enum { PATTERN = 0xa5, MOST_BUFFERS = 128, GUARD_BYTES = 256 };

typedef struct {
    unsigned char *memory, *data;
    size_t size, n_bytes; /* of memory without its last page; of data */
} buffer;

static buffer buffers[MOST_BUFFERS];
static int n_buffers;

/* n bytes of the pattern, the last of them the last of a page, or nearly so where the alignment
 * asks for it. */
static void *new_buffer(ptrdiff_t n, ptrdiff_t alignment) {
    const size_t page = page_size(), n_bytes = (size_t)n, a = (size_t)alignment;
    const size_t used = (n_bytes + a - 1) / a * a;
    buffer b = {NULL, NULL, (used + GUARD_BYTES + page - 1) / page * page, n_bytes};
    b.memory = map_fenced(b.size);
    if (!b.memory || n_buffers == MOST_BUFFERS) {
        fprintf(stderr, "no memory for a buffer of %td bytes\n", n);
        exit(3);
    }
    b.data = b.memory + b.size - used;
    memset(b.data - GUARD_BYTES, PATTERN, used + GUARD_BYTES);
    ASAN_POISON_MEMORY_REGION(b.data - GUARD_BYTES, GUARD_BYTES);
    ASAN_POISON_MEMORY_REGION(b.data + n_bytes, used - n_bytes);
    buffers[n_buffers++] = b;
    return b.data;
}

static void seal_buffers(void) {
    for (int i = 0; i < n_buffers; ++i) seal_pages(buffers[i].memory, buffers[i].size);
}

static int is_pattern(const void *p, size_t n_bytes) {
    const unsigned char *bytes = p;
    for (size_t i = 0; i < n_bytes; ++i)
        if (bytes[i] != PATTERN) return 0;
    return 1;
}

/* Frees the buffers made since there were n of them; 0 where one was written outside its array. */
static int free_buffers(int n) {
    int whole = 1;
    while (n_buffers > n) {
        buffer *b = &buffers[--n_buffers];
        const unsigned char *after = b->data + b->n_bytes, *end = b->memory + b->size;
        ASAN_UNPOISON_MEMORY_REGION(b->data - GUARD_BYTES, (size_t)(end - b->data) + GUARD_BYTES);
        whole &= is_pattern(b->data - GUARD_BYTES, GUARD_BYTES);
        whole &= is_pattern(after, (size_t)(end - after));
        unmap_fenced(b->memory, b->size);
    }
    return whole;
}

/* How work is cut and run by threads, for the C files beside this one.
 *
 * The cut depends on the sizes of the problem alone, each part writes to a place of its own, and
 * parts are added in their order, so the bits of a result are the same for any number of threads.
 * Threads take parts as they come free: who computes a part changes nothing. */
#ifndef FASTSOFTMAX_PARALLEL_H
#define FASTSOFTMAX_PARALLEL_H

#include "kernels.h"

typedef void (*part_body)(void *task, ptrdiff_t part, int thread);

/* body(task, part, thread) for every part; thread < n_threads tells which scratch it may use.
 * products is about how many multiply-adds the loop has, with those of the loops that follow at
 * once: for few of them no sleeping thread is woken. */
void fs_for_parts(part_body body, void *task, ptrdiff_t n_parts, int n_threads, double products);

/* Multiply-adds between two questions whether to stop: some hundredths of a second, where others
 * want the processors a few tenths. Those over rows in CSR form wait for memory, and count more. */
#define PIECE_PRODUCTS 0x1p32 /* ptrdiff_t may have 32 bits */
enum { CSR_PRODUCT = 32 };

/* Multiply-adds that a step counts besides its own: where others want the processors, it may wait
 * for a part that another thread is in the middle of, milliseconds. */
#define STEP_PRODUCTS ((double)(1 << 28))

static inline int is_interrupted(const fs_rows *rows) {
    return rows->interrupted && rows->interrupted();
}

/* What multiply-adds over rows cost, in those over dense rows. */
static inline double dense_products(const fs_rows *rows, double products) {
    return products * (rows->indptr ? CSR_PRODUCT : 1);
}

/* The pieces that work is cut into. */
static inline ptrdiff_t n_pieces(const fs_rows *rows, double products) {
    const double pieces = dense_products(rows, products) / PIECE_PRODUCTS;
    return !rows->interrupted || pieces <= 1 ? 1 : pieces < 1e6 ? (ptrdiff_t)pieces + 1 : 1000000;
}

/* fs_for_parts in pieces of some parts, of so many multiply-adds in all. Returns whether it was
 * interrupted before all were done. The cut changes no result. */
int fs_for_parts_in_pieces(part_body body, void *task, ptrdiff_t n_parts, int n_threads,
                           const fs_rows *rows, double products);

/* Work for a thread below which sharing it with another costs more than it gives: about 20
 * microseconds. In values of softmax, and in multiply-adds of a product. */
#define GRAIN_VALUES ((ptrdiff_t)1 << 14)
#define GRAIN_PRODUCTS ((ptrdiff_t)1 << 20)
#define VALUE_PRODUCTS ((double)GRAIN_PRODUCTS / (double)GRAIN_VALUES)

/* Multiply-adds for which a sleeping thread is woken, which takes 50 microseconds until it runs. */
#define WAKE_PRODUCTS (4 * (double)GRAIN_PRODUCTS)

static inline ptrdiff_t min_size(ptrdiff_t a, ptrdiff_t b) { return a < b ? a : b; }
static inline ptrdiff_t max_size(ptrdiff_t a, ptrdiff_t b) { return a > b ? a : b; }
static inline ptrdiff_t ceil_div(ptrdiff_t a, ptrdiff_t b) { return a / b + (a % b != 0); }

/* Where part p of n things begins when they are cut into n_parts even parts. */
static inline ptrdiff_t part_begin(ptrdiff_t n, ptrdiff_t n_parts, ptrdiff_t p) {
    return n / n_parts * p + min_size(p, n % n_parts);
}

static inline char *at(const void *base, ptrdiff_t i, ptrdiff_t size) {
    return (char *)base + i * size;
}

#endif

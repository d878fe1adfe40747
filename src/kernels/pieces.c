/* Long work in pieces, so that a program can be interrupted between them. */
#include "parallel.h"

typedef struct {
    part_body body;
    void *task;
    ptrdiff_t first;
} piece;

static void piece_part(void *task, ptrdiff_t part, int thread) {
    const piece *p = task;
    p->body(p->task, p->first + part, thread);
}

int fs_for_parts_in_pieces(part_body body, void *task, ptrdiff_t n_parts, int n_threads,
                           const fs_rows *rows, double products) {
    const ptrdiff_t even = ceil_div(n_parts, n_pieces(rows, products));
    const ptrdiff_t size = ceil_div(even, max_size(1, n_threads)) * max_size(1, n_threads);
    piece p = {body, task, 0};
    for (; p.first < n_parts; p.first += size) {
        if (p.first && is_interrupted(rows)) return 1;
        fs_for_parts(piece_part, &p, min_size(size, n_parts - p.first), n_threads,
                     dense_products(rows, products));
    }
    return 0;
}

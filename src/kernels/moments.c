/* Sums over rows by feature: how they are cut. Of dense rows, each part has sums of its own, which
 * are added in order. */
#include <string.h>

#include "arena.h"
#include "pack.h"
#include "pass.h"

/* Rows of a block, whose sums are taken in the number type of the table, and most parts. */
enum { MOMENT_ROWS = 128, MOST_MOMENT_PARTS = 16 };

typedef struct {
    const kernels *kern;
    const fs_rows *rows;
    const void *shift, *units;
    ptrdiff_t n_blocks, n_parts, size; /* size: bytes of 2 n_features reals */
    double *sums, *largest;            /* (n_parts, 2 n_features), (n_parts) */
    double pack_bytes;
    char *partial, *packed; /* for each thread */
} moments_task;

static void take_moments(moments_task *t, arena *memory, int n_threads) {
    const double d = (double)t->rows->n_features, n_rows = (double)t->rows->n_rows;
    const double pair = 2 * d * (double)sizeof(double);
    const double parts = fmin(PARTS_BYTES / (pair + 1), n_rows * d / (double)GRAIN_PRODUCTS);
    t->n_blocks = ceil_div(t->rows->n_rows, MOMENT_ROWS);
    const ptrdiff_t most = min_size(MOST_MOMENT_PARTS, t->n_blocks);
    t->n_parts = max_size(1, parts < (double)most ? (ptrdiff_t)parts : most);
    t->pack_bytes = fs_pack_bytes(t->rows, MOMENT_ROWS);
    t->sums = take(memory, (double)t->n_parts * pair);
    t->largest = take(memory, (double)t->n_parts * (double)sizeof(double));
    const double bytes = ceil(2 * d * (double)t->kern->real_size / 64) * 64;
    t->partial = take(memory, n_threads * bytes);
    t->size = memory->memory ? (ptrdiff_t)bytes : 0;
    t->packed = take(memory, n_threads * t->pack_bytes);
}

static void moments_part(void *task_, ptrdiff_t part, int thread) {
    const moments_task *t = task_;
    const fs_rows *rows = t->rows;
    const ptrdiff_t d = rows->n_features;
    const ptrdiff_t end = part_begin(t->n_blocks, t->n_parts, part + 1);
    double *sums = t->sums + part * 2 * d;
    memset(sums, 0, (size_t)(2 * d) * sizeof *sums);
    t->largest[part] = 0;
    for (ptrdiff_t b = part_begin(t->n_blocks, t->n_parts, part); b < end; ++b) {
        const ptrdiff_t row = b * MOMENT_ROWS;
        fs_block block = {NULL, row, min_size(MOMENT_ROWS, rows->n_rows - row), NULL};
        block = fs_pack(rows, block, t->packed + thread * (ptrdiff_t)t->pack_bytes);
        t->kern->dense[rows->x_type].moment_rows(sums, sums + d, &t->largest[part],
                                                 t->partial + thread * t->size, rows, t->shift,
                                                 t->units, block);
    }
}

ptrdiff_t fs_moments_scratch(const kernels *kern, const fs_rows *rows, int n_threads) {
    arena memory = {0};
    moments_task task = {.kern = kern, .rows = rows};
    take_moments(&task, &memory, n_threads);
    return taken_bytes(&memory);
}

double fs_feature_moments(const kernels *kern, double *sums, double *squares, const fs_rows *rows,
                          const void *shift, const void *units, void *scratch, int n_threads) {
    arena memory = arena_in(scratch);
    moments_task task = {.kern = kern, .rows = rows, .shift = shift, .units = units};
    const ptrdiff_t d = rows->n_features;
    double largest = 0;
    take_moments(&task, &memory, n_threads);
    memset(sums, 0, (size_t)d * sizeof *sums);
    memset(squares, 0, (size_t)d * sizeof *squares);
    if (fs_for_parts_in_pieces(moments_part, &task, task.n_parts, n_threads, rows,
                               4.0 * (double)rows->n_rows * (double)d))
        return 0;
    for (ptrdiff_t part = 0; part < task.n_parts; ++part) {
        const double *own = task.sums + part * 2 * d;
        for (ptrdiff_t j = 0; j < d; ++j) {
            sums[j] += own[j];
            squares[j] += own[d + j];
        }
        if (largest == largest && !(task.largest[part] <= largest)) largest = task.largest[part];
    }
    return largest;
}

#define ADD_ENTRIES(type)                                                     \
    for (ptrdiff_t p = begin; p < end; ++p) {                                 \
        const ptrdiff_t j = INDEX_AT(rows->indices, p, wide);                 \
        const double x = (double)((const type *)rows->x)[p], wx = weight * x; \
        sums[j] += wx;                                                        \
        squares[j] += wx * x;                                                 \
    }

void fs_csr_moments(const kernels *kern, double *sums, double *squares, const fs_rows *rows) {
    const int wide = rows->wide_index;
    const ptrdiff_t d = rows->n_features;
    memset(sums, 0, (size_t)d * sizeof *sums);
    memset(squares, 0, (size_t)d * sizeof *squares);
    for (ptrdiff_t i = 0; i < rows->n_rows; ++i) {
        const ptrdiff_t begin = INDEX_AT(rows->indptr, i, wide);
        const ptrdiff_t end = INDEX_AT(rows->indptr, i + 1, wide);
        const double weight = kern->real_size == 4 ? (double)((const float *)rows->row_weights)[i]
                                                   : ((const double *)rows->row_weights)[i];
        if (rows->x_type == FS_X_F32) {
            ADD_ENTRIES(float)
        } else {
            ADD_ENTRIES(double)
        }
    }
}

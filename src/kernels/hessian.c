/* The Hessian of the loss over dense rows: how it is cut. Each part of the rows has sums of its
 * own, as many as fit the memory below; they are added in order where the result is written. */
#include <string.h>

#include "arena.h"
#include "pack.h"
#include "panels.h"
#include "pass.h"
#include "rows.h"

/* Rows of a block: a panel of them takes an eighth of a first-level cache, where three panels of z
 * and one of shares meet; all of its panels should stay in the second level. */
enum { BLOCK_ROWS = 128, BLOCK_BYTES = 256 * 1024, MOST_HESSIAN_PARTS = 16, N_PLACE_TABLES = 2 };
#define SUMS_BYTES ((double)(32 << 20))

typedef struct {
    const kernels *kern;
    const fs_rows *rows;
    const void *weights, *bias;
    double *hessian;
    fs_panels panels;
    ptrdiff_t block_rows, n_blocks, n_parts, n_places;
    ptrdiff_t sums_size;            /* doubles of a part */
    ptrdiff_t z_bytes, probs_bytes; /* of a thread */
    ptrdiff_t round, n_rounds;      /* pieces of each part */
    double *sums, n_products, pack_bytes;
    char *z, *shares, *probs, *rest, *packed; /* for each thread */
} hessian_task;

static void plan_hessian(hessian_task *t, int with_bias) {
    const fs_rows *rows = t->rows;
    const ptrdiff_t size = t->kern->real_size, width = t->kern->hessian.panel_width;
    const ptrdiff_t m = rows->n_features + (with_bias != 0);
    t->panels.n_columns = m;
    t->panels.n_panels = ceil_div(m, width);
    t->n_places = t->panels.n_panels * width;
    const ptrdiff_t fitting = BLOCK_BYTES / size / max_size(1, t->n_places) / 16 * 16;
    t->block_rows = max_size(LEAST_ROWS, min_size(BLOCK_ROWS, fitting));
    t->n_blocks = ceil_div(rows->n_rows, t->block_rows);
    t->pack_bytes = fs_pack_bytes(rows, t->block_rows);
    t->z_bytes = (t->block_rows + 1) * t->n_places * size;
    t->probs_bytes = rows->n_classes * t->block_rows * size;
}

/* The parts, and what is too large to be sure of a ptrdiff_t before it is known to fit memory. */
static void take_hessian(hessian_task *t, arena *memory, int with_bias, int n_threads) {
    const double n_logits = (double)t->rows->n_logits;
    plan_hessian(t, with_bias);
    const double pair = (double)t->n_places * (double)t->n_places;
    const double sums = n_logits * (n_logits + 1) / 2 * pair;
    t->n_products = (double)t->rows->n_rows * sums / 2;
    const double parts = fmin(SUMS_BYTES / (sums * (double)sizeof(double) + 1),
                              t->n_products / (double)GRAIN_PRODUCTS);
    const ptrdiff_t most = min_size(MOST_HESSIAN_PARTS, t->n_blocks);
    t->n_parts = max_size(1, parts < (double)most ? (ptrdiff_t)parts : most);
    t->sums = take(memory, (double)t->n_parts * sums * (double)sizeof(double));
    t->sums_size = memory->memory ? (ptrdiff_t)sums : 0;
    const double threads = (double)min_size(n_threads, t->n_parts);
    t->panels.places =
        take(memory, (double)N_PLACE_TABLES * (double)t->n_places * (double)sizeof(double));
    t->z = take(memory, threads * (double)t->z_bytes);
    t->shares = take(memory, threads * (double)t->z_bytes);
    t->probs = take(memory, threads * (double)t->probs_bytes);
    t->rest = take(memory, threads * (double)t->probs_bytes);
    t->packed = take(memory, threads * t->pack_bytes);
}

static void rows_part(void *task_, ptrdiff_t part, int thread) {
    const hessian_task *t = task_;
    const fs_rows *rows = t->rows;
    const fs_hessian *hessian = &t->kern->hessian;
    const ptrdiff_t begin = part_begin(t->n_blocks, t->n_parts, part);
    const ptrdiff_t n = part_begin(t->n_blocks, t->n_parts, part + 1) - begin;
    const ptrdiff_t first = begin + part_begin(n, t->n_rounds, t->round);
    const ptrdiff_t end = begin + part_begin(n, t->n_rounds, t->round + 1);
    double *sums = t->sums + part * t->sums_size;
    char *z = t->z + thread * t->z_bytes, *shares = t->shares + thread * t->z_bytes;
    char *probs = t->probs + thread * t->probs_bytes, *rest = t->rest + thread * t->probs_bytes;
    if (!t->round) memset(sums, 0, (size_t)t->sums_size * sizeof *sums);
    for (ptrdiff_t b = first; b < end; ++b) {
        const ptrdiff_t row = b * t->block_rows, stride = t->block_rows;
        fs_block block = {NULL, row, min_size(stride, rows->n_rows - row), NULL};
        block = fs_pack(rows, block, t->packed + thread * (ptrdiff_t)t->pack_bytes);
        t->kern->dense[rows->x_type].panel_rows(z, probs, rows, t->weights, t->bias, &t->panels,
                                                stride, block);
        hessian->probabilities(probs, rest, stride, block.n_rows, rows->n_classes, rows->n_logits);
        const fs_curved_rows curved = {z,
                                       probs,
                                       rest,
                                       at(rows->row_weights, row, t->kern->real_size),
                                       stride,
                                       block.n_rows,
                                       t->panels.n_columns,
                                       rows->n_logits};
        hessian->add_rows(sums, shares, &curved);
    }
}

/* The elements of the column a of logit k with the columns from a on of the logits from k on, and
 * those that mirror them. */
static void write_part(void *task_, ptrdiff_t part, int thread) {
    const hessian_task *t = task_;
    const ptrdiff_t m = t->panels.n_columns, n_logits = t->rows->n_logits, size = n_logits * m;
    const ptrdiff_t k = part / m, a = part % m, n = t->n_places;
    const ptrdiff_t width = t->kern->hessian.panel_width;
    const ptrdiff_t place_a = place_of(&t->panels, width, a);
    const double *sums =
        t->sums + (k * n_logits - k * (k - 1) / 2) * n * n; /* of the pair (k, k) */
    (void)thread;
    for (ptrdiff_t l = k; l < n_logits; ++l, sums += n * n) {
        if (k == l && n_logits > 1) continue;
        for (ptrdiff_t j = a; j < m; ++j) {
            const ptrdiff_t place_j = place_of(&t->panels, width, j);
            const double *sum = sums + min_size(place_a, place_j) * n + max_size(place_a, place_j);
            double total = 0;
            for (ptrdiff_t p = 0; p < t->n_parts; ++p) total += sum[p * t->sums_size];
            t->hessian[(k * m + a) * size + l * m + j] = total;
            t->hessian[(k * m + j) * size + l * m + a] = total;
            t->hessian[(l * m + a) * size + k * m + j] = total;
            t->hessian[(l * m + j) * size + k * m + a] = total;
        }
    }
}

/* A row of the blocks of one logit: -1 times the sum of its blocks with the others. */
static void write_own_block(void *task_, ptrdiff_t part, int thread) {
    const hessian_task *t = task_;
    const ptrdiff_t m = t->panels.n_columns, n_logits = t->rows->n_logits, k = part / m;
    double *row = t->hessian + part * n_logits * m, *own = row + k * m;
    (void)thread;
    memset(own, 0, (size_t)m * sizeof *own);
    for (ptrdiff_t l = 0; l < n_logits; ++l)
        for (ptrdiff_t j = 0; l != k && j < m; ++j) own[j] -= row[l * m + j];
}

ptrdiff_t fs_hessian_scratch(const kernels *kern, const fs_rows *rows, int with_bias,
                             int n_threads) {
    arena memory = {0};
    hessian_task task = {.kern = kern, .rows = rows};
    take_hessian(&task, &memory, with_bias, n_threads);
    return taken_bytes(&memory);
}

void fs_hessian_sums(const kernels *kern, double *hessian, const fs_rows *rows, const void *weights,
                     const void *bias, const fs_coordinates *coordinates, void *scratch,
                     int n_threads) {
    arena memory = arena_in(scratch);
    hessian_task task = {.kern = kern, .rows = rows, .weights = weights, .bias = bias};
    task.hessian = hessian;
    take_hessian(&task, &memory, coordinates->with_bias, n_threads);
    if (task.panels.n_columns == 0 || rows->n_logits == 0) return;
    kern->hessian.place((void *)task.panels.places, coordinates, rows->n_features);
    task.n_rounds = n_pieces(rows, task.n_products);
    for (task.round = 0; task.round < task.n_rounds; ++task.round) {
        if (task.round && is_interrupted(rows)) return;
        fs_for_parts(rows_part, &task, task.n_parts, n_threads, task.n_products);
    }
    const ptrdiff_t n = rows->n_logits * task.panels.n_columns;
    if (task.n_parts == 1) n_threads = 1;
    fs_for_parts(write_part, &task, n, n_threads, 0);
    if (rows->n_logits > 1) fs_for_parts(write_own_block, &task, n, n_threads, 0);
}

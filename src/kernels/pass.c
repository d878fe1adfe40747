/* A pass over the rows: how it is cut, and loss and gradient in one go. */
#include "pass.h"

#include <string.h>

#include "csr.h"
#include "pack.h"
#include "rows.h"

/* Rows of a block: its features stay in half of a small second-level cache between the two halves
 * of the pass. A multiple of 16 in [16, 128], which kernels.h promises the operations. */
enum { BLOCK_BYTES = 256 * 1024, MOST_ROWS = 128 };

static ptrdiff_t block_rows(const fs_rows *problem) {
    const ptrdiff_t row_elements = BLOCK_BYTES / fs_x_size[problem->x_type];
    const ptrdiff_t rows = row_elements / max_size(1, problem->n_features) / 16 * 16;
    return max_size(LEAST_ROWS, min_size(MOST_ROWS, rows));
}

/* Multiply-adds of a pass that stays in one thread, about 0.1 ms: many of those follow each other,
 * and where other programs want the processors, each would wait for its threads to be given one. */
#define SERIAL_PASS ((ptrdiff_t)1 << 24)

/* Two ways to add up the gradient. With few coefficients each part of the rows has a gradient of
 * its own, and the parts are added at the end ("parts"). With many, that memory would be large: the
 * rows go by in panels; first the residuals of a panel are computed, blocks in parallel, then every
 * range of classes is added up over the panel's blocks by one thread ("panels").
 * Threshold: 16 parts must fit PARTS_BYTES. Panels of 2, 4 and 8 MB take the same time
 * (20000 x 768, K = 1000: 0.172, 0.175, 0.179 s); of 4 MB there are 13 blocks for threads. */
#define PANEL_BYTES ((double)(4 << 20))
enum { FEWEST_PARTS = 16, PANEL_CLASSES = 48 };

pass_plan fs_plan_pass(const kernels *kern, const fs_rows *rows) {
    pass_plan plan;
    const double n_params = (double)rows->n_logits * ((double)rows->n_features + 1);
    const double most_parts = PARTS_BYTES / (n_params * (double)kern->real_size + 1);
    plan.block_rows = block_rows(rows);
    plan.n_blocks = ceil_div(rows->n_rows, plan.block_rows);
    plan.n_params = rows->n_logits * (rows->n_features + 1);
    plan.partial_stride = ceil_div(plan.n_params, 16) * 16;
    plan.residual_size = rows->n_classes * plan.block_rows;
    plan.pack_bytes = fs_pack_bytes(rows, plan.block_rows);
    plan.n_parts = fs_pass_work(rows, rows->n_rows) < SERIAL_PASS
                       ? 1
                       : max_size(1, min_size(min_size(MOST_PARTS, plan.n_blocks),
                                              fs_pass_work(rows, rows->n_rows) / GRAIN_PRODUCTS));
    plan.panel_blocks = 0;
    if (most_parts < (double)FEWEST_PARTS && most_parts < (double)plan.n_parts) {
        const double block_bytes = (double)plan.residual_size * (double)kern->real_size;
        const double blocks = PANEL_BYTES / (block_bytes + 1);
        plan.panel_blocks = max_size(4, min_size(64, (ptrdiff_t)blocks));
        plan.n_parts = min_size(plan.panel_blocks, max_size(1, plan.n_blocks));
    } else if (most_parts < (double)plan.n_parts) {
        plan.n_parts = (ptrdiff_t)most_parts;
    }
    return plan;
}

static fs_block block_at(const pass_task *t, ptrdiff_t row, ptrdiff_t end) {
    return (fs_block){t->order, row, max_size(0, min_size(t->plan.block_rows, end - row)), NULL};
}

static const fs_dense *dense_of(const pass_task *t) { return &t->kern->dense[t->rows->x_type]; }

static char *residual_of(const pass_task *t, ptrdiff_t i) {
    return at(t->residuals, i * t->plan.residual_size, t->kern->real_size);
}

static fs_block packed(const pass_task *t, fs_block block, ptrdiff_t slot) {
    return fs_pack(t->rows, block, t->packed + slot * (ptrdiff_t)t->plan.pack_bytes);
}

static ptrdiff_t first_row(const pass_task *t, ptrdiff_t part) {
    const ptrdiff_t n_blocks = ceil_div(t->n_rows, t->plan.block_rows), n_parts = t->plan.n_parts;
    const ptrdiff_t block = part_begin(n_blocks, n_parts, min_size(part, n_parts));
    return t->first + min_size(t->n_rows, block * t->plan.block_rows);
}

/* The block that a thread is likely to read after the last one of a part. */
static fs_block block_after(const pass_task *t, ptrdiff_t part) {
    if (t->to_next) return block_at(t, first_row(t, part) + t->to_next, t->end_next);
    return block_at(t, first_row(t, part + t->n_threads), t->first + t->n_rows);
}

static void gradient_part(void *task_, ptrdiff_t part, int thread) {
    const pass_task *t = task_;
    const ptrdiff_t size = t->kern->real_size, n_logits = t->rows->n_logits;
    const ptrdiff_t block = t->plan.block_rows;
    const ptrdiff_t first = first_row(t, part), end = first_row(t, part + 1);
    const ptrdiff_t n_blocks = ceil_div(end - first, block);
    const ptrdiff_t begin = first + part_begin(n_blocks, t->n_rounds, t->round) * block;
    const ptrdiff_t stop = first + part_begin(n_blocks, t->n_rounds, t->round + 1) * block;
    char *residual = residual_of(t, thread);
    char *partial = t->partials ? at(t->partials, part * t->plan.partial_stride, size) : NULL;
    const fs_block none = {NULL, 0, 0, NULL};
    fs_sums sums = {0, 0};
    if (t->round) sums = t->sums[part];
    if (partial && !t->round) memset(partial, 0, (size_t)(t->plan.n_params * size));
    for (ptrdiff_t row = begin; row < min_size(stop, end); row += block) {
        const fs_block now = packed(t, block_at(t, row, end), thread);
        char *partial_bias = partial ? at(partial, n_logits * t->rows->n_features, size) : NULL;
        if (n_logits < t->rows->n_classes) {
            dense_of(t)->one_logit_block(partial, partial_bias, &sums, t->rows, t->weights, t->bias,
                                         now);
            continue;
        }
        fs_block next = row + block < end ? block_at(t, row + block, end) : block_after(t, part);
        if (now.packed) next.n_rows = 0;
        dense_of(t)->residual_block(residual, &sums, t->rows, t->weights, t->bias, block, now,
                                    partial ? none : next);
        if (partial)
            dense_of(t)->grad_block(partial, partial_bias, residual, t->rows, block, now, next, 0,
                                    n_logits);
    }
    t->sums[part] = sums;
}

int fs_gradient_parts(pass_task *task, int n_threads) {
    const double products = (double)fs_pass_work(task->rows, task->n_rows);
    task->n_rounds = n_pieces(task->rows, products);
    for (task->round = 0; task->round < task->n_rounds; ++task->round) {
        if (task->round && is_interrupted(task->rows)) return 1;
        fs_for_parts(gradient_part, task, task->plan.n_parts, n_threads, products + task->to_come);
    }
    return 0;
}

/* Adding partial gradients: a range of coefficients, by one thread. */
static void sum_part(void *task_, ptrdiff_t part, int thread) {
    const pass_task *t = task_;
    const ptrdiff_t n_weights = t->rows->n_logits * t->rows->n_features;
    const ptrdiff_t begin = part * SUM_RANGE, end = min_size(begin + SUM_RANGE, t->plan.n_params);
    (void)thread;
    if (begin < n_weights)
        t->kern->sum_partials(t->grad_weights, t->partials, t->plan.partial_stride, t->plan.n_parts,
                              begin, min_size(end, n_weights));
    if (end > n_weights)
        t->kern->sum_partials(t->grad_bias, at(t->partials, n_weights, t->kern->real_size),
                              t->plan.partial_stride, t->plan.n_parts,
                              max_size(begin, n_weights) - n_weights, end - n_weights);
}

/* One block of a panel: residuals only. */
static void panel_residual_part(void *task_, ptrdiff_t part, int thread) {
    const pass_task *t = task_;
    const ptrdiff_t end = t->first + t->n_rows, row = t->first + part * t->plan.block_rows;
    const fs_block now = packed(t, block_at(t, row, end), part);
    fs_block next = block_at(t, min_size(end, row + t->n_threads * t->plan.block_rows), end);
    if (now.packed) next.n_rows = 0;
    (void)thread;
    t->sums[part] = (fs_sums){0, 0};
    dense_of(t)->residual_block(residual_of(t, part), &t->sums[part], t->rows, t->weights, t->bias,
                                t->plan.block_rows, now, next);
}

/* Ranges of classes that a panel's gradient is cut into: as many for each thread (a class is added
 * up by itself, so where the cuts are changes nothing). */
static ptrdiff_t panel_ranges(const pass_task *t) {
    const ptrdiff_t n = ceil_div(t->rows->n_logits, PANEL_CLASSES);
    return min_size(t->rows->n_logits, ceil_div(n, t->n_threads) * t->n_threads);
}

/* One range of classes, over all blocks of the panel in order. */
static void panel_gradient_part(void *task_, ptrdiff_t part, int thread) {
    const pass_task *t = task_;
    const ptrdiff_t size = t->kern->real_size, d = t->rows->n_features;
    const ptrdiff_t n_weights = t->rows->n_logits * d;
    const ptrdiff_t n_parts = panel_ranges(t), n_logits = t->rows->n_logits;
    const ptrdiff_t k0 = part_begin(n_logits, n_parts, part);
    const ptrdiff_t k1 = part_begin(n_logits, n_parts, part + 1);
    const ptrdiff_t end = t->first + t->n_rows;
    char *bias = at(t->partials, n_weights, size);
    (void)thread;
    memset(at(t->partials, k0 * d, size), 0, (size_t)((k1 - k0) * d * size));
    memset(at(bias, k0, size), 0, (size_t)((k1 - k0) * size));
    for (ptrdiff_t row = t->first, i = 0; row < end; ++i) {
        fs_block now = block_at(t, row, end), next = block_at(t, row += now.n_rows, end);
        if (t->plan.pack_bytes > 0) {
            now.packed = t->packed + i * (ptrdiff_t)t->plan.pack_bytes;
            next.n_rows = 0;
        }
        dense_of(t)->grad_block(t->partials, bias, residual_of(t, i), t->rows, t->plan.block_rows,
                                now, next, k0, k1);
    }
    t->kern->sum_partials(t->grad_weights, t->partials, 0, 1, k0 * d, k1 * d);
    t->kern->sum_partials(t->grad_bias, bias, 0, 1, k0, k1);
}

static fs_sums pass_by_panels(pass_task *task, int n_threads) {
    const ptrdiff_t n_rows = task->rows->n_rows;
    const ptrdiff_t panel_rows = task->plan.panel_blocks * task->plan.block_rows;
    const double panel_work = (double)fs_pass_work(task->rows, panel_rows);
    double work = 0;
    fs_sums total = {0, 0};
    for (ptrdiff_t first = 0; first < n_rows; first += panel_rows, work += panel_work) {
        if (work >= PIECE_PRODUCTS) {
            if (is_interrupted(task->rows)) break;
            work = 0;
        }
        task->first = first;
        task->n_rows = min_size(panel_rows, n_rows - first);
        const ptrdiff_t n_blocks = ceil_div(task->n_rows, task->plan.block_rows);
        fs_for_parts(panel_residual_part, task, n_blocks, n_threads, panel_work);
        if (task->partials)
            fs_for_parts(panel_gradient_part, task, panel_ranges(task), n_threads, panel_work);
        const fs_sums sums = fs_add_sums(task->sums, n_blocks);
        total.loss += sums.loss;
        total.correct += sums.correct;
    }
    return total;
}

void fs_take_pass(pass_task *task, arena *memory, ptrdiff_t n_partials, ptrdiff_t n_slots) {
    const pass_plan *plan = &task->plan;
    const double real_size = (double)task->kern->real_size, slots = (double)n_slots;
    task->partials = NULL;
    if (n_partials)
        task->partials =
            take(memory, (double)n_partials * (double)plan->partial_stride * real_size);
    task->sums = take(memory, (double)plan->n_parts * (double)sizeof(fs_sums));
    task->residuals = take(memory, slots * (double)plan->residual_size * real_size);
    task->packed = take(memory, slots * plan->pack_bytes);
}

/* The task of fs_loss_grad, and its memory; returns where the weights may be copied to. */
static char *begin_pass(pass_task *task, const kernels *kern, const fs_rows *rows, int with_grad,
                        int n_threads, arena *memory) {
    *task = (pass_task){0};
    task->kern = kern;
    task->rows = rows;
    task->plan = fs_plan_pass(kern, rows);
    task->n_rows = rows->n_rows;
    task->n_threads = n_threads;
    const int panels = task->plan.panel_blocks != 0;
    fs_take_pass(task, memory,
                 !with_grad ? 0
                 : panels   ? 1
                            : task->plan.n_parts,
                 panels ? task->plan.n_parts : n_threads);
    return take(memory, (double)task->plan.n_params * (double)kern->real_size);
}

ptrdiff_t fs_loss_grad_scratch(const kernels *kern, const fs_rows *rows, int with_grad,
                               int n_threads) {
    if (rows->indptr) return fs_csr_loss_grad_scratch(kern, rows, with_grad, n_threads);
    arena memory = {0};
    pass_task task;
    begin_pass(&task, kern, rows, with_grad, n_threads, &memory);
    return taken_bytes(&memory);
}

/* The weights at the start of a line, copied where they are not: every row tile loads them, and a
 * vector that spans two lines takes two loads (numpy aligns to 16 bytes; 3% of a pass). Rows of
 * weights that are no whole lines long gain nothing. */
static const void *align_weights(const pass_task *t, const void *weights, char *copy) {
    const ptrdiff_t row_bytes = t->rows->n_features * t->kern->real_size;
    if (row_bytes % 64 || (uintptr_t)weights % 64 == 0) return weights;
    return memcpy(copy, weights, (size_t)(t->rows->n_logits * row_bytes));
}

fs_sums fs_loss_grad(const kernels *kern, double *grad_weights, double *grad_bias,
                     const fs_rows *rows, const void *weights, const void *bias, void *scratch,
                     int n_threads) {
    if (grad_weights) {
        memset(grad_weights, 0, (size_t)(rows->n_logits * rows->n_features) * sizeof(double));
        memset(grad_bias, 0, (size_t)rows->n_logits * sizeof(double));
    }
    if (rows->n_rows == 0 || rows->n_logits == 0) return (fs_sums){0, 0};
    if (rows->indptr)
        return fs_csr_loss_grad(kern, grad_weights, grad_bias, rows, weights, bias, scratch,
                                n_threads);
    arena memory = arena_in(scratch);
    pass_task task;
    char *copy = begin_pass(&task, kern, rows, grad_weights != NULL, n_threads, &memory);
    task.weights = align_weights(&task, weights, copy);
    task.bias = bias;
    task.grad_weights = grad_weights;
    task.grad_bias = grad_bias;
    if (task.plan.panel_blocks) return pass_by_panels(&task, n_threads);
    if (fs_gradient_parts(&task, n_threads)) return (fs_sums){0, 0};
    if (grad_weights)
        fs_for_parts(sum_part, &task, ceil_div(task.plan.n_params, SUM_RANGE),
                     task.plan.n_parts > 1 ? n_threads : 1, 0);
    return fs_add_sums(task.sums, task.plan.n_parts);
}

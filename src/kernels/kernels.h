/* The one header that the bridge sees: what can be computed, and where the functions for a
 * number type and an instruction set are found.
 *
 * Conventions, once for every function below.
 * - "real" is float or double, fixed by the table that a function was taken from (real_size).
 *   Arrays of real travel as void pointers, so that one struct, one set of
 *   parallel functions and one bridge serve both types; inside the operations they are typed again
 * at once.
 * - Matrices are in C order. A stride counts elements from one row to the next and may be larger
 *   than the row, or negative; elements within a row are adjacent.
 * - Outputs come first, then inputs, then sizes. Outputs and inputs do not overlap unless a
 *   function says so. Every size and index is a ptrdiff_t; sizes may be 0 unless stated.
 * - Class weights are one row of `weights` for each logit. n_logits equals n_classes, or it is 1
 *   for two classes: the one logit is then the log-odds of class 1 and that of class 0 is 0.
 * - A kernel (a member of struct kernels) is serial, allocates nothing and keeps no state. Threads
 *   are the business of the functions of parallel.c (prefix fs_), memory that of their caller. */
#ifndef FASTSOFTMAX_KERNELS_H
#define FASTSOFTMAX_KERNELS_H

#include <stddef.h>
#include <stdint.h>

/* Number types that features are stored in. They are converted to real where they are loaded. */
typedef enum { FS_X_F32, FS_X_F64, FS_X_U8, FS_X_I8, FS_X_F16, FS_N_X_TYPES } fs_x_type;

/* The rows of a problem: features, targets and weights. Nothing is owned. */
typedef struct {
    const void *x; /* (n_rows, n_features) of x_type, rows x_stride apart */
    fs_x_type x_type;
    const int32_t *labels;    /* (n_rows) in [0, n_classes), or NULL: then target_probs counts */
    const void *target_probs; /* (n_rows, n_classes) real, C order, rows sum to 1, or NULL */
    const void *row_weights;  /* (n_rows) real, >= 0 */
    double label_smoothing;   /* in [0, 1]: targets become (1 - e) target + e / n_classes */
    ptrdiff_t x_stride;
    ptrdiff_t n_rows, n_features, n_classes, n_logits;
} fs_rows;

/* A block of those rows: rows first .. first + n_rows - 1, or, where row_index is given, the rows
 * row_index[first] .. row_index[first + n_rows - 1]. */
typedef struct {
    const int64_t *row_index;
    ptrdiff_t first, n_rows;
} fs_block;

/* Sums over rows that every pass returns beside the gradient. */
typedef struct {
    double loss;    /* sum of row_weight * cross-entropy, in nats */
    double correct; /* sum of row_weight over the rows whose largest logit is that of the target
                       (of two equal logits the first counts, as argmax does) */
} fs_sums;

/* The operations that read features, for one type of them. All NULL where a table does not have the
 * type: float arithmetic reads no doubles. */
typedef struct {
    /* logits[i, k] = x_i . weights_k + bias_k for the rows of a block, out[(i - first), k]. */
    void (*affine_rows)(void *logits, const fs_rows *rows, const void *weights, const void *bias,
                        ptrdiff_t logits_stride, fs_block block);

    /* Forward half of a pass over a block: residual[k * residual_stride + i] = row_weight_i *
     * (softmax - target)_k for the i-th row of the block, and *sums += its loss and hits.
     * residual has n_classes rows of residual_stride, a multiple of 16 that is at least the rows of
     * the block, at most 128; what lies past n_logits rows, or past the block's rows, is scratch.
     * next is a block to be read soon, which is fetched meanwhile (n_rows 0: none). */
    void (*residual_block)(void *residual, fs_sums *sums, const fs_rows *rows, const void *weights,
                           const void *bias, ptrdiff_t residual_stride, fs_block block,
                           fs_block next);

    /* Backward half: for the classes k in [class_begin, class_end) and the features j in
     * [0, n_features), grad_weights[k, j] += sum_i residual[k, i] x[i, j], and grad_bias[k] +=
     * sum_i residual[k, i], rows in order. next is the block to be read next (n_rows 0: none). */
    void (*grad_block)(void *grad_weights, void *grad_bias, const void *residual,
                       const fs_rows *rows, ptrdiff_t residual_stride, fs_block block,
                       fs_block next, ptrdiff_t class_begin, ptrdiff_t class_end);
} fs_dense;

typedef struct kernels {
    const char *isa;     /* "base", "avx2", "avx512" or "neon" */
    ptrdiff_t real_size; /* sizeof(real) */
    ptrdiff_t vec_width; /* reals in a vector */

    /* out[i] = exp(x[i]), log(x[i]); out may be x. */
    void (*exp_values)(void *out, const void *x, ptrdiff_t n);
    void (*log_values)(void *out, const void *x, ptrdiff_t n);

    /* Row by row; out may be logits when the strides agree. n_classes >= 1. */
    void (*softmax_rows)(void *out, const void *logits, ptrdiff_t out_stride,
                         ptrdiff_t logits_stride, ptrdiff_t n_rows, ptrdiff_t n_classes);
    void (*log_softmax_rows)(void *out, const void *logits, ptrdiff_t out_stride,
                             ptrdiff_t logits_stride, ptrdiff_t n_rows, ptrdiff_t n_classes);
    void (*logsumexp_rows)(void *out, const void *logits, ptrdiff_t logits_stride, ptrdiff_t n_rows,
                           ptrdiff_t n_classes);

    /* loss[i] = row_weight_i * cross-entropy of row i (in nats); where grad is given,
     * grad_i = row_weight_i * (softmax(logits_i) - target_i); grad may be logits when the strides
     * agree. Of `rows` only the targets, the weights, n_rows and n_classes are read; the logits
     * stand in for the product of x and weights. n_classes >= 1. */
    void (*cross_entropy_rows)(void *loss, void *grad, const void *logits, ptrdiff_t grad_stride,
                               ptrdiff_t logits_stride, const fs_rows *rows, ptrdiff_t first,
                               ptrdiff_t n_block_rows);

    fs_dense dense[FS_N_X_TYPES];

    /* For c in [begin, end): out[c] += sum_p partials[p * stride + c], p in order, in double. */
    void (*sum_partials)(double *out, const void *partials, ptrdiff_t stride, ptrdiff_t n_partials,
                         ptrdiff_t begin, ptrdiff_t end);

    /* One step of gradient descent for c in [begin, end), partial gradients added in order:
     *   g = scale * sum_p partials[p * stride + c] + weight_decay * params[c]
     *   velocity[c] = momentum * velocity[c] + g;  params[c] -= learning_rate * velocity[c]
     * velocity may be NULL when momentum is 0. */
    void (*sgd_update)(void *params, void *velocity, const void *partials, ptrdiff_t stride,
                       ptrdiff_t n_partials, ptrdiff_t begin, ptrdiff_t end, double scale,
                       double learning_rate, double momentum, double weight_decay);
} kernels;

/* dispatch.c: the tables that this build holds and this CPU and operating system can run, best
 * first. real_size is 4 or 8; NULL past the end of the list. */
const kernels *fs_kernels(ptrdiff_t real_size, int i);

/* ---- logit_rows.c, pass.c, sgd.c: the kernels over all rows, by threads (parallel.c) ----
 * Work is cut by problem size alone and partial results are added in order, so the bits of a
 * result do not depend on n_threads. n_threads <= 1 runs in the calling thread. */

int fs_has_openmp(void);
int fs_max_threads(void);  /* what OMP_NUM_THREADS, affinity or omp_set_num_threads allow */
void fs_watch_forks(void); /* call once: a child forked after a parallel region runs serially */

typedef void (*fs_row_op)(void *out, const void *logits, ptrdiff_t out_stride,
                          ptrdiff_t logits_stride, ptrdiff_t n_rows, ptrdiff_t n_classes);

void fs_softmax_rows(const kernels *kern, void *out, const void *logits, ptrdiff_t out_stride,
                     ptrdiff_t logits_stride, ptrdiff_t n_rows, ptrdiff_t n_classes, int n_threads);
void fs_log_softmax_rows(const kernels *kern, void *out, const void *logits, ptrdiff_t out_stride,
                         ptrdiff_t logits_stride, ptrdiff_t n_rows, ptrdiff_t n_classes,
                         int n_threads);
void fs_logsumexp_rows(const kernels *kern, void *out, const void *logits, ptrdiff_t logits_stride,
                       ptrdiff_t n_rows, ptrdiff_t n_classes, int n_threads);
void fs_cross_entropy_rows(const kernels *kern, void *loss, void *grad, const void *logits,
                           ptrdiff_t grad_stride, ptrdiff_t logits_stride, const fs_rows *rows,
                           int n_threads);
void fs_affine_rows(const kernels *kern, void *logits, const fs_rows *rows, const void *weights,
                    const void *bias, ptrdiff_t logits_stride, int n_threads);

/* Loss and gradient in one pass over the rows. grad_weights (n_logits, n_features) and grad_bias
 * (n_logits) are double and are overwritten; both NULL: the loss alone. scratch is
 * fs_loss_grad_scratch() bytes, aligned to 64 bytes (negative: too large to address). */
ptrdiff_t fs_loss_grad_scratch(const kernels *kern, const fs_rows *rows, int with_grad,
                               int n_threads);
fs_sums fs_loss_grad(const kernels *kern, double *grad_weights, double *grad_bias,
                     const fs_rows *rows, const void *weights, const void *bias, void *scratch,
                     int n_threads);

/* Stochastic gradient descent over the rows order[0 .. n_order-1], batch_size at a time (the last
 * batch may be smaller). params and velocity (NULL when momentum is 0) are real and hold the
 * weights (n_logits, n_features) and after them the bias (n_logits). The gradient of a batch is the
 * sum over its rows divided by batch_size, also for a smaller last batch: so every row of an epoch
 * moves the parameters alike. weight_decay acts on the weights, in proportion to the rows of the
 * batch; the bias is left alone unless fit_bias. The sums returned are those that the batches saw
 * before their updates. scratch as above, from fs_sgd_scratch. */
ptrdiff_t fs_sgd_scratch(const kernels *kern, const fs_rows *rows, ptrdiff_t batch_size,
                         int n_threads);
fs_sums fs_sgd_steps(const kernels *kern, void *params, void *velocity, const fs_rows *rows,
                     const int64_t *order, ptrdiff_t n_order, ptrdiff_t batch_size,
                     double learning_rate, double momentum, double weight_decay, int fit_bias,
                     void *scratch, int n_threads);

#endif

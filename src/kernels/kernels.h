/* The one header that the bridge sees: what can be computed, and where the functions for a
 * number type and an instruction set are found.
 *
 * Conventions, once for every function below.
 * - "real" is float or double, fixed by the table that a function was taken from (real_size).
 *   Arrays of real travel as void pointers, so that one struct, one set of
 *   parallel functions and one bridge serve both types. The operations type them again at once.
 * - Matrices are in C order. A stride counts elements from one row to the next and may be larger
 *   than the row, or negative; elements within a row are adjacent, but for those of x.
 * - Outputs come first, then inputs, then sizes. Outputs and inputs do not overlap unless a
 *   function says so. Every size and index is a ptrdiff_t; sizes may be 0 unless stated.
 * - `weights` are the coefficients, one row for each logit. n_logits equals n_classes, or it is 1
 *   for two classes: the one logit is then the log-odds of class 1 and that of class 0 is 0.
 * - A kernel (a member of struct kernels) is serial, allocates nothing and keeps no state. Threads
 *   are the business of the functions of parallel.c (prefix fs_), memory that of their caller. */
#ifndef FASTSOFTMAX_KERNELS_H
#define FASTSOFTMAX_KERNELS_H

#include <stddef.h>
#include <stdint.h>

/* Number types that features are stored in. They are converted to real where they are loaded. */
typedef enum { FS_X_F32, FS_X_F64, FS_X_U8, FS_X_I8, FS_X_F16, FS_N_X_TYPES } fs_x_type;

/* The columns of rows in CSR form, for gradients: cut into panels of panel_rows rows (the last one
 * may have fewer), and of each panel the columns that are not empty, by feature. Column c, of the
 * panel p with panel_columns[p] <= c < panel_columns[p + 1], is that of features[c]; its entries
 * are starts[c] .. starts[c + 1] - 1, rows ascending and counted from the panel's first. */
typedef struct {
    ptrdiff_t panel_rows;
    const int64_t *panel_columns, *starts;
    const int32_t *features, *rows;
    const void *values; /* of x_type */
} fs_columns;

/* The rows of a problem: features, targets and row weights. Nothing is owned. */
typedef struct {
    const void *x; /* dense: (n_rows, n_features) of x_type; CSR: the values */
    fs_x_type x_type;
    const void *indices, *indptr; /* CSR: feature of each value, and where rows begin; else NULL */
    int wide_index;               /* indices and indptr are int64_t, otherwise int32_t */
    const fs_columns *columns;    /* of CSR, where gradients are asked for */
    const int32_t *labels;    /* (n_rows) in [0, n_classes), or NULL: then target_probs counts */
    const void *target_probs; /* (n_rows, n_classes) real, C order, rows sum to 1, or NULL */
    const void *row_weights;  /* (n_rows) real, >= 0 */
    double label_smoothing;   /* in [0, 1]: targets become (1 - e) target + e / n_classes */
    ptrdiff_t x_stride, x_feature_stride; /* dense: elements from row to row, feature to feature */
    ptrdiff_t n_rows, n_features, n_classes, n_logits;
    /* Asked by the calling thread, between pieces of long work, whether to stop: where it is not 0
     * the function returns at once, and what it computed is incomplete (see each). NULL: never. */
    int (*interrupted)(void);
} fs_rows;

/* Element p of the indices or the indptr of such rows. */
#define INDEX_AT(indices, p, wide)                       \
    ((wide) ? (ptrdiff_t)((const int64_t *)(indices))[p] \
            : (ptrdiff_t)((const int32_t *)(indices))[p])

/* A block of those rows: rows first .. first + n_rows - 1, or, where row_index is given, the rows
 * row_index[first] .. row_index[first + n_rows - 1]. Where packed is given, their features are
 * there, row after row, in x_type; it has to be given where x_feature_stride is not 1. */
typedef struct {
    const int64_t *row_index;
    ptrdiff_t first, n_rows;
    const void *packed;
} fs_block;

/* Sums over rows that every pass returns beside the gradient. */
typedef struct {
    double loss;    /* sum of row_weight * cross-entropy, in nats */
    double correct; /* sum of row_weight over the rows whose largest logit is that of the target
                       (of two equal logits the first counts, as argmax does) */
} fs_sums;

/* How gradient descent goes, and in which coordinates: those of the features
 * squared_scale_j^(1/2) (x_j - center_j), real. squared_scale NULL: as they are, and center is not
 * read. center NULL: not shifted, as it has to be where rows are in CSR form. */
typedef struct {
    ptrdiff_t batch_size;
    double learning_rate, momentum, l2;
    int fit_bias;
    const void *squared_scale, *center;
} fs_descent;

/* Partial gradients of a batch, real: that of c is scale * sum_p sums[p * stride + c], p in order.
 */
typedef struct {
    const void *sums;
    ptrdiff_t stride, n_partials;
    double scale;
} fs_partials;

/* Coordinates of rows of features: z = scale * (x - center), and a 1 behind it where with_bias.
 * scale NULL: ones. */
typedef struct {
    const double *center, *scale;
    int with_bias;
} fs_coordinates;

/* Rows z of n_columns numbers as the products of a Hessian read them: in panels of panel_width
 * columns, z[(panel * (n_rows + 1) + i) * panel_width + place]. (A row is added to each panel, so
 * that they do not meet in the same sets of a cache.) The columns that are left over, the last
 * ones, are in the first panel, zeros behind them; the others follow in their order. `places` is
 * real, (2, n_panels * panel_width): center and scale of each place. */
typedef struct {
    const void *places;
    ptrdiff_t n_columns, n_panels;
} fs_panels;

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

    /* Both halves of a pass over a block of rows of two classes with one logit: *sums += loss and
     * hits, grad_weights[j] += sum_i residual[i] x[i, j], *grad_bias += sum_i residual[i]; both
     * NULL: the sums alone. At most 128 rows. */
    void (*one_logit_block)(void *grad_weights, void *grad_bias, fs_sums *sums, const fs_rows *rows,
                            const void *weights, const void *bias, fs_block block);

    /* logits[k * logits_stride + i] of the i-th row of the block, laid out as residuals are; where
     * a class has no logit, its row is 0, behind the others. z: the rows in panels. logits NULL:
     * these alone. */
    void (*panel_rows)(void *z, void *logits, const fs_rows *rows, const void *weights,
                       const void *bias, const fs_panels *panels, ptrdiff_t logits_stride,
                       fs_block block);

    /* With y = units * (x - shift) of the rows of a block, real: sums[j] += row_weight y_j and
     * squares[j] += row_weight y_j^2, summed up in real before; *largest becomes the largest
     * squared length of a row y, if that is larger or NaN. partial is scratch, 2 n_features real.
     */
    void (*moment_rows)(double *sums, double *squares, double *largest, void *partial,
                        const fs_rows *rows, const void *shift, const void *units, fs_block block);
} fs_dense;

/* Rows in panels, with what a Hessian takes of them. probs[k * stride + i] is the probability of
 * logit k's class, rest[k * stride + i] that of the other classes together; both have whole vectors
 * of rows. */
typedef struct {
    const void *z, *probs, *rest, *row_weights;
    ptrdiff_t stride, n_rows, n_columns, n_logits;
} fs_curved_rows;

/* What sums over rows (diag(p) - p p^T) (x) z z^T, row by row weighted. */
typedef struct {
    ptrdiff_t panel_width; /* numbers in a row of a panel */

    /* The places of fs_panels for rows of n_features features. */
    void (*place)(void *places, const fs_coordinates *coordinates, ptrdiff_t n_features);

    /* probs, as logits of all classes that panel_rows gave, become probabilities, and rest what is
     * left of 1: for the likeliest class the sum of the others, which keeps its digits. */
    void (*probabilities)(void *probs, void *rest, ptrdiff_t stride, ptrdiff_t n_rows,
                          ptrdiff_t n_classes, ptrdiff_t n_logits);

    /* For the pairs of logits (k, l), k < l, in the order of (0, 0), (0, 1) .. (1, 1) ..:
     * sums[pair, a, b] += the sum over the rows of row_weight h_kl z_a z_b for places a <= b, h_kl
     * = -p_k p_l. One logit: of the pair (0, 0), h_00 = p rest. Where there are more the pairs (k,
     * k) are left alone: h_kk is -1 times the sum of the h_kl of all other l. sums (n_pairs,
     * n_places, n_places); for b < a they are scratch. shares is scratch of the size of z. */
    void (*add_rows)(double *sums, void *shares, const fs_curved_rows *rows);
} fs_hessian;

/* The operations that read rows in CSR form. Weights and residuals lie by feature and by row here:
 * weights[j * weights_stride + k], residual[i * residual_stride + k], each followed by one vector's
 * room that may be read. Indices may be in any order, and occur twice: then they add up. */
typedef struct {
    /* With class_stride 1 as said; weights may also lie anyhow, weights_stride from feature to
     * feature and class_stride from class to class: slower, the same bits. */
    void (*affine_rows)(void *logits, const fs_rows *rows, const void *weights, const void *bias,
                        ptrdiff_t logits_stride, ptrdiff_t weights_stride, ptrdiff_t class_stride,
                        fs_block block);

    /* As that of fs_dense, but for the layout; logits is scratch of n_classes rows of
     * logits_stride, a multiple of 16 and at least the rows of the block. */
    void (*residual_block)(void *residual, fs_sums *sums, const fs_rows *rows, const void *weights,
                           const void *bias, void *logits, ptrdiff_t residual_stride,
                           ptrdiff_t weights_stride, ptrdiff_t logits_stride, fs_block block);

    /* grad_weights[k, j] += sum_i residual[i, k] x[i, j] for the columns of rows->columns in
     * [column_begin, column_end), all of one panel, to which the residuals belong. */
    void (*grad_columns)(double *grad_weights, const void *residual, const fs_rows *rows,
                         ptrdiff_t residual_stride, ptrdiff_t column_begin, ptrdiff_t column_end);

    /* One logit: grad_weights[j] += sum_i residual[i - first] x[i, j], rows of the block in order.
     */
    void (*add_rows)(double *grad_weights, const void *residual, const fs_rows *rows,
                     fs_block block);

    /* weights[j, k] += scale * feature_scale[j] * sum_i x[i, j] residual[i - first, k], rows of the
     * block in order; feature_scale may be NULL, for ones. */
    void (*add_to_rows)(void *weights, const void *residual, const fs_rows *rows,
                        const void *feature_scale, double scale, ptrdiff_t weights_stride,
                        ptrdiff_t residual_stride, fs_block block);
} fs_sparse;

/* A small problem, in double: dense rows, and the coordinates z that a solver has them in, with a 1
 * behind them where there is an intercept; l2 does not act on its coefficients. class_share is the
 * mean smoothed target of each class. */
typedef struct {
    const fs_rows *rows;
    const fs_coordinates *coordinates;
    const double *class_share;
    double l2;
} fs_small;

/* Sums over the rows of a small problem, weighted: loss and hits at a point, and the first and the
 * second derivative of the loss in the direction that led there. */
typedef struct {
    double loss, correct, slope, curvature;
} fs_line;

/* Newton's method for small problems, its parts, in double (all NULL where real is float). Matrices
 * lie as (classes or logits, n_rows); of two classes with one logit, the first has the logit 0.
 * Coefficients by place are (n_logits, n_places), as columns are in panels. */
typedef struct {
    /* logits[l * stride + i] = params[l] . z[i] for rows of a block in panels; params by place. */
    void (*logits)(double *logits, const fs_curved_rows *block, const double *params);

    /* At the logits + length * along: the sums, probs (n_classes, n_rows) and rest, the
     * probabilities of the other classes together. targets (n_classes, n_rows) are smoothed,
     * right[i] is the class of row i. */
    fs_line (*line)(double *probs, double *rest, const fs_rows *rows, const double *targets,
                    const double *right, const double *logits, const double *along, double length);

    /* gradient[l, place] += sum_i weight_i (probs - targets)[l * stride + i] z[i, place] for rows
     * of a block in panels. */
    void (*gradient)(double *gradient, const fs_curved_rows *block, const double *targets);

    /* Cholesky's factor replaces the upper triangle of hessian (n, n), the only one that is read;
     * returns whether there is one. diagonal (n) is scratch. */
    int (*factor)(double *hessian, double *diagonal, ptrdiff_t n);

    /* vector = hessian^-1 vector, by its factor. */
    void (*solve)(double *vector, const double *factor, ptrdiff_t n);
} fs_newton;

/* Sums over coefficients that assemble_gradient returns, of V (scaled weights), g (its result) and
 * the base: V.V, g.g, g.V, g.base, V.base. */
enum { FS_N_DOTS = 5 };

/* Inputs of three operations on matrices (n_logits, n_features) of double, rows adjacent.
 *
 * round_weights: weights[k, j] = scaled[k, j] * scale[j], rounded to float where to_float; along[k]
 * is the sum of what was rounded, times center[j]. scale NULL: ones. */
typedef struct {
    const double *scaled, *scale, *center;
    int to_float;
    ptrdiff_t n_logits, n_features;
} fs_rounding;

/* assemble_gradient: from the sums over the rows of the gradient by W to the gradient of F by V, in
 * place:
 *   g[k, j] = scale[j] * (share * (g[k, j] - mean over k of g[k, j])
 *                         - grad_bias[k] * center[j]) + l2 * V[k, j],
 *   V[k, j] = weights[k, j] / scale[j];
 * with one logit no mean is taken. weights are float where from_float; scale and base may be
 * NULL. dots: FS_N_DOTS sums, and after them those of weights[k, j] * center[j] for each k. */
typedef struct {
    const void *weights;
    const double *grad_bias, *center, *scale, *base;
    double share, l2;
    int from_float;
    ptrdiff_t n_logits, n_features;
} fs_gradient_terms;

/* within_product: w[k, j] = (gradient[k, j] - means[k, j] * grad_bias[k])
 *                           * inverse[k * inverse_stride + j];
 * dots[k] = sum of w[k, j] * means[k, j]; result = w less its mean over k (with one logit, w).
 * means NULL: zeros. */
typedef struct {
    const double *gradient, *inverse, *means, *grad_bias;
    ptrdiff_t inverse_stride, n_logits, n_features;
} fs_within;

/* A block of a block-diagonal matrix, (n_columns, n_columns), all real: I + Z^T Z for rows Z
 * (order, n_columns), factor the lower triangle L of L L^T = I + Z Z^T; without rows L L^T, of
 * order n_columns; of order 0 the identity. Rows of Z and of L are adjacent. */
typedef struct {
    const void *factor, *rows; /* rows may be NULL */
    ptrdiff_t order;
} fs_factored;

/* D^(1/2) B D^(1/2) for a block B of each logit, D^(-1/2) = roots (n_logits, n_columns): the
 * columns are n_features, and one more for an intercept. */
typedef struct {
    const fs_factored *blocks;
    const double *roots;
    ptrdiff_t n_logits, n_features, n_columns;
} fs_block_diagonal;

/* The solvers' vectors, in double (all NULL where real is float). Of matrices the columns in
 * [begin, end) are worked on. */
typedef struct {
    double (*dot)(const double *a, const double *b, ptrdiff_t n);

    /* out[i] = y[i] + scale * x[i]; returns the sum of out[i] * with[i], or 0 where with is NULL.
     * out may be y or x. */
    double (*add_scaled)(double *out, const double *y, double scale, const double *x,
                         const double *with, ptrdiff_t n);

    void (*round_weights)(void *weights, double *along, const fs_rounding *of, ptrdiff_t begin,
                          ptrdiff_t end);
    void (*assemble_gradient)(double *gradient, double *dots, const fs_gradient_terms *of,
                              ptrdiff_t begin, ptrdiff_t end);
    void (*within_product)(double *result, double *dots, const fs_within *of, ptrdiff_t begin,
                           ptrdiff_t end);
} fs_vectors;

/* The weights of a descent over rows in CSR form, laid out as those of fs_sparse, and how far each
 * feature has got: see ops/lazy.h. velocity may be NULL. */
typedef struct {
    void *weights, *velocity;
    int32_t *steps;
    const double *powers;
    ptrdiff_t n_logits, stride;
} fs_lazy;

/* Where the n_top likeliest classes of rows go, and their probabilities, which may be NULL.
 * 1 <= n_top <= n_classes. */
typedef struct {
    int64_t *classes;
    void *probs;
    ptrdiff_t classes_stride, probs_stride, n_top;
} fs_top;

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
     * agree. Of `rows` only the targets, the row weights, n_rows and n_classes are read; the logits
     * stand in for the product of x and weights. n_classes >= 1. */
    void (*cross_entropy_rows)(void *loss, void *grad, const void *logits, ptrdiff_t grad_stride,
                               ptrdiff_t logits_stride, const fs_rows *rows, ptrdiff_t first,
                               ptrdiff_t n_block_rows);

    /* Whether every element of an (n_rows, n_classes) matrix is finite. */
    int (*finite_rows)(const void *x, ptrdiff_t stride, ptrdiff_t n_rows, ptrdiff_t n_classes);

    /* The classes of the n_top largest logits of each row, largest first (of equal ones the smaller
     * class, NaN as -inf), and their softmax. */
    void (*top_rows)(const fs_top *top, const void *logits, ptrdiff_t logits_stride,
                     ptrdiff_t n_rows, ptrdiff_t n_classes);

    fs_dense dense[FS_N_X_TYPES];
    fs_sparse sparse[2]; /* values that are float, and (where real is double) double */

    /* For c in [begin, end): out[c] += sum_p partials[p * stride + c], p in order, in double. */
    void (*sum_partials)(double *out, const void *partials, ptrdiff_t stride, ptrdiff_t n_partials,
                         ptrdiff_t begin, ptrdiff_t end);

    /* One step of gradient descent for c in [begin, end):
     *   g = the sum of the partial gradients of c + l2 * params[c]
     *   velocity[c] = momentum * velocity[c] + g;  params[c] -= learning_rate * velocity[c]
     * velocity may be NULL when momentum is 0. */
    void (*sgd_update)(void *params, void *velocity, const fs_partials *gradient,
                       const fs_descent *how, ptrdiff_t begin, ptrdiff_t end);

    /* The same for all coefficients of the classes [class_begin, class_end), as fs_sgd_steps lays
     * them out, in the coordinates of the descent, whose squared_scale is given. */
    void (*sgd_update_scaled)(void *params, void *velocity, const fs_partials *gradient,
                              const fs_descent *how, ptrdiff_t n_logits, ptrdiff_t n_features,
                              ptrdiff_t class_begin, ptrdiff_t class_end);

    /* Steps without a gradient, made up for: see ops/lazy.h. For the features that rows of a block
     * (in CSR form) have, and for those in [begin, end). */
    void (*advance_rows)(const fs_lazy *table, const fs_rows *rows, int32_t step, fs_block block);
    void (*advance_features)(const fs_lazy *table, int32_t step, ptrdiff_t begin, ptrdiff_t end);

    /* For the features j that rows of a block (in CSR form) have, each once; grad lies as weights:
     *   g = scale * squared_scale[j] * grad[j, k];  grad[j, k] = 0
     *   velocity[j, k] += g;  weights[j, k] -= learning_rate * g */
    void (*apply_rows)(const fs_lazy *table, void *grad, const fs_rows *rows, const fs_descent *how,
                       double scale, fs_block block);

    /* The lower triangle of factor (order, order): L of L L^T = I + Z Z^T, for adjacent rows Z
     * (order, n_columns). Whether it was found: 0 where a product is not finite. */
    int (*factor_block)(void *factor, const void *rows, ptrdiff_t order, ptrdiff_t n_columns);

    /* vector (n_columns) = the inverse of a block times vector; inner has block->order numbers. */
    void (*solve_block)(void *vector, void *inner, const fs_factored *block, ptrdiff_t n_columns);

    fs_hessian hessian;
    fs_vectors vectors;
    fs_newton newton;
} kernels;

/* dispatch.c: the tables that this build holds and this CPU and operating system can run, best
 * first. real_size is 4 or 8; NULL past the end of the list. */
const kernels *fs_kernels(ptrdiff_t real_size, int i);

/* ---- logit_rows.c, predict.c, pass.c, sgd.c: the kernels over all rows, by threads (parallel.c)
 * ---- Work is cut by problem size alone and partial results are added in order, so the bits of a
 * result do not depend on n_threads. n_threads <= 1 runs in the calling thread. */

int fs_has_openmp(void);
int fs_max_threads(void);  /* what OMP_NUM_THREADS, affinity or omp_set_num_threads allow;
                              without OpenMP the processors that there are */
void fs_watch_forks(void); /* call once: so that forked children have threads of their own */

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
/* scratch: fs_affine_scratch() bytes, aligned to 64 bytes, as below. */
ptrdiff_t fs_affine_scratch(const kernels *kern, const fs_rows *rows, int n_threads);
void fs_affine_rows(const kernels *kern, void *logits, const fs_rows *rows, const void *weights,
                    const void *bias, ptrdiff_t logits_stride, void *scratch, int n_threads);

/* Prediction from rows and weights in one pass; of `rows` only the features and the sizes are read.
 * fs_predict_rows: softmax of the logits (as_log: its logarithm) to probs (n_rows, n_classes).
 * fs_predict_top: what top_rows gives.
 * Both return whether every logit was finite. scratch is fs_predict_scratch() bytes, aligned to 64
 * bytes (negative: too large to address), with_logits for fs_predict_top. */
ptrdiff_t fs_predict_scratch(const kernels *kern, const fs_rows *rows, int with_logits,
                             int n_threads);
int fs_predict_rows(const kernels *kern, void *probs, const fs_rows *rows, const void *weights,
                    const void *bias, ptrdiff_t probs_stride, int as_log, void *scratch,
                    int n_threads);
int fs_predict_top(const kernels *kern, const fs_top *top, const fs_rows *rows, const void *weights,
                   const void *bias, void *scratch, int n_threads);

/* Loss and gradient in one pass over the rows. grad_weights (n_logits, n_features) and grad_bias
 * (n_logits) are double and are overwritten; both NULL: the loss alone. scratch is
 * fs_loss_grad_scratch() bytes, aligned to 64 bytes (negative: too large to address). */
ptrdiff_t fs_loss_grad_scratch(const kernels *kern, const fs_rows *rows, int with_grad,
                               int n_threads);
fs_sums fs_loss_grad(const kernels *kern, double *grad_weights, double *grad_bias,
                     const fs_rows *rows, const void *weights, const void *bias, void *scratch,
                     int n_threads);

/* Of rows in CSR form fs_loss_grad needs the columns, for a gradient by several logits, cut into
 * panels of this many rows. By one logit, with no columns given, rows add to the gradient: as fast
 * where there are tens of entries for each feature. */
ptrdiff_t fs_panel_rows(const kernels *kern, ptrdiff_t n_logits);

/* For one panel of such rows and factors (rows of the panel, n_logits), real: sums[k, j] += sum_i
 * factors[i, k] x[i, j], and totals[k] += sum_i factors[i, k]. The number type of the values must
 * be that of the factors, or float. scratch is fs_columns_scratch() bytes. */
ptrdiff_t fs_columns_scratch(const kernels *kern, const fs_rows *rows);
void fs_columns_product(const kernels *kern, double *sums, double *totals, const fs_rows *rows,
                        const void *factors, ptrdiff_t panel, void *scratch, int n_threads);

/* ---- vectors.c: the members of fs_vectors over all elements, or all columns; kern is a table of
 * double. scratch is fs_column_scratch() bytes. ---- */
double fs_dot(const kernels *kern, const double *a, const double *b, ptrdiff_t n, int n_threads);
double fs_add_scaled(const kernels *kern, double *out, const double *y, double scale,
                     const double *x, const double *with, ptrdiff_t n, int n_threads);
ptrdiff_t fs_column_scratch(ptrdiff_t n_logits, ptrdiff_t n_features);
void fs_round_weights(const kernels *kern, void *weights, double *along, const fs_rounding *of,
                      void *scratch, int n_threads);
void fs_assemble_gradient(const kernels *kern, double *gradient, double *dots,
                          const fs_gradient_terms *of, void *scratch, int n_threads);
void fs_within_product(const kernels *kern, double *result, double *dots, const fs_within *of,
                       void *scratch, int n_threads);

/* ---- moments.c ---- With y = units * (x - shift) of dense rows, shift and units real: the sums of
 * row_weight y_j and row_weight y_j^2, by feature, and (returned) the largest squared length of a
 * row y; NaN where there is one. Of `rows` the targets are not read. Where it is interrupted, the
 * results are incomplete. scratch is fs_moments_scratch() bytes, aligned to 64 bytes (negative: too
 * large to address). */
ptrdiff_t fs_moments_scratch(const kernels *kern, const fs_rows *rows, int n_threads);
double fs_feature_moments(const kernels *kern, double *sums, double *squares, const fs_rows *rows,
                          const void *shift, const void *units, void *scratch, int n_threads);

/* Of rows in CSR form, the sums of row_weight x_j and row_weight x_j^2 over what is stored; what
 * occurs twice counts twice. */
void fs_csr_moments(const kernels *kern, double *sums, double *squares, const fs_rows *rows);

/* ---- hessian.c ---- The sum over dense rows of row_weight (diag(p) - p p^T) (x) z z^T, p the
 * probabilities of the model o = W x + b: hessian is (n_logits m, n_logits m), both triangles, m
 * the numbers of z; those of a logit lie together. Of `rows` the targets are not read. Where it is
 * interrupted, nothing is written. scratch is fs_hessian_scratch() bytes, aligned to 64 bytes
 * (negative: too large to address). */
ptrdiff_t fs_hessian_scratch(const kernels *kern, const fs_rows *rows, int with_bias,
                             int n_threads);
void fs_hessian_sums(const kernels *kern, double *hessian, const fs_rows *rows, const void *weights,
                     const void *bias, const fs_coordinates *coordinates, void *scratch,
                     int n_threads);

/* ---- newton.c ---- At most most_steps of Newton's method from start, of which several may go by
 * one Hessian (newton_model.c). points[i] are the params after step i, records[i] their mean loss,
 * accuracy, objective and the bound on its distance to the minimum. It stops where that is at most
 * target times the objective, or, if at most tol, where the objective no longer falls: DONE. STUCK:
 * something for a more careful method. base gets the gradient of the mean cross-entropy where every
 * row has the class shares. scratch is fs_newton_scratch() bytes. */
enum { FS_NEWTON_RECORD = 4 };
typedef enum { FS_NEWTON_DONE, FS_NEWTON_LIMIT, FS_NEWTON_STUCK } fs_newton_status;
typedef struct {
    ptrdiff_t n_steps;
    fs_newton_status status;
} fs_newton_end;
ptrdiff_t fs_newton_scratch(const kernels *kern, const fs_small *problem);
typedef struct {
    ptrdiff_t most_steps;
    double tol, target;
} fs_newton_limits;
fs_newton_end fs_newton_steps(const kernels *kern, double *points, double *records, double *base,
                              const double *start, const fs_small *problem,
                              const fs_newton_limits *limits, void *scratch);

/* ---- blocks.c ---- result = the inverse of the blocks times gradient, less its mean over the
 * logits where there is more than one. Both hold the weights of all logits, and then their
 * intercepts. kern is the table of the number type of the factors. scratch is fs_blocks_scratch()
 * bytes. */
int fs_factor_block(const kernels *kern, void *factor, const void *rows, ptrdiff_t order,
                    ptrdiff_t n_columns); /* the table's member */
ptrdiff_t fs_blocks_scratch(const kernels *kern, const fs_block_diagonal *of, int n_threads);
void fs_solve_blocks(const kernels *kern, double *result, const double *gradient,
                     const fs_block_diagonal *of, void *scratch, int n_threads);

/* Stochastic gradient descent over the rows order.rows[0 .. order.n - 1], batch_size at a time (the
 * last batch may be smaller). params and velocity (NULL when momentum is 0) are real and hold the
 * weights (n_logits, n_features) and after them the bias (n_logits). The gradient of a batch is the
 * sum over its rows divided by batch_size, also for a smaller last batch: so every row of an epoch
 * moves the parameters alike. l2 acts on the weights, in proportion to the rows of the batch. The
 * bias is left alone unless fit_bias. In scaled coordinates the steps are those of the weights and
 * bias that scaled features have, and params hold what that means for x itself; a shift moves the
 * bias also without fit_bias. The sums returned are those that the batches saw before their
 * updates. Where it is interrupted, whole steps have been taken. scratch as above, from
 * fs_sgd_scratch. */
typedef struct {
    const int64_t *rows;
    ptrdiff_t n;
} fs_order;
ptrdiff_t fs_sgd_scratch(const kernels *kern, const fs_rows *rows, ptrdiff_t batch_size,
                         int n_threads);
fs_sums fs_sgd_steps(const kernels *kern, void *params, void *velocity, const fs_rows *rows,
                     fs_order order, const fs_descent *how, void *scratch, int n_threads);

#endif

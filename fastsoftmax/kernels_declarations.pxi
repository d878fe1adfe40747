# (Part of kernels.pyx.) What src/kernels/kernels.h declares, as far as the bridge uses it.

cdef extern from "kernels.h" nogil:
    ctypedef enum fs_x_type:
        FS_X_F32, FS_X_F64, FS_X_U8, FS_X_I8, FS_X_F16

    ctypedef struct fs_columns:
        ptrdiff_t panel_rows
        const int64_t *panel_columns
        const int64_t *starts
        const int32_t *features
        const int32_t *rows
        const void *values

    ctypedef struct fs_rows:
        const void *x
        fs_x_type x_type
        const void *indices
        const void *indptr
        int wide_index
        const fs_columns *columns
        const int32_t *labels
        const void *target_probs
        const void *row_weights
        double label_smoothing
        ptrdiff_t x_stride, x_feature_stride, n_rows, n_features, n_classes, n_logits
        int (*interrupted)() noexcept nogil

    ctypedef struct fs_sums:
        double loss, correct

    ctypedef struct kernels:
        const char *isa
        void (*exp_values)(void *, const void *, ptrdiff_t) noexcept nogil
        void (*log_values)(void *, const void *, ptrdiff_t) noexcept nogil

    const kernels *fs_kernels(ptrdiff_t real_size, int i)
    int fs_has_openmp()
    int fs_max_threads()
    void fs_watch_forks()
    void fs_softmax_rows(const kernels *, void *out, const void *logits, ptrdiff_t, ptrdiff_t,
                         ptrdiff_t n_rows, ptrdiff_t n_classes, int n_threads)
    void fs_log_softmax_rows(const kernels *, void *out, const void *logits, ptrdiff_t, ptrdiff_t,
                             ptrdiff_t n_rows, ptrdiff_t n_classes, int n_threads)
    void fs_logsumexp_rows(const kernels *, void *out, const void *logits, ptrdiff_t,
                           ptrdiff_t n_rows, ptrdiff_t n_classes, int n_threads)
    void fs_cross_entropy_rows(const kernels *, void *loss, void *grad, const void *logits,
                               ptrdiff_t, ptrdiff_t, const fs_rows *, int n_threads)
    ptrdiff_t fs_affine_scratch(const kernels *, const fs_rows *, int n_threads)
    void fs_affine_rows(const kernels *, void *logits, const fs_rows *, const void *weights,
                        const void *bias, ptrdiff_t, void *scratch, int n_threads)
    ptrdiff_t fs_panel_rows(const kernels *, ptrdiff_t n_logits)
    ptrdiff_t fs_predict_scratch(const kernels *, const fs_rows *, int with_logits, int n_threads)
    int fs_predict_rows(const kernels *, void *probs, const fs_rows *, const void *weights,
                        const void *bias, ptrdiff_t, int as_log, void *scratch, int n_threads)
    ctypedef struct fs_top:
        int64_t *classes
        void *probs
        ptrdiff_t classes_stride, probs_stride, n_top

    int fs_predict_top(const kernels *, const fs_top *, const fs_rows *, const void *weights,
                       const void *bias, void *scratch, int n_threads)
    ptrdiff_t fs_loss_grad_scratch(const kernels *, const fs_rows *, int with_grad, int n_threads)
    fs_sums fs_loss_grad(const kernels *, double *grad_weights, double *grad_bias,
                         const fs_rows *, const void *weights, const void *bias, void *scratch,
                         int n_threads)
    ctypedef struct fs_descent:
        ptrdiff_t batch_size
        double learning_rate, momentum, l2
        int fit_bias
        const void *squared_scale
        const void *center

    ctypedef struct fs_order:
        const int64_t *rows
        ptrdiff_t n

    ptrdiff_t fs_sgd_scratch(const kernels *, const fs_rows *, ptrdiff_t batch_size, int n_threads)
    fs_sums fs_sgd_steps(const kernels *, void *params, void *velocity, const fs_rows *, fs_order,
                         const fs_descent *, void *scratch, int n_threads)
    int FS_N_DOTS
    ptrdiff_t fs_columns_scratch(const kernels *, const fs_rows *)
    void fs_columns_product(const kernels *, double *sums, double *totals, const fs_rows *,
                            const void *factors, ptrdiff_t panel, void *scratch, int n_threads)
    double fs_dot(const kernels *, const double *a, const double *b, ptrdiff_t, int n_threads)
    double fs_add_scaled(const kernels *, double *out, const double *y, double scale,
                         const double *x, const double *with_, ptrdiff_t, int n_threads)
    ptrdiff_t fs_column_scratch(ptrdiff_t n_logits, ptrdiff_t n_features)

    ctypedef struct fs_rounding:
        const double *scaled
        const double *scale
        const double *center
        int to_float
        ptrdiff_t n_logits, n_features

    ctypedef struct fs_gradient_terms:
        const void *weights
        const double *grad_bias
        const double *center
        const double *scale
        const double *base
        double share, l2
        int from_float
        ptrdiff_t n_logits, n_features

    ctypedef struct fs_within:
        const double *gradient
        const double *inverse
        const double *means
        const double *grad_bias
        ptrdiff_t inverse_stride, n_logits, n_features

    void fs_round_weights(const kernels *, void *weights, double *along, const fs_rounding *,
                          void *scratch, int n_threads)
    void fs_assemble_gradient(const kernels *, double *gradient, double *dots,
                              const fs_gradient_terms *, void *scratch, int n_threads)
    void fs_within_product(const kernels *, double *result, double *dots, const fs_within *,
                           void *scratch, int n_threads)

    ctypedef struct fs_coordinates:
        const double *center
        const double *scale
        int with_bias

    ctypedef struct fs_small:
        const fs_rows *rows
        const fs_coordinates *coordinates
        const double *class_share
        double l2

    int FS_NEWTON_RECORD
    ctypedef enum fs_newton_status:
        FS_NEWTON_DONE, FS_NEWTON_LIMIT, FS_NEWTON_STUCK
    ctypedef struct fs_newton_end:
        ptrdiff_t n_steps
        fs_newton_status status
    ctypedef struct fs_newton_limits:
        ptrdiff_t most_steps
        double tol, target
    ptrdiff_t fs_newton_scratch(const kernels *, const fs_small *)
    fs_newton_end fs_newton_steps(const kernels *, double *points, double *records, double *base,
                                  const double *start, const fs_small *, const fs_newton_limits *,
                                  void *scratch)

    ptrdiff_t fs_moments_scratch(const kernels *, const fs_rows *, int n_threads)
    void fs_csr_moments(const kernels *, double *sums, double *squares, const fs_rows *)
    double fs_feature_moments(const kernels *, double *sums, double *squares, const fs_rows *,
                              const void *shift, const void *units, void *scratch, int n_threads)
    ptrdiff_t fs_hessian_scratch(const kernels *, const fs_rows *, int with_bias, int n_threads)
    void fs_hessian_sums(const kernels *, double *hessian, const fs_rows *, const void *weights,
                         const void *bias, const fs_coordinates *, void *scratch, int n_threads)

    ctypedef struct fs_factored:
        const void *factor
        const void *rows
        ptrdiff_t order

    ctypedef struct fs_block_diagonal:
        const fs_factored *blocks
        const double *roots
        ptrdiff_t n_logits, n_features, n_columns

    int fs_factor_block(const kernels *, void *factor, const void *rows, ptrdiff_t order,
                        ptrdiff_t n_columns)
    ptrdiff_t fs_blocks_scratch(const kernels *, const fs_block_diagonal *, int n_threads)
    void fs_solve_blocks(const kernels *, double *result, const double *gradient,
                         const fs_block_diagonal *, void *scratch, int n_threads)

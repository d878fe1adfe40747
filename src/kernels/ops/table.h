/* Every operation, compiled for the words included before this file, and the table of them.
 * KERNELS is the table's name. */
#include "common.h"

#include "../vec/exp.h"

#include "values.h"

#include "softmax_rows.h"

#include "cross_entropy_rows.h"

#include "finite_rows.h"

#include "top_rows.h"

#include "residual_lanes.h"

#include "logistic_lanes.h"

#include "hessian_rows.h"

#define X_NAME f32
#define x_t float
#define X_LOAD v_load_f32
#if !REAL_IS_DOUBLE
#define X_LOAD_TAIL v_load_tail
#endif
#include "dense.h"

#if REAL_IS_DOUBLE
#define X_NAME f64
#define x_t double
#define X_LOAD v_load
#define X_LOAD_TAIL v_load_tail
#include "dense.h"
#endif

#define X_NAME u8
#define x_t uint8_t
#define X_LOAD v_load_u8
#include "dense.h"

#define X_NAME i8
#define x_t int8_t
#define X_LOAD v_load_i8
#include "dense.h"

#define X_NAME f16
#define x_t uint16_t /* its bits: C has no type for them */
#define X_LOAD v_load_f16
#include "dense.h"

#define X_NAME f32
#define x_t float
#include "sparse.h"

#if REAL_IS_DOUBLE
#define X_NAME f64
#define x_t double
#include "sparse.h"
#endif

#include "lazy.h"

#include "partials.h"

#include "vectors.h"

#include "newton_rows.h"

#include "factored_block.h"

#define DENSE(type)                                                    \
    {affine_rows_##type,     residual_block_##type, grad_block_##type, \
     one_logit_block_##type, panel_rows_##type,     moment_rows_##type}
#define SPARSE(type)                                                                      \
    {affine_rows_sparse_##type, residual_block_sparse_##type, grad_columns_sparse_##type, \
     add_rows_sparse_##type, add_to_rows_sparse_##type}

const kernels KERNELS = {
    .isa = ISA_NAME,
    .real_size = sizeof(real),
    .vec_width = VEC_WIDTH,
    .exp_values = exp_values,
    .log_values = log_values,
    .softmax_rows = softmax_rows,
    .log_softmax_rows = log_softmax_rows,
    .logsumexp_rows = logsumexp_rows,
    .cross_entropy_rows = cross_entropy_rows,
    .finite_rows = finite_rows,
    .top_rows = top_rows,
    .dense[FS_X_F32] = DENSE(f32),
#if REAL_IS_DOUBLE
    .dense[FS_X_F64] = DENSE(f64),
#endif
    .dense[FS_X_U8] = DENSE(u8),
    .dense[FS_X_I8] = DENSE(i8),
    .dense[FS_X_F16] = DENSE(f16),
    .sparse[FS_X_F32] = SPARSE(f32),
#if REAL_IS_DOUBLE
    .sparse[FS_X_F64] = SPARSE(f64),
#endif
    .advance_rows = advance_rows,
    .advance_features = advance_features,
    .apply_rows = apply_rows,
    .sum_partials = sum_partials,
    .sgd_update = sgd_update,
    .sgd_update_scaled = sgd_update_scaled,
    .factor_block = factor_block,
    .solve_block = solve_block,
    .hessian = {PANEL_WIDTH, place_columns, class_probabilities, add_hessian_rows},
#if REAL_IS_DOUBLE
    .vectors = {dot, add_scaled, round_weights, assemble_gradient, within_product},
    .newton = {newton_logits, newton_line, newton_gradient, newton_factor, newton_solve},
#endif
};

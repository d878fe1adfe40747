/* Every operation, compiled for the words included before this file, and the table of them.
 * KERNELS is the table's name. */
#include "common.h"

#include "../vec/exp.h"

#include "values.h"

#include "softmax_rows.h"

#include "cross_entropy_rows.h"

#include "affine_rows.h"

#include "residual_block.h"

#include "grad_block.h"

#include "partials.h"

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
    .affine_rows = affine_rows,
    .residual_block = residual_block,
    .grad_block = grad_block,
    .sum_partials = sum_partials,
    .sgd_update = sgd_update,
};

/* What is done with the partial gradients of the parts of a problem: they are added in order, for
 * each coefficient by itself, so any cut of [begin, end) among threads gives the same bits. */

static void sum_partials(double *RESTRICT out, const void *partials_, ptrdiff_t stride,
                         ptrdiff_t n_partials, ptrdiff_t begin, ptrdiff_t end) {
    const real *partials = partials_;
    for (ptrdiff_t p = 0; p < n_partials; ++p)
        for (ptrdiff_t c = begin; c < end; ++c) out[c] += (double)partials[p * stride + c];
}

/* One step of gradient descent with momentum and l2, as torch.optim.SGD defines it. */
static void sgd_update(void *params_, void *velocity_, const fs_partials *gradient,
                       const fs_descent *how, ptrdiff_t begin, ptrdiff_t end) {
    real *params = params_, *velocity = velocity_;
    const real *partials = gradient->sums;
    const ptrdiff_t stride = gradient->stride, n_partials = gradient->n_partials;
    const vec scales = v_set1((real)gradient->scale), decay = v_set1((real)how->l2);
    const vec rate = v_set1((real)how->learning_rate), keep = v_set1((real)how->momentum);
    for (ptrdiff_t c = begin; c < end; c += VEC_WIDTH) {
        const ptrdiff_t lanes = min_size(VEC_WIDTH, end - c);
        const real *partial = partials + c;
        vec sum = v_load_tail(partial, lanes, 0);
        for (ptrdiff_t p = 1; p < n_partials; ++p)
            sum = v_add(sum, v_load_tail(partial + p * stride, lanes, 0));
        vec w = v_load_tail(params + c, lanes, 0);
        vec step = v_fma(decay, w, v_mul(scales, sum));
        if (velocity) {
            step = v_fma(keep, v_load_tail(velocity + c, lanes, 0), step);
            v_store_tail(velocity + c, step, lanes);
        }
        v_store_tail(params + c, v_fnma(rate, step, w), lanes);
    }
}

/* The same for all coefficients of the classes [class_begin, class_end), in coordinates where the
 * features are scale_j (x_j - center_j); center may be NULL. */
static void sgd_update_scaled(void *params_, void *velocity_, const fs_partials *gradient,
                              const fs_descent *how, ptrdiff_t n_logits, ptrdiff_t n_features,
                              ptrdiff_t class_begin, ptrdiff_t class_end) {
    real *params = params_, *velocity = velocity_;
    const real *partials = gradient->sums, *squares = how->squared_scale, *center = how->center;
    const ptrdiff_t stride = gradient->stride, n_partials = gradient->n_partials;
    const double scale = gradient->scale, l2 = how->l2;
    const double learning_rate = how->learning_rate, momentum = how->momentum;
    for (ptrdiff_t k = class_begin; k < class_end; ++k) {
        const ptrdiff_t at_bias = n_logits * n_features + k;
        double bias_grad = 0, shifted = 0;
        for (ptrdiff_t p = 0; p < n_partials; ++p)
            bias_grad += (double)partials[p * stride + at_bias];
        for (ptrdiff_t j = 0, c = k * n_features; j < n_features; ++j, ++c) {
            double grad = 0;
            for (ptrdiff_t p = 0; p < n_partials; ++p) grad += (double)partials[p * stride + c];
            if (center) grad -= bias_grad * (double)center[j];
            double step = (double)squares[j] * scale * grad + l2 * (double)params[c];
            if (velocity) {
                step += momentum * (double)velocity[c];
                velocity[c] = (real)step;
            }
            params[c] -= (real)(learning_rate * step);
            if (center) shifted += step * (double)center[j];
        }
        double step = how->fit_bias ? scale * bias_grad : 0;
        if (velocity) {
            step += momentum * (double)velocity[at_bias];
            velocity[at_bias] = (real)step;
        }
        params[at_bias] -= (real)(learning_rate * (step - shifted));
    }
}

/* What is done with the partial gradients of the parts of a problem: they are added in order, for
 * each coefficient by itself, so any cut of [begin, end) among threads gives the same bits. */

static void sum_partials(double *RESTRICT out, const void *partials_, ptrdiff_t stride,
                         ptrdiff_t n_partials, ptrdiff_t begin, ptrdiff_t end) {
    const real *partials = partials_;
    for (ptrdiff_t p = 0; p < n_partials; ++p)
        for (ptrdiff_t c = begin; c < end; ++c) out[c] += (double)partials[p * stride + c];
}

/* One step of gradient descent with momentum and weight decay, as torch.optim.SGD defines it. */
static void sgd_update(void *params_, void *velocity_, const void *partials_, ptrdiff_t stride,
                       ptrdiff_t n_partials, ptrdiff_t begin, ptrdiff_t end, double scale,
                       double learning_rate, double momentum, double weight_decay) {
    real *params = params_, *velocity = velocity_;
    const vec scales = v_set1((real)scale), decay = v_set1((real)weight_decay);
    const vec rate = v_set1((real)learning_rate), keep = v_set1((real)momentum);
    for (ptrdiff_t c = begin; c < end; c += VEC_WIDTH) {
        const ptrdiff_t lanes = min_size(VEC_WIDTH, end - c);
        const real *partial = (const real *)partials_ + c;
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

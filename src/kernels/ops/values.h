/* out[i] = exp(x[i]) and log(x[i]), i < n, over the whole line; out may be x. The kernels use the
 * vector functions themselves; these two let tests hold them to their error bounds. */

FORCE_INLINE void map_values(real *out, const real *x, ptrdiff_t n, vec (*function)(vec)) {
    ptrdiff_t i = 0;
    for (; i + VEC_WIDTH <= n; i += VEC_WIDTH) v_store(out + i, function(v_load(x + i)));
    if (i < n) v_store_tail(out + i, function(v_load_tail(x + i, n - i, 1)), n - i);
}

static void exp_values(void *out, const void *x, ptrdiff_t n) { map_values(out, x, n, v_exp); }

static void log_values(void *out, const void *x, ptrdiff_t n) { map_values(out, x, n, v_log); }

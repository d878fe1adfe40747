/* The n_top largest logits of each row of an (n_rows, n_classes) matrix, 1 <= n_top <= n_classes:
 * classes[i * classes_stride + p] is the class of the p-th largest (of equal ones the smaller class
 * comes first, NaN counts as -inf), and where probs is given, probs[i * probs_stride + p] is its
 * softmax, to the bits of softmax_rows. Nothing is as long as a row but the row. */

FORCE_INLINE real rank_value(real logit) { return logit == logit ? logit : -(real)INFINITY; }

FORCE_INLINE int comes_before(const real *logits, int64_t a, int64_t b) {
    const real logit_a = rank_value(logits[a]), logit_b = rank_value(logits[b]);
    return logit_a > logit_b || (logit_a == logit_b && a < b);
}

/* A heap of classes, the one that comes last at its root: lets heap[at] sink to its place. */
static void sink(int64_t *heap, const real *logits, ptrdiff_t at, ptrdiff_t n) {
    const int64_t sinking = heap[at];
    for (ptrdiff_t child = 2 * at + 1; child < n; child = 2 * at + 1) {
        if (child + 1 < n && comes_before(logits, heap[child], heap[child + 1])) ++child;
        if (!comes_before(logits, sinking, heap[child])) break;
        heap[at] = heap[child];
        at = child;
    }
    heap[at] = sinking;
}

static void top_classes(int64_t *top, const real *logits, ptrdiff_t n_classes, ptrdiff_t n_top) {
    for (ptrdiff_t k = 0; k < n_top; ++k) top[k] = k;
    for (ptrdiff_t p = n_top / 2; p-- > 0;) sink(top, logits, p, n_top);
    real last = rank_value(logits[top[0]]);
    for (ptrdiff_t k = n_top; k < n_classes; ++k)
        if (logits[k] > last) { /* an equal one comes after those that are there */
            top[0] = k;
            sink(top, logits, 0, n_top);
            last = rank_value(logits[top[0]]);
        }
    for (ptrdiff_t n = n_top; --n > 0;) {
        const int64_t root = top[0];
        top[0] = top[n];
        top[n] = root;
        sink(top, logits, 0, n);
    }
}

/* As top_classes for n_top = 1. A row of ten classes has about three record logits, each a branch
 * mispredicted; the vectors have none. */
FORCE_INLINE ptrdiff_t top_class(const real *logits, ptrdiff_t n_classes) {
    const vec lowest = v_set1(-(real)INFINITY);
    vec max = lowest;
    for (ptrdiff_t k = 0; k < n_classes; k += VEC_WIDTH) {
        const ptrdiff_t lanes = min_size(n_classes - k, VEC_WIDTH);
        vec o = lanes == VEC_WIDTH ? v_load(logits + k)
                                   : v_load_tail(logits + k, lanes, -(real)INFINITY);
        max = v_max(max, v_select(v_eq(o, o), o, lowest));
    }
    const real largest = v_max_lanes(max);
    ptrdiff_t k = 0;
    while (rank_value(logits[k]) < largest) ++k;
    return k;
}

static void top_rows(const fs_top *places, const void *logits_, ptrdiff_t logits_stride,
                     ptrdiff_t n_rows, ptrdiff_t n_classes) {
    const fs_top out = *places;
    const ptrdiff_t n_top = out.n_top;
    const real *logits = logits_;
    for (ptrdiff_t i = 0; i < n_rows; ++i, logits += logits_stride) {
        int64_t *top = out.classes + i * out.classes_stride;
        if (n_top == 1)
            top[0] = top_class(logits, n_classes);
        else
            top_classes(top, logits, n_classes, n_top);
        if (!out.probs) continue;
        real *probs = (real *)out.probs + i * out.probs_stride;
        const real max = row_max(logits, n_classes);
        const vec m = v_set1(max);
        const real rest = row_rest(NULL, logits, max, n_classes);
        const vec sum = v_set1(1 + rest + (max - max));
        for (ptrdiff_t p = 0; p < n_top; ++p) probs[p] = logits[top[p]];
        for (ptrdiff_t p = 0; p < n_top; p += VEC_WIDTH) {
            const ptrdiff_t lanes = min_size(n_top - p, VEC_WIDTH);
            vec e = v_exp_difference(v_load_tail(probs + p, lanes, max), m);
            v_store_tail(probs + p, v_div(e, sum), lanes);
        }
        if (n_classes == 2 && max - max == 0 && rest == rest) /* as softmax_rows has it */
            probs[0] = 1 - rest / (1 + rest);
    }
}

/* What the checks share: the operations and their limits, the record of the worst errors, random
 * arrays. */
#include "naive.h"

#include "buffers.h"

enum {
    EXP,
    LOG,
    SOFTMAX,
    LOG_SOFTMAX,
    LOGSUMEXP,
    CROSS_ENTROPY,
    CROSS_ENTROPY_GRAD,
    AFFINE,
    PASS_LOSS,
    PASS_GRAD,
    SGD,
    UPDATE,
    PREDICT,
    TOP,
    HESSIAN,
    MOMENTS,
    BLOCKS,
    FACTOR,
    N_OPS
};

/* Limits: what the package promises, or, in roundings of the sum of magnitudes, what sums of these
 * lengths leave to be expected; "base" apart, where multiply-add is two roundings. An ulp beyond
 * the usual is for sums of subnormals, each of which is rounded. */
static const struct {
    const char *name, *unit;
    double limit, base_limit;
} ops[N_OPS] = {
    {"exp_values", "ulp", 1.01, 2},
    {"log_values", "ulp", 1, 2},
    {"softmax_rows", "ulp", 4, 4},
    {"log_softmax_rows", "ulp", 5, 5},
    {"logsumexp_rows", "ulp", 4, 4},
    {"cross_entropy_rows loss", "ulp", 5, 5},
    {"cross_entropy_rows grad", "ulp", 5, 5},
    {"affine_rows", "roundings", 4, 6},
    {"fs_loss_grad loss", "roundings", 8, 8},
    {"fs_loss_grad grad", "roundings", 4, 4},
    {"fs_sgd_steps", "roundings", 6, 6},
    {"sums and updates", "roundings", 6, 6},
    {"fs_predict_rows", "ulp", 0, 0}, /* the bits of the operations it is made of */
    {"fs_predict_top", "ulp", 0, 0},
    {"fs_hessian_sums", "roundings", 8, 8},
    {"fs_feature_moments", "roundings", 12, 12},
    {"fs_solve_blocks", "roundings", 16, 16},
    {"fs_factor_block", "roundings", 4, 4},
};

enum { MOST_TABLES = 4 };
static const kernels *tables[MOST_TABLES];
static int n_tables;
static struct {
    wide error, where; /* where: the argument, or the number of classes */
} worst[MOST_TABLES][N_OPS];
static int n_failures;

/* Whether long double has the digits that float.h promises. Valgrind computes with those of double,
 * and expl of the C library is then wrong. */
static int is_wide_right(void) {
    volatile wide one = 1;
    return one + LDBL_EPSILON > one;
}
static int is_wide_wrong; /* set by main; errors are unknown then */

/* Whether the formulas in long double are better than double. They are not where long double is no
 * wider, as on 32-bit arm, or where the C library takes its exponentials in double, as musl does on
 * aarch64: the errors of softmax would be 500 ulp. */
static int knows_doubles(void) {
    static int known = -1;
    if (known < 0) {
        volatile wide x = 700, y = x + 0x1p-45L; /* of one double, and of two long doubles */
        known = expl(x) != expl(y);
    }
    return known;
}

static void note(int table, int op, wide error, wide where) {
    if (is_wide_wrong) return;
    if (real_size == 8 && !knows_doubles()) return;
    if (!(error > worst[table][op].error)) return;
    worst[table][op].error = error;
    worst[table][op].where = where;
}

static void expect(int holds, int table, int op, const char *promise) {
    if (holds) return;
    printf("FAILED: %s %s (%td bytes): %s\n", tables[table]->isa, ops[op].name, real_size, promise);
    if (++n_failures > 20) exit(1);
}

static const int thread_counts[] = {1, 2, 3, 7};
enum { N_THREAD_COUNTS = sizeof thread_counts / sizeof thread_counts[0] };

/* ---- random numbers and arrays of them ---- */

static uint64_t random_state = 0x9e3779b97f4a7c15u;

static uint64_t random_bits(void) {
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state * 0x2545f4914f6cdd1du;
}
static ptrdiff_t random_below(ptrdiff_t n) { return (ptrdiff_t)(random_bits() >> 33) % n; }
static double uniform(double low, double high) {
    return low + (high - low) * (double)(random_bits() >> 11) * 0x1p-53;
}

static void *new_reals(ptrdiff_t n) { return new_buffer(n * real_size, real_size); }
static void *random_reals(ptrdiff_t n, double low, double high) {
    void *reals = new_reals(n);
    for (ptrdiff_t i = 0; i < n; ++i) put(reals, i, uniform(low, high));
    return reals;
}
static void *new_scratch(ptrdiff_t n_bytes) {
    void *scratch = new_buffer(n_bytes, 64);
    memset(scratch, 0xff, (size_t)n_bytes); /* NaN: what is read must have been written */
    return scratch;
}
static wide *new_wides(ptrdiff_t n) {
    wide *wides = new_buffer(n * (ptrdiff_t)sizeof(wide), sizeof(wide));
    for (ptrdiff_t i = 0; i < n; ++i) wides[i] = 0;
    return wides;
}

/* Rows of targets and weights, a quarter of the weights 0. */
static fs_rows random_targets(ptrdiff_t n, ptrdiff_t n_classes, int soft, double smoothing) {
    fs_rows rows = {0};
    rows.n_rows = n;
    rows.n_classes = rows.n_logits = n_classes;
    rows.label_smoothing = smoothing;
    void *weights = random_reals(n, 0.1, 2);
    for (ptrdiff_t i = 0; i < n; i += 4) put(weights, i, 0);
    rows.row_weights = weights;
    int32_t *labels = new_buffer(n * (ptrdiff_t)sizeof *labels, sizeof *labels);
    for (ptrdiff_t i = 0; i < n; ++i) labels[i] = (int32_t)random_below(n_classes);
    void *probs = random_reals(n * n_classes, 0, 1);
    for (ptrdiff_t i = 0; i < n; ++i) {
        wide sum = 0;
        put(probs, i * n_classes + random_below(n_classes), n_classes > 1 ? 0 : 1);
        for (ptrdiff_t k = 0; k < n_classes; ++k) sum += get(probs, i * n_classes + k);
        for (ptrdiff_t k = 0; k < n_classes; ++k)
            put(probs, i * n_classes + k, get(probs, i * n_classes + k) / sum);
    }
    if (soft)
        rows.target_probs = probs;
    else
        rows.labels = labels;
    return rows;
}

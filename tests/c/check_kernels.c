/* Holds every operation of every table that this CPU can run to the plain formulas of naive.h, and
 * to what kernels.h promises besides: the same bits for any number of threads and in place, and no
 * byte read or written outside of the arrays. Prints the worst error of each operation.
 *
 *   check_kernels [--all]                a few minutes
 *   check_kernels --brief                with every 29th of the sizes
 *   check_kernels --races                the same by one instruction set: which one changes nothing
 *                                        in how threads share memory
 *   check_kernels --exhaustive [STRIDE]  exp and log of all floats, or of every STRIDE-th
 *
 * All but the last check floats and doubles; "float" or "double" behind the option, one of them. */
#include "pages.h"

#include <float.h>

#include "harness.h"

#include "problems.h"

#include "check_predictions.h"

#include "check_blocks.h"

#include "check_hessian.h"

#include "check_factored.h"

#include "check_passes.h"

#include "check_pool.h"

/* ---- exp and log ---- */

static wide value_argument(int op, ptrdiff_t i) {
    static const double edges[] = {0.0,
                                   -0.0,
                                   1,
                                   -1,
                                   INFINITY,
                                   -INFINITY,
                                   NAN,
                                   0x1p-149,
                                   0x1p-1074,
                                   0x1p-126,
                                   0x1p-1022,
                                   0x1.fffffep127,
                                   0x1.fffffffffffffp1023,
                                   88.72284,
                                   88.72283,
                                   -87.33654,
                                   -103.97208,
                                   -103.97207,
                                   -104,
                                   709.782712893384,
                                   -745.1332191019411,
                                   -745.1332191019412,
                                   -708.3964185322641,
                                   0x1.fffffep-1,
                                   0x1.000002p0,
                                   0x1.fffffffffffffp-1,
                                   0x1.0000000000001p0,
                                   1.4142135623730951};
    const ptrdiff_t n_edges = sizeof edges / sizeof edges[0];
    if (i < n_edges) return edges[i];
    if (i % 3 == 0) { /* any bits at all */
        const uint64_t bits = random_bits();
        double wide_bits;
        float narrow_bits;
        memcpy(&wide_bits, &bits, sizeof wide_bits);
        memcpy(&narrow_bits, &bits, sizeof narrow_bits);
        return real_size == 4 ? (wide)narrow_bits : (wide)wide_bits;
    }
    const double range = real_size == 4 ? 105 : 750;
    if (op == EXP) return i % 3 == 1 ? uniform(-range, range) : uniform(-1, 1);
    return i % 3 == 1 ? exp(uniform(-range, range)) : uniform(0.5, 2);
}

static void run_values(int table, int op, void *out, const void *x, ptrdiff_t n) {
    if (op == EXP)
        tables[table]->exp_values(out, x, n);
    else
        tables[table]->log_values(out, x, n);
}

static void check_values(int op, ptrdiff_t n) {
    void *x = new_reals(n);
    wide *want = new_wides(n);
    for (ptrdiff_t i = 0; i < n; ++i) {
        put(x, i, value_argument(op, i));
        want[i] = op == EXP ? expl(get(x, i)) : logl(get(x, i));
    }
    seal_buffers();
    for (int table = 0; table < n_tables; ++table) {
        const int held = n_buffers;
        void *out = new_reals(n);
        run_values(table, op, out, x, n);
        for (ptrdiff_t i = 0; i < n; ++i) note(table, op, ulps(get(out, i), want[i]), get(x, i));
        for (ptrdiff_t length = 0; length <= 35; ++length) { /* every tail, in place */
            void *both = new_reals(length);
            memcpy(both, x, (size_t)(length * real_size));
            run_values(table, op, both, both, length);
            expect(memcmp(both, out, (size_t)(length * real_size)) == 0, table, op,
                   "a value does not depend on its place");
            expect(free_buffers(n_buffers - 1), table, op, "nothing is written outside of out");
        }
        free_buffers(held);
    }
    free_buffers(0);
}

/* ---- operations on rows of logits ---- */

/* Rows of n_classes logits; some of the kinds that kernels treat apart where special. */
static void *random_logits(ptrdiff_t n, ptrdiff_t n_classes, ptrdiff_t stride, double spread,
                           int special) {
    const wide huge = real_size == 4 ? 1.6e38L : 8e307L; /* differences are finite */
    void *logits = random_reals((n - 1) * stride + n_classes, -spread, spread);
    for (ptrdiff_t i = 0; special && i < n; ++i)
        for (ptrdiff_t k = 0; k < n_classes; ++k) {
            const int chosen = k == i / 8 % n_classes;
            wide o = get(logits, i * stride + k);
            switch (i % 8) {
                case 0: o = chosen ? -(wide)INFINITY : o; break;
                case 1: o = -(wide)INFINITY; break;
                case 2: o = chosen ? (wide)INFINITY : o; break;
                case 3: o = chosen ? (wide)NAN : o; break;
                case 4: o = 1e4L; break;
                case 5: o = chosen ? o + 20 : o; break;
                case 6: o = chosen ? o + (real_size == 4 ? 60 : 600) : o; break;
                default: o = chosen ? huge : -huge; break;
            }
            put(logits, i * stride + k, o);
        }
    return logits;
}

static void run_row_op(int table, int op, void *out, void *row_out, const void *logits,
                       ptrdiff_t stride, const fs_rows *rows, int n_threads) {
    const kernels *kern = tables[table];
    const ptrdiff_t n = rows->n_rows, n_classes = rows->n_classes;
    running = ops[op].name;
    if (op == SOFTMAX)
        fs_softmax_rows(kern, out, logits, stride, stride, n, n_classes, n_threads);
    else if (op == LOG_SOFTMAX)
        fs_log_softmax_rows(kern, out, logits, stride, stride, n, n_classes, n_threads);
    else if (op == LOGSUMEXP)
        fs_logsumexp_rows(kern, row_out, logits, stride, n, n_classes, n_threads);
    else
        fs_cross_entropy_rows(kern, row_out, op == CROSS_ENTROPY_GRAD ? out : NULL, logits, stride,
                              stride, rows, n_threads);
}

typedef struct {
    wide *softmax, *log_softmax, *residual; /* (n_rows, n_classes) */
    wide *max, *logsumexp, *loss;           /* (n_rows) */
} row_results;

static row_results naive_rows(const fs_rows *rows, const void *logits, ptrdiff_t stride) {
    const ptrdiff_t n = rows->n_rows, n_classes = rows->n_classes;
    row_results want = {new_wides(n * n_classes),
                        new_wides(n * n_classes),
                        new_wides(n * n_classes),
                        new_wides(n),
                        new_wides(n),
                        new_wides(n)};
    wide *o = new_wides(n_classes);
    for (ptrdiff_t i = 0; i < n; ++i) {
        for (ptrdiff_t k = 0; k < n_classes; ++k) o[k] = get(logits, i * stride + k);
        const row_summary row = summarize(o, n_classes);
        want.max[i] = row.max;
        want.logsumexp[i] = naive_logsumexp(&row);
        want.loss[i] = naive_cross_entropy(want.residual + i * n_classes, rows, i, o);
        for (ptrdiff_t k = 0; k < n_classes; ++k) {
            want.softmax[i * n_classes + k] = naive_softmax(&row, o[k]);
            want.log_softmax[i * n_classes + k] = naive_log_softmax(&row, o[k]);
        }
    }
    return want;
}

static void compare_row(int table, int op, const char *out, wide row_out, const row_results *want,
                        const fs_rows *rows, ptrdiff_t i) {
    const ptrdiff_t n = rows->n_classes;
    const wide weight = get(rows->row_weights, i), lse = want->logsumexp[i];
    const int exact_targets = rows->labels && rows->label_smoothing == 0;
    if (op == LOGSUMEXP)
        note(table, op, roundings(row_out, lse, fabsl(want->max[i]) + fabsl(lse)) / 2, (wide)n);
    if (op == CROSS_ENTROPY || op == CROSS_ENTROPY_GRAD)
        note(table, CROSS_ENTROPY, ulps(row_out, weight == 0 ? 0 : weight * want->loss[i]),
             (wide)n);
    for (ptrdiff_t k = 0; k < n; ++k) {
        const wide got = get(out, k), r = want->residual[i * n + k];
        const wide scale = weight * (fabsl(r) + 2 * smoothed_target(rows, i, k));
        wide error = 0;
        if (op == SOFTMAX) error = ulps(got, want->softmax[i * n + k]);
        if (op == LOG_SOFTMAX) error = ulps(got, want->log_softmax[i * n + k]);
        if (op == CROSS_ENTROPY_GRAD) /* else relative to the two that are subtracted */
            error = exact_targets ? ulps(got, weight * r) : roundings(got, weight * r, scale) / 2;
        note(table, op, error, (wide)n);
    }
}

static int same_rows(const void *a, const void *b, ptrdiff_t n, ptrdiff_t stride,
                     ptrdiff_t n_classes) {
    int same = 1;
    for (ptrdiff_t i = 0; i < n; ++i)
        same &=
            memcmp((const char *)a + i * stride * real_size,
                   (const char *)b + i * stride * real_size, (size_t)(n_classes * real_size)) == 0;
    return same;
}

/* The same again by more threads, and in place: the bits of the first time. */
static void check_row_bits(int table, int op, const void *out, const void *row_out,
                           const void *logits, ptrdiff_t stride, const fs_rows *rows) {
    const ptrdiff_t n = rows->n_rows, n_out = (n - 1) * stride + rows->n_classes;
    const int has_out = op == SOFTMAX || op == LOG_SOFTMAX || op == CROSS_ENTROPY_GRAD;
    for (int t = 1; t <= N_THREAD_COUNTS; ++t) {
        void *again = new_reals(n_out), *row_again = new_reals(n);
        const int in_place = t == N_THREAD_COUNTS;
        if (in_place) memcpy(again, logits, (size_t)(n_out * real_size));
        run_row_op(table, op, again, row_again, in_place ? again : logits, stride, rows,
                   thread_counts[t % N_THREAD_COUNTS]);
        expect(memcmp(row_out, row_again, (size_t)(n * real_size)) == 0 &&
                   (!has_out || same_rows(out, again, n, stride, rows->n_classes)),
               table, op, "bits are the same for any threads, and in place");
        expect(free_buffers(n_buffers - 2), table, op, "nothing is written outside");
    }
}

static void check_row_ops(ptrdiff_t n, ptrdiff_t n_classes, ptrdiff_t pad, double spread,
                          int special) {
    static const double smoothings[] = {0, 0.1, 0, 1};
    const ptrdiff_t stride = n_classes + pad, n_out = (n - 1) * stride + n_classes;
    const int soft = random_below(2) == 0;
    const fs_rows rows = random_targets(n, n_classes, soft, smoothings[random_below(4)]);
    const void *logits = random_logits(n, n_classes, stride, spread, special);
    const row_results want = naive_rows(&rows, logits, stride);
    seal_buffers();
    const int held = n_buffers;
    for (int table = 0; table < n_tables; ++table)
        for (int op = SOFTMAX; op <= CROSS_ENTROPY_GRAD; ++op) {
            char *out = new_reals(n_out), *row_out = new_reals(n);
            run_row_op(table, op, out, row_out, logits, stride, &rows, 1);
            for (ptrdiff_t i = 0; i < n; ++i) {
                const char *row = out + i * stride * real_size;
                compare_row(table, op, row, get(row_out, i), &want, &rows, i);
                expect(i == n - 1 ||
                           is_pattern(row + n_classes * real_size, (size_t)(pad * real_size)),
                       table, op, "nothing is written between the rows");
            }
            check_row_bits(table, op, out, row_out, logits, stride, &rows);
            expect(free_buffers(held), table, op, "nothing is written outside of the outputs");
        }
    free_buffers(0);
}

/* ---- everything ---- */

/* exp and log of the floats whose bits are a multiple of stride. */
static void check_all_floats(ptrdiff_t stride) {
    enum { CHUNK = 1 << 12 };
    static float x[CHUNK], out[CHUNK];
    static double want[2][CHUNK];
    for (uint64_t bits = 0; bits >> 32 == 0;) {
        ptrdiff_t n = 0;
        for (; n < CHUNK && bits >> 32 == 0; ++n, bits += (uint64_t)stride) {
            const uint32_t float_bits = (uint32_t)bits;
            memcpy(&x[n], &float_bits, sizeof float_bits);
            want[EXP][n] = exp((double)x[n]);
            want[LOG][n] = log((double)x[n]);
        }
        for (int table = 0; table < n_tables; ++table)
            for (int op = EXP; op <= LOG; ++op) {
                run_values(table, op, out, x, n);
                for (ptrdiff_t i = 0; i < n; ++i)
                    if (out[i] != (float)want[op][i]) /* where equal, within half an ulp */
                        note(table, op, ulps(out[i], want[op][i]), x[i]);
            }
    }
}

/* Every so manieth of the sizes. */
static int is_chosen(int every) {
    static int n = 0;
    return n++ % every == 0;
}

static void check_dense_sizes(int every) {
    static const ptrdiff_t n_rows[] = {0, 1, 3, 4, 5, 15, 16, 17, 127, 128, 129};
    static const ptrdiff_t n_features[] = {0, 1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33};
    static const ptrdiff_t n_classes[] = {1, 2, 3, 5, 7, 12, 13, 26};
    enum {
        ROWS = sizeof n_rows / sizeof n_rows[0],
        CLASSES = sizeof n_classes / sizeof n_classes[0],
        FEATURES = sizeof n_features / sizeof n_features[0]
    };
    for (int i = 0; i < ROWS; ++i)
        for (int k = 0; k < CLASSES; ++k)
            for (int j = 0; j < FEATURES; ++j)
                for (int how = BY_ROWS; how <= ANY_STRIDES; ++how)
                    if (is_chosen(every))
                        check_passes((layout)how, n_rows[i], n_features[j], n_classes[k]);
    for (int how = BY_ROWS; how <= ANY_STRIDES; ++how) {
        check_passes((layout)how, 700, 100, 26); /* several parts */
        check_many_steps((layout)how, 30);
        if (every == 1 && LDBL_MANT_DIG < 113) /* long double in software takes minutes here */
            check_passes((layout)how, 290, 5250, 50); /* gradient by panels */
    }
}

static void check_csr_sizes(int every) {
    static const ptrdiff_t n_rows[] = {0, 1, 2, 63, 64, 65, 130};
    static const ptrdiff_t n_features[] = {0, 1, 2, 9, 40, 300};
    static const ptrdiff_t n_classes[] = {1, 2, 2, 4, 17, 97, 100};
    enum {
        ROWS = sizeof n_rows / sizeof n_rows[0],
        CLASSES = sizeof n_classes / sizeof n_classes[0],
        FEATURES = sizeof n_features / sizeof n_features[0]
    };
    for (int i = 0; i < ROWS; ++i)
        for (int k = 0; k < CLASSES; ++k)
            for (int j = 0; j < FEATURES; ++j)
                if (is_chosen(every) && (n_features[j] < 300 || n_rows[i] * n_classes[k] < 300))
                    check_passes(CSR, n_rows[i], n_features[j], n_classes[k]);
    check_passes(CSR, 3000, 20, 100); /* by threads; columns longer than a run */
    check_passes(CSR, 20, 2500, 17);  /* weights turned over by threads */
    check_many_steps(CSR, 30);
    for (int draw = 0; draw < 4 && every == 1; ++draw) check_many_steps(CSR, 4096 + 12 * draw);
}

/* Around four rows at a time, vectors of 4 to 16 and ranges of 256 columns. */
static void check_factored_sizes(int every) {
    const uint64_t state = random_state; /* the checks that follow draw what they drew before */
    int n = 0;
    static const ptrdiff_t sizes[] = {0, 1, 3, 4, 5, 7, 8, 9, 15, 16, 17, 33, 40};
    for (int j = 0; j < (int)(sizeof sizes / sizeof sizes[0]); ++j)
        for (ptrdiff_t n_logits = 1; n_logits <= 6; n_logits += 2)
            for (ptrdiff_t n_rows = 0; n_rows <= 9; n_rows += 3)
                if (n++ % every == 0 && sizes[j] + (n_rows & 1) > 0)
                    check_blocks_solve(n_logits, sizes[j], (int)(n_rows & 1), n_rows);
    for (ptrdiff_t order = 0; order < 22; ++order)
        check_factor(order, sizes[(order * every) % (ptrdiff_t)(sizeof sizes / sizeof sizes[0])]);
    check_factor(67, 130);
    check_blocks_solve(3, 257, 1, 20);
    check_blocks_solve(7, 150, 1, 0); /* by threads */
    random_state = state;
}

/* Around panels of 8 or 16 columns, and blocks of 128 rows. */
static void check_hessian_sizes(int every) {
    static const ptrdiff_t n_features[] = {0, 1, 2, 6, 7, 8, 9, 15, 16, 17, 25, 33, 40};
    static const ptrdiff_t n_rows[] = {0, 1, 17, 127, 128, 129};
    enum {
        ROWS = sizeof n_rows / sizeof n_rows[0],
        FEATURES = sizeof n_features / sizeof n_features[0]
    };
    for (int j = 0; j < FEATURES; ++j)
        for (ptrdiff_t n_classes = 1; n_classes <= 4; ++n_classes)
            for (int i = 0; i < ROWS; ++i)
                if (is_chosen(every))
                    check_hessian(i % 2 ? ANY_STRIDES : BY_ROWS, n_rows[i], n_features[j],
                                  n_classes);
    for (int j = 0; j < FEATURES; ++j)
        for (int i = 0; i < ROWS; ++i)
            check_moments((i + j) % 2 ? ANY_STRIDES : BY_ROWS, n_rows[i], n_features[j]);
    check_hessian(BY_ROWS, 2500, 50, 2); /* several parts */
    check_moments(BY_ROWS, 2500, 900);
}

/* Each number of vectors, columns and classes that a tile may have at the end of its rows. Other
 * checks draw what they draw without this one. */
static void check_ends_of_tiles(void) {
    const uint64_t before = random_state;
    for (ptrdiff_t k = 2; k <= 97; ++k) check_passes(CSR, 5, 6, k);
    for (ptrdiff_t d = 1; d <= 65; d += d < 33 ? 1 : 8) check_passes(BY_ROWS, 3, d, 2);
    for (ptrdiff_t d = 1; d <= 33; ++d) check_hessian(BY_ROWS, 3, d, 2);
    random_state = before;
}

static void check_sizes(int every) {
    check_ends_of_tiles();
    check_hessian_sizes(every);
    check_dense_sizes(every);
    check_csr_sizes(every);
    for (ptrdiff_t k = 1; k <= 35; ++k) {
        check_top_rows(16, k);
        check_finite_rows(3, k, k % 3);
        check_updates(k, 20 - k % 20, 1 + k % 4);
    }
    check_updates(3, 0, 2);
    check_finite_rows(0, 3, 0);

    static const double spreads[] = {0.1, 5, 30, 200};
    for (ptrdiff_t k = 1; k <= 35; ++k)
        for (int s = 0; s < 4; ++s) {
            const ptrdiff_t n = 1 + random_below(20);
            check_row_ops(n, k, n % 3, spreads[s], 0);
            check_row_ops(n, k, n % 2, spreads[s], 1);
        }
    check_row_ops(4000, 10, 1, 10, 1); /* several parts */
    check_row_ops(20, 1000, 0, 10, 0);
    for (int draw = 0; draw < 4; ++draw) check_row_ops(2, 50021, 0, 10, 0);
    check_factored_sizes(every);
}

static int report(int exhaustive) {
    int n_exceeded = 0;
    for (int table = 0; table < n_tables; ++table)
        for (int op = 0; op < (exhaustive ? SOFTMAX : N_OPS); ++op) {
            const int is_base = strcmp(tables[table]->isa, "base") == 0;
            const double limit = is_base ? ops[op].base_limit : ops[op].limit;
            const wide error = worst[table][op].error, where = worst[table][op].where;
            const int exceeded = !(error <= (wide)limit);
            printf("%-7s %-7s %-24s worst %8.4Lg %-9s (%s %.9Lg)%s\n", tables[table]->isa,
                   real_size == 4 ? "float" : "double", ops[op].name, error, ops[op].unit,
                   op <= LOG ? "at" : "n_classes", where, exceeded ? "  FAILED" : "");
            n_exceeded += exceeded;
        }
    return n_exceeded;
}

int main(int argc, char **argv) {
    const int exhaustive = argc > 1 && strcmp(argv[1], "--exhaustive") == 0;
    const int races = argc > 1 && strcmp(argv[1], "--races") == 0;
    const int brief = races || (argc > 1 && strcmp(argv[1], "--brief") == 0);
    const char *only = argc > 2 && !exhaustive ? argv[2] : "";
    watch_faults();
    is_wide_wrong = races && !is_wide_right();
    if (is_wide_wrong) printf("errors are not measured: long double lacks digits here\n");
    for (real_size = 4; real_size <= (exhaustive ? 4 : 8); real_size += 4) {
        if (strcmp(only, real_size == 4 ? "double" : "float") == 0) continue;
        memset(worst, 0, sizeof worst);
        for (n_tables = 0; fs_kernels(real_size, n_tables); ++n_tables)
            tables[n_tables] = fs_kernels(real_size, n_tables);
        if (races) n_tables = 1;
        if (exhaustive) {
            check_all_floats(argc > 2 ? atol(argv[2]) : 1);
        } else {
            check_values(EXP, races ? 100 : 100000);
            check_values(LOG, races ? 100 : 100000);
            for (int type = FS_X_U8; type <= FS_X_F16; ++type) check_stored_values((fs_x_type)type);
            check_sizes(brief ? 29 : 1);
        }
        if (real_size == 8 && !knows_doubles())
            printf("errors of doubles are not known: long double tells no more here\n");
        n_failures += report(exhaustive);
    }
    if (!exhaustive) n_failures += check_pool(races ? 300 : 3000, !races);
    printf("%s\n", n_failures ? "FAILED" : "all within their limits");
    return n_failures != 0;
}

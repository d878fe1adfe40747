/* Newton's method for problems so small that what is around the arithmetic costs more than it: a
 * fit of iris takes 0.6 ms by this file, and 2.7 ms by the solvers in Python, which have the same
 * mathematics (the objective with its certificate, solvers/newton.py) and go on where this stops
 * early. That is why it exists a second time; the third, reference/_newton.py, is the twin.
 * A line search costs little here: the logits along a step are sums of two matrices. */
#include <float.h>
#include <math.h>
#include <string.h>

#include "arena.h"
#include "pack.h"
#include "panels.h"

enum { MOST_HALVINGS = 30, MOST_LENGTHS = 6, LEVEL = 64 };

/* Rows of a block for the Hessian, as in hessian.c, and the room behind the last row that vectors
 * of rows may take. */
enum { BLOCK_ROWS = 128, ROOM = 16, N_PLACE_TABLES = 2 };

/* A step is long enough where so little of its slope is left. A length costs the exponentials of
 * the rows, a step their products with each other: breast cancer (569 x 30) takes 6 steps for 9,
 * wine 5 for 8. */
#define SLOPE_LEFT 0.1

typedef struct {
    double value, loss, accuracy, bound;
} small_point;

typedef struct {
    const kernels *kern;
    const fs_small *problem;
    const fs_rows *rows;
    ptrdiff_t n_columns, size;
    double *hessian, *gradient, *step, *base, *mixture;      /* of the coefficients */
    double *targets, *probs, *rest, *logits, *along, *right; /* of the rows */
    double *z, *shares, *sums; /* blocks of rows in panels, scratch for one, sums of the Hessian */
    double *placed;            /* coefficients by place */
    void *packed;
    fs_panels panels;
    ptrdiff_t n_places;
    double base_square;
} small_task;

static double *take_doubles(arena *memory, double n) {
    return take(memory, n * (double)sizeof(double));
}

/* Numbers of rows in panels; each block has a row more. */
static ptrdiff_t panel_numbers(const small_task *t, ptrdiff_t n_rows) {
    return (n_rows + ceil_div(n_rows, BLOCK_ROWS)) * t->n_places;
}

/* Sums of all pairs of logits. */
static double n_sums(const small_task *t) {
    const double n_logits = (double)t->rows->n_logits, n_places = (double)t->n_places;
    return n_logits * (n_logits + 1) / 2 * n_places * n_places;
}

static small_task begin(const kernels *kern, const fs_small *problem, double *base, arena *memory) {
    const fs_rows *rows = problem->rows;
    const double n_classes = (double)rows->n_classes, n = (double)rows->n_rows;
    const double n_logits = (double)rows->n_logits;
    const ptrdiff_t width = kern->hessian.panel_width;
    small_task t = {.kern = kern, .problem = problem, .rows = rows, .base = base};
    t.n_columns = rows->n_features + (problem->coordinates->with_bias != 0);
    t.size = rows->n_logits * t.n_columns;
    t.panels.n_columns = t.n_columns;
    t.panels.n_panels = ceil_div(t.n_columns, width);
    t.n_places = t.panels.n_panels * width;
    const double size = n_logits * (double)t.n_columns, n_places = (double)t.n_places;
    t.hessian = take_doubles(memory, size * size);
    t.gradient = take_doubles(memory, size);
    t.step = take_doubles(memory, size);
    t.mixture = take_doubles(memory, n_classes);
    t.targets = take_doubles(memory, n_classes * n);
    t.probs = take_doubles(memory, n_classes * n + (double)ROOM);
    t.rest = take_doubles(memory, n_classes * n + (double)ROOM);
    t.logits = take_doubles(memory, n_logits * n);
    t.along = take_doubles(memory, n_logits * n);
    t.right = take_doubles(memory, n);
    t.z = take_doubles(memory, (n + ceil(n / (double)BLOCK_ROWS)) * n_places);
    t.shares = take_doubles(memory, (double)panel_numbers(&t, BLOCK_ROWS));
    t.sums = take_doubles(memory, n_sums(&t));
    t.placed = take_doubles(memory, n_logits * n_places);
    t.panels.places = take_doubles(memory, (double)N_PLACE_TABLES * n_places);
    t.packed = take(memory, fs_pack_bytes(rows, BLOCK_ROWS));
    return t;
}

ptrdiff_t fs_newton_scratch(const kernels *kern, const fs_small *problem) {
    arena memory = {0};
    begin(kern, problem, NULL, &memory);
    return taken_bytes(&memory);
}

/* Smoothed targets, and the classes that are the right ones. */
static void set_targets(const small_task *t) {
    const fs_rows *rows = t->rows;
    const ptrdiff_t n_classes = rows->n_classes, n = rows->n_rows;
    const double kept = 1 - rows->label_smoothing;
    const double other = rows->label_smoothing / (double)n_classes;
    for (ptrdiff_t i = 0; i < n; ++i) {
        const double *probs =
            rows->labels ? NULL : (const double *)rows->target_probs + i * n_classes;
        ptrdiff_t right = rows->labels ? rows->labels[i] : 0;
        for (ptrdiff_t k = 0; k < n_classes; ++k) {
            t->targets[k * n + i] = kept * (probs ? probs[k] : (k == right)) + other;
            if (probs && probs[k] > probs[right]) right = k;
        }
        t->right[i] = (double)right;
    }
}

/* The logits' first row in matrices of classes. */
static ptrdiff_t n_skipped(const small_task *t) {
    return (t->rows->n_classes - t->rows->n_logits) * t->rows->n_rows;
}

/* The block of rows that begins with `first`. */
static fs_curved_rows block_of(const small_task *t, ptrdiff_t first) {
    const ptrdiff_t n = t->rows->n_rows, skipped = n_skipped(t);
    return (fs_curved_rows){t->z + panel_numbers(t, first),
                            t->probs + skipped + first,
                            t->rest + skipped + first,
                            (const double *)t->rows->row_weights + first,
                            n,
                            min_size(BLOCK_ROWS, n - first),
                            t->n_columns,
                            t->rows->n_logits};
}

/* The rows in panels, block after block. */
static void set_panels(const small_task *t) {
    const ptrdiff_t n = t->rows->n_rows;
    t->kern->hessian.place((void *)t->panels.places, t->problem->coordinates, t->rows->n_features);
    for (ptrdiff_t first = 0; first < n; first += BLOCK_ROWS) {
        fs_block block = {NULL, first, min_size(BLOCK_ROWS, n - first), NULL};
        block = fs_pack(t->rows, block, t->packed);
        t->kern->dense[t->rows->x_type].panel_rows(t->z + panel_numbers(t, first), NULL, t->rows,
                                                   NULL, NULL, &t->panels, 0, block);
    }
}

/* logits = params . z, of all rows. */
static void set_logits(const small_task *t, double *logits, const double *params) {
    const ptrdiff_t m = t->n_columns, width = t->kern->hessian.panel_width;
    const ptrdiff_t n_logits = t->rows->n_logits;
    memset(t->placed, 0, (size_t)(n_logits * t->n_places) * sizeof *t->placed);
    for (ptrdiff_t k = 0; k < n_logits; ++k)
        for (ptrdiff_t j = 0; j < m; ++j)
            t->placed[k * t->n_places + place_of(&t->panels, width, j)] = params[k * m + j];
    for (ptrdiff_t first = 0; first < t->rows->n_rows; first += BLOCK_ROWS) {
        const fs_curved_rows block = block_of(t, first);
        t->kern->newton.logits(logits + first, &block, t->placed);
    }
}

/* gradient = sum_i weight_i (probs - targets) z_i, by column. */
static void set_gradient(const small_task *t, double *gradient) {
    const ptrdiff_t m = t->n_columns, width = t->kern->hessian.panel_width;
    const ptrdiff_t n_logits = t->rows->n_logits;
    memset(t->placed, 0, (size_t)(n_logits * t->n_places) * sizeof *t->placed);
    for (ptrdiff_t first = 0; first < t->rows->n_rows; first += BLOCK_ROWS) {
        const fs_curved_rows block = block_of(t, first);
        t->kern->newton.gradient(t->placed, &block, t->targets + n_skipped(t) + first);
    }
    for (ptrdiff_t k = 0; k < n_logits; ++k)
        for (ptrdiff_t j = 0; j < m; ++j)
            gradient[k * m + j] = t->placed[k * t->n_places + place_of(&t->panels, width, j)];
}

/* Columns that are penalised: all but that of the intercept. */
static ptrdiff_t n_penalised(const small_task *t) { return t->rows->n_features; }

static double along(const small_task *t, const double *a, const double *b, ptrdiff_t n) {
    return t->kern->vectors.dot(a, b, n);
}

/* Of a matrix (n_logits, n_columns), the products of what is penalised. */
static double along_weights(const small_task *t, const double *a, const double *b) {
    const ptrdiff_t m = t->n_columns, d = n_penalised(t);
    double sum = 0;
    for (ptrdiff_t k = 0; k < t->rows->n_logits; ++k) sum += along(t, a + k * m, b + k * m, d);
    return sum;
}

/* The gradient of the mean cross-entropy where every row has the class shares. */
static void set_base(small_task *t) {
    const ptrdiff_t n = t->rows->n_rows;
    for (ptrdiff_t k = 0; k < t->rows->n_classes; ++k)
        for (ptrdiff_t i = 0; i < n; ++i) t->probs[k * n + i] = t->problem->class_share[k];
    set_gradient(t, t->base);
    for (ptrdiff_t c = 0; c < t->size; ++c) t->base[c] /= (double)n;
    t->base_square = along_weights(t, t->base, t->base);
}

/* The bound of fastsoftmax/problem/certificate.py (`_bound_by_mixture`); residual is the gradient.
 */
static double gap_bound(const small_task *t, const double *params, double loss, double square) {
    const fs_small *problem = t->problem;
    const ptrdiff_t m = t->n_columns, n_classes = t->rows->n_classes;
    const ptrdiff_t n_logits = t->rows->n_logits, first = n_classes - n_logits;
    const double l2 = problem->l2, *g = t->gradient;
    const double rr = along_weights(t, g, g);
    if (!problem->coordinates->with_bias) return rr / (2 * l2);
    double room = INFINITY, total = 0, bias_term = 0, entropy_u = 0, sum = 0;
    double *excess = t->mixture;
    for (ptrdiff_t l = 0; l < n_logits; ++l) {
        excess[first + l] = g[l * m + m - 1];
        bias_term += g[l * m + m - 1] * params[l * m + m - 1];
        sum += g[l * m + m - 1];
    }
    if (first) excess[0] = -sum;
    for (ptrdiff_t k = 0; k < n_classes; ++k)
        if (excess[k] > 0 && problem->class_share[k] / excess[k] < room)
            room = problem->class_share[k] / excess[k];
    if (room > DBL_MAX) return rr / (2 * l2);
    for (ptrdiff_t k = 0; k < n_classes; ++k) {
        excess[k] = fmax(problem->class_share[k] - room * excess[k], 0);
        total += excess[k];
    }
    for (ptrdiff_t k = 0; k < n_classes; ++k)
        if (excess[k] > 0) entropy_u -= excess[k] / total * log(excess[k] / total);
    const double share = 1 / (1 + room);
    const double rv = along_weights(t, g, params), rb = along_weights(t, g, t->base);
    const double vb = along_weights(t, params, t->base);
    const double rd = rb - rr + l2 * rv, vd = vb - rv + l2 * square;
    const double dd = t->base_square - rb - rd + l2 * (vb + vd);
    const double entropy = loss - (rv - l2 * square) - bias_term;
    return fmax((rr + 2 * share * rd + share * share * dd) / (2 * l2) - share * vd + bias_term +
                    share * (entropy - entropy_u),
                0);
}

/* Value, gradient and bound at params, of which the task has the sums over the rows. */
static small_point point_at(const small_task *t, const double *params, const fs_line *sums) {
    const double n_rows = (double)t->rows->n_rows, l2 = t->problem->l2;
    const ptrdiff_t m = t->n_columns, d = n_penalised(t), n_logits = t->rows->n_logits;
    const double square = along_weights(t, params, params);
    set_gradient(t, t->gradient);
    for (ptrdiff_t j = 0; j < m; ++j) {
        double mean = 0;
        for (ptrdiff_t k = 0; n_logits > 1 && k < n_logits; ++k) mean += t->gradient[k * m + j];
        mean /= (double)n_logits;
        for (ptrdiff_t k = 0; k < n_logits; ++k) {
            double *g = t->gradient + k * m + j;
            *g = (*g - mean) / n_rows + (j < d ? l2 * params[k * m + j] : 0);
        }
    }
    const double loss = sums->loss / n_rows;
    return (small_point){loss + l2 * square / 2, loss, sums->correct / n_rows,
                         gap_bound(t, params, loss, square)};
}

/* The sums of a logit's pair with itself. */
static double *own_pair(const small_task *t, ptrdiff_t k) {
    return t->sums + (k * t->rows->n_logits - k * (k - 1) / 2) * t->n_places * t->n_places;
}

/* The sums over the rows of the Hessian of the loss, a pair of logits after the other. */
static void sum_hessian(const small_task *t) {
    memset(t->sums, 0, (size_t)n_sums(t) * sizeof *t->sums);
    for (ptrdiff_t first = 0; first < t->rows->n_rows; first += BLOCK_ROWS) {
        const fs_curved_rows block = block_of(t, first);
        t->kern->hessian.add_rows(t->sums, t->shares, &block);
    }
    const ptrdiff_t n_logits = t->rows->n_logits, n = t->n_places * t->n_places;
    double *sums = t->sums;
    for (ptrdiff_t k = 0; k < n_logits; ++k)
        for (ptrdiff_t l = k; l < n_logits; ++l, sums += n)
            for (ptrdiff_t c = 0; k < l && c < n; ++c) {
                own_pair(t, k)[c] -= sums[c];
                own_pair(t, l)[c] -= sums[c];
            }
}

/* The upper triangle of the Hessian of the mean loss. */
static void set_hessian(const small_task *t) {
    const ptrdiff_t m = t->n_columns, n_logits = t->rows->n_logits, n = t->n_places;
    const ptrdiff_t width = t->kern->hessian.panel_width;
    const double scale = 1 / (double)t->rows->n_rows, *sums = t->sums;
    sum_hessian(t);
    for (ptrdiff_t k = 0; k < n_logits; ++k)
        for (ptrdiff_t l = k; l < n_logits; ++l, sums += n * n)
            for (ptrdiff_t a = 0; a < m; ++a) {
                double *row = t->hessian + (k * m + a) * t->size + l * m;
                const ptrdiff_t at = place_of(&t->panels, width, a);
                for (ptrdiff_t j = k == l ? a : 0; j < m; ++j) {
                    const ptrdiff_t other = place_of(&t->panels, width, j);
                    row[j] = scale * sums[min_size(at, other) * n + max_size(at, other)];
                }
            }
}

/* step = -hessian^-1 gradient; whether there are Cholesky's factors. The objective gets the
 * curvature 1 along the direction that all intercepts have in common, where it is flat. */
static int newton_step(const small_task *t) {
    const ptrdiff_t m = t->n_columns, d = n_penalised(t), size = t->size;
    const ptrdiff_t n_logits = t->rows->n_logits;
    set_hessian(t);
    for (ptrdiff_t k = 0; k < n_logits; ++k) {
        for (ptrdiff_t j = 0; j < d; ++j) t->hessian[(k * m + j) * (size + 1)] += t->problem->l2;
        for (ptrdiff_t l = k; d < m && n_logits > 1 && l < n_logits; ++l)
            t->hessian[(k * m + d) * size + l * m + d] += 1 / (double)n_logits;
    }
    return t->kern->newton.step(t->step, t->hessian, t->gradient, size);
}

/* The next length to try: a step of Newton's method for the slope, within what is known. */
static double next_length(double length, double slope, double curvature, double low, double high) {
    const double next = length - slope / curvature;
    if (high > DBL_MAX) return next > length ? fmin(next, 10 * length) : 2 * length;
    return next > low && next < high ? next : (low + high) / 2;
}

/* Move params (room for the new ones is `trial`) down along the step; whether that succeeded. The
 * objective is convex along it: lengths are tried until little of the slope is left, then halved
 * while the objective has not fallen (Nocedal & Wright 2006, section 3.1). */
static int descend(small_task *t, double *trial, const double *params, small_point *at) {
    const double n_rows = (double)t->rows->n_rows, l2 = t->problem->l2;
    const double first_slope = along(t, t->step, t->gradient, t->size);
    const double across = along_weights(t, params, t->step);
    const double square = along_weights(t, t->step, t->step);
    double length = 1, low = 0, high = INFINITY;
    if (!(first_slope < 0) || first_slope < -DBL_MAX) return 0;
    set_logits(t, t->along, t->step);
    for (int n_lengths = 1, halvings = 0; halvings <= MOST_HALVINGS; ++n_lengths) {
        const fs_line sums = t->kern->newton.line(t->probs, t->rest, t->rows, t->targets, t->right,
                                                  t->logits, t->along, length);
        const double slope = sums.slope / n_rows + l2 * (across + length * square);
        if (!halvings && n_lengths < MOST_LENGTHS && fabs(slope) > -SLOPE_LEFT * first_slope) {
            if (slope < 0)
                low = length;
            else
                high = length;
            length = next_length(length, slope, sums.curvature / n_rows + l2 * square, low, high);
            continue;
        }
        for (ptrdiff_t c = 0; c < t->size; ++c) trial[c] = params[c] + length * t->step[c];
        const small_point end = point_at(t, trial, &sums);
        /* where rounding hides the decrease, the slope tells (Hager & Zhang 2005) */
        const double level = at->value + (double)LEVEL * DBL_EPSILON * fabs(at->value);
        const int flatter = fabs(slope) <= -first_slope / 2;
        if (end.value <= at->value + 1e-4 * length * first_slope ||
            (flatter && end.value <= level)) {
            const ptrdiff_t n_numbers = t->rows->n_logits * t->rows->n_rows;
            t->kern->vectors.add_scaled(t->logits, t->logits, length, t->along, NULL, n_numbers);
            *at = end;
            return 1;
        }
        length /= 2;
        ++halvings;
    }
    return 0;
}

fs_newton_end fs_newton_steps(const kernels *kern, double *points, double *records, double *base,
                              const double *start, const fs_small *problem,
                              const fs_newton_limits *limits, void *scratch) {
    arena memory = arena_in(scratch);
    small_task t = begin(kern, problem, base, &memory);
    set_targets(&t);
    set_panels(&t);
    set_base(&t);
    set_logits(&t, t.logits, start);
    /* (length 0 of anything finite) */
    const fs_line sums =
        kern->newton.line(t.probs, t.rest, t.rows, t.targets, t.right, t.logits, t.logits, 0);
    const double *params = start;
    small_point at = point_at(&t, params, &sums);
    fs_newton_end end = {0, FS_NEWTON_LIMIT};
    while (at.bound > limits->target * at.value) {
        const double before = at.value;
        double *next = points + end.n_steps * t.size;
        if (end.n_steps == limits->most_steps) return end;
        end.status = FS_NEWTON_STUCK;
        if (!newton_step(&t) || !descend(&t, next, params, &at)) return end;
        double *record = records + end.n_steps * FS_NEWTON_RECORD;
        record[0] = at.loss;
        record[1] = at.accuracy;
        record[2] = at.value;
        record[3] = at.bound;
        params = next;
        ++end.n_steps;
        end.status = FS_NEWTON_LIMIT;
        if (before - at.value <= DBL_EPSILON * fabs(before)) {
            /* as far as rounding allows */
            end.status = at.bound <= limits->tol * at.value ? FS_NEWTON_DONE : FS_NEWTON_STUCK;
            return end;
        }
    }
    end.status = at.bound <= limits->target * at.value ? FS_NEWTON_DONE : FS_NEWTON_STUCK;
    return end;
}

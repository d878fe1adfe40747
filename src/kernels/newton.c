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
#include "small.h"

enum { MOST_HALVINGS = 30, MOST_LENGTHS = 6, LEVEL = 64 };

/* Room behind the last row that vectors of rows may take. */
enum { ROOM = 16, N_PLACE_TABLES = 2 };

/* Multiply-adds of a Hessian in the time of one of a step; and what a probability costs in those of
 * a step. */
#define HESSIAN_SPEED 3.0
#define PROBABILITY 40.0

typedef struct {
    double value, loss, accuracy, bound;
} small_point;

/* A step is long enough where so little of its slope is left. A length costs the exponentials of
 * the rows, a step their products with each other: breast cancer (569 x 30) takes 6 steps for 9,
 * wine 5 for 8. */
#define SLOPE_LEFT 0.1

static double *take_doubles(arena *memory, double n) {
    return take(memory, n * (double)sizeof(double));
}

/* Steps that take as long as a Hessian with its factor. */
static double hessian_steps(const small_task *t) {
    const double n = (double)t->rows->n_rows, m = (double)t->n_columns, size = (double)t->size;
    const double n_logits = (double)t->rows->n_logits;
    const double pairs = n_logits > 1 ? n_logits * (n_logits - 1) / 2 : 1;
    const double hessian = n * pairs * m * m / 2 + size * size * size / 6;
    const double step =
        n * (2 * n_logits * m + PROBABILITY * (double)t->rows->n_classes) + size * size;
    return hessian / (HESSIAN_SPEED * step);
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
    t.gradient = take_doubles(memory, size);
    t.before = take_doubles(memory, size);
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
    t.model.hessian = take_doubles(memory, size * size);
    t.model.steps = take_doubles(memory, (double)MOST_PAIRS * size);
    t.model.changes = take_doubles(memory, (double)MOST_PAIRS * size);
    t.model.steps_for = hessian_steps(&t);
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

/* The next length to try: a step of Newton's method for the slope, within what is known. */
static double next_length(double length, double slope, double curvature, double low, double high) {
    const double next = length - slope / curvature;
    if (high > DBL_MAX) return next > length ? fmin(next, 10 * length) : 2 * length;
    return next > low && next < high ? next : (low + high) / 2;
}

/* Move params (room for the new ones is `trial`) down along the step, and return its length, 0
 * where that does not succeed. The objective is convex along it: lengths are tried until little of
 * the slope is left, then halved while the objective has not fallen (Nocedal & Wright 2006,
 * section 3.1). */
static double descend(small_task *t, double *trial, const double *params, small_point *at) {
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
            return length;
        }
        length /= 2;
        ++halvings;
    }
    return 0;
}

/* What the task knows of the point where `descend` did not succeed. */
static void go_back(const small_task *t) {
    memcpy(t->gradient, t->before, (size_t)t->size * sizeof *t->before);
    t->kern->newton.line(t->probs, t->rest, t->rows, t->targets, t->right, t->logits, t->logits, 0);
}

/* A step from params to `next`; whether it succeeded. Where one with a Hessian of an earlier point
 * does not, there is another. */
static int make_step(small_task *t, double *next, const double *params, small_point *at,
                     double wanted) {
    memcpy(t->before, t->gradient, (size_t)t->size * sizeof *t->before);
    if (!fs_newton_direction(t, wanted)) return 0;
    const int is_new = !t->model.age;
    double length = descend(t, next, params, at);
    if (length <= 0 && !is_new) {
        go_back(t);
        if (!fs_newton_renew(t)) return 0;
        length = descend(t, next, params, at);
    }
    if (length <= 0) return 0;
    fs_newton_learn(t, length);
    return 1;
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
        if (!make_step(&t, next, params, &at, 2 * limits->target * at.value)) return end;
        double *record = records + end.n_steps * FS_NEWTON_RECORD;
        record[0] = at.loss;
        record[1] = at.accuracy;
        record[2] = at.value;
        record[3] = at.bound;
        params = next;
        ++end.n_steps;
        end.status = FS_NEWTON_LIMIT;
        if (before - at.value <= DBL_EPSILON * fabs(before)) {
            if (t.model.age > 1 && at.bound > limits->target * at.value) {
                t.model.is_known = 0; /* a Hessian of here may lower the bound */
                continue;
            }
            /* as far as rounding allows */
            end.status = at.bound <= limits->tol * at.value ? FS_NEWTON_DONE : FS_NEWTON_STUCK;
            return end;
        }
    }
    end.status = at.bound <= limits->target * at.value ? FS_NEWTON_DONE : FS_NEWTON_STUCK;
    return end;
}

/* Newton's method for problems so small that what is around the arithmetic costs more than it.
 * The mathematics is that of objective.py, descent.py and newton.py, which go on where this stops
 * early: the objective with its certificate, full steps or else halved ones. */
#include <float.h>
#include <math.h>
#include <string.h>

#include "parallel.h"

enum { MOST_HALVINGS = 30, LEVEL = 64 };

typedef struct {
    double value, loss, accuracy, bound;
} small_point;

typedef struct {
    const kernels *kern;
    const fs_small *problem;
    ptrdiff_t size;
    double *hessian, *gradient, *factor, *step, *base, *mixture, *work;
    double base_square;
} small_task;

static ptrdiff_t work_size(const fs_small *problem) {
    return FS_NEWTON_WORK * (problem->n_classes + 16);
}

ptrdiff_t fs_newton_scratch(const fs_small *problem) {
    const double size = (double)problem->n_logits * (double)problem->n_columns;
    const double numbers = 2 * size * size + 4 * size + 3 * (double)work_size(problem);
    return scratch_bytes(numbers * (double)sizeof(double));
}

/* Columns that are penalised: all but that of the intercept. */
static ptrdiff_t n_penalised(const fs_small *problem) {
    return problem->n_columns - (problem->fit_intercept != 0);
}

static double along(const small_task *t, const double *a, const double *b, ptrdiff_t n) {
    return t->kern->vectors.dot(a, b, n);
}

/* Of a matrix (n_logits, n_columns), the products of what is penalised. */
static double along_weights(const small_task *t, const double *a, const double *b) {
    const ptrdiff_t m = t->problem->n_columns, d = n_penalised(t->problem);
    double sum = 0;
    for (ptrdiff_t k = 0; k < t->problem->n_logits; ++k) sum += along(t, a + k * m, b + k * m, d);
    return sum;
}

/* The gradient of the mean cross-entropy where every row has the class shares. */
static void set_base(small_task *t) {
    const fs_small *problem = t->problem;
    const ptrdiff_t m = problem->n_columns, first = problem->n_classes - problem->n_logits;
    const double kept = 1 - problem->label_smoothing;
    memset(t->base, 0, (size_t)t->size * sizeof *t->base);
    for (ptrdiff_t i = 0; i < problem->n_rows; ++i)
        for (ptrdiff_t l = 0; l < problem->n_logits; ++l) {
            const ptrdiff_t k = first + l;
            const double target = problem->labels
                                      ? (problem->labels[i] == k)
                                      : problem->target_probs[i * problem->n_classes + k];
            const double smooth =
                kept * target + problem->label_smoothing / (double)problem->n_classes;
            const double r = problem->row_weights[i] * (problem->class_share[k] - smooth);
            for (ptrdiff_t j = 0; j < m; ++j) t->base[l * m + j] += r * problem->z[i * m + j];
        }
    for (ptrdiff_t c = 0; c < t->size; ++c) t->base[c] /= (double)problem->n_rows;
    t->base_square = along_weights(t, t->base, t->base);
}

/* The bound of SoftmaxObjective.gap_bound and _bound_by_mixture; residual is the gradient. */
static double gap_bound(const small_task *t, const double *params, double loss, double square) {
    const fs_small *problem = t->problem;
    const ptrdiff_t m = problem->n_columns, n_classes = problem->n_classes;
    const ptrdiff_t first = n_classes - problem->n_logits;
    const double penalty = problem->penalty, *g = t->gradient;
    const double rr = along_weights(t, g, g);
    if (!problem->fit_intercept) return rr / (2 * penalty);
    double room = INFINITY, total = 0, bias_term = 0, entropy_u = 0, sum = 0;
    double *excess = t->mixture;
    for (ptrdiff_t l = 0; l < problem->n_logits; ++l) {
        excess[first + l] = g[l * m + m - 1];
        bias_term += g[l * m + m - 1] * params[l * m + m - 1];
        sum += g[l * m + m - 1];
    }
    if (first) excess[0] = -sum;
    for (ptrdiff_t k = 0; k < n_classes; ++k)
        if (excess[k] > 0 && problem->class_share[k] / excess[k] < room)
            room = problem->class_share[k] / excess[k];
    if (isinf(room)) return rr / (2 * penalty);
    for (ptrdiff_t k = 0; k < n_classes; ++k) {
        excess[k] = fmax(problem->class_share[k] - room * excess[k], 0);
        total += excess[k];
    }
    for (ptrdiff_t k = 0; k < n_classes; ++k)
        if (excess[k] > 0) entropy_u -= excess[k] / total * log(excess[k] / total);
    const double share = 1 / (1 + room);
    const double rv = along_weights(t, g, params), rb = along_weights(t, g, t->base);
    const double vb = along_weights(t, params, t->base);
    const double rd = rb - rr + penalty * rv, vd = vb - rv + penalty * square;
    const double dd = t->base_square - rb - rd + penalty * (vb + vd);
    const double entropy = loss - (rv - penalty * square) - bias_term;
    return fmax((rr + 2 * share * rd + share * share * dd) / (2 * penalty) - share * vd +
                    bias_term + share * (entropy - entropy_u),
                0);
}

/* Value, gradient and Hessian of the objective, which gets the curvature 1 along the direction
 * that all intercepts have in common, where it is flat. */
static small_point evaluate(const small_task *t, const double *params) {
    const fs_small *problem = t->problem;
    const ptrdiff_t m = problem->n_columns, d = n_penalised(problem), size = t->size;
    const ptrdiff_t n_logits = problem->n_logits;
    const double n_rows = (double)problem->n_rows;
    const fs_sums sums =
        t->kern->vectors.newton_rows(t->hessian, t->gradient, problem, params, t->work);
    const double square = along_weights(t, params, params);
    for (ptrdiff_t j = 0; j < m; ++j) {
        double mean = 0;
        for (ptrdiff_t k = 0; n_logits > 1 && k < n_logits; ++k) mean += t->gradient[k * m + j];
        mean /= (double)n_logits;
        for (ptrdiff_t k = 0; k < n_logits; ++k) {
            double *g = t->gradient + k * m + j;
            *g = (*g - mean) / n_rows + (j < d ? problem->penalty * params[k * m + j] : 0);
        }
    }
    for (ptrdiff_t a = 0; a < size; ++a)
        for (ptrdiff_t b = 0; b <= a; ++b) {
            double *h = t->hessian + a * size + b;
            *h /= n_rows;
            if (a == b && a % m < d) *h += problem->penalty;
            if (n_logits > 1 && a % m >= d && b % m >= d) *h += 1 / (double)n_logits;
        }
    const double loss = sums.loss / n_rows;
    return (small_point){loss + problem->penalty * square / 2, loss, sums.correct / n_rows,
                         gap_bound(t, params, loss, square)};
}

/* step = -hessian^-1 gradient, by Cholesky's factors; whether there are any. */
static int newton_step(const small_task *t) {
    const ptrdiff_t n = t->size;
    for (ptrdiff_t i = 0; i < n; ++i) {
        double *row = t->factor + i * n;
        for (ptrdiff_t j = 0; j <= i; ++j) {
            const double *other = t->factor + j * n;
            const double rest = t->hessian[i * n + j] - along(t, row, other, j);
            if (j < i)
                row[j] = rest / other[j];
            else if (rest > 1e-14 * t->hessian[i * n + i])
                row[j] = sqrt(rest);
            else
                return 0;
        }
        t->step[i] = (-t->gradient[i] - along(t, row, t->step, i)) / row[i];
    }
    for (ptrdiff_t i = n - 1; i >= 0; --i) {
        t->step[i] /= t->factor[i * n + i];
        for (ptrdiff_t j = 0; j < i; ++j) t->step[j] -= t->factor[i * n + j] * t->step[i];
    }
    return 1;
}

/* Move params (room for the new ones is `trial`) down along the step; whether that succeeded. */
static int descend(small_task *t, double *trial, const double *params, small_point *at) {
    const double slope = along(t, t->step, t->gradient, t->size);
    double length = 1;
    if (!(slope < 0) || isinf(slope)) return 0;
    for (int halving = 0; halving <= MOST_HALVINGS; ++halving, length /= 2) {
        for (ptrdiff_t c = 0; c < t->size; ++c) trial[c] = params[c] + length * t->step[c];
        const small_point end = evaluate(t, trial);
        /* where rounding hides the decrease, the slope tells (Hager & Zhang 2005) */
        const double level = at->value + LEVEL * DBL_EPSILON * fabs(at->value);
        const int flatter = fabs(along(t, t->step, t->gradient, t->size)) <= -slope / 2;
        if (end.value <= at->value + 1e-4 * length * slope || (flatter && end.value <= level)) {
            *at = end;
            return 1;
        }
    }
    return 0;
}

fs_newton_end fs_newton_steps(const kernels *kern, double *points, double *records,
                              const double *start, const fs_small *problem, ptrdiff_t most_steps,
                              double tol, double target, void *scratch) {
    const ptrdiff_t size = problem->n_logits * problem->n_columns;
    double *p = scratch;
    small_task t = {.kern = kern, .problem = problem, .size = size};
    t.hessian = p;
    t.factor = t.hessian + size * size;
    t.gradient = t.factor + size * size;
    t.step = t.gradient + size;
    t.base = t.step + size;
    t.mixture = t.base + size;
    t.work = t.mixture + work_size(problem);
    set_base(&t);
    const double *params = start;
    small_point at = evaluate(&t, params);
    fs_newton_end end = {0, FS_NEWTON_LIMIT};
    while (at.bound > target * at.value) {
        const double before = at.value;
        double *next = points + end.n_steps * size;
        if (end.n_steps == most_steps) return end;
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
            end.status = at.bound <= tol * at.value ? FS_NEWTON_DONE : FS_NEWTON_STUCK;
            return end;
        }
    }
    end.status = at.bound <= target * at.value ? FS_NEWTON_DONE : FS_NEWTON_STUCK;
    return end;
}

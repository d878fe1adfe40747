/* The quadratic model of Newton's method for small problems: an inverse Hessian, and what the steps
 * since then have told of how it has changed.
 *
 * A Hessian takes as long as 2 to 20 steps, and near the minimum it hardly changes. So its Cholesky
 * factor serves several steps, as the first inverse of L-BFGS (Nocedal & Wright 2006, Algorithm
 * 7.4). Hessians and steps of a fit to rounding, with a Hessian for each step and so: 2000 x 100,
 * K = 2: 5 and 5, 1 and 8; 1000 x 50, K = 3, separable: 7 and 7, 3 and 9. */
#include <math.h>
#include <string.h>

#include "panels.h"
#include "small.h"

/* Steps that a Hessian saves besides those that it takes as long as: near the minimum it needs this
 * many itself. */
#define OWN_STEPS 3.0

/* Where a Hessian takes less than this share of a step, each step has its own. */
#define CHEAP 0.5

/* Where a Hessian takes more than so many steps, the first one is of so many rows for each column:
 * steps show what it lacks. */
#define DEAR 4.0
enum { FIRST_ROWS = 20 };

/* Least curvature of a pair, as a share of its lengths' product: less is rounding. */
#define LEAST_CURVATURE 1e-10

/* The sums of a logit's pair with itself. */
static double *own_pair(const small_task *t, ptrdiff_t k) {
    return t->sums + (k * t->rows->n_logits - k * (k - 1) / 2) * t->n_places * t->n_places;
}

/* The sums over the rows of the Hessian of the loss, a pair of logits after the other, of every
 * step-th block. Returns the weight of these rows. */
static double sum_hessian(const small_task *t, ptrdiff_t step) {
    double weight = 0;
    memset(t->sums, 0, (size_t)n_sums(t) * sizeof *t->sums);
    for (ptrdiff_t first = 0; first < t->rows->n_rows; first += step * BLOCK_ROWS) {
        const fs_curved_rows block = block_of(t, first);
        const double *weights = block.row_weights;
        t->kern->hessian.add_rows(t->sums, t->shares, &block);
        for (ptrdiff_t i = 0; i < block.n_rows; ++i) weight += weights[i];
    }
    const ptrdiff_t n_logits = t->rows->n_logits, n = t->n_places * t->n_places;
    double *sums = t->sums;
    for (ptrdiff_t k = 0; k < n_logits; ++k)
        for (ptrdiff_t l = k; l < n_logits; ++l, sums += n)
            for (ptrdiff_t c = 0; k < l && c < n; ++c) {
                own_pair(t, k)[c] -= sums[c];
                own_pair(t, l)[c] -= sums[c];
            }
    return weight;
}

/* The upper triangle of the Hessian of the mean loss, from every step-th block of rows. */
static void set_hessian(const small_task *t, ptrdiff_t step) {
    const ptrdiff_t m = t->n_columns, n_logits = t->rows->n_logits, n = t->n_places;
    const ptrdiff_t width = t->kern->hessian.panel_width;
    const double n_rows = (double)t->rows->n_rows, weight = sum_hessian(t, step);
    const double scale = 1 / (step > 1 && weight > 0 ? weight : n_rows), *sums = t->sums;
    for (ptrdiff_t k = 0; k < n_logits; ++k)
        for (ptrdiff_t l = k; l < n_logits; ++l, sums += n * n)
            for (ptrdiff_t a = 0; a < m; ++a) {
                double *row = t->model.hessian + (k * m + a) * t->size + l * m;
                const ptrdiff_t at = place_of(&t->panels, width, a);
                for (ptrdiff_t j = k == l ? a : 0; j < m; ++j) {
                    const ptrdiff_t other = place_of(&t->panels, width, j);
                    row[j] = scale * sums[min_size(at, other) * n + max_size(at, other)];
                }
            }
}

/* The Hessian's factor, in its place; whether there is one. The objective gets the curvature 1
 * along the direction that all intercepts have in common, where it is flat. */
static int factor_hessian(const small_task *t, ptrdiff_t step) {
    const ptrdiff_t m = t->n_columns, d = n_penalised(t), size = t->size;
    const ptrdiff_t n_logits = t->rows->n_logits;
    double *hessian = t->model.hessian;
    set_hessian(t, step);
    for (ptrdiff_t k = 0; k < n_logits; ++k) {
        for (ptrdiff_t j = 0; j < d; ++j) hessian[(k * m + j) * (size + 1)] += t->problem->l2;
        for (ptrdiff_t l = k; d < m && n_logits > 1 && l < n_logits; ++l)
            hessian[(k * m + d) * size + l * m + d] += 1 / (double)n_logits;
    }
    return t->kern->newton.factor(hessian, t->step, size);
}

/* Pair i, 0 the latest one. */
static ptrdiff_t pair_at(const fs_newton_model *model, int i) {
    return (model->newest - i + MOST_PAIRS) % MOST_PAIRS;
}

static void add_scaled(const small_task *t, double *y, double scale, const double *x) {
    t->kern->vectors.add_scaled(y, y, scale, x, NULL, t->size);
}

/* step = -(the model's inverse Hessian) gradient, and its decrement. */
static void set_step(small_task *t) {
    fs_newton_model *model = &t->model;
    double shares[MOST_PAIRS];
    for (ptrdiff_t c = 0; c < t->size; ++c) t->step[c] = -t->gradient[c];
    for (int i = 0; i < model->n_pairs; ++i) {
        const ptrdiff_t at = pair_at(model, i);
        shares[i] = along(t, model->steps + at * t->size, t->step, t->size) / model->curvature[at];
        add_scaled(t, t->step, -shares[i], model->changes + at * t->size);
    }
    t->kern->newton.solve(t->step, model->hessian, t->size);
    for (int i = model->n_pairs; i-- > 0;) {
        const ptrdiff_t at = pair_at(model, i);
        const double product = along(t, model->changes + at * t->size, t->step, t->size);
        add_scaled(t, t->step, shares[i] - product / model->curvature[at],
                   model->steps + at * t->size);
    }
    model->decrement = -along(t, t->step, t->gradient, t->size);
}

/* A Hessian of here, from every step-th block of rows. */
static int renew(small_task *t, ptrdiff_t step) {
    t->model.n_pairs = t->model.age = 0;
    t->model.is_known = factor_hessian(t, step);
    if (!t->model.is_known) return 0;
    set_step(t);
    t->model.first_decrement = t->model.decrement;
    return 1;
}

int fs_newton_renew(small_task *t) { return renew(t, 1); }

/* Whether the pace since the Hessian, from its own decrement on, asks for another one. */
static int is_slow(const fs_newton_model *model, double before, double wanted) {
    const double now = model->decrement;
    if (!(now > 0 && now < before) || model->steps_for < CHEAP) return 1;
    const double pace = log(model->first_decrement / now) / model->age;
    return now > wanted && log(now / wanted) > (OWN_STEPS + model->steps_for) * pace;
}

int fs_newton_direction(small_task *t, double wanted) {
    const double before = t->model.decrement;
    if (!t->model.is_known) {
        const ptrdiff_t step = t->model.steps_for < DEAR || before > 0
                                   ? 1
                                   : t->rows->n_rows / (FIRST_ROWS * t->n_columns);
        return renew(t, max_size(1, step));
    }
    set_step(t);
    return !is_slow(&t->model, before, wanted) || fs_newton_renew(t);
}

void fs_newton_learn(small_task *t, double length) {
    fs_newton_model *model = &t->model;
    const ptrdiff_t next = (model->newest + 1) % MOST_PAIRS, size = t->size;
    double *step = model->steps + next * size, *change = model->changes + next * size;
    for (ptrdiff_t c = 0; c < size; ++c) {
        step[c] = length * t->step[c];
        change[c] = t->gradient[c] - t->before[c];
    }
    ++model->age;
    const double curvature = along(t, step, change, size);
    const double lengths = along(t, step, step, size) * along(t, change, change, size);
    if (!(curvature > LEAST_CURVATURE * sqrt(lengths))) return;
    model->curvature[next] = curvature;
    model->newest = (int)next;
    if (model->n_pairs < MOST_PAIRS) ++model->n_pairs;
}

/* What the kernels compute, written down in the plainest way, in long double: the formulas of
 * kernels.h, one row and one class at a time. Beside each sum stands a scale, the sum of the
 * magnitudes that went into it, in which its rounding error is measured. */
#include <math.h>

#include "kernels.h"

typedef long double wide;

static ptrdiff_t real_size; /* of the tables being checked */

static wide get(const void *array, ptrdiff_t i) {
    return real_size == 4 ? (wide)((const float *)array)[i] : (wide)((const double *)array)[i];
}
static void put(void *array, ptrdiff_t i, wide x) {
    if (real_size == 4)
        ((float *)array)[i] = (float)x;
    else
        ((double *)array)[i] = (double)x;
}

/* ---- errors ---- */

/* |got - want| in spacings of reals at want. An infinity stands for the first power of two that
 * has no place among the reals. */
static wide ulps(wide got, wide want) {
    const wide beyond = ldexpl(1, real_size == 4 ? 128 : 1024);
    if (got == want || (isnan(got) && isnan(want))) return 0;
    if (isinf(got)) {
        got = copysignl(beyond, got);
        if (fabsl(want) > beyond) want = copysignl(beyond, want);
    }
    int exponent;
    frexpl(want, &exponent);
    const int spacing = exponent - (real_size == 4 ? 24 : 53),
              least = real_size == 4 ? -149 : -1074;
    const wide error = fabsl(got - want) / ldexpl(1, spacing > least ? spacing : least);
    return isnan(error) ? INFINITY : error;
}

/* |got - want| in roundings of a number as large as scale. */
static wide roundings(wide got, wide want, wide scale) {
    if (got == want || (isnan(got) && isnan(want))) return 0;
    const wide unit = real_size == 4 ? 0x1p-24L : 0x1p-53L,
               least = real_size == 4 ? 1e-44L : 1e-323L;
    const wide error = fabsl(got - want) / (unit * scale + least);
    return isnan(error) ? INFINITY : error;
}

/* ---- one row of logits ---- */

typedef struct {
    wide max, others; /* largest logit; sum of exp(o_k - max) over all classes but the largest */
    ptrdiff_t largest;
    int has_nan;
} row_summary;

static row_summary summarize(const wide *o, ptrdiff_t n) {
    row_summary row = {o[0], 0, 0, 0};
    for (ptrdiff_t k = 0; k < n; ++k) {
        if (isnan(o[k])) row.has_nan = 1;
        if (o[k] > row.max) row.max = o[k], row.largest = k;
    }
    for (ptrdiff_t k = 0; k < n; ++k)
        if (k != row.largest) row.others += expl(o[k] - row.max);
    return row;
}

static int is_special(const row_summary *row) { return row->has_nan || isinf(row->max); }

static wide naive_softmax(const row_summary *row, wide o_k) {
    return is_special(row) ? (wide)NAN : expl(o_k - row->max) / (1 + row->others);
}

static wide naive_log_softmax(const row_summary *row, wide o_k) {
    return is_special(row) ? (wide)NAN : (o_k - row->max) - log1pl(row->others);
}

static wide naive_logsumexp(const row_summary *row) {
    if (row->has_nan) return NAN;
    return isinf(row->max) ? row->max : row->max + log1pl(row->others);
}

/* ---- cross-entropy ---- */

static wide smoothed_target(const fs_rows *rows, ptrdiff_t i, ptrdiff_t k) {
    const wide target = rows->labels ? (wide)(rows->labels[i] == k)
                                     : get(rows->target_probs, i * rows->n_classes + k);
    return (1 - (wide)rows->label_smoothing) * target +
           (wide)rows->label_smoothing / (wide)rows->n_classes;
}

/* loss and, class by class, softmax - target of row i with the logits o, without its weight. */
static wide naive_cross_entropy(wide *residual, const fs_rows *rows, ptrdiff_t i, const wide *o) {
    const ptrdiff_t n = rows->n_classes;
    const row_summary row = summarize(o, n);
    wide loss = log1pl(row.others);
    for (ptrdiff_t k = 0; k < n; ++k) {
        const wide target = smoothed_target(rows, i, k);
        if (target != 0) loss += target * (row.max - o[k]);
        residual[k] = naive_softmax(&row, o[k]) - target;
        if (k == row.largest && !is_special(&row)) /* nothing cancels where softmax is near 1 */
            residual[k] = (1 - target) - row.others / (1 + row.others);
    }
    return is_special(&row) ? (wide)NAN : loss;
}

/* ---- features ---- */

/* An IEEE 754 binary16 of these bits. */
static wide half_value(uint16_t bits) {
    const int exponent = bits >> 10 & 31, fraction = bits & 1023, sign = bits & 0x8000 ? -1 : 1;
    if (exponent == 31) return fraction ? (wide)NAN : sign * (wide)INFINITY;
    return sign * (exponent ? ldexpl(1024 + fraction, exponent - 25) : ldexpl(fraction, -24));
}

static wide feature(const fs_rows *rows, ptrdiff_t i, ptrdiff_t j) {
    const ptrdiff_t at = i * rows->x_stride + j * rows->x_feature_stride;
    switch (rows->x_type) {
        case FS_X_F32: return ((const float *)rows->x)[at];
        case FS_X_F64: return ((const double *)rows->x)[at];
        case FS_X_U8: return ((const uint8_t *)rows->x)[at];
        case FS_X_I8: return ((const int8_t *)rows->x)[at];
        default: return half_value(((const uint16_t *)rows->x)[at]);
    }
}

/* ---- a pass over rows ---- */

/* o_k = x_i . weights_k + bias_k; returns the scale of the largest. */
static wide naive_logits(wide *o, const fs_rows *rows, ptrdiff_t i, const wide *weights,
                         const wide *bias) {
    const ptrdiff_t d = rows->n_features, first = rows->n_logits < rows->n_classes ? 1 : 0;
    wide largest_scale = 0;
    for (ptrdiff_t k = 0; k < rows->n_logits; ++k) {
        wide sum = bias[k], scale = fabsl(bias[k]);
        for (ptrdiff_t j = 0; j < d; ++j) {
            const wide product = feature(rows, i, j) * weights[k * d + j];
            sum += product;
            scale += fabsl(product);
        }
        o[first + k] = sum;
        if (scale > largest_scale) largest_scale = scale;
    }
    if (first) o[0] = 0;
    return largest_scale;
}

typedef struct {
    wide *grad, *scale; /* weights (n_logits, n_features), then bias (n_logits) */
    wide loss, loss_scale, correct;
    wide undecided; /* weight of the rows whose largest logits are too close to call */
} pass_result;

static void add_row(pass_result *result, const fs_rows *rows, ptrdiff_t i, const wide *weights,
                    const wide *bias, wide *o, wide *residual) {
    const ptrdiff_t d = rows->n_features, n = rows->n_classes;
    const ptrdiff_t first = rows->n_logits < n ? 1 : 0;
    const wide weight = get(rows->row_weights, i);
    const wide logit_scale = naive_logits(o, rows, i, weights, bias);
    const wide loss = naive_cross_entropy(residual, rows, i, o);
    result->loss += weight * loss;
    result->loss_scale += weight * (loss + logit_scale + 1);

    ptrdiff_t largest = 0, target = 0;
    for (ptrdiff_t k = 1; k < n; ++k) {
        if (o[k] > o[largest]) largest = k;
        if (smoothed_target(rows, i, k) > smoothed_target(rows, i, target)) target = k;
    }
    result->correct += largest == target ? weight : 0;
    for (ptrdiff_t k = 0; k < n; ++k)
        if (o[k] != o[largest] && o[largest] - o[k] < 1e-4L) {
            result->undecided += weight;
            break;
        }

    for (ptrdiff_t k = 0; k < rows->n_logits; ++k) {
        const wide r = weight * residual[first + k], t = smoothed_target(rows, i, first + k);
        const wide scale = weight * ((fabsl(residual[first + k]) + t) * (1 + logit_scale) + t);
        for (ptrdiff_t j = 0; j < d; ++j) {
            const wide x = feature(rows, i, j);
            result->grad[k * d + j] += r * x;
            result->scale[k * d + j] += scale * fabsl(x);
        }
        result->grad[rows->n_logits * d + k] += r;
        result->scale[rows->n_logits * d + k] += scale;
    }
}

# cython: language_level=3, binding=True, embedsignature=True
"""The bridge to the compiled kernels: checks arguments, finds memory, lets go of the GIL.

The functions are those of `fastsoftmax.reference`, with the same names, arguments and meanings;
formulas and layouts are stated in src/kernels/kernels.h. Arrays are checked for number type, shape
and layout, never converted: `fastsoftmax.functional` and the estimator do that. Rows may be strided,
the elements of a row are adjacent. X may have any strides, or be `CsrRows`. Targets are made once,
as `Targets`; settings are the tuples of `fastsoftmax.kernel_arguments`.
"""

cimport cython
from cpython.buffer cimport (
    PyBUF_FORMAT, PyBUF_STRIDES, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer, Py_buffer,
)
from cpython.mem cimport PyMem_RawFree, PyMem_RawMalloc
from libc.stdint cimport int32_t, int64_t, uintptr_t
from libc.string cimport memcpy

from operator import index as as_index
from threading import current_thread, main_thread

from numpy import generic, ndarray


include "kernels_declarations.pxi"

fs_watch_forks()

include "kernels_arguments.pxi"
include "kernels_problem.pxi"
include "kernels_vectors.pxi"
include "kernels_blocks.pxi"


def available_isas():
    """Instruction sets that `isa` can name on this machine, best first."""
    names = []
    while fs_kernels(4, len(names)) != NULL:
        names.append(fs_kernels(4, len(names)).isa.decode())
    return tuple(names)


def openmp():
    """Whether the kernels were compiled with OpenMP."""
    return bool(fs_has_openmp())


def max_threads():
    """Threads that OMP_NUM_THREADS, the CPU affinity or threadpoolctl allow now.

    Without OpenMP: the processors that there are.
    """
    return fs_max_threads()


def panel_rows(n_logits, real_size, *, isa=None):
    """Rows of a panel, for `CsrRows.set_columns`."""
    cdef Array like
    like.kind = b"f" if real_size == 4 else b"d"
    return fs_panel_rows(table(&like, isa), size_in(n_logits, "n_logits", 1 << 24))


def exp_values(out, x, *, isa=None):
    """out[i] = exp(x[i]); out may be x."""
    cdef Array a = array_of(x, "x", "fd", 1)
    cdef Array o = same_type(out, "out", &a, 1, True)
    cdef const kernels *kern = table(&a, isa)
    check(o.size == a.size, f"out must have {a.size} elements, got {o.size}")
    with nogil:
        kern.exp_values(o.data, a.data, a.size)


def log_values(out, x, *, isa=None):
    """out[i] = log(x[i]); out may be x."""
    cdef Array a = array_of(x, "x", "fd", 1)
    cdef Array o = same_type(out, "out", &a, 1, True)
    cdef const kernels *kern = table(&a, isa)
    check(o.size == a.size, f"out must have {a.size} elements, got {o.size}")
    with nogil:
        kern.log_values(o.data, a.data, a.size)


cdef Array logits_of(logits) except *:
    cdef Array a = array_of(logits, "logits", "fd", 2)
    check(a.n_columns > 0, "logits must have at least one column")
    return a


cdef Array output_like(out, str name, const Array *a) except *:
    cdef Array o = same_type(out, name, a, 2, True)
    check(o.n_rows == a.n_rows and o.n_columns == a.n_columns,
          f"{name} must have shape ({a.n_rows}, {a.n_columns}), got ({o.n_rows}, {o.n_columns})")
    return o


def softmax_rows(out, logits, *, isa=None, n_threads=1):
    """out[i, k] = exp(z_ik) / sum_j exp(z_ij); out may be logits."""
    cdef Array a = logits_of(logits)
    cdef Array o = output_like(out, "out", &a)
    cdef const kernels *kern = table(&a, isa)
    cdef int n = threads(n_threads)
    with nogil:
        fs_softmax_rows(kern, o.data, a.data, o.row_stride, a.row_stride, a.n_rows, a.n_columns, n)


def log_softmax_rows(out, logits, *, isa=None, n_threads=1):
    """out[i, k] = z_ik - log(sum_j exp(z_ij)); out may be logits."""
    cdef Array a = logits_of(logits)
    cdef Array o = output_like(out, "out", &a)
    cdef const kernels *kern = table(&a, isa)
    cdef int n = threads(n_threads)
    with nogil:
        fs_log_softmax_rows(kern, o.data, a.data, o.row_stride, a.row_stride, a.n_rows,
                            a.n_columns, n)


def logsumexp_rows(out, logits, *, isa=None, n_threads=1):
    """out[i] = log(sum_j exp(z_ij))."""
    cdef Array a = logits_of(logits)
    cdef Array o = same_type(out, "out", &a, 1, True)
    cdef const kernels *kern = table(&a, isa)
    cdef int n = threads(n_threads)
    check(o.size == a.n_rows, f"out must have {a.n_rows} elements, got {o.size}")
    with nogil:
        fs_logsumexp_rows(kern, o.data, a.data, a.row_stride, a.n_rows, a.n_columns, n)


def cross_entropy_rows(loss, grad, logits, targets, *, isa=None, n_threads=1):
    """loss[i] = row_weight_i * cross-entropy of row i, in nats, and its gradient by the logits.

    grad[i] = row_weight_i * (softmax(z_i) - target_i); it may be None, or logits.
    """
    cdef Array a = logits_of(logits)
    cdef Array losses = same_type(loss, "loss", &a, 1, True)
    cdef Array gradient
    cdef fs_rows rows
    cdef const kernels *kern = table(&a, isa)
    cdef int n = threads(n_threads)
    gradient.data = NULL
    gradient.row_stride = 0
    if grad is not None:
        gradient = output_like(grad, "grad", &a)
    check(losses.size == a.n_rows, f"loss must have {a.n_rows} elements, got {losses.size}")
    fill_targets(&rows, targets, &a, a.n_rows, "logits")
    check(rows.n_classes == a.n_columns,
          f"logits must have {rows.n_classes} columns, the n_classes of targets, got {a.n_columns}")
    rows.x = rows.indices = rows.indptr = NULL
    rows.interrupted = NULL
    rows.x_stride = rows.x_feature_stride = rows.n_features = 0
    rows.n_logits = a.n_columns
    with nogil:
        fs_cross_entropy_rows(kern, losses.data, gradient.data, a.data, gradient.row_stride,
                              a.row_stride, &rows, n)


def affine_rows(logits, X, weights, bias, *, isa=None, n_threads=1):
    """logits[i, k] = x_i . weights_k + bias_k."""
    cdef fs_rows rows
    cdef Array w = array_of(weights, "weights", "fd", 2)
    cdef Array x = features_of(&rows, X, &w)
    cdef Array b = same_type(bias, "bias", &w, 1)
    cdef Array out = same_type(logits, "logits", &w, 2, True)
    cdef const kernels *kern = table(&w, isa)
    cdef int n = threads(n_threads)
    rows.n_logits = rows.n_classes = w.n_rows
    check(w.n_columns == x.n_columns and w.row_stride == w.n_columns,
          f"weights must be contiguous, with {x.n_columns} columns as X")
    check(b.size == w.n_rows, f"bias must have {w.n_rows} elements, got {b.size}")
    check(out.n_rows == x.n_rows and out.n_columns == w.n_rows,
          f"logits must have shape ({x.n_rows}, {w.n_rows})")
    cdef _Scratch scratch = _Scratch(fs_affine_scratch(kern, &rows, n))
    with nogil:
        fs_affine_rows(kern, out.data, &rows, w.data, b.data, out.row_stride, scratch.data, n)
    raise_if_interrupted()


cdef Array model_of(fs_rows *rows, Array *b, X, weights, bias, number_of_classes) except *:
    """The weights, and in rows and b what else a prediction needs; classes None: as of logits."""
    cdef Array w = array_of(weights, "weights", "fd", 2)
    cdef Array x = features_of(rows, X, &w)
    rows.labels = NULL
    rows.target_probs = rows.row_weights = NULL
    rows.label_smoothing = 0
    rows.n_logits = w.n_rows
    if number_of_classes is None:
        number_of_classes = max(2, rows.n_logits)
    rows.n_classes = size_in(number_of_classes, "n_classes", 1 << 24)
    check_classes(rows)
    b[0] = same_type(bias, "bias", &w, 1)
    check(w.n_columns == x.n_columns and w.row_stride == w.n_columns,
          f"weights must be contiguous, with {x.n_columns} columns as X")
    check(b.size == w.n_rows, f"bias must have {w.n_rows} elements, got {b.size}")
    return w


def predict_rows(probs, X, weights, bias, as_log, *, isa=None, n_threads=1):
    """probs[i] = softmax(W x_i + b), or its logarithm where as_log.

    With one logit for two classes, the other one's is 0. Returns whether every logit was finite.
    """
    cdef fs_rows rows
    cdef Array b
    cdef Array w = model_of(&rows, &b, X, weights, bias, getattr(probs, "shape", (0,))[-1])
    cdef Array out = same_type(probs, "probs", &w, 2, True)
    cdef const kernels *kern = table(&w, isa)
    cdef int n = threads(n_threads), log_too = bool(as_log), finite
    cdef _Scratch scratch
    check(out.n_rows == rows.n_rows, f"probs must have {rows.n_rows} rows, got {out.n_rows}")
    scratch = _Scratch(fs_predict_scratch(kern, &rows, False, n))
    with nogil:
        finite = fs_predict_rows(kern, out.data, &rows, w.data, b.data, out.row_stride, log_too,
                                 scratch.data, n)
    raise_if_interrupted()
    return bool(finite)


def predict_top(classes, probs, X, weights, bias, n_classes, *, isa=None, n_threads=1):
    """The classes of the largest logits of each row, as many as classes has columns, and probs.

    Largest first; of equal logits the smaller class comes first, and NaN counts as -inf.
    classes (n, k) is int64; probs (n, k), their softmax over all classes, may be None. Returns
    whether every logit was finite.
    """
    cdef fs_rows rows
    cdef Array b, out
    cdef Array w = model_of(&rows, &b, X, weights, bias, n_classes)
    cdef Array top = array_of(classes, "classes", "q", 2, True)
    cdef const kernels *kern = table(&w, isa)
    cdef int n = threads(n_threads), finite
    cdef fs_top found
    cdef _Scratch scratch
    check(top.n_rows == rows.n_rows and 1 <= top.n_columns <= rows.n_classes,
          f"classes must have {rows.n_rows} rows and 1 to {rows.n_classes} columns, "
          f"got shape ({top.n_rows}, {top.n_columns})")
    out.data = NULL
    out.row_stride = 0
    if probs is not None:
        out = same_type(probs, "probs", &w, 2, True)
        check(out.n_rows == top.n_rows and out.n_columns == top.n_columns,
              f"probs must have the shape of classes, ({top.n_rows}, {top.n_columns}), "
              f"got ({out.n_rows}, {out.n_columns})")
    found.classes, found.classes_stride = <int64_t *>top.data, top.row_stride
    found.probs, found.probs_stride = out.data, out.row_stride
    found.n_top = top.n_columns
    scratch = _Scratch(fs_predict_scratch(kern, &rows, True, n))
    with nogil:
        finite = fs_predict_top(kern, &found, &rows, w.data, b.data, scratch.data, n)
    raise_if_interrupted()
    return bool(finite)


def loss_grad(grad_weights, grad_bias, X, targets, weights, bias, *, isa=None, n_threads=1):
    """Weighted cross-entropy of an affine model, summed over the rows, and its gradient.

    grad_weights (n_logits, d) and grad_bias (n_logits,) are float64 and are overwritten; both None:
    the loss alone. Returns (loss, correct).
    """
    cdef fs_rows rows
    cdef Array w = array_of(weights, "weights", "fd", 2)
    cdef Array x = features_of(&rows, X, &w)
    cdef Array b = same_type(bias, "bias", &w, 1)
    cdef Array grad_w, grad_b
    cdef bint with_grad = grad_weights is not None, sparse = isinstance(X, CsrRows)
    cdef ptrdiff_t n_bytes
    cdef const kernels *kern = table(&w, isa)
    cdef int n = threads(n_threads)
    cdef fs_sums sums
    cdef _Scratch scratch
    fill_targets(&rows, targets, &w, x.n_rows, "X")
    rows.n_logits = w.n_rows
    check_classes(&rows)
    check(w.n_columns == x.n_columns and w.row_stride == w.n_columns,
          f"weights must be contiguous, with {x.n_columns} columns as X")
    check(b.size == w.n_rows, f"bias must have {w.n_rows} elements, got {b.size}")
    check(with_grad == (grad_bias is not None), "grad_weights and grad_bias go together")
    grad_w.data = grad_b.data = NULL
    if with_grad:
        grad_w = array_of(grad_weights, "grad_weights", "d", 2, True)
        grad_b = array_of(grad_bias, "grad_bias", "d", 1, True)
        check(grad_w.n_rows == w.n_rows and grad_w.n_columns == w.n_columns
              and grad_w.row_stride == w.n_columns and grad_b.size == w.n_rows,
              "grad_weights and grad_bias must have the shapes of weights and bias")
    check(not with_grad or rows.indptr == NULL or rows.columns != NULL or rows.n_logits == 1,
          "a gradient by several logits over CsrRows needs set_columns")
    n_bytes = fs_loss_grad_scratch(kern, &rows, with_grad, n)
    scratch = (<CsrRows>X).take_scratch(n_bytes) if sparse else _Scratch(n_bytes)
    with nogil:
        sums = fs_loss_grad(kern, <double *>grad_w.data, <double *>grad_b.data, &rows, w.data,
                            b.data, scratch.data, n)
    raise_if_interrupted()
    if sparse:
        (<CsrRows>X).keep_scratch(scratch)
    return sums.loss, sums.correct


def hessian_sums(out, X, row_weights, weights, bias, scaling, *, isa=None, n_threads=1):
    """Let out = sum_i s_i (diag(p_i) - p_i p_i^T) (x) z_i z_i^T, in both triangles.

    p are the probabilities of the model o = W x + b of n_logits logits (one logit: of two classes,
    out has p_1 (1 - p_1) there), s are row_weights. z are the rows of X, which is dense, in the
    coordinates of a `Scaling`. out is float64, (n_logits m, n_logits m) for m numbers in z; those
    of a logit lie together.
    """
    cdef fs_rows rows
    cdef Array b
    center, scale, with_bias = scaling  # held until the end
    cdef Array w = model_of(&rows, &b, X, weights, bias, None)
    cdef Array s = same_type(row_weights, "row_weights", &w, 1)
    cdef Array o = array_of(out, "out", "d", 2, True)
    cdef const kernels *kern = table(&w, isa)
    cdef int n = threads(n_threads)
    cdef fs_coordinates coordinates
    cdef ptrdiff_t size
    cdef _Scratch scratch
    check(rows.indptr == NULL, "X must be dense, got CsrRows")
    check(s.size == rows.n_rows, f"row_weights must have {rows.n_rows} elements, got {s.size}")
    coordinates.center = <const double *>vector_of(center, "center", rows.n_features).data
    coordinates.scale = optional_vector(scale, "scale", rows.n_features)
    coordinates.with_bias = bool(with_bias)
    size = rows.n_logits * (rows.n_features + coordinates.with_bias)
    check(o.n_rows == size and o.n_columns == size and o.row_stride == size,
          f"out must be contiguous, of shape ({size}, {size}), got ({o.n_rows}, {o.n_columns})")
    rows.row_weights = s.data
    scratch = _Scratch(fs_hessian_scratch(kern, &rows, coordinates.with_bias, n))
    with nogil:
        fs_hessian_sums(kern, <double *>o.data, &rows, w.data, b.data, &coordinates, scratch.data,
                        n)
    raise_if_interrupted()


cdef const void *per_feature(array, str name, const Array *like, ptrdiff_t n_features) except? NULL:
    if array is None:
        return NULL
    cdef Array a = same_type(array, name, like, 1)
    check(a.size == n_features, f"{name} must have {n_features} elements, got {a.size}")
    return a.data


def feature_moments(sums, squares, X, row_weights, shift, units, *, isa=None, n_threads=1):
    """Sum y = units (x - shift) and its squares over the rows, by feature, weighted.

    sums and squares (d,) are float64 and are overwritten; X is dense. Returns the largest squared
    length of a row y.
    """
    cdef fs_rows rows
    cdef Array s = array_of(row_weights, "row_weights", "fd", 1)
    cdef Array x = features_of(&rows, X, &s)
    cdef const kernels *kern = table(&s, isa)
    cdef int n = threads(n_threads)
    cdef double *sums_data = <double *>vector_of(sums, "sums", x.n_columns, True).data
    cdef double *squares_data = <double *>vector_of(squares, "squares", x.n_columns, True).data
    cdef const void *shift_data = per_feature(shift, "shift", &s, x.n_columns)
    cdef const void *units_data = per_feature(units, "units", &s, x.n_columns)
    cdef double largest
    cdef _Scratch scratch
    check(rows.indptr == NULL, "X must be dense, got CsrRows")
    check(s.size == rows.n_rows, f"row_weights must have {rows.n_rows} elements, got {s.size}")
    check(shift is not None and units is not None, "shift and units must be given")
    rows.row_weights = s.data
    rows.labels = NULL
    rows.target_probs = NULL
    rows.label_smoothing = 0
    rows.n_logits = rows.n_classes = 1
    scratch = _Scratch(fs_moments_scratch(kern, &rows, n))
    with nogil:
        largest = fs_feature_moments(kern, sums_data, squares_data, &rows, shift_data, units_data,
                                     scratch.data, n)
    raise_if_interrupted()
    return largest


def csr_moments(sums, squares, X, row_weights, *, isa=None):
    """Sum what is stored in CsrRows, and its squares, over the rows, by feature, weighted.

    sums and squares (d,) are float64 and are overwritten. What occurs twice in a row counts twice.
    """
    cdef fs_rows rows
    cdef Array s = array_of(row_weights, "row_weights", "fd", 1)
    check(isinstance(X, CsrRows), "X must be CsrRows")
    cdef Array x = features_of(&rows, X, &s)
    cdef const kernels *kern = table(&s, isa)
    cdef double *sums_data = <double *>vector_of(sums, "sums", x.n_columns, True).data
    cdef double *squares_data = <double *>vector_of(squares, "squares", x.n_columns, True).data
    check(s.size == rows.n_rows, f"row_weights must have {rows.n_rows} elements, got {s.size}")
    rows.row_weights = s.data
    with nogil:
        fs_csr_moments(kern, sums_data, squares_data, &rows)


def sgd_steps(params, velocity, X, targets, order, descent, *, isa=None, n_threads=1):
    """Gradient descent over the rows order[0], order[1], ..., descent.batch_size rows at a time.

    params and velocity (flat, weights and after them the bias; velocity None without momentum) are
    updated in place. A batch's gradient is the sum over its rows divided by batch_size (or by the
    rows of X, if those are fewer). squared_scale and center of the descent, if given, make the
    steps those of features (x - center) sqrt(squared_scale); center only for dense X. Returns
    (loss, correct), as each batch saw them before its update.
    """
    cdef fs_rows rows
    cdef Array p = array_of(params, "params", "fd", 1, True)
    cdef Array x = features_of(&rows, X, &p)
    cdef Array v, o = array_of(order, "order", "q", 1)
    cdef const kernels *kern = table(&p, isa)
    cdef int n = threads(n_threads)
    cdef fs_order given_order
    cdef ptrdiff_t i
    cdef fs_descent how
    cdef bint in_range = True
    cdef fs_sums sums
    cdef _Scratch scratch
    squared_scale, center = descent.squared_scale, descent.center  # held until the end
    how.batch_size = size_in(descent.batch_size, "batch_size", 1 << 62)
    how.learning_rate = real_number(descent.learning_rate, "learning_rate")
    how.momentum = real_number(descent.momentum, "momentum")
    how.l2 = real_number(descent.l2, "l2")
    how.fit_bias = bool(descent.fit_bias)
    how.squared_scale = per_feature(squared_scale, "squared_scale", &p, x.n_columns)
    how.center = per_feature(center, "center", &p, x.n_columns)
    check(center is None or (squared_scale is not None and rows.indptr == NULL),
          "center goes with squared_scale, and with dense X")
    fill_targets(&rows, targets, &p, x.n_rows, "X")
    rows.n_logits = p.size // (x.n_columns + 1)
    check(p.size == rows.n_logits * (x.n_columns + 1),
          f"params must hold weights and bias for {x.n_columns} features, got {p.size} numbers")
    check_classes(&rows)
    check(velocity is not None or how.momentum == 0,
          "velocity must be given where momentum is not 0")
    v.data = NULL
    if velocity is not None:
        v = same_type(velocity, "velocity", &p, 1, True)
        check(v.size == p.size, f"velocity must have {p.size} elements, got {v.size}")
    given_order.rows, given_order.n = <const int64_t *>o.data, o.size
    with nogil:
        for i in range(given_order.n):
            in_range &= 0 <= given_order.rows[i] < rows.n_rows
    check(in_range, f"order must hold row numbers in [0, {rows.n_rows})")
    how.batch_size = min(how.batch_size, max(1, rows.n_rows))
    scratch = _Scratch(fs_sgd_scratch(kern, &rows, how.batch_size, n))
    with nogil:
        sums = fs_sgd_steps(kern, p.data, v.data, &rows, given_order, &how, scratch.data, n)
    raise_if_interrupted()
    return sums.loss, sums.correct

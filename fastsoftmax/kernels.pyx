# cython: language_level=3, binding=True, embedsignature=True, freethreading_compatible=True
"""The bridge to the compiled kernels: checks arguments, finds memory, lets go of the GIL.

The functions are those of `fastsoftmax.reference`, with the same names, arguments and meanings;
formulas and layouts are stated in src/kernels/kernels.h. Arrays are checked for number type, shape
and layout, never converted: `fastsoftmax.functional` and the estimator do that. Rows may be strided,
the elements of a row are adjacent.
"""

from cpython.buffer cimport (
    PyBUF_FORMAT, PyBUF_STRIDES, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer, Py_buffer,
)
from cpython.mem cimport PyMem_RawFree, PyMem_RawMalloc
from libc.stdint cimport int32_t, int64_t, uintptr_t

from operator import index as as_index

from numpy import generic, ndarray


cdef extern from "kernels.h" nogil:
    ctypedef enum fs_x_type:
        FS_X_F32, FS_X_F64, FS_X_U8, FS_X_I8, FS_X_F16

    ctypedef struct fs_columns:
        ptrdiff_t panel_rows
        const int64_t *panel_columns
        const int64_t *starts
        const int32_t *features
        const int32_t *rows
        const void *values

    ctypedef struct fs_rows:
        const void *x
        fs_x_type x_type
        const void *indices
        const void *indptr
        int wide_index
        const fs_columns *columns
        const int32_t *labels
        const void *target_probs
        const void *row_weights
        double label_smoothing
        ptrdiff_t x_stride, x_feature_stride, n_rows, n_features, n_classes, n_logits

    ctypedef struct fs_sums:
        double loss, correct

    ctypedef struct kernels:
        const char *isa
        void (*exp_values)(void *, const void *, ptrdiff_t) noexcept nogil
        void (*log_values)(void *, const void *, ptrdiff_t) noexcept nogil

    const kernels *fs_kernels(ptrdiff_t real_size, int i)
    int fs_has_openmp()
    int fs_max_threads()
    void fs_watch_forks()
    void fs_softmax_rows(const kernels *, void *out, const void *logits, ptrdiff_t, ptrdiff_t,
                         ptrdiff_t n_rows, ptrdiff_t n_classes, int n_threads)
    void fs_log_softmax_rows(const kernels *, void *out, const void *logits, ptrdiff_t, ptrdiff_t,
                             ptrdiff_t n_rows, ptrdiff_t n_classes, int n_threads)
    void fs_logsumexp_rows(const kernels *, void *out, const void *logits, ptrdiff_t,
                           ptrdiff_t n_rows, ptrdiff_t n_classes, int n_threads)
    void fs_cross_entropy_rows(const kernels *, void *loss, void *grad, const void *logits,
                               ptrdiff_t, ptrdiff_t, const fs_rows *, int n_threads)
    ptrdiff_t fs_affine_scratch(const kernels *, const fs_rows *, int n_threads)
    void fs_affine_rows(const kernels *, void *logits, const fs_rows *, const void *weights,
                        const void *bias, ptrdiff_t, void *scratch, int n_threads)
    ptrdiff_t fs_panel_rows(const kernels *, ptrdiff_t n_logits)
    ptrdiff_t fs_predict_scratch(const kernels *, const fs_rows *, int with_logits, int n_threads)
    int fs_predict_rows(const kernels *, void *probs, const fs_rows *, const void *weights,
                        const void *bias, ptrdiff_t, int as_log, void *scratch, int n_threads)
    int fs_predict_top(const kernels *, int64_t *classes, void *probs, const fs_rows *,
                       const void *weights, const void *bias, ptrdiff_t, ptrdiff_t,
                       ptrdiff_t n_top, void *scratch, int n_threads)
    ptrdiff_t fs_loss_grad_scratch(const kernels *, const fs_rows *, int with_grad, int n_threads)
    fs_sums fs_loss_grad(const kernels *, double *grad_weights, double *grad_bias,
                         const fs_rows *, const void *weights, const void *bias, void *scratch,
                         int n_threads)
    ctypedef struct fs_scaling:
        const void *squared_scale
        const void *center

    ctypedef struct fs_sgd:
        double learning_rate, momentum, weight_decay
        int fit_bias

    ptrdiff_t fs_sgd_scratch(const kernels *, const fs_rows *, ptrdiff_t batch_size, int n_threads)
    fs_sums fs_sgd_steps(const kernels *, void *params, void *velocity, const fs_rows *,
                         const int64_t *order, ptrdiff_t n_order, ptrdiff_t batch_size, fs_sgd,
                         fs_scaling, void *scratch, int n_threads)

fs_watch_forks()


# ---- arguments ----

cdef struct Array:
    char *data
    ptrdiff_t n_rows, n_columns, row_stride, column_stride, size  # strides in elements
    char kind  # a key of _NUMBER_TYPES


cdef char kind_of(const Py_buffer *view) noexcept:
    cdef const char *format = view.format
    if format != NULL and format[0] in b"@=^":  # as numpy marks what is not aligned
        format += 1
    cdef char letter = format[0] if format != NULL and format[0] != 0 and format[1] == 0 else 0
    if letter in b"fdeBb":
        return letter
    if letter in b"ilq":
        return b"i" if view.itemsize == 4 else b"q"
    return 0


cdef Array array_of(object array, str name, str kinds, int ndim, bint writable=False,
                    bint any_strides=False) except *:
    """What a kernel needs of an array.

    The caller's reference keeps an ndarray's memory where it is; other objects with a buffer could
    be resized by another thread once the view is released, so they are refused.
    """
    cdef Py_buffer view
    cdef Array result
    cdef ptrdiff_t row_bytes, column_bytes = 0
    if not isinstance(array, (ndarray, generic)):
        raise TypeError(f"{name} must be a numpy array, got {type(array).__name__}")
    try:
        PyObject_GetBuffer(array, &view,
                           PyBUF_FORMAT | PyBUF_STRIDES | (PyBUF_WRITABLE if writable else 0))
    except (BufferError, ValueError, TypeError) as error:
        raise ValueError(f"{name} must be {'a writable' if writable else 'an'} array, "
                         f"got {type(array).__name__} ({error})") from None
    try:
        result.kind = kind_of(&view)
        if result.kind == 0 or chr(result.kind) not in kinds:
            raise TypeError(f"{name} must hold {' or '.join(_NUMBER_TYPES[k] for k in list(kinds))}, "
                            f"got {getattr(array, 'dtype', 'something else')}")
        if view.ndim != ndim:
            raise ValueError(f"{name} must have {ndim} dimension(s), got {view.ndim}")
        result.n_rows = view.shape[0]
        result.n_columns = view.shape[1] if ndim == 2 else 1
        result.size = result.n_rows * result.n_columns
        result.column_stride = 1
        row_bytes = view.strides[0]
        if result.size > 1:
            if ndim == 2 and result.n_columns > 1:
                column_bytes = view.strides[1]
                if column_bytes != view.itemsize and not any_strides:
                    raise ValueError(f"the elements of a row of {name} must be adjacent in memory")
                result.column_stride = column_bytes // view.itemsize
            if ndim == 1 and row_bytes != view.itemsize:
                raise ValueError(f"{name} must be contiguous")
            if (row_bytes % view.itemsize or column_bytes % view.itemsize
                    or <uintptr_t>view.buf % <uintptr_t>view.itemsize):
                raise ValueError(f"{name} must be aligned")
        result.row_stride = row_bytes // view.itemsize if result.n_rows > 1 else result.n_columns
        result.data = <char *>view.buf
        return result
    finally:
        PyBuffer_Release(&view)


_NUMBER_TYPES = {
    "f": "float32", "d": "float64", "i": "int32", "q": "int64",
    "e": "float16", "B": "uint8", "b": "int8",
}


cdef Array same_type(object array, str name, const Array *like, int ndim,
                     bint writable=False) except *:
    return array_of(array, name, chr(like.kind), ndim, writable)


cdef int check(bint holds, str message) except -1:
    if not holds:
        raise ValueError(message)
    return 0


cdef int threads(n_threads) except -1:
    n_threads = whole_number(n_threads, "n_threads")
    if n_threads < 1:
        raise ValueError(f"n_threads must be at least 1, got {n_threads}")
    return min(n_threads, 1024)


cdef whole_number(value, str name):
    try:
        return as_index(value)
    except TypeError:
        raise TypeError(f"{name} must be an integer, got {value!r}") from None


cdef ptrdiff_t size_in(value, str name, most) except -1:
    value = whole_number(value, name)
    if not 1 <= value <= most:
        raise ValueError(f"{name} must lie in [1, {most}], got {value}")
    return value


cdef double real_number(value, str name) except? -1:
    try:
        return value
    except TypeError:
        raise TypeError(f"{name} must be a real number, got {value!r}") from None


cdef const kernels *table(const Array *like, isa) except NULL:
    """The functions for an array's number type and an instruction set (None: the best)."""
    cdef ptrdiff_t real_size = 4 if like.kind == b"f" else 8
    cdef int i = 0
    cdef const kernels *found = fs_kernels(real_size, 0)
    if isa is None:
        return found
    if not isinstance(isa, str):
        raise TypeError(f"isa must be a str or None, got {isa!r}")
    while found != NULL:
        if found.isa == (<str>isa).encode():
            return found
        i += 1
        found = fs_kernels(real_size, i)
    raise ValueError(f"isa must be None or one of {available_isas()} on this machine, got {isa!r}")


cdef int targets_of(fs_rows *rows, const Array *like, labels, target_probs, row_weights,
                    label_smoothing, ptrdiff_t n_rows, number_of_classes) except -1:
    """Fill in what the rows are compared with."""
    cdef Array array
    cdef ptrdiff_t i
    cdef bint in_range = True
    cdef ptrdiff_t n_classes = size_in(number_of_classes, "n_classes", 1 << 24)
    rows.n_rows = n_rows
    rows.n_classes = n_classes
    rows.labels = NULL
    rows.target_probs = NULL
    check((labels is None) != (target_probs is None),
          "exactly one of labels and target_probs must be given")
    rows.label_smoothing = real_number(label_smoothing, "label_smoothing")
    check(0 <= rows.label_smoothing <= 1, f"label_smoothing must lie in [0, 1], got {label_smoothing}")
    if labels is not None:
        array = array_of(labels, "labels", "i", 1)
        check(array.n_rows == n_rows, f"labels must have {n_rows} elements, got {array.n_rows}")
        rows.labels = <const int32_t *>array.data
        with nogil:
            for i in range(n_rows):
                in_range &= 0 <= rows.labels[i] < n_classes
        check(in_range, f"labels must lie in [0, {n_classes})")
    else:
        array = same_type(target_probs, "target_probs", like, 2)
        check(array.n_rows == n_rows and array.n_columns == n_classes
              and array.row_stride == n_classes,
              f"target_probs must be a contiguous array of shape ({n_rows}, {n_classes})")
        rows.target_probs = array.data
    array = same_type(row_weights, "row_weights", like, 1)
    check(array.n_rows == n_rows, f"row_weights must have {n_rows} elements, got {array.n_rows}")
    rows.row_weights = array.data
    return 0


cdef Array features_of(fs_rows *rows, X, const Array *like) except *:
    """Fill in the features; of the result the sizes count."""
    cdef Array x
    rows.indices = rows.indptr = NULL
    rows.columns = NULL
    if isinstance(X, CsrRows):
        x = (<CsrRows>X).fill(rows)
        check(x.kind != b"d" or like.kind == b"d",
              "X must hold float32 where weights or params are float32, got float64")
        return x
    x = array_of(X, "X", "fdeBb" if like.kind == b"d" else "feBb", 2, False, True)
    rows.x = x.data
    rows.x_type = (FS_X_F32 if x.kind == b"f" else FS_X_F64 if x.kind == b"d"
                   else FS_X_U8 if x.kind == b"B" else FS_X_I8 if x.kind == b"b" else FS_X_F16)
    rows.x_stride = x.row_stride
    rows.x_feature_stride = x.column_stride
    rows.n_rows = x.n_rows
    rows.n_features = x.n_columns
    return x


cdef int check_classes(const fs_rows *rows) except -1:
    check(rows.n_logits == rows.n_classes or (rows.n_logits == 1 and rows.n_classes == 2),
          f"weights must have {rows.n_classes} rows, or 1 for two classes, got {rows.n_logits}")
    return 0


cdef class _Scratch:
    """Memory that a kernel works in, aligned to a cache line."""
    cdef void *block
    cdef void *data

    def __cinit__(self, ptrdiff_t n_bytes):
        self.block = PyMem_RawMalloc(n_bytes + 64) if n_bytes >= 0 else NULL
        if self.block == NULL:
            raise MemoryError(f"no memory for {n_bytes} bytes of intermediate results")
        self.data = <void *>((<uintptr_t>self.block + 63) // 64 * 64)

    def __dealloc__(self):
        PyMem_RawFree(self.block)


cdef class CsrRows:
    """Rows in CSR form, checked once, as `X` of the functions below.

    Parameters
    ----------
    data : ndarray of float32 or float64
    indices, indptr : ndarray of int32 or int64, both of one type
        As of a `scipy.sparse.csr_array`; indices may be in any order and occur twice. The three are
        referred to, not copied, and must not change while this object is in use.
    n_features : int
    """
    cdef object arrays  # which keep the memory of what follows
    cdef Array values, indices, indptr
    cdef fs_columns columns
    cdef ptrdiff_t n_rows, n_features
    cdef bint has_columns

    def __cinit__(self, data, indices, indptr, n_features):
        cdef ptrdiff_t p, begin, end
        cdef bint in_range = True
        cdef const int32_t *narrow
        cdef const int64_t *wide
        self.n_features = size_in(n_features, "n_features", 2**31 - 1) if n_features else 0
        self.values = array_of(data, "data", "fd", 1)
        self.indices = array_of(indices, "indices", "iq", 1)
        self.indptr = same_type(indptr, "indptr", &self.indices, 1)
        self.arrays = [data, indices, indptr]
        self.n_rows = self.indptr.size - 1
        check(self.n_rows >= 0, "indptr must have at least one element")
        begin, end = row_at(&self.indptr, 0), row_at(&self.indptr, self.n_rows)
        with nogil:
            for p in range(self.n_rows):
                in_range &= row_at(&self.indptr, p) <= row_at(&self.indptr, p + 1)
        check(in_range and 0 <= begin and end <= min(self.indices.size, self.values.size),
              "indptr must ascend, from 0 or more to at most the lengths of indices and data")
        with nogil:
            if self.indices.kind == b"i":
                narrow = <const int32_t *>self.indices.data
                for p in range(begin, end):
                    in_range &= (0 <= narrow[p]) & (narrow[p] < self.n_features)
            else:
                wide = <const int64_t *>self.indices.data
                for p in range(begin, end):
                    in_range &= (0 <= wide[p]) & (wide[p] < self.n_features)
        check(in_range, f"indices must lie in [0, {self.n_features})")

    @property
    def shape(self):
        """(n_rows, n_features)"""
        return self.n_rows, self.n_features

    def set_columns(self, panel_rows, panel_columns, starts, features, rows, values):
        """Give the same numbers by columns, which gradients need; see fs_columns in kernels.h."""
        # a pass that runs without the GIL may be reading those that it has
        check(not self.has_columns, "the columns have been set already")
        cdef ptrdiff_t size = size_in(panel_rows, "panel_rows", 2**31 - 1)
        cdef ptrdiff_t n_panels = (self.n_rows + size - 1) // size
        cdef Array panels = array_of(panel_columns, "panel_columns", "q", 1)
        cdef Array begins = array_of(starts, "starts", "q", 1)
        cdef Array feature = array_of(features, "features", "i", 1)
        cdef Array row = array_of(rows, "rows", "i", 1)
        cdef Array value = same_type(values, "values", &self.values, 1)
        cdef ptrdiff_t p, c, e
        cdef bint good = panels.size == n_panels + 1 and begins.size == feature.size + 1
        good = good and row_at(&panels, 0) == 0 and row_at(&panels, n_panels) == feature.size
        good = good and row_at(&begins, 0) == 0
        good = good and row_at(&begins, feature.size) == row.size and row.size == value.size
        with nogil:
            for p in range(n_panels if good else 0):
                good &= row_at(&panels, p) <= row_at(&panels, p + 1) <= feature.size
            for c in range(feature.size if good else 0):
                good &= row_at(&begins, c) <= row_at(&begins, c + 1) <= row.size
                good &= 0 <= row_at(&feature, c) < self.n_features
            for p in range(n_panels if good else 0):
                for e in range(row_at(&begins, row_at(&panels, p)),
                               row_at(&begins, row_at(&panels, p + 1))):
                    good &= 0 <= row_at(&row, e) < min(size, self.n_rows - p * size)
        check(good, "panel_columns, starts, features, rows and values do not describe columns")
        self.arrays = [*self.arrays[:3], panel_columns, starts, features, rows, values]
        self.columns.panel_rows = size
        self.columns.panel_columns = <const int64_t *>panels.data
        self.columns.starts = <const int64_t *>begins.data
        self.columns.features = <const int32_t *>feature.data
        self.columns.rows = <const int32_t *>row.data
        self.columns.values = value.data
        self.has_columns = True

    cdef Array fill(self, fs_rows *rows):
        cdef Array x = self.values
        rows.x = self.values.data
        rows.x_type = FS_X_F32 if self.values.kind == b"f" else FS_X_F64
        rows.x_stride = rows.x_feature_stride = 0
        rows.indices = self.indices.data
        rows.indptr = self.indptr.data
        rows.wide_index = self.indices.kind == b"q"
        rows.columns = &self.columns if self.has_columns else NULL
        rows.n_rows = x.n_rows = self.n_rows
        rows.n_features = x.n_columns = self.n_features
        return x


cdef inline ptrdiff_t row_at(const Array *array, ptrdiff_t i) noexcept nogil:
    """Element i of an array of integers."""
    if array.kind == b"i":
        return (<const int32_t *>array.data)[i]
    return <ptrdiff_t>(<const int64_t *>array.data)[i]


# ---- the functions ----

def available_isas():
    """Instruction sets that `isa` can name on this machine, best first."""
    names = []
    while fs_kernels(4, len(names)) != NULL:
        names.append(fs_kernels(4, len(names)).isa.decode())
    return tuple(names)


def openmp():
    """Whether the kernels were compiled with OpenMP, so that n_threads has an effect."""
    return bool(fs_has_openmp())


def max_threads():
    """Threads that OMP_NUM_THREADS, the CPU affinity or threadpoolctl allow now."""
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


def cross_entropy_rows(loss, grad, logits, labels, target_probs, row_weights, label_smoothing, *,
                       isa=None, n_threads=1):
    """loss[i] = row_weight_i * cross-entropy of row i, in nats, and its gradient by the logits.

    grad[i] = row_weight_i * (softmax(z_i) - target_i); it may be None, or logits. Exactly one of
    labels (n,) and target_probs (n, K) is given.
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
    targets_of(&rows, &a, labels, target_probs, row_weights, label_smoothing, a.n_rows,
               a.n_columns)
    rows.x = rows.indices = rows.indptr = NULL
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


cdef Array model_of(fs_rows *rows, Array *b, X, weights, bias, number_of_classes) except *:
    """The weights, and in rows and b what else a prediction needs."""
    cdef Array w = array_of(weights, "weights", "fd", 2)
    cdef Array x = features_of(rows, X, &w)
    rows.labels = NULL
    rows.target_probs = rows.row_weights = NULL
    rows.label_smoothing = 0
    rows.n_logits = w.n_rows
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
    scratch = _Scratch(fs_predict_scratch(kern, &rows, True, n))
    with nogil:
        finite = fs_predict_top(kern, <int64_t *>top.data, out.data, &rows, w.data, b.data,
                                top.row_stride, out.row_stride, top.n_columns, scratch.data, n)
    return bool(finite)


def loss_grad(grad_weights, grad_bias, X, labels, target_probs, row_weights, label_smoothing,
              weights, bias, n_classes, *, isa=None, n_threads=1):
    """Weighted cross-entropy of an affine model, summed over the rows, and its gradient.

    grad_weights (n_logits, d) and grad_bias (n_logits,) are float64 and are overwritten; both None:
    the loss alone. Returns (loss, correct).
    """
    cdef fs_rows rows
    cdef Array w = array_of(weights, "weights", "fd", 2)
    cdef Array x = features_of(&rows, X, &w)
    cdef Array b = same_type(bias, "bias", &w, 1)
    cdef Array grad_w, grad_b
    cdef bint with_grad = grad_weights is not None
    cdef const kernels *kern = table(&w, isa)
    cdef int n = threads(n_threads)
    cdef fs_sums sums
    cdef _Scratch scratch
    targets_of(&rows, &w, labels, target_probs, row_weights, label_smoothing, x.n_rows, n_classes)
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
    check(not with_grad or rows.indptr == NULL or rows.columns != NULL,
          "a gradient over CsrRows needs set_columns")
    scratch = _Scratch(fs_loss_grad_scratch(kern, &rows, with_grad, n))
    with nogil:
        sums = fs_loss_grad(kern, <double *>grad_w.data, <double *>grad_b.data, &rows, w.data,
                            b.data, scratch.data, n)
    return sums.loss, sums.correct


cdef const void *per_feature(array, str name, const Array *like, ptrdiff_t n_features) except? NULL:
    if array is None:
        return NULL
    cdef Array a = same_type(array, name, like, 1)
    check(a.size == n_features, f"{name} must have {n_features} elements, got {a.size}")
    return a.data


def sgd_steps(params, velocity, X, labels, target_probs, row_weights, label_smoothing, n_classes,
              order, batch_size, learning_rate, momentum, weight_decay, fit_bias, *,
              squared_scale=None, center=None, isa=None, n_threads=1):
    """Gradient descent over the rows order[0], order[1], ..., batch_size rows at a time.

    params and velocity (flat, weights and after them the bias; velocity None without momentum) are
    updated in place. A batch's gradient is the sum over its rows divided by batch_size (or by the
    rows of X, if those are fewer). squared_scale and center (n_features,), if given, make the steps
    those of features (x - center) sqrt(squared_scale); center only for dense X. Returns
    (loss, correct), as each batch saw them before its update.
    """
    cdef fs_rows rows
    cdef Array p = array_of(params, "params", "fd", 1, True)
    cdef Array x = features_of(&rows, X, &p)
    cdef Array v, o = array_of(order, "order", "q", 1)
    cdef const kernels *kern = table(&p, isa)
    cdef int n = threads(n_threads)
    cdef const int64_t *index = <const int64_t *>o.data
    cdef ptrdiff_t i, batch = size_in(batch_size, "batch_size", 1 << 62)
    cdef fs_sgd sgd
    cdef fs_scaling scaling
    cdef bint in_range = True
    cdef fs_sums sums
    cdef _Scratch scratch
    sgd.learning_rate = real_number(learning_rate, "learning_rate")
    sgd.momentum = real_number(momentum, "momentum")
    sgd.weight_decay = real_number(weight_decay, "weight_decay")
    sgd.fit_bias = bool(fit_bias)
    scaling.squared_scale = per_feature(squared_scale, "squared_scale", &p, x.n_columns)
    scaling.center = per_feature(center, "center", &p, x.n_columns)
    check(center is None or (squared_scale is not None and rows.indptr == NULL),
          "center goes with squared_scale, and with dense X")
    targets_of(&rows, &p, labels, target_probs, row_weights, label_smoothing, x.n_rows, n_classes)
    rows.n_logits = p.size // (x.n_columns + 1)
    check(p.size == rows.n_logits * (x.n_columns + 1),
          f"params must hold weights and bias for {x.n_columns} features, got {p.size} numbers")
    check_classes(&rows)
    check(velocity is not None or sgd.momentum == 0,
          "velocity must be given where momentum is not 0")
    v.data = NULL
    if velocity is not None:
        v = same_type(velocity, "velocity", &p, 1, True)
        check(v.size == p.size, f"velocity must have {p.size} elements, got {v.size}")
    with nogil:
        for i in range(o.size):
            in_range &= 0 <= index[i] < rows.n_rows
    check(in_range, f"order must hold row numbers in [0, {rows.n_rows})")
    batch = min(batch, max(1, rows.n_rows))
    scratch = _Scratch(fs_sgd_scratch(kern, &rows, batch, n))
    with nogil:
        sums = fs_sgd_steps(kern, p.data, v.data, &rows, index, o.size, batch, sgd, scaling,
                            scratch.data, n)
    return sums.loss, sums.correct

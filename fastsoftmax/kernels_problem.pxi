# (Part of kernels.pyx.) The rows of a problem: features, dense or CSR, and targets.

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


cdef extern from "Python.h":
    int PyErr_CheckSignals()  # (no exception is expected here: see `raise_if_interrupted`)
    void *PyErr_Occurred()


cdef extern from "time.h" nogil:
    struct timespec:
        long long tv_sec
        long tv_nsec
    int TIME_UTC
    int timespec_get(timespec *, int)


cdef double last_look = 0.0  # seconds; of the main thread alone


cdef int has_interruption() noexcept nogil:
    """Whether a signal's handler has raised an exception, such as KeyboardInterrupt.

    It looks after 50 ms again: a thread that computes in Python lets go of the GIL in 5 ms only.
    """
    global last_look
    cdef timespec now
    timespec_get(&now, TIME_UTC)
    cdef double seconds = now.tv_sec + 1e-9 * now.tv_nsec
    if 0.0 <= seconds - last_look < 0.05:
        return 0
    last_look = seconds
    with gil:
        return PyErr_CheckSignals()


cdef int raise_if_interrupted() except -1:
    """Pass on what `has_interruption` found in a kernel; before all else that can raise."""
    return -1 if PyErr_Occurred() != NULL else 0


cdef Array features_of(fs_rows *rows, X, const Array *like) except *:
    """Fill in the features; of the result the sizes count."""
    cdef Array x
    # Python runs signal handlers in one thread alone: others need not ask for the GIL
    rows.interrupted = NULL
    if current_thread() is main_thread():
        rows.interrupted = &has_interruption
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
    cdef _Scratch scratch  # of the last pass, for the next: fresh memory costs a fifth of a pass

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
                for c in range(row_at(&panels, p) + 1, row_at(&panels, p + 1)):
                    # ascending: two columns of one feature could be added up by two threads
                    good &= row_at(&feature, c - 1) < row_at(&feature, c)
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

    cdef _Scratch take_scratch(self, ptrdiff_t n_bytes):
        """Memory for a pass; with the GIL held, so that no other thread gets the same."""
        cdef _Scratch scratch = self.scratch
        self.scratch = None
        return scratch if scratch is not None and scratch.n_bytes == n_bytes else _Scratch(n_bytes)

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

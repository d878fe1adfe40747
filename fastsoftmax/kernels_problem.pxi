# (Part of kernels.pyx.) The rows of a problem: features, dense or CSR, and targets.

cdef class Targets:
    """What rows are compared with, and their weights: checked once, as `targets` of the functions.

    Parameters
    ----------
    labels : ndarray of shape (n,), int32, or None
        Class numbers in [0, n_classes). They are copied (4 bytes a row): kernels index by them, so
        a label that is changed later must not reach them.
    target_probs : ndarray of shape (n, n_classes), or None
        Target distributions, given where labels are not; of the number type of row_weights.
    row_weights : ndarray of shape (n,), float32 or float64
        Of the number type that the kernels compute in. Like target_probs they are referred to, not
        copied.
    label_smoothing : float
        In [0, 1].
    n_classes : int
    """
    cdef readonly object labels, target_probs, row_weights  # as they were given
    cdef readonly double label_smoothing
    cdef readonly ptrdiff_t n_classes, n_rows
    cdef _Scratch own_labels  # the copy, which parts of the rows share
    cdef const int32_t *label_data
    cdef const char *prob_data
    cdef const char *weight_data
    cdef char kind  # of the row weights

    def __init__(self, labels, target_probs, row_weights, label_smoothing, n_classes):
        check(self.row_weights is None, "Targets are made once")
        cdef Array given, weights = array_of(row_weights, "row_weights", "fd", 1)
        cdef ptrdiff_t i, n = weights.n_rows, k = size_in(n_classes, "n_classes", 1 << 24)
        cdef int32_t *own
        cdef bint in_range = True
        cdef double smoothing = real_number(label_smoothing, "label_smoothing")
        check((labels is None) != (target_probs is None),
              "exactly one of labels and target_probs must be given")
        check(0 <= smoothing <= 1, f"label_smoothing must lie in [0, 1], got {label_smoothing}")
        if labels is not None:
            given = array_of(labels, "labels", "i", 1)
            check(given.n_rows == n,
                  f"labels must have {n} elements as row_weights, got {given.n_rows}")
            self.own_labels = _Scratch(n * <ptrdiff_t>sizeof(int32_t))
            own = <int32_t *>self.own_labels.data
            with nogil:
                memcpy(own, given.data, n * sizeof(int32_t))
                for i in range(n):
                    in_range &= 0 <= own[i] < k
            check(in_range, f"labels must lie in [0, {k})")
            self.label_data = own
        else:
            given = same_type(target_probs, "target_probs", &weights, 2)
            check(given.n_rows == n and given.n_columns == k and given.row_stride == k,
                  f"target_probs must be a contiguous array of shape ({n}, {k}), with a row for "
                  f"each of row_weights, got shape ({given.n_rows}, {given.n_columns})")
            self.prob_data = given.data
        self.labels, self.target_probs, self.row_weights = labels, target_probs, row_weights
        self.label_smoothing, self.n_classes, self.n_rows = smoothing, k, n
        self.weight_data, self.kind = weights.data, weights.kind

    def __getitem__(self, rows):
        """Adjacent rows, without a new look at their labels."""
        if not isinstance(rows, slice):
            raise TypeError(f"targets take a slice of adjacent rows, got {rows!r}")
        cdef ptrdiff_t begin, end, step, size = 4 if self.kind == b"f" else 8
        begin, end, step = rows.indices(self.n_rows)
        check(step == 1, f"targets take a slice of adjacent rows, got {rows!r}")
        end = max(begin, end)
        if end - begin == self.n_rows:
            return self
        cdef Targets part = Targets.__new__(Targets)
        if self.labels is not None:
            part.labels, part.own_labels = self.labels[begin:end], self.own_labels
            part.label_data = self.label_data + begin
        else:
            part.target_probs = self.target_probs[begin:end]
            part.prob_data = self.prob_data + begin * self.n_classes * size
        part.row_weights = self.row_weights[begin:end]
        part.label_smoothing, part.n_classes = self.label_smoothing, self.n_classes
        part.n_rows = end - begin
        part.weight_data, part.kind = self.weight_data + begin * size, self.kind
        return part


cdef int fill_targets(fs_rows *rows, targets, const Array *like, ptrdiff_t n_rows,
                      str matrix) except -1:
    """Fill in what the rows of a matrix, computed with in the number type of `like`, belong to."""
    if not isinstance(targets, Targets):
        raise TypeError(f"targets must be Targets, got {type(targets).__name__}")
    cdef Targets t = <Targets>targets
    if t.kind != like.kind:
        raise TypeError(f"the row_weights of targets must hold {_NUMBER_TYPES[chr(like.kind)]}, "
                        f"got {getattr(t.row_weights, 'dtype', None)}")
    check(t.n_rows == n_rows, f"targets must have {n_rows} rows as {matrix}, got {t.n_rows}")
    rows.n_rows = n_rows
    rows.n_classes = t.n_classes
    rows.labels = t.label_data
    rows.target_probs = t.prob_data
    rows.row_weights = t.weight_data
    rows.label_smoothing = t.label_smoothing
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
        with cython.critical_section(self):
            # another thread may have set its own meanwhile
            check(not self.has_columns, "the columns have been set already")
            self.arrays = [*self.arrays[:3], panel_columns, starts, features, rows, values]
            self.columns.panel_rows = size
            self.columns.panel_columns = <const int64_t *>panels.data
            self.columns.starts = <const int64_t *>begins.data
            self.columns.features = <const int32_t *>feature.data
            self.columns.rows = <const int32_t *>row.data
            self.columns.values = value.data
            self.has_columns = True

    cdef _Scratch take_scratch(self, ptrdiff_t n_bytes):
        """Memory for a pass, that of the last one where no other thread has taken it."""
        cdef _Scratch scratch
        with cython.critical_section(self):
            scratch = self.scratch
            self.scratch = None
        return scratch if scratch is not None and scratch.n_bytes == n_bytes else _Scratch(n_bytes)

    cdef keep_scratch(self, _Scratch scratch):
        """Keep the memory of a pass for the next."""
        with cython.critical_section(self):
            self.scratch = scratch

    cdef Array fill(self, fs_rows *rows):
        cdef Array x = self.values
        cdef bint has_columns
        with cython.critical_section(self):
            has_columns = self.has_columns
        rows.x = self.values.data
        rows.x_type = FS_X_F32 if self.values.kind == b"f" else FS_X_F64
        rows.x_stride = rows.x_feature_stride = 0
        rows.indices = self.indices.data
        rows.indptr = self.indptr.data
        rows.wide_index = self.indices.kind == b"q"
        rows.columns = &self.columns if has_columns else NULL
        rows.n_rows = x.n_rows = self.n_rows
        rows.n_features = x.n_columns = self.n_features
        return x


cdef inline ptrdiff_t row_at(const Array *array, ptrdiff_t i) noexcept nogil:
    """Element i of an array of integers."""
    if array.kind == b"i":
        return (<const int32_t *>array.data)[i]
    return <ptrdiff_t>(<const int64_t *>array.data)[i]

# (Part of kernels.pyx.) The solvers' vectors.

cdef Array vector_of(object array, str name, ptrdiff_t size, bint writable=False) except *:
    """A float64 vector of this size; a size of -1 may be any."""
    cdef Array a = array_of(array, name, "d", 1, writable)
    check(size < 0 or a.size == size, f"{name} must have {size} elements, got {a.size}")
    return a


cdef Array matrix_of(object array, str name, const Array *like, bint writable=False) except *:
    """A float64 matrix of that shape whose rows are adjacent."""
    cdef Array a = array_of(array, name, "d", 2, writable)
    check(a.n_rows == like.n_rows and a.n_columns == like.n_columns
          and a.row_stride == a.n_columns,
          f"{name} must be contiguous, of shape ({like.n_rows}, {like.n_columns})")
    return a


cdef const double *optional_vector(object array, str name, ptrdiff_t size) except? NULL:
    if array is None:
        return NULL
    return <const double *>vector_of(array, name, size).data


cdef const double *optional_matrix(object array, str name, const Array *like) except? NULL:
    if array is None:
        return NULL
    return <const double *>matrix_of(array, name, like).data


cdef Array weights_like(object weights, const Array *like, bint writable) except *:
    cdef Array w = array_of(weights, "weights", "fd", 2, writable)
    check(w.n_rows == like.n_rows and w.n_columns == like.n_columns
          and w.row_stride == w.n_columns,
          f"weights must be contiguous, of shape ({like.n_rows}, {like.n_columns})")
    return w


def dot(a, b, *, isa=None, n_threads=1):
    """Sum of a[i] b[i]."""
    cdef Array x = vector_of(a, "a", -1)
    cdef Array y = vector_of(b, "b", x.size)
    cdef const kernels *kern = table(&x, isa)
    cdef int n = threads(n_threads)
    cdef double result
    with nogil:
        result = fs_dot(kern, <double *>x.data, <double *>y.data, x.size, n)
    return result


def add_scaled(out, y, scale, x, other, *, isa=None, n_threads=1):
    """Let out = y + scale x; returns the sum of out[i] other[i], 0 where other is None.

    out may be y or x.
    """
    cdef Array o = vector_of(out, "out", -1, True)
    cdef Array to = vector_of(y, "y", o.size)
    cdef Array a = vector_of(x, "x", o.size)
    cdef const double *by = optional_vector(other, "other", o.size)
    cdef const kernels *kern = table(&o, isa)
    cdef double factor = real_number(scale, "scale"), result
    cdef int n = threads(n_threads)
    with nogil:
        result = fs_add_scaled(kern, <double *>o.data, <double *>to.data, factor,
                               <double *>a.data, by, o.size, n)
    return result


def round_weights(weights, along, scaled, scale, center, *, isa=None, n_threads=1):
    """Let weights = scaled * scale (by column; None: ones), along = that @ center.

    weights (n_logits, d) is float32 or float64, everything else float64; along is that of the
    products before they are rounded.
    """
    cdef fs_rounding of
    cdef Array v = array_of(scaled, "scaled", "d", 2)
    matrix_of(scaled, "scaled", &v)
    cdef Array w = weights_like(weights, &v, True)
    cdef Array sums = vector_of(along, "along", v.n_rows, True)
    cdef const kernels *kern = table(&v, isa)
    cdef int n = threads(n_threads)
    cdef _Scratch scratch = _Scratch(fs_column_scratch(v.n_rows, v.n_columns))
    of.scaled = <const double *>v.data
    of.scale = optional_vector(scale, "scale", v.n_columns)
    of.center = <const double *>vector_of(center, "center", v.n_columns).data
    of.to_float = w.kind == b"f"
    of.n_logits, of.n_features = v.n_rows, v.n_columns
    with nogil:
        fs_round_weights(kern, w.data, <double *>sums.data, &of, scratch.data, n)


def assemble_gradient(gradient, along, weights, grad_bias, terms, *, isa=None, n_threads=1):
    """The gradient of F by V, in place of the sums over the rows of that by W.

    gradient = scale * (share * (gradient - its mean over the classes) - grad_bias center^T)
    + l2 * V, V = weights / scale, all (n_logits, d); with one logit no mean is taken. weights are
    float32 or float64, the rest float64; scale (None: ones) and center are (d,), base is
    (n_logits, d) or None: those five are of `GradientTerms`. along = weights @ center. Returns the
    sums over all elements of V V, g g, g V, g base and V base, g the result.
    """
    cdef fs_gradient_terms of
    cdef Array g = array_of(gradient, "gradient", "d", 2, True)
    matrix_of(gradient, "gradient", &g, True)
    center, scale, base = terms.center, terms.scale, terms.base  # held until the end
    cdef Array w = weights_like(weights, &g, False)
    cdef Array sums = vector_of(along, "along", g.n_rows, True)
    cdef const kernels *kern = table(&g, isa)
    cdef int n = threads(n_threads)
    cdef _Scratch scratch = _Scratch(fs_column_scratch(g.n_rows, g.n_columns))
    cdef _Scratch totals = _Scratch((FS_N_DOTS + g.n_rows) * <ptrdiff_t>sizeof(double))
    cdef double *dots = <double *>totals.data
    of.weights = w.data
    of.from_float = w.kind == b"f"
    of.grad_bias = <const double *>vector_of(grad_bias, "grad_bias", g.n_rows).data
    of.center = <const double *>vector_of(center, "center", g.n_columns).data
    of.scale = optional_vector(scale, "scale", g.n_columns)
    of.base = optional_matrix(base, "base", &g)
    of.share = real_number(terms.share, "share")
    of.l2 = real_number(terms.l2, "l2")
    of.n_logits, of.n_features = g.n_rows, g.n_columns
    with nogil:
        fs_assemble_gradient(kern, <double *>g.data, dots, &of, scratch.data, n)
        memcpy(sums.data, dots + FS_N_DOTS, g.n_rows * sizeof(double))
    return dots[0], dots[1], dots[2], dots[3], dots[4]


def within_product(result, along, gradient, inverse, means, grad_bias, *, isa=None, n_threads=1):
    """Let result = p less its mean over the classes, p = inverse * (gradient - grad_bias means).

    All (n_logits, d) float64; inverse may also be (1, d), the same for every class, and means None
    for zeros. along[k] = sum_j p[k, j] means[k, j]. With one logit no mean is taken.
    """
    cdef Array g = array_of(gradient, "gradient", "d", 2)
    matrix_of(gradient, "gradient", &g)
    cdef Array r = matrix_of(result, "result", &g, True)
    cdef Array sums = vector_of(along, "along", g.n_rows, True)
    cdef Array d = array_of(inverse, "inverse", "d", 2)
    cdef fs_within of
    cdef const kernels *kern = table(&g, isa)
    cdef int n = threads(n_threads)
    cdef _Scratch scratch = _Scratch(fs_column_scratch(g.n_rows, g.n_columns))
    check(d.n_columns == g.n_columns and (d.n_rows == 1 or d.n_rows == g.n_rows)
          and (d.n_rows == 1 or d.row_stride == d.n_columns),
          f"inverse must be contiguous, with 1 or {g.n_rows} rows of {g.n_columns}")
    of.gradient, of.inverse = <const double *>g.data, <const double *>d.data
    of.inverse_stride = g.n_columns if d.n_rows == g.n_rows else 0
    of.means = optional_matrix(means, "means", &g)
    of.grad_bias = <const double *>vector_of(grad_bias, "grad_bias", g.n_rows).data
    of.n_logits, of.n_features = g.n_rows, g.n_columns
    with nogil:
        fs_within_product(kern, <double *>r.data, <double *>sums.data, &of, scratch.data, n)


def columns_product(sums, totals, X, factors, panel, *, isa=None, n_threads=1):
    """Add factors^T X to sums (n_logits, d), factors^T 1 to totals, for one panel of CsrRows.

    factors (rows of the panel, n_logits) is contiguous, float32 or float64; sums and totals are
    float64. X needs set_columns.
    """
    cdef fs_rows rows
    cdef Array f = array_of(factors, "factors", "fd", 2)
    check(isinstance(X, CsrRows), "X must be CsrRows")
    cdef Array x = features_of(&rows, X, &f)
    cdef Array s = array_of(sums, "sums", "d", 2, True)
    cdef Array t = vector_of(totals, "totals", f.n_columns, True)
    cdef const kernels *kern = table(&f, isa)
    cdef int n = threads(n_threads)
    cdef ptrdiff_t n_panels, first, which = whole_number(panel, "panel")
    cdef _Scratch scratch
    check(rows.columns != NULL, "a product of columns of CsrRows needs set_columns")
    n_panels = (rows.n_rows + rows.columns.panel_rows - 1) // rows.columns.panel_rows
    check(0 <= which < n_panels, f"panel must lie in [0, {n_panels}), got {panel}")
    first = which * rows.columns.panel_rows
    check(f.n_rows == min(rows.columns.panel_rows, rows.n_rows - first)
          and f.row_stride == f.n_columns and f.n_columns > 0,
          "factors must be contiguous, with a row for each of the panel")
    check(s.n_rows == f.n_columns and s.n_columns == x.n_columns and s.row_stride == s.n_columns,
          f"sums must be contiguous, of shape ({f.n_columns}, {x.n_columns})")
    rows.n_logits = f.n_columns
    scratch = _Scratch(fs_columns_scratch(kern, &rows))
    with nogil:
        fs_columns_product(kern, <double *>s.data, <double *>t.data, &rows, f.data, which,
                           scratch.data, n)


def newton_steps(points, records, base, start, X, targets, settings, *, isa=None):
    """At most len(points) steps of Newton's method from start, for the model o = start z.

    z are the m coordinates of the rows of X, which is dense, by settings.scaling. The others are
    float64: start (n_logits, m), points (n_steps, n_logits * m) and records (n_steps, 4), which get
    the coefficients after each step with their mean loss, accuracy, objective and bound on
    objective - minimum. The objective is the mean loss plus l2 / 2 times the squares of what is not
    an intercept. base, of the shape of start, gets the gradient of the mean loss where every row
    has class_share. It stops where the bound is at most target * objective, or at most tol *
    objective where the objective no longer falls. Returns (steps, whether it stopped for that,
    whether there is nothing more to gain here).
    """
    cdef fs_rows rows
    cdef fs_small problem
    cdef fs_coordinates coordinates
    center, scale, with_bias = settings.scaling  # held until the end
    cdef Array s = array_of(start, "start", "d", 2)
    cdef Array x = features_of(&rows, X, &s)
    cdef Array p = array_of(points, "points", "d", 2, True)
    cdef Array r = array_of(records, "records", "d", 2, True)
    cdef Array b = array_of(base, "base", "d", 2, True)
    cdef const kernels *kern = table(&s, isa)
    cdef fs_newton_end end
    cdef fs_newton_limits limits
    cdef ptrdiff_t m
    cdef _Scratch scratch
    class_share = settings.class_share  # held until the end
    check(rows.indptr == NULL, "X must be dense, got CsrRows")
    coordinates.center = <const double *>vector_of(center, "center", rows.n_features).data
    coordinates.scale = optional_vector(scale, "scale", rows.n_features)
    coordinates.with_bias = bool(with_bias)
    fill_targets(&rows, targets, &s, x.n_rows, "X")
    rows.n_logits = s.n_rows
    check_classes(&rows)
    m = rows.n_features + coordinates.with_bias
    check(m > 0, "there must be a feature or an intercept")
    check(s.n_columns == m and s.row_stride == m, f"start must be contiguous, with {m} columns")
    check(b.n_rows == s.n_rows and b.n_columns == m and b.row_stride == m,
          f"base must have the shape of start, ({s.n_rows}, {m})")
    check(p.n_columns == s.size and p.row_stride == s.size, f"points must have {s.size} columns")
    check(r.n_rows == p.n_rows and r.n_columns == FS_NEWTON_RECORD
          and r.row_stride == r.n_columns, f"records must have the shape ({p.n_rows}, 4)")
    problem.rows, problem.coordinates = &rows, &coordinates
    problem.class_share = <const double *>vector_of(class_share, "class_share",
                                                    rows.n_classes).data
    problem.l2 = real_number(settings.l2, "l2")
    check(problem.l2 > 0, f"l2 must be > 0, got {settings.l2}")
    limits.most_steps = p.n_rows
    limits.tol = real_number(settings.tol, "tol")
    limits.target = real_number(settings.target, "target")
    scratch = _Scratch(fs_newton_scratch(kern, &problem))
    with nogil:
        end = fs_newton_steps(kern, <double *>p.data, <double *>r.data, <double *>b.data,
                              <double *>s.data, &problem, &limits, scratch.data)
    return end.n_steps, end.status == FS_NEWTON_DONE, end.status == FS_NEWTON_STUCK

# (Part of kernels.pyx.) Arguments checked, and memory for intermediate results.

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


# Asked once: see dispatch.c.
cdef const kernels *best_of_floats = fs_kernels(4, 0)
cdef const kernels *best_of_doubles = fs_kernels(8, 0)


cdef const kernels *table(const Array *like, isa) except NULL:
    """The functions for an array's number type and an instruction set (None: the best)."""
    cdef ptrdiff_t real_size = 4 if like.kind == b"f" else 8
    cdef int i = 0
    cdef const kernels *found = best_of_floats if real_size == 4 else best_of_doubles
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


cdef class _Scratch:
    """Memory that a kernel works in, aligned to a cache line."""
    cdef void *block
    cdef void *data
    cdef ptrdiff_t n_bytes

    def __cinit__(self, ptrdiff_t n_bytes):
        self.n_bytes = n_bytes
        self.block = PyMem_RawMalloc(n_bytes + 64) if n_bytes >= 0 else NULL
        if self.block == NULL:
            raise MemoryError(f"no memory for {n_bytes} bytes of intermediate results")
        self.data = <void *>((<uintptr_t>self.block + 63) // 64 * 64)

    def __dealloc__(self):
        PyMem_RawFree(self.block)

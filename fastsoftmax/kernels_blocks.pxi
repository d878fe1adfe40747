# (Part of kernels.pyx.) Block-diagonal matrices, factored.

def factor_block(out, rows, *, isa=None):
    """Write the Cholesky factor of I + rows rows^T to the lower triangle of out; nothing above it.

    rows is (order, n_columns), float32 or float64, and out (order, order) of the same type; both
    contiguous. Returns whether there is one: False where a product is not finite.
    """
    cdef Array Z = array_of(rows, "rows", "fd", 2)
    cdef Array L = same_type(out, "out", &Z, 2, True)
    cdef const kernels *kern = table(&Z, isa)
    cdef bint found
    check(Z.row_stride == Z.n_columns or Z.size == 0, "rows must be contiguous")
    check(L.n_rows == Z.n_rows and L.n_columns == Z.n_rows
          and (L.row_stride == L.n_columns or L.size == 0),
          f"out must be contiguous, of shape ({Z.n_rows}, {Z.n_rows})")
    with nogil:
        found = fs_factor_block(kern, L.data, Z.data, Z.n_rows, Z.n_columns)
    return found


cdef class FactoredBlocks:
    """A block-diagonal matrix whose block of logit k is D_k^(1/2) B_k D_k^(1/2): checked once.

    B_k = I + Z_k^T Z_k, where its rows Z_k are given: then factors[k] is the Cholesky factor of
    I + Z_k Z_k^T. Without rows factors[k] is that of B_k itself, or of order 0: B_k is the identity
    then.

    Parameters
    ----------
    factors : list of ndarray of shape (order, order), float32 or float64, all alike
        Only their lower triangles are read. They are referred to, not copied.
    rows : list of ndarray of shape (order, n_columns), or None
    roots : ndarray of shape (n_logits, n_columns), float64
        The diagonals of D_k^(-1/2).
    n_features : int
        n_columns, or one less: the last column is that of an intercept then.
    """
    cdef list arrays  # which keep the memory of what follows
    cdef _Scratch blocks
    cdef fs_block_diagonal of
    cdef Array like

    def __init__(self, factors, rows, roots, n_features):
        check(self.arrays is None, "FactoredBlocks are made once")
        cdef Array D = array_of(roots, "roots", "d", 2)
        cdef Array L, Z
        cdef fs_factored *block
        cdef ptrdiff_t k, n_logits = D.n_rows, n = D.n_columns
        cdef ptrdiff_t d = size_in(n_features, "n_features", 2**31 - 1) if n_features else 0
        check(n_logits > 0 and D.row_stride == n, "roots must be contiguous, a row for each logit")
        check(d == n or d == n - 1, f"n_features must be {n} or {n - 1}, got {d}")
        check(len(factors) == n_logits and len(rows) == n_logits,
              f"there must be {n_logits} factors and rows, got {len(factors)} and {len(rows)}")
        self.blocks = _Scratch(n_logits * <ptrdiff_t>sizeof(fs_factored))
        for k in range(n_logits):
            block = <fs_factored *>self.blocks.data + k
            L = array_of(factors[k], "factors", "fd", 2)
            check(k == 0 or L.kind == self.like.kind, "factors must all be of one number type")
            self.like = L if k == 0 else self.like
            check(L.n_rows == L.n_columns and (L.row_stride == L.n_columns or L.size == 0),
                  "factors must be square and contiguous")
            block.factor, block.order, block.rows = L.data, L.n_rows, NULL
            if rows[k] is None:
                check(L.n_rows in (0, n), f"a factor without rows must be of order 0 or {n}")
                continue
            Z = same_type(rows[k], "rows", &L, 2)
            check(Z.n_rows == L.n_rows and Z.n_columns == n and Z.row_stride == n,
                  f"rows must be contiguous, of shape ({L.n_rows}, {n})")
            block.rows = Z.data
        self.of.blocks, self.of.roots = <fs_factored *>self.blocks.data, <const double *>D.data
        self.of.n_logits, self.of.n_features, self.of.n_columns = n_logits, d, n
        self.arrays = [*factors, *rows, roots]

    def solve(self, out, gradient, *, isa=None, n_threads=1):
        """Let out = the inverse times gradient, less its mean over the logits if there are several.

        Both are flat, float64: the weights of all logits, and then their intercepts.
        """
        check(self.arrays is not None, "FactoredBlocks must be made first")
        cdef Array g = vector_of(gradient, "gradient", self.of.n_logits * self.of.n_columns)
        cdef Array o = vector_of(out, "out", g.size, True)
        cdef const kernels *kern = table(&self.like, isa)
        cdef int n = threads(n_threads)
        cdef _Scratch scratch = _Scratch(fs_blocks_scratch(kern, &self.of, n))
        with nogil:
            fs_solve_blocks(kern, <double *>o.data, <double *>g.data, &self.of, scratch.data, n)

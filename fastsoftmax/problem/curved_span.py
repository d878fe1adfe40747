"""Where an objective without a penalty curves: in the span of its rows.

Without a penalty F does not change along weights that are orthogonal to all rows z_i that the
solver sees, z = scale * (x - center): where features are linearly dependent (all levels of a
one-hot code beside an intercept, a constant column, more features than rows) there are such
directions. An approximate inverse of the Hessian holds only rounding errors there, and steps would
follow them (a column of 0.3 beside an intercept, float64: coefficients of 2e15). Steps in the span
of the rows, from a start in it, lead to the one minimum in that span: the shortest weights V of all
that predict the same.

The rank is decided for features of variance 1, in float64, from all rows. A direction counts where
the rows vary along it by more than the rounding of their number type can explain.
"""

from dataclasses import dataclass, replace

import numpy as np
from scipy.linalg import block_diag, lapack, qr

from fastsoftmax.arrays import Array
from fastsoftmax.blas import product, single_threaded_blas
from fastsoftmax.linalg import invert
from fastsoftmax.problem.coordinates import Coordinates
from fastsoftmax.shards import protocol
from fastsoftmax.shards.curvature import correlations
from fastsoftmax.shards.rows import Rows
from fastsoftmax.threads import answering_signals

# Beyond so many features no matrix of their products is made (32 MB).
_MOST_FEATURES = 2048
# Rows that are looked at first: at least this many, and 16 for each feature.
_LEAST_ROWS, _ROWS_PER_FEATURE = 4096, 16
# Rounding of the matrix of correlations, in units of float64, for each feature and besides.
_UNITS, _MORE_UNITS = 4.0, 256.0
# Sums of so many roundings of the number type may be in a feature that depends on others.
_ROUNDINGS = 4.0
# In a pass over raw rows a gradient has rounding errors, which a Newton step divides by the
# deviation of the rows along a direction: from this ratio of the two on the step is of use.
_RESOLVED = 100.0


@dataclass(frozen=True)
class RowSpan:
    """The span of rows that do not vary in all directions."""

    # Columns (n_features, rank) that span the weights of the directions, by falling variance. The
    # logits that they make of the rows have variance 1 and are not correlated.
    basis: Array
    axes: Array  # orthonormal columns of the same span, before `resolved` leaves some out
    variances: Array  # (rank,) of the rows along the directions, for features of variance 1
    # Mean square (rank,) of the raw features along the directions, in the same units: rounding
    # errors of rows as they are stored are in proportion to its root.
    noise: Array

    def resolved(self, epsilon: float) -> "RowSpan":
        """Return the directions that raw passes of a relative rounding error can tell from 0."""
        kept = self.variances > (_RESOLVED * epsilon) ** 2 * self.noise
        if kept.all():
            return self
        return replace(
            self,
            basis=np.ascontiguousarray(self.basis[:, kept]),
            variances=self.variances[kept],
            noise=self.noise[kept],
        )

    @single_threaded_blas
    def project(self, weights: Array) -> Array:
        """Return V (n_logits, n_features) without what is orthogonal to all rows."""
        return np.asarray((weights @ self.axes) @ self.axes.T)

    @single_threaded_blas
    def inverse_in(self, matrix: Array) -> tuple[Array, Array]:
        """Return B and (B^T matrix B)^-1, B the basis: their product is inverse in the span.

        The matrix is of the weights of a logit, and may have the intercept behind them.
        """
        n_others = len(matrix) - len(self.basis)
        basis = block_diag(self.basis, np.eye(n_others)) if n_others else self.basis
        inner: Array = basis.T @ matrix @ basis
        invert(inner, np.zeros(len(inner)))
        return basis, inner

    def invert(self, matrix: Array) -> None:
        """Overwrite a positive semidefinite matrix with its inverse in the span."""
        matrix[...] = answering_signals(len(matrix), self._inverse, matrix.copy())

    def _inverse(self, matrix: Array) -> Array:
        basis, inner = self.inverse_in(matrix)
        return np.asarray(basis @ inner @ basis.T)

    def of_points(self, n_logits: int, *, fit_intercept: bool) -> Array:
        """Return a basis (n_params, ...) of the directions of solvers' vectors in which F curves.

        What all logits have in common is not among them: softmax does not see it.
        """
        contrasts = _contrasts(n_logits)
        bias = [contrasts] * fit_intercept
        return np.asarray(block_diag(np.kron(contrasts, self.basis), *bias))


def spread_of(rows: Rows, coordinates: Coordinates) -> tuple[Array, Array]:
    """Return what each feature varies from, in the rows' own units, and how much: its deviation.

    With an intercept that is the mean. The deviation is 0 where it may be rounding of the number
    type.
    """
    center = coordinates.center
    if coordinates.fit_intercept or coordinates.standardize:
        center = rows.means_near(center)
    sizes = np.sqrt(rows.sum(protocol.squares, center) / max(1, rows.n_rows))
    rounding = max(4.0 * float(np.finfo(np.float64).eps), float(np.finfo(rows.real).eps))
    return center, np.where(sizes <= rounding * np.abs(center), 0.0, sizes)


def build_row_span(rows: Rows, coordinates: Coordinates) -> RowSpan | None:
    """Return the span of the rows of a problem; None where F curves in all directions.

    None also where nothing is known: features too many or too large.
    """
    d = rows.n_features
    if d > _MOST_FEATURES:
        return None
    center, sizes = spread_of(rows, coordinates)
    if not np.isfinite(sizes).all():
        return None
    varies = sizes > 0.0
    inverse_sizes = np.divide(1.0, sizes, where=varies, out=np.zeros(d))
    # mean square of a raw feature over its variance
    noise = 1.0 + (center * inverse_sizes) ** 2
    exact = float(np.finfo(np.float64).eps) * (_UNITS * d + _MORE_UNITS)
    if rows.is_sparse:  # their products are centred afterwards
        exact *= float(noise.max(initial=1.0))
    epsilon = float(np.finfo(rows.real).eps)
    step = max(1, rows.n_rows // max(_LEAST_ROWS, _ROWS_PER_FEATURE * d))
    for every in (step, 1) if varies.all() else (1,):
        some, own_step = rows.every(every)
        found = some.sum(correlations, center, inverse_sizes, own_step) / rows.n_rows
        shifted = found - np.diag(exact + (_RESOLVED * epsilon) ** 2 * noise)
        if varies.all() and _is_positive(shifted):
            return None
        if every == 1:
            break
    values, vectors = answering_signals(d, np.linalg.eigh, found[np.ix_(varies, varies)])
    along = product((vectors**2).T, noise[varies])
    least = np.maximum(exact, _ROUNDINGS * (0.5 * epsilon) ** 2 * along)
    kept = np.flatnonzero(values > least)[::-1]
    if len(kept) == d and (values > (_RESOLVED * epsilon) ** 2 * along).all():
        return None
    span = _span_of(
        vectors[:, kept], values[kept], along[kept], (sizes * coordinates.scale)[varies]
    )
    return _padded(span, varies)


@single_threaded_blas
def _span_of(vectors: Array, values: Array, noise: Array, sizes: Array) -> RowSpan:
    """Return the span of some eigenvectors of the correlations, for features of some sizes."""
    axes, factor = _graded_qr(vectors * sizes[:, np.newaxis], np.argsort(-sizes))
    basis = axes @ np.linalg.solve(factor.T, np.diag(1.0 / np.sqrt(values)))
    return RowSpan(basis, axes, values, noise)


def _graded_qr(matrix: Array, order: Array) -> tuple[Array, Array]:
    """Return Q and R with Q R = matrix, whose rows may differ in size by many powers of 10.

    Each row keeps its digits where columns are pivoted and large rows come first (Cox & Higham
    1998, BIT 38, "Stability of Householder QR factorization for weighted least squares problems").
    R is not triangular: its columns are in the order of the matrix.
    """
    if not matrix.size:  # scipy 1.13 gives LAPACK no workspace then, which LAPACK refuses
        return np.zeros((len(matrix), 0)), np.zeros((0, matrix.shape[1]))
    sorted_axes, sorted_factor, columns = qr(matrix[order], mode="economic", pivoting=True)
    axes, factor = np.empty_like(sorted_axes), np.empty_like(sorted_factor)
    axes[order] = sorted_axes
    factor[:, columns] = sorted_factor
    return axes, factor


def _padded(span: RowSpan, varies: Array) -> RowSpan:
    """Return a span with 0 for the features that do not vary."""

    def pad(matrix: Array) -> Array:
        padded = np.zeros((len(varies), matrix.shape[1]))
        padded[varies] = matrix
        return padded

    return replace(span, basis=pad(span.basis), axes=pad(span.axes))


def _is_positive(matrix: Array) -> bool:
    """Whether a symmetric matrix has Cholesky factors."""
    info: int = answering_signals(len(matrix), lapack.dpotrf, matrix.T)[1]
    return info == 0


def _contrasts(n_logits: int) -> Array:
    """Return an orthonormal basis of what softmax sees of the logits of a row."""
    if n_logits == 1:
        return np.ones((1, 1))
    return np.linalg.qr(np.hstack([np.ones((n_logits, 1)), np.eye(n_logits)[:, 1:]]))[0][:, 1:]

"""The objective of a fit in long doubles, and how far below the fit a point is that it can find.

A reference for certificates: it shares nothing with the package but the formula. What it finds is
an upper bound on the minimum, so a certificate that it contradicts is wrong.
"""

from typing import NamedTuple

import numpy as np
from scipy import sparse

LONG = np.longdouble
# Steps of Newton's method, and halvings of one.
_STEPS, _HALVINGS = 60, 40


class Penalised(NamedTuple):
    """F in the unknowns V and, with an intercept, c; features are shifted and scaled."""

    z: np.ndarray  # (n, d) long double
    y: np.ndarray  # (n, K) long double, smoothed
    s: np.ndarray  # (n,) row weights of sum 1
    l2: LONG
    l1: LONG
    n_logits: int
    fit_intercept: bool

    def loss(self, V, c):
        """Return the mean cross-entropy, and its gradients by V and c."""
        o = self.z @ V.T + c
        if self.n_logits == 1:
            o = np.column_stack([np.zeros(len(o), LONG), o])
        top = o.max(axis=1, keepdims=True)
        e = np.exp(o - top)
        total = e.sum(axis=1, keepdims=True)
        # (o - o_y by differences: a loss near 0 keeps its digits)
        log_p = o - top - np.log(total)
        loss = -(self.s @ np.where(self.y > 0, self.y * log_p, 0).sum(axis=1))
        p = e / total
        excess = self.s[:, np.newaxis] * (p - self.y)[:, -self.n_logits :]
        return loss, excess.T @ self.z, excess.sum(axis=0), p[:, -self.n_logits :]

    def value(self, V, c):
        """Return F."""
        norm = self.l1 * np.abs(V).sum()
        return self.loss(V, c)[0] + self.l2 / 2 * (V * V).sum() + norm


def penalised(X, y, *, C, sample_weight=None, l1_ratio=0.0, fit_intercept=True, standardize=False,
              input_scale=1.0, label_smoothing=0.0):  # fmt: skip
    """Return F of a fit to X and y (class numbers, or probabilities), with center and scale."""
    x = (X.toarray() if sparse.issparse(X) else np.asarray(X)).astype(LONG)
    n, d = x.shape
    s = np.ones(n, LONG) if sample_weight is None else np.asarray(sample_weight, LONG)
    total = s.sum()
    s = s / total
    y = np.asarray(y)
    if y.ndim == 1:
        y = np.eye(int(y.max()) + 1)[y]
    targets = y.astype(LONG)
    smoothing = LONG(label_smoothing)
    targets = (1 - smoothing) * targets + smoothing / targets.shape[1]
    center = s @ x if fit_intercept or standardize else np.zeros(d, LONG)
    scale = np.full(d, LONG(input_scale))
    if standardize:
        variance = s @ (x - center) ** 2
        scale = 1 / np.sqrt(np.where(variance > 1e-28 * center**2, variance, 1))
    strength = 1 / (LONG(C) * total)
    n_logits = 1 if targets.shape[1] == 2 else targets.shape[1]
    z = (x - center) * scale
    F = Penalised(
        z, targets, s, strength * (1 - LONG(l1_ratio)), strength * LONG(l1_ratio), n_logits,
        fit_intercept,
    )  # fmt: skip
    return F, center, scale


def unknowns(coef, intercept, center, scale):
    """Return V and c of the coefficients as stored."""
    W = np.asarray(coef).astype(LONG)
    return W / scale, np.asarray(intercept).astype(LONG) + W @ center


def descended(F, V, c, n_steps=_STEPS):
    """Return F at the lowest point that Newton's method finds from V and c."""
    if not F.fit_intercept:
        c = np.zeros_like(c)
    value = F.value(V, c)
    for _ in range(n_steps):
        step = _newton_step(F, V, c)
        if step is None:
            break
        t, before = LONG(1), value
        for _ in range(_HALVINGS):
            end = V + t * step[0]
            if F.l1 > 0:  # stay in the orthant
                end = np.where(end * step[2] < 0, 0, end)
            new = F.value(end, c + t * step[1])
            if new < value:
                V, c, value = end, c + t * step[1], new
                break
            t = t / 2
        if not before - value > 1e-17 * value:
            break
    return value


def _newton_step(F, V, c):
    """Return steps of V and c, and the signs of the orthant; free coefficients alone move."""
    _, gV, gc, p = F.loss(V, c)
    k, d = V.shape
    gV = gV + F.l2 * V
    signs = np.sign(V)
    if F.l1 > 0:
        signs = np.where(V == 0, -np.sign(gV) * (np.abs(gV) > F.l1), signs)
        gV = np.where(signs != 0, gV + F.l1 * signs, 0)
    free = np.flatnonzero((signs != 0).any(axis=0)) if F.l1 > 0 else np.arange(d)
    z, p, s = (a.astype(float) for a in (F.z[:, free], p, F.s))
    basis = None
    if len(free) > len(z):  # the minimum lies in the span of the rows
        basis = np.linalg.qr(z.T)[0]
        z = z @ basis
    m = z.shape[1]
    if F.fit_intercept:
        z = np.column_stack([z, np.ones(len(z))])
    n_own = z.shape[1]
    H = np.empty((k, n_own, k, n_own))
    for i in range(k):
        for j in range(k):
            h = s * p[:, i] * ((i == j) - p[:, j])
            H[i, :, j] = z.T @ (h[:, np.newaxis] * z)
    for i in range(k):
        H[i, np.arange(m), i, np.arange(m)] += float(F.l2)
    if F.fit_intercept and k > 1:
        H[:, m, :, m] += 1.0 / k
    g = gV[:, free].astype(float)
    g = g if basis is None else g @ basis
    if F.fit_intercept:
        g = np.column_stack([g, gc.astype(float)])
    keep = np.ones((k, n_own), bool)
    if F.l1 > 0 and basis is None:
        keep[:, :m] = signs[:, free] != 0
    keep = keep.ravel()
    if not keep.any():
        return None
    H = H.reshape(k * n_own, -1)[np.ix_(keep, keep)]
    if not keep.any():
        return None
    d_H = np.sqrt(np.maximum(H.diagonal(), 1e-300))
    H = H / d_H / d_H[:, np.newaxis]
    H[np.diag_indices(len(H))] += 1e-15
    try:
        with np.errstate(over="ignore", invalid="ignore"):
            solved = np.linalg.solve(H, -g.ravel()[keep] / d_H) / d_H
    except np.linalg.LinAlgError:
        return None
    if not np.isfinite(solved).all():
        return None
    step = np.zeros(k * n_own)
    step[keep] = solved
    step = step.reshape(k, n_own)
    dc = step[:, m].astype(LONG) if F.fit_intercept else np.zeros(k, LONG)
    own = step[:, :m] if basis is None else step[:, :m] @ basis.T
    dV = np.zeros((k, d), LONG)
    dV[:, free] = own
    if F.l1 > 0:
        dV = np.where(signs != 0, dV, 0)
    return dV, dc, signs

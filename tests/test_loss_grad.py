"""Loss and gradient in one pass against the numpy twin in float64, and against differences."""

import numpy as np
import pytest

from fastsoftmax import reference

INF, NAN = np.inf, np.nan

# (n, d, n_classes): nothing; around vectors, and register tiles of 4 rows, 3, 6 and 12 classes.
SMALL = [(n, d, k) for n, k in ((1, 2), (3, 3), (4, 1), (5, 7), (9, 5)) for d in (1, 3, 8, 15, 33)]
SMALL += [(0, 5, 3), (0, 0, 1), (7, 0, 3), (17, 16, 13), (13, 4, 26), (11, 61, 12), (31, 5, 6)]
SMALL += [(19, d, 4) for d in (2, 4, 7, 9, 16, 17, 31, 32, 65)]

# Around blocks of 128 rows, fewer where features are many: 80 or 40 of 784, 16 of 5003.
BLOCKS = [(n, 6, 3) for n in (15, 16, 17, 127, 128, 129, 255, 256, 257, 1031)]
BLOCKS += [(n, 784, 10) for n in (40, 41, 80, 81)] + [(33, 5003, 2)]

# (n, d, d in float64, n_classes): passes cut in parts of the rows, each with a gradient of its own;
# and in panels of rows, where 16 gradients would take more than 16 MB: then the classes are cut
# by 48.
CUTS = {
    "some parts": (700, 100, 100, 120),
    "a little too small for parts": (2047, 56, 56, 64),
    "just large enough for parts": (2048, 56, 56, 64),
    "a panel": (290, 5250, 2630, 50),
    "64 parts, the most": (8250, 56, 56, 64),
    "parts limited by memory": (850, 4100, 2050, 20),
    "two panels": (1041, 5250, 2630, 50),
    "five panels of 4 blocks": (2060, 70, 35, 3900),
}


def affine_logits(problem):
    """Logits of all classes, in the number type of the weights, and what they are sums of."""
    X = problem.X.astype(problem.weights.dtype)
    logits = X @ problem.weights.T + problem.bias
    size = np.abs(X) @ np.abs(problem.weights).T + np.abs(problem.bias)
    if len(problem.weights) < problem.n_classes:
        logits, size = (np.column_stack([np.zeros_like(a), a]) for a in (logits, size))
    return X, logits, size


def targets(problem):
    """Distributions that the rows are compared with, in the number type of the weights."""
    if problem.target_probs is None:
        target = np.zeros((len(problem.X), problem.n_classes), dtype=problem.weights.dtype)
        target[np.arange(len(target)), problem.labels] = 1
    else:
        target = problem.target_probs
    smoothing = problem.label_smoothing
    return target * (1 - smoothing) + smoothing / problem.n_classes


def plain_sums(problem):
    """Loss and gradients by the formulas as they stand, all in the number type of the weights."""
    X, logits, _ = affine_logits(problem)
    z = logits - logits.max(axis=1, keepdims=True)
    exps = np.exp(z)
    totals = exps.sum(axis=1, keepdims=True)
    target, weights = targets(problem), problem.row_weights[:, np.newaxis]
    residual = weights * (exps / totals - target)
    residual = residual[:, problem.n_classes - len(problem.weights) :]
    # einsum adds up row after row, as plain code does: a BLAS has an order of its own on each CPU
    gradient = np.einsum("ik,ij->kj", residual, X)
    return (weights * target * (np.log(totals) - z)).sum(), gradient, residual.sum(axis=0)


def magnitudes(problem):
    """What the errors of loss and gradients are relative to: sums of the sizes of their terms.

    A logit is off by a few units in the last place of the sum of the sizes of its own terms, and
    softmax relatively by as much as its logits are.
    """
    X, logits, size = affine_logits(problem.exact)
    exps = np.exp(logits - logits.max(axis=1, keepdims=True))
    probs = exps / exps.sum(axis=1, keepdims=True)
    target, weights = targets(problem.exact), problem.exact.row_weights[:, np.newaxis]
    size = size.max(axis=1, keepdims=True)
    terms = weights * (probs * (1 - probs) * size + probs + target)
    terms = terms[:, problem.n_classes - len(problem.weights) :]
    return (weights * (1 + size)).sum(), terms.T @ np.abs(X), terms.sum(axis=0)


@pytest.fixture
def sums(kernels, isa):
    """A function of a problem: its loss, hits, and gradients by the weights and the bias."""

    def call(problem, **options):
        out = np.full(problem.weights.shape, NAN), np.full(problem.bias.shape, NAN)
        loss, correct = kernels.loss_grad(*out, *problem.whole(kernels), isa=isa, **options)
        return loss, correct, *out

    return call


@pytest.fixture
def check(kernels, isa, guarded, ulps, real):
    """A function that holds the sums of a problem to the twin."""

    def of(problem, few=4):
        shape = problem.weights.shape
        expected = np.empty(shape), np.empty(shape[0])
        loss, hits = reference.loss_grad(*expected, *problem.exact.whole(reference))
        out = [guarded(s, np.float64, contiguous=True) for s in (shape, shape[0])]
        before = [a.tobytes() for a in problem if isinstance(a, np.ndarray)]
        actual = kernels.loss_grad(*[o.array for o in out], *problem.whole(kernels), isa=isa)
        scales, plain = magnitudes(problem), plain_sums(problem)
        results = actual[0], *[o.checked() for o in out]
        for ours, theirs, exact, scale in zip(
            results, plain, (loss, *expected), scales, strict=True
        ):
            naive, mine = (np.asarray(a, np.float64) - exact for a in (theirs, ours))
            unit = np.finfo(real).eps * np.maximum(scale, 1e-30)
            limit = np.max(np.abs(naive / unit), initial=0) + few
            assert np.max(np.abs(mine / unit), initial=0) <= limit, (problem.X.shape, shape)
        assert actual[1] == pytest.approx(hits, rel=1e-12)
        assert [a.tobytes() for a in problem if isinstance(a, np.ndarray)] == before
        assert kernels.loss_grad(None, None, *problem.whole(kernels), isa=isa) == actual

    return of


def test_sizes(check, make_problem, storage):
    for n, d, n_classes in SMALL:
        check(make_problem(n, d, n_classes, storage=storage))


def test_blocks(check, make_problem, storage):
    for n, d, n_classes in BLOCKS:
        check(make_problem(n, d, n_classes, storage=storage))


def test_kinds_of_targets(check, make_problem, storage, case):
    for n, d in ((1, 1), (37, 5), (300, 20)):
        check(make_problem(n, d, **case, storage=storage))


@pytest.fixture(params=CUTS)
def cut(request, make_problem, real):
    """A problem that is cut in one of the ways."""
    n, d, d_double, n_classes = CUTS[request.param]
    return make_problem(n, d if real is np.float32 else d_double, n_classes)


@pytest.mark.parametrize("cut", ["some parts", "a panel"], indirect=True)
def test_parts_and_panels(cut, check):
    check(cut)


def test_many_classes(check, make_problem):
    """Sums over the classes go in short runs, numpy's in pairs of pairs of pairs."""
    check(make_problem(2, 2, 50_021), 10)
    check(make_problem(2, 2, 50_021, soft=True, smoothing=0.1), 10)
    check(make_problem(2, 2, 50_021, spread=1e-3), 10)  # where no class stands out


def test_large_logits(check, make_problem, case):
    """exp of the logits overflows, and most losses and residuals are 0 or 1 or near to them."""
    for spread in (30, 300):
        check(make_problem(50, 9, **case, spread=spread))


def test_loss_near_zero(sums, make_problem, real):
    """A loss of 1e-12 is not rounded to 0, and neither is its gradient."""
    problem = make_problem(5, 1, 3)
    gaps = np.array([5, 10, 20, 40, 80], dtype=real)
    problem = problem._replace(
        X=gaps[:, np.newaxis], weights=np.array([[0], [1], [0]], real), bias=np.zeros(3, real)
    )
    exact = np.log1p(2 * np.exp(-gaps.astype(np.float64)))
    for i in range(5):
        one = problem.at([i])._replace(
            labels=np.ones(1, dtype=np.int32), row_weights=np.ones(1, dtype=real)
        )
        loss, correct, _, grad = sums(one)
        eps = float(np.finfo(real).eps)
        assert loss == pytest.approx(exact[i], rel=8 * eps)
        assert correct == 1
        assert grad[1] == pytest.approx(np.expm1(-exact[i]), rel=8 * eps)


@pytest.mark.parametrize("label", [0, 1])
def test_loss_of_one_logit_near_zero(sums, make_problem, real, label):
    """So it is with one logit for two classes."""
    gaps = np.array([5, 10, 20, 40, 80], dtype=real)
    sign = 2 * label - 1
    for gap in gaps:
        problem = make_problem(1, 1, 2, one_logit=True)._replace(
            X=np.array([[gap]], dtype=real),
            labels=np.array([label], dtype=np.int32),
            row_weights=np.ones(1, dtype=real),
            weights=np.array([[sign]], dtype=real),
            bias=np.zeros(1, dtype=real),
        )
        loss, correct, _, grad = sums(problem)
        exact, limit = np.log1p(np.exp(-float(gap))), 8 * float(np.finfo(real).eps)
        assert loss == pytest.approx(exact, rel=limit)
        assert correct == 1
        assert grad[0] == pytest.approx(sign * np.expm1(-exact), rel=limit)


@pytest.mark.parametrize("real", [np.float64], ids=["float64"])
def test_gradient_is_that_of_the_loss(sums, make_problem, storage, case, real):
    """Five-point differences of the loss itself."""
    problem = make_problem(9, 4, **case, storage=storage)
    _, _, grad_weights, grad_bias = sums(problem)
    largest = max(1.0, np.abs(problem.X.astype(float)).max())
    for name, grad, unit in (("weights", grad_weights, largest), ("bias", grad_bias, 1.0)):
        slope, step = np.empty_like(grad), 1e-3 / unit
        for i in np.ndindex(grad.shape):
            losses = []
            for steps in (-2, -1, 1, 2):
                moved = getattr(problem, name).copy()
                moved[i] += steps * step
                losses.append(sums(problem._replace(**{name: moved}))[0])
            slope[i] = (losses[0] - 8 * losses[1] + 8 * losses[2] - losses[3]) / (12 * step)
        np.testing.assert_allclose(grad, slope, rtol=0, atol=1e-9 * unit)


def close(actual, expected, rtol):
    for ours, theirs in zip(actual, expected, strict=True):
        size = np.max(np.abs(theirs), initial=1e-300)
        np.testing.assert_allclose(ours, theirs, rtol=rtol, atol=rtol * size)


def test_weights_are_repetitions(sums, make_problem, case, real):
    """Weight 2 is the row twice, weight 0 the row left out, and 2 X as much for all is twice F."""
    rtol = 1e-12 if real is np.float64 else 1e-5
    problem = make_problem(60, 7, **case)
    counts = np.arange(60) % 4
    weighted = sums(problem._replace(row_weights=counts.astype(real)))
    repeated = problem.at(np.repeat(np.arange(60), counts))
    ones = np.ones(len(repeated.X), dtype=real)
    close(weighted, sums(repeated._replace(row_weights=ones)), rtol)
    twice = sums(problem._replace(row_weights=2 * counts.astype(real)))
    for one, two in zip(weighted, twice, strict=True):
        np.testing.assert_array_equal(2 * np.asarray(one), two)
    nothing = sums(problem._replace(row_weights=np.zeros(60, dtype=real)))
    assert not any(np.any(a) for a in nothing)


def test_rows_add_up(sums, make_problem, real):
    """The sums of two halves are those of the whole, wherever it is cut."""
    problem = make_problem(300, 11, 5)
    whole = sums(problem)
    for cut in (0, 1, 37, 128, 299):
        parts = zip(sums(problem.at(np.s_[:cut])), sums(problem.at(np.s_[cut:])), strict=True)
        close([a + b for a, b in parts], whole, 1e-12 if real is np.float64 else 1e-5)


def test_parts_and_panels_add_up(cut, sums, real):
    """However a pass is cut, it adds up what passes over few rows each give."""
    starts = range(0, len(cut.X), 230)  # too few rows for panels
    parts = zip(*[sums(cut.at(np.s_[i : i + 230])) for i in starts], strict=True)
    close(sums(cut), [sum(part) for part in parts], 1e-12 if real is np.float64 else 1e-5)


def test_one_logit_is_two(sums, make_problem, real):
    one = make_problem(200, 7, 2, one_logit=True, smoothing=0.1)
    both = one._replace(
        weights=np.vstack([0 * one.weights, one.weights]), bias=np.append(real(0), one.bias)
    )
    loss, correct, weights, bias = sums(one)
    rtol = 1e-13 if real is np.float64 else 1e-5
    close(sums(both), (loss, correct, np.vstack([-weights, weights]), np.append(-bias, bias)), rtol)


def test_hits(kernels, isa, real):
    """The first of equal logits counts; of equal targets too; each row with its weight."""
    X, labels = np.zeros((40, 1), dtype=real), (np.arange(40) % 4).astype(np.int32)
    weights = (1 + np.arange(40)).astype(real)
    model = np.zeros((4, 1), dtype=real), np.array([0, 3, 3, 1], dtype=real)

    def hits(*targets):
        targets = kernels.Targets(*targets, weights, 0.0, 4)
        return kernels.loss_grad(None, None, X, targets, *model, isa=isa)[1]

    assert hits(labels, None) == weights[labels == 1].sum()
    ties = np.array([[0, 0.5, 0.5, 0], [0.5, 0.5, 0, 0], [0, 0, 0.5, 0.5], [0, 0.4, 0.3, 0.3]])
    assert hits(None, np.tile(ties, (10, 1)).astype(real)) == weights[labels % 3 == 0].sum()
    model = np.zeros((1, 1), dtype=real), np.zeros(1, dtype=real)
    labels = labels % 2
    targets = kernels.Targets(labels, None, weights, 0.0, 2)
    assert kernels.loss_grad(None, None, X, targets, *model, isa=isa)[1] == (
        weights[labels == 0].sum()
    )


def test_nan_and_infinities_spread(sums, make_problem, case):
    """What has no answer gives NaN, not a number."""
    problem = make_problem(40, 6, **case)
    problem.row_weights[:] = 1
    for value in (NAN, INF, -INF):
        for i, j in ((0, 0), (17, 5), (39, 3)):
            X = problem.X.copy()
            X[i, j] = value
            loss, _, weights, bias = sums(problem._replace(X=X))
            with np.errstate(invalid="ignore"):
                exact = problem._replace(X=X).exact.whole(reference)
                expected = reference.loss_grad(None, None, *exact)[0]
            np.testing.assert_array_equal(np.isnan(loss), np.isnan(expected))
            assert not np.isfinite(weights[:, j]).any()
            assert np.isfinite(bias).all() or np.isnan(bias).all()

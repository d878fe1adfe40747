"""Fused prediction against the separate kernels (to the bit) and the numpy twin in float64."""

import tracemalloc

import numpy as np
import pytest

from fastsoftmax import reference

INF, NAN = np.inf, np.nan

# Rows around blocks of 64 and tiles of 4; features and classes around vectors and tiles.
SIZES = [
    (0, 3, 4),
    (1, 784, 10),
    (3, 0, 3),
    (4, 5, 1),
    (5, 17, 16),
    (63, 33, 7),
    (64, 8, 17),
    (65, 31, 13),
    (127, 4, 33),
    (129, 16, 3),
    (193, 61, 2),
]


@pytest.fixture(params=["numpy", "native"])
def backend(request):
    """Both implementations of what the twin alone can be held to."""
    return reference if request.param == "numpy" else request.getfixturevalue("kernels")


def logits_of(module, problem, **how):
    """Logits of all classes by the separate kernel."""
    logits = np.zeros((len(problem.X), problem.n_classes), dtype=problem.bias.dtype)
    model = problem.weights, problem.bias
    module.affine_rows(logits[:, -len(problem.bias) :], problem.X, *model, **how)
    return logits


def ranked(logits):
    """Classes from the largest logit to the smallest; of equal ones the first, NaN as -inf."""
    return np.where(np.isnan(logits), INF, -logits).argsort(axis=1, kind="stable")


def problems(make_problem, storage, sizes=SIZES):
    """Problems of many sizes, and of two classes with one logit."""
    for n, d, n_classes in sizes:
        yield make_problem(n, d, n_classes, storage=storage)
        if n_classes == 2:
            yield make_problem(n, d, 2, one_logit=True, storage=storage)


@pytest.mark.parametrize("as_log", [False, True], ids=["probs", "log_probs"])
def test_probabilities(kernels, isa, real, storage, make_problem, guarded, ulps, as_log):
    name = "log_softmax_rows" if as_log else "softmax_rows"
    for problem in problems(make_problem, storage):
        shape = len(problem.X), problem.n_classes
        model = problem.weights, problem.bias
        expected = logits_of(kernels, problem, isa=isa)
        getattr(kernels, name)(expected, expected, isa=isa)
        before = problem.X.tobytes()
        for contiguous in (True, False):
            out = guarded(shape, contiguous=contiguous)
            finite = kernels.predict_rows(out.array, problem.X, *model, as_log, isa=isa)
            assert finite is True
            np.testing.assert_array_equal(out.checked(), expected)
        assert problem.X.tobytes() == before

        exact = problem.exact
        twin, scale, logits = np.empty(shape), np.zeros(shape), np.zeros(shape)
        assert reference.predict_rows(twin, exact.X, exact.weights, exact.bias, as_log)
        columns = np.s_[:, -len(problem.bias) :]
        reference.affine_rows(scale[columns], *map(np.abs, (exact.X, exact.weights, exact.bias)))
        reference.affine_rows(logits[columns], exact.X, exact.weights, exact.bias)
        # a logit is off by some ulp of the sum of its terms, all of its row shift each log
        size = 4.0 + scale.max(axis=1, initial=0.0, keepdims=True) * (2.0 + problem.X.shape[1] / 8)
        assert ulps(expected, twin, size if as_log else size * np.maximum(twin, 1e-30)) <= 8


@pytest.mark.parametrize("k", [1, 2, 3, "all"])
def test_largest(kernels, isa, real, storage, make_problem, guarded, k):
    for problem in problems(make_problem, storage):
        n_top = problem.n_classes if k == "all" else k
        if n_top > problem.n_classes:
            continue
        shape = len(problem.X), n_top
        arguments = problem.X, problem.weights, problem.bias, problem.n_classes
        logits = logits_of(kernels, problem, isa=isa)
        expected = ranked(logits)[:, :n_top]
        kernels.softmax_rows(logits, logits, isa=isa)
        for contiguous in (True, False):
            classes = guarded_like(guarded, shape, contiguous)
            probs = guarded(shape, contiguous=contiguous)
            assert kernels.predict_top(classes, probs.array, *arguments, isa=isa) is True
            np.testing.assert_array_equal(classes, expected)
            np.testing.assert_array_equal(
                probs.checked(), np.take_along_axis(logits, expected, axis=1)
            )
            alone = np.full(shape, -1)
            kernels.predict_top(alone, None, *arguments, isa=isa)
            np.testing.assert_array_equal(alone, expected)


def guarded_like(guarded, shape, contiguous):
    """Room for classes, rows side by side or apart."""
    columns = shape[1] if contiguous else shape[1] + 3
    return np.full((shape[0], columns), -1, dtype=np.int64)[:, : shape[1]]


def test_twin(make_problem, real, storage):
    """The twin's own blocks, against the formula."""
    for problem in problems(make_problem, storage, [*SIZES, (3000, 700, 5), (9, 3, 9000)]):
        shape = len(problem.X), problem.n_classes
        model = problem.weights, problem.bias
        logits = logits_of(reference, problem)
        probs, logs, given = np.empty((3, *shape), dtype=real)
        assert reference.predict_rows(probs, problem.X, *model, False) is True
        assert reference.predict_rows(logs, problem.X, *model, True) is True
        reference.softmax_rows(given, logits)
        tolerance = 100 * np.finfo(real).eps
        np.testing.assert_allclose(probs, given, rtol=tolerance, atol=tolerance)
        reference.log_softmax_rows(given, logits)
        np.testing.assert_allclose(logs, given, rtol=tolerance, atol=tolerance)
        n_top = (problem.n_classes + 1) // 2
        classes = np.empty((shape[0], n_top), dtype=np.int64)
        best = np.empty((shape[0], n_top), dtype=real)
        assert reference.predict_top(classes, best, problem.X, *model, problem.n_classes) is True
        np.testing.assert_array_equal(best, np.take_along_axis(probs, classes, axis=1))
        assert (np.diff(best, axis=1) <= 0).all()


def test_ties(backend, real, rng):
    """Of equal logits the smaller class comes first, wherever they lie."""
    for n_classes in (2, 5, 16, 17, 40, 100):
        bias = rng.integers(0, 3, n_classes).astype(real)
        X, weights = np.zeros((70, 1), dtype=real), np.zeros((n_classes, 1), dtype=real)
        expected = ranked(bias[np.newaxis])[0]
        for n_top in {1, 2, n_classes // 2, n_classes}:
            classes = np.empty((70, n_top), dtype=np.int64)
            backend.predict_top(classes, None, X, weights, bias, n_classes)
            assert (classes == expected[:n_top]).all()
    one_logit = np.zeros((1, 1), dtype=real), np.zeros(1, dtype=real)
    classes = np.empty((70, 2), dtype=np.int64)
    backend.predict_top(classes, None, X, *one_logit, 2)
    assert (classes == [0, 1]).all()


@pytest.mark.parametrize("value", [NAN, INF, -INF])
def test_what_is_not_finite_is_reported(kernels, isa, make_problem, real, value):
    """Also where all probabilities are numbers, as for a logit of -inf."""
    for n, d, n_classes, one_logit in [
        (1, 1, 2, True),
        (1, 5, 2, True),
        (70, 21, 5, False),
        (200, 3, 40, False),
    ]:
        problem = make_problem(n, d, n_classes, one_logit=one_logit)
        model = problem.weights, problem.bias
        for i in {0, n // 3, n - 1}:
            X = problem.X.copy()
            X[i, d // 2] = value
            for module, how in ((kernels, {"isa": isa}), (reference, {})):
                probs = np.empty((n, n_classes), dtype=real)
                assert module.predict_rows(probs, X, *model, False, **how) is False
                assert module.predict_rows(probs, X, *model, True, **how) is False
                for n_top in {1, 2, n_classes}:
                    best, top = probs[:, :n_top].copy(), np.empty((n, n_top), dtype=np.int64)
                    assert module.predict_top(top, best, X, *model, n_classes, **how) is False
                    assert ((top >= 0) & (top < n_classes)).all()
                    assert all(len(set(row)) == n_top for row in top.tolist())


def test_order_of_special_logits(kernels, isa, real):
    """NaN counts as -inf, so any two implementations agree."""
    rows = [
        [NAN, 1.0, 2.0, NAN, 2.0],
        [NAN] * 5,
        [-INF, NAN, -INF, 0.0, INF],
        [INF, INF, NAN, INF, -INF],
        [NAN, -INF, NAN, -INF, NAN],
        [-INF] * 5,
    ]
    for length in (5, 19):
        for row in rows:
            bias = np.resize(np.array(row, dtype=real), length)
            model = np.zeros((length, 1), dtype=real), bias
            for n_top in (1, 2, length):
                actual, expected = np.empty((2, 3, n_top), dtype=np.int64)
                probs, twin = np.empty((2, 3, n_top), dtype=real)
                X = np.zeros((3, 1), dtype=real)
                assert not kernels.predict_top(actual, probs, X, *model, length, isa=isa)
                assert not reference.predict_top(expected, twin, X, *model, length)
                np.testing.assert_array_equal(actual, expected)
                np.testing.assert_allclose(probs, twin, rtol=1e-6)


def test_special_values_stay_in_their_row(kernels, isa, make_problem, real):
    problem = make_problem(150, 9, 6)
    model = problem.weights, problem.bias
    X = problem.X.copy()
    X[[3, 64, 149], 5] = NAN, INF, -INF
    expected, actual = np.empty((2, 150, 6), dtype=real)
    assert kernels.predict_rows(expected, problem.X, *model, False, isa=isa)
    assert not kernels.predict_rows(actual, X, *model, False, isa=isa)
    assert np.isnan(actual[[3, 64, 149]]).all()
    clean = np.delete(np.arange(150), [3, 64, 149])
    np.testing.assert_array_equal(actual[clean], expected[clean])


@pytest.mark.parametrize("size", [(64, 2000, 40), (3001, 784, 10), (500, 70, 500)], ids=str)
def test_same_bits_for_any_number_of_threads(kernels, make_problem, storage, real, size):
    n, d, n_classes = size
    problem = make_problem(n, d, n_classes, storage=storage)
    arguments = problem.X, problem.weights, problem.bias
    results = []
    for n_threads in (1, 2, 3, 7):
        probs, logs = np.empty((2, n, n_classes), dtype=real)
        best, top = np.empty((n, 3), dtype=real), np.empty((n, 3), dtype=np.int64)
        assert kernels.predict_rows(probs, *arguments, False, n_threads=n_threads)
        assert kernels.predict_rows(logs, *arguments, True, n_threads=n_threads)
        assert kernels.predict_top(top, best, *arguments, n_classes, n_threads=n_threads)
        results.append([a.tobytes() for a in (probs, logs, best, top)])
    assert all(result == results[0] for result in results[1:])


def test_every_thread_reports(kernels, make_problem, real):
    problem = make_problem(4000, 300, 10)
    X, out = problem.X.copy(), np.empty((4000, 10), dtype=real)
    for i in (0, 1234, 3999):
        for n_threads in (1, 3):
            before, X[i, 7] = X[i, 7], INF
            given = X, problem.weights, problem.bias
            assert not kernels.predict_rows(out, *given, False, n_threads=n_threads)
            X[i, 7] = before
            assert kernels.predict_rows(out, *given, False, n_threads=n_threads)


def test_memory_does_not_grow_with_rows_times_classes(backend, real):
    n, n_classes = 400, 20_000
    X = np.ones((n, 2), dtype=real)
    weights, bias = np.ones((n_classes, 2), dtype=real), np.arange(n_classes).astype(real)
    top, best = np.empty((n, 3), dtype=np.int64), np.empty((n, 3), dtype=real)
    tracemalloc.start()
    try:
        backend.predict_top(top, best, X, weights, bias, n_classes, n_threads=2)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # two threads with a block each; the twin's block and what numpy makes of it
    assert peak < (2.2 * 2**20 if backend is not reference else 30 * 2**20)
    assert (top == [n_classes - 1, n_classes - 2, n_classes - 3]).all()


class TestErrors:
    @pytest.fixture
    def given(self):
        return {
            "X": np.zeros((4, 3)),
            "weights": np.zeros((5, 3)),
            "bias": np.zeros(5),
        }

    @pytest.mark.parametrize(
        ("wrong", "error", "match"),
        [
            ({"probs": np.zeros((3, 5))}, ValueError, "probs must have 4 rows, got 3"),
            ({"probs": np.zeros((4, 4))}, ValueError, "weights must have 4 rows"),
            ({"probs": np.zeros((4, 0))}, ValueError, "n_classes"),
            ({"probs": np.zeros((4, 5), np.float32)}, TypeError, "probs must hold float64"),
            ({"probs": np.zeros(5)}, ValueError, "probs must have 2 dimension"),
            ({"probs": None}, (TypeError, ValueError), "n_classes|probs"),
            ({"X": np.zeros((4, 2))}, ValueError, "with 2 columns as X"),
            ({"bias": np.zeros(4)}, ValueError, "bias must have 5 elements, got 4"),
            ({"n_threads": 0}, ValueError, "n_threads"),
            ({"isa": "mmx"}, ValueError, "isa"),
        ],
    )
    def test_rows(self, kernels, given, wrong, error, match):
        arguments = {"probs": np.zeros((4, 5)), **given, "as_log": False, **wrong}
        with pytest.raises(error, match=match):
            kernels.predict_rows(**arguments)

    @pytest.mark.parametrize(
        ("wrong", "error", "match"),
        [
            ({"classes": np.zeros((4, 6), int)}, ValueError, "1 to 5 columns, got shape .4, 6"),
            ({"classes": np.zeros((4, 0), int)}, ValueError, "1 to 5 columns, got shape .4, 0"),
            ({"classes": np.zeros((3, 2), int)}, ValueError, "4 rows"),
            ({"classes": np.zeros((4, 2), np.int32)}, TypeError, "classes must hold int64"),
            ({"probs": np.zeros((4, 3))}, ValueError, "probs must have the shape of classes"),
            ({"n_classes": 4}, ValueError, "weights must have 4 rows"),
            ({"n_classes": 2.5}, TypeError, "n_classes must be an integer"),
        ],
    )
    def test_top(self, kernels, given, wrong, error, match):
        arguments = {"classes": np.zeros((4, 2), int), "probs": np.zeros((4, 2)), **given}
        with pytest.raises(error, match=match):
            kernels.predict_top(**{**arguments, "n_classes": 5, **wrong})


@pytest.mark.parametrize("n_top", [1, 2])
def test_the_likelier_of_two_classes_has_what_the_other_leaves(kernels, isa, real, rng, n_top):
    X = rng.normal(size=(5_000, 3)).astype(real)
    model = rng.normal(size=(1, 3)).astype(real), np.zeros(1, dtype=real)
    probs, best = np.empty((5_000, 2), dtype=real), np.empty((5_000, n_top), dtype=real)
    classes = np.empty((5_000, n_top), dtype=np.int64)
    kernels.predict_rows(probs, X, *model, False, isa=isa)
    kernels.predict_top(classes, best, X, *model, 2, isa=isa)
    np.testing.assert_array_equal(probs.sum(axis=1), 1)
    np.testing.assert_array_equal(best, np.take_along_axis(probs, classes, axis=1))


@pytest.mark.parametrize("n_classes", [3, 5, 9, 17, 33])
def test_a_single_logit_that_is_not_finite_is_reported(n_classes, kernels, isa, real):
    """The last one, which may be alone in a vector."""
    weights = np.zeros((n_classes, 1), dtype=real)
    weights[-1] = np.finfo(real).max
    probs = np.empty((1, n_classes), dtype=real)
    bias = np.zeros(n_classes, dtype=real)
    for x, is_finite in ((1.0, True), (2.0, False)):
        X = np.array([[x]], dtype=real)
        assert kernels.predict_rows(probs, X, weights, bias, False, isa=isa) == is_finite

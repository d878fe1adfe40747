"""Fits to rows that come in batches, again in every epoch."""

import warnings

import numpy as np
import pytest
from scipy import sparse
from scipy.special import softmax
from sklearn.exceptions import ConvergenceWarning

from fastsoftmax import FastSoftmax
from fastsoftmax.datasets import iter_batches


@pytest.fixture(params=[2, 3], ids=["two classes", "three"])
def n_classes(request):
    return request.param


@pytest.fixture
def rows(rng, n_classes):
    X = rng.normal(size=(90, 6)) * (rng.random((90, 6)) < 0.6)
    return X, np.arange(90) % n_classes, rng.uniform(0.5, 2.0, 90)


SLICES = [slice(0, 30), slice(30, 31), slice(31, 50), slice(50, 90)]


def cut(*arrays, slices=SLICES):
    return [tuple(array[part] for array in arrays) for part in slices]


def model_of(**parameters):
    return FastSoftmax(
        **{
            "solver": "sgd",
            "max_iter": 3,
            "batch_size": 16,
            "random_state": 0,
            "n_jobs": 1,
            **parameters,
        }
    )


def plain_epochs(model, W, b, batches, n_classes, total, mean):
    """Take the steps that are promised, written plainly."""
    W, b = W.copy(), b.copy()
    velocity = [np.zeros_like(W), np.zeros_like(b)]
    for _ in range(model.max_iter):
        for X, probs, weights in batches:
            size = min(model.batch_size, len(X))
            for start in range(0, len(X), size):
                part = slice(start, start + size)
                x, t, s = X[part], probs[part], weights[part] / mean
                t = (1.0 - model.label_smoothing) * t + model.label_smoothing / n_classes
                logits = x @ W.T + b
                if n_classes == 2:
                    logits = np.column_stack([np.zeros(len(x)), logits])
                residual = (softmax(logits, axis=1) - t) * s[:, np.newaxis] / size
                residual = residual[:, -len(b) :]
                decay = len(x) / size / (model.C * total)
                grad = [residual.T @ x + decay * W, residual.sum(axis=0)]
                for v, g, params in zip(velocity, grad, (W, b), strict=True):
                    v *= model.momentum
                    v += g
                    params -= model.learning_rate * v
    return W, b


@pytest.mark.parametrize("form", [np.asarray, sparse.csr_array], ids=["dense", "csr"])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("soft", [True, False])
def test_steps(rows, n_classes, form, momentum, soft, rng):
    X, y, weights = rows
    probs = rng.dirichlet(np.ones(n_classes), 90) if soft else np.eye(n_classes)[y]
    model = model_of(C=0.5, momentum=momentum, label_smoothing=0.1)
    first = model_of(max_iter=0).fit(cut(X, y))
    batches = [(form(x), *rest) for x, *rest in cut(X, probs if soft else y, weights)]
    model.fit(batches)
    W, b = plain_epochs(
        model, first.coef_, first.intercept_, cut(X, probs, weights), n_classes,
        weights.sum(), weights.mean(),
    )  # fmt: skip
    np.testing.assert_allclose(model.coef_, W, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(model.intercept_, b, rtol=1e-9, atol=1e-12)
    assert model.n_iter_.tolist() == [3]
    assert not model.converged_ and model.gap_ == np.inf and np.isnan(model.objective_)
    assert len(model.history_["loss"]) == 3
    if momentum == 0.0:  # what steps of no size would see is the loss of the model
        still = model_of(learning_rate=1e-300, max_iter=1, warm_start=True)
        still.fit(cut(X, y, weights))
        expected = still.evaluate(X, y, weights)
        assert still.history_["loss"][0] == pytest.approx(expected.loss)
        assert still.history_["accuracy"][0] == pytest.approx(expected.accuracy)


def test_with_classes_the_totals_grow_in_the_first_epoch(rows, n_classes):
    """As in partial_fit, where all weigh the same."""
    X, y, _ = rows
    model = model_of(C=0.01, max_iter=1, momentum=0.5).fit(cut(X, y), classes=range(n_classes))
    stream = model_of(C=0.01, momentum=0.5)
    for batch in cut(X, y):
        stream.partial_fit(*batch, classes=range(n_classes))
    np.testing.assert_array_equal(model.coef_, stream.coef_)
    np.testing.assert_array_equal(model.intercept_, stream.intercept_)


class Counted:
    """Batches that know how often they were read."""

    def __init__(self, batches):
        self.batches, self.n_reads = batches, 0

    def __iter__(self):
        self.n_reads += 1
        return iter(self.batches)


@pytest.mark.parametrize(("given", "n_reads"), [(True, 3), (False, 4)])
def test_passes(rows, n_classes, given, n_reads):
    batches = Counted(cut(*rows))
    model_of().fit(batches, classes=range(n_classes) if given else None)
    assert batches.n_reads == n_reads


def test_forms(rows):
    X, y, weights = rows
    expected = model_of().fit(cut(X, y, weights))
    frames = pytest.importorskip("pandas").DataFrame(X, columns=list("abcdef"))
    named = [(frames.iloc[part], y[part], weights[part]) for part in SLICES]

    class Tensor:
        """What numpy can read, as tensors are."""

        dtype = "their own"

        def __init__(self, array):
            self.array, self.shape = array, array.shape

        def __len__(self):
            return len(self.array)

        def __array__(self, dtype=None, copy=None):
            return np.asarray(self.array, dtype=dtype)

    for batches in (
        tuple(cut(X, y, weights)),
        lambda: iter(cut(X, y, weights)),
        lambda: (list(batch) for batch in cut(X, y, weights)),
        lambda: cut(X, y, weights),
        Counted(cut(X, y, weights)),
        [[Tensor(part) for part in batch] for batch in cut(X, y, weights)],
        [tuple(part.tolist() for part in batch) for batch in cut(X, y, weights)],
        named,
    ):
        model = model_of().fit(batches)
        np.testing.assert_array_equal(model.coef_, expected.coef_)
        assert hasattr(model, "feature_names_in_") == (batches is named)
    single = [(Tensor(x.astype(np.float32)), Tensor(y)) for x, y in cut(X, y)]
    assert model_of().fit(single).coef_.dtype == np.float32


@pytest.mark.parametrize("prefetch", [0, 2])
def test_our_own_batches(rows, prefetch):
    X, y, _ = rows
    batches = iter_batches(X, y, 32, random_state=0, prefetch=prefetch)
    model = model_of(max_iter=40, batch_size=32).fit(batches)
    arrays = model_of(max_iter=40, batch_size=32).fit(X, y)
    assert model.evaluate(X, y).loss == pytest.approx(arrays.evaluate(X, y).loss, rel=0.02)


class TestLabels:
    def test_a_batch_may_lack_classes(self, rng):
        X = rng.normal(size=(9, 2))
        batches = [(X[:3], ["b"] * 3), (X[3:5], ["a", "c"]), (X[5:], np.array(["b", "long"] * 2))]
        model = model_of().fit(batches)
        assert model.classes_.tolist() == ["a", "b", "c", "long"]
        assert model.coef_.shape == (4, 2)

    def test_types_stay(self, rng):
        X = rng.normal(size=(4, 2))
        for y in (
            np.array([0, 1, 5, 1], dtype=np.int16),
            np.array([True, False, True, True]),
            np.array(["x", "yy", "x", "x"], dtype=object),
            np.array(["x", "yy", "x", "x"]),
        ):
            model = model_of().fit([(X[:2], y[:2]), (X[2:], y[2:])])
            assert model.classes_.dtype == y.dtype
            np.testing.assert_array_equal(model.classes_, np.unique(y))

    def test_weight_0_is_the_row_removed(self, rows, n_classes):
        X, y, weights = rows
        y = y.copy()
        y[40:45], weights[40:45] = 77, 0.0
        model = model_of(batch_size=1, C=np.inf).fit(cut(X, y, weights))
        kept = np.delete(np.arange(90), np.arange(40, 45))
        other = model_of(batch_size=1, C=np.inf).fit([(X[kept], y[kept], weights[kept])])
        assert model.classes_.tolist() == list(range(n_classes))
        # the weights have mean 1 over all rows, also those
        slower = model_of(batch_size=1, C=np.inf, learning_rate=0.1 * 85 / 90)
        slower.fit([(X[kept], y[kept], weights[kept])])
        assert not np.allclose(other.coef_, slower.coef_)
        faster = model_of(batch_size=1, C=np.inf, learning_rate=0.1 * 85 / 90)
        faster.fit(cut(X, y, weights))
        np.testing.assert_allclose(faster.coef_, other.coef_, rtol=1e-9)

    @pytest.mark.parametrize("class_weight", ["balanced", {0: 2.0, 1: 0.5}])
    @pytest.mark.parametrize("soft", [False, True])
    def test_class_weight(self, rows, n_classes, class_weight, soft):
        X, y, weights = rows
        y = np.where(np.arange(90) % 5 == 0, 0, y)
        target = np.eye(n_classes)[y] if soft else y
        model = model_of(class_weight=class_weight).fit(cut(X, target, weights))
        mass = np.bincount(y, weights)
        by_class = mass.sum() / (n_classes * mass)
        if class_weight != "balanced":
            by_class = np.array([class_weight.get(k, 1.0) for k in range(n_classes)])
        plain = model_of().fit(cut(X, y, weights * by_class[y]))
        np.testing.assert_allclose(model.coef_, plain.coef_, rtol=1e-9)

    def test_columns_are_those_of_classes(self, rows, n_classes, rng):
        X, _, _ = rows
        probs = rng.dirichlet(np.ones(n_classes), 90)
        names = ["z", "a", "m"][:n_classes]
        order = np.argsort(names)
        model = model_of().fit(cut(X, probs), classes=names)
        plain = model_of().fit(cut(X, probs[:, order]), classes=sorted(names))
        assert model.classes_.tolist() == sorted(names)
        np.testing.assert_array_equal(model.coef_, plain.coef_)


class TestNumbers:
    def test_the_first_batch_decides(self, rows):
        X, y, _ = rows
        single, double = X.astype(np.float32), X
        batches = [(single[:45], y[:45]), (double[45:], y[45:])]
        assert model_of().fit(batches).coef_.dtype == np.float32
        assert model_of().fit(batches[::-1]).coef_.dtype == np.float64

    def test_bytes_and_a_scale(self, rng, n_classes):
        X = rng.integers(0, 255, (60, 5)).astype(np.uint8)
        y = np.arange(60) % n_classes
        model = model_of(input_scale=1 / 255).fit(cut(X, y, slices=SLICES[:-1]))
        plain = model_of().fit(cut((X / 255).astype(np.float32), y, slices=SLICES[:-1]))
        np.testing.assert_allclose(255 * model.coef_, plain.coef_, rtol=1e-3, atol=1e-4)

    def test_threads(self, rows):
        fits = [model_of(n_jobs=n).fit(cut(*rows)) for n in (1, 2, 3)]
        for other in fits[1:]:
            np.testing.assert_array_equal(other.coef_, fits[0].coef_)

    def test_empty_batches(self, rows):
        X, y, _ = rows
        batches = cut(X, y)
        weightless = X[:3], y[:3], np.zeros(3)
        padded = [(X[:0], y[:0]), *batches[:2], (np.empty((0, 6)), []), weightless, *batches[2:]]
        expected, model = model_of().fit(batches), model_of().fit(padded)
        np.testing.assert_array_equal(model.coef_, expected.coef_)
        assert model.history_["loss"] == expected.history_["loss"]

    def test_the_callers_arrays(self, rows):
        for array in rows:
            array.flags.writeable = False
        model_of().fit(cut(*rows))

    def test_backends(self, rows):
        native, plain = (model_of(backend=b).fit(cut(*rows)) for b in ("auto", "numpy"))
        np.testing.assert_allclose(native.coef_, plain.coef_, rtol=1e-9)


class TestControl:
    def test_history_eval_set_and_callbacks(self, rows):
        X, y, _ = rows
        states = []
        model = model_of().fit(cut(X, y), eval_set=[(X, y)], callbacks=[states.append])
        assert [state.iteration for state in states] == [1, 2, 3]
        assert {state.solver for state in states} == {"sgd"}
        assert all(state.rows_per_second > 0.0 for state in states)
        assert model.history_["eval_loss"][-1][0] == pytest.approx(model.evaluate(X, y).loss)
        assert [state.loss for state in states] == model.history_["loss"]

    def test_a_callback_stops(self, rows):
        X, y, _ = rows
        model = model_of().fit(cut(X, y), callbacks=[lambda state: state.iteration == 2])
        np.testing.assert_array_equal(model.coef_, model_of(max_iter=2).fit(cut(X, y)).coef_)

    def test_early_stopping(self, rows, rng):
        X, y, _ = rows
        other = rng.normal(size=X.shape), y
        model = model_of(max_iter=200, early_stopping=True, learning_rate=1.0, n_iter_no_change=2)
        model.fit(cut(X, y), eval_set=[(X, y), other])
        losses = [pair[1] for pair in model.history_["eval_loss"]]
        assert model.n_iter_[0] < 200
        assert model.best_score_ == min(losses)
        assert model.evaluate(*other).loss == pytest.approx(model.best_score_)
        with pytest.raises(ValueError, match="early_stopping=True needs an eval_set"):
            model.fit(cut(X, y))

    def test_max_time(self, rows):
        X, y, _ = rows
        with pytest.warns(ConvergenceWarning, match="max_time") as caught:
            model = model_of(max_time=1e-9).fit(cut(X, y))
        assert caught[0].filename == __file__
        assert model.n_iter_.tolist() == [1]

    def test_verbose(self, rows, capsys):
        model_of(verbose=1).fit(cut(*rows))
        assert len(capsys.readouterr().out.splitlines()) == 3

    def test_warm_start_and_partial_fit_go_on(self, rows):
        X, y, _ = rows
        model = model_of(warm_start=True).fit(cut(X, y))
        first = model.history_["loss"]
        model.fit(cut(X, y))
        assert model.history_["loss"][0] < first[0]
        coef = model.coef_
        model.partial_fit(X, y)
        assert (model.coef_ != coef).any()
        model.set_params(solver="lbfgs", max_iter=100).fit(X, y)
        assert model.converged_

    @pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
    def test_an_interruption_keeps_the_steps_so_far(self, rows, error, n_classes):
        """One epoch may be all there is, and last for hours."""
        X, y, _ = rows

        def batches():
            yield from cut(X, y)[:2]
            raise error

        model = model_of()
        with pytest.raises(error):
            model.fit(batches, classes=range(n_classes))
        part = model_of(max_iter=1).fit(cut(X, y)[:2], classes=range(n_classes))
        np.testing.assert_array_equal(model.coef_, part.coef_)
        assert model.n_iter_.tolist() == [0]
        assert not model.converged_
        assert model.predict(X).shape == (90,)

    def test_divergence(self, rows):
        X, y, _ = rows
        with (
            warnings.catch_warnings(),
            pytest.raises(ValueError, match="diverged in epoch 1"),
        ):
            warnings.simplefilter("ignore", RuntimeWarning)
            model_of(learning_rate=1e200, batch_size=1).fit(cut(X * 1e150, y))


class TestErrors:
    def test_what_can_be_read_once(self, rows):
        batches = cut(*rows)
        for once in (iter(batches), (batch for batch in batches), map(tuple, batches)):
            with pytest.raises(TypeError, match="can be read only once: give fit a callable"):
                model_of().fit(once)
        iterator = iter(batches)
        with pytest.raises(TypeError, match="must return a new iterator in every call"):
            model_of().fit(lambda: iterator)

        class Exhausted:
            iterator = iter(batches)

            def __iter__(self):
                return self.iterator

        with pytest.raises(ValueError, match="begin anew in every epoch"):
            model_of().fit(Exhausted())
        with pytest.raises(TypeError, match="must return an iterator of batches, got int"):
            model_of().fit(lambda: 3)

    def test_standardize(self, rows):
        with pytest.raises(ValueError, match="standardize=True needs all rows at once"):
            model_of(standardize=True).fit(cut(*rows))

    def test_weights_beside_the_batches(self, rows):
        with pytest.raises(ValueError, match="sample_weight of batches is part of them"):
            model_of().fit(cut(*rows[:2]), sample_weight=rows[2])

    @pytest.mark.parametrize("given", [False, True])
    @pytest.mark.parametrize(
        ("spoil", "error", "match"),
        [
            (lambda X, y: (X[:, :4], y), ValueError, "batch 2.*X has 4 features.*expecting 6"),
            (lambda X, y: (X * np.nan, y), ValueError, "batch 2.*NaN"),
            (lambda X, y: (X, y[:3]), ValueError, "batch 2.*inconsistent"),
            (lambda X, y: (X, y, -np.ones(len(y))), ValueError, "batch 2.*sample_weight"),
            (lambda X, y: (X, y, np.ones(3)), ValueError, "batch 2.*sample_weight"),
            (lambda X, y: (X, np.full((len(y), 3), 0.5)), ValueError, "batch 2"),
            (lambda X, y: X, TypeError, r"batch 2 must be \(X, y\) or \(X, y, sample_weight\)"),
            (lambda X, y: (X, y, y, y), TypeError, "batch 2 must be.*tuple of length 4"),
            (lambda X, y: {"X": X}, TypeError, "batch 2 must be.*dict"),
            (lambda X, y: (3, y), TypeError, "batch 2 must hold rows"),
        ],
        ids=[
            "features", "NaN", "lengths", "negative weights", "weights", "no probabilities",
            "an array", "four", "a dict", "no rows",
        ],
    )  # fmt: skip
    def test_of_one_batch(self, rows, n_classes, spoil, error, match, given):
        X, y, _ = rows
        batches = cut(X, y)
        batches[2] = spoil(*batches[2])
        with pytest.raises(error, match=match):
            model_of().fit(batches, classes=range(n_classes) if given else None)

    def test_labels(self, rows):
        X, y, _ = rows
        with pytest.raises(ValueError, match=r"batch 0.*none of the classes"):
            model_of().fit(cut(X, y), classes=["a", "b"])
        with pytest.raises(ValueError, match=r"batch 3.*none of the classes: .*55"):
            model_of().fit(cut(X, np.where(np.arange(90) > 60, 55, 0)), classes=[0, 1])
        with pytest.raises(ValueError, match="at least 2 classes"):
            model_of().fit(cut(X, np.zeros(90)))
        for classes in ([0], [0, 1, 1], [[0, 1]]):
            with pytest.raises(ValueError, match="at least 2 labels, all different"):
                model_of().fit(cut(X, np.zeros(90)), classes=classes)
        with pytest.raises(ValueError, match="labels of one kind"):
            model_of().fit([(X, y), (X, y.astype(str))])
        with pytest.raises(ValueError, match="Unknown label type"):
            model_of().fit(cut(X, X[:, 0]))

    def test_no_rows(self, rows):
        X, y, _ = rows
        for classes in (None, [0, 1]):
            with pytest.raises(ValueError, match="batches must hold rows"):
                model_of().fit([(X[:0], y[:0])], classes=classes)
            with pytest.raises(ValueError, match="batches must hold rows"):
                model_of().fit(lambda: [], classes=classes)
            with pytest.raises(ValueError, match="weight above 0"):
                model_of().fit([(X, y, np.zeros(90))], classes=classes)

    @pytest.mark.parametrize(
        "X", [np.ones((3, 2)), [[1.0, 2.0], [3.0, 4.0]], sparse.eye_array(3).tocsr()]
    )
    def test_labels_that_were_forgotten(self, X):
        for solver in ("auto", "sgd"):
            with pytest.raises(
                ValueError, match="requires y to be passed, but the target y is None"
            ):
                FastSoftmax(solver=solver).fit(X)

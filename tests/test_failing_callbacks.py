"""Users' code that raises at every stage of a fit: callbacks, loaders of batches, arrays, scores.

The very exception arrives, whatever its type. The estimator is as before, or has the coefficients
of the last iteration, no thread goes on, and the next fit gives the same bits.
"""

import threading
import time

import numpy as np
import pytest
from sklearn.model_selection import KFold

from fastsoftmax import FastSoftmax, FastSoftmaxCV

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

N, D, K = 90, 5, 3
rng = np.random.default_rng(0)
X = rng.normal(size=(N, D))
y = (X @ rng.normal(size=(D, K)) + rng.gumbel(size=(N, K))).argmax(axis=1)
y[:K] = np.arange(K)
BATCHES = [(X[i : i + 30], y[i : i + 30]) for i in range(0, N, 30)]


class Own(Exception):
    """An error that only this file knows."""


class Ends(BaseException):
    """The same, and nothing catches it by chance."""


# (a StopIteration that passes through a generator would become a RuntimeError)
ERRORS = [Own, Ends, KeyboardInterrupt, SystemExit, StopIteration, MemoryError, OSError, ValueError]
SOLVERS = ["lbfgs", "newton-cholesky", "owlqn", "sgd"]


@pytest.fixture(params=ERRORS, ids=lambda kind: kind.__name__)
def error(request):
    return request.param("raised by a user")


@pytest.fixture(autouse=True)
def no_thread_goes_on():
    """Threads that read ahead end with the fit, or a moment later."""
    yield
    end = time.monotonic() + 30
    while any(thread.name == "fastsoftmax-reading" for thread in threading.enumerate()):
        assert time.monotonic() < end, "a thread still reads"
        time.sleep(0.01)


class Fails:
    """Called, it counts, and raises an error in the call of a number."""

    def __init__(self, error=None, at=0):
        self.error, self.at, self.n_calls = error, at, 0

    def __call__(self, *args, **kwargs):
        self.n_calls += 1
        if self.n_calls == self.at:
            raise self.error


def model_of(solver, **parameters):
    l1 = {"l1_ratio": 0.5, "C": 0.3} if solver == "owlqn" else {}
    steps = {"batch_size": 30, "momentum": 0.9} if solver == "sgd" else {}
    given = {"max_iter": 4, "tol": 1e-9, "n_jobs": 1, "random_state": 0}
    return FastSoftmax(**{"solver": solver, **given, **l1, **steps, **parameters})


def raised_by(call, error):
    """Check that a call raises just this object, from nothing else."""
    with pytest.raises(type(error)) as caught:
        call()
    assert caught.value is error
    assert caught.value.__cause__ is None
    assert caught.value.args == ("raised by a user",)


def assert_same(model, other):
    for name in ("coef_", "intercept_", "n_iter_", "gap_", "objective_", "classes_"):
        np.testing.assert_array_equal(getattr(model, name), getattr(other, name))


def check(make, fit, error, n_stages, kept=lambda stage: True):
    """Raise at each stage, in new and in fitted estimators; kept: whether coefficients are new.

    fit(model, fails) calls fails() at every stage.
    """
    plain = make()
    counting = Fails()
    fit(plain, counting)
    assert counting.n_calls >= n_stages
    others = rng.normal(size=(20, 2)), np.arange(20) % 2
    for stage in range(1, counting.n_calls + 1):
        for is_fitted in (False, True):
            model = make()
            if is_fitted:
                model.set_params(**{"l1_ratio": 0.0, "solver": "lbfgs"} if is_fitted else {})
                model.fit(*others)
                model.set_params(**make().get_params())
            before = vars(model).copy()
            raised_by(lambda model=model, stage=stage: fit(model, Fails(error, stage)), error)
            check_left(model, before, kept(stage))
            fit(model, Fails())
            assert_same(model, plain)


def check_left(model, before, is_kept):
    now = vars(model)
    if now.get("intercept_") is before.get("intercept_"):
        assert not is_kept
        assert now.keys() == before.keys()
        assert all(now[name] is before[name] for name in now)
        return
    assert model.coef_.shape == (K, D)
    assert model.predict_proba(X).shape == (N, K)
    assert not model.converged_
    lengths = {len(values) for values in model.history_.values()}
    assert len(lengths) == 1


@pytest.mark.parametrize("solver", SOLVERS)
class TestCallbacks:
    def test_each_iteration(self, solver, error):
        check(
            lambda: model_of(solver),
            lambda model, fails: model.fit(X, y, callbacks=[fails]),
            error,
            4,
        )

    def test_with_everything_else(self, solver, error, tmp_path):
        """Coefficients are those of the best iteration before."""
        if solver == "owlqn":
            pytest.skip("as in the test above")
        others = Fails()
        check(
            lambda: model_of(solver, early_stopping=True, n_iter_no_change=10),
            lambda model, fails: model.fit(
                X, y, callbacks=[others, fails], eval_set=[(X[:30], y[:30])],
                checkpoint=tmp_path / "checkpoint",
            ),
            error,
            4,
        )  # fmt: skip
        assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint"]

    def test_the_end(self, solver, error):
        """What a callback raises when it is told of the end arrives, and the fit is complete."""

        class Ended(Fails):
            def __call__(self, state):
                pass

            def on_fit_end(self):
                super().__call__()

        plain, model = model_of(solver).fit(X, y), model_of(solver)
        raised_by(lambda: model.fit(X, y, callbacks=[Ended(error, 1)]), error)
        for name in ("coef_", "intercept_", "n_iter_", "gap_"):
            np.testing.assert_array_equal(getattr(model, name), getattr(plain, name))


# ---- batches


class Loader:
    """Batches of a class of the user's; each step of it is a stage."""

    def __init__(self, fails):
        self.fails = fails

    def __len__(self):
        return len(BATCHES)

    def __iter__(self):
        self.fails()
        return Steps(self.fails)


class Steps:
    def __init__(self, fails):
        self.fails, self.left = fails, list(BATCHES)

    def __iter__(self):
        return self

    def __next__(self):
        self.fails()
        if not self.left:
            raise StopIteration
        return self.left.pop(0)


def generator(fails):
    def batches():
        for batch in BATCHES:
            fails()
            yield batch
        fails()

    return batches


@pytest.mark.parametrize("solver", ["lbfgs", "sgd"])
@pytest.mark.parametrize("form", [Loader, generator])
class TestBatches:
    def test_each_step_of_each_pass(self, solver, form, error):
        if isinstance(error, StopIteration):
            pytest.skip("ends an iteration, as Python has it")
        check(
            lambda: model_of(solver, max_iter=2),
            lambda model, fails: model.fit(form(fails)),
            error,
            8,
            kept=lambda stage: None,
        )


class Unreadable:
    """An array whose conversion raises; each is a stage."""

    def __init__(self, array, fails):
        self.array, self.fails = array, fails

    shape = property(lambda self: self.array.shape)
    dtype = property(lambda self: self.array.dtype)

    def __len__(self):
        return len(self.array)

    def __array__(self, dtype=None, copy=None):
        self.fails()
        return np.asarray(self.array, dtype)


def test_arrays_that_cannot_be_read(error):
    """Of X, y, weights, eval_set: before anything is set, so the estimator is as before."""

    def fit(model, fails):
        given = [Unreadable(array, fails) for array in (X, y, np.ones(N), X[:30], y[:30])]
        return model.fit(*given[:3], eval_set=[tuple(given[3:])])

    if isinstance(error, ValueError | TypeError):
        pytest.skip("numpy's own errors of conversion may be told in other words")
    check(lambda: model_of("lbfgs"), fit, error, 5, kept=lambda stage: False)


@pytest.mark.parametrize("stage", range(1, 5))
def test_splits(error, stage):
    """All or nothing, where folds are chosen by code of the user's."""

    class Splits(KFold):
        def split(self, *args):
            for pair in super().split(*args):
                fails()
                yield pair
            fails()

    if isinstance(error, StopIteration):
        pytest.skip("ends an iteration, as Python has it")
    model, fails = FastSoftmaxCV(Cs=[0.1, 1.0], cv=Splits(3)), Fails(error, stage)
    before = vars(model).copy()
    raised_by(lambda: model.fit(X, y), error)
    assert vars(model) == before
    fails = Fails()
    plain = FastSoftmaxCV(Cs=[0.1, 1.0], cv=KFold(3)).fit(X, y)
    np.testing.assert_array_equal(model.fit(X, y).coef_, plain.coef_)
    before, fails = vars(model).copy(), Fails(error, stage)
    raised_by(lambda: model.fit(X[:, :2], y % 2), error)
    assert vars(model).keys() == before.keys()
    assert all(value is before[name] for name, value in vars(model).items())


@pytest.mark.parametrize("stage", [1, 2, 6])
def test_scores(error, stage):
    def scoring(estimator, X, y):
        fails()
        return 0.5

    model = FastSoftmaxCV(Cs=[0.1, 1.0], cv=3, scoring=scoring, full_path=True)
    before, fails = vars(model).copy(), Fails(error, stage)
    raised_by(lambda: model.fit(X, y), error)
    assert vars(model) == before
    fails = Fails()
    assert model.fit(X, y).C_ == 0.1


@pytest.mark.parametrize("n_fitted", [0, 1])
def test_partial_fit(error, n_fitted):
    model, plain = model_of("sgd"), model_of("sgd")
    for _ in range(n_fitted):
        model.partial_fit(X, y, classes=range(K))
        plain.partial_fit(X, y, classes=range(K))
    if isinstance(error, ValueError | TypeError):
        pytest.skip("numpy's own errors of conversion may be told in other words")
    for stage in (1, 2, 3):
        fails, before = Fails(error, stage), vars(model).copy()
        given = [Unreadable(array, fails) for array in (X, y, np.ones(N))]
        call = lambda given=given: model.partial_fit(*given[:2], range(K), given[2])  # noqa: E731
        raised_by(call, error)
        assert vars(model).keys() == before.keys()
        assert all(value is before[name] for name, value in vars(model).items())
    model.partial_fit(X, y, classes=range(K))
    plain.partial_fit(X, y, classes=range(K))
    np.testing.assert_array_equal(model.coef_, plain.coef_)

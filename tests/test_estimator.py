"""FastSoftmax against scikit-learn's model and the formula; weights, labels, numbers, threads."""

import pickle
import warnings

import numpy as np
import pytest
from scipy.special import logsumexp
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from fastsoftmax import FastSoftmax


def make_problem(rng, n_classes, n=150, d=6):
    """Overlapping classes on features of different scales and offsets."""
    X = rng.normal(size=(n, d)) * np.geomspace(0.3, 3.0, d) + rng.normal(size=d)
    W = rng.normal(size=(n_classes, d))
    y = (X @ W.T + 3.0 * rng.gumbel(size=(n, n_classes))).argmax(axis=1)
    y[:n_classes] = np.arange(n_classes)
    return X, y


def exact_fit(**parameters):
    """A model that goes on to the limits of float64."""
    # without an intercept the certificate is the squared gradient alone, and tighter
    tol = 1e-14 if parameters.get("fit_intercept", True) else 1e-22
    return FastSoftmax(**{"tol": tol, "n_jobs": 1, **parameters})


def objective(model, X, y, weights=None):
    """F as the class docstring states it, in float64."""
    W, b = model.coef_.astype(np.float64), model.intercept_.astype(np.float64)
    weights = np.ones(len(X)) if weights is None else weights
    logits = X.astype(np.float64) @ W.T + b
    if len(model.classes_) == 2:
        logits = np.column_stack([np.zeros(len(X)), logits])
    own = logits[np.arange(len(X)), np.searchsorted(model.classes_, y)]
    loss = np.average(logsumexp(logits, axis=1) - own, weights=weights)
    return loss + float((W * W).sum()) / (2.0 * model.C * weights.sum())


@pytest.fixture(params=[2, 5], ids=["2 classes", "5 classes"])
def n_classes(request):
    return request.param


@pytest.fixture(params=["lbfgs", "newton-cholesky"])
def solver(request):
    """Those that reach the optimum."""
    return request.param


class TestAgreement:
    @pytest.mark.parametrize("C", [1e-3, 1.0, 1e3])
    @pytest.mark.parametrize("fit_intercept", [True, False], ids=["intercept", "none"])
    @pytest.mark.parametrize("weighted", [False, True], ids=["", "sample_weight"])
    @pytest.mark.parametrize("class_weight", [None, "balanced", {0: 2.0, 1: 0.5}], ids=str)
    def test_coefficients(self, rng, n_classes, C, fit_intercept, weighted, class_weight, solver):
        X, y = make_problem(rng, n_classes)
        weights = rng.choice([0.5, 1.0, 4.0], len(X)) if weighted else None
        parameters = {"C": C, "fit_intercept": fit_intercept, "class_weight": class_weight}
        theirs = LogisticRegression(**parameters, solver="newton-cholesky", tol=1e-13, max_iter=500)
        if weighted and class_weight == "balanced":  # scikit-learn 1.6 leaves sample_weight out
            shares = weights.sum() / (n_classes * np.bincount(y, weights))
            theirs.set_params(class_weight=dict(enumerate(shares)))
        theirs.fit(X, y, weights)
        ours = exact_fit(solver=solver, **parameters).fit(X, y, weights)
        scale = np.abs(theirs.coef_).max()
        assert ours.coef_.shape == theirs.coef_.shape
        assert ours.intercept_.shape == theirs.intercept_.shape
        np.testing.assert_allclose(ours.coef_, theirs.coef_, rtol=0, atol=1e-8 * scale)
        np.testing.assert_allclose(ours.intercept_, theirs.intercept_, rtol=1e-8, atol=1e-8)
        np.testing.assert_array_equal(ours.predict(X), theirs.predict(X))
        for method in ("predict_proba", "decision_function"):
            np.testing.assert_allclose(
                getattr(ours, method)(X), getattr(theirs, method)(X), rtol=1e-7, atol=1e-8
            )
        # theirs are logarithms of rounded probabilities
        np.testing.assert_allclose(
            np.exp(ours.predict_log_proba(X)), theirs.predict_proba(X), rtol=1e-7, atol=1e-8
        )
        assert ours.score(X, y) == theirs.score(X, y)

    def test_features_that_nobody_scaled(self, rng, n_classes, solver):
        X, y = make_problem(rng, n_classes)
        X = X * np.geomspace(1e-4, 1e4, 6) + 10.0
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            theirs = LogisticRegression().fit(X, y)
        ours = FastSoftmax(solver=solver, tol=1e-6, n_jobs=1).fit(X, y)
        assert ours.converged_
        assert ours.objective_ == pytest.approx(objective(ours, X, y), rel=1e-9)
        assert ours.objective_ <= objective_of(theirs, X, y) * (1.0 + 1e-6)

    @pytest.mark.parametrize("real_time", [1.7e9, 1.7e6], ids=["seconds", "kiloseconds"])
    def test_points_in_time(self, rng, n_classes, solver, real_time):
        """A feature far from 0, of a scale of its own: neither is a reason not to converge."""
        X, y = make_problem(rng, n_classes)
        since = X.copy()
        since[:, 2] *= real_time / 50.0
        dates = since.copy()
        dates[:, 2] += real_time
        ours, plain = (FastSoftmax(solver=solver, n_jobs=1).fit(Z, y) for Z in (dates, since))
        assert ours.converged_
        assert ours.n_iter_[0] < 60
        assert ours.objective_ == pytest.approx(plain.objective_, rel=1e-4)

    def test_no_penalty(self, rng, n_classes, solver):
        X, y = make_problem(rng, n_classes, n=400)
        theirs = LogisticRegression(
            C=np.inf, solver="newton-cholesky", tol=1e-12, max_iter=500
        ).fit(X, y)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            ours = FastSoftmax(C=np.inf, solver=solver, n_jobs=1).fit(X, y)
        assert ours.objective_ == pytest.approx(objective_of(theirs, X, y), rel=1e-12)
        if n_classes == 2:  # more classes have no unique weights without a penalty
            np.testing.assert_allclose(ours.coef_, theirs.coef_, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(ours.predict_proba(X), theirs.predict_proba(X), atol=1e-6)

    def test_backends_agree(self, rng, n_classes, real, solver):
        X, y = make_problem(rng, n_classes)
        tol = 1e-12 if real is np.float64 else 1e-5
        native, twin = (
            FastSoftmax(solver=solver, tol=tol, n_jobs=1, backend=backend).fit(X.astype(real), y)
            for backend in ("auto", "numpy")
        )
        np.testing.assert_allclose(
            native.predict_proba(X.astype(real)),
            twin.predict_proba(X.astype(real)),
            atol=1e-6 if real is np.float64 else 1e-2,
        )


def objective_of(theirs, X, y):
    """F of another model's coefficients."""
    ours = FastSoftmax(C=theirs.C)
    ours.coef_, ours.intercept_, ours.classes_ = theirs.coef_, theirs.intercept_, theirs.classes_
    return objective(ours, X, y)


class TestCertificate:
    @pytest.mark.parametrize("solver", ["lbfgs", "newton-cholesky", "sgd"])
    @pytest.mark.parametrize("fit_intercept", [True, False])
    def test_objective_and_gap(self, rng, n_classes, solver, fit_intercept):
        X, y = make_problem(rng, n_classes)
        weights = rng.choice([0.0, 0.5, 1.0, 4.0], len(X))
        weights[:n_classes] = 1.0
        best = exact_fit(fit_intercept=fit_intercept).fit(X, y, weights)
        for max_iter in (1, 3, 10):
            model = FastSoftmax(
                solver=solver, max_iter=max_iter, fit_intercept=fit_intercept, n_jobs=1
            )
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)
                model.fit(X, y, weights)
            assert model.objective_ == pytest.approx(objective(model, X, y, weights), rel=1e-12)
            true_gap = (model.objective_ - best.objective_) / model.objective_
            assert model.gap_ >= true_gap - 1e-14
            assert model.converged_ == (model.gap_ <= model.tol)

    @pytest.mark.parametrize("tol", [1e-1, 1e-3, 1e-6, 1e-10])
    def test_tol_is_kept(self, rng, n_classes, tol, solver):
        X, y = make_problem(rng, n_classes)
        best = exact_fit().fit(X, y)
        model = FastSoftmax(solver=solver, tol=tol, n_jobs=1).fit(X, y)
        assert model.converged_
        assert model.gap_ <= tol
        assert model.objective_ <= best.objective_ * (1.0 + tol + 1e-14)

    def test_warning_once_with_the_gap(self, rng, solver):
        X, y = make_problem(rng, 3)
        with pytest.warns(ConvergenceWarning) as caught:
            model = FastSoftmax(solver=solver, max_iter=2, n_jobs=1).fit(X, y)
        (warning,) = caught
        nothing = "nothing could be certified"  # at a bound that is shown as 1.0e+00
        assert (f"{model.gap_:.1e}" if model.gap_ < 0.95 else nothing) in str(warning.message)
        assert "max_iter=2" in str(warning.message)
        assert warning.filename == __file__
        assert not model.converged_
        assert model.gap_ > model.tol

    def test_warning_where_precision_ends(self, rng, real, solver):
        X, y = make_problem(rng, 3)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            model = FastSoftmax(solver=solver, tol=0.0, n_jobs=1).fit(X.astype(real), y)
        assert len(model.history_["gap"]) == model.n_iter_[0] < 1000
        assert model.gap_ < 1e-3
        if model.gap_ > 0.0:  # rounding may lead to a bound of exactly 0
            (warning,) = caught
            assert "as far as float" in str(warning.message)
            assert f"{model.gap_:.1e}" in str(warning.message)
        else:
            assert not caught

    def test_without_a_penalty_a_finite_optimum_is_no_cause_to_warn(self, rng, solver, real):
        """But nothing is certified."""
        X, y = make_problem(rng, 3, n=400)
        model = FastSoftmax(C=np.inf, solver=solver, n_jobs=1).fit(X.astype(real), y)
        assert model.converged_
        assert model.gap_ == np.inf
        assert model.n_iter_[0] < 60
        with pytest.warns(ConvergenceWarning, match="C=inf") as caught:
            model.set_params(max_iter=3).fit(X.astype(real), y)
        assert len(caught) == 1
        assert "max_iter=3" in str(caught[0].message)
        assert not model.converged_

    @pytest.mark.parametrize("C", [1.0, np.inf])
    @pytest.mark.parametrize("max_iter", [20, 1000])
    def test_separable_classes(self, C, max_iter, n_classes, solver):
        """Without a penalty the optimum is at infinity: a warning is right, an error is not."""
        X = np.eye(n_classes).repeat(5, axis=0)
        y = np.arange(n_classes).repeat(5)
        model = FastSoftmax(C=C, solver=solver, n_jobs=1, max_iter=max_iter)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(X, y)
        assert np.isfinite(model.coef_).all()
        assert model.score(X, y) == 1.0

    def test_max_iter_0(self, rng, n_classes, solver):
        X, y = make_problem(rng, n_classes)
        with pytest.warns(ConvergenceWarning, match="max_iter=0"):
            model = FastSoftmax(solver=solver, max_iter=0, n_jobs=1).fit(X, y)
        assert model.n_iter_.tolist() == [0]
        assert not model.coef_.any()
        share = np.bincount(y) / len(y)
        np.testing.assert_allclose(model.predict_proba(X[:2]), [share, share], rtol=1e-12)
        assert all(values == [] for values in model.history_.values())
        model = FastSoftmax(max_iter=0, solver="sgd", random_state=3, n_jobs=1).fit(X, y)
        assert model.n_iter_.tolist() == [0]
        initial = np.random.RandomState(3).normal(0.0, 0.01, model.coef_.shape)
        np.testing.assert_array_equal(model.coef_, initial)
        assert not model.intercept_.any()


class TestWeights:
    @pytest.mark.parametrize("backend", ["auto", "numpy"])
    def test_repetition(self, rng, n_classes, solver, backend):
        X, y = make_problem(rng, n_classes)
        times = rng.integers(0, 4, len(X))
        times[:n_classes] = 1
        model = exact_fit(solver=solver, backend=backend)
        weighted = clone(model).fit(X, y, times)
        repeated = clone(model).fit(X.repeat(times, axis=0), y.repeat(times))
        np.testing.assert_allclose(weighted.predict_proba(X), repeated.predict_proba(X), rtol=1e-7)
        np.testing.assert_allclose(weighted.coef_, repeated.coef_, rtol=1e-7, atol=1e-9)
        assert weighted.objective_ == pytest.approx(repeated.objective_, rel=1e-12)

    def test_weight_0_removes_the_row(self, rng, n_classes, solver):
        X, y = make_problem(rng, n_classes)
        kept = rng.random(len(X)) < 0.7
        kept[:n_classes] = True
        X[~kept] = 1e3 * rng.normal(size=(int((~kept).sum()), X.shape[1]))
        weighted = exact_fit(solver=solver).fit(X, y, kept.astype(float))
        removed = exact_fit(solver=solver).fit(X[kept], y[kept])
        np.testing.assert_allclose(weighted.coef_, removed.coef_, rtol=1e-7, atol=1e-9)
        np.testing.assert_allclose(weighted.intercept_, removed.intercept_, rtol=1e-7, atol=1e-9)

    @pytest.mark.parametrize("by", ["sample_weight", "class_weight"])
    def test_a_class_without_weight_is_removed_too(self, rng, by):
        X, y = make_problem(rng, 4)
        labels = np.array(["a", "b", "c", "d"])[y]
        kept = labels != "c"
        model = exact_fit(class_weight={"c": 0.0} if by == "class_weight" else None)
        model.fit(X, labels, kept.astype(float) if by == "sample_weight" else None)
        removed = exact_fit().fit(X[kept], labels[kept])
        assert model.converged_
        assert "c" not in model.predict(X)
        np.testing.assert_array_equal(model.classes_, removed.classes_)
        np.testing.assert_allclose(model.predict_proba(X), removed.predict_proba(X), rtol=1e-7)

    def test_a_class_without_weight_is_no_class_to_balance(self, rng):
        """ "balanced" divided by the number of all classes, also of those without weight."""
        X, y = make_problem(rng, 4)
        weights = rng.choice([0.5, 1.0, 4.0], len(X)) * (y != 2)
        model = exact_fit(class_weight="balanced").fit(X, y, weights)
        kept = weights > 0.0
        removed = exact_fit(class_weight="balanced").fit(X[kept], y[kept], weights[kept])
        np.testing.assert_allclose(model.coef_, removed.coef_, rtol=1e-7, atol=1e-9)
        assert model.objective_ == pytest.approx(removed.objective_, rel=1e-12)

    @pytest.mark.parametrize("factor", [1e-6, 0.25, 1e9])
    def test_scaling_weights_and_1_over_C_changes_nothing(self, rng, n_classes, solver, factor):
        X, y = make_problem(rng, n_classes)
        weights = rng.choice([0.5, 1.0, 4.0], len(X))
        plain = exact_fit(C=2.0, solver=solver).fit(X, y, weights)
        scaled = exact_fit(C=2.0 / factor, solver=solver).fit(X, y, factor * weights)
        np.testing.assert_allclose(scaled.coef_, plain.coef_, rtol=1e-8, atol=1e-10)
        assert scaled.objective_ == pytest.approx(plain.objective_, rel=1e-12)

    @pytest.mark.parametrize("size", [1e-300, 1e300])
    def test_weights_of_any_size(self, rng, size):
        X, y = make_problem(rng, 3)
        model = FastSoftmax(C=1.0 / size, n_jobs=1).fit(X, y, np.full(len(X), size))
        plain = FastSoftmax(n_jobs=1).fit(X, y)
        np.testing.assert_allclose(model.coef_, plain.coef_, rtol=1e-6)

    def test_class_weight_multiplies_sample_weight(self, rng):
        X, y = make_problem(rng, 3)
        weights = rng.choice([0.5, 1.0, 4.0], len(X))
        by_class = exact_fit(class_weight={0: 3.0, 2: 0.5}).fit(X, y, weights)
        by_row = exact_fit().fit(X, y, weights * np.array([3.0, 1.0, 0.5])[y])
        np.testing.assert_allclose(by_class.coef_, by_row.coef_, rtol=1e-8, atol=1e-10)

    def test_class_weight_of_a_class_that_y_lacks(self, rng):
        """As in scikit-learn: nothing, if every class that y has is named, as in a small fold."""
        X, y = make_problem(rng, 3)
        weights = {0: 3.0, 1: 1.0, 2: 0.5}
        plain = FastSoftmax(class_weight=weights, n_jobs=1).fit(X, y)
        more = FastSoftmax(class_weight={**weights, 7: 9.0}, n_jobs=1).fit(X, y)
        np.testing.assert_array_equal(more.coef_, plain.coef_)
        for wrong in ({0: 3.0, 7: 9.0}, {0: 3.0, 1: 1.0, "2": 0.5}):
            with pytest.raises(ValueError, match="class_weight names classes"):
                FastSoftmax(class_weight=wrong, n_jobs=1).fit(X, y)

    def test_weights_are_not_written_to(self, rng):
        X, y = make_problem(rng, 3)
        weights = rng.random(len(X))
        weights.setflags(write=False)
        before = weights.copy()
        FastSoftmax(class_weight="balanced", n_jobs=1).fit(X, y, weights)
        np.testing.assert_array_equal(weights, before)

    def test_list_scalar_and_series(self, rng):
        X, y = make_problem(rng, 3)
        plain = FastSoftmax(n_jobs=1).fit(X, y)
        for ones in ([1] * len(X), np.ones(len(X), dtype=np.float32), np.ones(len(X), dtype=int)):
            model = FastSoftmax(n_jobs=1).fit(X, y, sample_weight=ones)
            np.testing.assert_array_equal(model.coef_, plain.coef_)


class TestLabels:
    LABELS = (
        ["ant", "bee", "cat"],
        [-7, 0, 3],
        [1.0, 2.0, 3.0],
        np.array([10, 20, 200], dtype=np.uint8),
        np.array(["ant", "bee", "cat"], dtype=object),
        np.array(["b", "c", "ä"]),
        [False, True],
        ["no", "yes"],
    )

    @pytest.mark.parametrize("labels", LABELS, ids=str)
    def test_of_any_type(self, rng, labels):
        labels = np.asarray(labels)
        X, y = make_problem(rng, len(labels))
        numbers = FastSoftmax(n_jobs=1).fit(X, y)
        model = FastSoftmax(n_jobs=1).fit(X, labels[y])
        np.testing.assert_array_equal(model.classes_, labels[np.argsort(labels)])
        assert model.classes_.dtype == labels.dtype
        np.testing.assert_array_equal(model.coef_, numbers.coef_)
        predicted = model.predict(X)
        assert predicted.dtype == labels.dtype
        np.testing.assert_array_equal(predicted, labels[numbers.predict(X)])
        assert model.score(X, labels[y]) == numbers.score(X, y)

    def test_order_of_rows_does_not_name_classes(self, rng):
        X, y = make_problem(rng, 3)
        model = FastSoftmax(n_jobs=1).fit(X[::-1], np.array(["z", "a", "m"])[y[::-1]])
        assert model.classes_.tolist() == ["a", "m", "z"]

    def test_a_list(self, rng):
        X, y = make_problem(rng, 3)
        model = FastSoftmax(n_jobs=1).fit(X.tolist(), y.tolist())
        np.testing.assert_array_equal(model.coef_, FastSoftmax(n_jobs=1).fit(X, y).coef_)


class TestThreads:
    @pytest.mark.parametrize("solver", ["lbfgs", "newton-cholesky", "sgd"])
    def test_same_bits(self, rng, n_classes, real, solver):
        X, y = make_problem(rng, n_classes, n=1500, d=40)
        X = X.astype(real)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            models = [
                FastSoftmax(
                    solver=solver, max_iter=20, random_state=0, n_jobs=n, batch_size=700
                ).fit(X, y)
                for n in (1, 2, 3, 7, -1, None)
            ]
        for model in models[1:]:
            for name in ("coef_", "intercept_", "objective_", "gap_"):
                np.testing.assert_array_equal(getattr(model, name), getattr(models[0], name))
            np.testing.assert_array_equal(model.predict_proba(X), models[0].predict_proba(X))

    @pytest.mark.parametrize("n_jobs", [-2, -1000])
    def test_fewer_than_all_cpus(self, rng, n_jobs):
        X, y = make_problem(rng, 3)
        assert FastSoftmax(n_jobs=n_jobs).fit(X, y).converged_

    FORK = """
import os, sys
import numpy as np
from fastsoftmax import FastSoftmax
rng = np.random.default_rng(0)
X = rng.normal(size=(3000, 50))
y = (X @ rng.normal(size=(50, 5)) + rng.gumbel(size=(3000, 5))).argmax(1)
def bits():
    models = [FastSoftmax(n_jobs=2, tol=0.5, solver=solver, max_iter=n, random_state=0).fit(X, y)
              for solver, n in (("lbfgs", 1000), ("sgd", 2))]
    return b"".join(m.coef_.tobytes() + m.predict_proba(X).tobytes() for m in models)
before = bits()
child = os.fork()
if child == 0:
    os._exit(0 if bits() == before else 1)
status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
print("child", status, "parent", bits() == before)
"""

    @pytest.mark.skipif("not hasattr(__import__('os'), 'fork')", reason="no fork on this system")
    def test_fork_after_a_fit(self, run_python):
        assert run_python(self.FORK).split() == ["child", "0", "parent", "True"]


def test_pickle_keeps_every_bit(rng):
    X, y = make_problem(rng, 3)
    model = FastSoftmax(n_jobs=1).fit(X, y)
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.predict_proba(X), model.predict_proba(X))
    assert again.history_ == model.history_


@pytest.mark.parametrize(
    ("options", "solver"),
    [
        ({}, "newton-cholesky"),
        ({"solver": "lbfgs"}, "lbfgs"),
        ({"solver": "owlqn"}, "lbfgs"),
        ({"l1_ratio": 1.0}, "owlqn"),
        ({"solver": "sgd", "max_iter": 2}, "sgd"),
    ],
)
def test_solver_tells_which_one_ran(options, solver):
    X = np.arange(24.0).reshape(12, 2) % 5.0
    model = FastSoftmax(n_jobs=1, **options).fit(X, np.arange(12) % 3)
    assert model.solver_ == solver


def test_solver_of_steps():
    model = FastSoftmax(n_jobs=1).partial_fit([[0.0], [1.0]], [0, 1], classes=[0, 1])
    assert model.solver_ == "sgd"

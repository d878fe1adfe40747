"""How far FastSoftmaxCV goes along its path of C, how exactly, and what it tells on the way."""

import re
from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.figure import Figure
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import StratifiedKFold

from fastsoftmax import FastSoftmax, FastSoftmaxCV, plot
from fastsoftmax._estimator.features import checked_rows
from fastsoftmax._estimator.targets import new_labels
from fastsoftmax._sweep import progress
from fastsoftmax._sweep.folds import fold_of, sweep_rows
from fastsoftmax._sweep.paths import best_index, has_fallen
from fastsoftmax.objective import SoftmaxObjective

TOL = 1e-4


@pytest.fixture(scope="module")
def noisy():
    """Rows that a weak penalty fits too closely: the best C is far from the end of the path."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(120, 34))
    signal = X[:, :4] @ rng.normal(size=(4, 10))
    return X, (signal + 2.0 * rng.gumbel(size=signal.shape)).argmax(axis=1)


@pytest.fixture(scope="module")
def stopped(noisy):
    return FastSoftmaxCV(cv=3, scoring="neg_log_loss", n_jobs=1).fit(*noisy)


@pytest.fixture(scope="module")
def digits():
    X, y = load_digits(return_X_y=True)
    return X[:800] / 16.0, y[:800]


@pytest.fixture(scope="module")
def both(digits):
    """Sweeps whose folds stop at an estimated gap, and at a certified one."""
    Cs = np.logspace(-3, 1, 5)
    return [
        FastSoftmaxCV(Cs, cv=3, scoring="neg_log_loss", certify_folds=certify, n_jobs=1).fit(
            *digits
        )
        for certify in (False, True)
    ]


def test_one_standard_error_is_that_of_an_estimate_from_the_folds():
    """Of scores 0.5 and 0.7 it is 0.1: the deviation by n - 1, over the root of n."""
    for mean, expected in ((0.501, 0), (0.499, 1)):
        scores = np.array([[mean, 0.5], [mean, 0.7]])
        assert best_index(scores, one_standard_error=True) == expected
        assert best_index(scores, one_standard_error=False) == 1


class TestHasFallen:
    @pytest.mark.parametrize(
        ("means", "fallen"),
        [
            ([1.0], False),
            ([2.0, 1.0], False),
            ([3.0, 2.0, 1.0], True),
            ([3.0, 2.0, 2.0], True),
            ([3.0, 1.0, 2.0], False),  # on its way back
            ([1.0, 3.0, 2.0], False),
            ([1.0, 2.0, 3.0], False),
            ([3.0, 2.0, 4.0, 3.5], False),
            ([2.0, 2.0, 2.0, 2.0], False),
            ([3.0, 2.0, np.nan], False),
            ([np.nan, 3.0, 2.0, 1.0], True),
            ([np.nan, np.nan, np.nan], False),
        ],
    )
    def test_means(self, means, fallen):
        folds = np.array([[0.5], [0.0], [-0.5]])  # some are harder than others
        assert has_fallen(np.array(means) + folds) == fallen

    def test_a_fall_of_less_than_a_standard_error(self):
        lost = np.array([0.0, 0.3, 0.0])
        scores = np.column_stack([np.ones(3), 1.0 - lost, 1.0 - lost])
        assert not has_fallen(scores)  # its standard error is its mean
        assert has_fallen(np.vstack([scores, scores]))

    def test_one_fold(self):
        assert not has_fallen(np.array([[3.0, 2.0, 1.0]]))


class TestEndOfThePath:
    def test_what_was_not_tried(self, stopped):
        tried = np.isfinite(stopped.scores_).all(axis=0)
        n_tried = int(tried.sum())
        assert stopped.best_index_ + 2 < n_tried < 10
        assert tried[:n_tried].all()
        np.testing.assert_allclose(stopped.Cs_, np.logspace(-4, 4, 10))
        assert stopped.scores_.shape == stopped.gaps_.shape == stopped.n_iter_.shape == (3, 10)
        for values in (stopped.coefs_paths_, stopped.intercepts_paths_, stopped.gaps_):
            assert np.isfinite(values[:, :n_tried]).all()
            assert np.isnan(values[:, n_tried:]).all()
        assert not stopped.n_iter_[:, n_tried:].any()
        assert stopped.converged_

    @pytest.mark.parametrize("scoring", ["accuracy", "neg_log_loss"])
    @pytest.mark.parametrize("one_standard_error", [False, True])
    def test_the_choice_is_that_of_the_full_path(self, noisy, scoring, one_standard_error):
        options = {"scoring": scoring, "one_standard_error": one_standard_error, "n_jobs": 1}
        part = FastSoftmaxCV(cv=3, **options).fit(*noisy)
        full = FastSoftmaxCV(cv=3, full_path=True, **options).fit(*noisy)
        assert np.isnan(part.scores_).any()
        assert np.isfinite(full.scores_).all()
        assert part.C_ == full.C_
        known = np.isfinite(part.scores_)
        np.testing.assert_array_equal(part.scores_[known], full.scores_[known])
        np.testing.assert_array_equal(part.coef_, full.coef_)

    @pytest.mark.parametrize(
        ("Cs", "full_path", "is_full"),
        [
            (10, "auto", False),
            (10, True, True),
            (10, False, False),
            (np.logspace(-4, 4, 10), "auto", True),
            (np.logspace(-4, 4, 10), False, False),
        ],
    )
    def test_all_Cs_are_tried_on_request(self, noisy, Cs, full_path, is_full):
        model = FastSoftmaxCV(Cs, cv=3, full_path=full_path, tol=1e-2, n_jobs=1).fit(*noisy)
        assert np.isfinite(model.scores_).all() == is_full

    def test_a_wrong_value(self, noisy):
        with pytest.raises(ValueError, match="full_path"):
            FastSoftmaxCV(full_path="all").fit(*noisy)

    def test_without_refit(self, noisy):
        model = FastSoftmaxCV(cv=3, refit=False, n_jobs=1).fit(*noisy)
        assert np.isnan(model.gaps_).any()
        assert model.gap_ == model.gaps_[:, model.best_index_].max() <= TOL

    def test_is_drawn(self, stopped):
        ax = plot.path(stopped, Figure().subplots())
        assert np.isnan(ax.lines[0].get_ydata()).any()
        ax = plot.path(stopped, Figure().subplots(), kind="coefficients")
        assert ax.get_ylim()[1] > np.nanmax(stopped.coefs_paths_.mean(axis=0))
        ax.figure.canvas.draw()


class TestFoldsThatAreOnlyScored:
    """They end at an estimated gap, and their scores are those of certified fits."""

    def test_iterations(self, both):
        estimated, certified = both
        assert estimated.n_iter_.sum() <= certified.n_iter_.sum()
        assert (certified.gaps_ <= TOL).all()
        assert (estimated.gaps_ > TOL).any()

    def test_are_not_reported_as_short_of_the_tolerance(self, both):
        """Warnings are errors here."""
        for model in both:
            assert model.converged_
            assert model.gap_ <= TOL

    def test_scores(self, both):
        estimated, certified = both
        error = certified.scores_.std(axis=0, ddof=1) / np.sqrt(3)
        assert (np.abs(estimated.scores_ - certified.scores_) < 0.05 * error).all()
        assert estimated.C_ == certified.C_

    def test_the_objective_of_each(self, digits, both):
        X, y = digits
        estimated, _ = both
        for i, (train, _) in enumerate(StratifiedKFold(3).split(X, y)):
            for j, C in enumerate(estimated.Cs_):
                best = FastSoftmax(C, tol=1e-8, n_jobs=1).fit(X[train], y[train])
                fold = estimated.coefs_paths_[i, j], estimated.intercepts_paths_[i, j]
                value = objective(*fold, C, X[train], y[train])
                least = objective(best.coef_, best.intercept_, C, X[train], y[train])
                assert value - least <= TOL * value

    def test_the_chosen_model_is_certified(self, digits, both):
        for model in both:
            best = FastSoftmax(model.C_, tol=1e-8, n_jobs=1).fit(*digits)
            value = objective(model.coef_, model.intercept_, model.C_, *digits)
            least = objective(best.coef_, best.intercept_, model.C_, *digits)
            assert (value - least) / value <= model.gap_ <= TOL

    def test_a_fold_that_falls_short(self, digits):
        with pytest.warns(ConvergenceWarning, match=r"of 7 fits are not certified.*max_iter=4"):
            model = FastSoftmaxCV([1.0, 10.0], cv=3, max_iter=4, n_jobs=1).fit(*digits)
        assert not model.converged_

    def test_what_was_not_tried_does_not_fall_short(self, noisy):
        with pytest.warns(ConvergenceWarning, match=r"^\d+ of (\d+) fits") as caught:
            model = FastSoftmaxCV(cv=3, max_iter=2, scoring="neg_log_loss", n_jobs=1).fit(*noisy)
        n_tried = int(np.isfinite(model.scores_).sum())
        assert n_tried < 30
        assert f" of {n_tried + 1} fits" in str(caught[0].message)  # and the one to all rows

    def test_without_refit_all_are_certified(self, digits):
        model = FastSoftmaxCV([1.0], cv=2, refit=False, n_jobs=1).fit(*digits)
        assert (model.gaps_ <= TOL).all()


def objective(coef, intercept, C, X, y):
    logits = X @ coef.T + intercept
    largest = logits.max(axis=1, keepdims=True)
    log_sums = np.log(np.exp(logits - largest).sum(axis=1)) + largest[:, 0]
    loss = (log_sums - logits[np.arange(len(y)), y]).mean()
    return float(loss + (coef**2).sum() / (2.0 * C * len(y)))


class TestProgress:
    @pytest.fixture
    def clock(self, monkeypatch):
        clock = SimpleNamespace(now=100.0)
        monkeypatch.setattr(progress.time, "perf_counter", lambda: clock.now)
        return clock

    def test_time_left(self, clock, capsys):
        shown = progress.Progress(n_folds=2, n_Cs=3, verbose=1)
        for C, fold, now in [(0.1, 0, 101.0), (0.1, 1, 102.0), (1.0, 0, 112.0), (1.0, 1, 122.0)]:
            clock.now = now
            shown.tell_fold(C, fold, 12, 3e-5, 0.875)
        lines = capsys.readouterr().out.splitlines()
        assert lines[0] == (
            "[1/6] C 0.1       fold 1  iterations  12  gap 3.0e-05  score 0.8750 | "
            "1.0 s, about 5.0 s left"
        )
        assert [line.split("| ")[1] for line in lines[1:]] == [
            "2.0 s, about 4.0 s left",
            "12 s, about 16 s left",  # 11 s for the latest two fits
            "22 s, about 20 s left",
        ]

    def test_nothing_unless_asked(self, clock, capsys):
        shown = progress.Progress(n_folds=2, n_Cs=3, verbose=0)
        shown.tell_fold(0.1, 0, 12, 3e-5, 0.875)
        shown.tell_end(2)
        shown.tell_refit(0.1, 3, 1e-5)
        assert not capsys.readouterr().out

    @pytest.mark.parametrize(
        ("seconds", "text"),
        [
            (0.0, "0.0 s"), (3.14, "3.1 s"), (9.99, "10 s"), (59.4, "59 s"), (59.6, "1 min 0 s"),
            (125.0, "2 min 5 s"), (3599.9, "1 h 0 min"), (7300.0, "2 h 1 min"),
        ],
    )  # fmt: skip
    def test_times(self, clock, capsys, seconds, text):
        shown = progress.Progress(n_folds=1, n_Cs=1, verbose=1)
        clock.now += seconds
        shown.tell_refit(1.0, 3, 1e-5)
        assert capsys.readouterr().out.rstrip().endswith(f"| {text}")

    def test_lines_of_a_sweep(self, noisy, capsys):
        model = FastSoftmaxCV(cv=3, verbose=1, n_jobs=1).fit(*noisy)
        *fits, end, refit = capsys.readouterr().out.splitlines()
        n_tried = int(np.isfinite(model.scores_).sum())
        assert len(fits) == n_tried < 30
        for n, line in enumerate(fits, start=1):
            assert re.match(rf"\[ ?{n}/30\] C .* fold [123] .* left$", line)
        assert end == f"the score has fallen: {10 - n_tried // 3} larger values of C are not tried"
        assert refit.startswith(f"all rows  C {model.C_:.3g}")


@pytest.mark.parametrize("C", [1e-3, 1e3])
def test_what_certificates_need_is_the_same_for_each_C(noisy, C):
    estimator = FastSoftmaxCV(n_jobs=1)
    X, given = checked_rows(estimator, *noisy, reset=True)
    rows = sweep_rows(estimator, X, new_labels(given), None)
    fold = fold_of(rows, 0, np.arange(80), np.arange(80, 120))
    for family in (rows.family, fold.family):
        shared, own = family.at(C).by.base(), SoftmaxObjective(family.at(C).problem).by.base()
        np.testing.assert_array_equal(shared.gradient, own.gradient)
        assert shared.square == own.square

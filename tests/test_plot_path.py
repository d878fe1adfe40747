"""Pictures of the choice of C, and all pictures of real estimators: pipelines, errors."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.datasets import load_iris
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from fastsoftmax import FastSoftmax, FastSoftmaxCV, fastsoftmax_path, plot

matplotlib = pytest.importorskip("matplotlib", reason="matplotlib is not installed")
from matplotlib.collections import LineCollection  # noqa: E402 (only where it is installed)
from matplotlib.figure import Figure  # noqa: E402

CS = [0.01, 0.1, 1.0, 10.0]
# Means 0.6, 0.8, 0.85, 0.7; the best has a standard error of 0.1 over the two folds.
SCORES = np.array([[0.5, 0.7, 0.75, 0.7], [0.7, 0.9, 0.95, 0.7]])


@pytest.fixture
def ax():
    return Figure(layout="constrained").subplots()


@pytest.fixture(scope="module")
def iris():
    return load_iris(return_X_y=True)


@pytest.fixture(scope="module")
def cv(iris):
    return FastSoftmaxCV(Cs=CS, scoring="neg_log_loss").fit(*iris)


@pytest.fixture(scope="module")
def clf(iris):
    return FastSoftmax().fit(*iris, eval_set=[iris])


def labels(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def display(**more):
    return plot.PathDisplay(CS, **{"scores": SCORES, "C": 1.0, **more})


class TestScores:
    def test_means_and_standard_errors(self, ax):
        shown = display().plot(ax)
        line, _, (bars,) = shown.errorbar_
        np.testing.assert_allclose(line.get_xdata(), CS)
        np.testing.assert_allclose(line.get_ydata(), [0.6, 0.8, 0.85, 0.7])
        ends = np.array([segment[:, 1] for segment in bars.get_segments()])
        np.testing.assert_allclose(np.diff(ends).ravel(), [0.2, 0.2, 0.2, 0.0], atol=1e-12)
        assert (ax.get_xscale(), ax.get_xlabel(), ax.get_ylabel()) == ("log", "C", "score")
        assert shown.ax_ is ax
        assert shown.figure_ is ax.figure

    def test_choices(self, ax):
        best, simplest = display().plot(ax).lines_
        assert (best.get_xdata()[0], simplest.get_xdata()[0]) == (1.0, 0.1)
        assert best.get_label() == "best: C = 1, chosen"
        assert simplest.get_label() == "one SE: C = 0.1"
        assert best.get_linestyle() != simplest.get_linestyle()

    def test_one_standard_error_was_chosen(self, ax):
        lines = display(C=0.1).plot(ax).lines_
        assert [line.get_label() for line in lines] == ["best: C = 1", "one SE: C = 0.1, chosen"]

    def test_both_are_the_same(self, ax):
        (line,) = display(scores=np.array([[0.1, 0.2, 0.9, 0.3]] * 2)).plot(ax).lines_
        assert line.get_label() == "best = one SE: C = 1, chosen"

    def test_something_else_was_chosen(self, ax):
        *_, line = display(C=10.0).plot(ax).lines_
        assert (line.get_xdata()[0], line.get_label()) == (10.0, "chosen: C = 10")

    def test_one_fold_has_no_standard_error(self, ax):
        (line,) = display(scores=SCORES[:1]).plot(ax).lines_
        assert line.get_label() == "best: C = 1, chosen"
        assert "one fold" in labels(ax)
        ax.figure.canvas.draw()

    def test_one_C(self, ax):
        plot.PathDisplay([2.0], scores=[[0.5], [0.7]], C=2.0).plot(ax)
        low, high = ax.get_xlim()
        assert 0.0 < low < 2.0 < high
        ax.figure.canvas.draw()

    def test_scores_that_are_no_numbers(self, ax):
        scores = SCORES.copy()
        scores[0, 3] = np.nan
        line = display(scores=scores).plot(ax).errorbar_[0]
        np.testing.assert_array_equal(np.isnan(line.get_ydata()), [False] * 3 + [True])
        ax.figure.canvas.draw()

    @pytest.mark.parametrize(
        ("scoring", "negate", "name"),
        [
            (None, False, "accuracy"),
            ("neg_log_loss", False, "negative log loss"),
            ("neg_log_loss", True, "log loss"),
            ("f1_macro", True, "negative f1 macro"),
            (lambda *_: 1.0, False, "score"),
        ],
    )
    def test_names_of_scores(self, ax, scoring, negate, name):
        model = SimpleNamespace(
            Cs_=np.array(CS), scores_=SCORES, coefs_paths_=np.zeros((2, 4, 1, 1)), C_=1.0,
            classes_=np.arange(2), scoring=scoring,
        )  # fmt: skip
        sign = -1.0 if negate else 1.0
        assert plot.path(model, ax, negate_score=negate).get_ylabel() == name
        np.testing.assert_allclose(ax.lines[0].get_ydata(), sign * SCORES.mean(axis=0))
        other = plot.path(model, Figure().subplots(), score_name="mine")
        assert other.get_ylabel() == "mine"

    def test_fitted(self, cv, ax):
        assert plot.path(cv, ax, negate_score=True) is ax
        np.testing.assert_allclose(ax.lines[0].get_ydata(), -cv.scores_.mean(axis=0))
        assert any(label.endswith(", chosen") for label in labels(ax))


class TestCoefficients:
    def test_mean_of_the_folds(self, cv, ax):
        shown = plot.PathDisplay.from_estimator(cv, kind="coefficients", ax=ax)
        lines, chosen = shown.lines_
        segments = np.array(lines.get_segments())
        assert segments.shape == (12, 4, 2)  # 3 classes, 4 features; 4 Cs
        means = cv.coefs_paths_.mean(axis=0)
        np.testing.assert_allclose(
            segments[:, :, 1], means.transpose(2, 1, 0).reshape(12, 4), rtol=1e-6
        )
        colours = lines.get_colors()
        np.testing.assert_array_equal(colours[:3], colours[3:6])  # one for each class
        assert len(np.unique(colours, axis=0)) == 3
        assert chosen.get_xdata()[0] == cv.C_
        assert labels(ax)[:3] == ["0", "1", "2"]
        low, high = ax.get_ylim()
        assert low < means.min() < means.max() < high

    def test_of_fastsoftmax_path(self, iris, ax):
        path = fastsoftmax_path(*iris, Cs=CS)
        plot.path(path, ax, kind="coefficients")
        (lines,) = [part for part in ax.collections if isinstance(part, LineCollection)]
        assert len(lines.get_segments()) == 12
        with pytest.raises(ValueError, match="there are no scores to draw"):
            plot.path(path, ax)

    def test_two_classes(self, iris, ax):
        X, y = iris
        names = np.array(["a", "b", "c"])[y]
        model = FastSoftmaxCV(Cs=CS).fit(X[y < 2], names[y < 2])
        plot.path(model, ax, kind="coefficients")
        assert labels(ax)[0] == "b"

    def test_many(self, ax):
        coefs = np.random.default_rng(0).normal(size=(4, 26, 100))
        (lines,) = display(coefs=coefs, C=None).plot(ax, kind="coefficients").lines_
        drawn = np.array(lines.get_segments())[:, :, 1]
        assert len(drawn) == 1000
        assert np.abs(drawn).max() == np.abs(coefs).max()
        assert ax.get_legend() is None
        assert ax.get_ylabel() == "coefficient (1000 of 2600)"

    def test_zeros(self, ax):
        display(coefs=np.zeros((4, 1, 2))).plot(ax, kind="coefficients")
        assert ax.get_ylim() == (-1.0, 1.0)


class TestErrors:
    def test_path(self, clf, cv, ax):
        with pytest.raises(NotFittedError):
            plot.path(FastSoftmaxCV(), ax)
        with pytest.raises(TypeError, match=r"a fitted FastSoftmaxCV .* not FastSoftmax$"):
            plot.path(clf, ax)
        with pytest.raises(TypeError, match="is wanted, not dict"):
            plot.path({}, ax)
        with pytest.raises(ValueError, match="kind must be 'scores' or 'coefficients', not 'C'"):
            plot.path(cv, ax, kind="C")
        with pytest.raises(ValueError, match=r"scores of shape \(2, 4\) do not fit Cs of shape"):
            plot.PathDisplay([1.0], scores=SCORES).plot(ax)
        with pytest.raises(ValueError, match="there are no coefficients to draw"):
            display().plot(ax, kind="coefficients")
        with pytest.raises(TypeError, match="ax must be one matplotlib Axes, got ndarray"):
            plot.path(cv, Figure().subplots(1, 2))

    @pytest.mark.parametrize("draw", [plot.history, plot.gap])
    def test_no_history(self, clf, cv, iris, ax, tmp_path, draw):
        with pytest.raises(NotFittedError):
            draw(FastSoftmax(), ax)
        clf.save(tmp_path / "model.npz")
        with pytest.raises(ValueError, match="has no history_: that comes from fit"):
            draw(FastSoftmax.load(tmp_path / "model.npz"), ax)
        with pytest.raises(ValueError, match="this LogisticRegression has no history_"):
            draw(LogisticRegression(max_iter=1000).fit(*iris), ax)
        without = FastSoftmaxCV(Cs=CS, cv=2, refit=False).fit(*iris)
        with pytest.raises(
            TypeError, match=r"of a FastSoftmaxCV without refit there is plot\.path"
        ):
            draw(without, ax)
        with pytest.raises(TypeError, match="is wanted, not FastSoftmax"):
            draw(FastSoftmax, ax)
        with pytest.raises(TypeError, match="is wanted, not list"):
            draw([1.0], ax)

    def test_weights(self, clf, ax):
        with pytest.raises(NotFittedError):
            plot.weights(FastSoftmax(), (2, 2), ax=ax)
        with pytest.raises(ValueError, match="rows of 4 pixels do not fit 3 x 2 = 6"):
            plot.weights(clf, (3, 2), ax=ax)
        with pytest.raises(TypeError, match="is wanted, not int"):
            plot.weights(3, ax=ax)

    def test_weights_of_a_pipeline(self, iris, ax):
        pipe = make_pipeline(StandardScaler(), FastSoftmax()).fit(*iris)
        with pytest.raises(TypeError, match=r"of a pipeline pass the last step, clf\[-1\]"):
            plot.weights(pipe, (2, 2), ax=ax)
        assert len(plot.weights(pipe[-1], (2, 2), ax=ax.figure.subplots(1, 3))) == 3


class TestFitted:
    def test_sweep(self, cv, ax):
        assert plot.history(cv, ax).get_xlabel() == "iteration"
        np.testing.assert_array_equal(ax.lines[0].get_ydata(), cv.history_["loss"])
        shown = plot.gap(cv, Figure().subplots())
        np.testing.assert_array_equal(shown.lines[0].get_ydata(), cv.history_["gap"])

    def test_pipelines(self, iris, ax):
        pipe = make_pipeline(StandardScaler(), FastSoftmax()).fit(*iris)
        plot.gap(pipe, ax)
        assert ax.lines[1].get_label() == "tol = 0.0001"
        np.testing.assert_array_equal(ax.lines[0].get_ydata(), pipe[-1].history_["gap"])
        assert plot.history(pipe, Figure().subplots()).get_xlabel() == "iteration"
        cv = make_pipeline(StandardScaler(), FastSoftmaxCV(Cs=CS)).fit(*iris)
        assert plot.path(cv, Figure().subplots()).get_ylabel() == "accuracy"
        with pytest.raises(NotFittedError):
            plot.history(make_pipeline(FastSoftmax()), ax)

    @pytest.mark.parametrize("solver", ["sgd", "lbfgs", "newton-cholesky"])
    def test_displays(self, iris, ax, solver):
        clf = FastSoftmax(solver=solver, max_iter=50, tol=0.1).fit(*iris, eval_set=[iris])
        shown = plot.HistoryDisplay.from_estimator(clf, x="seconds", ax=ax)
        assert shown.ax_ is ax
        assert shown.figure_ is ax.figure
        assert shown.lines_ == list(ax.lines)
        np.testing.assert_allclose(shown.lines_[0].get_xdata(), np.cumsum(clf.history_["seconds"]))
        if solver != "sgd":
            gaps = plot.GapDisplay.from_estimator(clf, x="seconds", ax=Figure().subplots())
            assert gaps.line_.get_ydata()[-1] == clf.gap_
            assert gaps.tol_line_.get_ydata()[0] == 0.1

    def test_without_a_penalty_there_is_no_gap(self, ax):
        X, y = np.array([[0.0], [1.0], [2.0], [3.0]]), [0, 1, 0, 1]
        with pytest.raises(ValueError, match="C=inf"):
            plot.gap(FastSoftmax(C=np.inf).fit(X, y), ax)

    def test_partial_fit(self, iris, ax):
        clf = FastSoftmax().partial_fit(*iris, classes=[0, 1, 2])
        assert plot.history(clf, ax).get_xlabel() == "call of partial_fit"
        with pytest.raises(ValueError, match="nor does partial_fit"):
            plot.gap(clf, ax)

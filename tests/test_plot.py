"""Pictures: what is drawn into given axes, from small objects that stand for a fitted estimator."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import sparse

import fastsoftmax
from fastsoftmax import plot

matplotlib = pytest.importorskip("matplotlib", reason="matplotlib is not installed")
from matplotlib.colors import to_rgba  # noqa: E402 (only where it is installed)
from matplotlib.figure import Figure  # noqa: E402


@pytest.fixture
def figure():
    return Figure(layout="constrained")


@pytest.fixture
def pyplot(monkeypatch):
    """Pyplot on a backend without windows, its figures closed afterwards."""
    from matplotlib import pyplot

    before = matplotlib.get_backend()
    pyplot.switch_backend("agg")
    yield pyplot
    pyplot.close("all")
    pyplot.switch_backend(before)


def fitted(n_epochs=5, solver="sgd", n_sets=1, **more):
    steps = np.arange(1, n_epochs + 1)
    history = {
        "loss": list(2.0 / steps),
        "accuracy": list(1.0 - 0.5 / steps),
        "gap": [None] * n_epochs if solver == "sgd" else list(10.0 ** -steps.astype(float)),
        "seconds": [0.5] * n_epochs,
        "eval_accuracy": [(0.6,) * n_sets for _ in steps],
    }
    return SimpleNamespace(solver=solver, history_=history, tol=1e-4, **more)


def texts(axes):
    return [axis.get_title() for axis in axes]


def test_nothing_global_is_touched(figure, pyplot):
    before = dict(matplotlib.rcParams)
    plot.history(fitted(), figure.subplots())
    plot.images(np.zeros((2, 4)), ax=Figure().subplots(1, 2))
    assert dict(matplotlib.rcParams) == before
    assert pyplot.get_fignums() == []


def test_import_needs_no_matplotlib():
    code = (
        "import sys; sys.modules['matplotlib'] = None\n"
        "from fastsoftmax import plot\n"
        "try: plot.history({'loss': [1.0], 'accuracy': [0.5]})\n"
        "except ImportError as error: print(error)"
    )
    path = os.pathsep.join((str(Path(fastsoftmax.__file__).parents[1]), *sys.path))
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert "pip install matplotlib" in done.stdout


class TestHistory:
    def test_textbook_look(self, figure):
        model = fitted()
        ax = figure.subplots()
        assert plot.history(model, ax) is ax
        loss, train, test = ax.lines
        assert [line.get_linestyle() for line in ax.lines] == ["-", "--", "-."]
        colours = [to_rgba(line.get_color()) for line in ax.lines]
        assert colours == [to_rgba(name) for name in ("#0072B2", "#D55E00", "#009E73")]
        labels = [text.get_text() for text in ax.get_legend().get_texts()]
        assert labels == ["train loss", "train accuracy", "test accuracy"]
        np.testing.assert_array_equal(loss.get_xdata(), [1, 2, 3, 4, 5])
        np.testing.assert_array_equal(loss.get_ydata(), model.history_["loss"])
        np.testing.assert_array_equal(train.get_ydata(), model.history_["accuracy"])
        np.testing.assert_array_equal(test.get_ydata(), [0.6] * 5)
        assert ax.get_xlim() == (1.0, 5.0)
        assert ax.get_ylim() == pytest.approx((0.0, 2.1))
        assert ax.get_xlabel() == "epoch"
        assert ax.xaxis.get_gridlines()[0].get_visible()

    def test_losses_below_one(self, figure):
        history = {"loss": [0.7, 0.5], "accuracy": [0.7, 0.8], "eval_accuracy": [(), ()]}
        ax = plot.history(history, figure.subplots())
        assert ax.get_ylim() == (0.0, 1.0)
        assert [line.get_label() for line in ax.lines] == ["train loss", "train accuracy"]

    def test_one_epoch_is_seen(self, figure):
        ax = plot.history(fitted(1), figure.subplots())
        assert ax.get_xlim() == (0.5, 1.5)
        assert {line.get_marker() for line in ax.lines} == {"o"}

    def test_iterations(self, figure):
        assert plot.history(fitted(solver="lbfgs"), figure.subplots()).get_xlabel() == "iteration"

    def test_diverged(self, figure):
        history = {"loss": [1.5, np.nan, np.inf], "accuracy": [0.7, 0.1, 0.1]}
        assert plot.history(history, figure.subplots()).get_ylim() == pytest.approx((0.0, 1.575))
        figure.canvas.draw()

    def test_several_sets(self, figure):
        lines = plot.history(fitted(n_sets=2), figure.subplots()).lines
        assert [line.get_label() for line in lines[2:]] == ["eval 1 accuracy", "eval 2 accuracy"]
        assert lines[2].get_linestyle() != lines[3].get_linestyle()
        ax = plot.history(fitted(n_sets=2), Figure().subplots(), eval_names=["valid", "test"])
        assert [line.get_label() for line in ax.lines[2:]] == ["valid accuracy", "test accuracy"]
        with pytest.raises(ValueError, match="1 names for 2 evaluation sets"):
            plot.history(fitted(n_sets=2), Figure().subplots(), eval_names=["test"])

    def test_seconds(self, figure):
        ax = plot.history(fitted(), figure.subplots(), x="seconds")
        np.testing.assert_allclose(ax.lines[2].get_xdata(), [0.5, 1.0, 1.5, 2.0, 2.5])
        assert (ax.get_xlim(), ax.get_xlabel()) == ((0.0, 2.5), "seconds")
        with pytest.raises(ValueError, match="x must be 'iteration' or 'seconds', not 'time'"):
            plot.history(fitted(), ax, x="time")
        with pytest.raises(ValueError, match="this one holds none"):
            plot.history({"loss": [1.0]}, ax, x="seconds")

    def test_chosen_curves(self, figure):
        model = fitted()
        model.history_["eval_loss"] = [(0.5,)] * 5
        ax = plot.history(model, figure.subplots(), curves=["eval_loss", "loss"])
        assert [line.get_label() for line in ax.lines] == ["test loss", "train loss"]
        assert ax.get_ylabel() == "loss (nats)"
        with pytest.raises(ValueError, match="curves must name some of"):
            plot.history(model, ax, curves=["losses"])
        with pytest.raises(ValueError, match="curves must name some of"):
            plot.history(model, ax, curves=[])

    def test_no_eval_set(self, figure):
        model = fitted(n_sets=0)
        assert len(plot.history(model, figure.subplots()).lines) == 2
        with pytest.raises(ValueError, match="curves names 'eval_accuracy', but the fit had no"):
            plot.history(model, Figure().subplots(), curves=["eval_accuracy"])
        with pytest.raises(ValueError, match=r"eval_names is .* but the fit had no eval_set"):
            plot.history(model, Figure().subplots(), eval_names=["test"])
        with pytest.raises(TypeError, match="eval_names must be a sequence of names"):
            plot.history(fitted(), Figure().subplots(), eval_names="test")

    def test_evaluated_in_some_steps_only(self, figure):
        history = {"loss": [0.7] * 3, "accuracy": [0.8] * 3, "eval_accuracy": [(), (0.5,), ()]}
        line = plot.history(history, figure.subplots()).lines[2]
        np.testing.assert_array_equal(line.get_ydata(), [np.nan, 0.5, np.nan])
        assert line.get_marker() == "o"

    def test_a_wild_first_epoch_leaves_room_for_the_rest(self, figure):
        history = {"loss": [1e4, 0.9, 0.8], "accuracy": [0.1, 0.7, 0.8]}
        assert plot.history(history, figure.subplots()).get_ylim() == pytest.approx((0.0, 5.25))
        ax = plot.history(history, Figure().subplots(), curves=["loss"])
        assert ax.get_ylim()[1] == pytest.approx(1.05e4)

    def test_new_figure(self, pyplot):
        ax = plot.history(fitted())
        assert ax.figure.number in pyplot.get_fignums()

    def test_bad_values(self, figure):
        with pytest.raises(ValueError, match="no epoch to draw"):
            plot.history({}, figure.subplots())
        with pytest.raises(TypeError, match="fitted FastSoftmax or its history_"):
            plot.history([1.0, 2.0], figure.subplots())


class TestGap:
    def test_by_iteration(self, figure):
        ax = plot.gap(fitted(solver="lbfgs"), figure.subplots())
        curve, tol = ax.lines
        np.testing.assert_allclose(curve.get_ydata(), [1e-1, 1e-2, 1e-3, 1e-4, 1e-5])
        assert tol.get_label() == "tol = 0.0001"
        assert ax.get_yscale() == "log"
        assert ax.get_xlabel() == "iteration"

    def test_by_seconds(self, figure):
        ax = plot.gap(fitted(solver="lbfgs").history_, figure.subplots(), x="seconds")
        (curve,) = ax.lines
        np.testing.assert_allclose(curve.get_xdata(), [0.5, 1.0, 1.5, 2.0, 2.5])
        assert ax.get_xlim()[0] == 0.0

    def test_what_a_log_scale_cannot_show_is_left_out(self, figure):
        (curve,) = plot.gap({"gap": [np.inf, None, 1e-3, 0.0]}, figure.subplots()).lines
        assert (curve.get_xdata().tolist(), curve.get_ydata().tolist()) == ([3.0], [1e-3])

    def test_bad_values(self, figure):
        with pytest.raises(ValueError, match="solver='sgd' records none"):
            plot.gap(fitted(), figure.subplots())
        with pytest.raises(ValueError, match="x must be 'iteration' or 'seconds', not 'time'"):
            plot.gap(fitted(solver="lbfgs"), figure.subplots(), x="time")


class TestImages:
    @pytest.mark.parametrize("flat", [True, False])
    def test_pixels_and_titles(self, figure, rng, flat):
        X = rng.integers(0, 256, (5, 3, 4), dtype=np.uint8)
        grid = figure.subplots(2, 3)
        axes = plot.images(X.reshape(5, 12) if flat else X, list("abcde"), shape=(3, 4), ax=grid)
        assert list(axes) == list(grid.ravel()[:5])
        assert texts(axes) == list("abcde")
        for axis, image in zip(axes, X, strict=True):
            np.testing.assert_array_equal(axis.images[0].get_array(), image)
            assert axis.images[0].get_clim() == (X.min(), X.max())
        assert not grid[1, 2].axison

    def test_pairs_of_labels(self, figure, rng):
        axes = plot.images(
            rng.random((3, 4)), zip([0, 1, 1], np.array([0, 0, 1]), strict=True),
            ax=figure.subplots(1, 3),
        )  # fmt: skip
        assert texts(axes) == ["0\n0", "1\n\N{BALLOT X} 0", "1\n1"]
        assert len({axis.title.get_color() for axis in axes}) == 2

    def test_titles_of_two_lines(self, figure):
        axes = plot.images(np.zeros((3, 4)), ["a\na", "a\nb", "a"], ax=figure.subplots(1, 3))
        assert texts(axes) == ["a\na", "a\nb", "a"]
        assert [axis.spines["left"].get_visible() for axis in axes] == [False, True, False]

    def test_labels_as_titles(self, figure):
        axes = plot.images(np.zeros((2, 4)), np.array([3, 5]), ax=figure.subplots(1, 2))
        assert texts(axes) == ["3", "5"]

    def test_sparse(self, figure, rng):
        X = rng.random((2, 4))
        axes = plot.images(sparse.csr_matrix(X), ax=figure.subplots(1, 2))
        np.testing.assert_array_equal(axes[1].images[0].get_array(), X[1].reshape(2, 2))

    def test_one_axes(self, figure):
        axis = figure.subplots()
        assert list(plot.images(np.eye(2)[None], ax=axis)) == [axis]

    @pytest.mark.parametrize(("n", "rows", "columns"), [(1, 1, 1), (8, 1, 8), (9, 2, 8)])
    def test_new_figure(self, pyplot, n, rows, columns):
        axes = plot.images(np.zeros((n, 4)))
        grid = axes[0].get_gridspec()
        assert (len(axes), grid.nrows, grid.ncols) == (n, rows, columns)

    def test_none(self, pyplot):
        assert plot.images(np.zeros((0, 4))).shape == (0,)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"X": np.zeros(4)}, "must have shape"),
            ({"X": np.zeros((3, 5))}, "5 pixels make no square"),
            ({"X": np.zeros((3, 4)), "shape": (3, 2)}, "4 pixels do not fit 3 x 2"),
            ({"X": np.zeros((3, 4)), "shape": 2}, "shape must be .height, width., got 2"),
            ({"X": np.zeros((3, 4)), "shape": (4, 0)}, "each at least 1"),
            ({"X": np.zeros((3, 2, 2)), "shape": (1, 4)}, "do not have shape"),
            ({"X": np.zeros((1, 4)), "titles": [["a", "c"] * 2]}, "or pairs"),
            ({"X": np.zeros((3, 4)), "titles": ["a"]}, "1 titles for 3 images"),
            ({"X": np.zeros((5, 4))}, "4 axes for 5 images"),
            ({"X": np.zeros((3, 4)), "n_columns": 0, "ax": None}, "n_columns must be"),
        ],
    )
    def test_bad_values(self, figure, arguments, message):
        with pytest.raises(ValueError, match=message):
            plot.images(**{"ax": figure.subplots(2, 2), **arguments})

    def test_what_is_no_number(self, figure):
        with pytest.raises(TypeError, match="images must hold real numbers"):
            plot.images([["a"]], ax=figure.subplots())

    def test_the_figure_fits_the_shape_of_images(self, pyplot):
        wide, tall = (plot.images(np.zeros((1, 64)), shape=s)[0] for s in [(4, 16), (16, 4)])
        sizes = [axis.figure.get_size_inches() for axis in (wide, tall)]
        assert sizes[0][0] > 2 * sizes[0][1]
        assert sizes[1][1] > 2 * sizes[1][0]


class TestPredictions:
    def test_mistakes_are_marked_in_three_ways(self, figure, rng):
        axes = plot.predictions(
            rng.random((3, 4)), [0, 1, 1], np.array([0, 0, 1]), names=("cat", "dog"),
            ax=figure.subplots(1, 3),
        )  # fmt: skip
        assert texts(axes) == ["cat\ncat", "dog\n\N{BALLOT X} cat", "dog\ndog"]
        colours = {axis.title.get_color() for axis in axes}
        assert len(colours) == 2
        for axis, wrong in zip(axes, (False, True, False), strict=True):
            assert all(spine.get_visible() is wrong for spine in axis.spines.values())
        figure.canvas.draw()  # a glyph that the font lacks would warn

    @pytest.mark.parametrize("n", [1, 2, 3, 4, 8])
    def test_a_new_figure_says_which_line_is_the_truth(self, pyplot, n):
        axes = plot.predictions(np.zeros((n, 4)), [0] * n, [0] * n)
        figure = axes[0].figure
        figure.canvas.draw()
        key = figure.get_supxlabel()
        assert key.replace("\n", ", ") == "first line: true label, second line: predicted label"
        box = figure._supxlabel.get_window_extent()
        assert box.x0 >= 0 and box.x1 <= figure.bbox.width

    def test_labels_that_are_strings(self, figure):
        axes = plot.predictions(np.zeros((1, 4)), ["a"], ["b"], ax=figure.subplots())
        assert texts(axes) == ["a\n\N{BALLOT X} b"]

    def test_lengths(self, figure):
        with pytest.raises(ValueError, match="y_true has 2 labels and y_pred 1 for 2 images"):
            plot.predictions(np.zeros((2, 4)), [0, 1], [0], ax=figure.subplots(1, 2))


class TestWeights:
    def test_templates(self, figure, rng):
        coef = rng.standard_normal((3, 6))
        model = SimpleNamespace(coef_=coef, classes_=np.array(["a", "b", "c"]))
        axes = plot.weights(model, (2, 3), ax=figure.subplots(1, 3))
        assert texts(axes) == ["a", "b", "c"]
        limit = np.abs(coef).max()
        for axis, row in zip(axes, coef, strict=True):
            np.testing.assert_array_equal(axis.images[0].get_array(), row.reshape(2, 3))
            assert axis.images[0].get_clim() == (-limit, limit)
        assert len(figure.axes) == 4  # and the colour bar
        assert figure.axes[-1].get_ylim() == pytest.approx((-limit, limit))

    def test_two_classes(self, figure):
        model = SimpleNamespace(coef_=np.zeros((1, 4)), classes_=np.array([7, 8]))
        axes = plot.weights(model, names={8: "eight"}, colorbar=False, ax=figure.subplots())
        assert texts(axes) == ["eight"]
        assert axes[0].images[0].get_clim() == (-1.0, 1.0)
        assert len(figure.axes) == 1

    def test_new_figure(self, pyplot):
        model = SimpleNamespace(coef_=np.eye(10, 784), classes_=np.arange(10))
        axes = plot.weights(model)
        assert axes[0].get_gridspec().ncols == 5
        axes[0].figure.canvas.draw()


@pytest.fixture
def rng():
    return np.random.default_rng(4)

"""LivePlot: what it draws and when, in files, windows and (a stand-in of) a notebook."""

from __future__ import annotations

import os
import pickle
import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from fastsoftmax import FastSoftmax
from fastsoftmax.plot import LivePlot, _live

matplotlib = pytest.importorskip("matplotlib", reason="matplotlib is not installed")
from matplotlib.figure import Figure  # noqa: E402 (only where it is installed)

PNG = b"\x89PNG"


@pytest.fixture
def pyplot():
    """Pyplot on a backend without windows, its figures closed afterwards."""
    from matplotlib import pyplot

    before = matplotlib.get_backend()
    pyplot.switch_backend("agg")
    yield pyplot
    pyplot.close("all")
    pyplot.switch_backend(before)


@pytest.fixture
def clock(monkeypatch):
    """A clock that goes when it is told to."""
    now = SimpleNamespace(seconds=0.0)
    monkeypatch.setattr(_live, "_clock", lambda: now.seconds)
    return now


@pytest.fixture
def pictures(monkeypatch):
    """For each picture that a file would get, the number of points of its first line."""
    counts = []
    monkeypatch.setattr(
        _live,
        "write_file",
        lambda path, figure: counts.append(len(figure.axes[0].lines[0].get_xdata())),
    )
    return counts


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(90, 4))
    return X, X[:, :3].argmax(axis=1)


def state(iteration, n_iter=10, solver="sgd", n_sets=1, loss=None):
    return SimpleNamespace(
        solver=solver,
        iteration=iteration,
        n_iter=n_iter,
        loss=2.0 / iteration if loss is None else loss,
        accuracy=1.0 - 0.5 / iteration,
        eval_loss=(0.8,) * n_sets,
        eval_accuracy=(0.6,) * n_sets,
    )


def watch(live, n, **kwargs):
    for iteration in range(1, n + 1):
        assert live(state(iteration, **kwargs)) is None
    return live


class TestPicture:
    def test_textbook_look(self, tmp_path):
        live = watch(LivePlot(tmp_path / "a.png"), 3, n_sets=1)
        lines = live.ax_.lines
        assert [line.get_linestyle() for line in lines] == ["-", "--", "-."]
        texts = [text.get_text() for text in live.ax_.get_legend().get_texts()]
        assert texts == ["train loss", "train accuracy", "test accuracy"]
        assert live.ax_.get_xlim() == (1.0, 10.0)  # all epochs there will be
        assert live.ax_.get_xlabel() == "epoch"
        live.on_fit_end()
        assert live.ax_.get_xlim() == (1.0, 3.0)  # those there were
        np.testing.assert_allclose(lines[0].get_ydata(), [2.0, 1.0, 2.0 / 3.0])
        assert live.ax_.get_ylim() == pytest.approx((0.0, 2.1))

    def test_full_batch_axis_grows(self, tmp_path):
        live = LivePlot(tmp_path / "a.png", seconds=0)
        ends = []
        for iteration in range(1, 18):
            live(state(iteration, 1000, "lbfgs"))
            ends.append(live.ax_.get_xlim()[1])
        assert sorted(set(ends)) == [10.0, 16.0, 32.0]
        assert live.ax_.get_xlabel() == "iteration"
        assert {line.get_marker() for line in live.ax_.lines} == {"None"}

    def test_limits_that_are_given(self, tmp_path):
        live = watch(LivePlot(tmp_path / "a.png", xlim=(0, 20), ylim=(0.3, 0.9)), 10)
        assert (live.ax_.get_xlim(), live.ax_.get_ylim()) == ((0.0, 20.0), (0.3, 0.9))

    def test_without_eval_set(self, tmp_path):
        live = watch(LivePlot(tmp_path / "a.png"), 10, n_sets=0)
        assert len(live.ax_.lines) == 2

    def test_chosen_curves_and_names(self, tmp_path):
        live = LivePlot(tmp_path / "a.png", curves=["eval_loss"], eval_names=["a", "b"])
        watch(live, 10, n_sets=2)
        assert [line.get_label() for line in live.ax_.lines] == ["a loss", "b loss"]

    def test_diverging(self, tmp_path):
        live = LivePlot(tmp_path / "a.png", seconds=0)
        for iteration, loss in enumerate([2.0, 1e9, np.inf, np.nan], 1):
            live(state(iteration, 4, loss=loss))
        assert np.isfinite(live.ax_.get_ylim()).all()


class TestWhen:
    def test_every_iteration(self, tmp_path, pictures):
        watch(LivePlot(tmp_path / "a.png", seconds=0), 10)
        assert pictures == list(range(1, 11))

    def test_every_fourth_the_first_and_the_last(self, tmp_path, pictures):
        watch(LivePlot(tmp_path / "a.png", seconds=0, every=4), 10)
        assert pictures == [1, 4, 8, 10]

    def test_least_seconds(self, tmp_path, pictures, clock):
        live = LivePlot(tmp_path / "a.png", seconds=1.0)
        for iteration in range(1, 11):
            clock.seconds += 0.4
            live(state(iteration))
        assert pictures == [1, 4, 7, 10]

    def test_drawing_takes_a_tenth_of_the_time_at_most(self, tmp_path, clock, monkeypatch):
        shown = []

        def slow(self, figure):
            clock.seconds += 1.0
            shown.append(clock.seconds)

        monkeypatch.setattr(_live, "write_file", slow)
        live = LivePlot(tmp_path / "a.png")
        for iteration in range(1, 301):
            clock.seconds += 0.1
            live(state(iteration, 300))
        assert np.diff(shown).min() >= 10.0 or len(shown) == 2
        assert len(shown) in (4, 5)

    def test_the_last_state_of_a_fit_that_ends_early(self, tmp_path, pictures, clock):
        live = LivePlot(tmp_path / "a.png")
        with live as same:
            watch(same, 7)
            assert pictures == [1]
        assert pictures == [1, 7]
        live.on_fit_end()
        live.close()
        assert pictures == [1, 7]

    def test_the_fit_says_that_it_ended_after_its_last_iteration(self, tmp_path, pictures, clock):
        live = watch(LivePlot(tmp_path / "a.png"), 10)
        live.on_fit_end()
        assert pictures == [1, 10]

    def test_a_second_fit_begins_anew(self, tmp_path, pictures, clock):
        live = watch(LivePlot(tmp_path / "a.png"), 5)
        first = live.ax_
        watch(live, 3)  # draws the end of the first fit too, as nobody said that it ended
        live.on_fit_end()
        assert pictures == [1, 5, 1, 3]
        assert live.ax_ is not first

    def test_nothing_to_draw(self, tmp_path, pictures):
        with LivePlot(tmp_path / "a.png"):
            pass
        assert pictures == []

    def test_an_error_is_raised_once(self, tmp_path):
        live = LivePlot(tmp_path / "a.png", curves=["eval_accuracy"])
        with pytest.raises(ValueError, match="had no eval_set"), live:
            watch(live, 2, n_sets=0)
        live.on_fit_end()


class TestFits:
    @pytest.mark.parametrize("solver", ["sgd", "lbfgs", "newton-cholesky"])
    def test_solvers(self, data, tmp_path, solver):
        file = tmp_path / "curve.png"
        live = LivePlot(file)
        clf = FastSoftmax(solver=solver, max_iter=30, tol=1e-2, random_state=0)
        clf.fit(*data, eval_set=[data], callbacks=[live])
        assert file.read_bytes()[:4] == PNG
        assert os.listdir(tmp_path) == ["curve.png"]
        for line, name in zip(live.ax_.lines, ["loss", "accuracy", "eval_accuracy"], strict=True):
            np.testing.assert_array_equal(line.get_ydata(), np.ravel(clf.history_[name]))

    def test_stopped_by_another_callback(self, data, tmp_path, pictures, clock):
        live = LivePlot(tmp_path / "a.png")
        clf = FastSoftmax(solver="sgd", max_iter=30)
        clf.fit(*data, callbacks=[live, lambda state: state.iteration == 6])
        assert pictures == [1, 6]

    def test_early_stopping(self, data, tmp_path):
        live = LivePlot(tmp_path / "a.png")
        FastSoftmax(early_stopping=True, C=10.0, random_state=0).fit(*data, callbacks=[live])
        assert [line.get_label() for line in live.ax_.lines][2:] == ["test accuracy"]

    def test_one_epoch(self, data, tmp_path):
        live = LivePlot(tmp_path / "a.png")
        FastSoftmax(solver="sgd", max_iter=1).fit(*data, callbacks=[live])
        assert {line.get_marker() for line in live.ax_.lines} == {"o"}
        assert live.ax_.get_xlim() == (0.5, 1.5)

    def test_partial_fit(self, data, tmp_path):
        clf = FastSoftmax(random_state=0)
        with LivePlot(tmp_path / "a.png", seconds=0) as live:
            for _ in range(4):
                live.update(clf.partial_fit(*data, classes=range(3)))
        np.testing.assert_array_equal(live.ax_.lines[0].get_ydata(), clf.history_["loss"])
        assert live.ax_.get_xlabel() == "call of partial_fit"
        with pytest.raises(ValueError, match="no epoch to draw"):
            live.update({})

    def test_pickle(self, tmp_path):
        live = watch(LivePlot(tmp_path / "a.png", every=2), 3)
        again = pickle.loads(pickle.dumps(live))
        assert (again.path, again.every) == (live.path, 2)
        watch(again, 10)
        assert len(again.ax_.lines) == 3


class TestFile:
    @pytest.mark.parametrize(("name", "start"), [("a.svg", b"<?xml"), ("a.PDF", b"%PDF")])
    def test_other_formats(self, tmp_path, name, start):
        watch(LivePlot(os.fspath(tmp_path / name)), 10)
        assert (tmp_path / name).read_bytes()[: len(start)] == start

    def test_nothing_is_left_of_a_picture_that_failed(self, tmp_path, monkeypatch):
        def fails(self, file, **options):
            file.write(b"half")
            raise OSError("disk full")

        monkeypatch.setattr(Figure, "savefig", fails)
        with pytest.raises(OSError, match="disk full"):
            watch(LivePlot(tmp_path / "a.png"), 1)
        assert os.listdir(tmp_path) == []

    def test_pyplot_knows_nothing_of_it(self, tmp_path, pyplot):
        before = dict(matplotlib.rcParams)
        watch(LivePlot(tmp_path / "a.png"), 10)
        assert pyplot.get_fignums() == []
        assert dict(matplotlib.rcParams) == before

    @pytest.mark.parametrize(
        ("arguments", "error", "message"),
        [
            ({"path": "nowhere/a.png"}, FileNotFoundError, "folder of path does not exist"),
            ({"path": "a"}, ValueError, "path must end in one of"),
            ({"path": "a.xyz"}, ValueError, "path must end in one of"),
            ({"every": 0}, ValueError, "every must be at least 1"),
            ({"every": 1.5}, TypeError, "every must be an integer"),
            ({"seconds": -1.0}, ValueError, "seconds must be at least 0"),
            ({"seconds": np.nan}, ValueError, "seconds must be at least 0"),
            ({"seconds": "1"}, TypeError, "seconds must be a number"),
            ({"curves": ["loss", "gap"]}, ValueError, "curves must name some of"),
            ({"xlim": 3}, ValueError, "xlim must be"),
            ({"ylim": (1, 1)}, ValueError, "ylim must be two different"),
            ({"ax": [1]}, TypeError, "ax must be one matplotlib Axes"),
        ],
    )
    def test_bad_values(self, tmp_path, monkeypatch, arguments, error, message):
        monkeypatch.chdir(tmp_path)
        with pytest.raises(error, match=message):
            LivePlot(**arguments)


class TestWindow:
    def test_no_place_to_draw(self, pyplot):
        with pytest.warns(UserWarning, match="Give it path="):
            live = watch(LivePlot(), 10)
        assert len(live.ax_.lines) == 3
        assert pyplot.get_fignums() == []

    def test_a_window(self, pyplot, monkeypatch):
        from matplotlib.backends.backend_agg import FigureCanvasAgg

        drawn = []
        monkeypatch.setattr(FigureCanvasAgg, "required_interactive_framework", "test")
        monkeypatch.setattr(FigureCanvasAgg, "flush_events", lambda self: drawn.append(self))
        monkeypatch.setattr("matplotlib.backend_bases.FigureManagerBase.show", lambda self: None)
        live = watch(LivePlot(seconds=0), 4)
        assert len(drawn) == 4
        assert pyplot.get_fignums() == [live.figure_.number]
        pyplot.close(live.figure_)  # as somebody may
        watch(live, 10)
        assert pyplot.get_fignums() != []  # the second fit has a window of its own
        live.close()
        assert pyplot.get_fignums() == []

    def test_axes_of_the_caller(self, pyplot):
        figure, (left, right) = pyplot.subplots(1, 2)
        left.set_title("kept")
        live = watch(LivePlot(ax=left), 10)
        assert live.ax_ is left
        assert live.figure_ is figure
        watch(live, 10)  # the lines of the first fit go
        assert len(left.lines) == 3
        assert left.get_title() == "kept"
        assert not right.lines

    def test_axes_of_a_subfigure(self, tmp_path):
        figure = Figure()
        live = LivePlot(tmp_path / "a.png", ax=figure.subfigures(1, 2)[0].subplots())
        watch(live, 10)
        assert live.figure_ is figure
        assert (tmp_path / "a.png").exists()


class Shell:
    """IPython's shell, as far as it is used: cells and their outputs."""

    def __init__(self):
        self.kernel, self.events, self.callbacks, self.outputs = object(), self, [], []

    def register(self, event, function):
        assert event == "post_run_cell"
        self.callbacks.append(function)

    def unregister(self, event, function):
        self.callbacks.remove(function)

    def end_cell(self):
        for function in list(self.callbacks):
            function(SimpleNamespace(success=True))

    def display(self, image, display_id):
        assert display_id is True
        self.outputs.append([image])
        return SimpleNamespace(update=self.outputs[-1].append)


@pytest.fixture
def shell(monkeypatch):
    """A notebook."""
    shell = Shell()
    ipython, display = ModuleType("IPython"), ModuleType("IPython.display")
    ipython.get_ipython = lambda: shell
    display.display, display.Image = shell.display, SimpleNamespace
    ipython.version_info = (9, 0, 0)  # matplotlib asks, in the first figure of a process
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    return shell


class TestNotebook:
    def test_one_output_in_place(self, pyplot, shell):
        watch(LivePlot(seconds=0), 4)
        (images,) = shell.outputs
        assert len(images) == 4
        assert {image.data[:4] for image in images} == {PNG}
        assert {image.format for image in images} == {"png"}
        width = int.from_bytes(images[0].data[16:20], "big")
        assert width == 2 * images[0].width  # sharp on screens with more dots
        shell.end_cell()
        assert len(images) == 5
        assert shell.callbacks == []
        assert pyplot.get_fignums() == []  # which the end of the cell would show again

    def test_the_end_is_drawn_once(self, shell, clock):
        live = watch(LivePlot(), 10)
        live.on_fit_end()
        shell.end_cell()
        assert [len(images) for images in shell.outputs] == [2]

    def test_each_fit_has_an_output(self, shell, clock):
        live = LivePlot()
        watch(live, 10)
        watch(live, 5)
        shell.end_cell()
        assert [len(images) for images in shell.outputs] == [2, 2]
        assert shell.callbacks == []

    def test_file_besides(self, shell, tmp_path):
        watch(LivePlot(tmp_path / "a.png"), 10)
        assert (tmp_path / "a.png").read_bytes() == shell.outputs[0][-1].data

    def test_axes_of_the_caller_are_not_shown_twice(self, pyplot, shell):
        _, ax = pyplot.subplots()
        watch(LivePlot(ax=ax), 10)
        assert pyplot.get_fignums() == []
        assert len(shell.outputs) == 1

    def test_a_terminal_is_no_notebook(self, shell, tmp_path):
        shell.kernel = None
        watch(LivePlot(tmp_path / "a.png"), 10)
        assert shell.outputs == []
        assert (tmp_path / "a.png").exists()

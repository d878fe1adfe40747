"""``python -m fastsoftmax demo``: softmax regression on Fashion-MNIST, with pictures."""

from __future__ import annotations

import argparse
import math
import os
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fastsoftmax.backend import how_to_get_kernels, resolve_backend
from fastsoftmax.datasets import FASHION_MNIST_LABELS, load_fashion_mnist, load_fashion_mnist_sample

if TYPE_CHECKING:
    from fastsoftmax.estimator import FastSoftmax
    from fastsoftmax.monitor import FitState

    Rows: TypeAlias = tuple[NDArray[np.float32], NDArray[np.int64]]

_DESCRIPTION = """\
Train softmax regression on Fashion-MNIST in a "watched run", and print the loss and the accuracies
of each epoch. Then make a fit to the optimum for comparison. Then draw three pictures:
training_curve.png, predictions.png and weights.png, all of the watched run.
"""
_EPILOG = """\
Without --data-home and --download, the demo looks for the files of Fashion-MNIST in the folder
$FASTSOFTMAX_DATA, or else in your cache. If there are none, it uses the 1,000 + 500 images inside
the package. Pictures need matplotlib (pip install matplotlib). Without matplotlib the demo trains,
draws nothing, and ends with exit code 0. Exit code 2 means that an option has a wrong value, or
that a file cannot be read or written.
"""
_N_PREDICTIONS = 32
_N_COLUMNS = 8


class CommandError(Exception):
    """A command cannot be carried out as given; its message is shown without a traceback."""


@contextmanager
def _as_command_error(*kinds: type[Exception]) -> Iterator[None]:
    """Turn errors of these kinds, which the user can correct, into one with the same message."""
    try:
        yield
    except kinds as error:
        raise CommandError(str(error) or type(error).__name__) from error


class Data(NamedTuple):
    """Images as float32 rows of pixels / 255, and their labels."""

    train: Rows
    test: Rows


class Run(NamedTuple):
    """One fit and its results."""

    label: str
    estimator: FastSoftmax
    seconds: float
    train_accuracy: float
    test_accuracy: float
    warning: str


def add_parser(commands: Any) -> None:
    """Add the command and its options to the subparsers."""
    parser = commands.add_parser(
        "demo",
        help="train on Fashion-MNIST, print each epoch, draw curve, predictions and templates",
        description=_DESCRIPTION,
        epilog=_EPILOG,
    )
    parser.set_defaults(run=run)
    data = parser.add_argument_group("data")
    _option(data, "--data-home", "DIR", Path, None, "folder of the official Fashion-MNIST files")
    data.add_argument(
        "--download", action="store_true", help="download the files that are missing (30 MB)"
    )
    fit = parser.add_argument_group("watched run")
    fit.add_argument(
        "--solver",
        choices=("sgd", "lbfgs", "auto"),
        default="sgd",
        help="sgd (the default): mini-batches, with a line for each epoch. lbfgs or auto: all rows "
        "in each iteration, with a line for each iteration; --epochs is then the largest number "
        "of iterations, and --batch-size, --learning-rate and --momentum have no effect. The "
        "second fit always uses auto",
    )
    whole = _number(int, lambda n: n >= 1, "a whole number, 1 or more")
    positive = _number(float, lambda value: 0.0 < value < math.inf, "a number above 0")
    fraction = _number(float, lambda value: 0.0 <= value < 1.0, "a number in [0, 1)")
    _option(fit, "--epochs", "N", whole, 10, "passes over the training images")
    _option(fit, "--batch-size", "N", whole, 256, "images in a mini-batch")
    _option(fit, "--learning-rate", "RATE", positive, 0.1, "size of a step")
    _option(fit, "--momentum", "M", fraction, 0.0, "in [0, 1)")
    both = parser.add_argument_group("both runs")
    seed = _number(int, lambda n: 0 <= n < 2**32, "a whole number below 2**32")
    n_jobs = _number(int, lambda n: n != 0, "a whole number other than 0")
    _option(both, "--seed", "N", seed, 0, "of the random numbers: start and order of the images")
    both.add_argument(
        "--backend",
        choices=("auto", "native", "numpy"),
        default="auto",
        help="native: the compiled kernels; numpy: slower, needs no compiler; auto (the default): "
        "native if the kernels are there",
    )
    _option(
        both, "--n-jobs", "N", n_jobs, None, "number of threads (default: all that are allowed)"
    )
    output = parser.add_argument_group("pictures")
    _option(output, "--output", "DIR", Path, Path("fastsoftmax-demo"), "folder for the pictures")
    output.add_argument("--no-plots", action="store_true", help="draw no pictures")


def run(args: argparse.Namespace) -> int:
    """Load, train, compare, draw."""
    with _as_command_error(ImportError), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # printed below in one line
        kernels = resolve_backend(args.backend)
    data = _load(args)
    drawing = not args.no_plots and _can_draw()
    if drawing:
        with _as_command_error(OSError):
            args.output.mkdir(parents=True, exist_ok=True)
    if kernels.__name__.endswith("reference"):
        how = "" if args.backend == "numpy" else f". {how_to_get_kernels()}"
        print(f"numpy computes. The compiled kernels are many times faster{how}")
    watched = _watched_run(args, data)
    print("\nto the optimum, with the default solver ...", flush=True)
    optimum = _fit("to the optimum", data, args, {}, solver="auto")
    _print_comparison(watched, optimum)
    if drawing:
        with _as_command_error(OSError):
            _draw(args.output, watched, data)
    return 0


def _load(args: argparse.Namespace) -> Data:
    try:
        train, test = (
            load_fashion_mnist(args.data_home, subset, download=args.download)
            for subset in ("train", "test")
        )
        source = "Fashion-MNIST"
    except FileNotFoundError as error:
        if args.data_home is not None or args.download or os.environ.get("FASTSOFTMAX_DATA"):
            raise CommandError(
                f"{error} Here download=True is --download, and without --data-home (and "
                "FASTSOFTMAX_DATA) the sample is used."
            ) from error
        train, test = (load_fashion_mnist_sample(subset) for subset in ("train", "test"))
        source = "the sample of Fashion-MNIST inside the package"
    except (ValueError, OSError) as error:
        raise CommandError(str(error)) from error
    for name, (_, labels), least in (("training", train, 2), ("test", test, 1)):
        n_classes = len(np.unique(labels))
        if n_classes < least:
            raise CommandError(f"the {name} files hold too few classes: {n_classes}")
    print(f"{source}: {len(train[1]):,} training and {len(test[1]):,} test images")
    if source != "Fashion-MNIST":
        print(
            "The full data has 60,000 and 10,000: add --download (30 MB), or --data-home DIR "
            "where you have it."
        )
    return Data(*((np.divide(pixels, 255.0, dtype=np.float32), y) for pixels, y in (train, test)))


def _watched_run(args: argparse.Namespace, data: Data) -> Run:
    sgd = args.solver == "sgd"
    unit = "epoch" if sgd else "iteration"
    label = f"{args.solver}, {args.epochs} {unit}{'s' * (args.epochs != 1)}"
    how = ""
    if sgd:
        how = f": batch size {args.batch_size}, learning rate {args.learning_rate:g}"
        how += f", momentum {args.momentum:g}" * (args.momentum > 0.0)
    print(f"\n{label}{how}", flush=True)
    names = ("solver", "batch_size", "learning_rate", "momentum")
    parameters = {name: getattr(args, name) for name in names}
    watch = {"eval_set": [data.test], "callbacks": [print_epoch]}
    return _fit(label, data, args, watch, max_iter=args.epochs, **parameters)


def _fit(
    label: str, data: Data, args: argparse.Namespace, watch: dict[str, Any], **parameters: Any
) -> Run:
    """Fit with the options of both runs and these parameters; `watch` is for `fit`."""
    from fastsoftmax.estimator import FastSoftmax

    estimator = FastSoftmax(
        random_state=args.seed, backend=args.backend, n_jobs=args.n_jobs, **parameters
    )
    with warnings.catch_warnings(record=True) as caught, _as_command_error(ValueError):
        warnings.simplefilter("always")
        start = time.perf_counter()
        estimator.fit(*data.train, **watch)
        seconds = time.perf_counter() - start
    train, test = (float(estimator.score(*rows)) for rows in data)
    warning = "; ".join(str(warning.message) for warning in caught)
    return Run(label, estimator, seconds, train, test, warning)


def print_epoch(state: FitState) -> None:
    """Print a line for this epoch or iteration, the first one under a heading."""
    if state.iteration == 1:
        unit = "epoch" if state.solver == "sgd" else "iteration"
        print(
            f"{unit:>9}  {'train loss':>10}  {'train accuracy':>14}  {'test accuracy':>13}"
            f"  {'rows/s':>12}"
        )
    print(
        f"{state.iteration:>9}  {state.loss:>10.4f}  {state.accuracy:>14.4f}"
        f"  {state.eval_accuracy[0]:>13.4f}  {state.rows_per_second:>12,.0f}",
        flush=True,
    )


def _print_comparison(watched: Run, optimum: Run) -> None:
    # Each certificate gives a lower bound on the minimum, which is the same for both runs.
    runs = (watched, optimum)
    lower_bound = max(r.estimator.objective_ * (1.0 - r.estimator.gap_) for r in runs)
    width = max(len(run.label) for run in runs)
    print(
        f"\n{'':<{width}}  objective  gap at most  iterations  seconds  train accuracy  "
        "test accuracy"
    )
    for run in runs:
        fitted = run.estimator
        gap = 1.0 - lower_bound / fitted.objective_
        print(
            f"{run.label:<{width}}  {fitted.objective_:>9.6f}  {gap:>11.1e}"
            f"  {int(fitted.n_iter_[0]):>10}  {run.seconds:>7.2f}  {run.train_accuracy:>14.4f}"
            f"  {run.test_accuracy:>13.4f}"
        )
    print("gap: the largest possible distance from the minimum, as a share of the objective")
    if not optimum.estimator.converged_:
        print(f"the second fit did not reach its tolerance: {optimum.warning}")
    print(flush=True)


def _can_draw() -> bool:
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        print(
            f"no pictures: matplotlib cannot be imported ({error}); "
            "get it with pip install matplotlib"
        )
        return False
    return True


def _draw(folder: Path, run: Run, data: Data) -> None:
    """Write the three pictures without pyplot, so that no display is needed."""
    from matplotlib.figure import Figure

    from fastsoftmax import plot
    from fastsoftmax.plot._shared import write_figure

    fitted = run.estimator
    X, y = (part[:_N_PREDICTIONS] for part in data.test)
    n_rows = math.ceil(len(y) / _N_COLUMNS)
    sizes = {
        "training_curve.png": (6.4, 4.4),
        "predictions.png": (1.2 * _N_COLUMNS, 1.6 * n_rows),
        "weights.png": (9.0, 4.0),
    }
    curve, grid, templates = figures = [
        Figure(figsize=size, layout="constrained") for size in sizes.values()
    ]
    plot.history(fitted, curve.subplots()).set_title(f"Fashion-MNIST, {run.label}")
    axes = grid.subplots(n_rows, _N_COLUMNS)
    plot.predictions(X, y, fitted.predict(X), names=FASHION_MNIST_LABELS, ax=axes)
    axes = templates.subplots(math.ceil(len(fitted.coef_) / 5), 5)
    plot.weights(fitted, names=FASHION_MNIST_LABELS, ax=axes)
    for name, figure in zip(sizes, figures, strict=True):
        write_figure(folder / name, figure, 120)
        print(f"wrote {folder / name}", flush=True)


def _option(
    group: Any, name: str, metavar: str, kind: Callable[[str], Any], default: Any, text: str
) -> None:
    if default is not None:
        text += " (default: %(default)s)"
    group.add_argument(name, metavar=metavar, type=kind, default=default, help=text)


def _number(
    kind: Callable[[str], Any], ok: Callable[[Any], bool], wanted: str
) -> Callable[[str], Any]:
    """Return a parser of numbers of this kind, which refuses those that are not `ok`."""

    def parse(text: str) -> Any:
        with suppress(ValueError):
            value = kind(text)
            if ok(value):
                return value
        raise argparse.ArgumentTypeError(f"must be {wanted}, not {text!r}")

    return parse

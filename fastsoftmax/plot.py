"""Pictures of a fit and its data: curves, grids of images, class templates, the certificate.

Plain matplotlib functions. Each draws into the axes that it is given and returns them; with
``ax=None`` it draws into a new figure of pyplot's, so that a notebook shows it. Nothing here changes
matplotlib's settings. matplotlib is imported when a function is called, not before: it is an
optional dependency, ``pip install "fastsoftmax[plot]"``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["gap", "history", "images", "predictions", "weights"]

# Mistakes are told by a mark and a frame as well as by this colour, a vermilion that people with
# red-green blindness still tell from black.
_MISTAKE_COLOUR = "#d1420a"
_MISTAKE_MARK = "\N{BALLOT X}"
_EVAL_STYLES = ("-.", ":", (0, (1, 3)), (0, (6, 2, 1, 2, 1, 2)))
_INCHES_PER_IMAGE = 1.15


def history(
    clf_or_history: Any,
    ax: Axes | None = None,
    *,
    eval_names: Sequence[str] | None = None,
) -> Axes:
    """Plot training loss, training accuracy and held-out accuracy by epoch or iteration.

    Parameters
    ----------
    clf_or_history : fitted FastSoftmax or dict
        The estimator, or its `history_`: lists "loss", "accuracy" and, where the fit had an
        `eval_set`, "eval_accuracy", with one entry (a tuple of numbers, one for each set) per epoch.
    ax : matplotlib Axes, default=None
        Where to draw; None makes a figure.
    eval_names : sequence of str, default=None
        A name for each evaluation set. None means "test" where there is one of them, otherwise
        "eval 1", "eval 2" and so on.

    Returns
    -------
    ax : matplotlib Axes
        Loss (in nats) and accuracy share its vertical axis, which holds 0 to 1 and every loss.

    Raises
    ------
    ValueError
        If there is no epoch to draw, or not one name for each evaluation set.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> from fastsoftmax import plot
    >>> record = {"loss": [1.2, 0.8], "accuracy": [0.6, 0.7], "eval_accuracy": [(0.6,), (0.65,)]}
    >>> ax = plot.history(record, Figure().subplots())
    >>> [line.get_label() for line in ax.lines]
    ['train loss', 'train accuracy', 'test accuracy']
    """
    record = _record(clf_or_history)
    loss = _column(record, "loss")
    n_epochs = len(loss)
    if n_epochs == 0:
        raise ValueError("the history holds no epoch to draw: fit first")
    curves: list[tuple[NDArray[np.float64], str, Any, str]] = [
        (loss, "train loss", "-", "tab:blue"),
        (_column(record, "accuracy"), "train accuracy", "--", "m"),
    ]
    evals = [row for row in record.get("eval_accuracy", ()) if row]
    if evals:
        by_set = np.asarray(evals, dtype=np.float64).T
        names = _eval_names(eval_names, len(by_set))
        curves += [
            (accuracy, f"{name} accuracy", _EVAL_STYLES[i % len(_EVAL_STYLES)], "g")
            for i, (accuracy, name) in enumerate(zip(by_set, names, strict=True))
        ]
    ax = _axes(ax)
    for values, label, style, colour in curves:
        if values.size:
            epochs = np.arange(1, len(values) + 1)
            marker = "o" if len(values) == 1 else None
            ax.plot(epochs, values, linestyle=style, color=colour, label=label, marker=marker)
    worst = loss[np.isfinite(loss)].max(initial=1.0)
    ax.set_ylim(0.0, 1.0 if worst <= 1.0 else 1.05 * worst)
    _count_axis(ax, n_epochs, _unit(clf_or_history))
    ax.grid(visible=True, alpha=0.4)
    ax.legend()
    return ax


def gap(
    clf_or_history: Any,
    ax: Axes | None = None,
    *,
    x: Literal["iteration", "seconds"] = "iteration",
) -> Axes:
    """Plot the certified gap, how far the objective is at most from its optimum, on a log scale.

    Parameters
    ----------
    clf_or_history : fitted FastSoftmax or dict
        The estimator, or its `history_`. With the estimator its `tol` is drawn as well.
    ax : matplotlib Axes, default=None
        Where to draw; None makes a figure.
    x : {"iteration", "seconds"}, default="iteration"
        The horizontal axis; seconds are those since the first iteration began.

    Returns
    -------
    ax : matplotlib Axes

    Raises
    ------
    ValueError
        If x is neither of the two, or no gap was recorded (``solver="sgd"`` records none).

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> from fastsoftmax import plot
    >>> ax = plot.gap({"gap": [0.5, 1e-2, 1e-4]}, Figure().subplots())
    >>> ax.get_yscale()
    'log'
    """
    if x not in ("iteration", "seconds"):
        raise ValueError(f"x must be 'iteration' or 'seconds', not {x!r}")
    record = _record(clf_or_history)
    gaps = _column(record, "gap")
    drawn = np.isfinite(gaps) & (gaps > 0.0)
    if not drawn.any():
        raise ValueError("the history holds no gap to draw: solver='sgd' records none")
    ax = _axes(ax)
    at = np.arange(1.0, len(gaps) + 1)
    if x == "seconds":
        at = np.cumsum(_column(record, "seconds"))
    marker = "o" if drawn.sum() == 1 else None
    ax.semilogy(at[drawn], gaps[drawn], color="tab:blue", marker=marker, label="certified gap")
    tol = getattr(clf_or_history, "tol", None)
    if tol:
        ax.axhline(tol, color="0.4", linestyle="--", label=f"tol = {tol:g}")
    if x == "iteration":
        _count_axis(ax, len(gaps), "iteration")
    else:
        ax.set_xlim(left=0.0)
        ax.set_xlabel("seconds")
    ax.set_ylabel("relative gap")
    ax.grid(visible=True, alpha=0.4)
    ax.legend()
    return ax


def images(
    X: ArrayLike,
    titles: Sequence[str] | None = None,
    *,
    shape: tuple[int, int] | None = None,
    n_columns: int = 8,
    cmap: str = "gray",
    ax: Any = None,
) -> NDArray[np.object_]:
    """Draw images in a grid, one axes for each.

    Parameters
    ----------
    X : array of shape (n, height * width) or (n, height, width)
        The images. They share one scale of grey, from the smallest value to the largest.
    titles : sequence of n str, default=None
        What to write above them.
    shape : (height, width), default=None
        Size of an image; None means a square.
    n_columns : int, default=8
        Images in a row of the figure that ``ax=None`` makes.
    cmap : str, default="gray"
        Colour map.
    ax : array of matplotlib Axes, default=None
        At least n axes; those left over are switched off. A single axes serves one image. None
        makes a figure.

    Returns
    -------
    axes : ndarray of n matplotlib Axes

    Raises
    ------
    ValueError
        If X has another shape, titles has another length, or there are too few axes.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> from fastsoftmax import plot
    >>> from fastsoftmax.datasets import FASHION_MNIST_LABELS, load_fashion_mnist_sample
    >>> X, y = load_fashion_mnist_sample()
    >>> names = [FASHION_MNIST_LABELS[label] for label in y[:6]]
    >>> axes = plot.images(X[:6], names, ax=Figure().subplots(2, 3))
    >>> axes[0].get_title(), axes.shape
    ('Ankle boot', (6,))
    """
    pictures = _pictures(X, shape)
    if titles is not None and len(titles) != len(pictures):
        raise ValueError(f"titles holds {len(titles)} titles for {len(pictures)} images")
    axes = _grid(ax, len(pictures), n_columns, n_title_lines=_n_lines(titles))
    finite = pictures[np.isfinite(pictures)]
    limits = (finite.min(), finite.max()) if finite.size else (0.0, 1.0)
    _draw(axes, pictures, titles, cmap, limits)
    return axes


def predictions(
    X: ArrayLike,
    y_true: ArrayLike,
    y_pred: ArrayLike,
    *,
    names: Sequence[str] | Mapping[Any, str] | None = None,
    shape: tuple[int, int] | None = None,
    n_columns: int = 8,
    ax: Any = None,
) -> NDArray[np.object_]:
    """Draw images titled with the true label above the predicted one, mistakes marked.

    A mistake has a ballot X before the predicted label, a coloured title and a coloured frame.

    Parameters
    ----------
    X : array of shape (n, height * width) or (n, height, width)
        The images.
    y_true, y_pred : array of shape (n,)
        Their labels and what was predicted, as ``clf.predict(X)`` gives it.
    names : sequence or mapping, default=None
        ``names[label]`` is written in the label's place, such as `FASHION_MNIST_LABELS`.
    shape, n_columns, ax
        As in `images`.

    Returns
    -------
    axes : ndarray of n matplotlib Axes

    Raises
    ------
    ValueError
        If lengths differ, and as `images` does.

    Examples
    --------
    >>> import numpy as np
    >>> from matplotlib.figure import Figure
    >>> from fastsoftmax import plot
    >>> X = np.random.default_rng(0).random((2, 9))
    >>> axes = plot.predictions(X, ["cat", "dog"], ["cat", "cat"], ax=Figure().subplots(1, 2))
    >>> axes[0].get_title().split()
    ['cat', 'cat']
    >>> len(axes[1].get_title().split())  # dog, the mark of a mistake, cat
    3
    """
    truth, predicted = np.asarray(y_true).tolist(), np.asarray(y_pred).tolist()
    n_images = len(_pictures(X, shape))
    if not len(truth) == len(predicted) == n_images:
        raise ValueError(
            f"y_true has {len(truth)} labels and y_pred {len(predicted)} for {n_images} images"
        )
    mistaken = [t != p for t, p in zip(truth, predicted, strict=True)]
    titles = [
        f"{_name(t, names)}\n{f'{_MISTAKE_MARK} ' * wrong}{_name(p, names)}"
        for t, p, wrong in zip(truth, predicted, mistaken, strict=True)
    ]
    axes = images(X, titles, shape=shape, n_columns=n_columns, ax=ax)
    for axis, wrong in zip(axes, mistaken, strict=True):
        if wrong:
            axis.title.set_color(_MISTAKE_COLOUR)
            for spine in axis.spines.values():
                spine.set(visible=True, color=_MISTAKE_COLOUR, linewidth=2.0)
    return axes


def weights(
    clf: Any,
    shape: tuple[int, int] | None = None,
    *,
    names: Sequence[str] | Mapping[Any, str] | None = None,
    n_columns: int = 5,
    cmap: str = "RdBu_r",
    colorbar: bool = True,
    ax: Any = None,
) -> NDArray[np.object_]:
    """Draw each class's row of `coef_` as an image, its template.

    All templates share one scale, symmetric about 0, which is the middle of the colour map: by
    default red pixels speak for the class, blue ones against it, and white ones do not count.

    Parameters
    ----------
    clf : fitted classifier
        With `coef_` of shape (K, height * width), or (1, height * width) for two classes, whose
        only row is then the template of ``classes_[1]`` against ``classes_[0]``.
    shape : (height, width), default=None
        Size of an image; None means a square.
    names : sequence or mapping, default=None
        ``names[label]`` is written in the label's place.
    n_columns : int, default=5
        Templates in a row of the figure that ``ax=None`` makes.
    cmap : str, default="RdBu_r"
        A diverging colour map.
    colorbar : bool, default=True
        Draw the scale beside the templates.
    ax : array of matplotlib Axes, default=None
        As in `images`.

    Returns
    -------
    axes : ndarray of matplotlib Axes, one for each row of `coef_`

    Raises
    ------
    ValueError
        If a row of `coef_` is not an image of this shape, or there are too few axes.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> from fastsoftmax import FastSoftmax, plot
    >>> from fastsoftmax.datasets import load_fashion_mnist_sample
    >>> X, y = load_fashion_mnist_sample()
    >>> clf = FastSoftmax(C=0.01).fit(X / 255, y)
    >>> axes = plot.weights(clf, ax=Figure().subplots(2, 5))
    >>> axes[3].get_title()
    '3'
    """
    pictures = _pictures(clf.coef_, shape)
    labels = np.asarray(clf.classes_).tolist()[-len(pictures) :]
    titles = [_name(label, names) for label in labels]
    axes = _grid(ax, len(pictures), n_columns, n_title_lines=1)
    limit = np.abs(pictures[np.isfinite(pictures)]).max(initial=0.0) or 1.0
    _draw(axes, pictures, titles, cmap, (-limit, limit))
    if colorbar and len(axes):
        figure = axes[0].get_figure(root=False)
        figure.colorbar(axes[0].images[0], ax=list(axes), label="weight", shrink=0.8)
    return axes


# What is drawn


def _record(clf_or_history: Any) -> Mapping[str, Any]:
    record = getattr(clf_or_history, "history_", clf_or_history)
    if not isinstance(record, Mapping):
        raise TypeError(
            f"a fitted FastSoftmax or its history_ is wanted, not {type(clf_or_history).__name__}"
        )
    return record


def _column(record: Mapping[str, Any], key: str) -> NDArray[np.float64]:
    return np.array([math.nan if v is None else v for v in record.get(key, ())], dtype=np.float64)


def _eval_names(names: Sequence[str] | None, n_sets: int) -> Sequence[str]:
    if names is None:
        return ["test"] if n_sets == 1 else [f"eval {i}" for i in range(1, n_sets + 1)]
    if len(names) != n_sets:
        raise ValueError(f"eval_names holds {len(names)} names for {n_sets} evaluation sets")
    return names


def _unit(clf_or_history: Any) -> str:
    """Name of what the horizontal axis counts; a bare history does not tell."""
    solver = getattr(clf_or_history, "solver", "sgd")
    return "epoch" if solver == "sgd" else "iteration"


def _name(label: Any, names: Sequence[str] | Mapping[Any, str] | None) -> str:
    return str(label if names is None else names[label])


def _pictures(X: ArrayLike, shape: tuple[int, int] | None) -> NDArray[Any]:
    """Images as (n, height, width)."""
    array = np.asarray(X)
    if array.ndim == 3 and shape in (None, array.shape[1:]):
        return array
    if array.ndim != 2:
        raise ValueError(f"images must have shape (n, pixels), not {array.shape}")
    n, n_pixels = array.shape
    height, width = (math.isqrt(n_pixels),) * 2 if shape is None else shape
    if height * width != n_pixels:
        wanted = "make no square: give shape=(height, width)" if shape is None else "do not fit"
        size = "" if shape is None else f" {height} x {width}"
        raise ValueError(f"rows of {n_pixels} pixels {wanted}{size}")
    return array.reshape(n, height, width)


# Drawing


def _axes(ax: Axes | None) -> Axes:
    if ax is not None:
        return ax
    new: Axes = _pyplot().subplots()[1]
    return new


def _grid(ax: Any, n: int, n_columns: int, n_title_lines: int) -> NDArray[np.object_]:
    """Return n axes: of those given, or of a new figure."""
    if ax is None:
        if n_columns < 1:
            raise ValueError(f"n_columns must be at least 1, not {n_columns}")
        columns = max(1, min(n, n_columns))
        rows = max(1, -(-n // columns))
        height = _INCHES_PER_IMAGE * (1.0 + 0.17 * n_title_lines)
        _, ax = _pyplot().subplots(
            rows,
            columns,
            figsize=(_INCHES_PER_IMAGE * columns + 0.2, height * rows + 0.2),
            layout="constrained",
            squeeze=False,
        )
    axes = np.array(ax, dtype=object).reshape(-1)
    if len(axes) < n:
        raise ValueError(f"ax holds {len(axes)} axes for {n} images")
    for spare in axes[n:]:
        spare.set_axis_off()
    return axes[:n]


def _draw(
    axes: NDArray[np.object_],
    pictures: NDArray[Any],
    titles: Sequence[str] | None,
    cmap: str,
    limits: tuple[Any, Any],
) -> None:
    for i, (axis, picture) in enumerate(zip(axes, pictures, strict=True)):
        axis.imshow(picture, cmap=cmap, vmin=limits[0], vmax=limits[1], interpolation="nearest")
        axis.set(xticks=[], yticks=[])
        for spine in axis.spines.values():
            spine.set_visible(False)
        if titles is not None:
            axis.set_title(titles[i], fontsize="small", pad=3.0)


def _n_lines(titles: Sequence[str] | None) -> int:
    return max((title.count("\n") + 1 for title in titles or ()), default=0)


def _count_axis(ax: Axes, n: int, label: str) -> None:
    from matplotlib.ticker import MaxNLocator

    ax.set_xlim(*((1, n) if n > 1 else (0.5, 1.5)))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_xlabel(label)


def _pyplot() -> Any:
    try:
        from matplotlib import pyplot
    except ImportError as error:
        raise ImportError(
            f"fastsoftmax.plot needs matplotlib, which cannot be imported ({error}): "
            "pip install 'fastsoftmax[plot]'"
        ) from error
    return pyplot

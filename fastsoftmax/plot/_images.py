"""Grids of images: the data, their predictions, and the templates of the classes."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastsoftmax.floating_point import own_arithmetic
from fastsoftmax.plot._shared import VERMILION, checked_as_fitted, pyplot

_MISTAKE_MARK = "\N{BALLOT X}"
_IMAGE_INCHES = 1.15
_TEMPLATE_INCHES = 1.7
_COLORBAR_INCHES = 1.1


@own_arithmetic
def images(
    X: ArrayLike,
    titles: Iterable[Any] | None = None,
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
        The images, dense or sparse. They share one grey scale, from the smallest value to the
        largest.
    titles : iterable of n labels, or of n pairs (true, predicted), default=None
        Titles of the images. Of a pair the true label is written above the predicted one, and a
        mistake is marked as by `predictions`: ``titles=zip(y, clf.predict(X))``. A string of two
        lines, true and predicted, is written as it is; a mistake gets the colour and the frame.
    shape : (height, width), default=None
        Size of an image; None means a square.
    n_columns : int, default=8
        Images in a row of the figure that ``ax=None`` makes.
    cmap : str, default="gray"
        Colour map.
    ax : array of matplotlib Axes, default=None
        At least n axes; the others are switched off. A single Axes is enough for one image. None
        makes a figure.

    Returns
    -------
    axes : ndarray of n matplotlib Axes

    Raises
    ------
    ValueError
        If X has another shape, titles has another length, or there are too few axes.
    TypeError
        If X does not hold real numbers.

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
    >>> axes = plot.images(X[:2], [("boot", "boot"), ("bag", "coat")], ax=Figure().subplots(1, 2))
    >>> axes[0].get_title().splitlines()  # axes[1] is marked as a mistake
    ['boot', 'boot']
    """
    written = None if titles is None else [_written(title) for title in titles]
    return _draw(ax, _pictures(X, shape), written, n_columns, cmap)


@own_arithmetic
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
    """Draw images with two lines above each: the true label, then the predicted label.

    A wrong prediction has a cross before it, and a coloured title and frame. A new figure says at
    its lower edge which line is which.

    Parameters
    ----------
    X : array of shape (n, height * width) or (n, height, width)
        The images.
    y_true, y_pred : array of shape (n,)
        True labels and predicted ones, as from ``clf.predict(X)``.
    names : sequence or mapping, default=None
        ``names[label]`` is written instead of the label, such as `FASHION_MNIST_LABELS`.
    shape, n_columns, ax
        As in `images`.

    Returns
    -------
    axes : ndarray of n matplotlib Axes

    Raises
    ------
    ValueError
        If lengths differ, and as in `images`.

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
    pictures = _pictures(X, shape)
    if not len(truth) == len(predicted) == len(pictures):
        raise ValueError(
            f"y_true has {len(truth)} labels and y_pred {len(predicted)} for {len(pictures)} images"
        )
    written = [
        _of_pair(_name(t, names), _name(p, names), wrong=t != p)
        for t, p in zip(truth, predicted, strict=True)
    ]
    axes = _draw(ax, pictures, written, n_columns, "gray")
    if ax is None and len(axes):
        _add_key(axes[0].figure)
    return axes


def _add_key(figure: Any) -> None:
    """Say at the lower edge of a figure of predictions which line is the truth."""
    width, height = figure.get_size_inches()
    width = max(width, 2.3)  # of the longer line
    wide = width > 4.2
    key = ("first line: true label", "second line: predicted label")
    figure.set_size_inches(width, height + (0.2 if wide else 0.4))
    figure.supxlabel((", " if wide else "\n").join(key), fontsize="small")


@own_arithmetic
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

    All templates share one scale, symmetric about 0, which is the middle of the colour map. By
    default red pixels raise the logit of the class, blue ones lower it, and white ones have no
    effect.

    Parameters
    ----------
    clf : fitted classifier
        With `coef_` of shape (K, height * width), or (1, height * width) for two classes; this row
        is the template of ``classes_[1]`` against ``classes_[0]``.
    shape : (height, width), default=None
        Size of an image; None means a square.
    names : sequence or mapping, default=None
        ``names[label]`` is written instead of the label.
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
    NotFittedError
        If the classifier is not fitted.
    TypeError
        If clf has no `coef_`, for example a pipeline.

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
    if not hasattr(clf, "coef_"):
        checked_as_fitted(clf, "a fitted classifier with coef_")
        raise TypeError(
            f"a fitted classifier with coef_ is wanted, not {type(clf).__name__}; of a pipeline "
            "pass the last step, clf[-1]: its coefficients belong to the output of the other steps"
        )
    pictures = _pictures(clf.coef_, shape)
    labels = np.asarray(clf.classes_).tolist()[-len(pictures) :]
    titles = [(_name(label, names), False) for label in labels]
    limit = float(np.abs(pictures[np.isfinite(pictures)]).max(initial=0.0)) or 1.0
    margin = _COLORBAR_INCHES * colorbar
    axes = _draw(ax, pictures, titles, n_columns, cmap, (-limit, limit), _TEMPLATE_INCHES, margin)
    if colorbar and len(axes):
        axes[0].figure.colorbar(
            axes[0].images[0], ax=list(axes), label="weight", shrink=0.8, aspect=30
        )
    return axes


def _name(label: Any, names: Sequence[str] | Mapping[Any, str] | None) -> str:
    return str(label if names is None else names[label])


def _written(title: Any) -> tuple[str, bool]:
    """Return (text, is_mistake) of a title, or of a pair of true and predicted label."""
    if not isinstance(title, tuple | list | np.ndarray) or np.ndim(title) == 0:
        text = str(title)
        true, _, predicted = text.partition("\n")
        return text, predicted not in ("", true)
    if len(title) != 2:
        raise ValueError(f"titles must be labels or pairs (true, predicted), got {title!r}")
    true, predicted = title
    return _of_pair(str(true), str(predicted), wrong=bool(true != predicted))


def _of_pair(true: str, predicted: str, *, wrong: bool) -> tuple[str, bool]:
    return f"{true}\n{f'{_MISTAKE_MARK} ' * wrong}{predicted}", wrong


def _pictures(X: Any, shape: tuple[int, int] | None) -> NDArray[Any]:
    """Return images as (n, height, width)."""
    array = np.asarray(X.toarray() if hasattr(X, "toarray") else X)
    if array.dtype.kind not in "biuf":
        raise TypeError(f"images must hold real numbers, not {array.dtype}")
    size = None
    if shape is not None:
        try:
            height, width = (operator.index(length) for length in shape)
        except (TypeError, ValueError):
            raise ValueError(f"shape must be (height, width), got {shape!r}") from None
        if min(height, width) < 1:
            raise ValueError(f"shape must be (height, width), each at least 1, got {shape!r}")
        size = height, width
    if array.ndim == 3 and size in (None, array.shape[1:]):
        return array
    if array.ndim == 3:
        raise ValueError(f"images of shape {array.shape[1:]} do not have shape={shape}")
    if array.ndim != 2:
        raise ValueError(f"images must have shape (n, pixels), not {array.shape}")
    n, n_pixels = array.shape
    height, width = size or (math.isqrt(n_pixels),) * 2
    if height * width != n_pixels:
        wanted = "make no square: give shape=(height, width)"
        if size is not None:
            wanted = f"do not fit {height} x {width} = {height * width}"
        raise ValueError(f"rows of {n_pixels} pixels {wanted}")
    return array.reshape(n, height, width)


def _draw(
    ax: Any,
    pictures: NDArray[Any],
    titles: Sequence[tuple[str, bool]] | None,
    n_columns: int,
    cmap: str,
    limits: tuple[float, float] | None = None,
    inches: float = _IMAGE_INCHES,
    margin: float = 0.0,
) -> NDArray[np.object_]:
    """Draw each picture in an Axes, of the given ones or of a new figure; return them.

    Titles are pairs (text, is_mistake). Without limits the scale shows all finite values.
    """
    if titles is not None and len(titles) != len(pictures):
        raise ValueError(f"titles holds {len(titles)} titles for {len(pictures)} images")
    n, pixels = len(pictures), pictures.shape[1:]
    if ax is None:
        if n_columns < 1:
            raise ValueError(f"n_columns must be at least 1, not {n_columns}")
        columns = max(1, min(n, n_columns))
        rows = max(1, -(-n // columns))
        n_lines = max((text.count("\n") + 1 for text, _ in titles or ()), default=0)
        width = inches * min(3.0, max(0.5, math.sqrt(pixels[1] / max(1, pixels[0]))))
        height = min(4.0 * width, width * pixels[0] / max(1, pixels[1]))
        _, ax = pyplot().subplots(
            rows,
            columns,
            figsize=(width * columns + 0.2 + margin, (height + 0.16 * n_lines) * rows + 0.2),
            layout="constrained",
            squeeze=False,
        )
    axes = np.array(ax, dtype=object).reshape(-1)
    if len(axes) < n:
        raise ValueError(f"ax holds {len(axes)} axes for {n} images")
    axes, spare = axes[:n], axes[n:]
    for axis in spare:
        axis.set_axis_off()
    if limits is None:
        finite = pictures[np.isfinite(pictures)]
        limits = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    for i, (axis, picture) in enumerate(zip(axes, pictures, strict=True)):
        axis.imshow(picture, cmap=cmap, vmin=limits[0], vmax=limits[1], interpolation="nearest")
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
        if titles is not None:
            text, is_mistake = titles[i]
            title = axis.set_title(text, fontsize="small", pad=3.0)
            if is_mistake:  # a frame and, in the text, a mark: not the colour alone
                title.set_color(VERMILION)
                axis.spines[:].set(visible=True, color=VERMILION, linewidth=2.0)
    return axes

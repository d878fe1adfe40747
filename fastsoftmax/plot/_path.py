"""The choice of C by cross-validation: scores and coefficients along the path."""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Self, TypeAlias, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastsoftmax.floating_point import own_arithmetic
from fastsoftmax.plot._shared import (
    BLUE,
    GREEN,
    GREY,
    VERMILION,
    Display,
    add_legend,
    check_choice,
    checked_as_fitted,
    final_estimator,
    label_and_grid,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Kind: TypeAlias = Literal["scores", "coefficients"]

# More lines cannot be told apart, and are slow to draw.
_MOST_LINES = 1000
_MOST_NAMED_CLASSES = 10


@dataclass(eq=False, repr=False)
class PathDisplay(Display):
    """Scores or coefficients over C, as a display object like scikit-learn's.

    Make one with `from_estimator`, or from arrays.

    Parameters
    ----------
    Cs : array-like of shape (n_Cs,)
        Inverse regularisation strengths, ascending.
    scores : array-like of shape (n_folds, n_Cs), default=None
        Scores of the folds, larger is better.
    coefs : array-like of shape (n_Cs, n_logits, n_features), default=None
        Coefficients.
    C : float, default=None
        The chosen value.
    classes : array-like of shape (n_classes,), default=None
        Names for the legend.
    score_name : str, default="score"
        Label of the vertical axis.

    Attributes
    ----------
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure
    errorbar_ : matplotlib ErrorbarContainer
        Mean scores and their standard errors, of kind "scores".
    lines_ : list of artists
        The vertical lines at the choices of C, for "scores"; for "coefficients" a `LineCollection`
        and the line of the chosen C.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> from fastsoftmax.plot import PathDisplay
    >>> scores = [[0.60, 0.80, 0.82], [0.62, 0.84, 0.83]]
    >>> display = PathDisplay([0.1, 1.0, 10.0], scores=scores, C=10.0).plot(Figure().subplots())
    >>> [line.get_label() for line in display.lines_]
    ['best: C = 10, chosen', 'one SE: C = 1']
    """

    Cs: ArrayLike
    _: KW_ONLY
    scores: ArrayLike | None = None
    coefs: ArrayLike | None = None
    C: float | None = None
    classes: ArrayLike | None = None
    score_name: str = "score"
    errorbar_: Any = field(init=False)
    lines_: list[Any] = field(init=False)

    @classmethod
    @own_arithmetic
    def from_estimator(
        cls,
        estimator: Any,
        *,
        kind: Kind = "scores",
        negate_score: bool = False,
        score_name: str | None = None,
        ax: Axes | None = None,
    ) -> Self:
        """Draw the path of a fitted `FastSoftmaxCV`; parameters and errors are those of `path`.

        Returns
        -------
        display : PathDisplay
        """
        check_choice("kind", kind, get_args(Kind))
        if hasattr(estimator, "coefs") and hasattr(estimator, "Cs"):  # of fastsoftmax_path
            display = cls(estimator.Cs, coefs=estimator.coefs, classes=estimator.classes)
            return display.plot(ax, kind=kind)
        fitted = final_estimator(estimator)
        if not hasattr(fitted, "coefs_paths_"):
            wanted = "a fitted FastSoftmaxCV or what fastsoftmax_path returns"
            checked_as_fitted(fitted, wanted)
            raise TypeError(f"{wanted} is wanted, not {type(fitted).__name__}")
        name = _score_name(fitted.scoring, negate_score) if score_name is None else score_name
        display = cls(
            fitted.Cs_,
            scores=fitted.scores_,
            coefs=fitted.coefs_paths_.mean(axis=0) if kind == "coefficients" else None,
            C=fitted.C_,
            classes=fitted.classes_,
            score_name=name,
        )
        return display.plot(ax, kind=kind, negate_score=negate_score)

    @own_arithmetic
    def plot(
        self, ax: Axes | None = None, *, kind: Kind = "scores", negate_score: bool = False
    ) -> Self:
        """Draw the path.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; None makes a figure.
        kind : {"scores", "coefficients"}, default="scores"
            What to draw.
        negate_score : bool, default=False
            Draw the scores times -1.

        Returns
        -------
        self
        """
        check_choice("kind", kind, get_args(Kind))
        values = self.scores if kind == "scores" else self.coefs
        if values is None:
            other = "'coefficients' or a FastSoftmaxCV" if kind == "scores" else "'scores'"
            raise ValueError(f"there are no {kind} to draw: kind={other} is wanted")
        Cs = np.asarray(self.Cs, dtype=np.float64)
        drawn = np.asarray(values, dtype=np.float64)
        ndim, axis = (2, 1) if kind == "scores" else (3, 0)
        if drawn.ndim != ndim or Cs.shape != drawn.shape[axis : axis + 1] or not drawn.size:
            raise ValueError(f"{kind} of shape {drawn.shape} do not fit Cs of shape {Cs.shape}")
        ax = self._use(ax)
        ax.set_xscale("log")
        ax.set_xlabel("C")
        # A margin, also for a single C.
        room = (Cs.max() / Cs.min()) ** 0.05 if Cs.max() > Cs.min() else 10.0
        ax.set_xlim(Cs.min() / room, Cs.max() * room)
        if kind == "scores":
            self._plot_scores(ax, Cs, drawn, -1.0 if negate_score else 1.0)
        else:
            self._plot_coefficients(ax, Cs, drawn)
        return self

    def _plot_scores(
        self, ax: Axes, Cs: NDArray[np.float64], scores: NDArray[np.float64], sign: float
    ) -> None:
        from fastsoftmax._sweep.paths import best_index

        n_folds = len(scores)
        means = sign * scores.mean(axis=0)
        errors = scores.std(axis=0, ddof=1) / math.sqrt(n_folds) if n_folds > 1 else None
        label = f"mean \N{PLUS-MINUS SIGN} SE, {n_folds} folds" if n_folds > 1 else "one fold"
        self.errorbar_ = ax.errorbar(
            Cs, means, errors, color=BLUE, marker="o", markersize=4.0, capsize=3.0, label=label
        )
        best = best_index(scores, one_standard_error=False)
        simplest = best_index(scores, one_standard_error=True) if n_folds > 1 else best
        name = "best = one SE" if n_folds > 1 and simplest == best else "best"
        choices = [(name, best, VERMILION, "-")]
        if simplest != best:
            choices.append(("one SE", simplest, GREEN, "--"))
        self.lines_ = [
            ax.axvline(
                Cs[index],
                color=colour,
                linestyle=style,
                zorder=1.0,
                label=f"{name}: C = {Cs[index]:.3g}{_chosen(Cs[index], self.C)}",
            )
            for name, index, colour, style in choices
        ]
        if self.C is not None and not any(_chosen(Cs[index], self.C) for _, index, *_ in choices):
            self.lines_.append(_line_of(ax, self.C))
        label_and_grid(ax, self.score_name)
        add_legend(ax)

    def _plot_coefficients(
        self, ax: Axes, Cs: NDArray[np.float64], coefs: NDArray[np.float64]
    ) -> None:
        from matplotlib import colormaps
        from matplotlib.collections import LineCollection
        from matplotlib.lines import Line2D

        tried = ~np.isnan(coefs).all(axis=(1, 2))  # a path may end before the last C
        Cs, coefs = Cs[tried], coefs[tried]
        n_logits = coefs.shape[1]
        classes = np.arange(n_logits) if self.classes is None else np.asarray(self.classes)
        colours = colormaps["viridis"](0.9 * np.arange(n_logits) / max(1, n_logits - 1))
        paths = coefs.transpose(2, 1, 0).reshape(-1, len(Cs))  # path i is of class i % n_logits
        kept = _representatives(np.abs(paths).max(axis=1))
        lines = LineCollection(
            [np.column_stack([Cs, path]) for path in paths[kept]],
            colors=colours[kept % n_logits],
            alpha=min(0.9, max(0.3, 50.0 / len(kept))),
            linewidths=1.0,
        )
        self.lines_ = [ax.add_collection(lines)]
        low, high = min(0.0, float(paths.min())), max(0.0, float(paths.max()))
        room = 0.05 * (high - low) or 1.0
        ax.set_ylim(low - room, high + room)
        if self.C is not None:
            self.lines_.append(_line_of(ax, self.C))
        some = f" ({len(kept)} of {len(paths)})" if len(kept) < len(paths) else ""
        label_and_grid(ax, f"coefficient{some}")
        if n_logits <= _MOST_NAMED_CLASSES:
            keys = [
                Line2D([], [], color=colour, label=str(label))
                for colour, label in zip(colours, classes[-n_logits:].tolist(), strict=True)
            ]
            add_legend(
                ax,
                handles=[*keys, *self.lines_[1:]],
                title="class",
                loc="upper left",  # coefficients are small where C is small
                ncols=1 + (n_logits > _MOST_NAMED_CLASSES // 2),
                fontsize="small",
            )


@own_arithmetic
def path(
    cv: Any,
    ax: Axes | None = None,
    *,
    kind: Kind = "scores",
    negate_score: bool = False,
    score_name: str | None = None,
) -> Axes:
    """Plot scores or coefficients of `FastSoftmaxCV` along its path of C, on a log axis.

    Parameters
    ----------
    cv : fitted FastSoftmaxCV, or SoftmaxPath
        The estimator (or a pipeline that ends in one), or the result of `fastsoftmax_path`, which
        has coefficients only.
    ax : matplotlib Axes, default=None
        Where to draw; None makes a figure.
    kind : {"scores", "coefficients"}, default="scores"
        "scores" draws the mean score of the folds with its standard error, and lines at the C of
        the best mean ("best"), at the smallest C within one standard error of that ("one SE"), and
        at the chosen C.
        "coefficients" draws a line for each coefficient (the mean of the folds), coloured by class;
        of more than 1000 coefficients it draws 1000 of all sizes, including the largest.
    negate_score : bool, default=False
        Draw the scores times -1, for example the log-loss for ``scoring="neg_log_loss"``.
    score_name : str, default=None
        For the vertical axis; None means the name of the `scoring` option.

    Returns
    -------
    ax : matplotlib Axes

    Raises
    ------
    ValueError
        If kind is neither of the two, or "scores" where there are none.
    NotFittedError
        If the estimator is not fitted.
    TypeError
        If it is another type.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> from sklearn.datasets import load_iris
    >>> from fastsoftmax import FastSoftmaxCV, plot
    >>> cv = FastSoftmaxCV(Cs=[0.01, 1.0, 100.0]).fit(*load_iris(return_X_y=True))
    >>> ax = plot.path(cv, Figure().subplots())
    >>> ax.get_xscale(), ax.get_ylabel()
    ('log', 'accuracy')
    >>> ax = plot.path(cv, Figure().subplots(), kind="coefficients")
    """
    return PathDisplay.from_estimator(
        cv, kind=kind, negate_score=negate_score, score_name=score_name, ax=ax
    ).ax_


def _representatives(sizes: NDArray[np.float64]) -> NDArray[np.intp]:
    """Return ascending indices of coefficients of all sizes, including the largest."""
    by_size = np.argsort(-sizes, kind="stable")
    if len(sizes) > _MOST_LINES:
        by_size = by_size[np.linspace(0, len(sizes) - 1, _MOST_LINES).astype(np.intp)]
    return np.sort(by_size)


def _score_name(scoring: Any, negate_score: bool) -> str:
    """Return the name of the scores, such as "log loss" for the negated "neg_log_loss"."""
    scoring = "accuracy" if scoring is None else scoring
    if not isinstance(scoring, str):
        name = "score"
    elif negate_score and scoring.startswith("neg_"):
        return scoring.removeprefix("neg_").replace("_", " ")
    else:
        name = scoring.replace("neg_", "negative ").replace("_", " ")
    return f"negative {name}" if negate_score else name


def _chosen(C: float, chosen: float | None) -> str:
    return ", chosen" if chosen == C else ""


def _line_of(ax: Axes, C: float) -> Any:
    return ax.axvline(C, color=GREY, linestyle=":", zorder=1.0, label=f"chosen: C = {C:.3g}")

"""What to tell of a fit that has ended."""

from typing import Any

import numpy as np

from fastsoftmax.optimum.stage import Result

# A gap of 1 says that the optimum is not below 0, which is known beforehand. From here on it is
# shown as 1.0e+00.
NOTHING_CERTIFIED = 0.95


def is_converged(result: Result, tol: float) -> bool:
    """Whether the result is as near to the optimum as was asked for."""
    return bool(result.gap <= tol or result.reason == "stationary")


def advice(
    result: Result, *, tol: float, max_iter: int, max_time: float | None, real: np.dtype[Any]
) -> str:
    """Return what to tell of a fit that did not converge: how far it got, and what to do."""
    value, gap = result.evaluation.value, result.gap
    if result.reason == "separable":
        return (
            "the classes are separable, wholly or in part: without a penalty (C=inf) the optimum "
            "is at infinity, so there are no best coefficients. The fit stopped at an objective "
            f"of {value:.2g}. Give a finite C."
        )
    limits = {
        "max_iter": f"it took all of max_iter={max_iter} iterations. Raise max_iter.",
        "max_time": f"it took all of max_time={max_time:g} seconds. Raise max_time."
        if max_time is not None
        else "",
    }
    reached = f"the fit is certified to a relative gap of {gap:.1e}, not tol={tol:g}"
    if gap >= NOTHING_CERTIFIED:
        reached = (
            f"nothing could be certified (tol={tol:g}), and the fit may be far from the optimum"
        )
    if np.isinf(gap):
        reached = f"without a penalty (C=inf) the fit stopped at an objective of {value:.6g}"
        limits = {reason: f"{text[:-1]}, or give a finite C." for reason, text in limits.items()}
    if result.reason in limits:
        return f"{reached}: {limits[result.reason]}"
    if real == np.float32:
        return (
            f"{reached}: this is as far as float32 goes. Pass X as float64, scale the features "
            "(standardize=True) if they are large or far from 0, or raise tol."
        )
    return (
        f"{reached}: this is as far as float64 goes. Scale the features (standardize=True) if they "
        "are large or far from 0, or raise tol."
    )

"""The callbacks of `sklearn.callback` (scikit-learn 1.9 and newer), where there are any."""

from collections.abc import Callable
from typing import Any, TypeVar

from fastsoftmax._estimator.parameters import FitParameters
from fastsoftmax.floating_point import own_arithmetic, users_code
from fastsoftmax.monitor import Callback, FitState

try:
    from sklearn.callback import CallbackSupportMixin
except ImportError:

    class CallbackSupportMixin:  # type: ignore[no-redef]
        """Nothing to support: `set_callbacks` comes with scikit-learn 1.9."""


__all__ = ["CallbackSupportMixin", "watched"]

T = TypeVar("T")


def watched(
    estimator: FitParameters,
    run: Callable[[list[Callback]], T],
    *,
    X: Any = None,
    y: Any = None,
    sample_weight: Any = None,
) -> T:
    """Return what a fit returns. It gets a callback that calls those of `set_callbacks`.

    The fit is a task of its own or of a meta-estimator, and each iteration is a task below it.
    """
    if not (hasattr(estimator, "_skl_callbacks") or hasattr(estimator, "_parent_callback_ctx")):
        return run([])
    from sklearn.callback import with_callbacks

    metadata = None if sample_weight is None else {"sample_weight": sample_weight}
    data = {"X": X, "y": y, "metadata": metadata}

    def fit(estimator: Any) -> T:
        context = estimator._init_callback_context(max_subtasks=estimator.max_iter)
        context.call_on_fit_task_begin(estimator=estimator, **data)

        def tell(state: FitState) -> bool:
            task = context.subcontext(task_name="epoch" if state.solver == "sgd" else "iteration")
            task.call_on_fit_task_begin(estimator=estimator, **data)
            return bool(
                task.call_on_fit_task_end(
                    estimator=estimator,
                    reconstruction_attributes=lambda: {
                        "coef_": state.coef_,
                        "intercept_": state.intercept_,
                    },
                    **data,
                )
            )

        callbacks: list[Callback] = [tell] if hasattr(estimator, "_skl_callbacks") else []
        result = own_arithmetic(run)(callbacks)
        context.call_on_fit_task_end(estimator=estimator, reconstruction_attributes={}, **data)
        return result

    with users_code():
        answer: T = with_callbacks(fit)(estimator)
    return answer

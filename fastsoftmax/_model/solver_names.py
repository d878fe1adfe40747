"""The names of solvers, for people who come from scikit-learn."""

from sklearn.utils._param_validation import StrOptions


class SolverNames(StrOptions):
    """Names whose error says what takes the place of the solvers that only scikit-learn has."""

    def __str__(self) -> str:
        return (
            f"{super().__str__()} ('auto' in place of scikit-learn's 'newton-cg', 'sag', 'saga' "
            "and 'liblinear')"
        )

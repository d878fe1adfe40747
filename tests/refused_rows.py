"""Rows that a checkpoint of a fit to digits is refused for."""


def other_rows(X, y):
    """Yield why rows are refused, and the rows."""
    yield "the number of rows was 1797 and is 1796", X[1:], y[1:]
    yield "the number of features was 64 and is 63", X[:, 1:], y
    yield "the classes of its fit", X, y + 1
    yield "the number type was 'float64' and is 'float32'", X.astype("f4"), y
    other = X.copy()
    other[7, 30] += 1.0
    yield "of other data: the objective at its point", other, y
    yield "of other data: the objective at its point", X, y[::-1]

"""Softmax, log-softmax and cross-entropy of rows of logits."""

import races
from harness import entries

SHAPES = [(100_000, 10), (10_000, 1_000), (1_000, 100_000)]


def _arguments(operation, **more):
    return [{"operation": operation, "n_rows": n, "n_classes": K, **more} for n, K in SHAPES]


@entries(races.softmax, _arguments("softmax"), races.CONTESTANTS)
def test_softmax(entry, contestant, timed):
    timed(entry, contestant)


@entries(races.softmax, _arguments("log_softmax"), races.CONTESTANTS)
def test_log_softmax(entry, contestant, timed):
    timed(entry, contestant)


@entries(races.softmax, _arguments("softmax", isas=True), (*races.ISAS, "numpy"))
def test_softmax_isas(entry, contestant, timed):
    timed(entry, contestant)


@entries(
    races.cross_entropy_rows,
    [{"n_rows": n, "n_classes": K} for n, K in SHAPES],
    [name for name in races.CONTESTANTS if name != "scikit-learn"],
)
def test_cross_entropy(entry, contestant, timed):
    timed(entry, contestant)

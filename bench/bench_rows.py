"""Softmax, log-softmax, logsumexp and cross-entropy of rows of logits."""

import races
import races_rows
from harness import entries

SHAPES = [(100_000, 10), (10_000, 1_000), (1_000, 100_000)]
SIZES = [{"n_rows": n, "n_classes": K} for n, K in SHAPES]
WITH_SCIPY = [{"scikit-learn": "scipy"}.get(name, name) for name in races.CONTESTANTS]


def _arguments(operation, **more):
    return [{"operation": operation, **sizes, **more} for sizes in SIZES]


@entries(races_rows.softmax, _arguments("softmax"), races.CONTESTANTS)
def test_softmax(entry, contestant, timed):
    timed(entry, contestant)


@entries(races_rows.softmax, _arguments("log_softmax"), WITH_SCIPY)
def test_log_softmax(entry, contestant, timed):
    timed(entry, contestant)


@entries(races_rows.softmax, _arguments("softmax", in_place=True), races.CONTESTANTS)
def test_softmax_in_place(entry, contestant, timed):
    timed(entry, contestant)


@entries(races_rows.logsumexp, SIZES, WITH_SCIPY)
def test_logsumexp(entry, contestant, timed):
    timed(entry, contestant)


@entries(races_rows.softmax, _arguments("softmax", by_isa=True), (*races.ISAS, "numpy"))
def test_softmax_isas(entry, contestant, timed):
    timed(entry, contestant)


@entries(
    races_rows.cross_entropy_rows,
    SIZES,
    [name for name in races.CONTESTANTS if name != "scikit-learn"],
)
def test_cross_entropy(entry, contestant, timed):
    timed(entry, contestant)

"""Mini-batch gradient descent: an epoch, and the textbook's ten."""

import races
from harness import entries

SIZES = [{"n_rows": 60_000}]


@entries(races.sgd_epoch, SIZES, [name for name in races.CONTESTANTS if name != "scikit-learn"])
def test_epoch(entry, contestant, timed):
    timed(entry, contestant)


@entries(races.textbook, SIZES, (races.NATIVE, races.ONE_THREAD, "torch"))
def test_textbook(entry, contestant, timed):
    timed(entry, contestant)

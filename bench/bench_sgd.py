"""Mini-batch gradient descent: an epoch, and the textbook's ten."""

import races
import races_sgd
from harness import entries

WITHOUT = "scikit-learn"  # its SGDClassifier takes one row at a time, one class against the rest


@entries(
    races_sgd.sgd_epoch,
    [{"kind": "fashion", "sizes": (60_000,)}],
    [name for name in races.CONTESTANTS if name != WITHOUT],
)
def test_epoch(entry, contestant, timed):
    timed(entry, contestant)


@entries(
    races_sgd.sgd_epoch,
    [{"kind": "text", "sizes": (90_000, 200_000, 20)}],
    [name for name in races.CSR_CONTESTANTS if name != WITHOUT],
)
def test_epoch_csr(entry, contestant, timed):
    timed(entry, contestant)


@entries(races_sgd.textbook, [{"n_rows": 60_000}], (races.NATIVE, races.ONE_THREAD, "torch"))
def test_textbook(entry, contestant, timed):
    timed(entry, contestant)

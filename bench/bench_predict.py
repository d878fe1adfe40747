"""Probabilities of many rows, and of one."""

import races
from harness import entries


@entries(races.predict_proba, [{"n_rows": 60_000}, {"n_rows": 1}], races.CONTESTANTS)
def test_predict_proba(entry, contestant, timed):
    timed(entry, contestant)

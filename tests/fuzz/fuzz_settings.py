"""The number of examples of a fuzzing test."""

import os

from hypothesis import settings

FACTOR = float(os.environ.get("FASTSOFTMAX_FUZZ") or 1.0)


def examples(n):
    """Return the decorator of a test that tries n examples, or FASTSOFTMAX_FUZZ times as many."""
    return settings(max_examples=max(1, int(n * FACTOR)))

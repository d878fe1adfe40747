"""Surroundings of the pages' doctests."""

import pytest
from threadpoolctl import threadpool_limits


@pytest.fixture(autouse=True)
def one_thread():
    """Two threads that wait for each other are slow where the CPUs are busy."""
    with threadpool_limits(1):
        yield


@pytest.fixture(autouse=True)
def pictures_without_windows():
    """What a page draws goes nowhere."""
    try:
        from matplotlib import pyplot
    except ImportError:
        yield
        return
    before = pyplot.get_backend()
    pyplot.switch_backend("agg")
    yield
    pyplot.close("all")
    pyplot.switch_backend(before)

"""Properties that are computed once: for each instance, without waiting for other threads."""

import threading

from fastsoftmax.cached import cached_property


class Value:
    def __init__(self, wait=lambda: None):
        self.wait, self.n_computed = wait, 0

    @cached_property
    def double(self):
        """Twice the number of times."""
        self.wait()
        self.n_computed += 1
        return 2 * self.n_computed


def test_is_computed_once():
    value, other = Value(), Value()
    assert [value.double, value.double, other.double] == [2, 2, 2]
    assert value.n_computed == 1
    assert vars(value)["double"] == 2
    del value.double
    assert value.double == 4
    assert Value.double.__doc__ == "Twice the number of times."


def test_nobody_waits_for_another_instance():
    """That of functools has one lock for all, before Python 3.12."""
    begun, released = threading.Event(), threading.Event()

    def wait():
        begun.set()
        released.wait(60)

    slow = Value(wait)
    thread = threading.Thread(target=lambda: slow.double)
    thread.start()
    begun.wait(60)
    quick = []
    other = threading.Thread(target=lambda: quick.append(Value().double))
    other.start()
    other.join(30)
    released.set()
    thread.join()
    assert quick == [2]
    assert slow.double == 2

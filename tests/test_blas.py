"""The number of BLAS's threads: no bit depends on it, and it is left as it was."""

import ctypes
import os
import signal
import threading
import traceback
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from scipy import sparse
from threadpoolctl import ThreadpoolController, threadpool_limits

from fastsoftmax import FastSoftmax, FastSoftmaxCV, blas, fastsoftmax_path
from fastsoftmax.blas import inner, product, single_threaded_blas
from fastsoftmax.threads import answering_signals


def numbers():
    return [library.get() for library in blas._libraries().shared]


def set_numbers(n_threads):
    """Set them, whichever thread threadpoolctl lets set them."""
    for library in blas._libraries().shared:
        library.set(n_threads)


pytestmark = pytest.mark.skipif(
    not blas._libraries().shared, reason="no BLAS library whose threads can be counted"
)


@pytest.fixture(autouse=True)
def three_threads():
    """Three threads before each test, and afterwards."""
    before = numbers()
    set_numbers(3)
    if numbers() != [3] * len(before):
        set_numbers(before[0])
        pytest.skip("BLAS does not take the number of its threads")
    yield
    after = numbers()
    set_numbers(before[0])
    assert after == [3] * len(before)


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(3)
    return rng.normal(size=(400, 60)), rng.integers(4, size=400)


def seen(n_threads=3):
    return [n_threads] * len(numbers())


def test_products_are_numpys(rng):
    for n in (3, 300):
        a, b = rng.normal(size=(2, n, n))
        with threadpool_limits(1):
            expected = a @ b, np.vdot(a, b), a @ b[0]
        assert (product(a, b) == expected[0]).all()
        assert inner(a, b) == expected[1]
        assert (product(a, b[0]) == expected[2]).all()


def test_two_fits_at_once(rows):
    """threadpoolctl >= 3.8 lets one thread alone set the number: the other could not restore it."""
    expected = FastSoftmax(n_jobs=1).fit(*rows).coef_
    with ThreadPoolExecutor(2) as pool:
        for _ in range(10):
            for fitted in pool.map(lambda _: FastSoftmax(n_jobs=1).fit(*rows), range(2)):
                np.testing.assert_array_equal(fitted.coef_, expected)
            assert numbers() == seen()


@pytest.mark.parametrize("n_threads", [1, 2, 4])
def test_a_limit_of_another_thread(n_threads, rows):
    """The caller's thread controls threadpoolctl, and holds its own number."""
    rng = np.random.default_rng(0)
    wide = rng.normal(size=(300, 700)), rng.integers(3, size=300)
    expected = [FastSoftmax(n_jobs=1).fit(*some).coef_ for some in (rows, wide)]
    with ThreadPoolExecutor(1) as pool, threadpool_limits(n_threads, user_api="blas"):
        for some, coef in zip((rows, wide), expected, strict=True):
            fitted = pool.submit(FastSoftmax(n_jobs=1).fit, *some).result()
            np.testing.assert_array_equal(fitted.coef_, coef)
            assert numbers() == seen(n_threads)


def test_callbacks_see_their_own_number(rows):
    """So a limit that is entered in a callback, and left after the fit, restores the right one."""
    found, limits = [], []

    def callback(monitor):
        found.append(numbers())
        if not limits:
            limits.append(threadpool_limits(2, user_api="blas"))

    FastSoftmax().fit(*rows, callbacks=[callback])
    assert found[0] == seen()
    assert found[1:] == [seen(2)] * (len(found) - 1)
    assert numbers() == seen(2)
    limits[0].restore_original_limits()


def test_a_limit_in_the_middle_of_a_fit_in_another_thread(rows):
    """The limit is entered during the fit and left after it."""
    inside, go_on = threading.Event(), threading.Event()

    def callback(monitor):
        inside.set()
        go_on.wait(60)

    with ThreadPoolExecutor(1) as pool:
        fit = pool.submit(FastSoftmax().fit, *rows, callbacks=[callback])
        inside.wait(60)
        with threadpool_limits(1, user_api="blas"):
            go_on.set()
            fit.result()


@single_threaded_blas
def held(function):
    assert numbers() == seen(1)
    result = function()
    return result


class TestLimit:
    def test_nested(self):
        held(lambda: held(numbers))

    def test_errors(self):
        with pytest.raises(KeyError):
            held(lambda: {}[0])

    @pytest.mark.parametrize("first_to_leave", [0, 1])
    def test_the_last_restores(self, first_to_leave):
        starts, ends = ([threading.Event() for _ in range(2)] for _ in range(2))

        def wait(i):
            starts[i].set()
            ends[i].wait(60)

        with ThreadPoolExecutor(2) as pool:
            calls = []
            for i in range(2):
                calls.append(pool.submit(held, lambda i=i: wait(i)))
                starts[i].wait(60)
            ends[first_to_leave].set()
            calls[first_to_leave].result()
            assert numbers() == seen(1)
            ends[1 - first_to_leave].set()
            calls[1 - first_to_leave].result()

    def test_a_number_set_meanwhile_is_left(self):
        held(lambda: set_numbers(2))
        assert numbers() == seen(2)
        held(lambda: (set_numbers(4), held(numbers)))  # a product that begins then has one thread
        assert numbers() == seen(4)
        set_numbers(3)

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
    def test_a_child_forked_meanwhile(self):
        """By another thread: nobody is there to leave in the child."""
        reader, writer = os.pipe()

        def fork():
            child = os.fork()
            if child == 0:
                os.write(writer, bytes([numbers() == seen(), held(lambda: True)]))
                os._exit(0)
            return child

        with ThreadPoolExecutor(1) as pool:
            child = held(lambda: pool.submit(fork).result())
        assert os.waitpid(child, 0)[1] == 0
        assert os.read(reader, 2) == bytes([1, 1])
        os.close(reader)
        os.close(writer)

    @pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timers on this system")
    def test_interrupted_at_any_place(self):
        def interrupt(*args):
            raise KeyboardInterrupt

        old = signal.signal(signal.SIGALRM, interrupt)
        try:
            for i in range(300):
                try:
                    signal.setitimer(signal.ITIMER_REAL, 1e-6 * (1 + i))
                    while True:
                        held(lambda: None)
                except (KeyboardInterrupt, AssertionError):
                    pass
                assert numbers() == seen(), i
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, old)

    @pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="no signals to a thread")
    def test_an_interrupted_wait(self, ctrl_c):
        """What goes on computing, for nobody, does not keep the limit."""
        released, main = threading.Event(), threading.get_ident()

        def blocks():
            signal.pthread_kill(main, signal.SIGINT)
            released.wait(60)

        with pytest.raises(KeyboardInterrupt):
            answering_signals(10**4, blocks)
        assert numbers() == seen()
        released.set()


FITS = {
    "lbfgs": {},
    "centred": {"standardize": True},
    "newton": {"solver": "newton-cholesky"},
    "l1": {"l1_ratio": 0.5, "C": 0.1, "max_iter": 50},
    "no penalty": {"C": np.inf, "max_iter": 50},
    "no intercept": {"fit_intercept": False},
    "sgd": {"solver": "sgd", "max_iter": 2},
    "numpy": {"backend": "numpy"},
}


@pytest.fixture
def asked():
    """Products that OpenBLAS would share among threads, as it says where it can."""
    found = []
    job = ctypes.CFUNCTYPE(
        None, ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t, ctypes.c_void_p,
        ctypes.c_int,
    )  # fmt: skip

    def share(_sync, run, n_jobs, size, data, _flag):
        found.append(str(traceback.extract_stack(limit=3)[0]))
        call = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_void_p, ctypes.c_int)(run)
        with ThreadPoolExecutor(n_jobs) as pool:  # they wait for each other
            for i in range(n_jobs):
                pool.submit(call, i, data + i * size, _flag)

    kept, setters = job(share), []
    for controller in ThreadpoolController().select(user_api="blas").lib_controllers:
        for name in ("openblas_set_threads_callback_function",
                     "scipy_openblas_set_threads_callback_function64_"):  # fmt: skip
            if hasattr(controller.dynlib, name):
                setters.append(getattr(controller.dynlib, name))
    if not setters:
        pytest.skip("this BLAS does not tell")
    for setter in setters:
        setter.argtypes = [ctypes.c_void_p]
        setter(ctypes.cast(kept, ctypes.c_void_p))
    yield found
    for setter in setters:
        setter(None)


def test_large_products_are_noticed(asked, rng):
    a = rng.normal(size=(600, 600))
    a @ a[::-1]
    assert asked
    asked.clear()
    product(a, a[::-1])
    assert not asked


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("kind", ["tall", "wide", "large", "sparse"])
@pytest.mark.parametrize("name", FITS)
def test_no_product_of_a_fit_is_shared(name, kind, asked):
    shape = {"tall": (6000, 60), "wide": (200, 900), "large": (700, 600), "sparse": (900, 700)}
    n_classes = {"tall": 12, "wide": 3, "large": 20, "sparse": 20}[kind]
    if name in ("newton", "no penalty"):
        n_classes = 3 if kind == "tall" else 2
    rng = np.random.default_rng(1)
    X = rng.normal(size=shape[kind])
    if kind == "sparse":
        if FITS[name].get("standardize"):
            pytest.skip("sparse rows are not standardised")
        X = sparse.csr_array(X * (np.abs(X) > 1.5))
    y = rng.integers(n_classes, size=len(X) if kind != "sparse" else X.shape[0])
    FastSoftmax(n_jobs=1, **{"max_iter": 20, "tol": 1e-8, **FITS[name]}).fit(X, y)
    assert not asked


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_no_product_of_other_calls_is_shared(asked):
    rng = np.random.default_rng(1)
    X, y = rng.normal(size=(3000, 150)), rng.integers(6, size=3000)
    FastSoftmaxCV(Cs=[0.1, 1.0], cv=2, n_jobs=1).fit(X, y)
    fastsoftmax_path(X, y, Cs=[0.1, 1.0], n_jobs=1)
    FastSoftmax(C=np.inf, n_jobs=1).fit(X, y).statistics(X, y)
    FastSoftmax(n_jobs=1).partial_fit(X, y, classes=range(6))
    FastSoftmax(n_jobs=1).fit(X, np.eye(6)[y])
    assert not asked


GEVENT = """
from gevent import monkey
monkey.patch_all()
import gevent
import numpy as np
from fastsoftmax import FastSoftmax, blas

rng = np.random.default_rng(3)
X, y = rng.normal(size=(400, 60)), rng.integers(4, size=400)
for library in blas._libraries().shared:
    library.set(3)
state = lambda: [library.get() for library in blas._libraries().shared]
before = state()

def callback(monitor):
    gevent.sleep(0.001)
    assert state() == before

expected = FastSoftmax(n_jobs=1).fit(X, y).coef_
fits = [gevent.spawn(FastSoftmax(n_jobs=1).fit, X, y, callbacks=[callback]) for _ in range(4)]
gevent.sleep(0.002)
assert state() == before, "while they wait"
fits[0].kill()
gevent.joinall(fits[1:])
assert state() == before, "after one was killed"
assert all((fit.value.coef_ == expected).all() for fit in fits[1:])
print("done")
"""


def test_gevent(run_python):
    pytest.importorskip("gevent", reason="gevent is not installed")
    assert run_python(GEVENT) == "done\n"

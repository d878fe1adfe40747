"""What the tests of kernels share: instruction sets, problems, guarded memory, errors in ulp."""

import os
import signal
import subprocess
import sys
import warnings
import zlib
from pathlib import Path
from typing import NamedTuple

import pytest
from thinning import groups_of, repeats
from workers import one_thread_in_workers

with one_thread_in_workers():
    import numpy as np
    import scipy.linalg  # noqa: F401 (which has a BLAS of its own)
    from threadpoolctl import ThreadpoolController

import fastsoftmax

try:
    with one_thread_in_workers():
        from fastsoftmax import kernels as _kernels
except ImportError:
    _kernels = None

# Modules whose tests are about packaging, imports, commands and files: all of a sample.
WHOLE_IN_SAMPLES = ("test_import", "test_docs", "test_cli", "test_examples", "test_model_file")


def pytest_addoption(parser):
    parser.addoption(
        "--sample",
        action="store_true",
        help="of most modules of tests the first test only: for a package that is tested elsewhere",
    )


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config, items):
    """Mark as slow what repeats other tests with other combinations of their parameters."""
    ours = {i.nodeid: i for i in items if i.path.is_relative_to(Path(__file__).parent)}
    with_parameters = {
        # (its indices number the tests, not the values)
        name: {key: id(value) for key, value in item.callspec.params.items()}
        for name, item in ours.items()
        if hasattr(item, "callspec")
    }
    for group in groups_of(with_parameters.items()):
        for name in repeats(group):
            ours[name].add_marker(pytest.mark.slow)
    if not config.getoption("sample"):
        return
    quick = [i for i in ours.values() if i.get_closest_marker("slow") is None]
    first = {item.path: item.nodeid for item in reversed(quick)}
    left_out = [
        item
        for name, item in ours.items()
        if item.path.stem not in WHOLE_IN_SAMPLES and name != first.get(item.path)
    ]
    config.hook.pytest_deselected(items=left_out)
    names = {item.nodeid for item in left_out}
    items[:] = [item for item in items if item.nodeid not in names]


NOT_BUILT = "the compiled kernels were not built"
NO_ISA = [pytest.param(None, marks=pytest.mark.skip(reason=NOT_BUILT))]
ISAS = _kernels.available_isas() if _kernels else NO_ISA

# What X is stored as; "real": in the number type that is computed in.
STORAGES = ["real", "float32", "uint8", "int8", "float16"]

# Kinds of targets: n_classes, soft targets, one logit for two classes, label smoothing.
CASES = {
    "one class": (1, False, False, 0.0),
    "two classes": (2, False, False, 0.0),
    "one logit": (2, False, True, 0.0),
    "one logit, smoothed": (2, False, True, 0.1),
    "one logit, soft": (2, True, True, 0.0),
    "labels": (7, False, False, 0.0),
    "smoothed": (7, False, False, 0.1),
    "wholly smoothed": (5, False, False, 1.0),
    "soft": (7, True, False, 0.0),
    "soft, smoothed": (13, True, False, 0.3),
}


@pytest.fixture(scope="session")
def kernels():
    """The bridge to the compiled kernels."""
    if _kernels is None:
        pytest.skip(NOT_BUILT)
    return _kernels


@pytest.fixture(params=ISAS)
def isa(request):
    """Every instruction set that this CPU has."""
    return request.param


@pytest.fixture(params=[np.float32, np.float64], ids=["float32", "float64"])
def real(request):
    """The number type that is computed in."""
    return request.param


@pytest.fixture(params=STORAGES)
def storage(request, real):
    """The dtype of X."""
    dtype = np.dtype(real if request.param == "real" else request.param)
    if request.param != "real" and dtype == real:
        pytest.skip("this is the storage 'real'")
    return dtype


@pytest.fixture(params=CASES)
def case(request):
    """Kinds of targets, as keywords of make_problem."""
    names = ("n_classes", "soft", "one_logit", "smoothing")
    return dict(zip(names, CASES[request.param], strict=True))


@pytest.fixture
def rng(request):
    """Other random numbers in each test, the same in each run."""
    return np.random.default_rng(zlib.crc32(request.node.name.encode()))


# ---- problems


class Problem(NamedTuple):
    """Rows, targets and a model for them."""

    X: np.ndarray
    labels: np.ndarray | None
    target_probs: np.ndarray | None
    row_weights: np.ndarray
    label_smoothing: float
    weights: np.ndarray
    bias: np.ndarray
    n_classes: int

    @property
    def exact(self):
        """The same problem with every real number in float64."""
        reals = ("X", "target_probs", "row_weights", "weights", "bias")
        values = {name: getattr(self, name) for name in reals}
        return self._replace(
            **{name: v.astype(np.float64) for name, v in values.items() if v is not None}
        )

    def at(self, rows):
        """The problem of some rows."""
        per_row = ("X", "labels", "target_probs", "row_weights")
        values = {name: getattr(self, name) for name in per_row}
        return self._replace(**{name: v[rows] for name, v in values.items() if v is not None})

    @property
    def params(self):
        """Weights and after them the bias, in a new flat array."""
        return np.append(self.weights.ravel(), self.bias)

    def rows(self, module):
        """The rows and their targets, as a backend takes them."""
        targets = module.Targets(
            self.labels, self.target_probs, self.row_weights, self.label_smoothing, self.n_classes
        )
        return self.X, targets

    def whole(self, module):
        """The arguments of loss_grad after its outputs, in its order."""
        return (*self.rows(module), self.weights, self.bias)


@pytest.fixture(scope="session")
def thread_pools():
    """The thread pools of numpy and of the kernels."""
    return ThreadpoolController()


@pytest.fixture
def make_problem(rng, real, thread_pools):
    """A function that makes random problems with logits of about normal(0, spread).

    Meanwhile numpy multiplies in one thread: the products are small, and cores may be few.
    """

    def make(
        n, d, n_classes, soft=False, one_logit=False, smoothing=0.0, *, storage=real, spread=2.0
    ):
        storage = np.dtype(storage)
        padded = np.full((n, d + 3), np.nan if storage.kind == "f" else 99, dtype=storage)
        X = padded[:, 1 : d + 1]  # what is around it is not to be read
        if storage.kind == "f":
            X[...] = rng.standard_normal((n, d), dtype=np.float32)
            scale = 1.0
        else:
            info = np.iinfo(storage)
            X[...] = rng.integers(info.min, info.max, size=(n, d), endpoint=True)
            scale = 1 / 128
        n_logits = 1 if one_logit else n_classes
        scale *= spread / np.sqrt(max(1, d))
        return Problem(
            X,
            None if soft else rng.integers(n_classes, size=n).astype(np.int32),
            rng.dirichlet(np.ones(n_classes), n).astype(real) if soft else None,
            rng.choice([0.0, 0.5, 1.0, 3.0], n).astype(real),
            smoothing,
            rng.normal(0, scale, (n_logits, d)).astype(real),
            rng.normal(0, spread / 4, n_logits).astype(real),
            n_classes,
        )

    with thread_pools.limit(limits=1, user_api="blas"):
        yield make


# ---- outputs


class Guarded:
    """An output with memory around it that is not to be written to."""

    def __init__(self, shape, dtype, contiguous):
        columns = np.atleast_1d(shape)[-1]
        length = int(np.prod(shape)) if contiguous else shape[0] * (columns + 5)
        self._memory = np.full(length + 22, -77, dtype=dtype)
        inside = np.zeros(self._memory.shape, dtype=bool)
        self.array, self._inside = (
            memory[11:-11].reshape(shape)
            if contiguous
            else memory[11:-11].reshape(shape[0], columns + 5)[:, :columns]
            for memory in (self._memory, inside)
        )
        self.array[...] = np.nan
        self._inside[...] = True
        self._outside = ~inside

    def checked(self):
        """The array, after a look at what is around it."""
        assert (self._memory[self._outside] == -77).all(), "written outside of the output"
        return self.array


@pytest.fixture
def guarded(real):
    """A function that makes guarded outputs full of NaN: arrays, or rows that lie apart."""

    def make(shape, dtype=real, *, contiguous=None):
        return Guarded(shape, dtype, np.ndim(shape) == 0 if contiguous is None else contiguous)

    return make


# ---- errors


def _ulps(actual, exact, scale=None):
    """The largest of |actual - exact| in units of the last place of scale (left out: of exact).

    Infinities and NaN must be the same in both.
    """
    exact = np.asarray(exact)
    assert actual.shape == exact.shape
    finite = np.isfinite(exact)
    np.testing.assert_array_equal(actual[~finite], exact[~finite])
    if not finite.any():
        return 0.0
    scale = np.abs(exact if scale is None else np.broadcast_to(scale, exact.shape))[finite]
    largest = np.finfo(actual.dtype).max / 1.5  # numpy overflows in the spacing of the very largest
    unit = np.spacing(np.minimum(scale, largest).astype(actual.dtype)).astype(np.longdouble)
    return float(np.max(np.abs(actual[finite] - exact[finite]) / unit))


@pytest.fixture(scope="session")
def ulps():
    """The measure of errors."""
    return _ulps


# ---- other processes and signals


@pytest.fixture
def ctrl_c():
    """Python's own handler of SIGINT, which it lacks where a shell ignores that (``nohup ... &``).

    Children of the test have to set it themselves.
    """
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session")
def run_python():
    """A function that runs code in a new interpreter, with this package, and returns its output.

    What hangs is ended after two minutes, with its children, and the test fails.
    """

    def run(code, *arguments, **environment):
        package = str(Path(fastsoftmax.__file__).parents[1])
        paths = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))
        process = subprocess.Popen(
            [sys.executable, "-P", "-c", code, *arguments],
            env={**os.environ, "PYTHONPATH": paths, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            output, errors = process.communicate(timeout=120)
        except subprocess.TimeoutExpired:
            if os.name == "posix":
                os.killpg(process.pid, signal.SIGKILL)
            process.kill()
            process.communicate()
            raise
        assert process.returncode == 0, errors
        return output

    return run


@pytest.fixture(scope="module")
def cluster():
    """A Dask cluster of two processes with one thread each."""
    import dask
    from distributed import LocalCluster

    with warnings.catch_warnings(), dask.config.set({"distributed.admin.tick.limit": "60 s"}):
        warnings.simplefilter("ignore")
        with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
            yield cluster


@pytest.fixture(scope="module")
def client(cluster):
    """The current client, of that cluster."""
    from distributed import Client

    with Client(cluster) as client:
        yield client

"""Fits that write checkpoints, and fits that go on from them."""

import errno
import os
import signal
import subprocess
import sys
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
from refused_rows import other_rows
from scipy import sparse
from sklearn import config_context
from sklearn.datasets import load_digits
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from fastsoftmax import FastSoftmax, archives
from fastsoftmax._estimator import checkpoint as checkpoints
from fastsoftmax.data_sources import NpyFiles
from fastsoftmax.optimum import float32_copy

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

LBFGS = {"solver": "lbfgs", "C": 0.01, "tol": 1e-6}


@pytest.fixture
def always(monkeypatch):
    """Write after every iteration, however long that takes."""
    monkeypatch.setattr(checkpoints, "SECONDS", 0.0)
    monkeypatch.setattr(checkpoints, "SHARE", np.inf)


@pytest.fixture(scope="module")
def digits():
    return load_digits(return_X_y=True)


@pytest.fixture(scope="module")
def text():
    """Sparse rows, most of whose columns are empty."""
    rng = np.random.default_rng(0)
    X = sparse.random(600, 4500, 0.02, random_state=rng, format="csr", dtype=np.float32)
    y = np.asarray((X @ rng.normal(size=(4500, 3))).argmax(axis=1))
    empty = sparse.csr_array((600, 1500), dtype=np.float32)
    return sparse.csr_array(sparse.hstack([X, empty])), y


class Interrupted(BaseException):
    """Stands for Ctrl-C."""


def at_iteration(n, act):
    def callback(state):
        if state.iteration == n:
            act()

    return callback


def interrupt():
    raise Interrupted


def interrupted(path, n, X, y, weights=None, *, model=None, **parameters):
    """Fit until iteration n, which is interrupted; returns the model."""
    model = FastSoftmax(**parameters) if model is None else model
    with pytest.raises(Interrupted):
        model.fit(X, y, weights, callbacks=[at_iteration(n, interrupt)], checkpoint=path)
    return model


def assert_same(model, other):
    np.testing.assert_array_equal(model.coef_, other.coef_)
    np.testing.assert_array_equal(model.intercept_, other.intercept_)
    assert model.gap_ == other.gap_
    assert model.objective_ == other.objective_
    assert model.n_iter_ == other.n_iter_
    assert model.converged_ == other.converged_
    for name, values in model.history_.items():
        if name != "seconds":
            assert values == other.history_[name], name
    assert len(model.history_["seconds"]) == model.n_iter_[0]


@pytest.mark.parametrize(
    "parameters",
    [
        LBFGS,
        {**LBFGS, "C": np.inf, "max_iter": 40},
        {**LBFGS, "fit_intercept": False},
        {**LBFGS, "standardize": True, "class_weight": "balanced", "label_smoothing": 0.1},
        {"solver": "newton-cholesky", "tol": 1e-9, "few": 400},
        {**LBFGS, "real": np.float32, "tol": 1e-8, "few": 400},
        {**LBFGS, "few": 50},
        {**LBFGS, "in_float32": 4},
        {**LBFGS, "in_float32": 99},
        {**LBFGS, "in_float32": 4, "few": 50, "tol": 1e-4},
    ],
    ids=[
        *("lbfgs", "unpenalised", "no intercept", "scaled", "newton", "centred", "few rows"),
        *("float32", "float32 later", "few rows in float32"),
    ],
)
def test_the_same_bits(digits, tmp_path, parameters, monkeypatch):
    """A fit that was interrupted ends as one that was not, whichever stage it was in."""
    X, y = digits
    parameters = dict(parameters)
    is_copied = "in_float32" in parameters
    if is_copied:
        monkeypatch.setattr(float32_copy, "_LEAST_NUMBERS", 0)
        monkeypatch.setattr(float32_copy, "_LEAST_LOGITS", parameters.pop("in_float32"))
    X = X.astype(parameters.pop("real", np.float64))
    few = parameters.pop("few", len(X))
    X, y = X[:few], y[:few]
    whole = FastSoftmax(**parameters).fit(X, y)
    n_iter, path = int(whole.n_iter_[0]), tmp_path / "a"
    for n in {2, n_iter // 2, n_iter} | ({*range(5, 12), n_iter - 1} if is_copied else set()):
        first = interrupted(path, n, X, y, **parameters)
        assert first.n_iter_[0] == n
        model = FastSoftmax(**parameters).fit(X, y, resume=path)
        assert_same(model, whole)


def test_elastic_nets(digits, text, tmp_path):
    """In a working set, too; the Hessian's blocks are of a later point, so the bits differ."""
    path = tmp_path / "a"
    for (X, y), C in ((digits, 0.1), (text, 10.0)):
        parameters = {"l1_ratio": 0.7, "C": C, "tol": 1e-5}
        whole = FastSoftmax(**parameters).fit(X, y)
        n_iter = int(whole.n_iter_[0])
        for n in (3, n_iter // 2, n_iter - 1):
            interrupted(path, n, X, y, **parameters)
            model = FastSoftmax(**parameters).fit(X, y, resume=path)
            assert model.converged_ and model.gap_ <= 1e-5
            assert abs(model.objective_ / whole.objective_ - 1.0) <= 1e-5
            assert model.n_iter_[0] <= 1.1 * n_iter + 3


def test_sparse_columns(text, tmp_path):
    X, y = text
    whole = FastSoftmax(C=10.0, tol=1e-6).fit(X, y)
    interrupted(tmp_path / "a", 5, X, y, C=10.0, tol=1e-6)
    model = FastSoftmax(C=10.0, tol=1e-6).fit(X, y, resume=tmp_path / "a")
    assert_same(model, whole)


def test_small_problems(digits, tmp_path):
    """Fits of milliseconds are Newton's method in one call."""
    X, y = digits[0][:, 20:30], digits[1] % 2
    whole = FastSoftmax(tol=1e-9).fit(X, y)
    interrupted(tmp_path / "a", 3, X, y, tol=1e-9)
    model = FastSoftmax(tol=1e-9).fit(X, y, resume=tmp_path / "a")
    assert model.n_iter_ == whole.n_iter_ and model.converged_
    np.testing.assert_allclose(model.coef_, whole.coef_, rtol=1e-9)
    with pytest.raises(ValueError, match="of other data: the objective at its point was"):
        FastSoftmax(tol=1e-9).fit(X, y[::-1], resume=tmp_path / "a")


# ---- processes that are killed

CHILD = """
import os, signal, sys
import numpy as np
from fastsoftmax import FastSoftmax
from fastsoftmax._estimator import checkpoint

checkpoint.SECONDS, checkpoint.SHARE = 0.0, np.inf
folder, n, out_of_core = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "files"
X, y = np.load(folder + "/X.npy"), np.load(folder + "/y.npy")
X = folder + "/parts" if out_of_core else X

def kill(state):
    if state.iteration == n:
        os.kill(os.getpid(), signal.SIGKILL)

model = FastSoftmax(solver="lbfgs", C=0.01, tol=1e-6)
model.fit(X, y, callbacks=[kill], checkpoint=folder + "/checkpoint")
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
@pytest.mark.parametrize("where", ["memory", "files"])
def test_a_killed_process(digits, tmp_path, where):
    X, y = digits
    np.save(tmp_path / "X.npy", X)
    np.save(tmp_path / "y.npy", y)
    (tmp_path / "parts").mkdir()
    for i, part in enumerate(np.array_split(X, 5)):
        np.save(tmp_path / "parts" / f"{i}.npy", part)
    rows = X if where == "memory" else tmp_path / "parts"
    whole = FastSoftmax(**LBFGS).fit(rows, y)
    n_iter, path = int(whole.n_iter_[0]), tmp_path / "checkpoint"
    given = [sys.executable, "-c", CHILD, str(tmp_path), str(n_iter // 2), where]
    done = subprocess.run(given, check=False, env={**os.environ, "PYTHONPATH": _path()})
    assert done.returncode == -signal.SIGKILL
    seen = []
    model = FastSoftmax(**LBFGS).fit(rows, y, resume=path, callbacks=[seen.append])
    assert_same(model, whole)
    # the iteration that was killed is the only one that was made twice
    assert n_iter // 2 + len(seen) == n_iter + 1


def _path():
    return os.pathsep.join([str(Path(archives.__file__).parents[1]), *sys.path])


def test_where_rows_are_does_not_matter(digits, tmp_path):
    """What was begun in memory goes on from files, to rounding, with a certificate of its own."""
    X, y = digits
    np.save(tmp_path / "X.npy", X)
    interrupted(tmp_path / "a", 30, X, y, **LBFGS)
    source = NpyFiles([tmp_path / "X.npy"], y, block_bytes=10000)
    model = FastSoftmax(**LBFGS).fit(source, resume=tmp_path / "a")
    whole = FastSoftmax(**LBFGS).fit(X, y)
    assert model.converged_
    assert model.n_iter_[0] <= 1.1 * whole.n_iter_[0] + 3
    assert abs(model.objective_ / whole.objective_ - 1.0) <= 1e-6


def test_a_certificate_is_of_the_data_of_now(digits, tmp_path):
    """What changes no value at the point that was left is not refused, and spoils no bound.

    Certificates take the gradient of the best model without weights, which a checkpoint holds. It
    was believed although the data had changed where coefficients are 0.
    """
    X, y = digits
    assert not X[:, 0].any()
    other, path = X.copy(), tmp_path / "a"
    other[:, 0] = 10.0 * (y % 3 == 0)
    parameters = {**LBFGS, "C": 1e-4, "max_iter": 3}
    interrupted(path, 4, X, y, **parameters | {"max_iter": 9})
    gap = FastSoftmax(**parameters).fit(other, y, resume=path).gap_
    with zipfile.ZipFile(path) as archive:
        members = {entry: archive.read(entry) for entry in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for entry, data in members.items():
            if not entry.removesuffix(".npy").endswith(".base"):
                archive.writestr(entry, data)
    without = FastSoftmax(**parameters).fit(other, y, resume=path)
    assert without.n_iter_ == 3
    np.testing.assert_allclose(gap, without.gap_, rtol=1e-9)


# ---- what is refused


class TestRefused:
    @pytest.fixture
    def path(self, digits, tmp_path):
        interrupted(tmp_path / "a", 8, *digits, **LBFGS)
        return tmp_path / "a"

    def refuse(self, path, message, X, y, weights=None, **parameters):
        """The file and the model stay as they were."""
        before = path.read_bytes()
        model = FastSoftmax(**{**LBFGS, **parameters})
        with pytest.raises(ValueError, match=message):
            model.fit(X, y, weights, resume=path, checkpoint=path)
        assert path.read_bytes() == before
        assert not [name for name in vars(model) if name.endswith("_")]

    def test_other_data(self, path, digits):
        X, y = digits
        for message, *arrays in other_rows(X, y):
            self.refuse(path, message, *arrays)
        weights = np.ones(len(y))
        weights[0] = 2.0
        self.refuse(path, "the sum of the weights was 1797.0 and is 1798.0", X, y, weights)
        weights[y == y[0]] += 1.0 - weights[y == y[0]].mean()
        self.refuse(path, "of other data: the objective at its point", X, y, weights)

    def test_other_parameters(self, path, digits):
        self.refuse(path, "C was 0.01 and is 2.0", *digits, C=2.0)
        self.refuse(path, "solver was 'lbfgs' and is 'owlqn'", *digits, solver="auto", l1_ratio=0.5)
        self.refuse(path, "solver was 'lbfgs' and is 'newton-ch", *digits, solver="newton-cholesky")
        self.refuse(path, "fit_intercept was 1.0 and is 0.0", *digits, fit_intercept=False)
        self.refuse(path, "input_scale was 1.0 and is 2.0", *digits, input_scale=2.0)
        self.refuse(path, "standardize", *digits, standardize=True)
        self.refuse(path, "label_smoothing", *digits, label_smoothing=0.1)
        self.refuse(path, "the s", *digits, class_weight={0: 2.0})
        self.refuse(path, "another kind of fit", *digits, early_stopping=True, random_state=0)

    def test_damaged_files(self, path, digits):
        sound = path.read_bytes()
        for n in (0, 10, len(sound) // 2, len(sound) - 1):
            path.write_bytes(sound[:n])
            self.refuse(path, "is no checkpoint, or it is damaged", *digits)
        for place in range(100, len(sound) - 100, len(sound) // 15):
            other = bytearray(sound)
            other[place] ^= 0x40
            path.write_bytes(other)
            try:
                model = FastSoftmax(**LBFGS).fit(*digits, resume=path)
            except ValueError as error:
                assert str(path) in str(error)
            else:  # (of a header of the archive that nobody reads)
                assert model.converged_

    @pytest.mark.parametrize("name", ["point", "value", "n_iter", "gamma", "progress", "history"])
    def test_what_is_missing(self, path, digits, name):
        with zipfile.ZipFile(path) as archive:
            members = {entry: archive.read(entry) for entry in archive.namelist()}
        with zipfile.ZipFile(path, "w") as archive:
            for entry, data in members.items():
                if name not in entry.removesuffix(".npy").split("."):
                    archive.writestr(entry, data)
        self.refuse(path, "is damaged, or of another kind of fit: it lacks", *digits)

    def test_other_files(self, path, digits, tmp_path):
        FastSoftmax().fit(*digits).save(path)
        self.refuse(path, "is no checkpoint, or it is damaged", *digits)
        arrays = {"format": np.array(checkpoints.FORMAT), "format_version": np.array(99)}
        with open(path, "wb") as opened:
            archives.write_arrays(opened, {**arrays, "fastsoftmax_version": np.array("7.0")})
        self.refuse(path, "it has format 99, of fastsoftmax 7.0", *digits)
        with pytest.raises(FileNotFoundError, match="resume names a checkpoint that there is not"):
            FastSoftmax().fit(*digits, resume=tmp_path / "missing")

    def test_arguments(self, digits, tmp_path):
        for name in ("checkpoint", "resume"):
            with pytest.raises(TypeError, match=f"{name} must be a path, got 3"):
                FastSoftmax().fit(*digits, **{name: 3})
        with pytest.raises(ValueError, match="checkpoint must be the path of a file"):
            FastSoftmax().fit(*digits, checkpoint=tmp_path)
        with pytest.raises(ValueError, match="cannot be written: No such file"):
            FastSoftmax().fit(*digits, checkpoint=tmp_path / "missing" / "a")
        with pytest.raises(ValueError, match="needs an integer random_state"):
            FastSoftmax(early_stopping=True).fit(*digits, checkpoint=tmp_path / "a")


# ---- writing


def test_a_full_disk(digits, tmp_path, monkeypatch, always):
    """The old state stays, the fit goes on with a warning, and nothing is left beside it."""
    X, y = digits
    path, n_written = tmp_path / "a", [0]

    def write(opened, arrays):
        n_written[0] += 1
        if n_written[0] > 5:
            opened.write(b"half of it")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written(opened, arrays)

    written = checkpoints.write_arrays
    monkeypatch.setattr(checkpoints, "write_arrays", write)
    with pytest.warns(UserWarning, match="could not be written. The earlier .* remains.* No space"):
        whole = FastSoftmax(**LBFGS).fit(X, y, checkpoint=path)
    assert whole.converged_
    assert os.listdir(tmp_path) == ["a"]
    monkeypatch.setattr(checkpoints, "write_arrays", written)
    seen = []
    model = FastSoftmax(**LBFGS).fit(X, y, resume=path, callbacks=[seen.append])
    assert_same(model, whole)
    assert seen[0].iteration == 5  # written: the start, and four iterations


def test_remains_of_a_killed_writer_are_removed(digits, tmp_path):
    remains = tmp_path / f".a.{'0f' * 8}.tmp"
    others = [tmp_path / ".a.tmp", tmp_path / f".b.{'0f' * 8}.tmp"]
    for path in (remains, *others):
        path.write_bytes(b"...")
    FastSoftmax().fit(*digits, checkpoint=tmp_path / "a")
    assert not remains.exists()
    assert all(path.exists() for path in others)


@pytest.mark.parametrize(
    ("seconds_each", "at"),
    [(1.0, [1.0, 4.025, 7.05, 8.075]), (100.0, [100.0, 200.025, 300.05, 400.075])],
    ids=["writing takes long", "seldom enough"],
)
def test_how_often(digits, tmp_path, monkeypatch, seconds_each, at):
    """Seconds apart, and less often where writing takes long; always at the end."""
    clock = Clock(monkeypatch, writing=0.025)
    monkeypatch.setattr(checkpoints, "SHARE", 0.01)
    FastSoftmax(solver="lbfgs", max_iter=8).fit(
        *digits, callbacks=[lambda state: clock.tick(seconds_each)], checkpoint=tmp_path / "a"
    )
    np.testing.assert_allclose(clock.written_at[: len(at)], at)
    assert clock.written_at[-1] >= 8 * seconds_each


def test_short_fits_are_written_more_often(digits, tmp_path, monkeypatch):
    """Not in the first moment; then as often as the share of what may be lost says."""
    clock = Clock(monkeypatch, writing=0.0)
    FastSoftmax(**LBFGS).fit(
        *digits, callbacks=[lambda state: clock.tick(0.1)], checkpoint=tmp_path / "a"
    )
    np.testing.assert_allclose(clock.written_at[:3], [0.3, 0.4, 0.5])
    gaps, n = np.diff(clock.written_at), len(clock.written_at)
    assert n > 30
    assert (gaps <= checkpoints._LOST * np.array(clock.written_at[:-1]) + 0.1001).all()


class Clock:
    """Stands for the time and the writing of files."""

    def __init__(self, monkeypatch, writing):
        self.now, self.written_at, self._writing = 0.0, [], writing
        monkeypatch.setattr(checkpoints.time, "monotonic", lambda: self.now)
        monkeypatch.setattr(checkpoints, "write_arrays", self._write)

    def tick(self, seconds):
        self.now += seconds

    def _write(self, opened, arrays):
        self.written_at.append(self.now)
        self.now += self._writing


# ---- what goes on


def test_ctrl_c_then_resume(digits, tmp_path):
    """The state is that of the last iteration, not of some seconds before."""
    X, y = digits
    whole = FastSoftmax(**LBFGS).fit(X, y)
    path = tmp_path / "a"
    with pytest.raises(KeyboardInterrupt):
        FastSoftmax(**LBFGS).fit(X, y, checkpoint=path, callbacks=[at_iteration(9, _ctrl_c)])
    model = FastSoftmax(**LBFGS).fit(X, y, checkpoint=path, resume=path)
    assert_same(model, whole)


def _ctrl_c():
    raise KeyboardInterrupt


def test_the_end_state_stays(digits, tmp_path):
    """A fit that has ended goes on to a smaller tolerance, or ends at once."""
    X, y = digits
    path = tmp_path / "a"
    first = FastSoftmax(**LBFGS).fit(X, y, checkpoint=path)
    seen = []
    again = FastSoftmax(**LBFGS).fit(X, y, resume=path, callbacks=[seen.append])
    assert not seen
    assert_same(again, first)
    finer = FastSoftmax(**{**LBFGS, "tol": 1e-9}).fit(X, y, resume=path)
    assert finer.gap_ <= 1e-9
    whole = FastSoftmax(**{**LBFGS, "tol": 1e-9}).fit(X, y)
    assert finer.n_iter_[0] <= 1.1 * whole.n_iter_[0] + 3


def test_max_iter_counts_both(digits, tmp_path):
    X, y = digits
    path, whole = tmp_path / "a", FastSoftmax(**LBFGS).fit(X, y)
    for most in (0, 7, 15, 15):
        model = FastSoftmax(**{**LBFGS, "max_iter": most})
        model.fit(X, y, checkpoint=path, resume=path if path.exists() else None)
        assert model.n_iter_[0] == len(model.history_["loss"]) == most
        assert not model.converged_
    fewer = FastSoftmax(**{**LBFGS, "max_iter": 3}).fit(X, y, resume=path)
    assert fewer.n_iter_[0] == 15
    assert_same(FastSoftmax(**LBFGS).fit(X, y, resume=path), whole)


def test_eval_set_and_early_stopping(digits, tmp_path):
    X, y = digits
    path = tmp_path / "a"
    for parameters in ({"early_stopping": True, "random_state": 3}, {}):
        parameters = {"solver": "lbfgs", "C": 1e4, **parameters}
        sets = (
            None if parameters.get("early_stopping") else [(X[:50], y[:50]), (X[50:90], y[50:90])]
        )
        whole = FastSoftmax(**parameters).fit(X, y, eval_set=sets)
        with pytest.raises(Interrupted):
            FastSoftmax(**parameters).fit(
                X, y, eval_set=sets, checkpoint=path, callbacks=[at_iteration(6, interrupt)]
            )
        model = FastSoftmax(**parameters).fit(X, y, eval_set=sets, resume=path)
        assert_same(model, whole)
    assert len(model.history_["eval_loss"][0]) == 2


def test_an_interruption_before_the_first_iteration(digits, tmp_path):
    """The model has the coefficients of the checkpoint."""
    X, y = digits
    path, n_reads = tmp_path / "a", [0]
    first = interrupted(path, 12, X, y, **LBFGS)

    def batches():
        n_reads[0] += 1
        if n_reads[0] == 2:
            raise Interrupted
        yield X, y

    model = FastSoftmax(**LBFGS)
    with pytest.raises(Interrupted):
        model.fit(batches, resume=path, checkpoint=path)
    assert model.n_iter_[0] == 11  # that of the interruption had no state yet
    assert first.n_iter_[0] == 12
    assert model.score(X, y) > 0.9
    assert FastSoftmax(**LBFGS).fit(X, y, resume=path).converged_
    FastSoftmax(**{**LBFGS, "max_iter": 0}).fit(X, y, checkpoint=path)
    n_reads[0] = 0
    with pytest.raises(Interrupted):
        FastSoftmax(**LBFGS).fit(batches, resume=path)
    model = FastSoftmax(**LBFGS).fit(X, y, resume=path)
    assert_same(model, FastSoftmax(**LBFGS).fit(X, y))


def test_warm_start_gives_way(digits, tmp_path):
    X, y = digits
    whole = FastSoftmax(**LBFGS).fit(X, y)
    interrupted(tmp_path / "a", 12, X, y, **LBFGS)
    model = FastSoftmax(**LBFGS, warm_start=True).fit(X, y)
    assert_same(model.fit(X, y, resume=tmp_path / "a"), whole)


class TestSgd:
    @pytest.mark.parametrize("real", [np.float32, np.float64])
    def test_the_same_bits(self, digits, tmp_path, real):
        """Velocity, random numbers and the rows that are held out are as they were."""
        X, y = digits[0].astype(real), digits[1]
        path = tmp_path / "a"
        parameters = {
            "solver": "sgd",
            "max_iter": 6,
            "momentum": 0.9,
            "learning_rate": 1e-3,
            "early_stopping": True,
            "n_iter_no_change": 9,
            "random_state": 0,
        }
        whole = FastSoftmax(**parameters).fit(X, y)
        interrupted(path, 4, X, y, **parameters)
        model = FastSoftmax(**parameters).fit(X, y, resume=path)
        assert_same(model, whole)
        for name, value in {"batch_size": 3, "momentum": 0.0, "random_state": 1}.items():
            with pytest.raises(ValueError, match=f"{name} was"):
                FastSoftmax(**{**parameters, name: value}).fit(X, y, resume=path)

    def test_other_rows(self, digits, tmp_path):
        X, y = digits
        path = tmp_path / "a"
        model = FastSoftmax(solver="sgd", max_iter=2, learning_rate=1e-3)
        model.fit(X, y, checkpoint=path)
        assert model.fit(X, y, resume=path).n_iter_[0] == 2
        with pytest.raises(ValueError, match="the length of the gradient where weights are 0 was"):
            model.fit(X[::-1], y, resume=path)

    def test_what_is_not_supported(self, digits, tmp_path):
        path = tmp_path / "a"
        with pytest.raises(ValueError, match="solver='sgd' has no checkpoints of batches"):
            FastSoftmax(solver="sgd").fit([digits], checkpoint=path)
        rng = np.random.RandomState(np.random.PCG64(0))
        with pytest.raises(ValueError, match="random_state must be None"):
            FastSoftmax(solver="sgd", random_state=rng).fit(*digits, checkpoint=path)


def test_in_a_pipeline(digits, tmp_path):
    X, y = digits
    path = tmp_path / "a"
    with config_context(enable_metadata_routing=True):
        model = FastSoftmax(tol=1e-3).set_fit_request(checkpoint=True, resume=True)
        pipeline = make_pipeline(StandardScaler(), model)
        pipeline.fit(X, y, checkpoint=str(path))
        again = pipeline.fit(X, y, resume=str(path))
    assert again[-1].converged_


def test_nothing_changes_by_writing(digits, tmp_path):
    X, y = digits
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_same(
            FastSoftmax(**LBFGS).fit(X, y, checkpoint=tmp_path / "a"),
            FastSoftmax(**LBFGS).fit(X, y),
        )
    assert os.listdir(tmp_path) == ["a"]

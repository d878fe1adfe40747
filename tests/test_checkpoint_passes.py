"""How often the rows are read by a fit that is killed and the fit that goes on from it."""

import os
import signal
import subprocess
import sys
import zipfile
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from refused_rows import other_rows
from scipy import sparse
from sklearn.datasets import load_digits

from fastsoftmax import FastSoftmax, archives
from fastsoftmax._estimator import checkpoint as checkpoints
from fastsoftmax.data_sources import NpyFiles
from fastsoftmax.shards.dense_shard import DenseShard

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

N_BATCHES = 5


class Interrupted(BaseException):
    """Stands for SIGKILL; the file is that of the last write, which is after every iteration."""


@pytest.fixture(autouse=True)
def always(monkeypatch):
    """Write after every iteration, however long that takes."""
    monkeypatch.setattr(checkpoints, "SECONDS", 0.0)
    monkeypatch.setattr(checkpoints, "SHARE", np.inf)


class Batches:
    """Batches that are counted, and that break off after some of them."""

    def __init__(self, X, y, weights=None):
        arrays = [array for array in (X, y, weights) if array is not None]
        cuts = [X.shape[0] * i // N_BATCHES for i in range(N_BATCHES + 1)]
        self._parts = [tuple(array[a:b] for array in arrays) for a, b in pairwise(cuts)]
        self.n_read, self.most = 0, np.inf

    def __call__(self):
        for part in self._parts:
            if self.n_read >= self.most:
                raise Interrupted
            self.n_read += 1
            yield part


def digits(dtype=np.float64):
    X, y = load_digits(return_X_y=True)
    return X.astype(dtype), y


def text():
    """Sparse rows, most of whose columns are empty."""
    rng = np.random.default_rng(0)
    X = sparse.random(600, 4500, 0.02, random_state=rng, format="csr", dtype=np.float32)
    y = np.asarray((X @ rng.normal(size=(4500, 3))).argmax(axis=1))
    return sparse.csr_array(sparse.hstack([X, sparse.csr_array((600, 1500), dtype="f4")])), y


LBFGS = {"solver": "lbfgs", "C": 0.01, "tol": 1e-6}
PROBLEMS = {
    "dense": (digits, {**LBFGS, "C": 1e-3}),
    "refined": (digits, LBFGS),
    "names": (lambda: (digits()[0], digits()[1].astype("U")), LBFGS),
    "balanced": (digits, {**LBFGS, "class_weight": "balanced"}),
    "standardised": (digits, {**LBFGS, "standardize": True, "fit_intercept": False}),
    "centred": (lambda: digits(np.float32), {**LBFGS, "C": 0.1, "tol": 1e-9}),
    "sparse": (text, {**LBFGS, "C": 10.0}),
    "elastic net": (digits, {"l1_ratio": 0.7, "C": 0.1, "tol": 1e-4}),
}


@pytest.mark.parametrize("name", PROBLEMS)
def test_rows_are_read_once_to_go_on(tmp_path, name):
    """Both fits read as much as one, and again what the pass had read that was killed."""
    make, parameters = PROBLEMS[name]
    batches, path = Batches(*make()), tmp_path / "a"
    whole = FastSoftmax(**parameters).fit(batches)
    alone = batches.n_read
    assert alone >= 12 * N_BATCHES
    for share in (0.3, 0.6, 0.95):
        batches.n_read, batches.most = 0, int(share * alone) // N_BATCHES * N_BATCHES + 3
        with pytest.raises(Interrupted):
            FastSoftmax(**parameters).fit(batches, checkpoint=path)
        lost = batches.n_read % N_BATCHES
        assert lost == 3
        batches.most = np.inf
        model = FastSoftmax(**parameters).fit(batches, resume=path)
        if name == "elastic net":  # (not to the last bit: the next point may be another one)
            assert batches.n_read <= alone + lost + N_BATCHES
            continue
        assert batches.n_read == alone + lost
        np.testing.assert_array_equal(model.coef_, whole.coef_)
        np.testing.assert_array_equal(model.intercept_, whole.intercept_)
        assert model.gap_ == whole.gap_
        assert model.n_iter_ == whole.n_iter_


def test_killed_again_and_again(tmp_path):
    """Each fit that goes on loses what it had begun to read, and nothing else."""
    X, y = digits()
    path, batches = tmp_path / "a", Batches(X, y)
    whole = FastSoftmax(**LBFGS).fit(batches)
    alone, lost = batches.n_read, 0
    batches.n_read, batches.most = 0, 3 * N_BATCHES + 1
    with pytest.raises(Interrupted):
        FastSoftmax(**LBFGS).fit(batches, checkpoint=path)
    lost += 1
    for _ in range(3):
        batches.most = batches.n_read + 4 * N_BATCHES + 2
        with pytest.raises(Interrupted):
            FastSoftmax(**LBFGS).fit(batches, checkpoint=path, resume=path)
        lost += 2
    batches.most = np.inf
    model = FastSoftmax(**LBFGS).fit(batches, checkpoint=path, resume=path)
    assert batches.n_read == alone + lost
    np.testing.assert_array_equal(model.coef_, whole.coef_)


CHILD = """
import os, signal, sys
import numpy as np
from fastsoftmax import FastSoftmax
from fastsoftmax._estimator import checkpoint
from fastsoftmax.data_sources import NpyFiles, npy

checkpoint.SECONDS, checkpoint.SHARE = 0.0, np.inf
folder, most = sys.argv[1], int(sys.argv[2])
n_read, read = 0, npy._File.read

def counting(*args):
    global n_read
    if n_read == most:
        os.kill(os.getpid(), signal.SIGKILL)
    n_read += 1
    return read(*args)

npy._File.read = counting
model = FastSoftmax(solver="lbfgs", C=0.01, tol=1e-6)
model.fit(folder + "/parts", np.load(folder + "/y.npy"), checkpoint=folder + "/checkpoint")
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_a_process_that_is_killed_in_a_pass(tmp_path, monkeypatch):
    X, y = digits()
    (tmp_path / "parts").mkdir()
    np.save(tmp_path / "y.npy", y)
    for i, part in enumerate(np.array_split(X, N_BATCHES)):
        np.save(tmp_path / "parts" / f"{i}.npy", part)
    n_read, read = [0], NpyFiles.read

    def counting(self, buffers):
        for item in read(self, buffers):
            n_read[0] += 1
            yield item

    monkeypatch.setattr(NpyFiles, "read", counting)
    model = FastSoftmax(solver="lbfgs", C=0.01, tol=1e-6)
    whole = model.fit(tmp_path / "parts", y)
    alone, n_read[0] = n_read[0], 0
    most = alone // (2 * N_BATCHES) * N_BATCHES + N_BATCHES // 2
    path = os.pathsep.join([str(Path(archives.__file__).parents[1]), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(tmp_path), str(most)],
        check=False,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert done.returncode == -signal.SIGKILL
    again = FastSoftmax(solver="lbfgs", C=0.01, tol=1e-6)
    again.fit(tmp_path / "parts", y, resume=tmp_path / "checkpoint")
    assert most + n_read[0] <= alone + N_BATCHES
    assert most + n_read[0] <= 1.1 * alone
    np.testing.assert_array_equal(again.coef_, whole.coef_)


def test_rows_in_memory(tmp_path, monkeypatch):
    """One evaluation tells whether the data are the same; the killed iteration is made again."""
    X, y = digits()
    n, loss_grad = [0], DenseShard.loss_grad

    def counting(*args, **options):
        n[0] += 1
        return loss_grad(*args, **options)

    def kill(state):
        if state.iteration == 15:
            raise Interrupted

    monkeypatch.setattr(DenseShard, "loss_grad", counting)
    path = tmp_path / "a"
    whole = FastSoftmax(**LBFGS).fit(X, y)
    alone, n[0] = n[0], 0
    with pytest.raises(Interrupted):
        FastSoftmax(**LBFGS).fit(X, y, checkpoint=path, callbacks=[kill])
    model = FastSoftmax(**LBFGS).fit(X, y, resume=path)
    np.testing.assert_array_equal(model.coef_, whole.coef_)
    assert n[0] <= alone + 2
    assert n[0] <= 1.1 * alone


def left_in_a_pass(folder):
    """Return the checkpoint of a fit that ends in the middle of its ninth pass."""
    batches, path = Batches(*digits()), folder / "a"
    batches.most = 8 * N_BATCHES + 3
    with pytest.raises(Interrupted):
        FastSoftmax(solver="lbfgs", C=0.01).fit(batches, checkpoint=path)
    return path


# ---- what is refused: as where no answer is foreseen


class TestOtherRows:
    @pytest.fixture
    def path(self, tmp_path):
        return left_in_a_pass(tmp_path)

    def refuse(self, path, message, *arrays, **parameters):
        """The file and the model stay as they were."""
        before = path.read_bytes()
        model = FastSoftmax(**{"solver": "lbfgs", "C": 0.01, **parameters})
        with pytest.raises(ValueError, match=message):
            model.fit(Batches(*arrays), resume=path, checkpoint=path)
        assert path.read_bytes() == before
        assert not [name for name in vars(model) if name.endswith("_")]

    def test_other_data(self, path):
        X, y = digits()
        for message, *arrays in other_rows(X, y):
            self.refuse(path, message, *arrays)
        self.refuse(path, "of other data: the objective at its point", X[::-1], y)

    def test_other_weights_and_parameters(self, path):
        X, y = digits()
        weights = np.ones(len(y))
        weights[0] = 2.0
        self.refuse(path, "the sum of the weights was 1797.0 and is 1798.0", X, y, weights)
        weights[y == y[0]] += 1.0 - weights[y == y[0]].mean()
        self.refuse(path, "of other data: the objective at its point", X, y, weights)
        self.refuse(path, "C was 0.01 and is 2.0", X, y, C=2.0)
        self.refuse(path, "the s", X, y, class_weight={0: 2.0})
        self.refuse(path, "label_smoothing", X, y, label_smoothing=0.1)

    def test_rows_that_are_no_rows(self, path):
        X, y = digits()
        X[1000, 3] = np.nan
        self.refuse(path, r"got nan in row 282 of batch 2 \(from 0\), column 3", X, y)

    def test_other_batches(self, path):
        """Rows that are cut otherwise are the same to rounding: the fit goes on."""
        X, y = digits()
        whole = FastSoftmax(solver="lbfgs", C=0.01).fit(Batches(X, y))
        for rows in ([(X, y)], [(X[:9], y[:9]), (X[9:], y[9:])], Batches(X[::-1], y[::-1])):
            model = FastSoftmax(solver="lbfgs", C=0.01).fit(rows, resume=path)
            assert model.converged_
            np.testing.assert_allclose(model.objective_, whole.objective_, rtol=1e-6)


def test_answers_of_other_weights_do_not_count(tmp_path):
    """Sums of weights may differ by rounding; then the rows are read again for what is certain.

    (Without an intercept coefficients do not depend on means, so the same is asked.)
    """
    X, y = digits()
    weights, path = np.ones(len(y)), tmp_path / "a"
    options = {"solver": "lbfgs", "max_iter": 5, "fit_intercept": False}
    FastSoftmax(**options).fit(Batches(X, y, weights), checkpoint=path)
    n_read = []
    for factor in (1.0, 1.0 + 1e-9):
        batches = Batches(X, y, factor * weights)
        model = FastSoftmax(**options).fit(batches, resume=path)
        assert model.n_iter_ == 5
        n_read.append(batches.n_read / N_BATCHES)
    assert n_read == [1, 3]


class TestFiles:
    @pytest.fixture
    def members(self, tmp_path):
        path = left_in_a_pass(tmp_path)
        with zipfile.ZipFile(path) as archive:
            return {entry: archive.read(entry) for entry in archive.namelist()}

    def resumed(self, path, members):
        with zipfile.ZipFile(path, "w") as archive:
            for entry, data in members.items():
                archive.writestr(entry, data)
        batches = Batches(*digits())
        return FastSoftmax(solver="lbfgs", C=0.01).fit(batches, resume=path), batches.n_read

    def test_without_what_was_asked(self, tmp_path, members):
        """As files of an earlier version are: the fit goes on, and reads the rows twice more."""
        less = {name: data for name, data in members.items() if not name.startswith("beside.")}
        assert len(less) < len(members)
        model, n_read = self.resumed(tmp_path / "less", less)
        again, n_least = self.resumed(tmp_path / "same", members)
        assert n_read == n_least + 2 * N_BATCHES
        np.testing.assert_array_equal(model.coef_, again.coef_)

    def test_what_is_missing(self, tmp_path, members):
        for missing in members:
            if not missing.startswith("beside.shards."):
                continue
            less = {name: data for name, data in members.items() if name != missing}
            with pytest.raises(ValueError, match=r"/less' is damaged, or of another kind of fit"):
                self.resumed(tmp_path / "less", less)

"""Files where the disk is full after any number of bytes, and where the writer is killed.

What was there before stays, whole; nothing is left beside it that another writer or reader meets.
"""

import os
import signal
import sys
import warnings

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning

from fastsoftmax import FastSoftmax

resource = pytest.importorskip("resource", reason="limits as POSIX systems have them")

rng = np.random.default_rng(0)
X = rng.normal(size=(60, 40))
y = np.arange(60) % 3
FORMATS = ["png", "svg", "pdf"]


class Disk:
    """A file may have so many bytes, and no more: the error is EFBIG instead of ENOSPC."""

    def __init__(self, n_bytes):
        self.n_bytes = n_bytes

    def __enter__(self):
        self._before = resource.getrlimit(resource.RLIMIT_FSIZE)
        self._handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (self.n_bytes, self._before[1]))

    def __exit__(self, *error):
        resource.setrlimit(resource.RLIMIT_FSIZE, self._before)
        signal.signal(signal.SIGXFSZ, self._handler)


def full_at(size, most=40):
    """Numbers of bytes after which a file of a size is refused more."""
    return sorted({0, 1, size - 1, *np.linspace(0, size - 1, most).astype(int).tolist()})


def check_writer(write, path):
    """Write with less and less of a disk; write is called with True for other contents."""
    write(True)
    size = path.stat().st_size
    write(False)
    before = path.read_bytes()
    for n_bytes in full_at(size):
        with Disk(n_bytes), pytest.raises(OSError):
            write(True)
        assert path.read_bytes() == before, n_bytes
        assert os.listdir(path.parent) == [path.name], n_bytes
        path.unlink()
        with Disk(n_bytes), pytest.raises(OSError):
            write(True)
        assert os.listdir(path.parent) == [], n_bytes
        path.write_bytes(before)
    write(True)
    assert path.read_bytes() != before


def test_save(tmp_path):
    path = tmp_path / "model.npz"
    models = FastSoftmax(C=2.0).fit(X, y), FastSoftmax().fit(X, y)
    check_writer(lambda other: models[not other].save(path), path)
    assert FastSoftmax.load(path).C == 2.0


def test_save_to_an_open_file(tmp_path):
    """The error arrives, also that of the last bytes, which are written when the file is closed."""
    model = FastSoftmax().fit(X, y)
    model.save(tmp_path / "model.npz")
    for n_bytes in full_at((tmp_path / "model.npz").stat().st_size, 10):
        with (
            Disk(n_bytes),
            pytest.raises(OSError),
            open(tmp_path / "other.npz", "wb") as opened,
        ):
            model.save(opened)
        with pytest.raises(ValueError, match="damaged"):
            FastSoftmax.load(tmp_path / "other.npz")
    assert FastSoftmax.load(tmp_path / "model.npz").predict(X).shape == (60,)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a device of Linux")
def test_save_to_a_full_device():
    with pytest.raises(OSError):
        FastSoftmax().fit(X, y).save("/dev/full")
    assert os.path.exists("/dev/full")


@pytest.mark.parametrize("solver", ["lbfgs", "sgd"])
def test_checkpoints(solver, tmp_path, monkeypatch):
    """A fit goes on without its checkpoint, says so once, and gives the same bits."""
    monkeypatch.setattr("fastsoftmax._estimator.checkpoint.SECONDS", 0.0)
    monkeypatch.setattr("fastsoftmax._estimator.checkpoint.SHARE", np.inf)
    path = tmp_path / "checkpoint"

    def model():
        return FastSoftmax(solver=solver, max_iter=3, tol=1e-9, random_state=0)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        plain = model().fit(X, y, checkpoint=path)
    before = path.read_bytes()
    for n_bytes in full_at(len(before), 12):
        with Disk(n_bytes), warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            fitted = model().fit(X, y, checkpoint=path)
        messages = [str(warning.message) for warning in told if warning.category is UserWarning]
        assert messages
        assert all("could not be written. The earlier checkpoint" in m for m in messages)
        assert os.listdir(tmp_path) == ["checkpoint"]
        np.testing.assert_array_equal(fitted.coef_, plain.coef_)
        with warnings.catch_warnings():  # what there is, an earlier state where that fits, is whole
            warnings.simplefilter("ignore", ConvergenceWarning)
            resumed = model().fit(X, y, resume=path)
        np.testing.assert_array_equal(resumed.coef_, plain.coef_)


@pytest.mark.parametrize("ending", FORMATS)
def test_figures(ending, tmp_path):
    pytest.importorskip("matplotlib")
    from matplotlib.figure import Figure

    from fastsoftmax.plot._live import write_file

    figures = [Figure(figsize=(1, 1)) for _ in range(2)]
    figures[1].subplots().plot([0, 1], [1, 0])
    path = tmp_path / f"curve.{ending}"
    most = 40 if ending == "png" else 6
    write_file(path, figures[0])
    before, size = path.read_bytes(), 0
    write_file(path, figures[1])
    size = path.stat().st_size
    path.write_bytes(before)
    for n_bytes in full_at(size, most):
        with Disk(n_bytes), pytest.raises(OSError):
            write_file(path, figures[1])
        assert path.read_bytes() == before
        assert os.listdir(tmp_path) == [path.name]
    write_file(path, figures[1])
    assert path.read_bytes() != before


# ---- kill -9

KILLED = """
import os, random, signal, sys, time
import numpy as np
from fastsoftmax import FastSoftmax

folder, kind, n_kills = sys.argv[1], sys.argv[2], int(sys.argv[3])
path = os.path.join(folder, "file." + kind)
rng = np.random.default_rng(0)
X, y = rng.normal(size=(60, 400)), np.arange(60) % 3
models = [FastSoftmax(C=C, n_jobs=1).fit(X, y) for C in (1.0, 2.0)]
if kind == "png":
    from matplotlib.figure import Figure
    from matplotlib.image import imread
    from pathlib import Path
    from fastsoftmax.plot._live import write_file
    figures = [Figure(figsize=(2, 2)) for _ in models]
    figures[1].subplots().plot([0, 1], [1, 0])

def write(i):
    if kind == "npz":
        models[i].save(path)
    else:
        write_file(Path(path), figures[i])

def check():
    if kind == "npz":
        loaded = FastSoftmax.load(path)
        (same,) = [m for m in models if m.C == loaded.C]
        assert (loaded.coef_ == same.coef_).all()
    else:
        assert imread(path).shape == (320, 320, 4)

write(0)
random.seed(0)
for _ in range(n_kills):
    child = os.fork()
    if not child:
        for i in range(10**6):
            write(i % 2)
    time.sleep(random.uniform(0.0, 0.03))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    check()
left = [name for name in os.listdir(folder) if name != os.path.basename(path)]
for i in range(2):
    write(i)
    check()
assert all(name.startswith(".") for name in left), left
print(len(left))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="forks beside matplotlib")
@pytest.mark.parametrize("kind", ["npz", "png"])
@pytest.mark.parametrize("n_kills", [8, pytest.param(300, marks=pytest.mark.slow)])
def test_killed_writers(kind, n_kills, run_python, tmp_path):
    """The file is one that was written whole; what a writer began beside it hinders no other."""
    if kind == "png":
        pytest.importorskip("matplotlib")
    n_left = int(run_python(KILLED, str(tmp_path), kind, str(n_kills)))
    assert 0 <= n_left <= n_kills

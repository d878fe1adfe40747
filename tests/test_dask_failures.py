"""Workers, clients and schedulers that die, and what else can go wrong in fits on a cluster."""

import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from rows_in_parts import cut, made_rows
from sklearn.datasets import load_digits

from fastsoftmax import archives

pytest.importorskip("dask", reason="Dask is not installed")
pytest.importorskip("distributed", reason="Dask's distributed scheduler is not installed")

import dask
from rows_on_dask import KILL, MARKS, array, delayed, kill_workers, local, pieces, remote, same

from fastsoftmax._dask import fits
from fastsoftmax._dask.remote import no_workers_timeout
from fastsoftmax.dask import DaskFastSoftmax

pytestmark = MARKS

_answer = fits._answer


@pytest.fixture
def rows(rng):
    return made_rows(rng)


# A fit of a process that is killed in iteration sys.argv[4]. It tells what its shards are asked.
CHILD = """
import os, pickle, signal, sys
import numpy as np
from distributed import Client
from fastsoftmax._dask import fits
from fastsoftmax._dask.remote import no_workers_timeout
from fastsoftmax._estimator import checkpoint
from fastsoftmax.dask import DaskFastSoftmax

checkpoint.SECONDS, checkpoint.SHARE = 0.0, np.inf
address, parts, folder, n = *sys.argv[1:4], int(sys.argv[4])
parts = pickle.load(open(parts, "rb"))
passes = open(folder + "/passes", "w", buffering=1)
added = fits.DaskShards.added

def noting(*args, **options):
    passes.write(args[2].__name__ + chr(10))
    return added(*args, **options)

def kill(state):
    if state.iteration == n:
        os.kill(os.getpid(), signal.SIGKILL)

if __name__ == "__main__":
    fits.DaskShards.added = noting
    with Client(address):
        model = DaskFastSoftmax(solver="lbfgs", C=0.1, tol=1e-6)
        model.fit(parts, callbacks=[kill], checkpoint=folder + "/checkpoint")
"""


def test_a_client_that_is_killed(client, tmp_path, monkeypatch):
    """The fit goes on in another process, to the same bits, by 10 % more passes at most."""
    X, y = load_digits(return_X_y=True)
    parts = [dask.delayed(part) for part in pieces(X, y, 4)]
    with open(tmp_path / "parts", "wb") as file:
        pickle.dump(parts, file)
    passes, added = [], fits.DaskShards.added

    def noting(*args, **options):
        passes.append(args[2].__name__)
        return added(*args, **options)

    monkeypatch.setattr(fits.DaskShards, "added", noting)
    options = {"solver": "lbfgs", "C": 0.1, "tol": 1e-6}
    whole = DaskFastSoftmax(**options).fit(parts)
    n_alone, n_iter = len(passes), int(whole.n_iter_[0])
    address = client.scheduler.address
    given = [address, str(tmp_path / "parts"), str(tmp_path), str(n_iter // 2)]
    path = os.pathsep.join([str(Path(archives.__file__).parents[1]), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", CHILD, *given], check=False, env={**os.environ, "PYTHONPATH": path}
    )
    assert done.returncode == -KILL
    before = (tmp_path / "passes").read_text().split()
    passes.clear()
    model = DaskFastSoftmax(**options).fit(parts, resume=tmp_path / "checkpoint")
    same(model, whole)
    assert model.gap_ <= 1e-6
    # each fit has two passes before the first evaluation: sums, and rows that are drawn
    assert len(before) + len(passes) + 4 <= 1.1 * (n_alone + 2)


class TestFailures:
    @pytest.fixture(autouse=True)
    def all_workers(self, client):
        """Those that an earlier test has killed take a while to come back."""
        end = time.monotonic() + 60.0
        while len(client.run(os.getpid, on_error="ignore")) < 2 and time.monotonic() < end:
            time.sleep(0.05)

    @pytest.mark.parametrize("computing", [False, True], ids=["in a callback", "computing"])
    def test_ctrl_c(self, client, rows, ctrl_c, computing):
        X, y, _ = rows
        timer = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT))

        def interrupt(state):
            if state.iteration == 2:
                if not computing:
                    raise KeyboardInterrupt
                timer.start()

        model = DaskFastSoftmax(solver="lbfgs", tol=1e-6)
        client.run(_slow)
        try:
            with pytest.raises(KeyboardInterrupt):
                model.fit(array(X), array(y), callbacks=[interrupt])
        finally:
            timer.cancel()
            client.run(_as_before)
        assert model.n_iter_[0] == 2 and not model.converged_
        same(model.fit(array(X), array(y)), local(X, y, solver="lbfgs"))

    def test_a_worker_that_retires(self, cluster, client, rows):
        X, y, _ = rows

        def retire(state):
            if state.iteration == 2:
                cluster.scale(1)  # it gives its rows away

        model = remote(array(X), array(y), solver="lbfgs", callbacks=[retire])
        cluster.scale(2)
        same(model, local(X, y, solver="lbfgs"))

    @pytest.mark.parametrize("kept", [True, False], ids=["connections are kept", "they are not"])
    def test_a_worker_that_dies(self, client, rows, kept):
        X, y, weights = rows
        expected, killed = local(X, y, weights, solver="lbfgs"), []

        def kill(state):
            if state.iteration == 2:
                killed.extend(kill_workers(client, 1))

        with dask.config.set({"distributed.scheduler.reuse-broadcast-comm": kept}):
            model = remote(delayed(X, y, weights), solver="lbfgs", callbacks=[kill])
        assert killed
        same(model, expected)

    def test_a_worker_that_dies_while_it_computes(self, client, rows, tmp_path):
        X, y, _ = rows
        expected, mark = local(X, y, solver="lbfgs"), str(tmp_path / "died")
        client.run(_die_once, mark)
        try:
            same(remote(delayed(X, y), solver="lbfgs"), expected)
        finally:
            client.run(_as_before)
        assert os.path.exists(mark)

    def test_a_partition_that_kills_its_worker(self, cluster, client, rows):
        X, y, _ = rows
        cluster.scheduler.allowed_failures, allowed = 0, cluster.scheduler.allowed_failures
        try:
            with pytest.raises(RuntimeError, match=r"partition.* 3 \(from 0\) cannot be computed"):
                remote([*delayed(X, y), dask.delayed(os._exit)(1)])
        finally:
            cluster.scheduler.allowed_failures = allowed

    def test_a_partition_that_changes(self, client, rows, tmp_path):
        """It is computed again, as its worker died, and is not what it was."""
        X, y, _ = rows
        mark = tmp_path / "computed"

        def load():
            n_rows = 5 - mark.exists()
            mark.touch()
            return X[:n_rows], y[:n_rows]

        parts = [dask.delayed((X[:0], y[:0])), *delayed(X, y), dask.delayed(load, pure=False)()]
        with pytest.raises(ValueError, match=r"partition 4 .*had 5 rows, .* again with 4") as error:
            remote(parts, solver="lbfgs", callbacks=[lambda state: kill_workers(client)])
        assert "partition 4 (from 0)" in error.value.__notes__[0]

    def test_scattered_rows_are_lost(self, client, rows):
        X, y, _ = rows
        parts = client.scatter(cut(X, y))
        with pytest.raises(RuntimeError, match=r"rows on the cluster were cancelled.*scattered"):
            remote(parts, solver="lbfgs", callbacks=[lambda state: kill_workers(client)])

    def test_no_workers(self, cluster, client, rows):
        X, y, _ = rows
        closed = []

        def close(state):
            if state.iteration == 2:
                cluster.scale(0)
                closed.append(time.monotonic())

        with (
            dask.config.set({"fastsoftmax.no-workers-timeout": "1 s"}),
            pytest.raises(TimeoutError, match="no worker for 1 seconds"),
        ):
            remote(array(X), array(y), solver="lbfgs", callbacks=[close])
        assert time.monotonic() - closed[0] < 30.0
        assert no_workers_timeout() == 60.0  # what the documentation says


def _die_once(mark):
    """Let the first worker that computes a gradient from here on die of it."""

    def dying(*args):
        if "loss_grad" in args[1].__name__:
            try:
                os.close(os.open(mark, os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                pass
            else:
                threading.Timer(0.05, os.kill, (os.getpid(), KILL)).start()
                time.sleep(10.0)
        return _answer(*args)

    fits._answer = dying


def _slow():
    """Let every answer take some time."""

    def slow(*args):
        time.sleep(0.1)
        return _answer(*args)

    fits._answer = slow


def _as_before():
    fits._answer = _answer

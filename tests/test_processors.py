"""How many threads n_jobs=None and negative n_jobs are: limits of the machine and of users."""

import json
import math
import os
import sys
from types import SimpleNamespace

import joblib
import numpy as np
import pytest

from fastsoftmax import _show_versions, processors, reference
from fastsoftmax._arguments import thread_count
from fastsoftmax.processors import available_cpus, cpu_quota, default_threads


def compiled(n_allowed):
    """What the compiled kernels say of OpenMP; None for a build without it."""
    return SimpleNamespace(
        available_isas=lambda: ("avx2", "base"),
        openmp=lambda: n_allowed is not None,
        max_threads=lambda: n_allowed or 1,
    )


@pytest.fixture
def machine(monkeypatch):
    """A function that sets the CPUs of this machine, the limits on them, and variables."""

    def describe(n_cpus=16, affinity=8, quota=math.inf, **variables):
        for name in ("OMP_NUM_THREADS", "LOKY_MAX_CPU_COUNT"):
            monkeypatch.delenv(name, raising=False)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(os, "sched_getaffinity", lambda pid: range(affinity), raising=False)
        monkeypatch.setattr(os, "cpu_count", lambda: n_cpus)
        monkeypatch.setattr(processors, "cpu_quota", lambda: quota)
        monkeypatch.setattr(processors, "_loaded_openmp", lambda: None)
        forget()

    yield describe
    forget()


def forget():
    """Forget what was read: it is kept for seconds."""
    processors._granted_at.cache_clear()
    processors._machine_at.cache_clear()


# Settings of the machine, what OpenMP allows, and the number of threads with its source.
CASES = {
    "all": ({"affinity": 16}, 16, (16, "all CPUs")),
    "affinity": ({}, 8, (8, "CPU affinity")),
    "affinity that changed": ({}, 16, (8, "CPU affinity")),
    "quota": ({"quota": 2.0}, 8, (2, "CPU quota of the container")),
    "a part of a CPU": ({"quota": 0.3}, 8, (1, "CPU quota of the container")),
    "a fraction": ({"quota": 2.5}, 8, (3, "CPU quota of the container")),
    "a large quota": ({"quota": 64.0}, 8, (8, "CPU affinity")),
    "loky": ({"LOKY_MAX_CPU_COUNT": "3"}, 8, (3, "LOKY_MAX_CPU_COUNT")),
    "a large limit": ({"LOKY_MAX_CPU_COUNT": "99"}, 8, (8, "CPU affinity")),
    "variable": ({"OMP_NUM_THREADS": "3"}, 3, (3, "OMP_NUM_THREADS")),
    "variable above the quota": ({"OMP_NUM_THREADS": "3", "quota": 2.0}, 3, (3, "OMP_NUM_THREADS")),
    "more than there are": ({"OMP_NUM_THREADS": "40"}, 40, (40, "OMP_NUM_THREADS")),
    "list": ({"OMP_NUM_THREADS": " 4,2"}, 4, (4, "OMP_NUM_THREADS")),
    "no number": ({"OMP_NUM_THREADS": "many"}, 8, (8, "CPU affinity")),
    "empty": ({"OMP_NUM_THREADS": "", "LOKY_MAX_CPU_COUNT": ""}, 8, (8, "CPU affinity")),
    "zero": ({"OMP_NUM_THREADS": "0", "LOKY_MAX_CPU_COUNT": "0"}, 8, (8, "CPU affinity")),
    "limited": ({}, 2, (2, "threadpoolctl or omp_set_num_threads")),
    "limited below the variable": (
        {"OMP_NUM_THREADS": "4"},
        2,
        (2, "threadpoolctl or omp_set_num_threads"),
    ),
    "without OpenMP": ({}, None, (8, "CPU affinity")),
    "without OpenMP, quota": ({"quota": 1.5}, None, (2, "CPU quota of the container")),
    "without OpenMP, variable": ({"OMP_NUM_THREADS": "3,1"}, None, (3, "OMP_NUM_THREADS")),
}


@pytest.mark.parametrize("name", CASES)
def test_the_lowest_limit_counts(name, machine):
    settings, n_allowed, expected = CASES[name]
    machine(**settings)
    assert default_threads(compiled(n_allowed)) == expected
    assert thread_count(None, compiled(n_allowed)) == expected[0]


def test_numpy_computes_in_one_thread(machine):
    machine(OMP_NUM_THREADS="4")
    assert default_threads(reference).n_threads == 1


def test_given_numbers_of_threads(machine):
    machine()
    given = (None, 1, 5, 20, np.int64(2), -1, -2, -8, -100)
    counts = [thread_count(n, compiled(3)) for n in given]
    assert counts == [3, 1, 5, 20, 2, 8, 7, 1, 1]
    with pytest.raises(ValueError, match="n_jobs must be None or an integer other than 0, got 0"):
        thread_count(0, compiled(3))
    with pytest.raises(TypeError):
        thread_count(1.5, compiled(3))


def test_negative_numbers_count_from_the_cpus_of_joblib(machine):
    machine(quota=5.5, OMP_NUM_THREADS="2")
    assert [thread_count(n, compiled(2)) for n in (-1, -2)] == [6, 5]
    machine(LOKY_MAX_CPU_COUNT="4")
    assert available_cpus().n_threads == 4 == min(4, joblib.cpu_count())


def test_without_affinity(machine, monkeypatch):
    machine(n_cpus=4)
    monkeypatch.delattr(os, "sched_getaffinity")
    assert available_cpus() == (4, "all CPUs")
    machine(n_cpus=None)
    monkeypatch.delattr(os, "sched_getaffinity")
    assert available_cpus() == (1, "all CPUs")


def test_no_more_than_joblib_counts(monkeypatch):
    """On this machine as it is: joblib sees fewer limits, and never more."""
    assert 1 <= available_cpus().n_threads <= joblib.cpu_count()
    monkeypatch.setenv("LOKY_MAX_CPU_COUNT", "1")
    assert available_cpus().n_threads == 1 == joblib.cpu_count()


def test_changes_are_seen(machine, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(processors.time, "monotonic", lambda: now[0])
    machine(quota=6.5)
    assert default_threads(compiled(8)).n_threads == available_cpus().n_threads == 7
    monkeypatch.setattr(processors, "cpu_quota", lambda: 2.0)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: range(5), raising=False)
    now[0] += processors._SECONDS_KEPT
    assert default_threads(compiled(8)) == available_cpus() == (5, "CPU affinity")
    now[0] += processors._SECONDS_QUOTA_KEPT
    assert default_threads(compiled(8)).n_threads == available_cpus().n_threads == 2


# ---- joblib


@pytest.mark.parametrize(("n_jobs", "n_threads"), [(1, 1), (3, 3), (-2, 7), (-20, 1), (99, 8)])
def test_a_block_of_joblib(n_jobs, n_threads, machine):
    machine()
    with joblib.parallel_config(n_jobs=n_jobs):
        found = default_threads(compiled(8))
        assert thread_count(5, compiled(8)) == 5
    assert found.n_threads == n_threads
    assert (found.source == "joblib.parallel_config") == (n_threads < 8)
    with joblib.parallel_config(n_jobs=n_jobs, prefer="threads"):
        assert default_threads(compiled(8)) == found


@pytest.mark.parametrize("settings", [{"backend": "threading"}, {"prefer": "threads"}])
def test_a_block_of_joblib_without_a_number(settings, machine):
    machine()
    with joblib.parallel_config(**settings):
        assert default_threads(compiled(8)) == (8, "CPU affinity")


@pytest.mark.parametrize("missing", ["_backend", "default_parallel_config"])
def test_a_block_of_another_joblib(missing, machine, monkeypatch):
    """The quick look at its settings is tried, and what is public counts."""
    machine()
    settings = {"parallel_config": None, "get_active_backend": lambda **given: (None, 3)}
    private = {"_backend": SimpleNamespace(), "default_parallel_config": {"n_jobs": None}}
    del private[missing]
    monkeypatch.setitem(sys.modules, "joblib.parallel", SimpleNamespace(**settings, **private))
    assert default_threads(compiled(8)) == (3, "joblib.parallel_config")
    monkeypatch.delitem(sys.modules, "joblib.parallel")
    assert default_threads(compiled(8)).n_threads == 8


def test_threads_of_joblib(machine):
    """joblib does not limit what its threads call."""
    machine()
    calls = (joblib.delayed(default_threads)(compiled(8)) for _ in range(2))
    found = joblib.Parallel(n_jobs=2, prefer="threads")(calls)
    assert found == [(8, "CPU affinity")] * 2


WORKERS = """
import json, sys
from joblib import Parallel, cpu_count, delayed, parallel_config

def threads():
    from fastsoftmax import _show_versions
    return _show_versions.describe()["threads"]

if __name__ == "__main__":
    found = []
    with parallel_config(n_jobs=2):
        found.append(Parallel()(delayed(threads)() for _ in range(2)))
    with parallel_config("loky", inner_max_num_threads=3):
        found.append(Parallel(n_jobs=2)(delayed(threads)() for _ in range(2)))
    print(json.dumps([max(1, cpu_count() // 2), *found]))
"""


@pytest.mark.usefixtures("kernels")
def test_workers_of_joblib(run_python, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    share, *found = json.loads(run_python(WORKERS))
    assert found == [[f"{share} (OMP_NUM_THREADS)"] * 2, ["3 (OMP_NUM_THREADS)"] * 2]


# ---- what is shown


SHOWN = "from fastsoftmax import _show_versions; print(_show_versions.describe()['threads'])"


@pytest.mark.usefixtures("kernels")
def test_the_source_is_shown(run_python):
    assert run_python(SHOWN, OMP_NUM_THREADS="3") == "3 (OMP_NUM_THREADS)\n"


def test_limits_of_threadpoolctl_are_shown(kernels, machine):
    threadpoolctl = pytest.importorskip("threadpoolctl")
    if not kernels.openmp():
        pytest.skip("the number of another library is left out here, and this build has none")
    machine()
    with threadpoolctl.threadpool_limits(1, user_api="openmp"):
        shown = _show_versions.describe()["threads"]
    assert shown == "1 (threadpoolctl or omp_set_num_threads)"


LIMITED = """
import json, sys
from types import SimpleNamespace
from threadpoolctl import ThreadpoolController, threadpool_limits
from fastsoftmax import FastSoftmax, kernels, processors

if "without" in sys.argv:  # a build without OpenMP, as wheels are
    kernels = SimpleNamespace(openmp=lambda: False)
found = [list(processors.default_threads(kernels))]
with threadpool_limits(2, user_api="openmp"):
    found.append(list(processors.default_threads(kernels)))
    # of one library alone, as torch.set_num_threads
    one, *others = ThreadpoolController().select(user_api="openmp").lib_controllers
    one.set_num_threads(1)
    found.append(list(processors.default_threads(kernels)) if others else found[-1])
found.append(list(processors.default_threads(kernels)))
print(json.dumps(found))
"""


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("openmp", ["with", "without"])
def test_limits_of_threadpoolctl(openmp, run_python):
    """Builds without OpenMP see them in the OpenMP of scikit-learn."""
    pytest.importorskip("threadpoolctl")
    before, limited, one_limited, after = json.loads(
        run_python(LIMITED, openmp, OMP_NUM_THREADS="3")
    )
    assert before == after == [3, "OMP_NUM_THREADS"]
    assert limited == [2, "threadpoolctl or omp_set_num_threads"]
    assert one_limited == limited or openmp == "with"


# ---- cgroups: files as Linux writes them

V1 = "11:cpu,cpuacct:{}\n3:memory:/elsewhere\n"
V1_MOUNTS = (
    "30 24 0:26 / /proc rw - proc proc rw\n"
    "41 40 0:36 {root} {top} rw,relatime shared:15 - cgroup cgroup rw,cpu,cpuacct\n"
    "42 40 0:37 / {top}/../memory rw,relatime - cgroup cgroup rw,memory\n"
)
V2 = "0::{}\n"
V2_MOUNTS = "29 23 0:26 {root} {top} rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"


def v1(quota, period=100_000):
    return {"cpu.cfs_quota_us": f"{quota}\n", "cpu.cfs_period_us": f"{period}\n"}


def v2(text):
    return {"cpu.max": f"{text}\n"}


# Groups, mounts, the path of the process and the root that is mounted, files by folder, CPUs.
FILES = {
    "1, container": (V1, V1_MOUNTS, "/docker/5a", "/docker/5a", {".": v1(150_000)}, 1.5),
    "1, its own name space": (V1, V1_MOUNTS, "/", "/", {".": v1(400_000)}, 4.0),
    "1, another period": (V1, V1_MOUNTS, "/", "/", {".": v1(25_000, 50_000)}, 0.5),
    "1, no limit": (V1, V1_MOUNTS, "/", "/", {".": v1(-1)}, math.inf),
    "1, service": (
        V1,
        V1_MOUNTS,
        "/a/b.service",
        "/",
        {".": v1(-1), "a/b.service": v1(50_000)},
        0.5,
    ),
    "1, around it": (V1, V1_MOUNTS, "/a/b", "/", {"a": v1(200_000), "a/b": v1(-1)}, 2.0),
    "1, another root": (V1, V1_MOUNTS, "/a", "/docker/5a", {".": v1(300_000), "a": v1(1)}, 3.0),
    "2, container": (V2, V2_MOUNTS, "/", "/", {".": v2("250000 100000")}, 2.5),
    "2, no limit": (V2, V2_MOUNTS, "/", "/", {".": v2("max 100000")}, math.inf),
    "2, no files": (V2, V2_MOUNTS, "/user.slice", "/", {}, math.inf),
    "2, the lowest": (
        V2,
        V2_MOUNTS,
        "/a/b/c",
        "/",
        {"a": v2("300000 100000"), "a/b": v2("200000 100000"), "a/b/c": v2("max 100000")},
        2.0,
    ),
    "2, not beside it": (V2, V2_MOUNTS, "/a/b", "/", {"a/c": v2("100000 100000")}, math.inf),
    "2, above its root": (V2, V2_MOUNTS, "/../b", "/", {".": v2("100000 100000")}, 1.0),
    "2, nonsense": (V2, V2_MOUNTS, "/", "/", {".": v2("a b c")}, math.inf),
    "both": (V1 + V2, V1_MOUNTS + V2_MOUNTS, "/a", "/", {"a": v1(100_000)}, 1.0),
}


@pytest.mark.parametrize("name", FILES)
def test_quotas_are_read(name, tmp_path):
    groups, mounts, path, root, folders, n_cpus = FILES[name]
    top = tmp_path / "a cgroup"
    for folder, files in folders.items():
        (top / folder).mkdir(parents=True, exist_ok=True)
        for file, text in files.items():
            (top / folder / file).write_text(text)
    escaped = str(top).replace(" ", "\\040")
    (tmp_path / "cgroup").write_text(groups.replace("{}", path))
    (tmp_path / "mountinfo").write_text(mounts.format(root=root, top=escaped))
    assert cpu_quota(tmp_path) == n_cpus


def test_no_quota_without_proc(tmp_path):
    assert cpu_quota(tmp_path / "nothing") == math.inf
    (tmp_path / "cgroup").write_text("")
    (tmp_path / "mountinfo").write_text("")
    assert cpu_quota(tmp_path) == math.inf


# ---- a cgroup of this machine


@pytest.fixture
def limited_group():
    """The folder of a real cgroup inside one that grants 1 CPU."""
    from pathlib import Path

    tops = [Path("/sys/fs/cgroup", name) for name in ("cpu", "cpu,cpuacct", ".")]
    top = next((top for top in tops if (top / "cgroup.procs").exists()), None)
    if top is None:
        pytest.skip("no cgroups here")
    outer = top / f"fastsoftmax-test-{os.getpid()}"
    inner = outer / "inner"
    try:
        outer.mkdir()
    except OSError as error:
        pytest.skip(f"no cgroup can be made here: {error.strerror}")
    try:
        inner.mkdir()
        if (outer / "cpu.cfs_quota_us").exists():
            (outer / "cpu.cfs_period_us").write_text("100000")
            (outer / "cpu.cfs_quota_us").write_text("100000")
        elif (outer / "cpu.max").exists():
            (outer / "cpu.max").write_text("100000 100000")
        else:
            pytest.skip("the cgroups that can be made here have no limit of CPU time")
        yield inner
    except OSError as error:
        pytest.skip(f"no cgroup can be limited here: {error.strerror}")
    finally:
        for folder in (inner, outer):
            if folder.exists():
                folder.rmdir()


GROUP = """
import json, os, sys
from pathlib import Path
from fastsoftmax import _show_versions, kernels
from fastsoftmax._arguments import thread_count
from fastsoftmax.processors import available_cpus, cpu_quota

before = cpu_quota()
try:
    Path(sys.argv[1], "cgroup.procs").write_text(str(os.getpid()))
except OSError as error:
    print(json.dumps(error.strerror))
    sys.exit()
print(json.dumps([
    before, cpu_quota(), thread_count(None, kernels), thread_count(-1, kernels),
    _show_versions.describe()["threads"],
]))
"""


@pytest.mark.usefixtures("kernels")
def test_a_real_quota(limited_group, run_python, monkeypatch):
    for name in ("OMP_NUM_THREADS", "LOKY_MAX_CPU_COUNT"):
        monkeypatch.delenv(name, raising=False)
    found = json.loads(run_python(GROUP, str(limited_group)))
    if isinstance(found, str):
        pytest.skip(f"no process can be put into a cgroup here: {found}")
    before, quota, by_default, all_cpus, shown = found
    assert quota == 1.0
    assert by_default == all_cpus == 1
    if before > 1.0 and len(os.sched_getaffinity(0)) > 1:
        assert shown == "1 (CPU quota of the container)"

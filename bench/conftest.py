"""Options and fixtures of the benchmarks, and the description of the machine in their JSON."""

import gc
import os
import sys
from pathlib import Path

import pytest

# Only this folder: the package that is measured is the installed one.
sys.path.insert(0, str(Path(__file__).parent))

from measuring import harness, record
from measuring.floor import Floor
from races import native, rivals

SCALE_VARIABLE = "FASTSOFTMAX_BENCH_SCALE"
# The other modules hold neither tests nor doctests, and import rivals.
collect_ignore = [
    str(path)
    for path in Path(__file__).parent.rglob("*.py")
    if not path.name.startswith(("bench_", "test_"))
]
_floor = Floor(native.N_THREADS)
_machine = record.describe()  # now: by the end of a long run the files may have changed


def pytest_addoption(parser):
    parser.addoption(
        "--scale",
        type=float,
        default=float(os.environ.get(SCALE_VARIABLE, "1")),
        help=f"multiplies the rows of every benchmark (or set {SCALE_VARIABLE}); results need 1",
    )


@pytest.fixture(scope="session")
def scale(request):
    """The factor of the numbers of rows."""
    return request.config.getoption("--scale")


@pytest.fixture(scope="session")
def make_race(scale):
    """A function that makes a race, or returns the previous one if that is asked for again.

    Only one is kept: the largest takes 2 GB.
    """
    previous = {}

    def make(builder, arguments):
        key = builder, repr(arguments)
        if key not in previous:
            previous.clear()
            gc.collect()
            previous[key] = builder(**arguments, scale=scale)
        return previous[key]

    return make


@pytest.fixture
def timed(benchmark, make_race):
    """A function that checks and then times one contestant of a race."""

    def time(entry, contestant):
        builder, arguments = entry
        race = make_race(builder, arguments)
        if contestant not in race.runs:
            pytest.skip(rivals.why_absent(contestant))
        race.verify(contestant)
        harness.settle()
        benchmark.group = race.name
        benchmark.extra_info["contestant"] = contestant
        benchmark(race.runs[contestant])
        if benchmark.stats is not None:  # None where benchmarks are disabled
            seconds = benchmark.stats.stats.median
            benchmark.extra_info |= harness.rates(race.work, seconds, _floor)
            benchmark.extra_info["formula"] = race.formula

    return time


@pytest.hookimpl(optionalhook=True)
def pytest_benchmark_generate_machine_info(config):
    return _machine


@pytest.hookimpl(optionalhook=True)
def pytest_benchmark_generate_commit_info(config):
    return {"id": _machine["commit"]}


@pytest.hookimpl(optionalhook=True)
def pytest_benchmark_update_json(config, benchmarks, output_json):
    """Keep what results/tables.py shows, and nothing that names a folder."""
    output_json["kind"] = "suite"
    output_json["scale"] = config.getoption("--scale")
    output_json["floor"] = _floor.as_dict()
    output_json["datetime"] = str(output_json["datetime"])[:10]
    for entry in output_json["benchmarks"]:
        for name in ("params", "param", "options", "fullname"):
            entry.pop(name, None)
        entry["stats"] = {
            name: entry["stats"][name] for name in ("min", "median", "q1", "q3", "rounds")
        }

"""The command line: the demo on real images, its errors, and the self-check."""

from __future__ import annotations

import errno
import gzip
import os
import re
import struct
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import fastsoftmax
from fastsoftmax import _show_versions, cli, reference
from fastsoftmax._version import __version__
from fastsoftmax.cli import demo, info, main
from fastsoftmax.cli.info import KERNELS, check_kernels
from fastsoftmax.datasets import load_fashion_mnist_sample

PICTURES = ["predictions.png", "training_curve.png", "weights.png"]


@pytest.fixture(autouse=True)
def surroundings(monkeypatch, tmp_path):
    """No data but what a test provides; pictures away from the working directory."""
    monkeypatch.delenv("FASTSOFTMAX_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    # Where the package came from, for other processes.
    root = str(Path(fastsoftmax.__file__).parents[1])
    path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    monkeypatch.setenv("PYTHONPATH", path)


@pytest.fixture
def home(tmp_path):
    """The official names with the first 200 training and 50 test images."""
    folder = tmp_path / "home"
    folder.mkdir()
    for subset, prefix, n in (("train", "train", 200), ("test", "t10k", 50)):
        X, y = load_fashion_mnist_sample(subset)
        for name, array in (("images-idx3", X[:n].reshape(n, 28, 28)), ("labels-idx1", y[:n])):
            head = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
            data = gzip.compress(head + array.astype(np.uint8).tobytes())
            (folder / f"{prefix}-{name}-ubyte.gz").write_bytes(data)
    return folder


def run_demo(*arguments):
    """In one thread: two that wait for each other are slow where the CPUs are busy."""
    return main(["demo", "--n-jobs", "1", *arguments])


def epoch_lines(text):
    """Epoch, train loss, train accuracy, test accuracy and rows/s of each line of the table."""
    pattern = r"^ +(\d+)  +([\d.]+)  +([\d.]+)  +([\d.]+)  +([\d,]+)$"
    found = re.findall(pattern, text, flags=re.MULTILINE)
    return [tuple(float(cell.replace(",", "")) for cell in row) for row in found]


def one_error_line(capsys, code):
    """Return the line on stderr after a command that could not be carried out."""
    error = capsys.readouterr().err
    assert code == 2
    assert error.count("\n") == 1
    assert "Traceback" not in error
    assert error.startswith("python -m fastsoftmax demo: error: ")
    return error


class TestMain:
    def test_no_command(self, capsys):
        assert main([]) == 0
        out = capsys.readouterr().out
        assert "usage: python -m fastsoftmax" in out
        assert "demo" in out
        assert "info" in out

    def test_version(self, capsys):
        with pytest.raises(SystemExit) as exit:
            main(["--version"])
        assert exit.value.code == 0
        assert capsys.readouterr().out == f"fastsoftmax {__version__}\n"

    @pytest.mark.parametrize("command", ["demo", "info"])
    def test_unknown_option_shows_the_usage_of_the_command(self, capsys, command):
        with pytest.raises(SystemExit) as exit:
            main([command, "--directory", "x"])
        error = capsys.readouterr().err
        assert exit.value.code == 2
        assert error.startswith(f"usage: python -m fastsoftmax {command} [-h]")
        assert error.endswith("unrecognized arguments: --directory x\n")
        assert ("[--output DIR]" in error) == (command == "demo")

    def test_interrupt(self, capsys, monkeypatch):
        def interrupted(args):
            raise KeyboardInterrupt

        monkeypatch.setattr(info, "show_versions", lambda: interrupted(None))
        assert main(["info"]) == 130
        assert capsys.readouterr().err == "python -m fastsoftmax info: interrupted\n"

    def test_as_a_module(self):
        command = [sys.executable, "-m", "fastsoftmax", "demo", "--data-home", "none"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 2
        assert done.stderr.count("\n") == 1
        assert done.stdout == ""

    @pytest.mark.skipif(os.name != "posix", reason="shells differ")
    def test_a_reader_that_leaves_early(self):
        command = f"{sys.executable} -m fastsoftmax demo --no-plots --epochs 3 | head -1"
        done = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=300)
        assert "sample" in done.stdout
        assert done.stderr == ""

    def test_how_windows_tells_of_it(self, monkeypatch):
        gone = OSError(errno.EINVAL, "Invalid argument")
        assert not cli._is_reader_gone(gone)
        assert cli._is_reader_gone(BrokenPipeError())
        with monkeypatch.context() as patches:
            patches.setattr(os, "name", "nt")
            seen = cli._is_reader_gone(gone), cli._is_reader_gone(OSError(errno.ENOSPC, "full"))
        assert seen == (True, False)


class TestDemo:
    def test_on_the_sample(self, capsys, tmp_path):
        pytest.importorskip("matplotlib", reason="matplotlib is not installed")
        code = main(["demo", "--epochs", "6", "--output", "pictures/new"])
        out, err = capsys.readouterr()
        assert (code, err) == (0, "")
        assert "1,000 training and 500 test images" in out
        assert "--download" in out
        rows = epoch_lines(out)
        assert [row[0] for row in rows] == [1, 2, 3, 4, 5, 6]
        assert rows[0][1] > rows[-1][1]  # the loss falls
        assert rows[-1][3] > 0.55
        assert all(row[4] > 0 for row in rows)
        assert sorted(path.name for path in (tmp_path / "pictures" / "new").iterdir()) == PICTURES
        for name in PICTURES:
            path = tmp_path / "pictures" / "new" / name
            assert path.read_bytes().startswith(b"\x89PNG")
            assert f"wrote {os.path.join('pictures', 'new', name)}" in out

    def test_numpy(self, home, capsys):
        arguments = ["--no-plots", "--backend", "numpy", "--epochs", "2"]
        assert run_demo("--data-home", str(home), *arguments) == 0
        out, err = capsys.readouterr()
        assert err == ""
        assert "numpy computes" in out
        assert len(epoch_lines(out)) == 2

    def test_comparison(self, capsys):
        assert run_demo("--epochs", "2", "--no-plots") == 0
        out = capsys.readouterr().out
        rows = {}
        for label in ("sgd, 2 epochs", "to the optimum"):
            (row,) = re.findall(rf"^{label}((?: +[\d.e+-]+){{6}})$", out, flags=re.MULTILINE)
            names = ("objective", "gap", "iterations", "seconds", "train", "test")
            rows[label] = dict(zip(names, map(float, row.split()), strict=True))
        watched, optimum = rows.values()
        assert optimum["gap"] < 0.01
        share = optimum["objective"] / watched["objective"]
        assert watched["gap"] == pytest.approx(1.0 - share, abs=0.06)
        assert watched["iterations"] == 2
        assert optimum["iterations"] > 2
        assert optimum["train"] > watched["train"]
        assert watched["test"] == epoch_lines(out)[-1][3]

    def test_tells_how_to_get_the_kernels(self, home, capsys, monkeypatch):
        monkeypatch.setattr("fastsoftmax.backend._import_native", lambda: ImportError("none"))
        assert run_demo("--data-home", str(home), "--no-plots", "--epochs", "1") == 0
        assert "a C compiler" in capsys.readouterr().out

    def test_folder_with_data(self, home, capsys):
        arguments = ["--no-plots", "--epochs", "1", "--batch-size", "32", "--momentum", "0.9"]
        assert run_demo("--data-home", str(home), *arguments) == 0
        out = capsys.readouterr().out
        assert "Fashion-MNIST: 200 training and 50 test images" in out
        assert "sample" not in out
        assert "batch size 32, learning rate 0.1, momentum 0.9" in out

    def test_data_that_the_environment_names(self, home, capsys, monkeypatch):
        monkeypatch.setenv("FASTSOFTMAX_DATA", str(home))
        assert run_demo("--no-plots", "--epochs", "1") == 0
        assert "200 training" in capsys.readouterr().out
        monkeypatch.setenv("FASTSOFTMAX_DATA", str(home / "none"))
        assert "no train-images" in one_error_line(capsys, run_demo("--no-plots"))

    def test_full_batch_solver(self, home, capsys):
        arguments = ["--no-plots", "--solver", "lbfgs", "--epochs", "3"]
        assert run_demo("--data-home", str(home), *arguments) == 0
        out, err = capsys.readouterr()
        assert err == ""
        assert "lbfgs, 3 iterations" in out
        assert "batch size" not in out
        assert [row[0] for row in epoch_lines(out)] == [1, 2, 3]

    def test_seed(self, home, capsys):
        losses = []
        for seed in ("1", "1", "2"):
            assert (
                run_demo("--data-home", str(home), "--no-plots", "--epochs", "2", "--seed", seed)
                == 0
            )
            losses.append([row[1] for row in epoch_lines(capsys.readouterr().out)])
        assert losses[0] == losses[1] != losses[2]

    def test_lines_appear_at_once(self, monkeypatch):
        writes = []

        class Stream:
            def write(self, text):
                writes.append(text)

            def flush(self):
                writes.append("flush")

        monkeypatch.setattr(sys, "stdout", Stream())
        state = SimpleNamespace(
            solver="sgd",
            iteration=1,
            loss=0.5,
            accuracy=0.75,
            eval_accuracy=(0.7,),
            rows_per_second=1.5e6,
        )
        assert demo.print_epoch(state) is None  # True would stop the fit
        assert writes[-1] == "flush"
        assert epoch_lines("".join(writes)) == [(1, 0.5, 0.75, 0.7, 1.5e6)]

    def test_without_matplotlib(self, home, capsys, monkeypatch, tmp_path):
        monkeypatch.setitem(sys.modules, "matplotlib", None)
        monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
        assert run_demo("--data-home", str(home), "--epochs", "1") == 0
        out, err = capsys.readouterr()
        assert err == ""
        assert "pip install matplotlib" in out
        assert len(epoch_lines(out)) == 1
        assert not (tmp_path / "fastsoftmax-demo").exists()

    def test_figures_are_not_pyplot_s(self, home, monkeypatch, capsys):
        pytest.importorskip("matplotlib", reason="matplotlib is not installed")
        monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
        assert run_demo("--data-home", str(home), "--epochs", "1") == 0
        assert capsys.readouterr().out.count("wrote ") == 3


class TestDemoErrors:
    def test_no_data_there(self, capsys, tmp_path):
        code = run_demo("--data-home", str(tmp_path / "none"))
        error = one_error_line(capsys, code)
        assert str(tmp_path / "none") in error
        assert "--download" in error

    def test_corrupt_file(self, home, capsys):
        path = home / "t10k-labels-idx1-ubyte.gz"
        path.write_bytes(path.read_bytes()[:-3])
        error = one_error_line(capsys, run_demo("--data-home", str(home)))
        assert str(path) in error
        assert "truncated or corrupt" in error

    def test_one_class(self, home, capsys):
        labels = gzip.compress(struct.pack(">BBBBI", 0, 0, 8, 1, 200) + bytes(200))
        (home / "train-labels-idx1-ubyte.gz").write_bytes(labels)
        error = one_error_line(capsys, run_demo("--data-home", str(home)))
        assert "training" in error

    def test_output_is_a_file(self, home, capsys, tmp_path):
        pytest.importorskip("matplotlib", reason="matplotlib is not installed")
        (tmp_path / "file").touch()
        code = run_demo("--data-home", str(home), "--output", str(tmp_path / "file"))
        assert str(tmp_path / "file") in one_error_line(capsys, code)

    def test_no_compiled_kernels(self, capsys, monkeypatch):
        monkeypatch.setattr("fastsoftmax.backend._import_native", lambda: ImportError("none"))
        assert "compiled kernels" in one_error_line(capsys, run_demo("--backend", "native"))

    def test_divergence(self, home, capsys):
        arguments = ["--no-plots", "--learning-rate", "1e38", "--epochs", "3"]
        error = one_error_line(capsys, run_demo("--data-home", str(home), *arguments))
        assert "diverged" in error
        assert "learning_rate" in error

    @pytest.mark.parametrize(
        "option",
        [
            "--epochs 0",
            "--epochs many",
            "--batch-size -1",
            "--learning-rate 0",
            "--learning-rate nan",
            "--momentum 1",
            "--seed -1",
            "--n-jobs 0",
            "--solver newton",
            "--backend cuda",
        ],
    )
    def test_options(self, capsys, option):
        with pytest.raises(SystemExit) as exit:
            run_demo(*option.split())
        assert exit.value.code == 2
        assert option.split()[0] in capsys.readouterr().err.splitlines()[-1]


def kernels_with(**changed):
    """Return a stand-in for the compiled kernels: the twin, with some functions replaced."""
    functions = {name: getattr(reference, name) for name in (*KERNELS, "Targets")}
    return SimpleNamespace(available_isas=lambda: ("fast", "base"), **{**functions, **changed})


class TestSelfCheck:
    def test_compiled_kernels(self):
        kernels = pytest.importorskip("fastsoftmax.kernels", reason="kernels are not compiled")
        results = list(check_kernels(kernels))
        assert [result for result in results if not result.ok] == []
        assert {result.isa for result in results} == set(kernels.available_isas())
        assert {(result.real, result.kernel) for result in results} == {
            (real, name) for real in ("float32", "float64") for name in KERNELS
        }

    def test_right(self):
        results = list(check_kernels(kernels_with()))
        assert len(results) == 2 * 2 * len(KERNELS)
        assert all(result.ok for result in results)

    @pytest.mark.parametrize("factor", [1.001, np.nan, np.inf])
    def test_wrong_in_one_instruction_set(self, factor):
        def softmax_rows(out, logits, *, isa, n_threads):
            reference.softmax_rows(out, logits)
            if isa == "fast" and out.dtype == np.float32:
                out[-1, -1] *= factor if out.shape[1] == 10 else 1.0
                out[-1, -1] += 1e-3 if out.shape[1] == 10 else 0.0

        results = check_kernels(kernels_with(softmax_rows=softmax_rows))
        (wrong,) = (result for result in results if not result.ok)
        assert (wrong.isa, wrong.real, wrong.kernel) == ("fast", "float32", "softmax_rows")
        assert wrong.problem.startswith("error ")

    def test_bits_that_depend_on_threads(self):
        def affine_rows(logits, X, weights, bias, *, isa, n_threads):
            reference.affine_rows(logits, X, weights, bias)
            if n_threads > 1:
                logits[0, 0] = np.nextafter(logits[0, 0], np.inf, dtype=logits.dtype)

        results = check_kernels(kernels_with(affine_rows=affine_rows))
        problems = {result.problem for result in results if result.kernel == "affine_rows"}
        assert problems == {"1 and 2 threads give different bits"}

    def test_kernel_that_raises(self):
        def sgd_steps(*args, **kwargs):
            raise RuntimeError("illegal")

        problems = [r.problem for r in check_kernels(kernels_with(sgd_steps=sgd_steps))]
        assert problems.count("RuntimeError: illegal") == 4


class TestInfo:
    def test_compiled(self, capsys):
        kernels = pytest.importorskip("fastsoftmax.kernels", reason="kernels are not compiled")
        assert main(["info"]) == 0
        out = capsys.readouterr().out
        assert re.search(r"^self-check: ok \(\d+\.\d s\)$", out, flags=re.MULTILINE)
        for isa in kernels.available_isas():
            assert f"{isa} float32" in out
            assert f"{isa} float64" in out

    def test_failure(self, capsys, monkeypatch):
        def affine_rows(logits, *args, **kwargs):
            logits[...] = 7.0

        wrong = kernels_with(affine_rows=affine_rows)
        monkeypatch.setattr(info, "resolve_backend", lambda backend: wrong)
        assert main(["info"]) == 1
        out = capsys.readouterr().out
        assert "self-check: FAILED" in out
        assert "affine_rows on fast in float32: error" in out

    def test_without_compiled_kernels(self, capsys, monkeypatch):
        monkeypatch.setattr("fastsoftmax.backend._import_native", lambda: ImportError("no module"))
        assert main(["info"]) == 0
        out = capsys.readouterr().out
        assert "numpy, many times slower" in out
        assert "no module" in out
        assert "self-check: skipped" in out


class TestShowVersions:
    def test_contents(self, capsys):
        fastsoftmax.show_versions()
        lines = capsys.readouterr().out.splitlines()
        names = [re.split("  +", line)[0] for line in lines]
        assert names == list(_show_versions.describe())
        for name in ("fastsoftmax", "backend", "instruction sets", "OpenMP", "threads", "python"):
            assert name in names
        for name in ("CPU", "OS", "numpy", "scikit-learn", "scipy", "joblib", "threadpoolctl"):
            assert name in names
        assert all(len(re.split("  +", line, maxsplit=1)) == 2 for line in lines)

    def test_what_is_not_installed(self, monkeypatch):
        def version(name):
            raise _show_versions.metadata.PackageNotFoundError(name)

        monkeypatch.setattr(_show_versions.metadata, "version", version)
        assert _show_versions.describe()["matplotlib"] == "not installed"

    @pytest.mark.parametrize("platform", ["linux", "darwin", "plan9"])
    def test_unreadable_cpu(self, monkeypatch, platform):
        def refuse(*args, **kwargs):
            raise PermissionError

        monkeypatch.setattr(_show_versions.Path, "read_text", refuse)
        monkeypatch.setattr(_show_versions.subprocess, "run", refuse)
        monkeypatch.setattr(_show_versions.sys, "platform", platform)
        assert isinstance(_show_versions._cpu_model(), str)

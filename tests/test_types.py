"""What a type checker sees: the stub beside the compiled module, and the package from outside."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import fastsoftmax

pytest.importorskip("mypy")
pytestmark = pytest.mark.slow

# What Cython adds to a module.
NOT_IN_THE_STUB = ["__reduce_cython__", "__setstate_cython__", "__test__"]

PROGRAM = """
import numpy as np
from numpy.typing import NDArray

from fastsoftmax import FastSoftmax, FastSoftmaxCV, fastsoftmax_path, cross_entropy, softmax
from fastsoftmax.monitor import FitState

X: NDArray[np.float64] = np.random.default_rng(0).normal(size=(60, 3))
y: list[str] = ["a", "b", "c"] * 20


def watch(state: FitState) -> bool:
    return state.loss < 0.1


model: FastSoftmax = FastSoftmax(C=0.5, class_weight={"a": 2.0}, random_state=0).fit(
    X, y, sample_weight=np.ones(60), eval_set=[(X, y)], callbacks=[watch]
)
labels, probabilities = model.predict_topk(X, 2)
accuracy: float = model.score(X, y)
loss: float = model.evaluate(X, y).loss
chosen: float = FastSoftmaxCV(Cs=[0.1, 1.0], scoring="neg_log_loss").fit(X, y).C_
gap = float(fastsoftmax_path(X, y, Cs=3).gaps.max())
rows = softmax(X)
error = cross_entropy(X, np.zeros(60, dtype=np.int64))
"""
WRONG = {
    "FastSoftmax(penalty=None)": "call-arg",
    "FastSoftmax(tol='small')": "arg-type",
    "model.predict_topk(X)": "call-arg",
}


def run(*arguments, folder):
    package = str(Path(fastsoftmax.__file__).parents[1])
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=folder,
        env={**os.environ, "MYPYPATH": "" if "site-packages" in package else package},
        capture_output=True,
        text=True,
        check=False,
    )


def test_stub(kernels, tmp_path):
    (tmp_path / "allowed").write_text(
        "\n".join(f"{kernels.__name__}.{name}" for name in NOT_IN_THE_STUB), encoding="utf-8"
    )
    # what others leave untyped is not asked about here
    (tmp_path / "mypy.ini").write_text("[mypy]\nignore_missing_imports = true\n", "utf-8")
    options = ["--allowlist", "allowed", "--mypy-config-file", "mypy.ini"]
    result = run("mypy.stubtest", kernels.__name__, *options, folder=tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr


def test_a_typed_program(tmp_path):
    """Also that mistakes are seen: `Any` everywhere would hide them."""
    untyped = "[[tool.mypy.overrides]]\nmodule = 'sklearn.*'\nignore_missing_imports = true\n"
    (tmp_path / "pyproject.toml").write_text(
        f"[tool.mypy]\nstrict = true\nfollow_imports = 'silent'\n{untyped}", encoding="utf-8"
    )
    lines = PROGRAM.splitlines()
    first = len(lines) + 1
    (tmp_path / "program.py").write_text("\n".join([*lines, *WRONG, ""]), encoding="utf-8")
    result = run("mypy", "--no-error-summary", "program.py", folder=tmp_path)
    found = [line for line in result.stdout.splitlines() if ": error:" in line]
    assert len(found) == len(WRONG), result.stdout + result.stderr
    for number, (line, code) in enumerate(zip(found, WRONG.values(), strict=True), first):
        assert line.startswith(f"program.py:{number}: ")
        assert line.endswith(f"[{code}]")


def test_the_package_says_that_it_is_typed():
    assert Path(fastsoftmax.__file__).with_name("py.typed").exists()

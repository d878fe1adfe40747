"""The C of this package for other systems: compiled, and its own tests run where they can be.

    python3 .ci/systems.py               all targets: half an hour
    python3 .ci/systems.py --only arm    those whose line in the table has this word
    python3 .ci/systems.py --sample      what CI does: compiles for the targets of zig, and runs
                                         the tests on this one, with checks of undefined behaviour

Each target is compiled without a warning (tests/c/check_kernels.c and src/kernels), linked and,
through an emulator where it is for another system, run with a part of its sizes. A target whose
compiler or emulator is missing is skipped, and the table says so. `pip install ziglang` brings a
clang for all systems to the Python that runs this; the other compilers and the emulators are
packages of Debian:

    apt-get install gcc-mingw-w64-x86-64 wine64 wine gcc-aarch64-linux-gnu libc6-dev-arm64-cross \
        gcc-arm-linux-gnueabihf libc6-dev-armhf-cross qemu-user-static
"""

import argparse
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
STRICT = [
    *("-std=c11", "-ffp-contract=off", "-fvisibility=hidden", "-Isrc/kernels"),
    *("-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Wvla", "-Werror"),
]
UNDEFINED = ("-fsanitize=undefined", "-fno-sanitize-recover=all", "-O0")
STATIC, WINDOWS = ("-pthread", "-static"), ("-D__USE_MINGW_ANSI_STDIO=1",)  # printf of C99
QEMU_ARM64, QEMU_ARM = ("qemu-aarch64-static", "qemu-aarch64"), ("qemu-arm-static", "qemu-arm")
WINE = ("wine64", "wine")


@dataclass
class Target:
    """A system and its compiler. `runners` are emulators; () runs it as it is, None not at all."""

    system: str
    compiler: str
    flags: tuple[str, ...]
    runners: tuple[str, ...] | None = ()
    is_sampled: bool = False  # compiled in the sample
    runs_in_sample: bool = False

    @property
    def name(self):
        """What --only looks in."""
        return f"{self.system}, {self.compiler}"


def zig(system, triple, flags, runners):
    """Return a target of zig's clang."""
    return Target(system, "zig cc", ("-target", triple, *flags), runners, is_sampled=True)


TARGETS = [
    Target("Linux x86_64", "zig cc", UNDEFINED, (), is_sampled=True, runs_in_sample=True),
    Target("Linux x86_64, musl", "zig cc", ("-target", "x86_64-linux-musl", "-static"), ()),
    zig("Linux aarch64, musl", "aarch64-linux-musl", ("-static",), QEMU_ARM64),
    zig("macOS arm64", "aarch64-macos", (), None),
    zig("macOS x86_64", "x86_64-macos", (), None),
    zig("Windows x86_64", "x86_64-windows-gnu", WINDOWS, WINE),
    Target("FreeBSD x86_64", "zig cc", ("-target", "x86_64-freebsd"), None),
    Target("NetBSD x86_64", "zig cc", ("-target", "x86_64-netbsd"), None),
    # -Wno-float-conversion: isnan and isinf of its headers convert to all types
    Target("Windows x86_64", "x86_64-w64-mingw32-gcc", (*WINDOWS, "-Wno-float-conversion"), WINE),
    Target("Linux aarch64", "aarch64-linux-gnu-gcc", STATIC, QEMU_ARM64),
    Target("Linux arm (32 bits)", "arm-linux-gnueabihf-gcc", STATIC, QEMU_ARM),
    Target("Linux x86_64", "clang", ("-pthread", *UNDEFINED), ()),
]


def main():
    """Compile and run the targets, and print their table; return 1 where one failed."""
    parser = argparse.ArgumentParser(usage="systems.py [--sample] [--only WORD]")
    parser.add_argument("--sample", action="store_true", help="only what CI does")
    parser.add_argument("--only", default="", help="a word of the target's name")
    options = parser.parse_args()
    chosen = [t for t in TARGETS if options.only.lower() in t.name.lower()]
    chosen = [t for t in chosen if t.is_sampled or not options.sample]
    if not chosen:
        parser.error(f"no target has {options.only!r}: {'; '.join(t.name for t in TARGETS)}")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        os.environ.setdefault("WINEPREFIX", str(Path(folder, "wine")))
        os.environ.setdefault("WINEDEBUG", "-all")
        lines = [(t, *check(t, Path(folder, str(i)), options.sample)) for i, t in enumerate(chosen)]
    print("\n| system | compiler | compiled | run | tests |\n|---|---|---|---|---|")
    for target, *cells in lines:
        print("|", " | ".join([target.system, target.compiler, *cells]), "|")
    return int(any("FAILED" in cell for line in lines for cell in line[1:]))


def check(target, folder, is_sample):
    """Return the cells of a target: compiled, run, tests."""
    print(f"\n== {target.name}", flush=True)
    compiler = command_of(target.compiler)
    if compiler is None:
        return f"skipped, there is no {target.compiler}", "-", "-"
    folder.mkdir()
    program = folder / "check_kernels.exe"
    run_here = target.runners is not None and (target.runs_in_sample or not is_sample)
    linked = program if run_here or not is_sample else None
    if not build(compiler, target.flags, folder, linked):
        return "FAILED", "-", "-"
    if target.runners is None:
        return "yes", "no, not on this machine", "-"
    if not run_here:
        return "yes", "no, not in the sample", "-"
    if not (target.runners or platform.machine() == "x86_64"):
        return "yes", "skipped, this is no x86_64", "-"
    found = [path for path in map(shutil.which, target.runners) if path]
    if target.runners and not found:
        return "yes", f"skipped, there is no {target.runners[0]}", "-"
    # the sample is half of it: gcc's sanitizers see the doubles (tests/c/run.sh)
    command = [*found[:1], program, "--brief", *["float"] * is_sample]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    print(done.stdout[-4000:], done.stderr[-2000:], flush=True)
    tests = "passed" if done.returncode == 0 else f"FAILED (exit status {done.returncode})"
    return "yes", Path(*found[:1]).name or "yes", tests


def command_of(compiler):
    """Return the command of a compiler; None without it."""
    if compiler != "zig cc":
        return [compiler] if shutil.which(compiler) else None
    if importlib.util.find_spec("ziglang"):
        return [sys.executable, "-m", "ziglang", "cc"]
    return ["zig", "cc"] if shutil.which("zig") else None


def build(command, flags, folder, program):
    """Compile all sources, and link them to a program unless that is None; whether it works."""
    sources = [*ROOT.glob("src/kernels/**/*.c"), ROOT / "tests/c/check_kernels.c"]
    objects = [folder / f"{source.stem}.o" for source in sources]
    speed = [] if "-O0" in flags else ["-O1" if program else "-O0"]

    def compile_one(source, made):
        given = [*command, *STRICT, *flags, *speed, "-c", source.relative_to(ROOT), "-o", made]
        return subprocess.run(given, cwd=ROOT, capture_output=True, text=True)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        done = [*pool.map(compile_one, sources, objects)]
    if program and not any(one.returncode for one in done):
        given = [*command, *flags, *objects, "-lm", "-o", program]
        done = [subprocess.run(given, cwd=ROOT, capture_output=True, text=True)]
    for one in done:
        print(one.stderr[:4000], end="", flush=True)
    return not any(one.returncode for one in done)


if __name__ == "__main__":
    sys.exit(main())

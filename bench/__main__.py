"""What is measured by hand: python bench COMMAND. Each command explains itself with --help."""

import importlib
import sys
from collections.abc import Sequence

# By command: module and function, and what it does. Modules are imported when they are needed.
COMMANDS = {
    "ratios": ("races.in_turn:ratios", "races: native and its rivals, timed in turn"),
    "scaling": ("races.in_turn:scaling", "races: native with 1, 2, ... threads, timed in turn"),
    "fits": ("fits.comparison:main", "whole fits of all packages to the same objective gap"),
    "everyday": (
        "fits.everyday:main",
        "everyday data of many shapes: ours and scikit-learn's fits",
    ),
    "probes": ("fits.probes:main", "embeddings to a gap of 1e-4, and a sweep over C; 20 minutes"),
    "busy": ("fits.busy:main", "fits and epochs beside busy processes; at most 10 minutes"),
    "scale": ("fits.scale:main", "what a fit of ImageNet's size takes, by a model of its cost"),
    "cluster": (
        "fits.cluster:main",
        "an evaluation on a Dask cluster: a model, local workers, larger ones; minutes",
    ),
    "tables": ("results.tables:main", "bench/README.md's tables from results/"),
    "chart": ("results.chart:main", "the charts from results/"),
    "jobs": ("fits.process:main", "fits in a process of their own (called by the others)"),
}


def main(arguments: Sequence[str]) -> int:
    """Run a command, or list them."""
    name, *rest = arguments or [""]
    if name not in COMMANDS:
        print(__doc__)
        for command, (_, what) in COMMANDS.items():
            print(f"    {command:<8} {what}")
        return int(name not in ("-h", "--help"))
    module, _, function = COMMANDS[name][0].partition(":")
    sys.argv = [f"python bench {name}", *rest]  # what --help shows
    return getattr(importlib.import_module(module), function)(rest)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

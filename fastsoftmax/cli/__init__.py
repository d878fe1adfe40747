"""The command line: ``python -m fastsoftmax demo`` and ``python -m fastsoftmax info``.

Exit codes: 0, done; 1, the self-check of `info` failed; 2, the command cannot be carried out as
given (one line on stderr says why); 130, interrupted.
"""

from __future__ import annotations

import argparse
import errno
import os
import sys
from collections.abc import Sequence

from fastsoftmax._version import __version__
from fastsoftmax.cli import demo, info

__all__ = ["main"]

_PROG = "python -m fastsoftmax"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command that the arguments name and return its exit code.

    Parameters
    ----------
    argv : sequence of str, default=None
        The arguments; None means those of the process.

    Returns
    -------
    int
        0, 1, 2 or 130; see the docstring of this module.

    Raises
    ------
    SystemExit
        For ``--help`` and ``--version``, and for arguments that cannot be parsed.

    Examples
    --------
    >>> from fastsoftmax.cli import main
    >>> main([])
    usage: python -m fastsoftmax [-h] [--version] {demo,info} ...
    ...
    0
    """
    parser = argparse.ArgumentParser(
        prog=_PROG,
        description="Exact softmax regression on the CPU: see it train, or check an installation.",
    )
    parser.add_argument("--version", action="version", version=f"fastsoftmax {__version__}")
    commands = parser.add_subparsers(dest="command", title="commands")
    demo.add_parser(commands)
    info.add_parser(commands)
    args, unknown = parser.parse_known_args(argv)
    if unknown:  # argparse would print the usage without the options of the command
        told = commands.choices.get(args.command, parser)
        told.error(f"unrecognized arguments: {' '.join(unknown)}")
    if args.command is None:
        parser.print_help()
        return 0
    try:
        code: int = args.run(args)
        sys.stdout.flush()
    except demo.CommandError as error:
        print(f"{_PROG} {args.command}: error:", *str(error).split(), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"{_PROG} {args.command}: interrupted", file=sys.stderr)
        return 130
    except OSError as error:
        if not _is_reader_gone(error):
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return code


def _is_reader_gone(error: OSError) -> bool:
    """Whether the reader of what we print, such as `head`, has ended."""
    on_windows = os.name == "nt" and error.errno == errno.EINVAL
    return isinstance(error, BrokenPipeError) or on_windows

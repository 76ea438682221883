"""The command `dataflow-tdd`: one module per group of commands, each with a `register` that adds its parsers."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from dataflow.testing.cli import doctor, server, templates
from dataflow.testing.errors import TDDError

_GROUPS = (doctor, server, templates)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. An error goes to standard error in words, without a traceback.

    :param argv: the arguments after the program's name; those of the process by default.
    :return: the exit status: 0, or 1 when the command failed.
    """
    arguments = parser().parse_args(argv)
    try:
        status: int = arguments.run(arguments)
        sys.stdout.flush()
    except TDDError as error:
        print(f"dataflow-tdd: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # whoever reads it has read enough; at its end Python would write once more
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return status


def parser() -> argparse.ArgumentParser:
    """The whole command line; `set_defaults(run=...)` of a sub-parser names the function to call."""
    whole = argparse.ArgumentParser(
        prog="dataflow-tdd", description="Tests against a real PostgreSQL at the price of a unit test."
    )
    subparsers = whole.add_subparsers(title="commands", required=True, metavar="command")
    for group in _GROUPS:
        group.register(subparsers)
    return whole

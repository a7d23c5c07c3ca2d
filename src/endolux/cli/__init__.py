"""The command line: verbs that parse, call one library function and render its answer."""

from __future__ import annotations


def main() -> None:
    """Entry point of the ``endolux`` script; leaves the process with the exit code of the command."""
    import sys

    from endolux.cli.root import run

    sys.exit(run(sys.argv[1:]))

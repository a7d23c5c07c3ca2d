"""The root command: collects the verbs, and turns every way to fail into three lines and an exit code."""

from __future__ import annotations

import importlib
import importlib.util
import os
import platform
import signal
import sys
import traceback
from collections.abc import Sequence
from types import FrameType

from cyclopts import App, CycloptsError

from endolux import __version__
from endolux.cli import render
from endolux.errors import EXIT_BUG, EXIT_INTERRUPTED, EXIT_OK, DeviceError, EndoluxError, UsageError, from_os_error

_VERBS = (
    "predict",
    "segment",
    "trajectory",
    "demo",
    "models",
    "evaluate",
    "data",
    "phantom",
    "train",
    "config",
    "export",
    "reproduce",
    "doctor",
)
_REPORT_TO = "the issue tracker of the project"


def build() -> App:
    """The command line with every verb that this installation has."""
    app = App(
        name="endolux",
        help="Depth from endoscopic and laparoscopic video, in real time on an ordinary CPU.",
        version=f"endolux {__version__}",
        result_action="return_value",
        help_format="plaintext",
        help_epilogue=(
            "stdout is the answer (--json for machines), stderr is progress. Exit codes: 0 ok, 1 our bug, 2 usage, "
            "3 input, 4 model, 5 some inputs failed, 6 a check failed, 7 missing extra, 8 device, memory or disk, "
            "130 interrupted. Names that begin with a dash go after '--'."
        ),
    )
    # Ctrl-C is told in three lines below, not swallowed by the parser.
    app.suppress_keyboard_interrupt = False
    for verb in _VERBS:
        name = f"endolux.cli.{verb}"
        if importlib.util.find_spec(name) is not None:
            importlib.import_module(name).register(app)
    return app


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code (never raises, save for a failing stderr).

    Example:
        >>> run(["--version"])
        endolux 0.1.0
        0
    """
    arguments = list(arguments)
    as_json = "--json" in arguments[: arguments.index("--")] if "--" in arguments else "--json" in arguments
    _interrupt_on_sigterm()
    try:
        code = build()(arguments, exit_on_error=False, print_error=False)
        sys.stdout.flush()
    except CycloptsError as problem:
        return _fail(_usage_error(problem), as_json=as_json)
    except EndoluxError as problem:
        return _fail(problem, as_json=as_json)
    except KeyboardInterrupt as problem:
        text = str(problem) or "The command was stopped before its end."
        return _fail(_InterruptedError(text), as_json=as_json)
    except BrokenPipeError:
        # The reader of stdout has gone (| head): nothing is left to say, and Python must not try at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return EXIT_OK
    except MemoryError as problem:
        return _fail(_out_of_memory(problem), as_json=as_json)
    except OSError as problem:
        if problem.filename is None:
            return _bug(problem, as_json=as_json)
        return _fail(from_os_error(problem, problem.filename), as_json=as_json)
    except Exception as problem:
        return _bug(problem, as_json=as_json)
    return code if isinstance(code, int) else EXIT_OK


class _InterruptedError(EndoluxError):
    exit_code = EXIT_INTERRUPTED

    def __init__(self, what: str) -> None:
        super().__init__(
            what,
            why="It was interrupted (Ctrl-C or a termination signal).",
            fix="Run it again; 'endolux predict', 'segment' and 'train' continue where they stopped with --resume.",
            error_id="run.interrupted",
        )


class _BugError(EndoluxError):
    exit_code = EXIT_BUG


def _fail(problem: EndoluxError, *, as_json: bool) -> int:
    render.error(problem, as_json=as_json)
    if os.environ.get("ENDOLUX_DEBUG") == "1":
        traceback.print_exc()
    return problem.exit_code


def _bug(problem: Exception, *, as_json: bool) -> int:
    system = f"endolux {__version__}, Python {platform.python_version()}, {platform.system()} {platform.machine()}"
    return _fail(
        _BugError(
            f"{type(problem).__name__}: {problem}",
            why=f"This is a bug in Endolux ({system}), not your mistake.",
            fix=f"Please report it to {_REPORT_TO} with these lines; ENDOLUX_DEBUG=1 adds the traceback.",
            error_id="bug.unexpected",
        ),
        as_json=as_json,
    )


def _out_of_memory(problem: MemoryError) -> DeviceError:
    return DeviceError(
        "The memory of this machine is used up",
        why=str(problem) or "An allocation failed.",
        fix="Close other programs, or use smaller images; then run the same command with --resume.",
        error_id="device.memory",
    )


def _usage_error(problem: CycloptsError) -> UsageError:
    """The parser's complaint in three lines, with the nearest option where there is one."""
    chain = " ".join(("endolux", *(problem.command_chain or ())))
    what, _, nearest = " ".join(str(problem).split()).partition(" Did you mean ")
    what = what.partition(" Available commands:")[0]
    nearest = nearest.partition(" Available commands:")[0].rstrip("?").strip('"')
    see = f"See '{chain} --help'."
    return UsageError(
        what.rstrip(". "),
        why=f"The command line of '{chain}' does not allow it.",
        fix=f"Did you mean '{nearest}'? {see}" if nearest else see,
        error_id="usage.arguments",
    )


def _interrupt_on_sigterm() -> None:
    def handler(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    try:
        signal.signal(signal.SIGTERM, handler)
    except ValueError:
        return  # not the main thread: signals stay with whoever embeds the command line

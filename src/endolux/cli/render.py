"""What a terminal sees: answers and JSON on stdout; progress and errors on stderr."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from endolux.errors import EndoluxError

if TYPE_CHECKING:
    from pathlib import Path

    from endolux.runtime.output_folder import FailureRecord

PLAIN_INTERVAL_S = 5.0
TTY_INTERVAL_S = 0.1


def answer(text: str) -> None:
    """Write a line of the answer to stdout."""
    sys.stdout.write(printable(text) + "\n")
    sys.stdout.flush()


def answer_json(document: Mapping[str, object] | Sequence[object]) -> None:
    """Write one JSON document to stdout."""
    sys.stdout.write(json.dumps(document, indent=2, sort_keys=False, default=str) + "\n")
    sys.stdout.flush()


def note(text: str) -> None:
    """Write a line that is not the answer to stderr."""
    sys.stderr.write(printable(text) + "\n")
    sys.stderr.flush()


def printable(text: str) -> str:
    r"""The text with undecodable file-name bytes made visible, so that any terminal accepts it.

    Example:
        >>> printable("caf\udce9.png")
        'caf\\xe9.png'
    """
    text = text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)


def error(problem: EndoluxError, *, as_json: bool) -> None:
    """Show an error: three lines on stderr, and one JSON document on stdout for machines."""
    for line in problem.lines():
        # A value with line breaks must not turn three lines into more.
        note(" ".join(line.splitlines()) if not line.startswith(" ") else "  " + " ".join(line.split()))
    if as_json:
        answer_json({"ok": False, "error": error_document(problem)})


def error_document(problem: EndoluxError) -> dict[str, object]:
    """An error as plain values.

    Example:
        >>> from endolux.errors import InputError
        >>> error_document(InputError("a", why="b", fix="c", error_id="input.missing"))["exit_code"]
        3
    """
    return {
        "id": problem.error_id,
        "what": problem.what,
        "why": problem.why,
        "fix": problem.fix,
        "exit_code": problem.exit_code,
    }


def table(rows: Sequence[Sequence[object]], *, header: Sequence[str]) -> str:
    """Columns padded with spaces; numbers flush right.

    Example:
        >>> table([("a", 1), ("bcd", 22)], header=("name", "n")).splitlines()
        ['name   n', 'a      1', 'bcd   22']
    """
    cells = [tuple(header), *(tuple(str(cell) for cell in row) for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    right = [bool(rows) and all(isinstance(row[c], int | float) for row in rows) for c in range(len(header))]
    lines = []
    for row in cells:
        padded = (cell.rjust(w) if r else cell.ljust(w) for cell, w, r in zip(row, widths, right, strict=True))
        lines.append("  ".join(padded).rstrip())
    return "\n".join(lines)


def duration(seconds: float) -> str:
    """A time span for people.

    Example:
        >>> duration(4.21), duration(75), duration(7322)
        ('4.2 s', '1 min 15 s', '2 h 02 min')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    if seconds < 3600:
        return f"{int(seconds) // 60} min {int(seconds) % 60:02d} s"
    return f"{int(seconds) // 3600} h {int(seconds) % 3600 // 60:02d} min"


def partial_failure(failures: Sequence[FailureRecord], *, done: int, failed: int, out: Path) -> None:
    """Say in the three-line form of error 5 which inputs failed, so that nobody takes the run for a complete one.

    Args:
        failures: the first of them; nothing is said where there are none.
        done: inputs that were done.
        failed: how many failed.
        out: folder of the run.
    """
    if not failures:
        return
    names = ", ".join(f"{f.name} ({f.error_id})" for f in failures[:5])
    more = f" and {failed - 5} more" if failed > 5 else ""
    note(f"error[run.partial]: {failed} of {done + failed} inputs failed: {names}{more}")
    note(f"  why: {failures[0].what} ({failures[0].why})")
    note(f"  fix: {failures[0].fix} Every failure is listed in {out / 'run.json'}.")


class ProgressLine:
    """Progress on stderr: one line rewritten on a terminal, a plain line every few seconds elsewhere."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet
        self._tty = sys.stderr.isatty()
        self._start = self._last = time.monotonic()
        self._shown = False

    def update(self, done: int, *, total: int | None, failed: int = 0, start: int = 0) -> None:
        """Show that ``done`` frames are finished, ``start`` of them by an earlier run."""
        now = time.monotonic()
        if self._quiet or now - self._last < (TTY_INTERVAL_S if self._tty else PLAIN_INTERVAL_S):
            return
        self._last = now
        rate = max(done - start, 0) / max(now - self._start, 1e-6)
        text = f"{done} frames" if total is None else f"{done} of {total} frames"
        text += f", {rate:.1f}/s"
        if total is not None and rate > 0:
            text += f", {duration(max(total - done, 0) / rate)} left"
        if failed:
            text += f", {failed} failed"
        if self._tty:
            sys.stderr.write(f"\r\x1b[K{text}")
            sys.stderr.flush()
        else:
            note(text)
        self._shown = True

    def close(self) -> None:
        """Leave the terminal on a fresh line."""
        if self._tty and self._shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
        self._shown = False

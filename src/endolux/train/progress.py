"""What a terminal shows of a training: a bar on a terminal, plain lines elsewhere, all on stderr."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

_SHOWN = ("total", "lr", "images_per_s")


class Display:
    r"""Receives the lines of a run's log.

    Args:
        name: of the run, before the bar.
        stream: stderr by default.

    Example:
        >>> import io
        >>> text = io.StringIO()
        >>> with Display("leve", stream=text) as display:
        ...     display({"step": 20, "steps": 100, "total": 0.5, "images_per_s": 12.0})
        >>> text.getvalue()
        'step 20/100  total 0.5  images_per_s 12\n'
    """

    def __init__(self, name: str, *, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._total: object = None
        if self._stream.isatty():
            self._bar = Progress(
                TextColumn(name, markup=False),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.description}", markup=False),
                console=Console(file=self._stream),
            )

    def __enter__(self) -> Display:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, *_error: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, line: Mapping[str, object]) -> None:
        """Show one line of the log."""
        self._total = line.get("steps", self._total)
        step = line.get("step", 0)
        if "message" in line:
            self._plain(str(line["message"]))
        elif self._bar is None:
            self._plain(f"step {step}{'' if self._total is None else f'/{self._total}'}  {numbers(line)}")
        elif "total" in line:
            self._advance(step, numbers({name: line[name] for name in _SHOWN if name in line}))
        else:
            self._plain(f"step {step}  {numbers(line)}")

    def _advance(self, step: object, text: str) -> None:
        if self._bar is None:
            return
        total = float(self._total) if isinstance(self._total, int) else None
        if self._task is None:
            self._task = self._bar.add_task(text, total=total)
        self._bar.update(self._task, completed=float(step) if isinstance(step, int) else 0.0, description=text)

    def _plain(self, text: str) -> None:
        if self._bar is not None:
            self._bar.console.print(text, markup=False, highlight=False)
        else:
            self._stream.write(text.encode("utf-8", "backslashreplace").decode() + "\n")
            self._stream.flush()


def numbers(line: Mapping[str, object]) -> str:
    """The measured numbers of a line.

    Example:
        >>> numbers({"step": 3, "total": 0.51234, "epoch": 1})
        'total 0.5123'
    """
    return "  ".join(f"{name} {value:.4g}" for name, value in line.items() if isinstance(value, float))

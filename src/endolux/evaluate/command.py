"""Another program as a predictor: run once a frame, without a shell, with a time limit."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

import cv2

from endolux.datasets.planes import CODE_SUFFIXES, DEPTH_SUFFIXES
from endolux.errors import InputError, UsageError
from endolux.evaluate.predictors import read_prediction
from endolux.evaluate.provenance import public_command
from endolux.types import DepthKind, DepthMap, Frame

TIMEOUT_S = 300.0
_TAIL = 400
_PLACEHOLDER = re.compile(r"\{image\}|\{output\}")
_KEEP = 64 << 10


class CommandPredictor:
    """Runs ``tool {image} {output}`` for every frame and reads what it wrote.

    ``{image}`` becomes the path of an 8-bit RGB PNG of the frame, ``{output}`` the path of the depth file to write
    (``.npy`` unless the template gives it another suffix, as in ``{output}.png``). The template is split into
    arguments once, before anything is filled in, and no shell sees it: file names cannot become commands.

    Args:
        template: the command line with both placeholders.
        name: for reports.
        kind: what the numbers mean.
        scale: codes per unit where the output is 16-bit.
        timeout_s: time limit of one frame in seconds; then the program and its children are stopped.

    Raises:
        UsageError: ``evaluate.command`` for a template that cannot be run.

    Example:
        >>> import sys
        >>> code = "import sys, numpy; numpy.save(sys.argv[2], numpy.full((4, 6), 7.0))"
        >>> template = shlex.join([sys.executable, "-c", code]) + " {image} {output}"
        >>> predictor = CommandPredictor(template, name="seven", kind=DepthKind.METRIC)
        >>> import numpy as np
        >>> predictor.predict("a", Frame(image=np.zeros((4, 6, 3), np.uint8))).at(0, 0)
        7.0
    """

    def __init__(
        self,
        template: str,
        *,
        name: str,
        kind: DepthKind,
        scale: float | None = None,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        self.name = name
        self.kind = kind
        self._arguments = _split(template)
        self._scale = scale
        self._timeout_s = timeout_s
        tail = next(a for a in self._arguments if "{output}" in a).partition("{output}")[2]
        if tail and tail.lower() not in DEPTH_SUFFIXES:
            raise _bad(template, f"'{tail}' after {{output}} is none of {', '.join(DEPTH_SUFFIXES)}")
        self._default_suffix, self._file = ("", f"depth{tail}") if tail else (".npy", "depth.npy")
        coded = tail.lower() in CODE_SUFFIXES
        if coded and kind is DepthKind.METRIC and scale is None:
            raise _bad(template, "its 16-bit metric output has no stated unit (--prediction-scale CODES_PER_MM)")
        self.provenance: Mapping[str, str | float | None] = {
            "type": "command",
            "name": name,
            "command": " ".join(public_command(self._arguments)),
            "codes_per_unit": scale,
        }

    def predict(self, name: str, frame: Frame) -> DepthMap:  # noqa: ARG002 -- the protocol's signature
        """Run the program on one frame.

        Raises:
            InputError: ``evaluate.command-failed``, ``evaluate.command-timeout``, ``evaluate.command-output`` or a
                damaged depth file.
        """
        folder = Path(tempfile.mkdtemp(prefix="endolux-command-"))
        try:
            image, output = folder / "image.png", folder / self._file
            image.write_bytes(cv2.imencode(".png", cv2.cvtColor(frame.image, cv2.COLOR_RGB2BGR))[1].tobytes())
            values = {"{image}": str(image), "{output}": str(folder / "depth") + self._default_suffix}
            # One pass over the template, so that a placeholder in a path is not filled in again.
            arguments = [_PLACEHOLDER.sub(lambda found: values[found[0]], argument) for argument in self._arguments]
            self._run(arguments, folder)
            if not output.is_file():
                raise InputError(
                    f"The command '{self._arguments[0]}' wrote no depth file",
                    why="It ended without an error, and the file that {output} stands for does not exist.",
                    fix="Check that the program writes exactly the path that it gets for {output}.",
                    error_id="evaluate.command-output",
                )
            return read_prediction(output, kind=self.kind, codes_per_unit=self._scale or 1.0)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _run(self, arguments: list[str], folder: Path) -> None:
        with (folder / "log").open("w+b") as log:
            try:
                process = subprocess.Popen(
                    arguments, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
                )
            except (OSError, ValueError) as error:
                raise InputError(
                    f"The command '{arguments[0]}' cannot be started",
                    why=f"The operating system said: {error}.",
                    fix="Check the program's path and its permissions.",
                    error_id="evaluate.command-failed",
                ) from error
            try:
                code = process.wait(timeout=self._timeout_s)
            except subprocess.TimeoutExpired as error:
                _stop(process)
                raise InputError(
                    f"The command '{arguments[0]}' took longer than {self._timeout_s:g} s for one frame",
                    why="It was stopped, with everything that it had started.",
                    fix="Give it more time with --timeout SECONDS.",
                    error_id="evaluate.command-timeout",
                ) from error
            except BaseException:
                _stop(process)
                raise
            if code != 0:
                log.seek(max(0, log.seek(0, os.SEEK_END) - _KEEP))
                text = " ".join(log.read().decode("utf-8", "replace").split())
                raise InputError(
                    f"The command '{arguments[0]}' failed with exit code {code}",
                    why=f"It said: {text[-_TAIL:]}" if text else "It said nothing.",
                    fix="Run it by hand on one image.",
                    error_id="evaluate.command-failed",
                )


def _split(template: str) -> list[str]:
    try:
        arguments = shlex.split(template)
    except ValueError as error:
        raise _bad(template, f"it cannot be split into arguments ({error})") from error
    for placeholder in ("{image}", "{output}"):
        if sum(argument.count(placeholder) for argument in arguments) != 1:
            raise _bad(template, f"it does not name {placeholder} exactly once")
    if shutil.which(arguments[0]) is None:
        raise _bad(template, f"there is no program '{arguments[0]}'")
    return arguments


def _stop(process: subprocess.Popen[bytes]) -> None:
    if hasattr(os, "killpg"):
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return
    else:
        process.kill()
    process.wait()


def _bad(template: str, reason: str) -> UsageError:
    return UsageError(
        f"The command '{template}' cannot be used: {reason}",
        why="It is run once a frame, without a shell, and must say where the image is and where the depth goes.",
        fix="For example --command 'mytool --input {image} --output {output}'.",
        error_id="evaluate.command",
    )

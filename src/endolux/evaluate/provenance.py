"""What a result says of where it came from, without saying where on whose machine."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
from collections.abc import Sequence
from pathlib import PurePosixPath, PureWindowsPath

import cv2
import numpy as np
from pydantic import JsonValue

import endolux

_QUOTED = re.compile(r"'((?:/|~|\\\\|[A-Za-z]:[/\\])[^']*)'")


def versions() -> dict[str, JsonValue]:
    """Versions of everything that can move a figure.

    Example:
        >>> sorted(versions())
        ['endolux', 'numpy', 'onnxruntime', 'opencv', 'openvino', 'python']
    """
    return {
        "endolux": endolux.__version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "opencv": cv2.__version__,
        "onnxruntime": _version("onnxruntime"),
        "openvino": _version("openvino"),
    }


def public_command(arguments: Sequence[str]) -> list[str]:
    """A command line with every path cut to its last part: folders of a machine do not belong into a result.

    Example:
        >>> public_command(["endolux", "evaluate", "m", "--data", "/home/me/scared", "--limit=3", "--split=a/b.txt"])
        ['endolux', 'evaluate', 'm', '--data', 'scared', '--limit=3', '--split=b.txt']
    """
    return [_public(argument) for argument in arguments]


def public_text(text: str) -> str:
    """A message with every quoted absolute path cut to its last part.

    Example:
        >>> public_text("No file '/home/me/scared/a.png' for 'dataset1/keyframe2 5'")
        "No file 'a.png' for 'dataset1/keyframe2 5'"
    """
    return _QUOTED.sub(lambda found: f"'{_name(found[1])}'", text)


def _public(argument: str) -> str:
    head, equals, tail = argument.partition("=") if argument.startswith("--") else ("", "", argument)
    words = [_name(word) for word in tail.split(" ")]
    return head + equals + " ".join(words)


def _name(word: str) -> str:
    if "\\" in word and os.name == "nt":
        return PureWindowsPath(word).name or word
    return PurePosixPath(word).name or word if "/" in word else word


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None

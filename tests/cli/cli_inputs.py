"""The command line as a child process, and small inputs for it."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

import av
import cv2
import numpy as np


@dataclasses.dataclass(frozen=True)
class Done:
    """A finished command."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> dict:
        return json.loads(self.out)

    def assert_three_lines(self, error_id: str) -> None:
        lines = [line for line in self.err.splitlines() if line]
        start = next(i for i, line in enumerate(lines) if line.startswith("error["))
        assert lines[start].startswith(f"error[{error_id}]: "), self.err
        assert len(lines) == start + 3, self.err
        assert lines[start + 1].startswith("  why: ")
        assert lines[start + 2].startswith("  fix: ")
        assert "Traceback" not in self.err


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "endolux", *map(str, arguments)]


def picture(seed: int = 0, *, width: int = 96, height: int = 64) -> np.ndarray:
    """H x W x 3 uint8 RGB, smooth and reddish, bright to the border."""
    y, x = np.mgrid[0:height, 0:width]
    wave = 110 + 60 * np.sin(x / 17 + seed / 5) + 50 * np.cos(y / 13 - seed / 7)
    return np.stack((wave, wave * 0.6, wave * 0.5), axis=-1).clip(40, 255).astype(np.uint8)


def write_png(path: Path, image: np.ndarray) -> Path:
    assert cv2.imwrite(str(path), image[:, :, ::-1] if image.ndim == 3 else image)
    return path


def write_clip(path: Path, *, frames: int, width: int = 96, height: int = 64, black: tuple[int, ...] = ()) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.options = {"preset": "ultrafast", "g": "25"}
        for index in range(frames):
            pixels = picture(index, width=width, height=height)
            if index in black:
                pixels = np.zeros_like(pixels)
            for packet in stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode(None):
            container.mux(packet)
    return path


def files_of(folder: Path) -> dict[str, bytes]:
    """Every result file but run.json, which holds times."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in ("run.json", ".lock")
    }

"""A data set of planes with two sequences, and protocols over it: closed-form truth in memory."""

from pathlib import Path

import numpy as np

from endolux.datasets.base import Averaging, Dataset, Finding, FrameKey, Protocol, Sample, Severity
from endolux.errors import InputError
from endolux.types import DepthKind, DepthMap, Frame

SIZE = (32, 24)


def truth_mm(key, size=SIZE):
    """A tilted plane between about 20 and 70 mm."""
    x, y = np.meshgrid(np.arange(size[0]) * SIZE[0] / size[0], np.arange(size[1]) * SIZE[1] / size[1])
    return (20 + 5 * len(key.sequence) + x + 0.5 * y + key.index).astype(np.float32)


class Tiny(Dataset):
    """``a`` has 3 frames, ``bb/1`` has 5."""

    name = "tiny"

    def __init__(self, root=Path("tiny-root"), *, broken=(), empty=(), kind=DepthKind.METRIC):
        self.root = Path(root)
        self.broken, self.empty, self.kind = set(broken), set(empty), kind
        self.loaded = []

    def keys(self):
        return [FrameKey(sequence="a", index=i) for i in range(3)] + [
            FrameKey(sequence="bb/1", index=i, side="left") for i in range(5)
        ]

    def load(self, key):
        self.loaded.append(key)
        if str(key) in self.broken:
            raise InputError("broken", why="test", fix="none", error_id="input.test")
        values = truth_mm(key)
        light = np.clip(np.rint(255 * (20 / values[..., None]) ** (2 / 2.2) * np.ones(3)), 0, 255).astype(np.uint8)
        valid = np.zeros(values.shape, bool) if str(key) in self.empty else values > 0
        valid[0, :2] = False
        return Sample(
            key=key,
            frame=Frame(image=light, index=key.index, name=f"f{key.index}.png"),
            depth=DepthMap(values=values, kind=self.kind, valid=valid),
            excluded={"infinite": 2},
        )

    def check(self):
        return [Finding(severity=Severity.WARNING, code="count.frames", message="8 frames", fix="Nothing.")]

    def files(self, key):
        return [Path(f"{key.sequence}_f{key.index}.png".replace("/", "_"))]


def protocol(**changes):
    fields = {
        "name": "tiny-all",
        "version": 1,
        "dataset": "tiny",
        "summary": "All planes.",
        "source": "nowhere",
        "select": lambda keys, _split: keys,
        "expected_frames": 8,
        "minimum": 1e-3,
        "maximum": 150.0,
        "averaging": Averaging.FRAME,
    }
    return Protocol(**(fields | changes))


class Guess:
    """A predictor from a function of the true depth."""

    name = "guess"

    def __init__(self, function, kind=DepthKind.RELATIVE_DEPTH, size=SIZE):
        self.function, self.kind, self.size = function, kind, size
        self.provenance = {"type": "test", "name": "guess", "engine": "none", "precision": "exact"}

    def predict(self, name, frame):
        sequence, index, *_ = name.split(" ")
        values = truth_mm(FrameKey(sequence=sequence, index=int(index)), self.size)
        if frame.image[0, 0, 0] < frame.image[0, -1, 0]:
            values = values[:, ::-1]
        values = np.asarray(self.function(values), np.float32)
        return DepthMap(values=values, kind=self.kind, valid=np.isfinite(values))


def wobble(values):
    """Errors that differ from pixel to pixel and from frame to frame."""
    y, x = np.mgrid[: values.shape[0], : values.shape[1]]
    return values * (1 + 0.002 * values * np.sin(0.7 * x + 0.3 * y))

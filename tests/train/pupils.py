"""A teacher that costs nothing (not even the import of torch) and counts how often it is asked."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import cv2
import numpy as np

from endolux.errors import UsageError
from endolux.types import DepthKind


@dataclasses.dataclass
class Answer:
    map: np.ndarray
    kind: DepthKind
    features: dict[str, np.ndarray]

    def knowledge(self) -> np.ndarray:
        return self.map if self.kind is DepthKind.RELATIVE_DISPARITY else 1 / self.map


class Brightness:
    """Disparity is brightness; the layer ``colours`` is the picture at half its size."""

    def __init__(self, sha256: str = "0" * 64, kind: DepthKind = DepthKind.RELATIVE_DISPARITY, hole: int = 0) -> None:
        self.name, self.sha256, self.kind = "brightness", sha256, kind
        self.asked, self.hole = 0, hole

    def preprocessing(self) -> Mapping[str, object]:
        return {"hole": self.hole}

    def squeezes(self, width: int, height: int) -> float:  # noqa: ARG002
        return 1.0

    def feature_names(self) -> Mapping[str, int]:
        return {"colours": 3}

    def check_features(self, names: Sequence[str]) -> None:
        if set(names) - {"colours"}:
            raise UsageError(f"No layer {names}", why="One.", fix="Use 'colours'.", error_id="teacher.feature")

    def predict(self, image: np.ndarray, *, size: tuple[int, int], features: Sequence[str] = ()) -> Answer:
        self.asked += 1
        grey = cv2.resize(image.mean(axis=2, dtype=np.float32), size, interpolation=cv2.INTER_LINEAR) + 1
        if self.hole:
            grey[: self.hole] = np.nan
        half = cv2.resize(image, (image.shape[1] // 2, image.shape[0] // 2), interpolation=cv2.INTER_AREA)
        maps = {name: half.transpose(2, 0, 1).astype(np.float32) for name in features}
        return Answer(grey, self.kind, maps)


def pictures(count: int, seed: int = 0, width: int = 32, height: int = 24) -> list[np.ndarray]:
    """Smooth pictures, all different."""
    generator = np.random.default_rng(seed)
    small = generator.integers(0, 255, (count, 5, 6, 3)).astype(np.uint8)
    return [cv2.resize(picture, (width, height), interpolation=cv2.INTER_CUBIC) for picture in small]

"""Families of shapes: scenes for training, validation and testing draw from ranges that never meet."""

from __future__ import annotations

import enum

import numpy as np

SPLIT_SCENES = 10**9
"""Scenes of one split."""

SHAPES: dict[str, dict[str, tuple[float, float]]] = {
    "colon": {"fold_spacing_mm": (11.0, 34.0)},
    "pouch": {"slenderness": (2.6, 5.0)},
    "tube": {"radius_mm": (5.0, 16.0)},
    "stomach": {"slenderness": (4.0, 6.5)},
    "small-intestine": {"fold_spacing_mm": (3.5, 9.0)},
    "phantom-silicone": {"fold_spacing_mm": (12.0, 34.0)},
    "bronchus": {"carina_rad": (0.7, 1.7)},
    "sinus": {"openness": (0.0, 1.0)},
    "laparoscopy": {"level_mm": (-45.0, -12.0), "liver_height_mm": (25.0, 75.0)},
    "liver": {"level_mm": (-45.0, -12.0), "height_mm": (25.0, 70.0)},
    "heart": {"flatness": (0.45, 0.9)},
}
"""By anatomy, the numbers that tell families apart, with their whole ranges; each stands in the scene's record."""

# One bin in eight belongs to validation and one to testing, spread evenly over the range.
_PATTERN = "ttvtttxt" * 3
_GAP = 0.1


class Family(enum.Enum):
    """Whose scenes these are.

    Each range of :data:`SHAPES` is cut into 24 bins that belong to the families in turn, with a gap between bins: a
    shape of one family lies between shapes of the others and is none of them.

    Example:
        >>> import numpy as np
        >>> rng = np.random.default_rng(0)
        >>> spacing = Family.VALIDATION.draw(rng, "colon", "fold_spacing_mm")
        >>> family_of("colon", "fold_spacing_mm", spacing).value
        'validation'
        >>> Family.of_scene(2 * SPLIT_SCENES + 5).value
        'test'
    """

    TRAIN = "train"
    VALIDATION = "validation"
    TEST = "test"

    @classmethod
    def of_scene(cls, scene: int) -> Family:
        """The family of a scene by its number; numbers beyond the last split are for testing."""
        return (cls.TRAIN, cls.VALIDATION, cls.TEST)[min(scene // SPLIT_SCENES, 2)]

    @property
    def first_scene(self) -> int:
        """Number of the first scene."""
        return list(Family).index(self) * SPLIT_SCENES

    def draw(self, rng: np.random.Generator, anatomy: str, name: str) -> float:
        """A number that only scenes of this family have.

        Args:
            rng: source of randomness.
            anatomy: key of :data:`SHAPES`.
            name: of the number.
        """
        low, high = SHAPES[anatomy][name]
        letter = {"train": "t", "validation": "v", "test": "x"}[self.value]
        own = [k for k, owner in enumerate(_PATTERN) if owner == letter]
        share = own[int(rng.integers(len(own)))] + float(rng.uniform(_GAP / 2, 1 - _GAP / 2))
        return low + (high - low) * share / len(_PATTERN)


def family_of(anatomy: str, name: str, value: float) -> Family | None:
    """Whose number this is; None in a gap between families or outside of the range."""
    low, high = SHAPES[anatomy][name]
    place = (value - low) / (high - low) * len(_PATTERN)
    # Records are rounded: a little of the gap counts with its neighbour.
    if not 0 <= place < len(_PATTERN) or not 0.8 * _GAP / 2 <= place % 1 <= 1 - 0.8 * _GAP / 2:
        return None
    return {"t": Family.TRAIN, "v": Family.VALIDATION, "x": Family.TEST}[_PATTERN[int(place)]]

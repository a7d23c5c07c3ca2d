"""What is known of a metric beside its value."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One number of a run on a test set.

    Attributes:
        label: in tables.
        digits: behind the point.
        higher: True where a larger number is the better one.
        signed: True where zero is the best and either sign is an error; such numbers are compared by their size.
        lengths: True for a length, shown with its unit.
        about: one line for people.
    """

    label: str
    digits: int = 3
    higher: bool = False
    signed: bool = False
    lengths: bool = False
    about: str = ""

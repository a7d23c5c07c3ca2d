"""Numbers as reports write them."""

from __future__ import annotations

import math


def finite(value: float) -> float | None:
    """The value for JSON; None where it is none.

    Example:
        >>> finite(0.5), finite(float("nan"))
        (0.5, None)
    """
    return value if math.isfinite(value) else None


def cell(value: float) -> str:
    """The value for a table of files, with all digits; empty where it is none.

    Example:
        >>> cell(0.1), cell(float("inf"))
        ('0.1', '')
    """
    return repr(value) if math.isfinite(value) else ""


def short(value: float) -> str:
    """The value for people, four digits; a dash where it is none.

    Example:
        >>> short(0.123456), short(float("nan"))
        ('0.1235', '-')
    """
    return "-" if math.isnan(value) else f"{value:.4g}"

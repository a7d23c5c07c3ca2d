"""Semantic classes of what stands in the world."""

from __future__ import annotations

import enum


class Label(enum.IntEnum):
    """Class of a pixel in ``PhantomFrame.labels``.

    Example:
        >>> Label(3).name
        'LIVER'
    """

    NOTHING = 0
    WALL = 1
    POLYP = 2
    LIVER = 3
    GALLBLADDER = 4
    FAT = 5
    BOWEL = 6
    ABDOMINAL_WALL = 7
    LIGAMENT = 8
    STOMACH = 9
    HEART = 10
    STOOL = 11
    BLOOD = 12
    MUCUS = 13
    BUBBLE = 14
    TOOL_SHAFT = 15
    TOOL_TIP = 16
    CLIP = 17
    SUTURE = 18
    AIRWAY = 19
    SPLEEN = 20


TOOLS = frozenset({Label.TOOL_SHAFT, Label.TOOL_TIP})
"""Classes that a tool mask shows."""

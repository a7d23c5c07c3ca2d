"""Pretrained weights that the user names for parts of networks."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path

from endolux.errors import UsageError
from endolux.io.paths import printable
from endolux.reproduce.grid import Row
from endolux.reproduce.plan import INITIAL


def parse_weights(texts: Sequence[str], rows: Sequence[Row]) -> dict[str, str]:
    """``KEY=MODEL`` by key; paths that exist become absolute, other words are hub ids.

    Args:
        texts: of the command line.
        rows: of the scale: their parts without a prior, and their priors that are no run.

    Raises:
        UsageError: ``reproduce.weights`` for a key that no row has (with the nearest one), or one given twice.

    Example:
        >>> row = Row(name="a", recipe="r", architecture="n", starts={"segmentation.depth_encoder": ""})
        >>> parse_weights(["segmentation.depth_encoder=owner/small"], [row])
        {'segmentation.depth_encoder': 'owner/small'}
    """
    known = {key for row in rows for key, name in row.starts.items() if not name}
    known |= {INITIAL} if any(row.prior and row.model for row in rows) else set()
    found: dict[str, str] = {}
    for text in texts:
        key, equals, model = text.partition("=")
        if key not in known or not equals or not model:
            near = difflib.get_close_matches(key, known, n=1)
            raise UsageError(
                f"'{printable(text)}' names no weights that are used",
                why=f"Written KEY=MODEL; the keys of this scale: {', '.join(sorted(known))}."
                if known
                else "This scale makes the weights that its networks start from.",
                fix=f"Did you mean '{near[0]}=MODEL'?" if near else "Leave it out, or choose another scale.",
                error_id="reproduce.weights",
            )
        if key in found:
            raise UsageError(
                f"Two models for '{key}'",
                why="A network starts from one set of weights.",
                fix="Give one of them.",
                error_id="reproduce.weights",
            )
        found[key] = str(Path(model).resolve()) if Path(model).exists() else model
    return found

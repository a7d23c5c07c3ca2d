"""What is said where not one frame of an evaluation could be scored."""

from __future__ import annotations

from collections.abc import Sequence

from endolux.errors import InputError
from endolux.io.sources import Failure


def all_failed(failures: Sequence[Failure], frames: int) -> InputError:
    """The first failure, as that of the whole.

    Args:
        failures: at least one.
        frames: how many there were.
    """
    first = failures[0].error
    return InputError(
        f"None of {frames} frames could be scored; the first: {first.what}",
        why=first.why,
        fix=first.fix,
        error_id="evaluate.all-failed",
    )

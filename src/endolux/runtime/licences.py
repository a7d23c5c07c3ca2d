"""Licences of weights: which of them allow commercial use, and what a model made from others inherits."""

from __future__ import annotations

import re
from collections.abc import Iterable

from endolux.errors import ModelError

COMMERCIAL = frozenset(
    {
        "0bsd",
        "apache-2.0",
        "bsd-2-clause",
        "bsd-3-clause",
        "bsl-1.0",
        "cc-by-4.0",
        "cc-by-sa-4.0",
        "cc0-1.0",
        "isc",
        "mit",
        "mpl-2.0",
        "unlicense",
        "zlib",
    }
)
"""SPDX identifiers, in lower case, of licences that allow commercial use of weights."""
_RESTRICTED = re.compile(r"non-?commercial|\bnc\b|-nc-|research[- ]only|no licen[cs]e", re.I)


def allows_commercial_use(licence: str) -> bool:
    """Whether a licence is known to allow commercial use; anything that is not known to does not.

    Example:
        >>> [allows_commercial_use(text) for text in ("Apache-2.0", "CC-BY-NC-4.0", "Not stated.", "MIT AND ISC")]
        [True, False, False, True]
        >>> allows_commercial_use("Apache-2.0 AND CC-BY-NC-4.0"), allows_commercial_use("Apache-2.0 (see LICENSE)")
        (False, False)
    """
    parts = re.split(r"\s+AND\s+", licence.strip())
    return all(part.strip("() ").lower() in COMMERCIAL for part in parts)


def forbids_commercial_use(licence: str) -> bool:
    """Whether a licence is known to forbid commercial use, or the weights are known to have none.

    Example:
        >>> [forbids_commercial_use(text) for text in ("CC-BY-NC-4.0", "Apache-2.0", "Unknown: ask its authors.")]
        [True, False, False]
    """
    return _RESTRICTED.search(licence) is not None


def inherited_licence(licences: Iterable[str]) -> str | None:
    """The licence of a model that was made from others: theirs where they agree, else the ones that restrict it.

    Returns:
        None where it was made from none.

    Example:
        >>> inherited_licence(["Apache-2.0", "Apache-2.0"]), inherited_licence([])
        ('Apache-2.0', None)
        >>> inherited_licence(["Apache-2.0", "CC-BY-NC-4.0"])
        'CC-BY-NC-4.0'
    """
    known = list(dict.fromkeys(licences))
    for restricting in (
        [text for text in known if forbids_commercial_use(text)],
        [text for text in known if not allows_commercial_use(text)],
    ):
        if restricting:
            return " AND ".join(restricting)
    return " AND ".join(known) or None


def require_commercial(name: str, licence: str) -> None:
    """Refuse weights for commercial use.

    Raises:
        ModelError: ``model.licence`` where the licence is not known to allow it.

    Example:
        >>> require_commercial("depth-anything-v2-b", "CC-BY-NC-4.0")
        Traceback (most recent call last):
        ...
        endolux.errors.ModelError: error[model.licence]: 'depth-anything-v2-b' is not for commercial use
        ...
    """
    if allows_commercial_use(licence):
        return
    raise ModelError(
        f"'{name}' is not for commercial use",
        why=f"Its licence is: {licence}",
        fix="Use another model ('endolux models ls --commercial'), or leave --commercial out.",
        error_id="model.licence",
    )

"""What the card of a model says about the models it was made from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from endolux.errors import UsageError
from endolux.runtime.licences import allows_commercial_use, forbids_commercial_use, inherited_licence
from endolux.train.origins import Origin


def inherit(card: Mapping[str, object], origins: Sequence[Origin]) -> dict[str, object]:
    """The words of a card with licence and origin of what the network was made from.

    A licence that the card does not state is inherited. Whoever states one knows more than the record, but cannot
    permit what an origin forbids.

    Args:
        card: words of the card.
        origins: from :func:`endolux.train.origins.read_origins`.

    Raises:
        UsageError: ``export.licence``.

    Example:
        >>> inherit({}, [Origin(role="teacher", name="big", licence="CC-BY-NC-4.0")])
        {'derived_from': ['teacher: big (CC-BY-NC-4.0)'], 'licence': 'CC-BY-NC-4.0'}
    """
    words = dict(card)
    lines = [line for origin in origins for line in origin.lines()]
    given = words.get("derived_from", [])
    if lines:
        words["derived_from"] = [*(given if isinstance(given, list | tuple) else [given]), *lines]
    stated, inherited = words.get("licence"), inherited_licence(o.licence for o in origins if o.licence is not None)
    if inherited is None:
        return words
    if stated is None:
        words["licence"] = inherited
    elif allows_commercial_use(str(stated)):
        forbidding = [o for o in origins if o.licence is not None and forbids_commercial_use(o.licence)]
        if forbidding:
            raise UsageError(
                f"The card says {stated}, and the network comes from '{forbidding[0].name}'",
                why=f"That one's licence is: {forbidding[0].licence}",
                fix="Leave the licence out of the card text to inherit it, or train with another "
                f"{forbidding[0].role}.",
                error_id="export.licence",
            )
    return words

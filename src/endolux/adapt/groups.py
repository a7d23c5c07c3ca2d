"""Parameter groups by module pattern."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from torch import nn

from endolux.adapt.projections import check_kind, check_rank, resolve_side
from endolux.errors import UsageError

# Modules whose weight is a matrix or a kernel that flattens to one; tables of embeddings have sparse gradients.
_ADAPTABLE = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


def galore_groups(
    model: nn.Module,
    patterns: str | Sequence[str],
    *,
    rank: int,
    expected: int | None = None,
    **options: object,
) -> list[dict[str, Any]]:
    """The parameter groups of ``GaLoreAdamW``: matched weights projected, every other trainable parameter plain.

    Args:
        model: any network; frozen parameters stay out of both groups.
        patterns: regular expressions, searched in the dotted name of each linear and convolution module
            (``attn.qkv`` matches ``blocks.3.attn.qkv``). Biases are never projected.
        rank: of every matched weight.
        expected: number of matrices that must have matched.
        **options: further options of the projected group (``projection``, ``oversized``...); ``lr``, ``betas``,
            ``eps`` and ``weight_decay`` hold for both groups.

    Returns:
        One or two groups with ``params`` and ``names``; the projected one first, the plain one with rank ``None``.

    Raises:
        UsageError: a pattern that is no regular expression (``adapt.pattern``), that matches no trainable weight
            (``adapt.no-match``), another number of matrices than expected (``adapt.count``), or a rank above the size
            of a matched matrix without ``oversized="adamw"`` (``adapt.rank``).

    Example:
        >>> model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> projected, plain = galore_groups(model, "^0$", rank=4, expected=1)
        >>> projected["names"], plain["names"]
        (['0.weight'], ['0.bias', '2.weight', '2.bias'])
    """
    patterns = [patterns] if isinstance(patterns, str) else list(patterns)
    kind = str(options.get("projection", "srft"))
    check_kind(kind)
    if not patterns:
        raise UsageError(
            "No pattern was given",
            why="Without one no weight would be adapted.",
            fix="Name the modules, for example 'attn.qkv'.",
            error_id="adapt.no-match",
        )
    modules = {name: module for name, module in model.named_modules() if isinstance(module, _ADAPTABLE)}
    chosen: dict[int, tuple[str, nn.Parameter]] = {}
    for pattern in patterns:
        matched = [name for name in modules if _compiled(pattern).search(name)]
        weights = {f"{name}.weight" if name else "weight": modules[name].weight for name in matched}
        trainable = {k: w for k, w in weights.items() if isinstance(w, nn.Parameter) and w.requires_grad}
        if not trainable:
            found = f"the {len(matched)} modules that it matches are frozen" if matched else "no module has such a name"
            raise UsageError(
                f"The pattern '{pattern}' matches nothing to adapt",
                why=f"Of the {len(modules)} linear and convolution modules, {found}.",
                fix=f"Compare it with model.named_modules(), for example: {', '.join(list(modules)[:3]) or 'none'}.",
                error_id="adapt.no-match",
            )
        for name, weight in trainable.items():
            chosen.setdefault(id(weight), (name, weight))
    if expected is not None and len(chosen) != expected:
        raise UsageError(
            f"{len(chosen)} matrices match, {expected} were expected",
            why=f"The patterns {', '.join(patterns)} select another set of weights in this network.",
            fix="Correct the patterns or the expected count.",
            error_id="adapt.count",
        )
    if options.get("oversized", "error") == "error" and kind != "none":
        for name, weight in chosen.values():
            shape = (weight.shape[0], weight[0].numel())
            resolve_side(shape, str(options.get("side", "auto")))
            if rank < 1 or rank > min(shape):
                try:
                    check_rank(rank, shape, "svd", "auto")
                except UsageError as error:
                    raise UsageError(
                        f"{error.what} ('{name}')", why=error.why, fix=error.fix, error_id=error.error_id
                    ) from None
    rest = {
        name: parameter
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and id(parameter) not in chosen
    }
    adapted = {
        "params": [weight for _, weight in chosen.values()],
        "names": [name for name, _ in chosen.values()],
        "rank": rank,
        **options,
    }
    plain = {"params": list(rest.values()), "names": list(rest), "rank": None}
    plain |= {name: options[name] for name in ("lr", "betas", "eps", "weight_decay") if name in options}
    return [adapted, plain] if rest else [adapted]


def _compiled(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except re.error as error:
        raise UsageError(
            f"The pattern '{pattern}' is no regular expression",
            why=f"{error}.",
            fix="Escape special characters with a backslash.",
            error_id="adapt.pattern",
        ) from None

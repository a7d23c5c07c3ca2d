"""Options of a parameter group."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

from endolux.adapt.projections import check_kind, resolve_side
from endolux.errors import UsageError

MOMENTS: Final = ("keep", "project", "reset")
OVERSIZED: Final = ("error", "adamw")


def check_options(options: Mapping[str, Any]) -> None:
    """Refuse options that do not exist or are out of range.

    Raises:
        UsageError: ``adapt.option``, ``adapt.projection``, ``adapt.side``.
    """
    check_kind(options["projection"])
    resolve_side((1, 1), options["side"])
    beta1, beta2 = options["betas"]
    bounds: list[tuple[str, bool, str]] = [
        ("lr", 0 <= options["lr"] < math.inf, "not negative"),
        ("betas", 0 <= beta1 < 1 and 0 <= beta2 < 1, "two numbers from 0 to below 1"),
        ("eps", 0 <= options["eps"] < math.inf, "not negative"),
        ("weight_decay", 0 <= options["weight_decay"] < math.inf, "not negative"),
        ("rank", options["rank"] is None or _whole(options["rank"], 1), "a whole number from 1, or None"),
        ("update_interval", _whole(options["update_interval"], 1), "a whole number from 1"),
        ("scale", math.isfinite(options["scale"]), "finite"),
        ("moments", options["moments"] in MOMENTS, f"one of {', '.join(MOMENTS)}"),
        ("oversized", options["oversized"] in OVERSIZED, f"one of {', '.join(OVERSIZED)}"),
        ("oversampling", _whole(options["oversampling"], 0), "a whole number from 0"),
        ("power", _whole(options["power"], 0), "a whole number from 0"),
        ("seed", _whole(options["seed"], 0), "a whole number from 0"),
        ("fused", isinstance(options["fused"], bool), "true or false"),
        ("compiled", isinstance(options["compiled"], bool), "true or false"),
        ("skip_limit", _whole(options["skip_limit"], 0), "a whole number from 0"),
    ]
    for name, holds, rule in bounds:
        if not holds:
            raise UsageError(
                f"The option {name} is {options[name]!r}",
                why=f"It must be {rule}.",
                fix=f"Give another {name}.",
                error_id="adapt.option",
            )


def _whole(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least

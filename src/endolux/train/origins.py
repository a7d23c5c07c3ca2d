"""What a training run is made from: the weights it starts from and the models that teach it, with their licences."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from endolux.runtime.bundles import CARD, find_bundle, list_bundles, load_bundle
from endolux.runtime.licences import inherited_licence, require_commercial

if TYPE_CHECKING:
    from torch import nn

    from endolux.train.recipe import Recipe

RUN = "run.json"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """One model that a run learns from.

    Attributes:
        role: ``teacher``, ``second teacher``, ``initial weights`` or ``encoder``.
        name: as the recipe calls it, without its folder.
        licence: of its weights; None where it was trained here and from nothing else.
        derived_from: what it comes from itself, one line each.
    """

    role: str
    name: str
    licence: str | None = None
    derived_from: tuple[str, ...] = ()

    def lines(self) -> tuple[str, ...]:
        """What a card says about it.

        Example:
            >>> Origin(role="teacher", name="a", licence="MIT", derived_from=("b",)).lines()
            ('teacher: a (MIT)', 'teacher: a, from b')
        """
        first = f"{self.role}: {self.name}" + (f" ({self.licence})" if self.licence else "")
        return (first, *(f"{self.role}: {self.name}, from {line}" for line in self.derived_from))


def origins(recipe: Recipe) -> tuple[Origin, ...]:
    """Every model that a recipe names; nothing is downloaded or opened."""
    named: list[tuple[str, str | Path | None]] = [
        ("initial weights", recipe.model.initial),
        ("encoder", recipe.model.imagenet),
    ]
    if recipe.teacher is not None:
        second = recipe.teacher.second
        named += [("teacher", recipe.teacher.model), ("second teacher", None if second is None else second.model)]
    if recipe.segmentation is not None:
        named += [
            ("image encoder", recipe.segmentation.image_encoder),
            ("depth encoder", recipe.segmentation.depth_encoder),
        ]
    return tuple(origin_of(str(spec), role=role) for role, spec in named if spec is not None)


def origin_of(spec: str, *, role: str) -> Origin:
    """Where one model comes from: a bundle, a run, a foundation model, or a file of weights.

    Example:
        >>> origin_of("depth-anything/Depth-Anything-V2-Base-hf", role="teacher").licence
        'CC-BY-NC-4.0'
    """
    from endolux.models.origins import licence_of

    folder = Path(spec).expanduser()
    if spec in list_bundles() or (folder / CARD).is_file():
        card = load_bundle(find_bundle(spec)).card
        return Origin(role=role, name=card.name, licence=card.licence, derived_from=card.derived_from)
    if (folder / RUN).is_file() or (folder / "state.json").is_file():
        before = read_origins(folder)
        lines = tuple(line for origin in before for line in origin.lines())
        licence = inherited_licence(origin.licence for origin in before if origin.licence is not None)
        return Origin(role=role, name=folder.resolve().name, licence=licence, derived_from=lines)
    name = spec if not folder.exists() else folder.resolve().name
    return Origin(role=role, name=name, licence=licence_of(spec, variant=_shape(folder)))


def read_origins(run: Path) -> tuple[Origin, ...]:
    """What a run (or one of its checkpoints) recorded; nothing where it has no readable record."""
    path = run / RUN if (run / RUN).is_file() else run.resolve().parent / RUN
    try:
        sessions = json.loads(path.read_text(encoding="utf-8"))["sessions"]
        found = [Origin(**{**entry, "derived_from": tuple(entry["derived_from"])}) for entry in sessions[0]["origins"]]
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        return ()
    return tuple(found)


def notes_of_start(recipe: Recipe, network: nn.Module) -> tuple[str, ...]:
    """What a user should know about the weights that a run starts from.

    Args:
        recipe: of the run.
        network: the one it exports.

    Example:
        >>> from endolux.models import create
        >>> from endolux.train.recipe import load_recipe
        >>> notes_of_start(load_recipe("leve"), create("leve"))
        ()
    """
    from endolux.models.dpt import DPTNetwork

    if recipe.model.initial is not None or not isinstance(network, DPTNetwork):
        return ()
    return (
        f"'{network.architecture}' starts from random weights, without pretraining: model.initial names no "
        f"depth-anything-{network.variant}.",
    )


def require_commercial_origins(recipe: Recipe) -> None:
    """Refuse a recipe whose models are not all for commercial use.

    Raises:
        ModelError: ``model.licence`` with the model and its licence.
    """
    for origin in origins(recipe):
        if origin.licence is not None:
            require_commercial(origin.name, origin.licence)


def _shape(folder: Path) -> str | None:
    """The variant of Depth Anything whose width and taps a folder's configuration has."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    backbone = config.get("backbone_config") if isinstance(config, Mapping) else None
    if not isinstance(backbone, Mapping):
        return None
    from endolux.models.dpt import SIZES, TAPS

    width = backbone.get("hidden_size", 768)
    taps = backbone.get("out_indices") or [
        int(str(stage).removeprefix("stage"))
        for stage in backbone.get("out_features") or []
        if str(stage)[5:].isdigit()
    ]
    for variant, published in TAPS.items():
        if SIZES[variant[-1]]["hidden_size"] == width and list(published) == list(taps):
            return variant
    return None

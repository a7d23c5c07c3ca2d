"""Published weights as a bundle."""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
from pathlib import Path

from endolux.errors import UsageError, from_os_error
from endolux.export.bundle import Exported, export_bundle, refuse_existing
from endolux.export.foundation import import_foundation, is_foundation
from endolux.export.published_folder import check_options, import_folder
from endolux.export.storage import Store
from endolux.models import architectures, create
from endolux.models.origins import NONE
from endolux.models.published import identify, load_published, read_state_dict
from endolux.models.published_folder import FAMILIES
from endolux.runtime.licences import require_commercial

NYU_MAX_DEPTH_MM = 10000.0
_SIZES = {"leve": (640, 480), **dict.fromkeys(FAMILIES, (320, 256))}
_OTHER_SIZE = (320, 240)
UNKNOWN_LICENCE = (
    "Unknown: the checkpoint states none, and none was given when it was imported. "
    "Ask its authors before you use it or pass it on."
)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """What an import wrote.

    Attributes:
        exported: the bundle and how well it agrees with torch.
        fits: architectures whose weights look like these; more than one where they cannot be told apart.
    """

    exported: Exported
    fits: tuple[str, ...]


def published_size(architecture: str) -> tuple[int, int]:
    """(width, height) at which a network was published.

    Example:
        >>> published_size("leve"), published_size("leve-3x3")
        ((640, 480), (320, 240))
    """
    return _SIZES.get(architecture, _OTHER_SIZE)


def importable() -> tuple[str, ...]:
    """Architectures of which checkpoints were published.

    Example:
        >>> "leve" in importable(), "af-sfmlearner" in importable(), "repdepth" in importable()
        (True, True, False)
    """
    mine = ("leve", "guidedepth")
    return tuple(name for name in architectures() if name.startswith(mine) or name in FAMILIES or is_foundation(name))


def import_published(
    architecture: str,
    checkpoint: Path,
    *,
    folder: Path,
    name: str | None = None,
    size: tuple[int, int] | None = None,
    max_depth_mm: float | None = None,
    reproduce: bool = False,
    licence: str | None = None,
    store: Store = "fp32",
    commercial: bool = False,
) -> Imported:
    """Write a bundle from published weights, as their authors fed the network.

    Args:
        architecture: one of :func:`importable`.
        checkpoint: the file, see :func:`endolux.models.published.read_state_dict`; of AF-SfMLearner, DARES and EndoDAC
            the folder, see :func:`endolux.export.published_folder.import_folder`.
        folder: where the bundle shall be; must not exist.
        name: of the bundle; the name of ``folder`` by default.
        size: (width, height) that images are stretched to; :func:`published_size` by default.
        max_depth_mm: of Leve and GuideDepth, depth where the ratio is 1; NYU's 10 m by default.
        reproduce: of Leve and GuideDepth, ratios up to 0 give the nearest depth, and exactly 0 no depth, as published;
            otherwise the farthest.
        licence: under which the checkpoint may be used; else the card says that none is known.
        store: how weights are stored; fp32 changes nothing.
        commercial: refuse weights whose licence does not allow commercial use (``model.licence``).

    Raises:
        UsageError: no such architecture, a size that does not fit, or the folder exists.
        ModelError: the checkpoint cannot be read or is of another architecture.
        CheckError: see :func:`endolux.export.export_bundle`.
    """
    _check_architecture(architecture)
    refuse_existing(folder)
    if is_foundation(architecture):
        check_options(architecture, max_depth_mm=None, reproduce=reproduce)
        exported = import_foundation(
            architecture,
            checkpoint,
            folder=folder,
            name=name or folder.resolve().name,
            size=size,
            max_depth_mm=max_depth_mm,
            licence=licence,
            store=store,
            commercial=commercial,
        )
        return Imported(exported=exported, fits=(architecture,))
    if commercial:
        require_commercial(architecture, licence or UNKNOWN_LICENCE)
    if architecture in FAMILIES:
        check_options(architecture, max_depth_mm=max_depth_mm, reproduce=reproduce)
        exported = import_folder(
            architecture,
            checkpoint,
            folder=folder,
            name=name or folder.resolve().name,
            licence=licence or (NONE if architecture in ("dares", "endodac") else UNKNOWN_LICENCE),
            size=size,
            store=store,
        )
        return Imported(exported=exported, fits=(architecture,))
    max_depth_mm = NYU_MAX_DEPTH_MM if max_depth_mm is None else max_depth_mm
    config: dict[str, object] = {"max_depth_mm": max_depth_mm, **({"reproduce": True} if reproduce else {})}
    network = create(architecture, **config).eval()
    state = read_state_dict(checkpoint)
    load_published(network, state)
    fits = identify(state)
    width, height = size if size is not None else published_size(architecture)
    metres = f"{max_depth_mm / 1000:g} m"
    card = {
        "summary": f"{architecture} with the weights of '{checkpoint.name}'.",
        "trained_on": "Not stated in the checkpoint. The networks published under this name saw NYU Depth v2: indoor "
        "rooms, not endoscopy.",
        "intended_use": "Comparison with published results.",
        "limits": [
            f"Millimetres only if it was trained with a largest depth of {metres}; beyond it everything is {metres}.",
            _negative(reproduce, metres),
            *_unknown_variant(architecture, fits),
            "Not evaluated. Not a medical device.",
        ],
        "licence": licence if licence else UNKNOWN_LICENCE,
        "derived_from": [f"{checkpoint.name}, sha256 {_sha256(checkpoint)}"],
    }
    exported = export_bundle(
        network,
        folder=folder,
        name=name or folder.resolve().name,
        card=card,
        size=(width, height),
        store=store,
        resize="stretch",
    )
    return Imported(exported=exported, fits=fits)


def _check_architecture(architecture: str) -> None:
    known = importable()
    if architecture in known:
        return
    near = difflib.get_close_matches(architecture, known, n=1)
    raise UsageError(
        f"No published checkpoints of '{architecture}' are known",
        why=f"They can be imported for: {', '.join(known)}.",
        fix=f"Did you mean '{near[0]}'?" if near else "Choose one of these.",
        error_id="model.architecture",
    )


def _negative(reproduce: bool, metres: str) -> str:
    if reproduce:
        return (
            "As published, where the network gives a ratio below 0 the depth is the nearest, and at exactly 0 it is 0."
        )
    return f"Where the network gives a ratio below 1, even below 0, the depth is {metres}."


def _unknown_variant(architecture: str, fits: tuple[str, ...]) -> tuple[str, ...]:
    others = [fit for fit in fits if fit != architecture]
    if not others:
        return ()
    return (f"The weights fit {' and '.join(others)} as well; that they are of {architecture} was said at the import.",)


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise from_os_error(error, path) from error

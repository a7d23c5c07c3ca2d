"""A published folder of weights as a bundle, with its pose network if it is there."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from endolux.errors import UsageError, from_os_error
from endolux.export.bundle import Exported, export_bundle
from endolux.export.storage import Store
from endolux.models import DepthNetwork, create
from endolux.models.odometry import POSE_FILE, pose_bytes
from endolux.models.published_folder import FAMILIES, has_companions, load_companions, load_depth

_POSE = ("pose_encoder", "pose_decoder")
_SIZE = (320, 256)


def published_folder_size(network: DepthNetwork) -> tuple[int, int]:
    """(width, height) the family was published at, to the nearest multiples that the network takes."""
    step = network.multiple
    return (round(_SIZE[0] / step) * step, round(_SIZE[1] / step) * step)


def import_folder(
    architecture: str,
    source: Path,
    *,
    folder: Path,
    name: str,
    licence: str,
    size: tuple[int, int] | None = None,
    store: Store = "fp32",
) -> Exported:
    """Write a bundle from a folder of published weights.

    Args:
        architecture: one of :data:`endolux.models.published_folder.FAMILIES`.
        source: the folder with ``encoder.pth`` and ``depth.pth``, or ``depth_model.pth``.
        folder: where the bundle shall be; must not exist.
        name: of the bundle.
        licence: for the card.
        size: (width, height) that images are stretched to; that in the files, or else 320 x 256.
        store: how weights are stored; fp32 changes nothing.

    Raises:
        UsageError: another architecture, a size that does not fit, or the folder exists.
        ModelError: files that are missing, damaged, or of another network.
        CheckError: see :func:`endolux.export.export_bundle`.
    """
    # Its pictures were cut to whole patches and not normalised; weights trained so need them so.
    network = create(architecture, **({"reproduce": True} if architecture == "dares" else {})).eval()
    facts = load_depth(network, source)
    more: dict[str, bytes] = {}
    files = [file for file, _ in FAMILIES[architecture].depth]
    if has_companions(architecture, source, _POSE):
        more[POSE_FILE] = pose_bytes(
            load_companions(architecture, source, names=["pose"])["pose"], half=store != "fp32"
        )
        files += [FAMILIES[architecture].companions[part][0] for part in _POSE]
    stored = (facts.get("width", 0), facts.get("height", 0))
    step = network.multiple
    fits = min(stored) > 0 and not any(side % step for side in stored)
    minimum, maximum = network.depth_range()
    streets = architecture.startswith("lite-mono")
    seen = "KITTI: streets, not endoscopy" if streets else "the video of SCARED, without depth"
    card = {
        "summary": f"{architecture} with the weights in '{source.resolve().name}'.",
        "trained_on": f"Not stated in the files. The networks published under this name learnt from {seen}.",
        "intended_use": "Comparison with published results.",
        "limits": [
            f"Depth up to one unknown factor, between {minimum:g} and {maximum:g}; it is not millimetres.",
            *(["Motion of the camera has the same unknown unit."] if more else []),
            "Not evaluated. Not a medical device.",
        ],
        "licence": licence,
        "derived_from": [f"{file}, sha256 {_sha256(source / file)}" for file in files],
    }
    return export_bundle(
        network,
        folder=folder,
        name=name,
        card=card,
        size=size or (stored if fits else published_folder_size(network)),
        store=store,
        resize="stretch",
        more=more,
    )


def check_options(architecture: str, *, max_depth_mm: float | None, reproduce: bool) -> None:
    """Refuse what only networks of ratios have.

    Raises:
        UsageError: ``model.config``.
    """
    given: Sequence[str] = [
        *(["--max-depth-mm"] if max_depth_mm is not None else []),
        *(["--reproduce"] if reproduce else []),
    ]
    if given:
        raise UsageError(
            f"'{architecture}' takes no {' and no '.join(given)}",
            why="It gives depth up to one factor, from a sigmoid between fixed bounds.",
            fix="Leave it out.",
            error_id="model.config",
        )


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise from_os_error(error, path) from error

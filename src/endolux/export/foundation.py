"""A foundation model as a bundle: Depth Anything from its original file, a folder, or the hub."""

from __future__ import annotations

import hashlib
from pathlib import Path

from endolux.errors import UsageError, from_os_error
from endolux.export.bundle import Exported, export_bundle
from endolux.export.storage import Store
from endolux.models.origins import licence_of, released_licence
from endolux.models.transplant import depth_anything_from
from endolux.runtime.licences import allows_commercial_use, forbids_commercial_use, require_commercial

SIZE = (518, 392)
"""(width, height) near which pictures are seen: the short side of 4:3 as in the published 518 x 518, fewer pixels."""


def is_foundation(architecture: str) -> bool:
    """Whether an architecture is a foundation model of :func:`import_foundation`.

    Example:
        >>> is_foundation("depth-anything-v2-s"), is_foundation("dares")
        (True, False)
    """
    return architecture.startswith("depth-anything-")


def import_foundation(
    architecture: str,
    source: Path,
    *,
    folder: Path,
    name: str,
    size: tuple[int, int] | None = None,
    max_depth_mm: float | None = None,
    licence: str | None = None,
    store: Store = "fp32",
    commercial: bool = False,
) -> Exported:
    """Write a bundle from released weights of Depth Anything.

    Args:
        architecture: ``depth-anything-v1-s`` to ``depth-anything-v2-l``.
        source: original ``.pth`` file, folder in the layout of ``transformers``, or hub id.
        folder: where the bundle shall be; must not exist.
        name: of the bundle.
        size: (width, height) that inference works near, keeping the aspect; multiples of 14.
        max_depth_mm: of a file with a metric head.
        licence: as you know it; what the source says, or the release's own, by default.
        store: how weights are stored; fp32 changes nothing.
        commercial: refuse weights whose licence does not allow commercial use.

    Raises:
        UsageError: a size that does not fit, the folder exists, or ``export.licence`` where ``licence`` permits what
            the release forbids.
        ModelError: ``model.licence`` with ``commercial``; weights that cannot be had or are of another network.
        CheckError: see :func:`endolux.export.export_bundle`.
    """
    stated = _licence(architecture, source, licence)
    if commercial:
        require_commercial(architecture, stated)
    network = depth_anything_from(str(source), architecture=architecture, max_depth_mm=max_depth_mm)
    metric = network.output == "metric"
    limits = [
        f"Millimetres only for scenes like its training data; beyond {network.max_depth_mm / 1000:g} m everything is "
        "as far."
        if metric
        else "Inverse depth of unknown scale and shift: it orders what is near and far, and measures nothing.",
        "Trained on everyday photographs, not on endoscopy. Not evaluated. Not a medical device.",
    ]
    return export_bundle(
        network,
        folder=folder,
        name=name,
        card={
            "summary": f"{architecture}{' (metric)' if metric else ''} with the weights of '{_called(source)}'.",
            "trained_on": "By its authors, on photographs and synthetic scenes (arXiv 2401.10891, 2406.09414).",
            "intended_use": "A teacher for small networks, and comparison.",
            "limits": limits,
            "licence": stated,
            "derived_from": [_identity(source)],
        },
        size=size or SIZE,
        store=store,
    )


def _licence(architecture: str, source: Path, given: str | None) -> str:
    released = released_licence(architecture)
    if given is None:
        found = licence_of(str(source), variant=architecture.removeprefix("depth-anything-"))
        return found if allows_commercial_use(found) or forbids_commercial_use(found) else released
    if forbids_commercial_use(released) and allows_commercial_use(given):
        raise UsageError(
            f"The licence {given} for '{architecture}'",
            why=f"Its weights were released under {released}.",
            fix="Leave --licence out.",
            error_id="export.licence",
        )
    return given


def _called(source: Path) -> str:
    return source.resolve().name if source.exists() else str(source)


def _identity(source: Path) -> str:
    file = source / "model.safetensors" if source.is_dir() else source
    if not file.is_file():
        return _called(source)
    try:
        with file.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise from_os_error(error, file) from error
    return f"{_called(source)}, sha256 {digest}"

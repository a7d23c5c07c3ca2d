"""Folders of weights as DARES, EndoDAC, AF-SfMLearner and Lite-Mono release them: one file a network."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import cast

from torch import nn

from endolux.errors import ModelError, UsageError
from endolux.models.base import DepthNetwork
from endolux.models.checkpoint_files import Checkpoint, read_checkpoint
from endolux.models.identify import identify
from endolux.models.parts import Part, create_part
from endolux.models.pose_flow import AppearanceFlow, OpticalFlow, PoseNetwork
from endolux.models.published import load_published

_COMPANIONS = {
    "pose_encoder": ("pose_encoder.pth", "dares-pose-encoder"),
    "pose_decoder": ("pose.pth", "dares-pose-decoder"),
    "transform_encoder": ("transform_encoder.pth", "dares-transform-encoder"),
    "transform_decoder": ("transform.pth", "dares-transform-decoder"),
    "position_encoder": ("position_encoder.pth", "dares-position-encoder"),
    "position_decoder": ("position.pth", "dares-position-decoder"),
}
_WHOLE = {
    "pose": ("pose_encoder", "pose_decoder"),
    "appearance": ("transform_encoder", "transform_decoder"),
    "flow": ("position_encoder", "position_decoder"),
    "intrinsics": ("intrinsics_head",),
}
# The registry of parts knows which classes these are; the type checker does not.
_BUILD = cast(
    "Mapping[str, Callable[[Part, Part], nn.Module]]",
    {"pose": PoseNetwork, "appearance": AppearanceFlow, "flow": OpticalFlow},
)
_INTRINSICS = {"intrinsics_head": ("intrinsics_head.pth", "endodac-intrinsics-head")}


@dataclasses.dataclass(frozen=True, slots=True)
class Family:
    """What one project releases.

    Attributes:
        depth: (file, name of the network in it) for each part of the depth network.
        companions: (file, name of the part) of every other network.
    """

    depth: tuple[tuple[str, str], ...]
    companions: Mapping[str, tuple[str, str]]


FAMILIES: Mapping[str, Family] = MappingProxyType(
    {
        "af-sfmlearner": Family(
            (("encoder.pth", "af-sfmlearner-encoder"), ("depth.pth", "af-sfmlearner-decoder")), _COMPANIONS
        ),
        "dares": Family((("depth_model.pth", "dares"),), _COMPANIONS),
        "endodac": Family((("depth_model.pth", "endodac"),), {**_COMPANIONS, **_INTRINSICS}),
        **{
            name: Family((("encoder.pth", name), ("depth.pth", name)), {})
            for name in ("lite-mono", "lite-mono-tiny", "lite-mono-small", "lite-mono-8m")
        },
    }
)
"""By the name of the depth network."""


def is_published_folder(folder: Path) -> bool:
    """Whether a folder holds the files of a published depth network of :data:`FAMILIES`."""
    return any(all((folder / name).is_file() for name, _ in family.depth) for family in FAMILIES.values())


def read_depth(family: str, folder: Path) -> Checkpoint:
    """The weights of the depth network in a folder, and the facts beside them.

    Args:
        family: one of :data:`FAMILIES`.
        folder: the folder with the files.

    Raises:
        UsageError: ``model.architecture`` for another family.
        ModelError: ``model.missing`` for files that are not there, ``model.variant`` where a file holds another
            network; see also :func:`endolux.models.checkpoint_files.read_checkpoint`.
    """
    files = _family(family).depth
    _check_files(family, folder, [name for name, _ in files])
    for name, expected in files:
        fits = identify(read_checkpoint(folder / name).state)
        if fits and expected not in fits:
            raise _other_network(folder / name, expected, fits)
    return read_checkpoint(folder if len(files) > 1 else folder / files[0][0])


def load_depth(network: DepthNetwork, folder: Path) -> Mapping[str, int]:
    """Fill a depth network from the folder of its family, strictly.

    Returns:
        Facts that stood among the weights: height, width, use_stereo.

    Raises:
        UsageError, ModelError: see :func:`read_depth` and :func:`endolux.models.published.load_published`.
    """
    checkpoint = read_depth(network.architecture, folder)
    load_published(network, checkpoint.state)
    return checkpoint.facts


def load_parts(family: str, folder: Path, names: Sequence[str]) -> dict[str, Part]:
    """Networks of a folder file by file, filled strictly, in evaluation mode.

    Args:
        family: one of :data:`FAMILIES`.
        folder: the folder with the files.
        names: those wanted, of :data:`FAMILIES`, for example ``pose_encoder``.

    Returns:
        Networks by name.

    Raises:
        UsageError: ``model.architecture`` for another family, ``model.part`` for a name that it lacks.
        ModelError: ``model.missing``, ``model.variant``, ``model.checkpoint``; see :func:`read_depth`.

    Example:
        >>> import tempfile
        >>> import torch
        >>> import endolux.models
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     torch.save(create_part("dares-pose-decoder").state_dict(), Path(folder, "pose.pth"))
        ...     load_parts("dares", Path(folder), ["pose_decoder"])["pose_decoder"].architecture
        'dares-pose-decoder'
    """
    known = _family(family).companions
    for name in names:
        if name not in known:
            raise _no_part(family, name, known)
    wanted = {name: known[name] for name in known if name in names}
    _check_files(family, folder, [file for file, _ in wanted.values()])
    networks = {}
    for name, (file, part) in wanted.items():
        network = create_part(part)
        state = read_checkpoint(folder / file).state
        try:
            load_published(network, state)
        except ModelError as error:
            # The three encoders of two images look the same, so that the file's name tells more than its weights.
            raise ModelError(
                f"{folder / file}: {error.what}", why=error.why, fix=error.fix, error_id=error.error_id
            ) from error
        networks[name] = network.eval()
    return networks


def load_companions(family: str, folder: Path, *, names: Sequence[str] | None = None) -> dict[str, nn.Module]:
    """The networks beside the depth network of a folder, put together and filled strictly, in evaluation mode.

    Args:
        family: one of :data:`FAMILIES`.
        folder: the folder with the files.
        names: of ``pose``, ``appearance``, ``flow`` and ``intrinsics``; None means those whose files are there.

    Returns:
        :class:`endolux.models.pose_flow.PoseNetwork`, ``AppearanceFlow``, ``OpticalFlow`` and ``IntrinsicsHead`` by
        these names.

    Raises:
        UsageError, ModelError: see :func:`load_parts`; ``model.missing`` where there is none at all.
    """
    known = {name: parts for name, parts in _WHOLE.items() if set(parts) <= set(_family(family).companions)}
    for name in names or ():
        if name not in known:
            raise _no_part(family, name, known)
    there = [name for name in known if has_companions(family, folder, known[name])]
    wanted = there if names is None else [name for name in known if name in names]
    if not wanted and known:
        _check_files(family, folder, [_family(family).companions[part][0] for part in known["pose"]])
    networks: dict[str, nn.Module] = {}
    for name in wanted:
        parts = tuple(load_parts(family, folder, known[name]).values())
        networks[name] = (_BUILD[name](*parts) if name in _BUILD else parts[0]).eval()
    return networks


def has_companions(family: str, folder: Path, parts: Sequence[str]) -> bool:
    """Whether the files of these parts are there."""
    known = _family(family).companions
    return all(name in known and (folder / known[name][0]).is_file() for name in parts)


def _no_part(family: str, name: str, known: Iterable[str]) -> UsageError:
    near = difflib.get_close_matches(name, list(known), n=1)
    return UsageError(
        f"'{family}' has no network '{name}'",
        why=f"Known: {', '.join(known)}.",
        fix=f"Did you mean '{near[0]}'?" if near else "Choose one of the known names.",
        error_id="model.part",
    )


def _family(name: str) -> Family:
    if name not in FAMILIES:
        near = difflib.get_close_matches(name, FAMILIES, n=1)
        raise UsageError(
            f"No folders of weights of '{name}' are known",
            why=f"They are known of: {', '.join(FAMILIES)}.",
            fix=f"Did you mean '{near[0]}'?" if near else "Choose one of these.",
            error_id="model.architecture",
        )
    return FAMILIES[name]


def _check_files(family: str, folder: Path, files: Sequence[str]) -> None:
    if not folder.is_dir():
        raise ModelError(
            f"'{folder}' is no folder of weights",
            why="There is no such folder." if not folder.exists() else f"'{family}' is released as several files.",
            fix=f"Give the folder that holds {', '.join(files)}.",
            error_id="model.missing",
        )
    missing = [name for name in files if not (folder / name).is_file()]
    if not missing:
        return
    there = sorted(path.name for path in folder.glob("*.pth"))
    deeper = sorted(folder.glob(f"**/{missing[0]}"))
    others = [name for name, other in FAMILIES.items() if name != family and _holds(folder, other)]
    fix = "Give the folder with all files of one release."
    if deeper:
        fix = f"Did you mean '{deeper[-1].parent}'?"
    elif others and set(missing) & {file for file, _ in FAMILIES[family].depth}:
        fix = f"The files are those of {' or '.join(repr(name) for name in others)}: use that name."
    raise ModelError(
        f"'{folder}' lacks {', '.join(missing)}",
        why=f"It holds {', '.join(there) if there else 'no .pth files'}.",
        fix=fix,
        error_id="model.missing",
    )


def _holds(folder: Path, family: Family) -> bool:
    files = [folder / file for file, _ in family.depth]
    if not all(file.is_file() for file in files):
        return False
    try:
        found = identify(read_checkpoint(folder if len(files) > 1 else files[0]).state)
    except ModelError:
        return False
    return any(FAMILIES.get(name) is family for name in found)


def _other_network(path: Path, expected: str, fits: Sequence[str]) -> ModelError:
    return ModelError(
        f"'{path}' does not hold '{expected}', but {' or '.join(repr(name) for name in fits)}",
        why="Names and shapes of its weights are those of that network.",
        fix="Put every file under the name that its release gives it, or use the name of that network.",
        error_id="model.variant",
    )

"""Prototypes of a teacher's features: fitted once on training pictures, kept beside the knowledge cache."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import safetensors
import safetensors.torch
import torch

from endolux.errors import ModelError, UsageError, from_os_error
from endolux.losses.prototypes import Prototypes, fit_prototypes
from endolux.train.knowledge import KnowledgeCache
from endolux.train.panel import identity, tokens
from endolux.types import ImageArray

if TYPE_CHECKING:
    from collections.abc import Callable

    from endolux.models.teachers import Teacher
    from endolux.train.recipe_distillation import Semantic

_KEY = "endolux.prototypes"


def fitted_on(
    teacher: Teacher,
    layer: str,
    settings: Semantic,
    *,
    folder: Path,
    count: int,
    image: Callable[[int], ImageArray],
    grid: tuple[int, int],
) -> tuple[Prototypes, Path]:
    """Prototypes of a teacher on pictures drawn with the recipe's seed, read where they were fitted before.

    Args:
        teacher: whose features.
        layer: which.
        settings: section of a recipe: dimensions, prototypes, frames, seed.
        folder: of the knowledge cache; the features go into a cache there, the prototypes into ``prototypes``.
        count: pictures there are.
        image: reads one.
        grid: (rows, columns) of the features.

    Returns:
        The prototypes, and the file they are in.

    Raises:
        UsageError: ``loss.setting``, ``loss.shape`` where the pictures are too few or too much alike.
        ModelError: ``loss.prototypes`` where the file is damaged.
    """
    chosen = np.sort(np.random.default_rng(settings.seed).permutation(count)[: settings.frames])
    pictures = [image(int(index)) for index in chosen]
    owner = identity(teacher, layer)
    facts: dict[str, object] = {
        "teacher": owner,
        "grid": list(grid),
        "dimensions": settings.dimensions,
        "prototypes": settings.prototypes,
        "seed": settings.seed,
        "pictures": hashlib.sha256(b"".join(KnowledgeCache.key(picture) for picture in pictures)).hexdigest(),
    }
    name = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:24]
    path = folder / "prototypes" / f"{name}.safetensors"
    if path.is_file():
        return read_prototypes(path), path
    # The maps are not used: the smallest size that a map may have.
    cache = KnowledgeCache(folder, teacher, size=(8, 8), features=(layer,), feature_grid=grid)
    rows = [tokens(cache.get(picture).features[layer], grid).flatten(1).T for picture in pictures]
    found = fit_prototypes(
        torch.cat(rows),
        owner,
        dimensions=settings.dimensions,
        count=settings.prototypes,
        seed=settings.seed,
    )
    cache.save_index()
    write_prototypes(path, found, facts)
    return found, path


def write_prototypes(path: Path, prototypes: Prototypes, facts: dict[str, object]) -> None:
    """One safetensors file, whole or not at all.

    Args:
        path: of the file.
        prototypes: to keep.
        facts: what they were fitted on, as JSON values.

    Raises:
        EndoluxError: it cannot be written.
    """
    tensors = {name: getattr(prototypes, name).detach().cpu().contiguous() for name in ("mean", "whitening", "centres")}
    about = json.dumps({**facts, "teacher": prototypes.teacher}, sort_keys=True)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Several processes may write the same file at once.
        part = path.with_name(f".{path.name}-{os.getpid():x}-{secrets.token_hex(4)}")
        try:
            part.write_bytes(safetensors.torch.save(tensors, metadata={_KEY: about}))
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise from_os_error(error, path) from error


def read_prototypes(path: Path) -> Prototypes:
    """What :func:`write_prototypes` wrote.

    Raises:
        ModelError: ``loss.prototypes`` for a file that is missing, damaged or something else.
    """
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            about = json.loads((file.metadata() or {})[_KEY])
            tensors = {name: file.get_tensor(name) for name in ("mean", "whitening", "centres")}
        return Prototypes(teacher=str(about["teacher"]), **tensors)
    except (OSError, safetensors.SafetensorError, ValueError, KeyError, TypeError) as error:
        raise ModelError(
            f"No prototypes in '{path}'",
            why=f"{type(error).__name__}: {' '.join(str(error).split())[:200]}",
            fix="Leave distillation.semantic.fitted out to fit them, or name a file that a run has written.",
            error_id="loss.prototypes",
        ) from error


def check_shape(prototypes: Prototypes, settings: Semantic, channels: int, where: Path) -> None:
    """Refuse prototypes of other numbers than the recipe's.

    Raises:
        UsageError: ``loss.setting``.
    """
    found = (len(prototypes.mean), len(prototypes.whitening), len(prototypes.centres))
    wanted = (channels, settings.dimensions, settings.prototypes)
    if found != wanted:
        raise UsageError(
            f"Prototypes in '{where}' of {found[0]} channels, {found[1]} dimensions, {found[2]} "
            f"prototypes, and the recipe has {wanted[0]}, {wanted[1]} and {wanted[2]}",
            why="They were fitted with other settings.",
            fix=f"Use semantic.dimensions={found[1]} semantic.prototypes={found[2]}, or fit them anew.",
            error_id="loss.setting",
        )

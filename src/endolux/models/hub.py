"""The library that fetches and reads published transformers, without its talk."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Mapping
from typing import Any

import torch

from endolux.errors import ModelError, missing_extra


def quiet_transformers() -> Any:  # noqa: ANN401 -- an optional package; its types are unknown without it
    """The package ``transformers``, with warnings and progress bars off, its own and those of the hub's client.

    Raises:
        MissingExtraError: where it is not installed.
    """
    try:
        library = importlib.import_module("transformers")
        talk = importlib.import_module("transformers.utils.logging")
    except ImportError as error:
        raise missing_extra("transformers", "train") from error
    talk.set_verbosity_error()
    talk.disable_progress_bar()
    # The hub's client tells of every attempt; the error says what came of them.
    logging.getLogger("huggingface_hub").setLevel("ERROR")
    return library


def read_image_encoder(
    spec: str, names: Mapping[str, str], *, wanted: str, why: str, fix: str, alone: str = ""
) -> tuple[str, Any]:
    """A published segmenter with the weights of its image encoder, all of them; safetensors only.

    Args:
        spec: a folder or a hub id.
        names: kinds of model that hold such an encoder -> their classes in ``transformers``.
        wanted: what a model of another kind is not.
        why: it has to be one.
        fix: what to give instead.
        alone: the kind that is the encoder itself; in the others it is their ``vision_encoder``.

    Returns:
        The kind and the model.

    Raises:
        ModelError: ``teacher.fetch`` where it cannot be had, ``teacher.architecture`` where it is another model,
            ``teacher.weights`` where weights of the encoder are missing.
        MissingExtraError: without ``transformers``.
    """
    from endolux.models.foundation import unavailable

    library = quiet_transformers()
    try:
        config = library.AutoConfig.from_pretrained(spec)
        kind = str(config.model_type)
        if kind not in names:
            raise ModelError(f"'{spec}' is a '{kind}', not {wanted}", why=why, fix=fix, error_id="teacher.architecture")
        network, report = getattr(library, names[kind]).from_pretrained(
            spec, config=config, use_safetensors=True, output_loading_info=True, dtype=torch.float32
        )
    except ModelError:
        raise
    except Exception as error:
        # The library's own failures range from OSError to errors of its validation and of the HTTP client.
        raise unavailable(spec, error) from error
    lacking = [str(key) for key in report["missing_keys"] if kind == alone or "vision_encoder" in str(key)]
    if lacking:
        raise ModelError(
            f"The weights of '{spec}' lack a part of the image encoder: {lacking[0]}",
            why=f"{len(lacking)} weights are missing; they would be random numbers.",
            fix="Download the model again, all of its files.",
            error_id="teacher.weights",
        )
    return kind, network

"""The library that fetches and reads published transformers, without its talk."""

from __future__ import annotations

import importlib
import logging
from typing import Any

from endolux.errors import missing_extra


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

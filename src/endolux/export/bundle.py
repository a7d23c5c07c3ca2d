"""From a training run to a bundle."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from endolux.errors import CheckError, UsageError
from endolux.export.onnx import (
    Parity,
    check_parity,
    inference_network,
    onnx_bytes,
    rounding_error,
    safetensors_bytes,
)
from endolux.export.storage import STORES, Store
from endolux.models import DepthNetwork
from endolux.models.landmark_network import LandmarkNetwork
from endolux.runtime.bundles import write_bundle
from endolux.types import Bundle, DepthKind

Resize = Literal["keep-aspect", "stretch"]
"""How a picture comes to the network's size."""

_FIXED = frozenset({"architecture", "parameters", "preprocessing", "output", "files", "schema_version"})
_LARGEST_ROUNDING = 0.05
_UNSAID: dict[str, object] = {
    "trained_on": "Not stated by whoever exported it.",
    "intended_use": "Not stated by whoever exported it.",
    "limits": ["Not evaluated. Not a medical device."],
    "licence": "Not stated by whoever exported it.",
}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """What an export wrote and how well it agrees with torch.

    Attributes:
        bundle: the bundle.
        parity: ONNX Runtime against torch, both with the stored weights.
        rounding: mean relative change of depth by rounding the weights, on a random picture.
    """

    bundle: Bundle
    parity: tuple[Parity, ...]
    rounding: float


def export_bundle(
    network: DepthNetwork,
    *,
    folder: Path,
    name: str,
    card: Mapping[str, object] | None = None,
    size: tuple[int, int] = (320, 256),
    store: Store = "fp16",
    resize: Resize = "keep-aspect",
    kind: DepthKind | None = None,
    more: Mapping[str, bytes] | None = None,
    graph_only: bool = False,
) -> Exported:
    """Fold, check and write a network as ``model.onnx``, ``model.safetensors`` and ``card.json``.

    With ``store="int8"`` there is no ``model.safetensors``: rounded so far, weights are no start for training.

    Args:
        network: trained network.
        folder: where the bundle shall be; must not exist.
        name: of the bundle.
        card: the words of the card (summary, trained_on, intended_use, limits, licence, derived_from, metrics);
            what is left out is said to be not stated.
        size: (width, height) that inference works near, multiples of ``network.multiple``.
        store: how kernels are stored; see :mod:`endolux.export.storage`.
        resize: "keep-aspect", or "stretch" for networks trained on images stretched to ``size``.
        kind: a weaker claim than the network's own: RELATIVE_DEPTH for a metric network whose training data do not
            fix the scale of other people's cameras.
        more: content of further files by name, for example the pose network's weights.
        graph_only: leave ``model.safetensors`` out; the graph alone predicts, and is half of the bytes.

    Raises:
        UsageError: the folder exists, the size does not fit, ``card`` holds a field that the network decides, or
            ``kind`` claims more than the network gives.
        ModelError: the weights are not finite.
        CheckError: ONNX Runtime and torch differ, or rounding the weights moves depth by more than 5 % on average.
    """
    card = check_words(card, size=size, multiple=network.multiple, store=store)
    if kind not in (None, network.kind) and (network.kind, kind) != (DepthKind.METRIC, DepthKind.RELATIVE_DEPTH):
        raise UsageError(
            f"{network.architecture} gives {network.kind.value}, which cannot be called {kind.value if kind else kind}",
            why="Only metric depth may be called less: depth up to one factor.",
            fix="Leave the kind out.",
            error_id="export.kind",
        )
    refuse_existing(folder)
    ready = inference_network(network, store=store)
    rounding = rounding_error(network, ready, size=size)
    if not rounding <= _LARGEST_ROUNDING:
        raise too_rough(f"depth by {rounding:.1%}", store=store, most=f"{_LARGEST_ROUNDING:.0%}")
    model = onnx_bytes(ready, store=store)
    parity = check_parity(ready, model, sizes=(size, (5 * network.multiple, 7 * network.multiple)))
    minimum, maximum = ready.depth_range()
    output = {"kind": kind or network.kind, "minimum": round(minimum, 6), "maximum": round(maximum, 6)}
    fields = card_fields(network, ready, words={"name": name, **card}, size=size, resize=resize, output=output)
    files: dict[str, bytes | Path] = {"model.onnx": model}
    if store != "int8" and not graph_only:
        files["model.safetensors"] = safetensors_bytes(ready, store=store)
    files |= more or {}
    return Exported(bundle=write_bundle(folder, card_fields=fields, files=files), parity=parity, rounding=rounding)


def check_words(
    card: Mapping[str, object] | None, *, size: tuple[int, int], multiple: int, store: str
) -> dict[str, object]:
    """The words of a card, after checking them and what else an export is told.

    Raises:
        UsageError: ``export.store``, ``bundle.card``, ``export.size``.
    """
    if store not in STORES:
        raise UsageError(
            f"Weights cannot be stored as '{store}'",
            why=f"Known: {', '.join(STORES)}.",
            fix="Leave it out for fp16.",
            error_id="export.store",
        )
    words = dict(card or {})
    decided = sorted(_FIXED & words.keys())
    if decided:
        raise UsageError(
            f"The card text sets {', '.join(decided)}",
            why="The network and its files decide these.",
            fix="Remove them from the card text.",
            error_id="bundle.card",
        )
    if min(size) < 1 or any(side % multiple for side in size):
        raise UsageError(
            f"The size {size[0]}x{size[1]} does not fit the network",
            why=f"Both sides must be multiples of {multiple}.",
            fix="Use the size it was trained at.",
            error_id="export.size",
        )
    return words


def card_fields(
    network: DepthNetwork | LandmarkNetwork,
    ready: DepthNetwork | LandmarkNetwork,
    *,
    words: Mapping[str, object],
    size: tuple[int, int],
    resize: Resize,
    output: Mapping[str, object],
) -> dict[str, object]:
    """Everything of a card but its files: what the network decides, what is said of it, and what nobody said.

    Args:
        network: trained network.
        ready: its inference form.
        words: name and texts.
        size: (width, height) that inference works near.
        resize: how pictures get there.
        output: the section of that name.
    """
    what = "depth network" if isinstance(network, DepthNetwork) else "network of landmarks"
    return {
        "summary": f"A {what} trained with Endolux.",
        **_UNSAID,
        **words,
        "architecture": network.architecture,
        "parameters": sum(parameter.numel() for parameter in ready.parameters()),
        "preprocessing": {
            "height": size[1],
            "width": size[0],
            "multiple": network.multiple,
            "layout": "nhwc-uint8",
            "resize": resize,
        },
        "output": dict(output),
    }


def too_rough(moved: str, *, store: Store, most: str) -> CheckError:
    """The refusal of weights that rounding changes too much: ``moved`` says what by how much."""
    return CheckError(
        f"Storing the weights as {store} moves {moved} on average",
        why=f"At most {most} is accepted.",
        fix="Store them as fp32, or as fp16 if this was int8.",
        error_id="export.rounding",
    )


def refuse_existing(folder: Path) -> None:
    """Stop before anything is computed for a folder that is taken.

    Raises:
        UsageError: ``output.exists``.
    """
    if os.path.lexists(folder):
        raise UsageError(
            f"'{folder}' exists already",
            why="A bundle is never written over another file or folder.",
            fix="Choose a new folder, or remove the old one first.",
            error_id="output.exists",
        )

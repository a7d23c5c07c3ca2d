"""From a network of landmarks to a bundle."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from endolux.errors import UsageError
from endolux.export.bundle import Exported, Resize, card_fields, check_words, refuse_existing, too_rough
from endolux.export.onnx import check_parity, inference_network, onnx_bytes, rounding_error, safetensors_bytes
from endolux.export.storage import Store
from endolux.models.landmark_network import LandmarkNetwork
from endolux.runtime.bundles import write_bundle

_LARGEST_ROUNDING = 0.02


def export_landmarks(
    network: LandmarkNetwork,
    *,
    folder: Path,
    name: str,
    card: Mapping[str, object] | None = None,
    size: tuple[int, int] = (320, 256),
    store: Store = "fp16",
) -> Exported:
    """Fold, check and write a network of landmarks as ``model.onnx``, ``model.safetensors`` and ``card.json``.

    The graph takes ``image``, N x H x W x 3 uint8 RGB, and gives ``probabilities``, N x classes x H x W float32. A
    network that is not made for any size gets a graph for one picture of ``size``, and the bundle stretches to it.

    Args:
        network: trained network.
        folder: where the bundle shall be; must not exist.
        name: of the bundle.
        card: the words of the card; what is left out is said to be not stated.
        size: (width, height) that inference works near (or at), multiples of ``network.multiple``.
        store: how kernels are stored; see :mod:`endolux.export.storage`.

    Raises:
        UsageError: the folder exists, the size does not fit, ``card`` holds a field that the network decides, or
            ``export.unsupported`` for networks that read depth.
        ModelError: the weights are not finite.
        CheckError: ONNX Runtime and torch differ, or rounding moves probabilities by more than 0.02 on average.
    """
    words = check_words(card, size=size, multiple=network.multiple, store=store)
    if not network.exportable:
        raise UsageError(
            f"'{network.architecture}' as it is configured cannot become a bundle",
            why="A bundle is a graph from a picture alone to classes, and this network reads depth beside it.",
            fix="Train a network that reads none: landmarks-light with model.config.depth auxiliary, or srft-galore.",
            error_id="export.unsupported",
        )
    refuse_existing(folder)
    ready = inference_network(network, store=store)
    rounding = rounding_error(network, ready, size=size)
    if not rounding <= _LARGEST_ROUNDING:
        raise too_rough(f"probabilities by {rounding:.3f}", store=store, most=str(_LARGEST_ROUNDING))
    if network.any_size:
        model = onnx_bytes(ready, store=store)
        parity = check_parity(ready, model, sizes=(size, (5 * network.multiple, 7 * network.multiple)))
    else:
        model = onnx_bytes(ready.fixed(size), store=store, size=size)
        # Against the network itself, not its form for one size.
        parity = check_parity(ready, model, sizes=(size,))
    output: dict[str, object] = {"kind": "landmarks", "classes": list(network.classes)}
    resize: Resize = "keep-aspect" if network.any_size else "stretch"
    fields = card_fields(network, ready, words={"name": name, **words}, size=size, resize=resize, output=output)
    files: dict[str, bytes | Path] = {"model.onnx": model}
    if store != "int8":
        files["model.safetensors"] = safetensors_bytes(ready, store=store)
    return Exported(bundle=write_bundle(folder, card_fields=fields, files=files), parity=parity, rounding=rounding)

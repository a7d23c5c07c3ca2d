"""Weights of one transformer for depth as the start of another."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import torch
from torch import Tensor, nn

from endolux.adapt.lora import load_unadapted
from endolux.errors import EndoluxError, ModelError, UsageError, missing_extra
from endolux.models.base import DepthNetwork
from endolux.models.checkpoint_files import read_state_dict
from endolux.models.depth_anything import TAPS, DepthAnything, variant_of
from endolux.models.dpt import SIZES, DPTNetwork

MODEL_TYPE = "depth_anything"


def read_transformers(spec: str) -> dict[str, Tensor]:
    """Weights of a Depth Anything in the layout of ``transformers``: a folder or a hub id; safetensors only.

    Raises:
        ModelError: ``teacher.fetch`` where it cannot be had, ``teacher.architecture`` where it is another model,
            ``teacher.weights`` where weights are missing.
        MissingExtraError: without ``transformers``.
    """
    return {name: tensor.detach() for name, tensor in open_transformers(spec).state_dict().items()}


def open_transformers(spec: str) -> nn.Module:
    """The network of :func:`read_transformers`.

    Raises:
        ModelError: as there.
        MissingExtraError: without ``transformers``.
    """
    try:
        library = importlib.import_module("transformers")
        logging = importlib.import_module("transformers.utils.logging")
    except ImportError as error:
        raise missing_extra("transformers", "train") from error
    from endolux.models.foundation import other_model, unavailable

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        config = library.AutoConfig.from_pretrained(spec)
        if config.model_type != MODEL_TYPE:
            raise other_model(spec, str(config.model_type))
        network, report = library.DepthAnythingForDepthEstimation.from_pretrained(
            spec, config=config, use_safetensors=True, output_loading_info=True, dtype=torch.float32
        )
    except EndoluxError:
        raise
    except Exception as error:
        # The library's own failures range from OSError to errors of its validation and of the HTTP client.
        raise unavailable(spec, error) from error
    wrong = [*report["missing_keys"], *report["unexpected_keys"], *(str(key) for key in report["mismatched_keys"])]
    if wrong:
        named = ", ".join(sorted(map(str, wrong))[:3])
        raise ModelError(
            f"The weights of '{spec}' do not fit the network it describes: {named}",
            why=f"{len(wrong)} weights are missing, unknown or of another shape; the rest would be random numbers.",
            fix="Download the model again, all of its files.",
            error_id="teacher.weights",
        )
    found: nn.Module = network
    return found


def start_from(network: DPTNetwork, source: DepthNetwork) -> None:
    """Start a network from a trained one: its adapters are merged first, its own are as before training.

    DARES and EndoDAC may start from a Depth Anything of their shape: what they have in common has the same names.

    Raises:
        ModelError: ``model.variant`` where the weights belong to another network.
    """
    same = source.architecture == network.architecture
    related = isinstance(source, DepthAnything)
    if not (same or related) or not isinstance(source, DPTNetwork):
        raise ModelError(
            f"The checkpoint is of '{source.architecture}', and the network is '{network.architecture}'",
            why="Weights belong to one architecture; some variants even have the same names and shapes.",
            fix=f"Train '{source.architecture}' from it, or give a checkpoint of '{network.architecture}'.",
            error_id="model.variant",
        )
    if source.taps != network.taps:
        raise ModelError(
            f"The checkpoint's decoder reads the blocks {list(source.taps)}, that of '{network.architecture}' "
            f"{list(network.taps)}",
            why="Its weights would mean something else there.",
            fix="Give both networks the same model.config.taps.",
            error_id="model.variant",
        )
    state = source.fuse().state_dict()
    if not (same or isinstance(network, DepthAnything)):
        network.load_published(state)
        return
    load_unadapted(network, state)
    if isinstance(network, DepthAnything) and network.output == "depth" and getattr(source, "output", "") != "depth":
        network.restart_head()


def depth_anything_from(
    spec: str, *, architecture: str | None = None, max_depth_mm: float | None = None
) -> DepthAnything:
    """A Depth Anything with released weights.

    Args:
        spec: folder in the layout of ``transformers``, hub id, or file of the original release.
        architecture: such as ``depth-anything-v2-s``; may be left out where the name or the layout says it.
        max_depth_mm: of a file with a metric head, the largest depth it was trained with.

    Raises:
        UsageError: ``model.architecture`` where nothing tells what it is.
        ModelError: ``model.variant`` where it is another network than ``architecture``; what
            :func:`read_transformers` and :func:`endolux.models.published.read_state_dict` raise.
    """
    path = Path(spec).expanduser()
    named = variant_of(path.name if path.exists() else spec)
    wanted = architecture.removeprefix("depth-anything-") if architecture is not None else named
    if path.is_file() or path.suffix in (".pth", ".pt", ".safetensors"):
        if wanted not in TAPS:
            raise UsageError(
                f"What is '{path.name}'?",
                why="Neither its name nor you say which Depth Anything it is, and the weights alone do not tell.",
                fix="Name the architecture, such as depth-anything-v2-s.",
                error_id="model.architecture",
            )
        head: dict[str, object] = {} if max_depth_mm is None else {"output": "metric", "max_depth_mm": max_depth_mm}
        network = DepthAnything(variant=wanted, **head)  # type: ignore[arg-type]
        network.load_published(read_state_dict(path))
        return network.eval()
    source = open_transformers(spec)
    config = json.loads(source.config.to_json_string(use_diff=False))  # type: ignore[operator,union-attr]
    backbone = config["backbone_config"]
    taps = [int(str(stage).removeprefix("stage")) for stage in backbone["out_features"]]
    width = int(backbone["hidden_size"])
    shaped = next((v for v, t in TAPS.items() if list(t) == taps and SIZES[v[-1]]["hidden_size"] == width), None)
    if architecture is not None and shaped is not None and shaped != wanted:
        raise ModelError(
            f"'{spec}' is 'depth-anything-{shaped}', not '{architecture}'",
            why=f"It has {width} channels and its decoder reads the blocks {taps}.",
            fix=f"Import it as 'depth-anything-{shaped}'.",
            error_id="model.variant",
        )
    metric = config["depth_estimation_type"] == "metric"
    network = DepthAnything(
        variant=shaped or wanted or "v2-s",
        output="metric" if metric else "disparity",
        max_depth_mm=1000.0 * float(config["max_depth"]) if metric else 200.0,
        taps=taps,
        hidden_size=width,
        blocks=int(backbone["num_hidden_layers"]),
        heads=int(backbone["num_attention_heads"]),
        neck=config["neck_hidden_sizes"],
        fusion=int(config["fusion_hidden_size"]),
        head_width=int(config["head_hidden_size"]),
        grid=int(backbone["image_size"]) // int(config["patch_size"]),
    )
    network.load_published({name: tensor.detach() for name, tensor in source.state_dict().items()})
    return network.eval()

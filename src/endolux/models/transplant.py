"""Weights of one transformer for depth as the start of another."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from endolux.adapt.lora import load_unadapted
from endolux.errors import EndoluxError, ModelError, UsageError
from endolux.models.base import DepthNetwork
from endolux.models.checkpoint_files import read_state_dict
from endolux.models.depth_anything import DepthAnything, metric_depth_of, variant_of
from endolux.models.dpt import SIZES, TAPS, DPTNetwork
from endolux.models.hub import quiet_transformers

MODEL_TYPE = "depth_anything"
_DECISIVE = ("patch_size", "reassemble_factors", "head_in_index")
_DECISIVE_BACKBONE = (
    "model_type",
    "num_attention_heads",
    "mlp_ratio",
    "layer_norm_eps",
    "apply_layernorm",
    "hidden_act",
    "qkv_bias",
    "use_swiglu_ffn",
)


def open_transformers(spec: str) -> nn.Module:
    """A Depth Anything in the layout of ``transformers``: a folder or a hub id; safetensors only.

    Raises:
        ModelError: ``teacher.fetch`` where it cannot be had, ``teacher.architecture`` where it is another model,
            ``teacher.weights`` where weights are missing.
        MissingExtraError: without ``transformers``.
    """
    from endolux.models.foundation import other_model, unavailable

    library = quiet_transformers()
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
    new_head = isinstance(source, DepthAnything) and source.output != "depth"
    load_merged(network, source.fuse().state_dict(), new_head=new_head)


def load_merged(network: DPTNetwork, state: Mapping[str, Tensor], *, new_head: bool) -> None:
    """Copy weights under our names, of a network without branches, into one that may have some.

    Args:
        network: to fill, in place.
        state: weights of the same network, or of the Depth Anything that it adapts.
        new_head: whether a head of depth starts anew, because theirs gave something else.

    Raises:
        ModelError: ``model.variant``, ``model.weights``.
    """
    if not isinstance(network, DepthAnything):
        network.load_published(state)
        return
    load_unadapted(network, state)
    if new_head and network.output == "depth":
        network.restart_head()


def load_released(network: DPTNetwork, spec: str) -> None:
    """Start a network from released weights: those of a Depth Anything, or its own.

    Args:
        network: to fill, in place.
        spec: folder in the layout of ``transformers``, hub id, or file of an original release. The name of a file is
            believed, for the weights of one size of both releases have the same names and shapes.

    Raises:
        ModelError: ``model.variant`` for weights of another network; what :func:`depth_anything_from` raises.
    """
    path = Path(spec).expanduser()
    if not path.is_file():
        start_from(network, depth_anything_from(spec))
        return
    named = variant_of(path.name)
    if named is not None and named != network.variant:
        raise _other_variant(path.name, f"depth-anything-{named}", network.architecture, "Its name says so")
    network.load_published(read_state_dict(path))


def depth_anything_from(
    spec: str, *, architecture: str | None = None, max_depth_mm: float | None = None
) -> DepthAnything:
    """A Depth Anything with released weights.

    Args:
        spec: folder in the layout of ``transformers``, hub id, or file of the original release.
        architecture: such as ``depth-anything-v2-s``; may be left out where the name or the layout says it.
        max_depth_mm: of a file with a metric head, the largest depth it was trained with; the names of released files
            say it.

    Raises:
        UsageError: ``model.architecture`` where nothing tells what it is, ``model.config`` where the largest depth is
            not known, or given where the model states its own.
        ModelError: ``model.variant`` where it is another network than ``architecture``; what
            :func:`open_transformers` and :func:`endolux.models.published.read_state_dict` raise.
    """
    path = Path(spec).expanduser()
    named = variant_of(path.name if path.exists() else spec)
    wanted = architecture.removeprefix("depth-anything-") if architecture is not None else named
    if path.is_file() or path.suffix in (".pth", ".pt", ".safetensors"):
        return _from_file(path, wanted, max_depth_mm)
    if max_depth_mm is not None:
        raise UsageError(
            f"A largest depth of {max_depth_mm:g} mm for '{spec}'",
            why="The configuration beside its weights states it.",
            fix="Leave --max-depth-mm out.",
            error_id="model.config",
        )
    source = open_transformers(spec)
    config = json.loads(source.config.to_json_string(use_diff=False))  # type: ignore[operator,union-attr]
    backbone = config["backbone_config"]
    taps = [int(str(stage).removeprefix("stage")) for stage in backbone["out_features"]]
    width = int(backbone["hidden_size"])
    shaped = next((v for v, t in TAPS.items() if list(t) == taps and SIZES[v[-1]]["hidden_size"] == width), None)
    if architecture is not None and shaped is not None and shaped != wanted:
        why = f"It has {width} channels and its decoder reads the blocks {taps}"
        raise _other_variant(spec, f"depth-anything-{shaped}", architecture, why)
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
    _check_like(spec, config, network.library_config)
    network.load_published({name: tensor.detach() for name, tensor in source.state_dict().items()})
    return network.eval()


def _from_file(path: Path, variant: str | None, max_depth_mm: float | None) -> DepthAnything:
    named = variant_of(path.name)
    if variant not in TAPS:
        raise UsageError(
            f"What is '{path.name}'?",
            why="Neither its name nor you say which Depth Anything it is, and the weights alone do not tell.",
            fix="Name the architecture: endolux models import depth-anything-v2-s FILE -o FOLDER.",
            error_id="model.architecture",
        )
    if named not in (None, variant):
        raise _other_variant(path.name, f"depth-anything-{named}", f"depth-anything-{variant}", "Its name says so")
    metric = max_depth_mm or metric_depth_of(path.name)
    if metric is None and "metric" in path.name.lower():
        raise UsageError(
            f"What is the largest depth of '{path.name}'?",
            why="Its name says that it is metric, and the weights do not tell with which depth it was trained.",
            fix="Import it: endolux models import ARCHITECTURE FILE --max-depth-mm MM -o FOLDER.",
            error_id="model.config",
        )
    head: dict[str, object] = {} if metric is None else {"output": "metric", "max_depth_mm": metric}
    # First: a missing file shall not wait for a network that nobody needs.
    state = read_state_dict(path)
    network = DepthAnything(variant=variant, **head)  # type: ignore[arg-type]
    network.load_published(state)
    return network.eval()


def _other_variant(name: str, theirs: str, ours: str, why: str) -> ModelError:
    return ModelError(
        f"'{name}' is '{theirs}', not '{ours}'",
        why=f"{why}; weights of one size fit both releases, and mean something else in the other.",
        fix=f"Take the weights of '{ours}', or the network '{theirs}'.",
        error_id="model.variant",
    )


def _check_like(spec: str, theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> None:
    """Refuse a configuration whose numbers would be read and then not used."""
    pairs = [(key, theirs.get(key), ours.get(key)) for key in _DECISIVE]
    inside, own = theirs["backbone_config"], ours["backbone_config"]
    pairs += [(key, inside.get(key), own.get(key)) for key in _DECISIVE_BACKBONE]
    other = [f"{key} {found!r} instead of {expected!r}" for key, found, expected in pairs if found != expected]
    if other:
        raise ModelError(
            f"'{spec}' is a Depth Anything that was never released: {', '.join(other)[:200]}",
            why="Its weights would be used in another network than they were trained in.",
            fix="Use a released one, or export your own network as a bundle.",
            error_id="teacher.architecture",
        )

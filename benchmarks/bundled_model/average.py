"""Average trained RepDepths of one ancestry and export the result: how ``repdepth-endo`` became one network.

    python benchmarks/bundled_model/average.py 0.3=repdepth-colon 0.7=runs/mixed -o OUT --size 256x192 --card endo.yaml

Each source is ``SHARE=BUNDLE`` (with ``model.safetensors``) or ``SHARE=RUN``; shares are made to sum to one. Folded
weights are averaged, so that no statistics have to be taken anew. A network without the strides 64 and 128 counts as
one whose deep part adds nothing.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

import safetensors.torch
import torch
import yaml
from torch import Tensor

from endolux.export import export_bundle
from endolux.models import DepthNetwork, create
from endolux.runtime.bundles import load_bundle
from endolux.train.checkpoints import checkpoints, load_network

DEEP = "deep."
ADDS = "deep.expand."
Weights = Mapping[str, Tensor]


def folded(source: str) -> Weights:
    """The weights of the inference form of a run or bundle, in float32."""
    folder = Path(source)
    if folder.is_dir() and checkpoints(folder):
        return {name: value.float() for name, value in load_network(folder)[0].eval().fuse().state_dict().items()}
    file = load_bundle(source).folder / "model.safetensors"
    return {name: value.float() for name, value in safetensors.torch.load_file(str(file)).items()}


def average(parts: Sequence[tuple[float, Weights]]) -> DepthNetwork:
    """The network between some others.

    Args:
        parts: shares and folded weights.

    Raises:
        SystemExit: they have different shapes.
    """
    whole = sum(share for share, _ in parts)
    mean: dict[str, Tensor] = {}
    for name in dict.fromkeys(name for _, weights in parts for name in weights):
        having = [(share, weights[name]) for share, weights in parts if name in weights]
        if len(having) < len(parts) and not name.startswith(DEEP):
            raise SystemExit(f"'{name}' is not in all of them: they are no networks of one ancestry")
        # Inside the deep part those that have one are averaged; what it adds is as much less as some have none.
        total = whole if name.startswith(ADDS) or len(having) == len(parts) else sum(share for share, _ in having)
        mean[name] = torch.stack([share / total * value for share, value in having]).sum(dim=0)
    config: dict[str, object] = {"fused": True}
    if any(name.startswith(DEEP) for name in mean):
        config["deep"] = mean["deep.expand.weight"].shape[1]
    network = create("repdepth", **config)
    network.load_state_dict(mean)
    return network.eval()


def weighted(text: str) -> tuple[float, str]:
    share, equals, source = text.partition("=")
    if not equals or not source or not float(share) > 0.0:
        raise ValueError(text)
    return float(share), source


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", nargs="+", type=weighted, metavar="SHARE=SOURCE")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--size", default="256x192")
    parser.add_argument("--card", type=Path)
    parser.add_argument("--with-weights", action="store_true", help="write model.safetensors beside the graph")
    arguments = parser.parse_args()
    parts = [(share, folded(source)) for share, source in arguments.sources]
    words = yaml.safe_load(arguments.card.read_text(encoding="utf-8")) if arguments.card else None
    width, height = (int(side) for side in arguments.size.split("x"))
    done = export_bundle(
        average(parts),
        folder=arguments.output,
        name=arguments.output.name,
        card=words,
        size=(width, height),
        graph_only=not arguments.with_weights,
    )
    print(f"{done.bundle.folder}: {done.bundle.card.parameters / 1e6:.1f} million parameters")


if __name__ == "__main__":
    main()

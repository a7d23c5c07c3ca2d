"""Make `repdepth-colon` again, from nothing: phantom frames, two trainings, their average, bundle.

    python benchmarks/bundled_model/train.py OUTPUT [--threads N] [--real-data ../shared/data]

Needs ``pip install -c constraints.txt -e '.[train,phantom]'`` and about 10 GB of disk; several hours on two cores.
Every part resumes after an interruption. With ``--real-data`` each checkpoint is scored on the real frames; the
scores go into the log and decide nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import sys
from pathlib import Path

import numpy as np
import torch
import yaml

from endolux.export import export_bundle
from endolux.models import DepthNetwork
from endolux.phantom.world import PhantomSettings
from endolux.phantom.write import write_shards
from endolux.prep.content_area import find_content_area
from endolux.prep.network_input import network_input, restore
from endolux.runtime.card import Preprocessing
from endolux.train.averaging import interpolate, recalibrate
from endolux.train.checkpoints import load_network
from endolux.train.data import Corpus, Stream
from endolux.train.engine import OnCheckpoint, fit
from endolux.train.progress import Display
from endolux.train.recipe import Recipe, load_recipe

HERE = Path(__file__).resolve().parent
SHARD = 240
DATA = {
    "one": PhantomSettings(seed=1, frames=9840, views_per_scene=10),
    # Evened-out light and rich texture fooled the first network: it had learnt that bright is near.
    "two": PhantomSettings(seed=2, frames=4800, views_per_scene=10, even_light=0.5, rich_texture=0.5),
}
# Coarse first: at 60 % of the pixels a step costs 60 % of the time, and most of what is learnt there stays.
COARSE = (
    "model.config={}",
    "steps=4200",
    "optimiser.lr=2e-3",
    "data.size=256x192",
    "loss.gradient=0.5",
    "loss.anchor=0.1",
    "loss.variance_focus=0.85",
    "data.augmentation.light=0.4",
    "data.augmentation.light_range=0.45",
    "data.augmentation.flatten=0",
)
# The second stage starts from here: the last quarter of the first one's schedule is left to it.
COARSE_END = 3000
FINE = (
    "model.config={}",
    "steps=4700",
    "optimiser.lr=1.5e-3",
    "data.size=320x256",
    "loss.gradient=1.0",
    "loss.anchor=0.05",
    "loss.variance_focus=0.95",
    "data.augmentation.light=0.6",
    "data.augmentation.light_range=0.9",
    "data.augmentation.flatten=0.3",
)
FINE_SHARE = 0.85
# Less than it was trained at: fewer pixels see more of the picture at once, and the real frames came out better.
INFERENCE_SIZE = (256, 192)


def scorer(data: Path) -> OnCheckpoint:
    """A function that scores a network on the real frames."""
    sys.path.insert(0, str(HERE.parent))
    from real_frames import score

    spec = Preprocessing(height=256, width=320)

    def measure(network: DepthNetwork, _step: int) -> dict[str, float]:
        def predict(image: np.ndarray) -> np.ndarray:
            height, width = image.shape[:2]
            area = find_content_area(image)
            ready = network_input(image, valid=area.mask(width, height), bbox=area.bbox, spec=spec)
            pixels = torch.from_numpy(np.array(ready.array)).reshape(1, *np.shape(ready.array)[-3:])
            with torch.inference_mode():
                depth = network.depth(pixels.permute(0, 3, 1, 2).float() / 255.0)
            return restore(depth[0, 0].numpy(), ready, size=(width, height))

        return {name: float(row["abs_rel"]) for name, row in score(predict, data=data).items()}

    return measure


class _EndOfStageError(Exception):
    """Raised at the checkpoint where a stage hands over."""


def _stage(
    run: Path, recipe: Recipe, data: list[Path], arguments: argparse.Namespace, *, end: int | None = None
) -> None:
    """Train one stage, or what is left of it; with ``end`` only up to the checkpoint of that step."""
    if end is not None and (run / f"step-{end:08d}").exists():
        return
    measure = scorer(arguments.real_data) if arguments.real_data else None

    def at_checkpoint(network: DepthNetwork, step: int) -> dict[str, float]:
        scores = measure(network, step) if measure is not None else {}
        if step == end:
            raise _EndOfStageError
        return scores

    print(f"stage {run.name}", file=sys.stderr)
    with contextlib.suppress(_EndOfStageError), Display(run.name) as display:
        fit(None, recipe, data, run, resume=(run / "log.jsonl").exists(), on_log=display, on_checkpoint=at_checkpoint)


def main() -> None:
    """Run every part that is not yet done."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--real-data", type=Path)
    arguments = parser.parse_args()
    output: Path = arguments.output
    folders = {name: output / "data" / name for name in DATA}
    for name, settings in DATA.items():
        write_shards(settings, folders[name], shard_frames=SHARD, workers=arguments.threads)
    threads = f"threads={arguments.threads}"
    _stage(output / "coarse", load_recipe("repdepth", [*COARSE, threads]), [folders["one"]], arguments, end=COARSE_END)
    coarse = output / "coarse" / f"step-{COARSE_END:08d}"
    both = list(folders.values())
    fine = load_recipe("repdepth", [*FINE, threads, f"model.initial={coarse}"])
    _stage(output / "fine", fine, both, arguments)
    # The second stage gained on evenly lit frames and lost on others; between the two lies most of both.
    between = interpolate(load_network(coarse)[0], load_network(output / "fine")[0], share=FINE_SHARE)
    corpus = Corpus([str(folder) for folder in both])
    stream = Stream(corpus, batch=16, seed=9, augmentation=fine.data.augmentation, size=fine.data.size)
    network = recalibrate(between, (batch for (batch,), _ in itertools.islice(stream.batches(), 25)))
    words = yaml.safe_load((HERE / "card.yaml").read_text(encoding="utf-8"))
    exported = export_bundle(
        network, folder=output / "repdepth-colon", name="repdepth-colon", card=words, size=INFERENCE_SIZE
    )
    print(exported.bundle.folder)


if __name__ == "__main__":
    main()

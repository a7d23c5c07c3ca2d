"""``endolux export``: a training run to a bundle that runs without torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import yaml
from cyclopts import App, Parameter

from endolux.cli import render
from endolux.errors import UsageError, from_os_error, missing_extra
from endolux.runtime.licences import require_commercial
from endolux.types import DepthKind

JsonFlag = Annotated[bool, Parameter(name="--json", negative=())]


def register(app: App) -> None:
    """Add the verb."""
    app.command(export, name="export")


def export(
    run: Path,
    /,
    *,
    output: Annotated[Path, Parameter(name=["--output", "-o"])],
    name: str | None = None,
    card: Path | None = None,
    size: str | None = None,
    store: Literal["fp16", "fp32", "int8"] = "fp16",
    kind: Literal["metric", "relative-depth"] | None = None,
    graph_only: Annotated[bool, Parameter(negative=())] = False,
    commercial: Annotated[bool, Parameter(negative=())] = False,
    as_json: JsonFlag = False,
) -> int:
    """Write the averaged weights of a run as a bundle, and check it against torch.

    Args:
        run: folder of a run or of one of its checkpoints.
        output: folder of the bundle; must not exist.
        name: of the bundle; the name of its folder by default.
        card: YAML file with the words of the card: summary, trained_on, intended_use, limits, licence, ...
        size: WIDTHxHEIGHT that inference works near; by default 320x256, to the nearest multiples that it takes, and
            for networks of one size that of the training.
        store: how weights are stored: fp16, fp32, or int8 for half the size of fp16.
        kind: what the depth means, where that is less than the network's own: relative-depth.
        graph_only: leave model.safetensors out; the graph alone predicts, and is half of the bytes.
        commercial: refuse a network whose licence, or that of what it was made from, does not allow commercial use.
        as_json: print JSON.
    """
    from endolux.cli.train import parse_size

    given = None if size is None else parse_size(size)
    words = {} if card is None else _read_card(card)
    try:
        from endolux.export import export_bundle
        from endolux.export.bundle import refuse_existing
        from endolux.export.inheritance import inherit
        from endolux.export.landmarks import export_landmarks
        from endolux.models.landmark_network import LandmarkNetwork
        from endolux.train.checkpoints import load_exported
        from endolux.train.odometry import pose_files
        from endolux.train.origins import read_origins
        from endolux.train.run_folder import training_size
    except ModuleNotFoundError as error:
        raise missing_extra(error.name or "torch", "train") from error
    refuse_existing(output)
    network, state = load_exported(run)
    step = network.multiple
    pixels = given or (max(1, round(320 / step)) * step, max(1, round(256 / step)) * step)
    if given is None and isinstance(network, LandmarkNetwork) and not network.any_size:
        pixels = training_size(run) or pixels
    words = inherit(words, read_origins(run))
    if commercial:
        require_commercial(
            name or output.resolve().name, str(words.get("licence", "not stated; write it into the --card text"))
        )
    title = name or output.resolve().name
    if isinstance(network, LandmarkNetwork):
        if kind is not None:
            raise UsageError(
                f"--kind {kind} for a network of landmarks",
                why="It gives classes, and no depth.",
                fix="Leave --kind out.",
                error_id="export.kind",
            )
        exported = export_landmarks(network, folder=output, name=title, card=words, size=pixels, store=store)
    else:
        exported = export_bundle(
            network,
            folder=output,
            name=title,
            card=words,
            size=pixels,
            store=store,
            kind=None if kind is None else DepthKind(kind.replace("-", "_")),
            graph_only=graph_only,
            more=pose_files(run, half=store != "fp32"),
        )
    worst = max(parity.relative for parity in exported.parity)
    total = sum(entry.bytes for entry in exported.bundle.card.files.values())
    if as_json:
        render.answer_json(
            {
                "ok": True,
                "bundle": str(output),
                "step": state.step,
                "bytes": total,
                "parity_relative": worst,
                "rounding_relative": exported.rounding,
                "card_sha256": exported.bundle.card_sha256,
            }
        )
    else:
        render.answer(f"{output}  step {state.step}, {total / 1e6:.1f} MB, differs from torch by {worst:.0e} at most")
    return 0


def _read_card(path: Path) -> dict[str, object]:
    try:
        text = path.read_text(encoding="utf-8")
        words = yaml.safe_load(text)
    except OSError as error:
        raise from_os_error(error, path) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise _bad_card(path, " ".join(str(error).split())) from error
    if not isinstance(words, dict):
        raise _bad_card(path, f"It holds a {type(words).__name__}, not fields with values.")
    return {str(key): value for key, value in words.items()}


def _bad_card(path: Path, why: str) -> UsageError:
    return UsageError(
        f"'{path}' is no card text",
        why=why,
        fix="Write YAML such as 'summary: Depth for colonoscopy.'",
        error_id="bundle.card",
    )

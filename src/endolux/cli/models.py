"""``endolux models``: which networks are here, what they are, and whether their files are intact."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from endolux.cli import render
from endolux.errors import EXIT_MODEL, EXIT_OK, ModelError, UsageError, missing_extra

JsonFlag = Annotated[bool, Parameter(name="--json", negative=())]


def register(app: App) -> None:
    """Add the verb."""
    models = App(name="models", help="List, show and verify models.")
    models.command(ls, name="ls")
    models.command(show, name="show")
    models.command(verify, name="verify")
    models.command(card, name="card")
    models.command(import_, name="import")
    app.command(models)


def ls(*, commercial: Annotated[bool, Parameter(negative=())] = False, as_json: JsonFlag = False) -> int:
    """List the bundled models.

    Args:
        commercial: only those whose licence is known to allow commercial use.
        as_json: print JSON.
    """
    from endolux.runtime.bundles import DEFAULT_MODEL, list_bundles, load_bundle
    from endolux.runtime.licences import allows_commercial_use

    rows = []
    for name in list_bundles():
        bundle = load_bundle(name)
        if commercial and not allows_commercial_use(bundle.card.licence):
            continue
        size = sum(entry.bytes for entry in bundle.card.files.values())
        rows.append((bundle, name == DEFAULT_MODEL, size))
    if as_json:
        render.answer_json(
            [
                {
                    "name": b.name,
                    "default": default,
                    "summary": b.card.summary,
                    "kind": str(b.card.output.kind),
                    "parameters": b.card.parameters,
                    "bytes": size,
                    "licence": b.card.licence,
                    "card_sha256": b.card_sha256,
                    "folder": str(b.folder),
                }
                for b, default, size in rows
            ]
        )
        return 0
    header = ("name", "kind", "parameters", "MB", "licence", "summary")
    cells = [
        (
            b.name + (" (default)" if default else ""),
            str(b.card.output.kind),
            f"{b.card.parameters / 1e6:.2f} M",
            f"{size / 1e6:.1f}",
            b.card.licence,
            b.card.summary,
        )
        for b, default, size in rows
    ]
    nothing = "no bundled models" + (" for commercial use" if commercial else "")
    render.answer(render.table(cells, header=header) if cells else nothing)
    return 0


def show(name: str, /, *, as_json: JsonFlag = False) -> int:
    """Show a model's card.

    Args:
        name: name of a bundled model, or a bundle's folder.
        as_json: print the card as JSON.
    """
    from endolux.runtime.bundles import load_bundle

    bundle = load_bundle(name)
    card = bundle.card
    if as_json:
        render.answer_json({**json.loads(card.model_dump_json()), "card_sha256": bundle.card_sha256})
        return 0
    spec = card.preprocessing
    lines = [
        f"{card.name}: {card.summary}",
        f"architecture  {card.architecture}, {card.parameters / 1e6:.2f} M parameters",
        f"input         {'stretched to' if spec.resize == 'stretch' else 'about'} {spec.width}x{spec.height}, "
        f"sides multiples of {spec.multiple}, {spec.layout}",
        f"output        {card.output.text}",
        f"trained on    {card.trained_on}",
        f"meant for     {card.intended_use}",
        *(f"limit         {limit}" for limit in card.limits),
        f"licence       {card.licence}",
        *(f"derived from  {origin}" for origin in card.derived_from),
        *(f"measured      {m.protocol} on {m.data}: {_values(m.values)}  [{m.command}]" for m in card.metrics),
        f"card          sha256 {bundle.card_sha256}",
        f"folder        {bundle.folder}",
    ]
    for line in lines:
        render.answer(line)
    return 0


def verify(name: str, /, *, as_json: JsonFlag = False) -> int:
    """Check every file of a model against the hashes on its card.

    Args:
        name: name of a bundled model, or a bundle's folder.
        as_json: print JSON.
    """
    from endolux.runtime.bundles import find_bundle, verify_bundle

    checks = verify_bundle(name)
    broken = [check for check in checks if not check.ok]
    if as_json:
        files = {check.name: check.detail for check in checks}
        render.answer_json({"ok": not broken, "folder": str(find_bundle(name)), "files": files})
        return EXIT_MODEL if broken else EXIT_OK
    for check in checks:
        render.answer(f"{'ok' if check.ok else 'BROKEN':6}  {check.name}{'' if check.ok else ': ' + check.detail}")
    if broken:
        raise ModelError(
            f"{len(broken)} of {len(checks)} files of '{name}' are not what its card describes: {broken[0].name}",
            why="They were changed or damaged after the card was written, or they are missing.",
            fix="Do not use this model. Copy the bundle again from its source, or export it again.",
            error_id="model.hash",
        )
    render.answer(f"{len(checks)} files intact in {find_bundle(name)}")
    return EXIT_OK


def card(
    name: str, /, *, add: Path | None = None, output: Annotated[Path | None, Parameter(name=["--output", "-o"])] = None
) -> int:
    """Render a model's card as Markdown, with every figure measured under a protocol.

    Args:
        name: name of a bundled model, or a bundle's folder.
        add: result.json of 'endolux evaluate --protocol' that is first added to the card of a bundle's folder.
        output: write the Markdown into this file instead.
    """
    from endolux.evaluate.cards import add_metric, card_markdown
    from endolux.io.tables import write_bytes_atomic
    from endolux.runtime.bundles import list_bundles, load_bundle

    if output is not None and output.exists():
        raise UsageError(
            f"'{output}' exists already",
            why="Files are never overwritten.",
            fix="Choose another file with -o FILE.",
            error_id="output.exists",
        )
    if add is not None:
        if name in list_bundles():
            raise UsageError(
                f"'{name}' belongs to this installation",
                why="Its card is part of the package, and changing it would change what everyone else calls so.",
                fix="Give the folder of a bundle of your own.",
                error_id="card.installed",
            )
        entry = add_metric(name, add)
        render.note(f"added {entry.protocol}")
    text = card_markdown(load_bundle(name))
    if output is None:
        render.answer(text)
    else:
        write_bytes_atomic(output, (text + "\n").encode("utf-8", "backslashreplace"))
    return EXIT_OK


def import_(
    architecture: str,
    checkpoint: Path,
    /,
    *,
    output: Annotated[Path, Parameter(name=["--output", "-o"])],
    name: str | None = None,
    size: str | None = None,
    max_depth_mm: float | None = None,
    reproduce: Annotated[bool, Parameter(negative=())] = False,
    licence: Annotated[str | None, Parameter(name=["--licence", "--license"])] = None,
    store: str = "fp32",
    commercial: Annotated[bool, Parameter(negative=())] = False,
    as_json: JsonFlag = False,
) -> int:
    """Turn a published checkpoint into a bundle.

    Args:
        architecture: leve, leve-3x3, ..., guidedepth, guidedepth-s; af-sfmlearner, dares, endodac, lite-mono;
            depth-anything-v1-s, ..., depth-anything-v2-l.
        checkpoint: the .pth file: a state dict, bare or in a training checkpoint; of af-sfmlearner to lite-mono the
            folder that holds encoder.pth and depth.pth, or depth_model.pth; of Depth Anything also a folder or hub id
            in the layout of transformers. It is read without running code.
        output: folder of the bundle; must not exist.
        name: of the bundle; the name of its folder by default.
        size: WIDTHxHEIGHT that images are stretched to; by default the published one: 640x480 for leve, 320x256 for
            af-sfmlearner, dares and endodac, else 320x240.
        max_depth_mm: of leve and guidedepth, largest depth of the training data; 10000 for NYU, which is the default.
        reproduce: of leve and guidedepth, depth of ratios below 0 as published: the nearest, instead of the farthest.
        licence: under which the checkpoint may be used; the card says that none is known if you do not.
        store: fp32, fp16, or int8 for a quarter of the size.
        commercial: refuse weights whose licence does not allow commercial use.
        as_json: print JSON.
    """
    pixels = None if size is None else _pixels(size)
    try:
        from endolux.export.published import import_published
        from endolux.export.storage import STORES
    except ModuleNotFoundError as error:
        raise missing_extra(error.name or "torch", "train") from error
    chosen = next((known for known in STORES if known == store), None)
    if chosen is None:
        raise UsageError(
            f"Weights cannot be stored as '{store}'",
            why=f"Known: {', '.join(STORES)}.",
            fix="Leave --store out to change nothing.",
            error_id="export.store",
        )
    imported = import_published(
        architecture,
        checkpoint,
        folder=output,
        name=name,
        size=pixels,
        max_depth_mm=max_depth_mm,
        reproduce=reproduce,
        licence=licence,
        store=chosen,
        commercial=commercial,
    )
    bundle = imported.exported.bundle
    worst = max(parity.relative for parity in imported.exported.parity)
    total = sum(entry.bytes for entry in bundle.card.files.values())
    others = [fit for fit in imported.fits if fit != architecture]
    if others:
        render.note(f"these weights fit {' and '.join(others)} as well; the bundle says they are of {architecture}")
    if not licence and bundle.card.licence.startswith(("Unknown", "No licence")):
        render.note("no licence is known for these weights; state it with --licence if you know it")
    if as_json:
        render.answer_json(
            {
                "ok": True,
                "bundle": str(output),
                "architecture": architecture,
                "fits": list(imported.fits),
                "bytes": total,
                "parity_relative": worst,
                "rounding_relative": imported.exported.rounding,
                "card_sha256": bundle.card_sha256,
            }
        )
    else:
        render.answer(f"{output}  {architecture}, {total / 1e6:.1f} MB, differs from torch by {worst:.0e} at most")
    return EXIT_OK


def _pixels(size: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d{1,5})x(\d{1,5})", size)
    if match is None:
        raise UsageError(
            f"'{size}' is no size",
            why="It is WIDTHxHEIGHT in pixels.",
            fix="Write it like --size 640x480.",
            error_id="usage.size",
        )
    return int(match[1]), int(match[2])


def _values(values: dict[str, float]) -> str:
    return ", ".join(f"{key} {value:.4g}" for key, value in values.items())

"""``endolux models``: which networks are here, what they are, and whether their files are intact."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from endolux.cli import render
from endolux.errors import EXIT_MODEL, EXIT_OK, ModelError, UsageError

JsonFlag = Annotated[bool, Parameter(name="--json", negative=())]


def register(app: App) -> None:
    """Add the verb."""
    models = App(name="models", help="List, show and verify models.")
    models.command(ls, name="ls")
    models.command(show, name="show")
    models.command(verify, name="verify")
    models.command(card, name="card")
    app.command(models)


def ls(*, as_json: JsonFlag = False) -> int:
    """List the bundled models.

    Args:
        as_json: print JSON.
    """
    from endolux.runtime.bundles import DEFAULT_MODEL, list_bundles, load_bundle

    rows = []
    for name in list_bundles():
        bundle = load_bundle(name)
        size = sum(entry.bytes for entry in bundle.card.files.values())
        rows.append((bundle, name == DEFAULT_MODEL, size))
    if as_json:
        render.answer_json(
            [
                {
                    "name": b.name,
                    "default": default,
                    "summary": b.card.summary,
                    "kind": b.card.output.kind.value,
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
            b.card.output.kind.value,
            f"{b.card.parameters / 1e6:.2f} M",
            f"{size / 1e6:.1f}",
            b.card.licence,
            b.card.summary,
        )
        for b, default, size in rows
    ]
    render.answer(render.table(cells, header=header) if cells else "no bundled models")
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
    unit = "mm" if card.output.kind.value == "metric" else "no unit"
    spec = card.preprocessing
    lines = [
        f"{card.name}: {card.summary}",
        f"architecture  {card.architecture}, {card.parameters / 1e6:.2f} M parameters",
        f"input         about {spec.width}x{spec.height}, sides multiples of {spec.multiple}, {spec.layout}",
        f"output        {card.output.kind.value} ({unit}), {card.output.minimum:g} to {card.output.maximum:g}",
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


def _values(values: dict[str, float]) -> str:
    return ", ".join(f"{key} {value:.4g}" for key, value in values.items())

"""Results on cards: a figure enters a bundle's card with its provenance or not at all, and cards as Markdown."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import cast

from pydantic import JsonValue, ValidationError

from endolux.errors import InputError, UsageError
from endolux.io.paths import check_file, input_error, printable
from endolux.io.tables import write_bytes_atomic
from endolux.runtime.bundles import CARD, find_bundle, load_bundle
from endolux.runtime.card import Card, Metric
from endolux.types import Bundle

_MAX_RESULT_BYTES = 256 << 20


def model_sha256(card: Card) -> str:
    """Hash of everything on a card but its metrics: the same before and after a figure was added.

    It covers the hashes of the weights, the preprocessing and the meaning of the output, and so the figures.
    """
    content = card.model_dump(mode="json")
    content.pop("metrics", None)
    return hashlib.sha256(json.dumps(content, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def read_result(path: str | Path) -> dict[str, JsonValue]:
    """Read the JSON of an evaluation.

    Raises:
        InputError: ``input.missing`` and the like, ``result.json`` for a file that is not a result of
            ``endolux evaluate``.
    """
    path = Path(path)
    if path.is_dir():
        path = path / "result.json"
    size = check_file(path)
    try:
        if size > _MAX_RESULT_BYTES:
            raise ValueError(f"it has {size} bytes")
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise input_error(error, path) from error
    except (ValueError, RecursionError) as error:
        raise _no_result(path, f"it is no complete JSON ({error})") from error
    if not isinstance(content, dict) or not isinstance(content.get("protocol"), dict) or "model" not in content:
        raise _no_result(path, "it states no protocol and no model")
    return cast("dict[str, JsonValue]", content)


def add_metric(bundle_folder: str | Path, result_json: str | Path) -> Metric:
    """Append a result of ``endolux evaluate --protocol`` to the card of the bundle that was measured.

    The card's other fields stay as they are; ``card.json`` is replaced in one step.

    Args:
        bundle_folder: folder of the bundle.
        result_json: the result file, or the report folder that holds it.

    Returns:
        The entry as it stands on the card now.

    Raises:
        ModelError: no such bundle, or a damaged one.
        InputError: ``result.json`` for a file that is no result.
        UsageError: ``card.no-protocol`` for a result without a registered protocol, ``card.incomplete`` where frames
            failed or the list was cut or not the published one, ``card.other-model`` where another model was
            measured, ``card.duplicate`` where the card holds this entry.
    """
    folder = Path(bundle_folder)
    bundle = load_bundle(find_bundle(folder))
    content = read_result(result_json)
    entry = metric_of(content)
    model = cast("dict[str, JsonValue]", content["model"])
    card = bundle.card
    if bundle.card_sha256 != model.get("card_sha256") and model_sha256(card) != model.get("model_sha256"):
        raise UsageError(
            f"The result '{printable(Path(result_json))}' measures another model than '{printable(folder)}'",
            why=f"It names '{model.get('name')}', card {str(model.get('card_sha256'))[:12]}; this card is "
            f"{bundle.card_sha256[:12]}, and the model behind it differs too.",
            fix="Evaluate this bundle and add that result.",
            error_id="card.other-model",
        )
    if entry in card.metrics:
        raise UsageError(
            f"The card of '{card.name}' holds this result already",
            why="The same protocol, data and figures stand there.",
            fix="Nothing needs to be done.",
            error_id="card.duplicate",
        )
    changed = card.model_copy(update={"metrics": (*card.metrics, entry)})
    text = json.dumps(changed.model_dump(mode="json"), sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False)
    write_bytes_atomic(bundle.folder / CARD, (text + "\n").encode(), durable=True)
    return entry


def metric_of(content: dict[str, JsonValue]) -> Metric:
    """The card entry of a result document. Raises as :func:`add_metric`."""
    protocol = cast("dict[str, JsonValue]", content["protocol"])
    frames = content.get("frames")
    if content.get("kind") != "protocol" or not isinstance(frames, dict):
        raise UsageError(
            "This result was measured without a protocol",
            why="A figure on a card must say by which published convention it came about.",
            fix="Run 'endolux evaluate MODEL --protocol P --data PATH -o FOLDER' and add that result.",
            error_id="card.no-protocol",
        )
    short = [
        f"{frames[key]} {text}"
        for key, text in (("failed", "frames failed"), ("empty", "frames gave no figure"))
        if frames.get(key)
    ]
    expected = frames.get("expected")
    if expected is not None and expected != frames.get("selected"):
        short.append(f"{frames.get('selected')} frames were scored where the protocol publishes {expected}")
    if content.get("limit") is not None:
        short.append(f"only the first {content['limit']} frames were scored")
    if short:
        raise UsageError(
            f"This result is not complete: {'; '.join(short)}",
            why="On a card it would pass for the figure of the whole protocol.",
            fix="Mend the data ('endolux data check') and evaluate again.",
            error_id="card.incomplete",
        )
    model = cast("dict[str, JsonValue]", content["model"])
    versions = cast("dict[str, JsonValue]", content.get("versions") or {})
    command = cast("list[str]", content.get("command") or [])
    metrics = cast("dict[str, dict[str, float | None]]", content["metrics"])
    data = (
        f"{protocol.get('dataset')}, {frames.get('scored')} frames, list sha256 {frames.get('list_sha256')}; "
        f"{model.get('engine')} {model.get('engine_version') or ''} {model.get('precision')}; "
        f"endolux {versions.get('endolux')}"
    )
    values = {name: figure["mean"] for name, figure in metrics.items() if figure.get("mean") is not None}
    try:
        return Metric(
            protocol=str(protocol["id"]),
            data=" ".join(data.split()).replace(" ;", ";"),
            values=cast("dict[str, float]", values),
            command=" ".join(command),
        )
    except (ValidationError, KeyError) as error:
        raise InputError(
            "The result lacks what a card needs",
            why=" ".join(str(error).split()),
            fix="Use a result file that 'endolux evaluate' wrote, unchanged.",
            error_id="result.json",
        ) from error


def card_markdown(bundle: Bundle) -> str:
    """The card of a bundle as a Markdown document."""
    card = bundle.card
    spec = card.preprocessing
    lines = [
        f"# {_md(card.name)}",
        "",
        _md(card.summary),
        "",
        "| | |",
        "|---|---|",
        f"| architecture | {_md(card.architecture)}, {card.parameters / 1e6:.2f} M parameters |",
        f"| input | about {spec.width} x {spec.height} pixels, sides multiples of {spec.multiple}, {spec.layout} |",
        f"| output | {_md(card.output.text)} |",
        f"| trained on | {_md(card.trained_on)} |",
        f"| meant for | {_md(card.intended_use)} |",
        f"| licence | {_md(card.licence)} |",
        *(f"| derived from | {_md(origin)} |" for origin in card.derived_from),
        f"| card sha256 | `{bundle.card_sha256}` |",
        "",
        "## Limits",
        "",
        *(f"- {_md(limit)}" for limit in card.limits or ("None stated.",)),
        "",
        "## Measured",
        "",
    ]
    if not card.metrics:
        lines += ["Nothing yet.", ""]
    for metric in card.metrics:
        names = list(metric.values)
        lines += [
            f"### {_md(metric.protocol)}",
            "",
            "| " + " | ".join(_md(name) for name in names) + " |",
            "|" + "---:|" * len(names),
            "| " + " | ".join(f"{metric.values[name]:.4g}" for name in names) + " |",
            "",
            f"Data: {_md(metric.data)}",
            "",
            *(["```sh", metric.command.replace("```", "'''"), "```", ""] if metric.command else []),
        ]
    lines += ["## Files", "", "| file | bytes | sha256 |", "|---|---:|---|"]
    lines += [f"| {_md(name)} | {entry.bytes} | `{entry.sha256}` |" for name, entry in sorted(card.files.items())]
    return "\n".join(lines)


def _md(text: str) -> str:
    """Text from a card as one line that cannot break out of its cell or become markup."""
    flat = " ".join(text.split())
    for character in "\\`*_|<>[]":
        flat = flat.replace(
            character, f"\\{character}" if character not in "<>" else {"<": "&lt;", ">": "&gt;"}[character]
        )
    return flat


def _no_result(path: Path, reason: str) -> InputError:
    return InputError(
        f"'{printable(path)}' is not a result of 'endolux evaluate'",
        why=f"{reason[0].upper()}{reason[1:]}.",
        fix="Give the result.json that 'endolux evaluate ... -o FOLDER' wrote.",
        error_id="result.json",
    )

"""Bundles on disk: found by name or folder, every hash checked, written atomically and byte for byte the same."""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from pydantic import ValidationError

from endolux.errors import EndoluxError, ModelError, UsageError, from_os_error
from endolux.runtime.card import SCHEMA_VERSION, Card, FileEntry
from endolux.types import Bundle

DEFAULT_MODEL = "repdepth-endo"
CARD = "card.json"
_WEIGHTS = Path(__file__).resolve().parent.parent / "weights"
_MAX_CARD_BYTES = 1 << 20
# Formats that hold arrays and text. Pickles and archives of them run code when they are opened.
_SUFFIXES = frozenset({".onnx", ".safetensors", ".xml", ".bin", ".json", ".md", ".txt", ".png"})
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._ -]*")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class FileCheck:
    """What the verification of one file of a bundle found.

    Attributes:
        name: file name in the bundle's folder.
        ok: whether size and hash are those of the card.
        detail: "ok", or what is wrong.
    """

    name: str
    ok: bool
    detail: str


def list_bundles() -> tuple[str, ...]:
    """Names of the models that this installation carries, sorted.

    Example:
        >>> isinstance(list_bundles(), tuple)
        True
    """
    return tuple(sorted(entry.parent.name for entry in _WEIGHTS.glob(f"*/{CARD}")))


def find_bundle(name_or_folder: str | Path) -> Path:
    """The folder of a bundle: a name from ``list_bundles`` first, else a path.

    Raises:
        ModelError: ``model.missing`` where there is none, with the nearest known name.
    """
    text = os.fspath(name_or_folder)
    if isinstance(name_or_folder, str) and _PLAIN_NAME.fullmatch(text) and (_WEIGHTS / text / CARD).is_file():
        return _WEIGHTS / text
    folder = Path(text).expanduser()
    if text and "\0" not in text:
        if (folder / CARD).is_file():
            return folder
        if folder.is_file() and folder.name == CARD:
            return folder.parent
        if folder.exists():
            raise ModelError(
                f"'{text}' is not a bundle",
                why=f"A bundle is a folder with a {CARD} that describes the files beside it; none was found there.",
                fix="Give the folder that 'endolux export' wrote, or a name from 'endolux models ls'.",
                error_id="model.missing",
            )
    known = list_bundles()
    near = difflib.get_close_matches(text, known, n=1, cutoff=0.5)
    listed = f"The models here are: {', '.join(known)}." if known else "This installation carries no model."
    if near:
        fix = f"Did you mean '{near[0]}'?"
    elif re.fullmatch(r"(hf:)?[\w.-]+/[\w.-]+", text):
        fix = "Models cannot be fetched from a hub yet: download the folder yourself and give its path."
    else:
        fix = "Use a name from 'endolux models ls' or the path of a bundle's folder."
    raise ModelError(
        f"No model '{text}'",
        why=f"It is neither a known name nor a folder. {listed}",
        fix=fix,
        error_id="model.missing",
    )


def load_bundle(name_or_folder: str | Path = DEFAULT_MODEL) -> Bundle:
    """Read and validate a card and check the hash of every file it lists; other files are ignored.

    Args:
        name_or_folder: a name from ``list_bundles`` or the path of a folder.

    Raises:
        ModelError: ``model.missing`` (no such bundle or file), ``model.card`` (unreadable card), ``model.schema``
            (written for another release), ``model.path`` (a file outside the folder), ``model.hash`` (changed file).

    Example:
        >>> load_bundle("no-such-model")
        Traceback (most recent call last):
        ...
        endolux.errors.ModelError: error[model.missing]: No model 'no-such-model'
        ...
    """
    bundle = _read(find_bundle(name_or_folder))
    for name in sorted(bundle.card.files):
        read_file(bundle, name)
    return bundle


def verify_bundle(name_or_folder: str | Path) -> tuple[FileCheck, ...]:
    """Check every file that the card lists, without stopping at the first that is wrong.

    Raises:
        ModelError: where the card itself cannot be read; see ``load_bundle``.
    """
    bundle = _read(find_bundle(name_or_folder))
    checks = []
    for name in sorted(bundle.card.files):
        try:
            read_file(bundle, name)
        except EndoluxError as error:
            checks.append(FileCheck(name=name, ok=False, detail=error.what))
        else:
            checks.append(FileCheck(name=name, ok=True, detail="ok"))
    return tuple(checks)


def read_file(bundle: Bundle, name: str) -> bytes:
    """The bytes of one file of a bundle, checked against the card: what was hashed is what is used.

    Raises:
        ModelError: ``model.missing``, ``model.path`` or ``model.hash``; see ``load_bundle``.
    """
    entry = bundle.card.files.get(name)
    if entry is None:
        raise ModelError(
            f"The bundle '{bundle.name}' has no file '{name}'",
            why=f"Its card lists {', '.join(sorted(bundle.card.files)) or 'no files'}.",
            fix="Export the model again, with that format.",
            error_id="model.missing",
        )
    path = _inside(bundle.folder, name)
    if not path.is_file():
        raise ModelError(
            f"'{name}' is missing from the bundle '{bundle.folder}'",
            why="The card lists it.",
            fix="Copy the whole folder again, or reinstall endolux if it is a model that came with it.",
            error_id="model.missing",
        )
    try:
        size = path.stat().st_size
        content = path.read_bytes() if size == entry.bytes else b""
    except OSError as error:
        raise from_os_error(error, path) from error
    digest = hashlib.sha256(content).hexdigest() if size == entry.bytes else f"a file of {size} bytes"
    if digest != entry.sha256:
        raise ModelError(
            f"'{name}' in '{bundle.folder}' is not the file that the card describes",
            why=f"The card says {entry.bytes} bytes, sha256 {entry.sha256[:12]}...; found {digest[:40]}.",
            fix="Do not use it. Copy the bundle again from its source, or export it again.",
            error_id="model.hash",
        )
    return content


def write_bundle(folder: str | Path, *, card_fields: Mapping[str, object], files: Mapping[str, bytes | Path]) -> Bundle:
    """Write a bundle: all of it or nothing, the same bytes for the same content.

    Args:
        folder: where the bundle shall be; must not exist.
        card_fields: fields of ``Card`` without ``schema_version`` and ``files``, which are filled in here.
        files: content (or a file to copy) by name.

    Raises:
        UsageError: ``output.exists`` where the folder exists, ``bundle.card`` for impossible card fields.
        ModelError: ``model.path`` for a file name that is no plain name of an allowed type.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> fields = dict(
        ...     name="toy", summary="A toy.", architecture="none", parameters=1, trained_on="nothing",
        ...     intended_use="none", limits=(), licence="Apache-2.0", preprocessing={"height": 64, "width": 64},
        ...     output={"kind": "metric", "minimum": 1, "maximum": 200},
        ... )
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     bundle = write_bundle(Path(folder) / "toy", card_fields=fields, files={"notes.md": b"Hello."})
        ...     load_bundle(Path(folder) / "toy").card_sha256 == bundle.card_sha256
        True
    """
    target = Path(folder)
    if os.path.lexists(target):
        raise UsageError(
            f"'{target}' exists already",
            why="A bundle is never written over another file or folder.",
            fix="Choose a new folder, or remove the old one first.",
            error_id="output.exists",
        )
    content: dict[str, bytes] = {}
    for name in sorted(files):
        _check_name(name)
        source = files[name]
        try:
            content[name] = source if isinstance(source, bytes) else Path(source).read_bytes()
        except OSError as error:
            raise from_os_error(error, source) from error
    entries = {
        name: FileEntry(sha256=hashlib.sha256(data).hexdigest(), bytes=len(data)) for name, data in content.items()
    }
    try:
        card = Card.model_validate({**card_fields, "schema_version": SCHEMA_VERSION, "files": entries})
    except ValidationError as error:
        raise UsageError(
            f"Impossible card: {_first(error)}",
            why="The card is what tells every reader how to use the model.",
            fix="Correct that field.",
            error_id="bundle.card",
        ) from error
    text = (
        json.dumps(card.model_dump(mode="json"), sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    )
    temporary: Path | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
        for name, data in {**content, CARD: text.encode()}.items():
            with (temporary / name).open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        temporary.chmod(0o755)
        temporary.rename(target)
    except OSError as error:
        raise from_os_error(error, target) from error
    finally:
        if temporary is not None and temporary.exists():
            shutil.rmtree(temporary, ignore_errors=True)
    return _read(target)


def _read(folder: Path) -> Bundle:
    path = folder / CARD
    try:
        if path.stat().st_size > _MAX_CARD_BYTES:
            raise _bad_card(path, f"it is larger than {_MAX_CARD_BYTES} bytes")
        data = path.read_bytes()
        fields = json.loads(data)
    except OSError as error:
        raise from_os_error(error, path) from error
    except (ValueError, RecursionError) as error:
        raise _bad_card(path, f"it is no complete JSON ({error})") from error
    if not isinstance(fields, dict):
        raise _bad_card(path, f"it holds a {type(fields).__name__}, not an object")
    version = fields.get("schema_version")
    if version != SCHEMA_VERSION or isinstance(version, bool):
        newer = isinstance(version, int) and version > SCHEMA_VERSION
        raise ModelError(
            f"'{path}' has schema_version {version!r}",
            why=f"This release of endolux reads schema_version {SCHEMA_VERSION} only.",
            fix="Upgrade endolux." if newer else "Export the model again with this release.",
            error_id="model.schema",
        )
    try:
        card = Card.model_validate(fields)
    except ValidationError as error:
        raise _bad_card(path, _first(error)) from error
    if not card.files:
        raise _bad_card(path, "it lists no files")
    for name in card.files:
        _inside(folder, name)
    return Bundle(folder=folder, card=card, card_sha256=hashlib.sha256(data).hexdigest())


def _check_name(name: str) -> None:
    plain = _PLAIN_NAME.fullmatch(name) is not None and Path(name).suffix.lower() in _SUFFIXES and name != CARD
    if not plain:
        raise ModelError(
            f"A bundle cannot hold a file named {name!r}",
            why=f"Files lie directly in the bundle's folder, and are of the types {' '.join(sorted(_SUFFIXES))}.",
            fix="Do not use a bundle from a source you do not trust; rename the file if you made it yourself.",
            error_id="model.path",
        )


def _inside(folder: Path, name: str) -> Path:
    """Path of a file after checking that neither its name nor a link leads out of the folder."""
    _check_name(name)
    path = folder / name
    if path.resolve().parent != folder.resolve():
        raise ModelError(
            f"'{path}' is a link that leads out of the bundle",
            why="A bundle describes only what lies in its own folder.",
            fix="Replace the link by the file itself.",
            error_id="model.path",
        )
    return path


def _bad_card(path: Path, reason: str) -> ModelError:
    return ModelError(
        f"The card '{path}' cannot be read",
        why=f"{reason[0].upper()}{reason[1:]}.",
        fix="Copy the bundle again from its source, or export it again.",
        error_id="model.card",
    )


def _first(error: ValidationError) -> str:
    first = error.errors()[0]
    place = list(first["loc"])
    if place[:1] == ["output"]:
        # The tag of the kind of output is no field.
        del place[1:2]
    where = ".".join(str(part) for part in place) or "card"
    return f"{where}: {first['msg']}"

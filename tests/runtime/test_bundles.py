"""Bundles: what is refused, and that what is written is read back, byte for byte the same."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from endolux.errors import EXIT_MODEL, InputError, ModelError, UsageError
from endolux.runtime import bundles
from endolux.runtime.bundles import (
    DEFAULT_MODEL,
    find_bundle,
    list_bundles,
    load_bundle,
    read_file,
    verify_bundle,
    write_bundle,
)

CARD = {
    "name": "toy",
    "summary": "A toy.",
    "architecture": "none",
    "parameters": 1,
    "preprocessing": {"height": 64, "width": 64},
    "output": {"kind": "relative_depth", "minimum": 0.1, "maximum": 10.0},
    "trained_on": "nothing",
    "intended_use": "tests",
    "limits": ["none"],
    "licence": "Apache-2.0",
}


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    write_bundle(tmp_path / "toy", card_fields=CARD, files={"model.onnx": b"graph", "notes.md": b"Hello."})
    return tmp_path / "toy"


def change_card(folder: Path, **changes: object) -> None:
    path = folder / "card.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def refused(target: Path | str, error_id: str, *words: str) -> None:
    with pytest.raises(ModelError) as caught:
        load_bundle(target)
    assert caught.value.error_id == error_id
    assert caught.value.exit_code == EXIT_MODEL
    assert len(str(caught.value).splitlines()) == 3
    for word in words:
        assert word in str(caught.value)


def test_round_trip(toy: Path) -> None:
    bundle = load_bundle(toy)
    assert bundle.name == "toy"
    assert sorted(bundle.card.files) == ["model.onnx", "notes.md"]
    assert read_file(bundle, "model.onnx") == b"graph"
    assert [check.ok for check in verify_bundle(toy)] == [True, True]
    assert load_bundle(toy / "card.json").card_sha256 == bundle.card_sha256


def test_same_content_same_bytes(toy: Path, tmp_path: Path) -> None:
    reversed_card = dict(reversed(CARD.items()))
    files = {"notes.md": b"Hello.", "model.onnx": toy / "model.onnx"}
    write_bundle(tmp_path / "again", card_fields=reversed_card, files=files)
    assert (tmp_path / "again/card.json").read_bytes() == (toy / "card.json").read_bytes()


def test_unlisted_files_are_ignored(toy: Path) -> None:
    (toy / "stranger.bin").write_bytes(b"x")
    assert load_bundle(toy).name == "toy"


@pytest.mark.parametrize("content", [b"grapX", b"", b"graph and more"])
def test_tampered(toy: Path, content: bytes) -> None:
    (toy / "model.onnx").write_bytes(content)
    refused(toy, "model.hash", "model.onnx")
    assert {check.name: check.ok for check in verify_bundle(toy)} == {"model.onnx": False, "notes.md": True}


def test_changed_after_loading(toy: Path) -> None:
    bundle = load_bundle(toy)
    (toy / "model.onnx").write_bytes(b"grapY")
    with pytest.raises(ModelError) as caught:
        read_file(bundle, "model.onnx")
    assert caught.value.error_id == "model.hash"


def test_missing_file(toy: Path) -> None:
    (toy / "model.onnx").unlink()
    refused(toy, "model.missing", "model.onnx")


@pytest.mark.parametrize("version", [0, 2, 99, "1", None, True, 1.5])
def test_schema_version(toy: Path, version: object) -> None:
    change_card(toy, schema_version=version)
    refused(toy, "model.schema", repr(version), "reads schema_version 1")


@pytest.mark.parametrize(
    "content", [b"", b"{", b'{"schema_version": 1', b"[]", b"null", b"\xff\xfe\x00", b"[" * 100_000, b"{}" * 600_000]
)
def test_garbage_card(toy: Path, content: bytes) -> None:
    (toy / "card.json").write_bytes(content)
    refused(toy, "model.card", "card.json")


def test_truncated_card(toy: Path) -> None:
    data = (toy / "card.json").read_bytes()
    (toy / "card.json").write_bytes(data[: len(data) // 2])
    refused(toy, "model.card")


@pytest.mark.parametrize(
    "changes", [{"parameters": -1}, {"surprise": 1}, {"files": {}}, {"files": {"a.onnx": {"sha256": "x", "bytes": 1}}}]
)
def test_invalid_card(toy: Path, changes: dict[str, object]) -> None:
    change_card(toy, **changes)
    refused(toy, "model.card")


@pytest.mark.parametrize(
    "name",
    [
        "../secret.onnx",
        "/etc/passwd",
        "a/b.onnx",
        "..",
        "a\\b.onnx",
        "model.pkl",
        "model.pth",
        "card.json",
        "",
        "x\0.onnx",
    ],
)
def test_names_that_lead_outside(toy: Path, name: str) -> None:
    (toy.parent / "secret.onnx").write_bytes(b"s")
    change_card(toy, files={name: {"sha256": "0" * 64, "bytes": 1}})
    refused(toy, "model.path")
    with pytest.raises(ModelError):
        write_bundle(toy.parent / "other", card_fields=CARD, files={name: b"s"})
    assert not (toy.parent / "other").exists()


def test_link_that_leads_outside(toy: Path) -> None:
    outside = toy.parent / "outside.onnx"
    outside.write_bytes(b"graph")
    (toy / "model.onnx").unlink()
    (toy / "model.onnx").symlink_to(outside)
    refused(toy, "model.path")


def test_bundle_in_a_linked_folder(toy: Path) -> None:
    link = toy.parent / "link"
    link.symlink_to(toy)
    assert load_bundle(link).name == "toy"


def test_missing_folder_and_names(toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refused(tmp_path / "nothing", "model.missing")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", "model.missing", "not a bundle")
    refused(toy / "model.onnx", "model.missing")
    refused("", "model.missing")
    refused("\0", "model.missing")
    refused("someone/some-model", "model.missing", "hub")
    weights = tmp_path / "weights"
    shutil.copytree(toy, weights / DEFAULT_MODEL)
    monkeypatch.setattr(bundles, "_WEIGHTS", weights)
    assert list_bundles() == (DEFAULT_MODEL,)
    assert load_bundle().name == "toy"
    assert find_bundle(DEFAULT_MODEL) == weights / DEFAULT_MODEL
    refused(DEFAULT_MODEL.replace("depth", "detph"), "model.missing", f"Did you mean '{DEFAULT_MODEL}'?")


def test_never_overwrites(toy: Path) -> None:
    before = (toy / "card.json").read_bytes()
    with pytest.raises(UsageError) as caught:
        write_bundle(toy, card_fields=CARD, files={})
    assert caught.value.error_id == "output.exists"
    assert (toy / "card.json").read_bytes() == before


def test_all_or_nothing(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        write_bundle(tmp_path / "bad", card_fields={**CARD, "parameters": 0}, files={"a.md": b""})
    assert caught.value.error_id == "bundle.card"
    with pytest.raises(InputError, match=r"input\.os"):
        write_bundle(tmp_path / "bad", card_fields=CARD, files={"a.md": tmp_path / "absent.md"})
    assert list(tmp_path.iterdir()) == []

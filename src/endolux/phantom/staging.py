"""Sequences in the making, their way to their places, and the manifest of a finished run."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

from endolux.phantom.claim import HIDDEN
from endolux.phantom.disk import os_error, write_bytes
from endolux.phantom.layouts import Layout
from endolux.phantom.presets import StreamSettings

MANIFEST = "manifest.json"
"""Written last: settings, seed, world version, quantisation, sequences, and the SHA-256 of every file."""

SCENES = "scenes.jsonl"
"""A line a sequence: every parameter that was drawn for its scene, its motion and each of its views."""

LIST = "files.json"
"""In a sequence's own folder, written last: its files in the order in which they move to their places."""


def publish(made: Path, folder: Path, number: int) -> None:
    """Move what is whole to its places in order; where a kill interrupted it, the rest is moved."""
    content = json.loads((made / LIST).read_bytes())
    for name, _ in content["files"]:
        source, target = made / name, folder / name
        if not source.exists():
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        source.replace(target)
    write_bytes(marker(folder, number), json.dumps(content, sort_keys=True).encode())
    shutil.rmtree(made, ignore_errors=True)


def stage(folder: Path, number: int) -> Path:
    """Where the files of a sequence are made."""
    return folder / HIDDEN / f"stage-{number:06d}"


def marker(folder: Path, number: int) -> Path:
    """The file that says that a sequence is done, and what it holds."""
    return folder / HIDDEN / f"sequence-{number:06d}.json"


def write_manifest(settings: StreamSettings, folder: Path, layout: Layout, record: dict[str, object]) -> None:
    """Say what a finished run holds: ``scenes.jsonl``, then ``manifest.json``."""
    files: dict[str, str] = {}
    sequences: list[dict[str, object]] = []
    scenes: list[str] = []
    try:
        for number in range(settings.sequences):
            content = json.loads(marker(folder, number).read_bytes())
            files |= dict(content["files"])
            scenes.append(json.dumps(content.get("record"), sort_keys=True) + "\n")
            sequences.append({"name": content["name"], "frames": content["frames"], "scene": settings.scene(number)})
        for name, data in layout.root(settings):
            files[name] = hashlib.sha256(data).hexdigest()
        told = "".join(scenes).encode()
        files[SCENES] = hashlib.sha256(told).hexdigest()
        write_bytes(folder / SCENES, told)
        manifest = {
            **record,
            "preset": settings.preset,
            "seed": settings.seed,
            "split": settings.split,
            "frames": settings.frames,
            "reader": layout.reader,
            "quantisation": layout.quantisation,
            "sequences": sequences,
            "files": files,
        }
        write_bytes(folder / MANIFEST, json.dumps(manifest, indent=1, sort_keys=True).encode())
    except OSError as error:
        raise os_error(error, folder) from error

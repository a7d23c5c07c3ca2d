"""A diagnosis: the state of an installation and of the machine below it."""

from __future__ import annotations

import dataclasses
import enum
import importlib.metadata
import importlib.util
import os
import platform
import shutil
import sys
import time
from pathlib import Path

import numpy as np

from endolux import __version__
from endolux.errors import EndoluxError

_CORE = ("numpy", "opencv-python-headless", "onnxruntime", "av", "cyclopts", "pydantic", "pyyaml")
_EXTRAS = {
    "openvino": ("openvino",),
    "phantom": ("embreex", "numba"),
    "train": ("torch", "safetensors", "onnx", "onnxscript"),
    "tables": ("pyarrow",),
}
_CPU_FLAGS = ("avx2", "avx512f", "avx512_vnni", "amx_bf16", "amx_int8", "asimd", "i8mm")
_LOW_DISK_GB = 2.0


class State(enum.StrEnum):
    """How a check ended."""

    OK = "ok"
    NOTE = "note"
    BROKEN = "broken"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One finding, with its remedy where one is needed."""

    name: str
    state: State
    finding: str
    fix: str = ""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """All findings."""

    checks: tuple[Check, ...]

    @property
    def ok(self) -> bool:
        """False where something that ``predict`` needs is broken."""
        return all(check.state is not State.BROKEN for check in self.checks)

    def document(self) -> dict[str, object]:
        """The diagnosis as plain values."""
        return {"ok": self.ok, "checks": [dataclasses.asdict(check) for check in self.checks]}


def diagnose(*, model: str | None = None) -> Diagnosis:
    """Look at Python, packages, processor, models, disk; time the network on a test picture.

    Example:
        >>> diagnose().checks[0].name
        'endolux'
    """
    checks = [
        Check(name="endolux", state=State.OK, finding=f"{__version__} at {Path(__file__).parents[1]}"),
        _python(),
        Check(name="system", state=State.OK, finding=f"{platform.system()} {platform.machine()}"),
        _processor(),
        _core(),
        *(_extra(name, packages) for name, packages in _EXTRAS.items()),
        _disk(),
        *_models(model),
    ]
    return Diagnosis(checks=tuple(checks))


def usable_cores() -> int:
    """Number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)


def cpu_features() -> tuple[str, ...]:
    """The processor's instruction sets that matter for networks, where the system tells them."""
    info = Path("/proc/cpuinfo")
    if not info.is_file():
        return ()
    words = set(info.read_text(encoding="utf-8", errors="replace").split())
    return tuple(flag for flag in _CPU_FLAGS if flag in words)


def _python() -> Check:
    version = sys.version_info
    supported = (3, 11) <= (version.major, version.minor) <= (3, 13)
    return Check(
        name="python",
        state=State.OK if supported else State.BROKEN,
        finding=f"{platform.python_version()} ({sys.executable})",
        fix="" if supported else "Use Python 3.11, 3.12 or 3.13.",
    )


def _processor() -> Check:
    flags = cpu_features()
    finding = f"{usable_cores()} usable cores; {', '.join(flags) or 'instruction sets unknown'}"
    return Check(name="processor", state=State.OK, finding=finding)


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _core() -> Check:
    versions = {package: _version(package) for package in _CORE}
    # OpenCV comes under several names; any of them that imports will do.
    if versions["opencv-python-headless"] is None and importlib.util.find_spec("cv2") is not None:
        versions["opencv-python-headless"] = "under another name"
    absent = [package for package, version in versions.items() if version is None]
    return Check(
        name="core packages",
        state=State.BROKEN if absent else State.OK,
        finding=", ".join(f"{package} {version or 'MISSING'}" for package, version in versions.items()),
        fix=f"pip install {' '.join(absent)}" if absent else "",
    )


def _extra(name: str, packages: tuple[str, ...]) -> Check:
    versions = {package: _version(package) for package in packages}
    absent = [package for package, version in versions.items() if version is None]
    return Check(
        name=f"extra {name}",
        state=State.NOTE if absent else State.OK,
        finding=f"not installed: {', '.join(absent)}" if absent else ", ".join(f"{p} {v}" for p, v in versions.items()),
        fix=f"pip install 'endolux[{name}]'" if absent else "",
    )


def _disk() -> Check:
    free_gb = shutil.disk_usage(Path.cwd()).free / 1e9
    low = free_gb < _LOW_DISK_GB
    return Check(
        name="disk",
        state=State.NOTE if low else State.OK,
        finding=f"{free_gb:.1f} GB free in the current folder",
        fix="A minute of 720p depth and vis takes about 1 GB: free some space." if low else "",
    )


def _models(asked: str | None) -> list[Check]:
    from endolux.runtime.bundles import DEFAULT_MODEL, list_bundles

    names = list(list_bundles())
    checks = []
    if not names and asked is None:
        checks.append(
            Check(
                name="models",
                state=State.BROKEN,
                finding=f"no bundled model; the default '{DEFAULT_MODEL}' is missing",
                fix="Install Endolux again.",
            )
        )
    for name in [*names, *([asked] if asked is not None and asked not in names else [])]:
        checks.extend(_model(name))
    return checks


def _model(name: str) -> list[Check]:
    from endolux.runtime.bundles import load_bundle

    try:
        bundle = load_bundle(name)
    except EndoluxError as problem:
        return [Check(name=f"model {name}", state=State.BROKEN, finding=problem.what, fix=problem.fix)]
    checks = [
        Check(name=f"model {bundle.name}", state=State.OK, finding=f"intact, card sha256 {bundle.card_sha256[:12]}")
    ]
    for engine in ("onnxruntime", "openvino"):
        if importlib.util.find_spec(engine) is None:
            continue
        try:
            milliseconds = _time_ms(name, engine=engine)
        except EndoluxError as problem:
            finding, fix, state = problem.what, problem.fix, State.BROKEN
        else:
            finding = f"{milliseconds:.1f} ms for a 640x512 frame, prep and resize included (exact)"
            fix, state = "", State.OK
        checks.append(Check(name=f"speed {bundle.name}, {engine}", state=state, finding=finding, fix=fix))
    return checks


def _time_ms(name: str, *, engine: str) -> float:
    """Best of a few runs, in milliseconds: the least disturbed by other programs."""
    from endolux.runtime.bundles import load_bundle
    from endolux.runtime.card import LandmarkOutput
    from endolux.runtime.landmarks import load_landmarks
    from endolux.runtime.model import load

    landmarks = isinstance(load_bundle(name).card.output, LandmarkOutput)
    model = load_landmarks(name, engine=engine) if landmarks else load(name, engine=engine)
    rows, columns = np.mgrid[0:512, 0:640]
    grey = (128 + 60 * np.cos(columns / 37) + 50 * np.sin(rows / 23)).astype(np.uint8)
    image = np.ascontiguousarray(np.stack((grey, grey // 2, grey // 3), axis=-1))
    model.predict(image)
    best = float("inf")
    for _ in range(5):
        start = time.perf_counter()
        model.predict(image)
        best = min(best, time.perf_counter() - start)
    return best * 1e3

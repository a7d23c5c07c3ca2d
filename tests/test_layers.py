"""The rooms look only down, and nothing above the torch line reaches torch."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "src" / "endolux"

# Each layer may import itself and the layers before it.
LAYERS = [
    {"types", "errors", "weights", "data"},
    {"io", "geometry", "metrics"},
    {"prep"},
    {"runtime"},
    {"phantom"},
    {"datasets"},
    {"evaluate"},
    {"models", "adapt", "losses"},
    {"train"},
    {"export"},
    {"reproduce"},
    {"app", "connect"},
    {"cli"},
]
LEVEL = {room: level for level, rooms in enumerate(LAYERS) for room in rooms}
ABOVE_THE_LINE = ["types", "errors", "io", "geometry", "metrics", "prep", "runtime", "phantom", "datasets", "evaluate"]
TORCH_FAMILY = {"torch", "transformers", "peft", "accelerate", "kornia", "safetensors"}
NEVER = {"torchvision", "timm"}
# A card describes a bundle and a bundle is a noun; the nouns and io name it in annotations and files.
ALLOWED_UP = {("types", "runtime.card"), ("io", "runtime.card"), ("prep", "runtime.card")}


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def room_of(path: Path) -> str:
    first = path.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


def imports(path: Path) -> set[str]:
    """Absolute names of every module that a file imports, at any depth of nesting."""
    found: set[str] = set()
    package = ("endolux", *path.relative_to(PACKAGE).parent.parts)
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(part for part in (base, node.module or "") if part)
            found.add(module)
            found.update(f"{module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "import_module":
            found.update(a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str))
    return found


def without_torch(code: str, *, blocked: tuple[str, ...] = (), timeout: float = 120) -> str:
    """Run code in a fresh interpreter where some packages are not importable; returns its stdout."""
    blocker = (
        "import sys\n"
        "class Blocker:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name.partition('.')[0] in {set(blocked)!r}:\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
        "sys.meta_path.insert(0, Blocker())\n"
        if blocked
        else ""
    )
    done = subprocess.run(
        [sys.executable, "-c", blocker + code], capture_output=True, text=True, timeout=timeout, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_module_belongs_to_a_room():
    unknown = {room_of(path) for path in modules()} - set(LEVEL) - {"__init__", "__main__"}
    assert not unknown, f"rooms without a place in the house: {unknown}"


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_module_looks_only_down(path: Path):
    room = room_of(path)
    if room in {"__init__", "__main__"}:
        return
    for name in imports(path):
        parts = name.split(".")
        assert parts[0] not in NEVER, f"{path.name} imports {name}"
        if parts[0] in TORCH_FAMILY:
            assert room not in ABOVE_THE_LINE, f"{room} stands above the torch line and imports {name}"
        if parts[0] != "endolux" or len(parts) < 2 or parts[1] not in LEVEL:
            continue
        if any(room == up and ".".join(parts[1:]).startswith(target) for up, target in ALLOWED_UP):
            continue
        assert LEVEL[parts[1]] <= LEVEL[room], f"{room} looks up at {name}"


def test_the_walk_sees_a_violation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys.modules[__name__], "PACKAGE", tmp_path)
    bad = tmp_path / "io" / "bad.py"
    bad.parent.mkdir()
    bad.write_text("def f():\n    from ..runtime import model\n    import torch.nn\n")
    assert {"endolux.runtime.model", "torch.nn"} <= imports(bad)


def test_rooms_above_the_line_import_without_torch_and_without_extras():
    names = sorted(
        "endolux." + ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")
        for path in modules()
        if room_of(path) in ABOVE_THE_LINE
    )
    code = f"import importlib, sys\nfor name in {names!r}: importlib.import_module(name)\n"
    code += f"assert not ({TORCH_FAMILY | NEVER!r} & set(sys.modules)), sorted(sys.modules)\nprint('fine')"
    assert without_torch(code).strip() == "fine"
    extras = ("torch", "openvino", "embreex", "numba", "accelerate", "safetensors", "onnx", "onnxscript", "scipy")
    assert without_torch(code, blocked=extras).strip() == "fine"


def test_command_line_builds_without_extras():
    code = "from endolux.cli.root import run\nraise SystemExit(run(['--help']))"
    assert "predict" in without_torch(code, blocked=("torch", "openvino", "embreex", "numba", "onnx", "scipy"))


def test_import_is_quick():
    code = "import time; t = time.perf_counter(); import endolux; print(time.perf_counter() - t)"
    seconds = min(float(without_torch(code)) for _ in range(5))
    assert seconds < 0.5 * (2 if os.environ.get("CI") else 1)


def test_import_opens_no_engine():
    code = "import sys, endolux; print('onnxruntime' in sys.modules, 'av' in sys.modules, 'torch' in sys.modules)"
    assert without_torch(code).split() == ["False", "False", "False"]

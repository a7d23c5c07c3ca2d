"""Licences on the command line: what may be used commercially, and what is refused where it is loaded or exported."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from endolux.cli.root import run
from endolux.runtime.licences import allows_commercial_use


def test_ls_commercial(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(["models", "ls", "--commercial", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert rows
    assert all(allows_commercial_use(row["licence"]) for row in rows)
    from endolux.runtime import licences

    # With no licence on the list, nothing remains.
    monkeypatch.setattr(licences, "COMMERCIAL", frozenset())
    assert run(["models", "ls", "--commercial", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []


@pytest.mark.parametrize(
    ("arguments", "error_id", "code"),
    [
        (("models", "import", "depth-anything-v2-b", "a.pth", "-o", "b", "--commercial"), "model.licence", 4),
        (("models", "import", "dares", ".", "-o", "b", "--commercial"), "model.licence", 4),
        (("models", "import", "depth-anything-v2-l", "a.pth", "-o", "b", "--licence", "MIT"), "export.licence", 2),
        (("models", "import", "depth-anything-v2-s", "a.pth", "-o", "b"), "model.missing", 4),
        (("models", "import", "depth-anything-v2-x", "a.pth", "-o", "b"), "model.architecture", 2),
        (
            ("train", "leve", "teacher=depth-anything/Depth-Anything-V2-Large-hf", "--commercial", "-o", "r"),
            "model.licence",
            4,
        ),
    ],
)
def test_wrong_licences(
    arguments: tuple[str, ...], error_id: str, code: int, capsys: pytest.CaptureFixture[str], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    assert run(list(arguments)) == code
    told = capsys.readouterr().err.strip().splitlines()
    assert f"error[{error_id}]" in told[-3]
    assert [line.strip()[:4] for line in told[-2:]] == ["why:", "fix:"]
    assert list(tmp_path.iterdir()) == []

"""Licences on the command line: what may be used commercially, and what is refused where it is loaded or exported."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from endolux.cli.root import run
from endolux.runtime.bundles import load_bundle, read_file, write_bundle
from endolux.runtime.licences import allows_commercial_use

from .cli_inputs import picture, write_png


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


@pytest.fixture(scope="module")
def restricted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundled network, as if it came from weights that nobody may use commercially."""
    free = load_bundle("repdepth-colon")
    files = {name: read_file(free, name) for name in free.card.files}
    fields = free.card.model_dump(exclude={"files", "schema_version"})
    folder = tmp_path_factory.mktemp("bundles") / "restricted"
    write_bundle(folder, card_fields=fields | {"name": "restricted", "licence": "CC-BY-NC-4.0"}, files=files)
    return folder


@pytest.mark.parametrize(
    "words",
    [
        ("predict", "SOURCE", "-o", "out", "--model", "MODEL"),
        ("demo", "-o", "out", "--model", "MODEL"),
        ("segment", "SOURCE", "-o", "out", "--model", "MODEL"),
        ("evaluate", "MODEL", "--data", "pairs", "-o", "out"),
        ("trajectory", "MODEL", "SOURCE", "-o", "out"),
        ("export", "RUN", "-o", "out"),
        ("trajectory", "RUN", "SOURCE", "-o", "out"),
    ],
)
def test_what_uses_a_model_refuses_a_restricted_one(
    words: tuple[str, ...], restricted: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    if "RUN" in words:
        taught_by_a_restricted_model(tmp_path / "run")
    write_png(tmp_path / "frame.png", picture(width=64, height=48))
    meant = {"MODEL": str(restricted), "SOURCE": "frame.png", "RUN": "run"}
    assert run([meant.get(word, word) for word in words] + ["--commercial"]) == 4
    told = capsys.readouterr().err.strip().splitlines()
    assert "error[model.licence]" in told[-3]
    assert "CC-BY-NC-4.0" in told[-2]
    assert [line.strip()[:4] for line in told[-2:]] == ["why:", "fix:"]
    assert not (tmp_path / "out").exists()


def taught_by_a_restricted_model(run: Path) -> None:
    """A run with a checkpoint, whose teacher's licence forbids commercial use."""
    pytest.importorskip("torch")
    from endolux.models import create
    from endolux.train.checkpoints import State, write_checkpoint

    small = {"widths": (8, 8, 8, 8), "blocks": (1, 1, 1, 1), "decoder": (8, 8, 8), "fine": 4}
    network = create("repdepth", **small)
    state = State(step=1, architecture="repdepth", config=network.config(), exported="network", networks=("network",),
                  recipe={}, position={}, loop={})  # fmt: skip
    write_checkpoint(run, state=state, networks={"network": network.state_dict()}, average=None, tensors={})
    teacher = {"role": "teacher", "name": "large", "licence": "CC-BY-NC-4.0", "derived_from": []}
    (run / "run.json").write_text(json.dumps({"sessions": [{"origins": [teacher]}]}))


def test_what_uses_a_free_model_takes_it(endolux, tmp_path: Path) -> None:
    write_png(tmp_path / "frame.png", picture(width=64, height=48))
    done = endolux("predict", "frame.png", "-o", "out", "--threads", "1", "--commercial", "--no-vis")
    assert done.code == 0, done.err
    assert (tmp_path / "out" / "meta.json").is_file()


def test_evaluation_of_what_states_no_licence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "predictions").mkdir()
    told = []
    for model in (str(tmp_path / "predictions"), "baseline:constant"):
        code = run(["evaluate", model, "--data", str(tmp_path / "none"), "--commercial"])
        told.append((code, "--commercial does not apply" in capsys.readouterr().err))
    assert told == [(2, True), (3, False)]

"""``endolux data``, ``endolux evaluate --protocol`` and ``endolux models card`` as a user meets them."""

import json

import cv2
import numpy as np
import pytest

from endolux.cli.root import run
from endolux.datasets.base import PROTOCOLS, READERS, Dataset, Finding, FrameKey, Protocol, Sample, Severity
from endolux.errors import InputError
from endolux.types import DepthKind, DepthMap, Frame


class Plates(Dataset):
    """Image and depth of plates, one folder a sequence: written by the test, read from the disk."""

    name = "plates"

    def __init__(self, root):
        self.root = root
        if not root.is_dir():
            raise InputError("no folder", why="test", fix="none", error_id="input.missing")

    def keys(self):
        files = sorted(self.root.glob("*/*_image.png"))
        return [FrameKey(sequence=f.parent.name, index=int(f.name.partition("_")[0])) for f in files]

    def files(self, key):
        stem = self.root / key.sequence / f"{key.index:03d}"
        return [stem.with_name(f"{stem.name}_{what}.png") for what in ("image", "depth")]

    def load(self, key):
        image, depth = (cv2.imread(str(path), cv2.IMREAD_UNCHANGED) for path in self.files(key))
        if image is None:
            raise InputError("damaged", why="test", fix="Copy it again.", error_id="input.test")
        values = (depth / 100).astype(np.float32)
        return Sample(
            key=key,
            frame=Frame(image=image),
            depth=DepthMap(values=values, kind=DepthKind.METRIC, valid=values > 0),
        )

    def check(self):
        bad = [key for key in self.keys() if cv2.imread(str(self.files(key)[0])) is None]
        return [
            Finding(severity=Severity.INFO, code="count.frames", message=f"{len(self.keys())} frames"),
            *(
                Finding(severity=Severity.ERROR, code="image.damaged", message=str(k), fix="Copy it again.")
                for k in bad
            ),
        ]


@pytest.fixture
def plates(tmp_path, monkeypatch):
    monkeypatch.setitem(READERS, "plates", Plates)
    monkeypatch.setitem(
        PROTOCOLS,
        "plates-all",
        Protocol(
            name="plates-all", version=3, dataset="plates", summary="Plates.", source="test",
            select=lambda keys, _split: keys, expected_frames=4, minimum=1.0, maximum=120.0,
        ),
    )  # fmt: skip
    root = tmp_path / "plates"
    y, x = np.mgrid[:48, :64]
    for number in range(4):
        folder = root / f"s{number % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        depth_mm = 20 + 0.8 * x + 0.3 * y + 5 * number
        light = np.rint(255 * ((20 / depth_mm) ** 2)[..., None] ** (1 / 2.2) * np.ones(3)).astype(np.uint8)
        cv2.imwrite(str(folder / f"{number:03d}_image.png"), light)
        cv2.imwrite(str(folder / f"{number:03d}_depth.png"), np.rint(depth_mm * 100).astype(np.uint16))
    return root


def call(capsys, *arguments):
    code = run([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return code, out, err


def test_evaluate_under_a_protocol_and_compare(plates, tmp_path, capsys):
    for name in ("constant", "brightness"):
        code, out, err = call(
            capsys, "evaluate", f"baseline:{name}", "--protocol", "plates-all", "--data", plates, "-o", tmp_path / name
        )
        assert (code, err) == (0, "")
        assert "plates-all/3" in out
        assert sorted(p.name for p in (tmp_path / name).iterdir()) == ["frames.csv", "report.html", "result.json"]
    content = json.loads((tmp_path / "constant/result.json").read_text())
    assert str(tmp_path) not in json.dumps(content)
    assert content["data"]["root"] == "plates"
    results = [tmp_path / name / "result.json" for name in ("constant", "brightness")]
    code, out, _ = call(capsys, "evaluate", "compare", *results)
    assert code == 0
    assert "second better" in out
    code, out, _ = call(capsys, "evaluate", "compare", *results, "--json")
    assert json.loads(out)["metrics"]["abs_rel"]["over_frames"]["difference"] < 0
    code, _, err = call(capsys, "evaluate", "compare", results[0], tmp_path / "none.json")
    assert (code, "input.missing" in err) == (3, True)


def test_predictions_of_other_software_and_a_command(plates, tmp_path, capsys):
    for path in plates.glob("*/*_depth.png"):
        target = tmp_path / "theirs" / path.parent.name / f"{path.name[:3]}.npy"
        target.parent.mkdir(parents=True, exist_ok=True)
        np.save(target, (1e4 / cv2.imread(str(path), cv2.IMREAD_UNCHANGED)).astype(np.float32) + 3)
    start = ("evaluate", tmp_path / "theirs", "--protocol", "plates-all", "--data", plates)
    disparity = ("--prediction-kind", "relative_disparity")
    code, out, err = call(capsys, *start)
    assert (code, "evaluate.prediction-kind" in err) == (2, True)
    code, out, err = call(capsys, *start, *disparity)
    assert (code, "align.kind" in err, len(err.splitlines())) == (2, True, 3)
    code, out, err = call(capsys, *start, *disparity, "--alignment", "scale-shift-disparity", "--json")
    content = json.loads(out)
    assert (code, content["ok"]) == (0, True)
    assert content["protocol"]["id"] == "plates-all/3+alignment=scale-shift-disparity"
    assert content["metrics"]["abs_rel"]["mean"] < 1e-4
    assert "warning: the protocol was changed" in err
    copy = "cp {image} {output}.png"
    code, _, err = call(
        capsys, "evaluate", "cp", "--protocol", "plates-all", "--data", plates, "--command", copy,
        "--prediction-kind", "relative_depth",
    )  # fmt: skip
    assert (code, "evaluate.all-failed" in err) == (3, True)


def test_partial_failure_is_loud(plates, capsys):
    (plates / "s0/000_image.png").write_bytes(b"no")
    code, out, err = call(capsys, "evaluate", "baseline:constant", "--protocol", "plates-all", "--data", plates)
    assert code == 5
    assert out.startswith("WARNING    1 of 4 frames failed")
    assert err.startswith("error[run.partial]: 1 of 4 frames failed: s0 0 (input.test)")


@pytest.mark.parametrize(
    ("arguments", "code", "error_id"),
    [
        (["--protocol", "plates-al"], 2, "protocol.unknown"),
        (["--protocol", "plates-all/9"], 2, "protocol.version"),
        (["--protocol", "plates-all", "--depth-scale", "100"], 2, "usage.arguments"),
        (["--reproduce", "disparity-as-depth"], 2, "usage.arguments"),
        (["--protocol", "plates-all", "--reproduce", "magic"], 2, "protocol.quirk"),
        (["--protocol", "plates-all", "--alignment", "none"], 2, "align.kind"),
        (["--protocol", "plates-all", "--in-order"], 2, "evaluate.in-order"),
        (["--protocol", "plates-all", "--command", "ls {image}", "--prediction-kind", "metric"], 2, "evaluate.command"),
    ],
)
def test_wrong_usage(plates, capsys, arguments, code, error_id):
    found, out, err = call(capsys, "evaluate", "baseline:constant", "--data", plates, *arguments)
    assert (found, out) == (code, "")
    assert len(err.splitlines()) == 3
    assert error_id in err.splitlines()[0]


@pytest.mark.usefixtures("plates")
def test_data_ls(capsys):
    code, out, _ = call(capsys, "data", "ls")
    assert code == 0
    for name in ("scared-afsfm-551/1", "plates-all/3", "c3vd", "servct"):
        assert name in out
    _, out, _ = call(capsys, "data", "ls", "--json")
    content = json.loads(out)
    assert {"plates", "scared"} <= set(content["datasets"])
    assert len({p["id"] for p in content["protocols"]}) == len(content["protocols"])


def test_data_check(plates, capsys):
    code, out, err = call(capsys, "data", "check", plates, "--dataset", "plates")
    assert (code, err) == (0, "")
    assert "4 frames" in out
    (plates / "s0/000_image.png").write_bytes(b"no")
    code, out, err = call(capsys, "data", "check", plates, "--dataset", "plates", "--json")
    content = json.loads(out)
    assert (code, content["ok"], content["findings"][0]["code"]) == (6, False, "image.damaged")
    assert err.startswith("error[data.check]")
    code, _, err = call(capsys, "data", "check", plates, "--dataset", "plate")
    assert (code, "plates" in err) == (2, True)
    code, _, err = call(capsys, "data", "check", plates / "none")
    assert (code, len(err.splitlines())) == (3, 3)


def test_data_manifest(plates, tmp_path, capsys):
    code, out, _ = call(capsys, "data", "manifest", plates, "-o", tmp_path / "m", "--json")
    assert (code, json.loads(out)["files"]) == (0, 8)
    code, _, err = call(capsys, "data", "manifest", plates, "-o", tmp_path / "m")
    assert (code, "output.exists" in err) == (2, True)


def test_data_convert_refuses_what_is_no_release(plates, tmp_path, capsys):
    code, _, err = call(capsys, "data", "convert", "scared", plates, "-o", tmp_path / "out")
    assert (code, len(err.splitlines())) == (3, 3)
    code, _, err = call(capsys, "data", "convert", "scared", plates, "-o", plates)
    assert (code, "output.is-source" in err) == (2, True)


def test_models_card(tmp_path, plates, capsys):
    from endolux.evaluate.cards import model_sha256
    from endolux.runtime.bundles import write_bundle

    fields = {
        "name": "toy", "summary": "A toy.", "architecture": "none", "parameters": 1, "trained_on": "nothing",
        "intended_use": "none", "limits": [], "licence": "Apache-2.0", "preprocessing": {"height": 64, "width": 64},
        "output": {"kind": "metric", "minimum": 1, "maximum": 200},
    }  # fmt: skip
    bundle = write_bundle(tmp_path / "toy", card_fields=fields, files={"notes.md": b"Hello."})
    code, out, _ = call(capsys, "models", "card", bundle.folder)
    assert (code, out.startswith("# toy"), "Nothing yet" in out) == (0, True, True)
    call(capsys, "evaluate", "baseline:constant", "--protocol", "plates-all", "--data", plates, "-o", tmp_path / "r")
    code, _, err = call(capsys, "models", "card", bundle.folder, "--add", tmp_path / "r")
    assert (code, "card.other-model" in err) == (2, True)
    path = tmp_path / "r/result.json"
    content = json.loads(path.read_text())
    content["model"] |= {"model_sha256": model_sha256(bundle.card), "engine": "onnxruntime", "precision": "exact"}
    path.write_text(json.dumps(content))
    code, out, err = call(capsys, "models", "card", bundle.folder, "--add", path, "-o", tmp_path / "CARD.md")
    assert (code, "added plates-all/3" in err) == (0, True)
    assert "plates-all/3" in (tmp_path / "CARD.md").read_text()
    code, _, err = call(capsys, "models", "card", bundle.folder, "-o", tmp_path / "CARD.md")
    assert (code, "output.exists" in err) == (2, True)

"""``endolux models import``: a published checkpoint becomes a bundle that predicts what its authors' network does."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from golden_fill import golden_fill_, widen_
from onnx import numpy_helper

from endolux import load
from endolux.cli.root import run
from endolux.export import inference_network
from endolux.export.published import import_published
from endolux.export.storage import rounded, store_kernels_
from endolux.models import create, from_ratio
from endolux.runtime.bundles import load_bundle

from .cli_inputs import Done, command, picture, write_png

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def network():
    network = create("leve").eval()
    golden_fill_(network)
    widen_(network)
    return network


@pytest.fixture(scope="module")
def checkpoint(network, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training checkpoint as its authors' code writes it, from two processes."""
    path = tmp_path_factory.mktemp("published") / "checkpoint_19.pth"
    state = {f"module.{name}": tensor for name, tensor in network.state_dict().items()}
    torch.save({"epoch": 20, "val_losses": [np.float32(0.65)], "model": state, "rmse": np.float64(0.495)}, path)
    return path


@pytest.fixture(scope="module")
def imported(checkpoint: Path) -> tuple[Done, Path]:
    folder = checkpoint.parent / "bundle"
    done = subprocess.run(
        command("models", "import", "leve", checkpoint, "-o", folder, "--json"),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    return Done(done.returncode, done.stdout, done.stderr), folder


def published_depth(network, image: np.ndarray) -> np.ndarray:
    """The published contract, step by step: [0, 1], stretch, ratio, depth in mm, back to the size of the image."""
    height, width = image.shape[:2]
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
    with torch.inference_mode():
        ratio = network(torch.nn.functional.interpolate(pixels, size=(480, 640), mode="bilinear", align_corners=False))
        depth = from_ratio(ratio, 10000.0)
        return torch.nn.functional.interpolate(depth, size=(height, width), mode="bilinear", align_corners=False)[
            0, 0
        ].numpy()


def test_the_answer_and_the_card(imported: tuple[Done, Path], checkpoint: Path) -> None:
    done, folder = imported
    assert done.document["ok"] is True
    assert done.document["fits"] == ["leve", "leve-no-skips"]
    assert done.document["parity_relative"] < 1e-4
    assert done.document["rounding_relative"] == 0.0
    assert "leve-no-skips" in done.err
    assert "no licence is known" in done.err
    card = load_bundle(folder).card
    assert card.architecture == "leve"
    assert card.output.kind.value == "metric"
    assert (card.output.minimum, card.output.maximum) == (100.0, 10000.0)
    spec = card.preprocessing
    assert (spec.width, spec.height, spec.multiple, spec.resize) == (640, 480, 8, "stretch")
    assert card.licence.startswith("Unknown")
    assert checkpoint.name in card.derived_from[0]
    assert "sha256" in card.derived_from[0]
    assert "NYU" in card.trained_on
    assert any("leve-no-skips" in limit for limit in card.limits)


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("size", [(480, 640), (960, 1280), (360, 480)])
def test_the_bundle_predicts_what_the_network_does(
    network, imported: tuple[Done, Path], engine: str, size: tuple[int, int]
) -> None:
    pytest.importorskip(engine, reason=f"{engine} is not installed")
    image = picture(width=size[1], height=size[0])
    depth = load(imported[1], engine=engine, threads=1).predict(image)
    expected = published_depth(network, image)
    assert depth.valid.all()
    assert expected.std() > 1
    difference = np.abs(depth.values / expected - 1)
    if size == (480, 640):
        assert difference.max() < 1e-4
    else:
        # Resized images are 8-bit here and real numbers there.
        assert difference.max() < 0.03
        assert difference.mean() < 0.002


def test_the_command_line_predicts_with_it(endolux, tmp_path: Path, network, imported: tuple[Done, Path]) -> None:
    source = write_png(tmp_path / "frame.png", picture(width=640, height=480))
    done = endolux("predict", "-o", "out", "--model", imported[1], "--threads", "1", "--format", "npz", "--", source)
    assert done.code == 0, done.err
    written = sorted((tmp_path / "out" / "depth").glob("*.npz"))
    assert len(written) == 1
    values = np.load(written[0])["values"]
    np.testing.assert_allclose(values, published_depth(network, picture(width=640, height=480)), rtol=1e-4)


def test_in_eight_bits_it_stays_below_ten_megabytes(network, imported: tuple[Done, Path]) -> None:
    model = onnx.load(imported[1] / "model.onnx")
    ready = inference_network(network, store="int8")
    for initializer in model.graph.initializer:
        values = numpy_helper.to_array(initializer)
        if values.dtype == np.float32 and values.ndim >= 2:
            coarse = rounded(torch.from_numpy(values.copy()), "int8").numpy()
            initializer.CopyFrom(numpy_helper.from_array(coarse, initializer.name))
    store_kernels_(model, {name: p.detach() for name, p in ready.named_parameters()}, "int8")
    data = model.SerializeToString()
    assert len(data) < 7e6
    image = picture(width=320, height=240)
    actual = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"]).run(None, {"image": image[None]})[0]
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
    with torch.inference_mode():
        stored, exact = ready.depth(pixels).numpy(), network.depth(pixels).numpy()
    np.testing.assert_allclose(actual, stored, rtol=1e-4)
    assert 0 < np.abs(stored / exact - 1).mean() < 0.01


def test_show_says_how_images_are_fed(endolux, imported: tuple[Done, Path]) -> None:
    done = endolux("models", "show", imported[1])
    assert done.code == 0
    assert "stretched to 640x480" in done.out
    assert endolux("models", "verify", imported[1]).code == 0


def attempt(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> Done:
    """Like the ``endolux`` command, without starting Python and torch again."""
    code = run([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return Done(code, captured.out, captured.err)


@pytest.mark.parametrize(
    ("arguments", "code", "error_id"),
    [
        (("leve-3x3", "CHECKPOINT"), 4, "model.variant"),
        (("leve-alt-skips", "CHECKPOINT"), 4, "model.variant"),
        (("levee", "CHECKPOINT"), 2, "model.architecture"),
        (("repdepth", "CHECKPOINT"), 2, "model.architecture"),
        (("leve", "missing.pth"), 4, "model.missing"),
        (("leve", "EMPTY"), 4, "model.checkpoint"),
        (("leve", "CHECKPOINT", "--size", "641x480"), 2, "export.size"),
        (("leve", "CHECKPOINT", "--size", "big"), 2, "usage.size"),
        (("leve", "CHECKPOINT", "--store", "int3"), 2, "export.store"),
        (("leve", "CHECKPOINT", "--max-depth-mm", "-1"), 2, "model.config"),
        (("leve", "CHECKPOINT", "-o", "EXISTS"), 2, "output.exists"),
    ],
)
def test_bad_imports(
    tmp_path: Path,
    checkpoint: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    code: int,
    error_id: str,
) -> None:
    (tmp_path / "empty.pth").touch()
    (tmp_path / "exists").mkdir()
    known = {"CHECKPOINT": checkpoint, "EMPTY": tmp_path / "empty.pth", "EXISTS": tmp_path / "exists"}
    given = [known.get(argument, argument) for argument in arguments]
    if "-o" not in given:
        given += ["-o", tmp_path / "bundle"]
    done = attempt(capsys, "models", "import", *given)
    done.assert_three_lines(error_id)
    assert done.code == code
    assert done.out == ""
    assert not (tmp_path / "bundle").exists()
    assert not list((tmp_path / "exists").iterdir())


def test_a_wrong_variant_ends_the_process_with_its_code(endolux, checkpoint: Path, tmp_path: Path) -> None:
    done = endolux("models", "import", "leve-3x3", checkpoint, "-o", tmp_path / "bundle")
    assert done.code == 4
    done.assert_three_lines("model.variant")
    assert "'leve' or 'leve-no-skips'" in done.err


def test_options_reach_the_card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, object] = {}

    def export(network, **given):
        seen.update(given, config=network.config())
        raise KeyboardInterrupt

    monkeypatch.setattr("endolux.export.published.export_bundle", export)
    path = tmp_path / "guide.pth"
    torch.save(create("guidedepth-s").state_dict(), path)
    with pytest.raises(KeyboardInterrupt):
        import_published(
            "guidedepth-s",
            path,
            folder=tmp_path / "b",
            max_depth_mm=80000.0,
            reproduce=True,
            licence="MIT",
            store="int8",
        )
    assert (seen["size"], seen["resize"], seen["store"], seen["name"]) == ((320, 240), "stretch", "int8", "b")
    assert seen["config"] == {"small": True, "max_depth_mm": 80000.0, "reproduce": True}
    card = json.dumps(seen["card"])
    assert '"licence": "MIT"' in card
    assert "80 m" in card
    assert "As published" in card

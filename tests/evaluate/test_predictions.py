"""Predictions of other software: folders in every naming, stacks, and commands."""

import shlex
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from endolux.errors import InputError, UsageError
from endolux.evaluate.command import CommandPredictor
from endolux.evaluate.prediction_set import open_prediction_set
from endolux.evaluate.protocol_run import run_protocol
from endolux.types import DepthKind, Frame

from .tiny import Tiny, protocol, truth_mm

DATA = Tiny()
KEYS = DATA.keys()
STEMS = [DATA.files(key)[0].stem for key in KEYS]


def save(path, values, suffix):
    path = Path(f"{path}{suffix}")
    path.parent.mkdir(parents=True, exist_ok=True)
    if suffix == ".npy":
        np.save(path, values[None])
    elif suffix == ".npz":
        np.savez(path, depth=values.astype(np.float64))
    else:
        cv2.imwrite(str(path), np.rint(values * 100).astype(np.uint16))


NAMINGS = {
    "sequence/index": lambda key: f"{key.sequence}/{key.index:06d}",
    "sequence/index with side": lambda key: f"{key.sequence}/{key.side}/{key.index}" if key.side else f"a/{key.index}",
    "sequence_index": lambda key: (
        f"{key.sequence.replace('/', '_')}_{key.index:03d}" + (f"_{key.side}" if key.side else "")
    ),
    "image stem": lambda key: DATA.files(key)[0].stem,
}


@pytest.mark.parametrize("naming", NAMINGS)
@pytest.mark.parametrize("suffix", [".npy", ".npz", ".png"])
def test_every_naming_and_format(tmp_path, naming, suffix):
    for key in KEYS:
        save(tmp_path / NAMINGS[naming](key), truth_mm(key), suffix)
    scale = 100.0 if suffix == ".png" else None
    predictor = open_prediction_set(tmp_path, KEYS, STEMS, kind=DepthKind.METRIC, scale=scale)
    assert predictor.provenance["matched_by"] == naming.split(" with")[0]
    result = run_protocol(predictor, DATA, protocol(), KEYS)
    assert not result.failures
    assert max(f.measured.metrics["rmse"] for f in result.frames) < 0.01


def test_missing_predictions_are_failures_of_their_frames(tmp_path):
    for key in KEYS[1:]:
        save(tmp_path / NAMINGS["sequence/index"](key), truth_mm(key), ".npy")
    predictor = open_prediction_set(tmp_path, KEYS, STEMS, kind=DepthKind.METRIC)
    result = run_protocol(predictor, DATA, protocol(), KEYS)
    assert [(f.name, f.error.error_id) for f in result.failures] == [("a 0", "evaluate.no-prediction")]


def test_order_needs_the_exact_number(tmp_path):
    for position, key in enumerate(KEYS):
        save(tmp_path / f"out{position}", truth_mm(key), ".npy")
    with pytest.raises(InputError) as caught:
        open_prediction_set(tmp_path, KEYS, STEMS, kind=DepthKind.METRIC)
    assert caught.value.error_id == "evaluate.no-prediction"
    predictor = open_prediction_set(tmp_path, KEYS, STEMS, kind=DepthKind.METRIC, in_order=True)
    result = run_protocol(predictor, DATA, protocol(), KEYS)
    assert max(f.measured.metrics["rmse"] for f in result.frames) < 1e-3
    (tmp_path / "out7.npy").unlink()
    with pytest.raises(InputError) as caught:
        open_prediction_set(tmp_path, KEYS, STEMS, kind=DepthKind.METRIC, in_order=True)
    assert caught.value.error_id == "evaluate.prediction-count"


def test_a_stack_in_the_protocols_order(tmp_path):
    stack = np.stack([truth_mm(key) for key in KEYS])
    np.save(tmp_path / "all.npy", stack[:, None])
    predictor = open_prediction_set(tmp_path / "all.npy", KEYS, STEMS, kind=DepthKind.METRIC)
    result = run_protocol(predictor, DATA, protocol(), KEYS)
    assert max(f.measured.metrics["rmse"] for f in result.frames) < 1e-3
    for name, array, error_id in (
        ("short", stack[1:], "evaluate.prediction-count"),
        ("flat", stack[0], "evaluate.depth-array"),
        ("codes", stack.astype(np.uint16), "evaluate.depth-array"),
    ):
        np.save(tmp_path / name, array)
        with pytest.raises(InputError) as caught:
            open_prediction_set(tmp_path / f"{name}.npy", KEYS, STEMS, kind=DepthKind.METRIC)
        assert caught.value.error_id == error_id
    (tmp_path / "cut.npy").write_bytes((tmp_path / "all.npy").read_bytes()[:50])
    with pytest.raises(InputError):
        open_prediction_set(tmp_path / "cut.npy", KEYS, STEMS, kind=DepthKind.METRIC)


def test_a_run_of_endolux_predict_is_matched_by_image_or_by_frame(tmp_path):
    from endolux.io.depth_codes import DepthMeta
    from endolux.io.tables import FrameRow, FramesCsv, write_json_atomic

    for naming in ("image stem", "sequence_index"):
        out = tmp_path / naming
        with_names = [f"{NAMINGS[naming](key)}.png" for key in KEYS]
        for number, key in enumerate(KEYS):
            save(out / f"depth/{number:06d}", truth_mm(key), ".png")
        with FramesCsv(out / "frames.csv") as rows:
            for number, name in enumerate(with_names):
                rows.write(FrameRow(index=number, name=name, file=f"depth/{number:06d}.png"))
        write_json_atomic(out / "meta.json", DepthMeta(kind=DepthKind.METRIC, codes_per_unit=100.0, engine="e"))
        predictor = open_prediction_set(out, KEYS, STEMS, kind=None)
        assert (predictor.provenance["matched_by"], predictor.provenance["engine"]) == (naming, "e")
        result = run_protocol(predictor, DATA, protocol(), KEYS)
        assert max(f.measured.metrics["rmse"] for f in result.frames) < 0.01
        with pytest.raises(UsageError):
            open_prediction_set(out, KEYS, STEMS, kind=DepthKind.METRIC)


def test_meaning_and_unit_have_to_be_stated(tmp_path):
    save(tmp_path / "a/0", truth_mm(KEYS[0]), ".png")
    for kind in (None, DepthKind.METRIC):
        with pytest.raises(UsageError) as caught:
            open_prediction_set(tmp_path, KEYS, STEMS, kind=kind)
        assert caught.value.error_id == "evaluate.prediction-kind"


def test_two_files_for_one_frame_are_refused(tmp_path):
    for name in ("a/0", "a/00", "a/x0"):
        save(tmp_path / name, truth_mm(KEYS[0]), ".npy")
    with pytest.raises(InputError) as caught:
        open_prediction_set(tmp_path, KEYS, STEMS, kind=DepthKind.METRIC)
    assert caught.value.error_id == "evaluate.ambiguous"


def command(code, tail="{image} {output}", **arguments):
    template = shlex.join([sys.executable, "-c", code]) + " " + tail
    return CommandPredictor(template, name="tool", **({"kind": DepthKind.RELATIVE_DEPTH} | arguments))


FRAME = Frame(image=np.dstack([np.full((4, 6), level, np.uint8) for level in (10, 20, 30)]))
READ = "import sys, cv2, numpy as np; image = cv2.imread(sys.argv[1])[..., ::-1]; "


def test_command_gets_the_pixels_and_its_file_is_read():
    depth = command(READ + "np.save(sys.argv[2], image.mean(axis=2))").predict("a", FRAME)
    assert depth.at(3, 2) == pytest.approx(20.0)
    code = READ + "cv2.imwrite(sys.argv[1 + 1][6:], image[..., 0].astype(np.uint16) * 100)"
    depth = command(code, "{image} --out={output}.png", kind=DepthKind.METRIC, scale=100.0).predict("a", FRAME)
    assert depth.at(0, 0) == pytest.approx(10.0)


def test_command_is_no_shell(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = "import sys, numpy as np; np.save(sys.argv[2], np.full((4, 6), len(sys.argv), float))"
    depth = command(code, "{image} {output} ';' touch pwned '$(touch pwned)'").predict("a; touch pwned", FRAME)
    assert depth.at(0, 0) == 7.0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("code", "error_id", "said"),
    [
        ("import sys; sys.stderr.write('out of \\xff luck'); sys.exit(3)", "evaluate.command-failed", "luck"),
        ("pass", "evaluate.command-output", "{output}"),
        ("import sys; open(sys.argv[2], 'w').write('x')", "evaluate.depth-file", ""),
        ("import sys, numpy; numpy.save(sys.argv[2], numpy.zeros((2, 3, 4)))", "evaluate.depth-array", ""),
    ],
)
def test_command_that_fails(code, error_id, said):
    with pytest.raises(InputError) as caught:
        command(code).predict("a", FRAME)
    assert caught.value.error_id == error_id
    assert said in caught.value.why


def test_command_that_hangs_is_stopped_with_its_children(tmp_path):
    mark = tmp_path / "mark"
    child = f"import time, pathlib; time.sleep(1.5); pathlib.Path({str(mark)!r}).touch()"
    code = f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {child!r}]); time.sleep(60)"
    started = time.monotonic()
    with pytest.raises(InputError) as caught:
        command(code, timeout_s=0.7).predict("a", FRAME)
    assert caught.value.error_id == "evaluate.command-timeout"
    assert time.monotonic() - started < 5
    time.sleep(1.5)
    assert not mark.exists()


@pytest.mark.parametrize(
    "template",
    ["tool {image}", "tool {image} {image} {output}", "no-such-program-xyz {image} {output}", "ls '{image} {output}",
     "ls {image} {output}.exr"],
)  # fmt: skip
def test_command_that_cannot_be_run(template):
    with pytest.raises(UsageError) as caught:
        CommandPredictor(template, name="x", kind=DepthKind.METRIC)
    assert caught.value.error_id == "evaluate.command"
    with pytest.raises(UsageError):
        CommandPredictor("ls {image} {output}.png", name="x", kind=DepthKind.METRIC)

"""Pair folders and depth files, good and bad."""

import zlib

import cv2
import numpy as np
import pytest

from endolux.datasets.pairs import Pair, TruthFormat, TruthKind, check_format, find_pairs, list_hash, read_truth
from endolux.datasets.planes import read_plane
from endolux.errors import EndoluxError, InputError, UsageError

MM = TruthFormat(codes_per_mm=100.0)


def error_of(call, *arguments):
    with pytest.raises(EndoluxError) as caught:
        call(*arguments)
    assert len(str(caught.value).splitlines()) == 3
    return caught.value


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def png(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(".png", array)[1].tobytes())
    return path


def test_two_folders_in_natural_order(tmp_path):
    touch(tmp_path, "images/10.jpg", "images/9.png", "images/ä b.PNG", "images/.hidden.png", "images/notes.txt")
    touch(tmp_path, "depth/9.npy", "depth/10.png", "depth/ä b.npz", "depth/meta.json")
    pairs = find_pairs(tmp_path)
    assert [p.name for p in pairs] == ["9", "10", "ä b"]
    assert pairs[1].image.name == "10.jpg"
    assert pairs[1].depth.name == "10.png"


def test_side_by_side(tmp_path):
    touch(tmp_path, "a.png", "a_depth.png", "-b.jpg", "-b_depth.npz")
    assert {p.name: p.depth.name for p in find_pairs(tmp_path)} == {"a": "a_depth.png", "-b": "-b_depth.npz"}


@pytest.mark.parametrize(
    ("names", "error_id", "named"),
    [
        (["a.png", "b.png", "a_depth.png"], "evaluate.unpaired", "'b' has no depth file (1 of 2"),
        (["a.png", "a_depth.png", "c_depth.npy"], "evaluate.unpaired", "'c' has no image (1 of 2"),
        (["images/a.png", "depth/b.png"], "evaluate.unpaired", "(2 of 2"),
        (["a.png", "a.jpg", "a_depth.png"], "dataset.ambiguous", "'a' stands for two"),
        (["a.png", "a_depth.png", "a_depth.npy"], "dataset.ambiguous", "a_depth"),
        (["readme.txt"], "evaluate.no-pairs", ""),
    ],
)
def test_incomplete_folders_are_refused(tmp_path, names, error_id, named):
    touch(tmp_path, *names)
    error = error_of(find_pairs, tmp_path)
    assert error.error_id == error_id
    assert error.exit_code == 3
    assert named in error.what


def test_missing_folder_and_file_in_its_place(tmp_path):
    assert error_of(find_pairs, tmp_path / "no").error_id == "input.missing"
    touch(tmp_path, "file")
    assert error_of(find_pairs, tmp_path / "file").error_id == "input.not-a-folder"


def test_codes_become_millimetres(tmp_path):
    path = png(tmp_path / "a.png", np.array([[0, 100, 65535]], np.uint16))
    truth = read_truth(path, MM)
    assert truth.values.tolist() == [[0.0, 1.0, 655.35]]
    assert truth.valid.tolist() == [[False, True, True]]
    assert truth.no_value == 1


def test_tiff_is_read(tmp_path):
    cv2.imwrite(str(tmp_path / "a.tif"), np.array([[200, 300]], np.uint16))
    assert read_truth(tmp_path / "a.tif", MM).values.tolist() == [[2.0, 3.0]]


def test_floats_are_millimetres_and_bad_values_are_counted(tmp_path):
    np.save(tmp_path / "a.npy", np.array([[5, 0, np.nan, np.inf, -np.inf, -2]], np.float32))
    truth = read_truth(tmp_path / "a.npy", TruthFormat())
    assert truth.valid.tolist() == [[True, False, False, False, False, False]]
    assert (truth.no_value, truth.infinite, truth.negative) == (2, 2, 1)


def test_npz_with_mask(tmp_path):
    np.savez(tmp_path / "a.npz", values=np.ones((1, 3), np.float32), valid=np.array([[True, False, True]]))
    assert read_truth(tmp_path / "a.npz", TruthFormat()).valid.tolist() == [[True, False, True]]


@pytest.mark.parametrize(
    "array", [np.zeros((4, 5), np.uint8), np.zeros((4, 5, 3), np.uint16), np.zeros((4, 5, 3), np.uint8)]
)
def test_anything_but_16_bit_grey_is_refused(tmp_path, array):
    error = error_of(read_truth, png(tmp_path / "a.png", array), MM)
    assert error.error_id == "evaluate.depth-bits"
    assert error.exit_code == 3


@pytest.mark.parametrize(
    "array", [np.ones((2, 3), np.int32), np.ones((2, 3, 3), np.float32), np.ones((0, 3), np.float32), np.array(None)]
)
def test_other_arrays_are_refused(tmp_path, array):
    np.save(tmp_path / "a.npy", array)
    assert error_of(read_truth, tmp_path / "a.npy", TruthFormat()).error_id in (
        "evaluate.depth-array",
        "evaluate.depth-file",
    )


def test_mask_of_another_shape_is_refused(tmp_path):
    np.savez(tmp_path / "a.npz", depth=np.ones((2, 2)), valid=np.ones((2, 3), bool))
    assert error_of(read_truth, tmp_path / "a.npz", TruthFormat()).error_id == "evaluate.depth-array"


def test_npz_of_unclear_content_is_refused(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.ones((2, 2)), y=np.ones((2, 2)))
    assert "x, y" in error_of(read_truth, tmp_path / "a.npz", TruthFormat()).why


@pytest.mark.parametrize("suffix", [".png", ".npy", ".npz", ".tif"])
@pytest.mark.parametrize(
    "content", [b"", b"this is not depth", b"\x89PNG\r\n\x1a\n", b"\x93NUMPY\x01\x00", b"PK\x03\x04"]
)
def test_garbage_files_give_an_input_error(tmp_path, suffix, content):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(content)
    assert isinstance(error_of(read_truth, path, MM), InputError)


@pytest.mark.parametrize("suffix", [".png", ".npy", ".npz"])
def test_truncated_files_give_an_input_error(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    noise = np.random.default_rng(0).integers(1, 60000, (40, 50))
    if suffix == ".png":
        png(path, noise.astype(np.uint16))
    elif suffix == ".npy":
        np.save(path, noise.astype(np.float32))
    else:
        np.savez_compressed(path, depth=noise.astype(np.float32))
    path.write_bytes(path.read_bytes()[:-500])
    assert isinstance(error_of(read_truth, path, MM), InputError)


def test_a_flipped_bit_in_the_pixels_is_noticed(tmp_path):
    path = png(tmp_path / "a.png", np.arange(2000, dtype=np.uint16).reshape(40, 50))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
    assert error_of(read_truth, path, MM).error_id == "evaluate.depth-file"


def test_missing_depth_file(tmp_path):
    assert error_of(read_truth, tmp_path / "no.png", MM).error_id == "input.missing"


def test_huge_claims_are_refused_before_decoding(tmp_path):
    header = b"IHDR" + (30000).to_bytes(4, "big") * 2 + bytes([16, 0, 0, 0, 0])
    chunk = (13).to_bytes(4, "big") + header + zlib.crc32(header).to_bytes(4, "big")
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunk + b"\0" * 60)
    assert error_of(read_truth, tmp_path / "a.png", MM).error_id == "input.too-large"


def test_array_bombs_are_refused_before_unpacking(tmp_path, monkeypatch):
    monkeypatch.setenv("ENDOLUX_MAX_PIXELS", "1000")
    np.savez_compressed(tmp_path / "a.npz", depth=np.zeros((400, 400)))
    assert error_of(read_plane, tmp_path / "a.npz").error_id == "input.too-large"
    np.save(tmp_path / "a.npy", np.zeros((400, 400)))
    assert error_of(read_plane, tmp_path / "a.npy").error_id == "input.too-large"


def test_the_unit_of_codes_must_be_stated(tmp_path):
    path = png(tmp_path / "a.png", np.ones((2, 2), np.uint16))
    error = error_of(read_truth, path, TruthFormat())
    assert error.error_id == "evaluate.depth-scale"
    assert error.exit_code == 2
    assert read_truth(path, TruthFormat(kind=TruthKind.DISPARITY)).values.tolist() == [[1, 1], [1, 1]]


def test_a_scale_without_codes_is_refused(tmp_path):
    pair = Pair(name="a", image=tmp_path / "a.png", depth=tmp_path / "a_depth.npy")
    with pytest.raises(UsageError):
        check_format([pair], MM)


@pytest.mark.parametrize("scale", [0.0, -1.0, np.nan, np.inf])
def test_impossible_scales(scale):
    with pytest.raises(UsageError):
        TruthFormat(codes_per_mm=scale)


def test_list_hash_follows_names_and_contents(tmp_path):
    touch(tmp_path, "a.png", "a_depth.npy")
    pairs = find_pairs(tmp_path)
    before = list_hash(pairs)
    assert before == list_hash(find_pairs(tmp_path))
    (tmp_path / "a_depth.npy").write_bytes(b"x")
    changed = list_hash(pairs)
    assert changed != before
    pairs[0].depth.unlink()
    assert list_hash(pairs) not in (before, changed)

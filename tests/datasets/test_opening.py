"""Opening by name, by itself, and the registry of protocols."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scenes import is_three_lines, key, lit, ramp, save

from endolux import datasets
from endolux.datasets.base import FrameKey
from endolux.datasets.splits import sequences
from endolux.errors import InputError, UsageError

NAMED = {
    "scared-afsfm-551", "scared-keyframes", "scared-c", "servct-af", "servct-endogede", "hamlyn-edm", "hamlyn-endoomni",
    "c3vd", "simcol3d", "endoslam-unity", "nyu-eigen-leve", "nyu-eigen", "kitti-eigen-leve", "kitti-eigen", "l3d",
}  # fmt: skip


def test_every_protocol_has_its_reader_and_says_where_it_is_from():
    protocols = datasets.protocols()
    assert set(protocols) >= NAMED
    for name, protocol in protocols.items():
        assert name == protocol.name
        assert protocol.dataset in datasets.names()
        assert protocol.summary
        assert protocol.source
        assert protocol.maximum > protocol.minimum
        assert protocol.crop is None or protocol.crop_pixels is None


def test_nearest_names():
    for call, expected in (
        (lambda: datasets.open_dataset("simcol", "."), "simcol3d"),
        (lambda: datasets.open_dataset("C3VDD", "."), ""),
        (lambda: datasets.get_protocol("nyu-eigen-lev"), "nyu-eigen-leve"),
    ):
        with pytest.raises(UsageError) as caught:
            call()
        assert expected in caught.value.fix
        assert is_three_lines(caught.value)
    with pytest.raises(UsageError) as caught:
        datasets.get_protocol("c3vd/99")
    assert caught.value.error_id == "protocol.version"
    with pytest.raises(UsageError) as caught:
        datasets.get_protocol("")
    assert caught.value.error_id == "protocol.unknown"


def test_nothing_is_recognised(tmp_path: Path):
    for path, expected in (
        (tmp_path / "absent", "input.missing"),
        (tmp_path, "dataset.unknown"),
        (save(tmp_path / "one.png", lit(ramp())), "input.not-a-folder"),
    ):
        with pytest.raises(InputError) as caught:
            datasets.open_dataset("auto", path)
        assert caught.value.error_id == expected
        assert is_three_lines(caught.value)


def test_two_sets_in_one_folder(tmp_path: Path):
    save(tmp_path / "Stomach/Frames/image_0000.png", lit(ramp()))
    save(tmp_path / "Frames_S1/FrameBuffer_0000.png", lit(ramp()))
    save(tmp_path / "Frames_S1/Depth_0000.png", ramp().astype(np.uint16))
    with pytest.raises(InputError) as caught:
        datasets.detect(tmp_path)
    assert caught.value.error_id == "dataset.ambiguous"
    assert "endoslam-unity or simcol3d" in caught.value.what


def test_sequences_keep_their_order_and_miss_nothing():
    keys = [FrameKey(sequence=name, index=i) for name in ("b", "a", "ab") for i in (0, 1)]
    assert sequences("a", "b")(keys, None) == [key("a", 0), key("a", 1), key("b", 0), key("b", 1)]
    assert sequences("c|b")(keys, None) == [key("b", 0), key("b", 1)]
    with pytest.raises(InputError) as caught:
        sequences("a", "c")(keys, None)
    assert "1 of 2" in caught.value.what


def test_import_is_lazy():
    code = (
        "import sys, endolux; print('endolux.datasets' in sys.modules)\n"
        "import endolux.datasets; print('endolux.datasets.c3vd' in sys.modules)\n"
        "endolux.datasets.names(); print('endolux.datasets.c3vd' in sys.modules, 'pyarrow' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == ["False", "False", "True", "False"]

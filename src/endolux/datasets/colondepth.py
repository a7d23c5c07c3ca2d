"""ColonDepth: synthetic colonoscopy of one CT colon, three textures by three lights, 256 x 256.

Source: Rau et al. 2019, "Implicit domain adaptation with conditional generative adversarial networks for depth
prediction in endoscopy". Depth is an 8-bit PNG: 255 stands for 200 mm, 0 for nothing. Not to be mixed up with SimCol3D,
whose 16-bit files are refused here.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from typing_extensions import override

from endolux.datasets.base import Finding, FrameKey, Protocol, Sample, protocol, reader
from endolux.datasets.decode import decode_image, folders, metric_depth, numbered_files, read_bytes, wrong_size
from endolux.datasets.findings import lone_depths, published_count
from endolux.datasets.listing import DepthDataset, Entry, unique
from endolux.datasets.splits import every_frame, sequences
from endolux.errors import InputError
from endolux.io.images import read_pixels
from endolux.io.paths import printable
from endolux.io.sources import natural_key
from endolux.types import Frame

MM_AT_FULL_SCALE = 200.0
FRAMES = 16_016
HOLD_OUT = "T3_L3"

_FLAT = re.compile(r"(?:C_)?(T\d_L\d)_(\d+)_resized_(FrameBuffer|Depth)_(\d+)\.png")
_IMAGE, _DEPTH = re.compile(r"FrameBuffer_(\d+)\.png"), re.compile(r"Depth_(\d+)\.png")
_LAYOUT = (
    "T1_L1_1_resized_FrameBuffer_0000.png with ..._Depth_0000.png, or T1_L1/FrameBuffer_0000.png with Depth_0000.png"
)


class ColonDepthDataset(DepthDataset[Entry]):
    """ColonDepth on disk, in either of its two arrangements. Sequences are ``T1_L1/2``: texture, light, sub-sequence.

    Args:
        root: folder; one level of folders below it is searched.
        nearest_mm: depth up to here is left out and counted as ``near``: it is at the lens, and a step of the codes
            is 0.8 mm.
        training: without what is held out for choosing models, the third texture under the third light.

    Raises:
        InputError: ``dataset.empty``, ``dataset.ambiguous``, ``input.missing``, ``input.not-a-folder``.
    """

    def __init__(self, root: Path, *, nearest_mm: float = 1.0, training: bool = False) -> None:
        self._nearest, self._training = nearest_mm, training
        entries, findings = _list(root)
        if training:
            entries = {key: entry for key, entry in entries.items() if not key.sequence.startswith(HOLD_OUT)}
        name = "colondepth-train" if training else "colondepth"
        super().__init__(name=name, root=root, entries=entries, layout=_LAYOUT, findings=findings)

    @override
    def read(self, key: FrameKey, entry: Entry) -> Sample:
        image = read_pixels(entry.image)
        frame = Frame(image=image, index=self.position(key), name=str(key))
        if entry.depth is None:
            return Sample(key=key, frame=frame)
        name = printable(entry.depth)
        codes = read_first_channel(entry.depth)
        if codes.shape != image.shape[:2]:
            raise wrong_size(name, (codes.shape[1], codes.shape[0]), frame.size, "its picture")
        values = codes * (MM_AT_FULL_SCALE / 255.0)
        near = (values > 0) & (values <= self._nearest)
        depth, excluded = metric_depth(np.where(near, 0.0, values))
        count = int(np.count_nonzero(near))
        return Sample(key=key, frame=frame, depth=depth, excluded={**excluded, **({"near": count} if count else {})})

    @override
    def check_set(self) -> list[Finding]:
        return [] if self._training else [published_count(len(self.keys()), FRAMES, "pairs of ColonDepth")]


def read_first_channel(path: Path) -> np.ndarray[tuple[int, int], np.dtype[np.uint8]]:
    """H x W codes of an 8-bit image whose colour channels repeat the depth; the red one is taken.

    Raises:
        InputError: missing or damaged file; ``dataset.depth-bits`` for 16 bits.
    """
    pixels = decode_image(read_bytes(path), printable(path))
    if pixels.dtype != np.uint8:
        raise InputError(
            f"'{printable(path)}' has {pixels.dtype.itemsize * 8} bits",
            why="This set stores depth in 8 bits; 16-bit files of the same names belong to SimCol3D.",
            fix="Name the reader 'simcol3d' if that is what the folder holds.",
            error_id="dataset.depth-bits",
        )
    # OpenCV puts red last among the colours.
    plane = pixels if pixels.ndim == 2 else pixels[:, :, min(2, pixels.shape[2] - 1)]
    return np.array(plane, dtype=np.uint8).reshape(plane.shape[0], plane.shape[1])


def _list(root: Path) -> tuple[dict[FrameKey, Entry], list[Finding]]:
    images: dict[FrameKey, Entry] = {}
    depths: dict[FrameKey, Entry] = {}
    for folder in [root, *folders(root)]:
        for path in sorted(folder.glob("*.png")):
            match = _FLAT.fullmatch(path.name)
            if match:
                scene, part, kind, number = match.groups()
                target = images if kind == "FrameBuffer" else depths
                unique(target, FrameKey(sequence=f"{scene}/{part}", index=int(number)), Entry(path))
        plain = numbered_files(folder, _IMAGE)
        for number, path in plain.items():
            unique(images, FrameKey(sequence=folder.name, index=number), Entry(path))
        for number, path in numbered_files(folder, _DEPTH).items() if plain else ():
            unique(depths, FrameKey(sequence=folder.name, index=number), Entry(path))
    ordered = sorted(images, key=lambda key: (natural_key(key.sequence), key.index))
    entries = {key: Entry(images[key].image, depths[key].image if key in depths else None) for key in ordered}
    return entries, lone_depths([entry.image for key, entry in depths.items() if key not in images])


@reader("colondepth")
def open_colondepth(root: Path) -> ColonDepthDataset:
    """Open ColonDepth."""
    return ColonDepthDataset(root)


@reader("colondepth-train")
def open_training(root: Path) -> ColonDepthDataset:
    """Open ColonDepth without what is held out for choosing models."""
    return ColonDepthDataset(root, training=True)


protocol(
    Protocol(
        name="colondepth-t3l3",
        version=1,
        dataset="colondepth",
        summary="The third texture under the third light, held out for choosing models; median scaling",
        source="This package; no official split is published",
        select=sequences(HOLD_OUT),
    )
)
protocol(
    Protocol(
        name="colondepth",
        version=1,
        dataset="colondepth",
        summary="Every pair, median scaling",
        source="Rau et al. 2019",
        select=every_frame,
        expected_frames=FRAMES,
    )
)

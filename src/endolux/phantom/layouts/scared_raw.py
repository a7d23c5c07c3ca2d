"""SCARED as it is released: one video of both lenses, point maps and poses in compressed archives."""

from __future__ import annotations

import gzip
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import ClassVar

import cv2
import numpy as np
from typing_extensions import override

from endolux.phantom.layouts.base import layout
from endolux.phantom.layouts.scared import ScaredLayout
from endolux.phantom.presets import StreamSettings

_PICTURES = ("left", "right")
_ARCHIVES = ("scene_points", "frame_data")
# Quality at which an 8-bit picture comes back to within a few codes; file size is no concern of a made data set.
_CRF = "8"


@layout
class ScaredRawLayout(ScaredLayout):
    """``dataset_D/keyframe_K/data/{rgb.mp4,scene_points.tar.gz,frame_data.tar.gz}`` and the keyframe's stills.

    The left view stands above the right one, in the video as in the point maps.
    """

    name = "scared-raw"
    summary = "SCARED as released: rgb.mp4 of both lenses, scene_points.tar.gz, frame_data.tar.gz"
    defaults: ClassVar[Mapping[str, object]] = ScaredLayout.defaults
    quantisation = "none for X, Y, Z as float32; pictures as compressed by H.264, stills without loss"

    @override
    def check(self, settings: StreamSettings) -> None:
        super().check(settings)
        if settings.width % 2:
            raise self.impossible(
                f"pictures {settings.width} wide",
                "H.264 with 4:2:0 colour needs an even width.",
                f"Use --width {settings.width + 1}.",
            )

    @override
    def gather(self, number: int, stage: Path, names: Sequence[str], settings: StreamSettings) -> dict[str, list[str]]:
        parts: dict[str, list[str]] = {part: [] for part in (*_ARCHIVES, *_PICTURES)}
        for name in sorted(names):
            kind = PurePosixPath(name).parent.name
            if kind in parts:
                parts[kind].append(name)
        data = str(PurePosixPath(parts["scene_points"][0]).parent.parent)
        made: dict[str, list[str]] = {}
        for kind in _ARCHIVES:
            _archive(stage, f"{data}/{kind}.tar.gz", parts[kind])
            made[f"{data}/{kind}.tar.gz"] = parts[kind]
        _video(stage, f"{data}/rgb.mp4", parts["left"], parts["right"], settings)
        made[f"{data}/rgb.mp4"] = parts["left"] + parts["right"]
        return made


def _archive(stage: Path, target: str, names: Sequence[str]) -> None:
    """Pack files; the same files give the same bytes."""
    with (
        (stage / target).open("wb") as raw,
        gzip.GzipFile("", "wb", compresslevel=1, fileobj=raw, mtime=0) as packed,
        tarfile.open(mode="w", fileobj=packed, format=tarfile.USTAR_FORMAT) as archive,
    ):
        for name in names:
            member = tarfile.TarInfo(PurePosixPath(name).name)
            member.size, member.mode = (stage / name).stat().st_size, 0o644
            with (stage / name).open("rb") as content:
                archive.addfile(member, content)


def _video(stage: Path, target: str, left: Sequence[str], right: Sequence[str], settings: StreamSettings) -> None:
    import av

    with av.open(str(stage / target), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=max(1, round(settings.fps)))
        stream.width, stream.height = settings.width, 2 * settings.height
        stream.pix_fmt = "yuv420p"
        # One thread and no macroblock tree: the encoder's decisions, and so the bytes, are the same in every run.
        stream.options = {"crf": _CRF, "preset": "veryfast", "threads": "1", "x264-params": "mbtree=0"}
        for pair in zip(left, right, strict=True):
            pictures = [cv2.imread(str(stage / name), cv2.IMREAD_COLOR) for name in pair]
            both = np.concatenate([np.asarray(picture, np.uint8) for picture in pictures])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(both, format="bgr24")))
        container.mux(stream.encode(None))

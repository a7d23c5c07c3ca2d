"""Image files: every format gives the same picture; damage, bombs and other things get the error with the fix."""

from __future__ import annotations

import contextlib
import io
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from endolux.errors import InputError, UsageError
from endolux.io import headers
from endolux.io.images import read
from endolux.types import Camera

DATA = Path(os.environ.get("ENDOLUX_SHARED_DATA", Path(__file__).resolve().parents[2] / "../shared/data"))


def picture() -> np.ndarray:
    """Four patches whose order no rotation, mirroring or swap of channels leaves as it is. 40 x 60, RGB."""
    image = np.zeros((40, 60, 3), np.uint8)
    image[:20, :30], image[:20, 30:] = (200, 30, 60), (30, 160, 90)
    image[20:, :30], image[20:, 30:] = (40, 60, 210), (220, 200, 150)
    return image


def noise(height: int = 200, width: int = 300) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def encoded(image: np.ndarray | Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    picture_ = Image.fromarray(image) if isinstance(image, np.ndarray) else image
    picture_.save(buffer, kind, **options)
    return buffer.getvalue()


def put(folder: Path, data: bytes, name: str = "image.png") -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


def refused(path: Path | str, error_id: str) -> InputError:
    with pytest.raises(InputError) as caught:
        read(path)
    assert caught.value.error_id == error_id, str(caught.value)
    assert caught.value.exit_code == 3
    assert all(line.strip() and "\n" not in line for line in caught.value.lines())
    return caught.value


def png(width: int, height: int, pixels: bytes, *, depth: int = 8, colour: int = 2, extra: bytes = b"") -> bytes:
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
        + extra
        + chunk(b"IDAT", pixels)
        + chunk(b"IEND", b"")
    )


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


@pytest.mark.parametrize(
    ("kind", "options", "tolerance"),
    [
        ("PNG", {}, 0),
        ("BMP", {}, 0),
        ("TIFF", {}, 0),
        ("TIFF", {"compression": "tiff_lzw"}, 0),
        ("TIFF", {"compression": "tiff_adobe_deflate"}, 0),
        ("WEBP", {"lossless": True}, 0),
        ("WEBP", {"quality": 100}, 6),
        ("JPEG", {"quality": 98}, 6),
        ("JPEG", {"quality": 98, "progressive": True}, 6),
        ("JPEG", {"quality": 98, "subsampling": 0, "restart_marker_rows": 1}, 6),
    ],
)
def test_every_format_gives_the_same_rgb(tmp_path: Path, kind: str, options: dict[str, object], tolerance: int) -> None:
    # The name is wrong for most of them: the content decides.
    frame = read(put(tmp_path, encoded(picture(), kind, **options)))
    assert frame.size == (60, 40)
    assert frame.image.flags["C_CONTIGUOUS"]
    assert (frame.name, frame.index, frame.pts_s, frame.valid) == ("image.png", 0, None, None)
    difference = np.abs(frame.image.astype(int) - picture())
    assert difference[3:17, 3:27].max() <= tolerance
    assert difference.mean() <= tolerance


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk(tmp_path: Path, kind: str) -> None:
    image = Image.fromarray(picture()).convert("CMYK")
    frame = read(put(tmp_path, encoded(image, kind, **({"quality": 98} if kind == "JPEG" else {}))))
    assert np.abs(frame.image.astype(int) - picture()).mean() < 4


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "BMP"])
def test_grey(tmp_path: Path, kind: str) -> None:
    grey = Image.fromarray(picture()).convert("L")
    frame = read(put(tmp_path, encoded(grey, kind)))
    assert np.abs(frame.image.astype(int) - np.asarray(grey)[:, :, None]).mean() < 2
    assert np.array_equal(frame.image[..., 0], frame.image[..., 2])


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF"])
def test_palette(tmp_path: Path, kind: str) -> None:
    image = Image.fromarray(picture()).quantize(4)
    frame = read(put(tmp_path, encoded(image, kind)))
    assert np.array_equal(frame.image, np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_few_bits(tmp_path: Path, depth: int) -> None:
    rows = zlib.compress(b"".join(b"\0" + bytes([0b10110001]) for _ in range(3)))
    frame = read(put(tmp_path, png(8 // depth, 3, rows, depth=depth, colour=0)))
    bits = np.unpackbits(np.array([0b10110001], np.uint8)).reshape(-1, depth)
    expected = bits @ (1 << np.arange(depth)[::-1]) * 255 // ((1 << depth) - 1)
    assert np.array_equal(frame.image[1, :, 0], expected)


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("alpha", [0, 128, 255])
def test_alpha_is_dropped_not_blended(tmp_path: Path, kind: str, alpha: int) -> None:
    image = Image.fromarray(np.dstack([picture(), np.full((40, 60), alpha, np.uint8)]))
    options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    assert np.array_equal(read(put(tmp_path, encoded(image, kind, **options))).image, picture())


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_sixteen_bits_keep_the_high_byte(tmp_path: Path, suffix: str, channels: int) -> None:
    rng = np.random.default_rng(0)
    values = rng.integers(0, 1 << 16, (20, 30, channels), dtype=np.uint16)
    data = cv2.imencode(suffix, values)[1].tobytes()
    frame = read(put(tmp_path, data))
    expected = (values >> 8).astype(np.uint8)
    expected = np.repeat(expected, 3, axis=2) if channels == 1 else expected[:, :, 2::-1]
    assert np.array_equal(frame.image, expected)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_is_applied(tmp_path: Path, kind: str, orientation: int) -> None:
    upright = picture()
    turned = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, -1),
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, 1),
    }[orientation]
    options: dict[str, object]
    if kind == "TIFF":
        options = {"tiffinfo": {274: orientation}}
    else:
        exif = Image.Exif()
        exif[0x0112] = orientation
        options = {"exif": exif.tobytes()}
    frame = read(put(tmp_path, encoded(upright, kind, **options)))
    assert frame.image.shape == turned.shape
    assert np.abs(frame.image.astype(int) - turned).mean() < 6


@pytest.mark.parametrize(
    "array",
    [
        picture(),
        picture()[:, :, 0],
        picture()[:, :, :1],
        np.dstack([picture(), np.zeros((40, 60), np.uint8)]),
        picture().astype(np.uint16) << 8,
        np.asfortranarray(picture()),
    ],
)
def test_npy(tmp_path: Path, array: np.ndarray) -> None:
    np.save(tmp_path / "a.npy", array)
    frame = read(tmp_path / "a.npy")
    expected = picture()
    if array.ndim == 2 or array.shape[2] == 1:
        expected = np.repeat(expected[:, :, :1], 3, axis=2)
    assert np.array_equal(frame.image, expected)
    assert frame.image.flags["C_CONTIGUOUS"]
    assert frame.image.flags["WRITEABLE"]


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "i2", "i4", "?", "c8"])
def test_other_types_are_refused_with_the_fix(tmp_path: Path, dtype: str) -> None:
    np.save(tmp_path / "a.npy", picture().astype(dtype))
    assert "uint8" in refused(tmp_path / "a.npy", "input.dtype").fix


def test_float_tiff_is_refused(tmp_path: Path) -> None:
    data = cv2.imencode(".tiff", picture().astype(np.float32) / 255)[1].tobytes()
    refused(put(tmp_path, data, "a.tiff"), "input.dtype")


@pytest.mark.parametrize("shape", [(40,), (2, 40, 60, 3), (40, 60, 2), (0, 4, 3), (3, 40, 60)])
def test_npy_of_other_shapes(tmp_path: Path, shape: tuple[int, ...]) -> None:
    np.save(tmp_path / "a.npy", np.zeros(shape, np.uint8))
    with pytest.raises(InputError) as caught:
        read(tmp_path / "a.npy")
    assert caught.value.error_id in ("input.shape", "input.damaged")


def test_npy_is_never_unpickled(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, ...]:
            return (os.mkdir, (str(tmp_path / "executed"),))

    np.save(tmp_path / "a.npy", np.array([Bomb()], object), allow_pickle=True)
    refused(tmp_path / "a.npy", "input.damaged")
    assert not (tmp_path / "executed").exists()


def test_one_pixel(tmp_path: Path) -> None:
    frame = read(put(tmp_path, encoded(np.full((1, 1, 3), (9, 8, 7), np.uint8), "PNG")))
    assert frame.image.tolist() == [[[9, 8, 7]]]


def test_camera_follows_the_upright_image(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    path = put(tmp_path, encoded(picture(), "PNG", exif=exif.tobytes()))
    camera = Camera(width=40, height=60, fx=50, fy=50, cx=20, cy=30)
    assert read(path, camera=camera).camera == camera
    with pytest.raises(UsageError):
        read(path, camera=Camera(width=60, height=40, fx=50, fy=50, cx=20, cy=30))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "BMP", "WEBP"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.99, None])
def test_cut_off_files_are_detected(tmp_path: Path, kind: str, share: float | None) -> None:
    data = encoded(noise(), kind)
    path = put(tmp_path, data[: int(len(data) * share) if share else -1])
    assert "cut off" in refused(path, "input.truncated").what


def test_cut_off_progressive_jpeg_and_thumbnail(tmp_path: Path) -> None:
    # The end-of-image marker of the thumbnail in the EXIF block must not pass for that of the image.
    thumbnail = encoded(noise(40, 60), "JPEG")
    app1 = b"Exif\0\0" + thumbnail
    for progressive in (False, True):
        data = encoded(noise(), "JPEG", progressive=progressive)
        data = data[:2] + b"\xff\xe1" + struct.pack(">H", len(app1) + 2) + app1 + data[2:]
        assert read(put(tmp_path, data)).size == (300, 200)
        refused(put(tmp_path, data[: int(len(data) * 0.8)]), "input.truncated")


def test_bytes_after_the_end_do_no_harm(tmp_path: Path) -> None:
    for kind in ("JPEG", "PNG"):
        assert read(put(tmp_path, encoded(noise(), kind) + b"\0" * 100)).size == (300, 200)


def test_cut_off_npy(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", noise())
    data = (tmp_path / "a.npy").read_bytes()
    for length in (len(data) - 1, len(data) // 2, 130, 40, 8):
        refused(put(tmp_path, data[:length], "b.npy"), "input.truncated")


def test_wrong_checksum(tmp_path: Path) -> None:
    data = bytearray(encoded(noise(), "PNG"))
    data[len(data) // 2] ^= 0xFF
    assert "checksum" in refused(put(tmp_path, bytes(data)), "input.damaged").what


def test_pixels_that_stop_early_inside_a_whole_png(tmp_path: Path) -> None:
    rows = zlib.compress(b"".join(b"\0" + row.tobytes() for row in noise()))
    refused(put(tmp_path, png(300, 200, rows[: len(rows) // 2])), "input.damaged")


@pytest.mark.parametrize(
    "content", [b"this is not a picture\n", b"\x89PNG", b"BM is how this text begins", b"\0" * 999]
)
def test_text_named_png(tmp_path: Path, content: bytes) -> None:
    refused(put(tmp_path, content), "input.not-image")


def test_zero_bytes(tmp_path: Path) -> None:
    refused(put(tmp_path, b""), "input.zero-bytes")


def test_a_gif_is_not_read_as_an_image(tmp_path: Path) -> None:
    refused(put(tmp_path, encoded(picture(), "GIF")), "input.not-image")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "TIFF", "WEBP"])
def test_impossible_sizes(tmp_path: Path, kind: str) -> None:
    data = bytearray(encoded(picture(), kind, **({"lossless": True} if kind == "WEBP" else {})))
    if kind == "PNG":
        data[16:20] = bytes(4)
    elif kind == "JPEG":
        at = data.index(b"\xff\xc0")
        data[at + 5 : at + 7] = bytes(2)
    elif kind == "BMP":
        data[18:22] = bytes(4)
    elif kind == "TIFF":
        at = data.index(struct.pack("<HH", 256, 4)) if struct.pack("<HH", 256, 4) in data else -1
        at = at if at >= 0 else data.index(struct.pack("<HH", 256, 3))
        data[at + 8 : at + 12] = bytes(4)
    else:
        pytest.skip("a WebP size is stored minus one and cannot be zero")
    refused(put(tmp_path, bytes(data)), "input.damaged")


def large(kind: str) -> bytes:
    """The head of a valid image of 20000 x 10000 pixels, in few bytes."""
    width, height = 20000, 10000
    if kind == "png":
        return png(width, height, zlib.compress(bytes(10_000_000)), depth=1, colour=0)
    if kind == "jpeg":
        data = bytearray(encoded(picture(), "JPEG"))
        at = data.index(b"\xff\xc0")
        data[at + 5 : at + 9] = struct.pack(">HH", height, width)
        return bytes(data)
    if kind == "bmp":
        data = bytearray(encoded(picture(), "BMP"))
        data[18:26] = struct.pack("<ii", width, -height)
        return bytes(data)
    if kind == "webp":
        return (
            b"RIFF"
            + struct.pack("<I", 100)
            + b"WEBPVP8X"
            + struct.pack("<I", 10)
            + bytes(4)
            + ((width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little") + bytes(90))
        )
    buffer = io.BytesIO()
    Image.new("1", (width, height)).save(buffer, "TIFF", compression="group4")
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["png", "jpeg", "bmp", "webp", "tiff"])
def test_large_images_are_refused_from_the_header(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = put(tmp_path, large(kind))
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("decoded"))
    error = refused(path, "input.too-large")
    assert "20000 x 10000" in error.what


def test_bombs_are_refused_in_bounded_memory(tmp_path: Path) -> None:
    put(tmp_path, large("png"), "large.png")
    put(tmp_path, png(200_000, 200_000, zlib.compress(bytes(1_000_000), 9), depth=1, colour=0), "bomb.png")
    with (tmp_path / "a.npy").open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": (10000, 20000, 3)})
        file.truncate(700_000_000)
    script = (
        "import resource, sys\n"
        "from endolux.errors import InputError\n"
        "from endolux.io.images import read\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "for name in ('large.png', 'bomb.png', 'a.npy'):\n"
        "    try:\n"
        "        read(sys.argv[1] + '/' + name)\n"
        "    except InputError as error:\n"
        "        assert error.error_id == 'input.too-large', error\n"
        "    else:\n"
        "        raise SystemExit('accepted ' + name)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    result = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    kilobytes = int(result.stdout) // (1 if sys.platform == "linux" else 1024)
    assert kilobytes < 20_000


def test_limit_from_environment_and_argument(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = put(tmp_path, encoded(picture(), "PNG"))
    with pytest.raises(InputError):
        read(path, max_pixels=2399)
    assert read(path, max_pixels=2400).size == (60, 40)
    monkeypatch.setenv("ENDOLUX_MAX_PIXELS", "2399")
    error = refused(path, "input.too-large")
    assert "ENDOLUX_MAX_PIXELS=2400" in error.fix
    for wrong in ("many", "0", "-4", "1.5", ""):
        monkeypatch.setenv("ENDOLUX_MAX_PIXELS", wrong)
        with pytest.raises(UsageError):
            read(path)


@pytest.mark.parametrize(
    "name", ["two words.png", "Größe 胃.png", "--help.png", "-o", "a[1]*.png", "new\nline.png", "n.PNG", "no suffix"]
)
def test_names(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    put(tmp_path, encoded(picture(), "PNG"), name)
    frame = read(name)
    assert np.array_equal(frame.image, picture())
    assert "\n" not in frame.name


def test_name_that_is_not_unicode(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.png")
    try:
        put(tmp_path, encoded(picture(), "PNG"), name)
    except OSError:
        pytest.skip("this file system takes Unicode names only")
    assert read(tmp_path / name).name == "caf\\xe9.png"
    str(refused(put(tmp_path, b"text", name), "input.not-image")).encode()


def test_missing_folder_loop_and_long_names(tmp_path: Path) -> None:
    refused(tmp_path / "no.png", "input.missing")
    refused(tmp_path / "no" / "no.png", "input.missing")
    refused(tmp_path / ("x" * 300), "input.missing")
    refused("a\0b.png", "input.missing")
    refused("two\nlines.png", "input.missing")
    refused(tmp_path, "input.folder")
    put(tmp_path, b"x", "file")
    refused(tmp_path / "file" / "a.png", "input.missing")
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    refused(tmp_path / "loop.png", "input.link-loop")
    (tmp_path / "broken.png").symlink_to(tmp_path / "nowhere.png")
    assert "link" in refused(tmp_path / "broken.png", "input.missing").what


def test_pipes_do_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    refused(tmp_path / "pipe.png", "input.not-a-file")


def test_forbidden_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = put(tmp_path, encoded(picture(), "PNG"))
    if os.geteuid() == 0:
        # The superuser may read everything, so the refusal itself has to be played.
        def forbid(*_: object, **__: object) -> None:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(Path, "open", forbid)
    else:
        path.chmod(0)
    refused(path, "input.unreadable")


def test_a_link_to_an_image_is_read(tmp_path: Path) -> None:
    put(tmp_path, encoded(picture(), "PNG"), "real.png")
    (tmp_path / "link.png").symlink_to("real.png")
    assert read(tmp_path / "link.png").name == "link.png"


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_random_damage_never_escapes_as_another_exception(tmp_path: Path, data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(["PNG", "JPEG", "TIFF", "BMP", "WEBP", "NPY"]))
    if kind == "NPY":
        buffer = io.BytesIO()
        np.save(buffer, picture())
        content = bytearray(buffer.getvalue())
    else:
        content = bytearray(encoded(picture(), kind))
    # Headers are where it hurts.
    for _ in range(data.draw(st.integers(1, 4))):
        near = data.draw(st.booleans())
        content[data.draw(st.integers(0, min(len(content), 200 if near else 1 << 20) - 1))] = data.draw(
            st.integers(0, 255)
        )
    path = put(tmp_path, bytes(content))
    with contextlib.suppress(InputError):
        assert read(path, max_pixels=1_000_000).image.dtype == np.uint8


def test_big_tiff_and_both_byte_orders() -> None:
    for order in ("II", "MM"):
        sign = "<" if order == "II" else ">"
        pixels = picture().tobytes()
        tags = [(256, 60), (257, 40), (258, 8), (259, 1), (262, 2), (273, 0), (277, 3), (278, 40), (279, len(pixels))]
        body = struct.pack(sign + "Q", len(tags))
        start = 16 + 8 + 20 * len(tags) + 8
        for tag, value in tags:
            body += struct.pack(sign + "HHQQ", tag, 16, 1, start if tag == 273 else value)
        head = order.encode() + struct.pack(sign + "HHHQ", 43, 8, 0, 16)
        data = head + body + bytes(8) + pixels
        header = headers.read_header(io.BytesIO(data))
        assert header is not None
        assert (header.width, header.height, header.end) == (60, 40, len(data))


@pytest.mark.real_data
@pytest.mark.skipif(not DATA.exists(), reason=f"no real frames at {DATA}")
def test_real_images_agree_with_an_independent_reader() -> None:
    paths = sorted(p for p in DATA.rglob("*") if p.suffix.lower() in (".png", ".jpg", ".jpeg", ".bmp"))
    assert paths
    seen = 0
    for path in paths[:: max(1, len(paths) // 40)]:
        with Image.open(path) as image:
            if image.mode not in ("RGB", "L", "P", "RGBA"):
                continue
            expected = np.asarray(image.convert("RGB"))
        assert np.abs(read(path).image.astype(int) - expected).mean() < 1.0, path
        seen += 1
    assert seen > 10


def test_tiff_whose_size_tag_is_empty_is_refused(tmp_path: Path) -> None:
    # Width with count 0: the tag is there and says nothing.
    entries = struct.pack("<HHII", 256, 4, 0, 0) + struct.pack("<HHII", 257, 4, 1, 8)
    path = tmp_path / "a.tif"
    path.write_bytes(b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", 2) + entries + struct.pack("<I", 0))
    with pytest.raises(InputError):
        read(path)

"""One instrument: its camera, its lights and the character of its image."""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np
import numpy.typing as npt

from endolux.phantom.lens import rays_of as rays_of
from endolux.types import Camera, CameraModel, MaskArray


@dataclasses.dataclass(frozen=True, slots=True)
class Light:
    """A small source fixed to the tip of the scope.

    Attributes:
        position_mm: in camera axes (x right, y down, z forward).
        power: relative radiant intensity.
        beam: exponent of the cosine emission profile around the optical axis.
        casts_shadow: whether shadow rays are traced; a light at the lens casts none that the camera sees.
        axis: direction of the beam in camera axes.
        cone_deg: full angle of a spot's cone; 180 for none.
    """

    position_mm: tuple[float, float, float]
    power: float
    beam: float
    casts_shadow: bool
    axis: tuple[float, float, float] = (0.0, 0.0, 1.0)
    cone_deg: float = 180.0

    def table(self, rig_mm: npt.NDArray[np.float64]) -> tuple[float, ...]:
        """The ten numbers that shading takes, for a camera at ``-rig_mm`` of the rig that carries the light."""
        position = np.asarray(self.position_mm) + rig_mm
        axis = np.asarray(self.axis, np.float64) / max(float(np.linalg.norm(self.axis)), 1e-12)
        # A spot fades over the outer fifth of its cone.
        outer = np.cos(np.deg2rad(self.cone_deg / 2)) if self.cone_deg < 180 else -2.0
        inner = np.cos(np.deg2rad(0.8 * self.cone_deg / 2)) if self.cone_deg < 180 else -1.5
        return (*position, *axis, self.power, self.beam, float(outer), float(inner))


@dataclasses.dataclass(frozen=True, slots=True)
class Scope:
    """Camera, lights and image processing of one instrument.

    Attributes:
        camera: intrinsics.
        lights: sources at the tip.
        falloff: exponent of distance; 2 is physics, less imitates processors that even out the light.
        wrap: softening of the cosine law by light scattered under the surface, in [0, 1).
        bounce: strength of light reflected between walls.
        exposure: linear value that the bright part of the image (percentile 90) is brought to.
        gamma: encoding exponent.
        shoulder: softness of saturation; 0 clips hard.
        white_balance: factors on linear RGB.
        vignette: darkening of the corners.
        blur_px: deviation of the optics' blur.
        chroma_blur_px: extra blur of the colour channels.
        shot_noise, read_noise: noise levels in encoded units.
        jpeg_quality: 0 for none.
        content: H x W bool, the visible area.
        spectrum: illumination, "white", "narrow-band" or "violet".
        chromatic_px: shift of red and blue against green in the corners.
        defocus_px: deviation of the defocus of a point at 10 mm when the lens is set to infinity; needs depth.
        focus_mm: distance that the lens is set to.
        shutter: exposure time in frame times, for motion blur.
        rolling: time between reading the first and the last row, in frame times.
        interlaced: whether odd rows are half a frame time later.
        shake_px: motion of a still image in pixels a frame time (columns, rows).
        demosaic: whether the sensor sees one colour a pixel.
        sharpen: strength of the processor's edge enhancement.
        chroma_subsampling: 444, 422 or 420.
        h264_crf: quality of video compression; 0 for none.
        exposure_lag_s: time that auto exposure takes to follow.
        overlay_seed: chooses text and icons in the picture; 0 for none.
        scatter_mm: distance that red light travels under the surface; green and blue travel less.
        saturation: factor of the processor on the colours' distance from grey.
        black: encoded value that the processor shows as black.
    """

    camera: Camera
    lights: tuple[Light, ...]
    falloff: float
    wrap: float
    bounce: float
    exposure: float
    gamma: float
    shoulder: float
    white_balance: tuple[float, float, float]
    vignette: float
    blur_px: float
    chroma_blur_px: float
    shot_noise: float
    read_noise: float
    jpeg_quality: int
    content: MaskArray
    spectrum: str = "white"
    chromatic_px: float = 0.0
    defocus_px: float = 0.0
    focus_mm: float = 15.0
    shutter: float = 0.0
    rolling: float = 0.0
    interlaced: bool = False
    shake_px: tuple[float, float] = (0.0, 0.0)
    demosaic: bool = False
    sharpen: float = 0.0
    chroma_subsampling: int = 444
    h264_crf: int = 0
    exposure_lag_s: float = 0.25
    overlay_seed: int = 0
    scatter_mm: float = 0.0
    saturation: float = 1.0
    black: float = 0.0

    def record(self) -> dict[str, object]:
        """Every number as JSON values, for manifests; the visible area as its share of the image.

        Example:
            >>> import numpy as np
            >>> sample_scope(np.random.default_rng(0), width=64, height=48).record()["spectrum"]
            'white'
        """
        from endolux.geometry.cameras import camera_to_dict

        numbers: dict[str, object] = {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if field.name not in ("camera", "lights", "content")
        }
        numbers["camera"] = camera_to_dict(self.camera)
        numbers["lights"] = [dataclasses.asdict(light) for light in self.lights]
        numbers["content"] = float(self.content.mean())
        return numbers


def sample_scope(rng: np.random.Generator, *, width: int, height: int, even_light: float = 0.18) -> Scope:
    """Draw an instrument whose image is width x height pixels.

    Args:
        rng: source of randomness.
        width: of the image in pixels.
        height: of the image in pixels.
        even_light: share of instruments whose processor hides most of the fall-off with distance.

    Example:
        >>> import numpy as np
        >>> sample_scope(np.random.default_rng(0), width=64, height=48).content.shape
        (48, 64)
    """
    return Scope(
        camera=_sample_camera(rng, width, height),
        lights=_sample_lights(rng),
        falloff=_falloff(rng, even_light),
        wrap=float(rng.uniform(0.0, 0.45)),
        bounce=float(
            rng.choice((rng.uniform(0.02, 0.15), rng.uniform(0.15, 0.5), rng.uniform(0.5, 1.0)), p=(0.4, 0.4, 0.2))
        ),
        exposure=float(
            rng.choice((rng.uniform(0.25, 0.9), rng.uniform(0.08, 0.25), rng.uniform(0.9, 1.8)), p=(0.72, 0.18, 0.1))
        ),
        gamma=float(rng.uniform(1.5, 2.7)),
        shoulder=float(rng.choice((0.0, rng.uniform(0.2, 1.0)))),
        white_balance=tuple(float(value) for value in np.exp(rng.normal(0.0, (0.08, 0.04, 0.14)))),  # type: ignore[arg-type]
        vignette=float(rng.choice((0.0, rng.uniform(0.0, 0.6)))),
        blur_px=float(rng.uniform(0.2, 1.0)) * width / 320.0,
        chroma_blur_px=float(rng.uniform(0.0, 1.2)) * width / 320.0,
        shot_noise=float(rng.choice((0.0, rng.uniform(0.0, 0.025)))),
        read_noise=float(rng.uniform(0.0, 0.012)),
        jpeg_quality=int(rng.choice((0, int(rng.integers(40, 96))))),
        content=sample_content(rng, width=width, height=height),
        **_sample_processing(rng, width),  # type: ignore[arg-type]
    )


def _sample_processing(rng: np.random.Generator, width: int) -> dict[str, object]:
    """What most instruments have little of: each is off more often than on."""

    def some(share: float, low: float, high: float) -> float:
        value = float(rng.uniform(low, high))
        return value if rng.random() < share else 0.0

    pixel = width / 320.0
    drift = rng.normal(0.0, 2.5 * pixel, 2)
    return {
        "spectrum": str(rng.choice(("white", "narrow-band", "violet"), p=(0.93, 0.05, 0.02))),
        "chromatic_px": some(0.3, 0.1, 1.2) * pixel,
        "defocus_px": some(0.25, 0.1, 1.0) * pixel,
        "focus_mm": float(rng.uniform(8.0, 60.0)),
        "shutter": some(0.2, 0.1, 0.9),
        "rolling": some(0.2, 0.3, 1.0),
        "interlaced": bool(rng.random() < 0.04),
        "shake_px": (float(drift[0]), float(drift[1])) if rng.random() < 0.3 else (0.0, 0.0),
        "demosaic": bool(rng.random() < 0.25),
        "sharpen": some(0.45, 0.2, 2.0),
        "chroma_subsampling": int(rng.choice((444, 422, 420), p=(0.6, 0.15, 0.25))),
        "h264_crf": int(rng.integers(20, 34)) if rng.random() < 0.06 else 0,
        "exposure_lag_s": float(rng.uniform(0.05, 0.6)),
        "overlay_seed": int(rng.integers(1, 1 << 30)) if rng.random() < 0.06 else 0,
        "scatter_mm": some(0.4, 0.2, 1.5),
        "saturation": _saturation(rng),
        "black": some(0.35, 0.005, 0.09),
    }


def _saturation(rng: np.random.Generator) -> float:
    """Mostly a little more than nature's, now and then nearly none."""
    drawn, kind = float(np.exp(rng.normal(0.14, 0.22))), rng.random()
    return float(rng.uniform(0.0, 0.06)) if kind < 0.035 else drawn if kind < 0.6 else 1.0


def sample_content(rng: np.random.Generator, *, width: int, height: int) -> MaskArray:
    """Draw a visible area: full frame, circle, ellipse, rectangle or cut corners, H x W bool."""
    shape = rng.choice(("full", "circle", "octagon", "rectangle", "rounded"), p=(0.62, 0.12, 0.12, 0.05, 0.09))
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    cx = width / 2 + rng.uniform(-0.06, 0.06) * width
    cy = height / 2 + rng.uniform(-0.06, 0.06) * height
    if shape == "full":
        return np.ones((height, width), bool)
    if shape == "circle":
        radius = rng.uniform(0.42, 0.68) * min(width, height)
        squeeze = rng.uniform(0.75, 1.2)
        return np.asarray(((x - cx) / squeeze) ** 2 + (y - cy) ** 2 < radius**2)
    half_w, half_h = rng.uniform(0.36, 0.52) * width, rng.uniform(0.40, 0.52) * height
    dx, dy = np.abs(x - cx), np.abs(y - cy)
    inside = (dx < half_w) & (dy < half_h)
    if shape == "octagon":
        cut = rng.uniform(0.15, 0.5) * min(half_w, half_h)
        inside &= dx + dy < half_w + half_h - cut
    if shape == "rounded":
        power = rng.uniform(2.5, 5.0)
        inside &= (dx / half_w) ** power + (dy / half_h) ** power < 1.0
    return np.asarray(inside)


def erode(content: MaskArray, *, pixels: int = 1) -> MaskArray:
    """The area without its blurred rim."""
    if content.all():
        return content
    kernel = np.ones((2 * pixels + 1, 2 * pixels + 1), np.uint8)
    return np.asarray(cv2.erode(content.astype(np.uint8), kernel), bool)


def _falloff(rng: np.random.Generator, even_light: float) -> float:
    physical, near, even = 2.0, rng.uniform(1.2, 2.2), rng.uniform(0.3, 1.2)
    rest = (1.0 - even_light) / 0.82
    return float(rng.choice((physical, near, even), p=(0.5 * rest, 0.32 * rest, even_light)))


def _sample_camera(rng: np.random.Generator, width: int, height: int) -> Camera:
    model = str(rng.choice(("pinhole", "radtan", "fisheye"), p=(0.6, 0.15, 0.25)))
    centre = rng.normal(0.0, 0.03, 2)
    squash = float(rng.choice((1.0, rng.uniform(0.85, 1.18)), p=(0.6, 0.4)))
    wide = rng.uniform(80, 132) if rng.random() < 0.8 else rng.uniform(132, 170)
    field = np.deg2rad(rng.uniform(58, 120) if model != "fisheye" else wide)
    diagonal = float(np.hypot(width, height))
    if model == "fisheye":
        focal = 0.5 * diagonal / (field / 2)
        distortion: tuple[float, ...] = (float(rng.uniform(-0.03, 0.03)), float(rng.uniform(-0.005, 0.005)), 0.0, 0.0)
    else:
        focal = 0.5 * diagonal / np.tan(field / 2)
        distortion = ()
        if model == "radtan":
            distortion = (float(rng.uniform(-0.09, 0.08)), float(rng.uniform(-0.005, 0.02)), 0.0, 0.0)
    return Camera(
        width=width,
        height=height,
        fx=float(focal * squash),
        fy=float(focal / squash),
        cx=float((0.5 + centre[0]) * width),
        cy=float((0.5 + centre[1]) * height),
        model=CameraModel(model),
        distortion=distortion,
    )


def _sample_lights(rng: np.random.Generator) -> tuple[Light, ...]:
    count = int(rng.choice((1, 2, 3, 4), p=(0.35, 0.42, 0.17, 0.06)))
    cone = float(rng.uniform(90.0, 150.0)) if rng.random() < 0.15 else 180.0
    spread = float(rng.choice((0.3, rng.uniform(1.0, 4.5))))
    start = rng.uniform(0, 2 * np.pi)
    lights = []
    for k in range(count):
        angle = start + 2 * np.pi * k / count + rng.normal(0, 0.2)
        lights.append(
            Light(
                position_mm=(
                    spread * float(np.cos(angle)),
                    spread * float(np.sin(angle)),
                    float(rng.uniform(-1.0, 0.5)),
                ),
                power=float(rng.uniform(0.5, 1.0)),
                beam=float(rng.uniform(0.0, 3.0)),
                casts_shadow=bool(spread > 1.0 and rng.random() < 0.5),
                cone_deg=cone,
            )
        )
    return tuple(lights)

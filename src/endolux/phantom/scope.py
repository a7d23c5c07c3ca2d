"""One instrument: its camera, its lights and the character of its image."""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np
import numpy.typing as npt

from endolux.types import Camera, CameraModel, MaskArray


@dataclasses.dataclass(frozen=True, slots=True)
class Light:
    """A small source fixed to the tip of the scope.

    Attributes:
        position_mm: in camera axes (x right, y down, z forward).
        power: relative radiant intensity.
        beam: exponent of the cosine emission profile around the optical axis.
        casts_shadow: whether shadow rays are traced; a light at the lens casts none that the camera sees.
    """

    position_mm: tuple[float, float, float]
    power: float
    beam: float
    casts_shadow: bool


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
        exposure=float(rng.uniform(0.3, 1.1)),
        gamma=float(rng.uniform(1.5, 2.7)),
        shoulder=float(rng.choice((0.0, rng.uniform(0.2, 1.0)))),
        white_balance=tuple(float(value) for value in np.exp(rng.normal(0.0, (0.06, 0.03, 0.10)))),  # type: ignore[arg-type]
        vignette=float(rng.choice((0.0, rng.uniform(0.0, 0.6)))),
        blur_px=float(rng.uniform(0.3, 1.1)) * width / 320.0,
        chroma_blur_px=float(rng.uniform(0.0, 1.2)) * width / 320.0,
        shot_noise=float(rng.choice((0.0, rng.uniform(0.0, 0.025)))),
        read_noise=float(rng.uniform(0.0, 0.012)),
        jpeg_quality=int(rng.choice((0, int(rng.integers(40, 96))))),
        content=sample_content(rng, width=width, height=height),
    )


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
    field = np.deg2rad(rng.uniform(55, 112) if model != "fisheye" else rng.uniform(80, 132))
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
    count = int(rng.choice((1, 2, 3), p=(0.35, 0.45, 0.2)))
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
            )
        )
    return tuple(lights)


def rays_of(camera: Camera) -> npt.NDArray[np.float32]:
    """H*W x 3 directions with z = 1 in camera axes."""
    from endolux.geometry.cameras import rays

    return np.ascontiguousarray(rays(camera).reshape(-1, 3), np.float32)

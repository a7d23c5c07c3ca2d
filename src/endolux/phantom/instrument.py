"""Which instruments a preset allows: ranges of camera, light and image processing, as data."""

from __future__ import annotations

import dataclasses
import difflib
from typing import Annotated, Literal, Self

import numpy as np
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from endolux.phantom.scope import Light, Scope
from endolux.types import Camera, CameraModel


def _as_range(value: object) -> object:
    return (value, value) if isinstance(value, int | float) and not isinstance(value, bool) else value


def _ordered(value: tuple[float, float]) -> tuple[float, float]:
    if not (np.isfinite(value).all() and value[0] <= value[1]):
        raise ValueError("a range is two finite numbers, the smaller first")
    return value


Range = Annotated[tuple[float, float], BeforeValidator(_as_range)]
"""Smallest and largest value; one number stands for itself."""


class _Data(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class FixedCamera(_Data):
    """One exact camera at one size; other sizes get it as if the picture had been resized."""

    width: int = Field(ge=1)
    height: int = Field(ge=1)
    fx: float = Field(gt=0)
    fy: float = Field(gt=0)
    cx: float
    cy: float
    model: CameraModel = CameraModel.PINHOLE
    distortion: tuple[float, ...] = ()

    def at(self, width: int, height: int) -> Camera:
        """The camera of pictures of width x height."""
        camera = Camera(**self.model_dump())
        return camera if (width, height) == (self.width, self.height) else camera.resize(width, height)


class CameraChoice(_Data):
    """Cameras to draw from.

    Example:
        >>> import numpy as np
        >>> choice = CameraChoice(models={"pinhole": 1}, field_of_view_deg=90, centre=0)
        >>> round(choice.draw(np.random.default_rng(0), 300, 400).fx)
        250
    """

    models: dict[CameraModel, float] = Field(default={CameraModel.PINHOLE: 1.0}, min_length=1)
    field_of_view_deg: Range = Field(default=(55.0, 112.0), description="Across the diagonal; 10 to 170.")
    centre: float = Field(default=0.03, ge=0, le=0.3, description="Deviation of the principal point, of a side.")
    k1: Range = Field(default=(-0.08, 0.06), description="First coefficient where there is distortion.")
    fixed: FixedCamera | None = Field(default=None, description="This camera and no other.")

    @model_validator(mode="after")
    def _possible(self) -> Self:
        low, high = _ordered(self.field_of_view_deg)
        widest = 170.0 if set(self.models) == {CameraModel.FISHEYE} else 150.0
        if not 10.0 <= low <= high <= widest:
            raise ValueError(f"a field of view of {low:g} to {high:g} degrees is not within 10 to {widest:g}")
        if not sum(self.models.values()) > 0 or min(self.models.values()) < 0:
            raise ValueError("weights of camera models are positive")
        if not -0.2 <= _ordered(self.k1)[0] <= self.k1[1] <= 0.3:
            raise ValueError("k1 is not within -0.2 to 0.3")
        return self

    def draw(self, rng: np.random.Generator, width: int, height: int) -> Camera:
        """One camera for pictures of width x height."""
        if self.fixed is not None:
            return self.fixed.at(width, height)
        names = sorted(self.models)
        weights = np.array([self.models[name] for name in names])
        model = CameraModel(str(rng.choice(names, p=weights / weights.sum())))
        half = np.deg2rad(rng.uniform(*self.field_of_view_deg)) / 2
        shift = rng.normal(0.0, self.centre, 2) if self.centre > 0 else np.zeros(2)
        k1 = float(rng.uniform(*self.k1))
        radius = 0.5 * float(np.hypot(width, height))
        distortion: tuple[float, ...] = ()
        focal = radius / float(np.tan(min(half, np.deg2rad(75.0))))
        if model is CameraModel.FISHEYE:
            distortion = (k1, 0.0, 0.0, 0.0)
            focal = radius / float(half * (1 + k1 * half**2))
        elif model is CameraModel.RADTAN:
            distortion = (k1, 0.0, 0.0, 0.0, 0.0)
        return Camera(
            width=width,
            height=height,
            fx=float(focal),
            fy=float(focal),
            cx=float((0.5 + shift[0]) * width - 0.5),
            cy=float((0.5 + shift[1]) * height - 0.5),
            model=model,
            distortion=distortion,
        )


class LightChoice(_Data):
    """Lights to draw from: ``count`` of them on a circle around the lens."""

    count: tuple[int, int] = Field(default=(1, 3))
    spread_mm: Range = (0.3, 4.0)
    beam: Range = (0.0, 3.0)
    shadows: float = Field(default=0.5, ge=0, le=1, description="Probability that a light off the lens casts shadows.")

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if not 1 <= self.count[0] <= self.count[1] <= 4:
            raise ValueError("between 1 and 4 lights are possible")
        if not 0 <= _ordered(self.spread_mm)[0] <= self.spread_mm[1] <= 20:
            raise ValueError("lights lie 0 to 20 mm from the lens")
        if not 0 <= _ordered(self.beam)[0] <= self.beam[1] <= 20:
            raise ValueError("the beam exponent is 0 to 20")
        return self

    def draw(self, rng: np.random.Generator) -> tuple[Light, ...]:
        """The lights of one instrument."""
        count = int(rng.integers(self.count[0], self.count[1] + 1))
        spread = float(rng.uniform(*self.spread_mm))
        start = rng.uniform(0, 2 * np.pi)
        shadow = bool(spread > 1.0 and rng.random() < self.shadows)
        angles = start + 2 * np.pi * np.arange(count) / count
        return tuple(
            Light(
                position_mm=(spread * float(np.cos(angle)), spread * float(np.sin(angle)), 0.0),
                power=1.0 / count,
                beam=float(rng.uniform(*self.beam)),
                casts_shadow=shadow,
            )
            for angle in angles
        )


class ScopeChoice(_Data):
    """What is left to chance in an instrument. What is not named here is drawn as widely as ``sample_scope`` draws.

    Example:
        >>> ScopeChoice(look={"shot_noise": 0, "gamma": [2.0, 2.4]}).look["gamma"]
        (2.0, 2.4)
    """

    camera: CameraChoice | None = None
    lights: LightChoice | None = None
    look: dict[str, Range] = Field(
        default_factory=dict, description="Ranges of numbers of Scope; lengths in pixels are those at width 320."
    )
    content: Literal["any", "full"] = "any"
    neutral: bool = Field(default=False, description="White light without a tint by white balance.")

    @model_validator(mode="after")
    def _known(self) -> Self:
        known = look_fields()
        for name, value in self.look.items():
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1)
                hint = f", did you mean '{near[0]}'?" if near else f"; there are {', '.join(known)}"
                raise ValueError(f"a scope has no number '{name}'{hint}")
            _ordered(value)
        return self

    def narrow(self, scope: Scope, rng: np.random.Generator) -> Scope:
        """The scope with everything drawn anew that this choice names."""
        width, height = scope.camera.width, scope.camera.height
        changes: dict[str, object] = {}
        if self.camera is not None:
            changes["camera"] = self.camera.draw(rng, width, height)
        if self.lights is not None:
            changes["lights"] = self.lights.draw(rng)
        for name in sorted(self.look):
            drawn = float(rng.uniform(*self.look[name]))
            current = getattr(scope, name)
            if name.endswith("_px"):
                drawn *= width / 320.0
            changes[name] = bool(drawn > 0.5) if isinstance(current, bool) else drawn
            if isinstance(current, int) and not isinstance(current, bool):
                changes[name] = round(drawn)
        if self.content == "full":
            changes["content"] = np.ones((height, width), bool)
        if self.neutral:
            changes |= {"white_balance": (1.0, 1.0, 1.0), "spectrum": "white"}
        return dataclasses.replace(scope, **changes)  # type: ignore[arg-type]


def look_fields() -> list[str]:
    """Names of the plain numbers of a scope, which ``ScopeChoice.look`` may narrow."""
    return sorted(field.name for field in dataclasses.fields(Scope) if field.type in ("float", "int", "bool"))

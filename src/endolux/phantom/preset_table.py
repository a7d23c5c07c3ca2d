"""Presets as data: what each of them changes of the whole world."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class Preset(BaseModel):
    """A named starting point.

    Attributes:
        summary: one line.
        anatomies: weights; names that this version lacks are skipped, and empty stands for all.
        settings: other settings, as :class:`StreamSettings` takes them.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    summary: str
    anatomies: dict[str, float] = Field(default_factory=dict)
    settings: dict[str, object] = Field(default_factory=dict)


_NO_ARTEFACTS = dict.fromkeys(
    (
        "shot_noise", "read_noise", "jpeg_quality", "h264_crf", "chroma_blur_px", "vignette", "defocus_px",
        "chromatic_px", "shutter", "rolling", "interlaced", "demosaic", "sharpen", "overlay_seed",
        "black",
    ),
    0,
)  # fmt: skip
_NEUTRAL_LOOK = {"scatter_mm": 0, "saturation": 1}
_C3VD_CAMERA = {
    "width": 1350,
    "height": 1080,
    "fx": 767.8212167017787,
    "fy": 767.8212167017787,
    "cx": 678.5448,
    "cy": 542.9759,
    "model": "fisheye",
    "distortion": [-0.18823502009331616, -0.00900024461262448, 0.03134907766378786, -0.007404239577478986],
}

PRESETS: dict[str, Preset] = {
    "train": Preset(
        summary="every anatomy through every instrument: wide domain randomisation",
        settings={"rich_texture": 0.3},
    ),
    "clean": Preset(
        summary="every anatomy through one ideal pinhole camera with its light at the lens, without artefacts",
        settings={
            "even_light": 0.0,
            "smoke": 0.0,
            "scope": {
                "camera": {"models": {"pinhole": 1}, "field_of_view_deg": [80, 80], "centre": 0},
                "lights": {"count": [1, 1], "spread_mm": 0, "beam": 0, "shadows": 0},
                "look": {
                    **_NO_ARTEFACTS,
                    **_NEUTRAL_LOOK,
                    "chroma_subsampling": 444,
                    "falloff": 2,
                    "gamma": 2.2,
                    "shoulder": 0.5,
                    "blur_px": 0,
                    "bounce": 0.3,
                    "exposure": (0.35, 0.9),
                },
                "content": "full",
                "neutral": True,
            },
        },
    ),
    "c3vd-like": Preset(
        summary="silicone colon through a wide colonoscope lens, as in C3VD",
        anatomies={"phantom-silicone": 1.0},
        settings={
            "even_light": 0.0,
            "held": 0.0,
            "motion": "withdrawal",
            "scope": {
                "camera": {"models": {"fisheye": 1}, "fixed": _C3VD_CAMERA},
                "lights": {"count": [2, 3], "spread_mm": [2.5, 4.5], "beam": [0, 1], "shadows": 1},
                "look": {"falloff": [1.8, 2.2], "shot_noise": [0, 0.012], "read_noise": [0, 0.006], "vignette": 0},
                "content": "full",
            },
        },
    ),
    "scared-like": Preset(
        summary="laparoscopy through a da Vinci-like stereo endoscope, as in SCARED",
        anatomies={"laparoscopy": 1.0},
        settings={
            "motion": "hover",
            "baseline_mm": 4.2,
            "scope": {
                "camera": {"models": {"radtan": 1}, "field_of_view_deg": [70, 84], "centre": 0.02, "k1": [-0.03, 0.03]},
                "lights": {"count": [2, 2], "spread_mm": [3, 5], "beam": [0, 2], "shadows": 1},
                "look": {"shot_noise": [0, 0.02], "read_noise": [0, 0.01], "vignette": [0, 0.4]},
                "content": "full",
            },
        },
    ),
    "l3d-like": Preset(
        summary="the liver from the navel, with ridge, silhouette and ligament in view, as in L3D",
        anatomies={"liver": 1.0},
        settings={
            "views_per_scene": 6,
            "even_light": 0.3,
            "scope": {
                # A pinhole: far outside of the view, a radial model folds lines back into it.
                "camera": {"models": {"pinhole": 1}, "field_of_view_deg": [58, 88], "centre": 0.02},
                "lights": {"count": [1, 2], "spread_mm": [1, 5], "beam": [0, 2], "shadows": 0.7},
                "look": {"shot_noise": [0, 0.02], "read_noise": [0, 0.01], "vignette": [0, 0.5]},
            },
        },
    ),
    "endoslam-like": Preset(
        summary="rendered stomach, small intestine and colon through a wide pinhole camera, as in EndoSLAM's UnityCam",
        anatomies={"stomach": 1.0, "small-intestine": 1.0, "colon": 1.0},
        settings={
            "width": 320,
            "height": 320,
            "even_light": 0.0,
            "held": 0.0,
            "motion": "insertion",
            "scope": {
                "camera": {"models": {"pinhole": 1}, "field_of_view_deg": [108, 114], "centre": 0.01},
                "lights": {"count": [1, 1], "spread_mm": [0, 1], "beam": [0, 2], "shadows": 0},
                "look": {**_NO_ARTEFACTS, **_NEUTRAL_LOOK, "chroma_subsampling": 444, "falloff": 2},
                "content": "full",
                "neutral": True,
            },
        },
    ),
}
"""Presets by name."""

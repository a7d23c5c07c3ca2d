"""The section of a recipe about landmarks."""

from __future__ import annotations

from endolux.train.recipe_section import Section


class Segmentation(Section):
    """Pretrained encoders of a network of landmarks.

    Attributes:
        image_encoder: SAM 2.1 in the layout of transformers: a folder or a hub id (``facebook/sam2.1-hiera-large``); or
            the run of a ``hiera-depth`` of the same shape.
        depth_encoder: Depth Anything, likewise (``depth-anything/Depth-Anything-V2-Small-hf``, or the run of one).
    """

    image_encoder: str | None = None
    depth_encoder: str | None = None

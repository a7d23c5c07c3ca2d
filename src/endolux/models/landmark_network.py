"""What every network of landmark classes offers."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import Self, TypeAlias

import torch.nn.functional as F  # noqa: N812
from torch import Tensor
from typing_extensions import override

from endolux.errors import UsageError
from endolux.models.base import DepthNetwork
from endolux.models.parts import Part, create_part

LANDMARKS = ("background", "ridge", "silhouette", "ligament")
"""Classes of the liver's landmarks, in the order of L3D's numbers."""


class LandmarkNetwork(Part, abc.ABC):
    """A network that maps an image to scores of classes; the first class is the background.

    Args:
        classes: names, at least two.

    Attributes:
        classes: names of the classes in the order of the scores.
        multiple: height and width of the input must be multiples of this.
        exportable: whether it can become a graph.
        any_size: whether that graph takes any size of picture; otherwise the one that :meth:`fixed` was given.
        reads_depth: whether it reads inverse depth beside the picture.
    """

    classes: tuple[str, ...]
    multiple: int
    exportable: bool = True
    any_size: bool = True
    reads_depth: bool = False

    def __init__(self, *, classes: Sequence[str] = LANDMARKS) -> None:
        super().__init__()
        self.classes = tuple(str(name) for name in classes)
        if len(self.classes) < 2 or len(set(self.classes)) != len(self.classes) or len(self.classes) > 255:
            raise UsageError(
                f"Impossible classes: {', '.join(self.classes) or 'none'}",
                why="There are 2 to 255 different ones, and the first is the background.",
                fix="Leave model.config.classes out for the landmarks of the liver.",
                error_id="model.config",
            )

    @abc.abstractmethod
    def config(self) -> dict[str, object]:
        """Constructor arguments as JSON values: ``create_part(self.architecture, **self.config())``."""

    @abc.abstractmethod
    def fuse(self) -> Self:
        """A copy for inference: everything that only training needs folded or left out; the same function."""

    def fixed(self, size: tuple[int, int]) -> Self:
        """A copy that is ready to become a graph for pictures of one (width, height); itself where any size will do."""
        del size
        return self

    @abc.abstractmethod
    @override
    def forward(self, image: Tensor) -> Tensor:
        """Scores (logits), N x classes x h x w of the network's own resolution, for N x 3 x H x W RGB in [0, 1]."""

    def with_inverse_depth(self, image: Tensor, inverse_depth: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """What :meth:`forward` gives, and relative inverse depth N x 1 x h x w where the network learns it.

        Args:
            image: N x 3 x H x W RGB in [0, 1].
            inverse_depth: N x 1 x H x W in [0, 1], for networks that read it.
        """
        del inverse_depth
        return self(image), None

    def probabilities(self, image: Tensor) -> Tensor:
        """Probabilities of the classes at every pixel, N x classes x H x W float32; their sum is 1."""
        scores = F.interpolate(self(image).float(), image.shape[2:], mode="bilinear", align_corners=False)
        return scores.softmax(dim=1)


ExportedNetwork: TypeAlias = DepthNetwork | LandmarkNetwork
"""What a training can export."""


def create_landmarks(name: str, **config: object) -> LandmarkNetwork:
    """A landmark network with fresh weights.

    Args:
        name: ``srft-galore``, ``landmarks-light`` or ``d2gpland``.
        **config: arguments of its constructor.

    Raises:
        UsageError: ``model.architecture`` for another name, ``model.config`` for unsuitable arguments.

    Example:
        >>> create_landmarks("landmarks-light", size="t").classes
        ('background', 'ridge', 'silhouette', 'ligament')
    """
    network = create_part(name, **config)
    if not isinstance(network, LandmarkNetwork):
        raise UsageError(
            f"'{name}' gives no landmarks",
            why="It is a part of a depth network.",
            fix="Choose 'landmarks-light' or 'srft-galore'.",
            error_id="model.architecture",
        )
    return network

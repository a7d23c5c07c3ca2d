"""What a student learns from a teacher: its answers (response), its features, and relations between places.

Teacher maps are inverse depths of any positive scale, N x 1 x H x W; every loss here is blind to that scale. All work
in float32 whatever the autocast (in float64 if that is what they get). Masks are bool; what lies outside changes
nothing, and an empty mask gives 0 with a zero gradient.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypeAlias

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from typing_extensions import override

from endolux.errors import UsageError

Maximum: TypeAlias = Literal["map", "batch"]
Shift: TypeAlias = Literal["subtract", "add", "none"]
FeatureKind: TypeAlias = Literal["cosine", "mse"]
RelationKind: TypeAlias = Literal["distance", "affinity", "similarity"]

SHIFT_EPSILON = 1e-6
FLOOR = 1e-3
"""Default of :func:`response_loss`."""
_TINY = 1e-6
# An all-zero teacher map stays 0 instead of 0 / 0.
_NOTHING = 1e-30
# Sub-cells a side that describe a place of a one-channel map.
_PATCH = 4


def shift_teacher(maps: Tensor, how: Shift = "subtract", *, mask: Tensor | None = None) -> Tensor:
    """Teacher maps with the shift that Leve gives them, each map on its own.

    ``subtract``: ``K - min K + 1e-6``, which is what was meant: a disparity is known up to a shift, and its smallest
    value becomes (nearly) 0. ``add``: ``K + |min K| + 1e-6``, as the published code does; for maps that are not
    negative this moves the smallest value away from 0. ``none``: as they are, for maps whose zero has a meaning.

    Args:
        maps: N x 1 x H x W.
        how: see above.
        mask: bool, same shape: pixels among which the minimum is searched.

    Returns:
        Same shape, float32 (float64 for float64); 0 outside the mask.

    Raises:
        UsageError: ``loss.setting`` for another ``how``, ``loss.shape``.

    Example:
        >>> shift_teacher(torch.tensor([[[[2.0, 5.0]]]]), "add").tolist()
        [[[[4.000000953674316, 7.000000953674316]]]]
    """
    _choice("shift", how, ("subtract", "add", "none"))
    maps = _precise(maps)
    if mask is not None:
        _same(maps, mask)
        maps = torch.where(mask, maps, 0.0)
    if how == "none":
        return maps
    searched = maps if mask is None else torch.where(mask, maps, torch.inf)
    lowest = searched.amin(dim=(1, 2, 3), keepdim=True)
    shifted = maps + (lowest.abs() if how == "add" else -lowest) + SHIFT_EPSILON
    return shifted if mask is None else torch.where(mask, shifted, 0.0)


def response_loss(
    output: Tensor,
    teacher: Tensor,
    *,
    maximum: Maximum = "map",
    mask: Tensor | None = None,
    floor: float = FLOOR,
) -> Tensor:
    """Mean of ``|o / max o - k / max k|``: Leve's distillation term. The gradient also flows through ``max o``.

    Args:
        output: ratios of the network, N x 1 x H x W.
        teacher: inverse depths of any scale, same shape, already shifted.
        maximum: ``map``: of each map, as the thesis says; ``batch``: of the whole batch, as the code does.
        mask: bool, same shape: pixels where the teacher says something.
        floor: smallest maximum to divide by. An untrained network's maximum may be 0 or negative, which would flip
            or explode the term; 0 switches the guard off, as published.

    Raises:
        UsageError: ``loss.shape`` or ``loss.setting``.

    Source:
        Leve (Drăgan, 2024); response-based distillation: Hinton et al., arXiv 1503.02531 (2015).

    Example:
        >>> ratios = torch.rand(2, 1, 8, 8) + 1
        >>> float(response_loss(ratios, 7.0 * ratios)) < 1e-6
        True
    """
    _choice("maximum", maximum, ("map", "batch"))
    _same(output, teacher, mask)
    with torch.autocast(output.device.type, enabled=False):
        output, teacher = _precise(output), _precise(teacher)
        if mask is not None:
            output, teacher = torch.where(mask, output, 0.0), torch.where(mask, teacher, 0.0)
        axes = (1, 2, 3) if maximum == "map" else (0, 1, 2, 3)
        error = (_by_maximum(output, mask, axes, floor) - _by_maximum(teacher, mask, axes, _NOTHING)).abs()
        if mask is None:
            return error.mean()
        counts = mask.sum(dim=(1, 2, 3))
        means = torch.where(mask, error, 0.0).sum(dim=(1, 2, 3)) / counts.clamp(min=1)
        return means.sum() / (counts > 0).sum().clamp(min=1)


def total(student: Tensor, response: Tensor, *, epsilon: float) -> Tensor:
    """``(1 - epsilon) student + epsilon response``; the thesis tries 0.10, 0.25 and 0.50.

    Raises:
        UsageError: ``loss.setting`` for an epsilon outside [0, 1].

    Example:
        >>> float(total(torch.tensor(2.0), torch.tensor(1.0), epsilon=0.25))
        1.75
    """
    if not 0.0 <= epsilon <= 1.0:
        raise UsageError(
            f"Impossible epsilon {epsilon}",
            why="It is the share of the teacher in the loss.",
            fix="Use a number from 0 to 1; the thesis's best is 0.25.",
            error_id="loss.setting",
        )
    return (1.0 - epsilon) * student + epsilon * response


class FeatureProjector(nn.Module):
    """One 1 x 1 convolution a pair, from the student's channels to the teacher's; trained with the student only.

    Source:
        The regressor of FitNets (Romero et al., ICLR 2015).

    Args:
        channels: (student channels, teacher channels) by pair name.

    Example:
        >>> projector = FeatureProjector({"middle": (8, 12)})
        >>> projector("middle", torch.rand(2, 8, 5, 6)).shape
        torch.Size([2, 12, 5, 6])
    """

    def __init__(self, channels: Mapping[str, tuple[int, int]]) -> None:
        super().__init__()
        self._keys = {name: f"pair{index}" for index, name in enumerate(channels)}
        # Names of layers hold dots, which names of modules may not.
        self.layers = nn.ModuleDict(
            {self._keys[name]: nn.Conv2d(student, teacher, 1) for name, (student, teacher) in channels.items()}
        )

    @override
    def forward(self, name: str, features: Tensor) -> Tensor:
        """The student's features of one pair in the teacher's channels."""
        projected: Tensor = self.layers[self._keys[name]](features)
        return projected


def feature_loss(
    student: Tensor, teacher: Tensor, *, kind: FeatureKind = "cosine", mask: Tensor | None = None
) -> Tensor:
    """Distance between (projected) features of the student and those of the teacher.

    Both are brought to the smaller of the two grids by area means. ``cosine``: mean over places of 1 - cosine over
    channels; blind to the length of every feature vector. ``mse``: half the mean squared difference after every
    channel of every image was given mean 0 and variance 1 over its places, which is 1 - Pearson correlation; blind to
    scale and shift of every channel. Both lie in [0, 2].

    Args:
        student: N x C x h x w, projected to the teacher's channels.
        teacher: N x C x h' x w'.
        kind: see above.
        mask: bool, N x 1 x H x W of any size: places count whose area is at least half inside.

    Raises:
        UsageError: ``loss.shape`` or ``loss.setting``.

    Source:
        FitNets (Romero et al., ICLR 2015) for matching features through a projector; ``mse``: PKD (Cao et al.,
        NeurIPS 2022); ``cosine`` normalises every place instead of every channel.

    Example:
        >>> features = torch.rand(2, 6, 4, 5)
        >>> float(feature_loss(3.0 * features, features)) < 1e-5
        True
    """
    _choice("feature kind", kind, ("cosine", "mse"))
    if student.ndim != 4 or teacher.ndim != 4 or student.shape[:2] != teacher.shape[:2]:
        raise UsageError(
            f"Features of shapes {tuple(student.shape)} and {tuple(teacher.shape)}",
            why="Both must be N x C x h x w with the same N and C.",
            fix="Project the student's features to the teacher's channels first (FeatureProjector).",
            error_id="loss.shape",
        )
    with torch.autocast(student.device.type, enabled=False):
        student, teacher = _precise(student), _precise(teacher)
        size = (min(student.shape[2], teacher.shape[2]), min(student.shape[3], teacher.shape[3]))
        student, teacher = _shrink(student, size), _shrink(teacher, size)
        weight = _weights(mask, student, size)
        if kind == "cosine":
            cosine = F.cosine_similarity(student, teacher, dim=1, eps=_TINY)
            error = (1.0 - cosine)[:, None]
        else:
            error = 0.5 * (_standard(student, weight) - _standard(teacher, weight)).square().mean(dim=1, keepdim=True)
        return _weighted_mean(error, weight)


def relation_loss(
    student: Tensor,
    teacher: Tensor,
    *,
    kind: RelationKind = "distance",
    size: tuple[int, int] = (12, 16),
    mask: Tensor | None = None,
) -> Tensor:
    """How places (or images) relate to one another, in the student and in the teacher.

    Both maps are pooled to ``size`` by area means first. All kinds are blind to a positive factor on either map,
    and for maps of one channel also to a shift; so a disparity of unknown scale and shift may teach a ratio.

    * ``distance``: smooth-L1 between the differences of all pairs of places of an image, each divided by their mean
      absolute value. Signed, so that nearer and farther are not confused. RKD-D (Park et al., CVPR 2019, equation 6)
      with places for samples.
    * ``affinity``: mean squared difference of the cosines between all pairs of places. Structured knowledge
      distillation (Liu et al., CVPR 2019, equation 3). A place of a one-channel map is described by the 4 x 4
      sub-cells that it pools, less the mean of the map: its height and its shape.
    * ``similarity``: squared difference of the row-normalised Gram matrices of the images of a batch, divided by the
      squared batch size. Maps of one channel are taken less their mean. Similarity-preserving distillation (Tung and
      Mori, ICCV 2019, equation 4). Says nothing for a batch of 1.

    Args:
        student: N x C x H x W (C is 1 for depth maps).
        teacher: N x C' x H' x W', any size.
        kind: see above.
        size: rows and columns of places; fewer where a map is smaller.
        mask: bool, N x 1 x H x W: pixels that count; places at least half inside are used.

    Raises:
        UsageError: ``loss.shape`` or ``loss.setting``.

    Example:
        >>> ratio = torch.rand(2, 1, 24, 32) + 1
        >>> [float(relation_loss(ratio, 5.0 * ratio, kind=kind)) < 1e-6 for kind in ("distance", "affinity")]
        [True, True]
    """
    _choice("relation kind", kind, ("distance", "affinity", "similarity"))
    if student.ndim != 4 or teacher.ndim != 4 or len(student) != len(teacher):
        raise UsageError(
            f"Relations between maps of shapes {tuple(student.shape)} and {tuple(teacher.shape)}",
            why="Both must be N x C x H x W with the same N.",
            fix="Add the channel axis, and give both maps of the same batch.",
            error_id="loss.shape",
        )
    if kind == "distance" and (student.shape[1] != 1 or teacher.shape[1] != 1):
        raise UsageError(
            f"Distances between places of {student.shape[1]} and {teacher.shape[1]} channels",
            why="The signed difference of two places is defined for maps of one channel.",
            fix="Use kind='affinity' for features.",
            error_id="loss.shape",
        )
    with torch.autocast(student.device.type, enabled=False):
        student, teacher = _precise(student), _precise(teacher)
        if kind == "affinity":
            return _affinity_loss(student, teacher, mask, size)
        grid = _grid(size, student, teacher)
        weight = _weights(mask, student, grid)
        first, second = _pool(student, mask, grid), _pool(teacher, mask, grid)
        if kind == "similarity":
            if student.shape[1] == teacher.shape[1] == 1:
                # What all depth maps share, their mean, would make every pair of images alike.
                first, second = _centred(first, weight), _centred(second, weight)
            return (_gram(first * weight) - _gram(second * weight)).square().mean()
        return _distance_loss(first.flatten(1), second.flatten(1), weight.flatten(1))


def _distance_loss(student: Tensor, teacher: Tensor, weight: Tensor) -> Tensor:
    pairs = weight[:, :, None] * weight[:, None, :]
    # A place has no distance to itself: of n places n (n - 1) pairs count.
    counts = (pairs.sum(dim=(1, 2)) - weight.sum(dim=1)).clamp(min=1.0)
    relations = []
    for places in (student, teacher):
        differences = (places[:, :, None] - places[:, None, :]) * pairs
        mean = differences.abs().sum(dim=(1, 2)) / counts
        relations.append(differences / mean.clamp(min=_TINY)[:, None, None])
    errors = F.smooth_l1_loss(relations[0], relations[1], reduction="none").sum(dim=(1, 2)) / counts
    images = (weight.sum(dim=1) > 1).sum().clamp(min=1)
    return errors.sum() / images


def _affinity_loss(student: Tensor, teacher: Tensor, mask: Tensor | None, size: tuple[int, int]) -> Tensor:
    grid = _grid(size, student, teacher)
    weight = _weights(mask, student, grid).flatten(1)
    affinities = []
    for maps in (student, teacher):
        if maps.shape[1] == 1:
            fine = (min(grid[0] * _PATCH, maps.shape[2]), min(grid[1] * _PATCH, maps.shape[3]))
            fine = (fine[0] // grid[0] * grid[0], fine[1] // grid[1] * grid[1])
            cells = _pool(maps, mask, fine)
            inside = _weights(mask, maps, fine)
            cells = _centred(cells, inside)
            rows, columns = fine[0] // grid[0], fine[1] // grid[1]
            places = cells.view(len(cells), grid[0], rows, grid[1], columns).permute(0, 2, 4, 1, 3)
            places = places.reshape(len(cells), rows * columns, -1)
        else:
            places = _pool(maps, mask, grid).flatten(2)
        places = places / places.square().sum(dim=1, keepdim=True).clamp(min=_TINY**2).sqrt()
        affinities.append(places.transpose(1, 2) @ places)
    pairs = weight[:, :, None] * weight[:, None, :]
    counts = pairs.sum(dim=(1, 2))
    errors = ((affinities[0] - affinities[1]).square() * pairs).sum(dim=(1, 2)) / counts.clamp(min=1.0)
    return errors.sum() / (counts > 0).sum().clamp(min=1)


def _centred(maps: Tensor, weight: Tensor) -> Tensor:
    count = weight.sum(dim=(1, 2, 3), keepdim=True).clamp(min=1.0)
    return (maps - (maps * weight).sum(dim=(1, 2, 3), keepdim=True) / count) * weight


def _gram(maps: Tensor) -> Tensor:
    rows = maps.flatten(1)
    # Normalised first: a batch of disparities in the thousands would overflow nothing, but lose digits.
    rows = rows / rows.square().sum(dim=1, keepdim=True).clamp(min=_TINY**2).sqrt()
    gram = rows @ rows.T
    return gram / gram.square().sum(dim=1, keepdim=True).clamp(min=_TINY**2).sqrt()


def _by_maximum(maps: Tensor, mask: Tensor | None, axes: tuple[int, ...], floor: float) -> Tensor:
    searched = maps if mask is None else torch.where(mask, maps, -torch.inf)
    highest = searched.amax(dim=axes, keepdim=True)
    if mask is not None:
        highest = torch.where(torch.isfinite(highest), highest, 1.0)
    if floor > 0.0:
        highest = highest.clamp(min=floor)
    return maps / highest


def _grid(size: tuple[int, int], *maps: Tensor) -> tuple[int, int]:
    if min(size) < 1:
        raise UsageError(
            f"A grid of {size[0]} x {size[1]} places",
            why="Relations need rows and columns.",
            fix="Use (12, 16).",
            error_id="loss.setting",
        )
    return min(size[0], *(m.shape[2] for m in maps)), min(size[1], *(m.shape[3] for m in maps))


def _shrink(maps: Tensor, size: tuple[int, int]) -> Tensor:
    return maps if maps.shape[2:] == size else F.adaptive_avg_pool2d(maps, size)


def _pool(maps: Tensor, mask: Tensor | None, size: tuple[int, int]) -> Tensor:
    if mask is None:
        return _shrink(maps, size)
    inside = _fit(mask, maps)
    return _shrink(torch.where(inside, maps, 0.0), size) / _shrink(inside.to(maps.dtype), size).clamp(min=_TINY)


def _weights(mask: Tensor | None, maps: Tensor, size: tuple[int, int]) -> Tensor:
    """1 for the places that count, N x 1 x h x w."""
    if mask is None:
        return maps.new_ones((len(maps), 1, *size))
    return (_shrink(mask.to(maps.dtype), size) >= 0.5).to(maps.dtype)


def _fit(mask: Tensor, maps: Tensor) -> Tensor:
    if mask.shape[2:] == maps.shape[2:]:
        return mask
    return F.interpolate(mask.to(maps.dtype), maps.shape[2:], mode="nearest-exact") > 0.5


def _standard(maps: Tensor, weight: Tensor) -> Tensor:
    count = weight.sum(dim=(2, 3), keepdim=True).clamp(min=1.0)
    mean = (maps * weight).sum(dim=(2, 3), keepdim=True) / count
    centred = (maps - mean) * weight
    variance = centred.square().sum(dim=(2, 3), keepdim=True) / count
    return centred / torch.sqrt(variance + _TINY)


def _weighted_mean(error: Tensor, weight: Tensor) -> Tensor:
    counts = weight.sum(dim=(1, 2, 3))
    means = (error * weight).sum(dim=(1, 2, 3)) / counts.clamp(min=1.0)
    return means.sum() / (counts > 0).sum().clamp(min=1)


def _precise(tensor: Tensor) -> Tensor:
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def _same(first: Tensor, *others: Tensor | None) -> None:
    shapes = [tuple(tensor.shape) for tensor in (first, *others) if tensor is not None]
    if len(set(shapes)) != 1 or first.ndim != 4 or first.shape[1] != 1 or 0 in first.shape:
        raise UsageError(
            f"Distillation got shapes {', '.join(map(str, shapes))}",
            why="Output, teacher and mask must all be the same N x 1 x H x W, and not empty.",
            fix="Resize the teacher's map to the network's output first.",
            error_id="loss.shape",
        )


def _choice(what: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise UsageError(
            f"No {what} {value!r}",
            why=f"Known: {', '.join(known)}.",
            fix=f"Use {known[0]!r}.",
            error_id="loss.setting",
        )

"""Where a pixel of one view lies in another, and pictures sampled there: by depth and motion, or by optical flow.

Pixel centres lie at integer coordinates; K is in pixels of the picture. A flow field is N x 2 x H x W with the channels
(dy, dx) as AF-SfMLearner's networks give it: the pixel (x, y) of the result is taken from (x + dx, y + dy). Everything
is computed in float32 whatever the autocast, or in float64 if that is what it gets.

Source: Zhou et al. (SfMLearner, CVPR 2017); AF-SfMLearner (Shao et al., Medical Image Analysis 2022).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from endolux.errors import UsageError

_TINY = 1e-7


def pixel_grid(height: int, width: int, *, like: Tensor) -> Tensor:
    """Coordinates of every pixel centre, 2 x H x W: x, then y.

    Example:
        >>> pixel_grid(2, 3, like=torch.zeros(1)).tolist()
        [[[0.0, 1.0, 2.0], [0.0, 1.0, 2.0]], [[0.0, 0.0, 0.0], [1.0, 1.0, 1.0]]]
    """
    rows = torch.arange(height, dtype=like.dtype, device=like.device)
    columns = torch.arange(width, dtype=like.dtype, device=like.device)
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    return torch.stack([x, y])


def backproject(depth: Tensor, inverse_k: Tensor) -> Tensor:
    """Points in the camera's frame for a depth map.

    Args:
        depth: z, N x 1 x H x W.
        inverse_k: inverse intrinsics, N x 3 x 3, of the size of ``depth``.

    Returns:
        N x 3 x H x W in the unit of ``depth``.

    Raises:
        UsageError: ``loss.shape``.

    Example:
        >>> k = torch.tensor([[[10.0, 0.0, 1.0], [0.0, 10.0, 1.0], [0.0, 0.0, 1.0]]])
        >>> backproject(torch.full((1, 1, 3, 3), 5.0), k.inverse())[0, :, 1, 2].tolist()
        [0.5, 0.0, 5.0]
    """
    _check("depth", depth, 1)
    depth = exact(depth)
    count, _, height, width = depth.shape
    grid = pixel_grid(height, width, like=depth).flatten(1)
    rays = inverse_k.to(depth.dtype) @ torch.cat([grid, torch.ones_like(grid[:1])])
    return depth * rays.reshape(count, 3, height, width)


def project(points: Tensor, k: Tensor, motion: Tensor) -> tuple[Tensor, Tensor]:
    """Pixel coordinates of points after a rigid motion.

    Args:
        points: in the first camera, N x 3 x H x W.
        k: intrinsics of the second camera, N x 3 x 3.
        motion: N x 4 x 4, maps points of the first camera to points of the second.

    Returns:
        Coordinates N x 2 x H x W (x, y) and z in the second camera N x 1 x H x W. Coordinates of points that are not
        in front of it mean nothing.

    Example:
        >>> k = torch.tensor([[[10.0, 0.0, 1.0], [0.0, 10.0, 1.0], [0.0, 0.0, 1.0]]])
        >>> xy, z = project(torch.tensor([0.5, 0.0, 5.0]).reshape(1, 3, 1, 1), k, torch.eye(4)[None])
        >>> [round(v, 4) for v in xy.flatten().tolist()], z.item()
        ([2.0, 1.0], 5.0)
    """
    points = exact(points)
    count, _, height, width = points.shape
    matrix = k.to(points.dtype) @ motion.to(points.dtype)[:, :3]
    moved = matrix[:, :, :3] @ points.flatten(2) + matrix[:, :, 3:]
    z = moved[:, 2:]
    # As published: a denominator of z + 1e-7, which only matters where z is 0.
    xy = moved[:, :2] / (z + _TINY)
    return xy.reshape(count, 2, height, width), z.reshape(count, 1, height, width)


def sample(image: Tensor, xy: Tensor, *, align_corners: bool = True) -> Tensor:
    """Bilinear samples of a picture, its border repeated outside.

    Args:
        image: N x C x H x W.
        xy: where, N x 2 x h x w in pixels (x, y).
        align_corners: True samples at these coordinates. False is what AF-SfMLearner's flow warp does on PyTorch since
            1.3, where coordinates divided by (size - 1) meet a sampler that divides by size: the picture is zoomed
            about its centre by size / (size - 1), up to half a pixel at the border (G6).

    Example:
        >>> picture = torch.arange(4.0).reshape(1, 1, 1, 4).expand(1, 1, 2, 4)
        >>> sample(picture, torch.tensor([1.5, 0.0]).reshape(1, 2, 1, 1)).item()
        1.5
    """
    height, width = image.shape[-2:]
    xy = exact(xy)
    extent = torch.tensor([max(width - 1, 1), max(height - 1, 1)], dtype=xy.dtype, device=xy.device)
    places = 2.0 * xy.permute(0, 2, 3, 1) / extent - 1.0
    with torch.autocast(image.device.type, enabled=False):
        return F.grid_sample(image.to(xy.dtype), places, padding_mode="border", align_corners=align_corners)


def warp_by_depth(
    image: Tensor, depth: Tensor, k: Tensor, motion: Tensor, *, align_corners: bool = True
) -> tuple[Tensor, Tensor]:
    """A source picture as seen from the target camera, whose depth is known.

    Args:
        image: of the source camera, N x C x H x W.
        depth: of the target camera, N x 1 x H x W.
        k: intrinsics of both, N x 3 x 3.
        motion: N x 4 x 4, target-camera points to source-camera points, in the unit of ``depth``.
        align_corners: see :func:`sample`.

    Returns:
        The picture on the target's grid, and a bool mask N x 1 x H x W of what lies in front of the source camera and
        inside its picture. The published losses use no such mask.

    Example:
        >>> picture, k = torch.rand(1, 3, 6, 8), torch.tensor([[[9.0, 0.0, 4.0], [0.0, 9.0, 3.0], [0.0, 0.0, 1.0]]])
        >>> same, visible = warp_by_depth(picture, torch.full((1, 1, 6, 8), 2.0), k, torch.eye(4)[None])
        >>> bool(torch.allclose(same, picture, atol=1e-4)), bool(visible.all())
        (True, True)
    """
    points = backproject(depth, exact(k).inverse())
    xy, z = project(points, k, motion)
    return sample(image, xy, align_corners=align_corners), _inside(xy, image) & (z > _TINY)


def rigid_flow(depth: Tensor, k: Tensor, motion: Tensor) -> Tensor:
    """The flow (dy, dx) that depth and motion mean, N x 2 x H x W in pixels.

    Shapes as for :func:`warp_by_depth`.
    """
    xy, _ = project(backproject(depth, exact(k).inverse()), k, motion)
    return (xy - pixel_grid(*depth.shape[-2:], like=xy)).flip(1)


def warp_by_flow(image: Tensor, flow: Tensor, *, align_corners: bool = True) -> Tensor:
    """A picture sampled where the flow points.

    Args:
        image: N x C x H x W.
        flow: N x 2 x H x W, (dy, dx) in pixels.
        align_corners: False is the published DARES on today's PyTorch (G6), see :func:`sample`: a flow of zero is then
            no identity.

    Raises:
        UsageError: ``loss.shape``.

    Example:
        >>> picture = torch.rand(1, 3, 6, 8)
        >>> bool(torch.allclose(warp_by_flow(picture, torch.zeros(1, 2, 6, 8)), picture, atol=1e-5))
        True
    """
    _check("flow", flow, 2)
    flow = exact(flow)
    return sample(image, pixel_grid(*flow.shape[-2:], like=flow) + flow.flip(1), align_corners=align_corners)


def resize(values: Tensor, size: tuple[int, int], *, align_corners: bool = True) -> Tensor:
    """Bilinear resize of N x C x h x w to (height, width); the same tensor where it has that size."""
    if tuple(values.shape[-2:]) == tuple(size):
        return values
    return F.interpolate(values, size=size, mode="bilinear", align_corners=align_corners)


def exact(values: Tensor) -> Tensor:
    """float32, or float64 if it is that: half precision cannot hold a pixel coordinate."""
    return values if values.dtype == torch.float64 else values.float()


def _inside(xy: Tensor, image: Tensor) -> Tensor:
    height, width = image.shape[-2:]
    x, y = xy[:, :1], xy[:, 1:]
    # Rounding must not throw the border out where nothing moves.
    slack = 1e-3
    return (x >= -slack) & (x <= width - 1 + slack) & (y >= -slack) & (y <= height - 1 + slack)


def _check(name: str, values: Tensor, channels: int) -> None:
    if values.ndim != 4 or values.shape[1] != channels:
        raise UsageError(
            f"A {name} of shape {tuple(values.shape)}",
            why=f"It must be N x {channels} x H x W.",
            fix="Add or drop axes before the warp.",
            error_id="loss.shape",
        )

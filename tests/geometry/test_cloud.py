"""Point clouds: closed forms for a plane, colours of the right pixels, and places in the world."""

from __future__ import annotations

import numpy as np
import pytest

from endolux.errors import UsageError
from endolux.geometry.cameras import project
from endolux.geometry.cloud import point_cloud
from endolux.types import Camera, DepthKind, DepthMap

CAMERA = Camera(width=8, height=6, fx=7.0, fy=5.0, cx=3.2, cy=2.9)


def plane(distance: float = 10.0, *, kind: DepthKind = DepthKind.METRIC) -> DepthMap:
    valid = np.ones((6, 8), bool)
    valid[0, :3] = False
    return DepthMap(values=np.full((6, 8), distance, np.float32), kind=kind, valid=valid)


def test_points_project_back_to_the_pixels_of_their_colours() -> None:
    image = np.arange(6 * 8 * 3, dtype=np.uint8).reshape(6, 8, 3)
    cloud = point_cloud(plane(), CAMERA, image=image)
    assert cloud.points.shape == (45, 3)
    pixels = np.rint(project(cloud.points, CAMERA)).astype(int)
    assert cloud.colours is not None
    np.testing.assert_array_equal(image[pixels[:, 1], pixels[:, 0]], cloud.colours)
    np.testing.assert_allclose(cloud.points[:, 2], 10)


def test_a_wall_seen_from_two_places_is_one_wall() -> None:
    pose = np.eye(4)
    angle = 0.1
    pose[:3, :3] = [[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]]
    pose[:3, 3] = [1.0, -2.0, 3.0]
    # The wall z = 10 of the world, seen from the turned camera: z of a ray is (10 - t_z) / (R ray)_z.
    v, u = np.mgrid[0:6, 0:8]
    rays = np.stack([(u - 3.2) / 7, (v - 2.9) / 5, np.ones((6, 8))], -1) @ pose[:3, :3].T
    depth = DepthMap(values=(7.0 / rays[..., 2]).astype(np.float32), kind=DepthKind.METRIC, valid=np.ones((6, 8), bool))
    assert depth.values.std() > 0.1
    np.testing.assert_allclose(point_cloud(depth, CAMERA, pose=pose).points[:, 2], 10, rtol=1e-5)


@pytest.mark.parametrize("case", ["image", "type", "pose", "nan", "disparity", "no camera", "other camera"])
def test_what_does_not_fit_is_refused(case: str) -> None:
    image, pose = np.zeros((6, 8, 3), np.uint8), np.eye(4)
    depth, camera = plane(), CAMERA
    if case == "image":
        image = image[1:]
    elif case == "type":
        image = image.astype(np.float32)
    elif case == "pose":
        pose = pose[:3]
    elif case == "nan":
        pose[0, 0] = np.nan
    elif case == "disparity":
        depth = plane(kind=DepthKind.RELATIVE_DISPARITY)
    elif case == "no camera":
        camera = None
    else:
        camera = CAMERA.resize(4, 3)
    with pytest.raises(UsageError) as caught:
        point_cloud(depth, camera, image=image, pose=pose)
    assert caught.value.error_id.startswith("geometry.")

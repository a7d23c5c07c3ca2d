"""Rigid motions: the published numbers, closed forms, and gradients where nothing moves."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from endolux.errors import UsageError
from endolux.models.motion import rotation, transformation

AXIS, SHIFT = torch.tensor([[0.2, 0.1, -0.3]]), torch.tensor([[1.0, 2.0, 3.0]])
FORWARD = [
    [0.950581, 0.302933, 0.0680313, 1],
    [-0.283165, 0.935755, -0.210192, 2],
    [-0.127335, 0.180540, 0.975290, 3],
    [0, 0, 0, 1],
]
INVERTED = [
    [0.950581, -0.283165, -0.127335, -0.002247],
    [0.302933, 0.935755, 0.180540, -2.716063],
    [0.0680313, -0.210192, 0.975290, -2.573519],
    [0, 0, 0, 1],
]


@pytest.mark.parametrize("reproduce", [False, True])
@pytest.mark.parametrize(("invert", "wanted"), [(False, FORWARD), (True, INVERTED)])
def test_published_fixture(reproduce: bool, invert: bool, wanted: list[list[float]]) -> None:
    found = transformation(AXIS, SHIFT, invert=invert, reproduce=reproduce)
    torch.testing.assert_close(found, torch.tensor([wanted]), rtol=0, atol=2e-6)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-3, 3), min_size=3, max_size=3), st.integers(-9, 0))
def test_rotation_is_that_of_scipy(vector: list[float], exponent: int) -> None:
    axisangle = np.array(vector) * 10.0**exponent
    found = rotation(torch.from_numpy(axisangle)[None])[0].numpy()
    np.testing.assert_allclose(found, Rotation.from_rotvec(axisangle).as_matrix(), atol=1e-14)
    np.testing.assert_allclose(found @ found.T, np.eye(3), atol=1e-14)


@pytest.mark.parametrize("angle", [1e-8, 0.00999, 0.01001, 1.0, 3.1, 3.14159, 6.2])
def test_float32_is_accurate_at_every_angle(angle: float) -> None:
    vector = angle * np.array([[0.6, -0.48, 0.64]])
    found = rotation(torch.tensor(vector, dtype=torch.float32)).numpy()
    np.testing.assert_allclose(found, Rotation.from_rotvec(vector).as_matrix(), atol=1e-6)


def test_what_the_published_form_costs() -> None:
    small = torch.tensor([[1e-6, 0, 0]], dtype=torch.float64)
    published, exact = rotation(small, reproduce=True), rotation(small)
    # The axis is short by eps / (angle + eps), about a tenth here.
    assert abs(float(published[0, 2, 1] / exact[0, 2, 1]) - 1 / 1.1) < 1e-6
    moving = torch.zeros(1, 3, dtype=torch.float64, requires_grad=True)
    rotation(moving, reproduce=True)[0, 2, 1].backward()
    assert torch.equal(moving.grad, torch.zeros(1, 3, dtype=torch.float64))


def test_gradient_at_rest_is_the_generator() -> None:
    at_rest = torch.zeros(3, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(lambda v: rotation(v[None])[0], at_rest)
    wanted = np.zeros((3, 3, 3))
    wanted[2, 1, 0] = wanted[0, 2, 1] = wanted[1, 0, 2] = 1
    wanted[1, 2, 0] = wanted[2, 0, 1] = wanted[0, 1, 2] = -1
    np.testing.assert_allclose(jacobian.numpy(), wanted, atol=1e-15)


@pytest.mark.parametrize("size", [0.0, 1e-5, 0.3, 2.5])
def test_gradients(size: float) -> None:
    axisangle = (size * torch.tensor([[0.6, -0.48, 0.64], [0.0, 1.0, 0.0]], dtype=torch.float64)).requires_grad_()
    shift = torch.tensor([[1.0, -2.0, 0.5], [0.0, 0.0, 0.0]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(transformation, (axisangle, shift))
    assert torch.autograd.gradcheck(lambda a, t: transformation(a, t, invert=True), (axisangle, shift))


def test_inverse_and_identity() -> None:
    generator = torch.Generator().manual_seed(0)
    axisangle = torch.randn(8, 3, generator=generator, dtype=torch.float64)
    shift = torch.randn(8, 3, generator=generator, dtype=torch.float64)
    product = transformation(axisangle, shift) @ transformation(axisangle, shift, invert=True)
    torch.testing.assert_close(product, torch.eye(4, dtype=torch.float64).expand(8, 4, 4), rtol=0, atol=1e-14)
    still = transformation(torch.zeros(2, 3), torch.zeros(2, 3))
    assert torch.equal(still, torch.eye(4).expand(2, 4, 4))


@pytest.mark.parametrize("bad", [torch.zeros(3), torch.zeros(2, 2, 3), torch.zeros(2, 4), torch.zeros(2, 3).long()])
def test_other_shapes_are_refused(bad: torch.Tensor) -> None:
    for call in (lambda: rotation(bad), lambda: transformation(torch.zeros(2, 3), bad)):
        with pytest.raises(UsageError) as caught:
            call()
        assert caught.value.error_id == "motion.shape"
    with pytest.raises(UsageError) as caught:
        transformation(torch.zeros(2, 3), torch.zeros(3, 3))
    assert caught.value.error_id == "motion.shape"

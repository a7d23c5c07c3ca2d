"""One AdamW step in the space of a basis: plain, or compiled by torch."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple, TypeAlias, cast

import numpy as np
import torch
from torch import Tensor

from endolux.errors import UsageError

_Backend: TypeAlias = str | Callable[..., Callable[..., Any]]
_BACKEND: _Backend = "inductor"
Policy: TypeAlias = Literal["keep", "project", "reset"]


class Numbers(NamedTuple):
    """What an Adam step is multiplied by.

    Attributes:
        new1, new2: share of the new gradient in each moment, 1 - beta.
        root: of the second moment's bias correction.
        length: signed length of the step, with the first moment's bias correction.
        kept: share of the weight that decay leaves.
        eps: added to the root of the second moment.
    """

    new1: float
    new2: float
    root: float
    length: float
    kept: float
    eps: float


def numbers_of(group: Mapping[str, Any], age: float) -> Numbers:
    """The numbers of a step with the options of a group.

    Args:
        group: options of :class:`endolux.adapt.GaLoreAdamW`.
        age: steps that the moments have seen, with this one.

    Example:
        >>> options = {"lr": 0.1, "betas": (0.9, 0.99), "eps": 0.0, "weight_decay": 0.5, "scale": 2.0}
        >>> [round(number, 6) for number in numbers_of(options, 1.0)]
        [0.1, 0.01, 0.1, -2.0, 0.95, 0.0]
    """
    beta1, beta2 = group["betas"]
    lr = float(group["lr"])
    return Numbers(
        new1=1 - beta1,
        new2=1 - beta2,
        root=math.sqrt(1 - beta2**age),
        length=-lr / (1 - beta1**age) * group["scale"],
        kept=1 - lr * group["weight_decay"],
        eps=group["eps"],
    )


def low_rank_step(
    weight: Tensor, gradient: Tensor, state: Mapping[str, Tensor], numbers: Numbers, *, right: bool
) -> None:
    """Project, move the moments, project the step back, decay: everything in place.

    Args:
        weight: of any shape and floating type.
        gradient: the same as a matrix, float32 or wider.
        state: ``basis``, ``exp_avg`` and ``exp_avg_sq``.
        numbers: from :func:`numbers_of`.
        right: whether the basis stands on the right side of the gradient.

    Example:
        >>> weight, gradient = torch.zeros(3, 2), torch.ones(3, 2)
        >>> state = {"basis": torch.eye(2), "exp_avg": torch.zeros(3, 2), "exp_avg_sq": torch.zeros(3, 2)}
        >>> low_rank_step(weight, gradient, state, Numbers(0.1, 0.01, 0.1, -1.0, 1.0, 0.0), right=True)
        >>> weight[0].tolist()
        [-0.10000000149011612, -0.10000000149011612]
    """
    basis, first, second = state["basis"], state["exp_avg"], state["exp_avg_sq"]
    small = gradient @ basis if right else basis.T @ gradient
    first.lerp_(small, numbers.new1)
    second.mul_(1 - numbers.new2).addcmul_(small, small, value=numbers.new2)
    direction = first / (second.sqrt().div_(numbers.root).add_(numbers.eps))
    factors = (direction, basis.T) if right else (basis, direction)
    if weight.dtype == basis.dtype and weight.is_contiguous():
        weight.view(gradient.shape).addmm_(*factors, beta=numbers.kept, alpha=numbers.length)
        return
    step = (factors[0] @ factors[1]).reshape(weight.shape).to(weight.dtype)
    weight.mul_(numbers.kept).add_(step, alpha=numbers.length)


def compiled_step(
    weight: Tensor, gradient: Tensor, state: Mapping[str, Tensor], numbers: Numbers, *, right: bool
) -> None:
    """:func:`low_rank_step` as kernels that torch generates; one for each side, whatever the shapes.

    Weights that are not contiguous, or not of the gradient's type, take the plain step.

    Raises:
        UsageError: ``adapt.compile`` where torch cannot compile, for example without a C++ compiler.
    """
    if weight.dtype != gradient.dtype or not weight.is_contiguous():
        low_rank_step(weight, gradient, state, numbers, right=right)
        return
    # As tensors, so that another step is not another graph.
    scalars = tuple(torch.tensor(number, dtype=torch.float64) for number in numbers)
    matrices = (weight.view(gradient.shape), gradient, state["basis"], state["exp_avg"], state["exp_avg_sq"])
    try:
        _compiled(_BACKEND)(*matrices, *scalars, right)
    except RuntimeError as error:
        raise UsageError(
            "torch cannot compile the optimiser's step here",
            why=next(iter(str(error).strip().splitlines()), type(error).__name__)[:300],
            fix="Leave compiled out, or install a C++ compiler (on GPUs, Triton).",
            error_id="adapt.compile",
        ) from error


def carry(state: dict[str, Any], basis: Tensor, policy: Policy, *, right: bool) -> None:
    """Bring the moments over to a new basis, before it takes the place of the old one."""
    if policy == "reset":
        state["exp_avg"].zero_()
        state["exp_avg_sq"].zero_()
        state["age"].zero_()
    elif policy == "project":
        turn = state["basis"].T @ basis
        first, second = state["exp_avg"], state["exp_avg_sq"]
        # Squares of the turn, so that the second moment stays positive.
        state["exp_avg"] = first @ turn if right else turn.T @ first
        state["exp_avg_sq"] = second @ turn.square() if right else turn.T.square() @ second


def basis_generator(seed: int, parameter: int, refresh: int) -> torch.Generator:
    """The random source of one basis, the same on every machine and every rank.

    Args:
        seed: of the optimiser.
        parameter: its number over all groups.
        refresh: number of the parameter's bases so far.

    Example:
        >>> one, two = (torch.rand(1, generator=basis_generator(0, 1, n)) for n in (2, 3))
        >>> bool(one == two), bool(one == torch.rand(1, generator=basis_generator(0, 1, 2)))
        (False, True)
    """
    # On the CPU for every device: a CUDA generator draws other numbers.
    mixed = np.random.SeedSequence((seed, parameter, refresh)).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(mixed) >> 1)


@functools.cache
def _compiled(backend: _Backend) -> Callable[..., None]:
    return cast(Callable[..., None], torch.compile(_step, dynamic=True, fullgraph=True, backend=backend))


def _step(
    weight: Tensor,
    gradient: Tensor,
    basis: Tensor,
    first: Tensor,
    second: Tensor,
    new1: Tensor,
    new2: Tensor,
    root: Tensor,
    length: Tensor,
    kept: Tensor,
    eps: Tensor,
    right: bool,
) -> None:
    small = gradient @ basis if right else basis.T @ gradient
    first.lerp_(small, new1)
    second.mul_(1 - new2).add_(small * new2 * small)
    direction = first / (second.sqrt() / root + eps) * length
    weight.copy_(weight * kept + (direction @ basis.T if right else basis @ direction))

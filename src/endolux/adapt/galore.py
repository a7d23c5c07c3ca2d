"""AdamW whose moments live in a low-rank space of the gradient."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final, cast, overload

import torch
from torch import Tensor
from torch.optim.adamw import adamw
from torch.optim.optimizer import Optimizer
from typing_extensions import override

from endolux.adapt.gradients import all_finite
from endolux.adapt.low_rank_step import basis_generator, carry, compiled_step, low_rank_step, numbers_of
from endolux.adapt.options import check_options
from endolux.adapt.projections import check_rank, projection, resolve_side
from endolux.adapt.shapes import is_projected, matrix_shape, moment_shape
from endolux.errors import CheckError, ModelError, UsageError

# They decide the shape or the meaning of the saved state, so a run may not be continued with others.
_BOUND: Final = ("rank", "projection", "side")


class GaLoreAdamW(Optimizer):
    """AdamW with gradients projected to a low rank, for any torch model.

    Every ``update_interval`` steps a parameter's gradient gives a new orthonormal basis P; the moments are those of the
    projected gradient, and the step is projected back. Everything below is a group option. A group whose rank is
    ``None`` or whose projection is ``none``, vectors (biases, norms), and matrices that are not larger than the rank
    take the steps of ``torch.optim.AdamW``. Kernels are flattened to output channels x the rest.

    A step with a non-finite gradient changes nothing and is counted (``skipped``); ``skip_limit`` of them in a row
    stop the training. Bases are drawn from (seed, number of the parameter, number of the refresh), never from the
    global generator, so that every rank of a distributed run, where gradients are averaged before the step, has the
    same ones, and a run that is resumed continues bit for bit.

    Args:
        params: parameters or groups; see ``galore_groups``.
        lr: step size.
        betas: decay of the two moments.
        eps: added to the root of the second moment, after its bias correction as in ``torch.optim.AdamW``.
        weight_decay: decoupled, on the whole weight.
        rank: of the projection; ``None`` for plain AdamW.
        projection: one of ``KINDS``.
        update_interval: steps between two bases (T).
        scale: factor of the projected-back step.
        side: ``auto`` (short basis), ``reverse`` (small moments), ``left`` or ``right``.
        moments: at a refresh ``keep`` them as they are, ``project`` them to the new basis, or ``reset`` them and their
            bias correction.
        oversampling: see ``projection``.
        power: see ``projection``.
        oversized: for a rank above the size of a matrix, ``error`` or ``adamw`` (plain steps).
        seed: of the bases.
        skip_limit: non-finite steps in a row that are borne (that of the first group counts).
        fused: torch's fused kernels for the plain parameters.
        compiled: generate kernels for the step of the projected ones with ``torch.compile``. The first step then
            takes up to a minute, and results differ from those of the plain step in the last bits.

    Raises:
        UsageError: an option that does not exist or is out of range (``adapt.*``). A step raises ``adapt.compile``
            where ``compiled`` is set and torch cannot compile.

    Source: arXiv 2403.03507 (GaLore); arXiv 2511.03163 (SRFT).

    Example:
        >>> model = torch.nn.Sequential(torch.nn.Linear(16, 16), torch.nn.ReLU(), torch.nn.Linear(16, 8))
        >>> optimiser = GaLoreAdamW(model.parameters(), lr=1e-2, rank=4, projection="srft", update_interval=50)
        >>> model(torch.ones(2, 16)).sum().backward()
        >>> optimiser.step()
        >>> tuple(optimiser.state[model[0].weight]["exp_avg"].shape)
        (16, 4)
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        *,
        rank: int | None = None,
        projection: str = "srft",
        update_interval: int = 50,
        scale: float = 1.0,
        side: str = "auto",
        moments: str = "keep",
        oversampling: int = 0,
        power: int = 1,
        oversized: str = "error",
        seed: int = 0,
        skip_limit: int = 10,
        fused: bool = False,
        compiled: bool = False,
    ) -> None:
        defaults = {name: value for name, value in locals().items() if name not in ("self", "params", "__class__")}
        # They belong to the whole optimiser; in the groups they travel with every checkpoint.
        super().__init__(params, defaults | {"skipped": 0, "skipped_in_a_row": 0})

    @override
    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters with their options.

        Raises:
            UsageError: an option that does not exist or is out of range (``adapt.*``).
        """
        known = {*self.defaults, "params", "names", "param_names"}
        unknown = sorted(set(param_group) - known)
        if unknown:
            raise UsageError(
                f"Unknown group option '{unknown[0]}'",
                why="It would have no effect.",
                fix=f"Choose from: {', '.join(sorted(known))}.",
                error_id="adapt.option",
            )
        check_options(self.defaults | {k: v for k, v in param_group.items() if k != "params"})
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        rank, kind, side = group["rank"], group["projection"], group["side"]
        if rank is not None and kind != "none" and group["oversized"] == "error":
            for parameter in group["params"]:
                if parameter.ndim >= 2 and rank > min(matrix_shape(parameter)):
                    self.param_groups.pop()
                    check_rank(rank, matrix_shape(parameter), kind, side)

    @property
    def skipped(self) -> int:
        """Number of steps skipped for a non-finite gradient since the training began."""
        return int(self.param_groups[0]["skipped"])

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @override
    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """One update.

        Args:
            closure: computes the loss anew, as in every torch optimiser.

        Returns:
            What the closure returned.

        Raises:
            CheckError: more non-finite gradients in a row than ``skip_limit`` (``adapt.not-finite``).
            UsageError: sparse or complex gradients (``adapt.gradient``).
        """
        loss: float | None = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        if not all_finite([p.grad for group in self.param_groups for p in group["params"] if p.grad is not None]):
            self._skip()
            return loss
        self.param_groups[0]["skipped_in_a_row"] = 0
        number = 0
        for group in self.param_groups:
            plain: list[Tensor] = []
            for parameter in group["params"]:
                if parameter.grad is not None:
                    if is_projected(parameter, group["rank"], group["projection"], group["side"]):
                        self._projected_step(parameter, group, number)
                    else:
                        plain.append(parameter)
                number += 1
            if plain:
                self._plain_step(plain, group)
        return loss

    @override
    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        for group in self.param_groups:
            # States of releases that could not compile.
            group.setdefault("compiled", False)

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue exactly where a state was saved.

        Raises:
            ModelError: the state was made with another rank, projection or side, or for other matrices
                (``adapt.state``). Nothing is changed then.
        """
        saved_groups = state_dict["param_groups"]
        saved_sizes = [len(group["params"]) for group in saved_groups]
        sizes = [len(group["params"]) for group in self.param_groups]
        if saved_sizes != sizes:
            raise _unsuitable(f"The saved state has groups of {saved_sizes} parameters, this optimiser of {sizes}")
        for number, (saved, group) in enumerate(zip(saved_groups, self.param_groups, strict=True)):
            for option in _BOUND:
                if saved.get(option) != group[option]:
                    raise _unsuitable(
                        f"The saved state of group {number} has {option} {saved.get(option)}, this one {group[option]}"
                    )
            for key, parameter in zip(saved["params"], group["params"], strict=True):
                values = state_dict["state"].get(key, {})
                expected = moment_shape(parameter, group)
                if "exp_avg" in values and tuple(values["exp_avg"].shape) != expected:
                    raise _unsuitable(
                        f"A saved moment has the shape {tuple(values['exp_avg'].shape)}, here it is {expected}"
                    )
        super().load_state_dict(state_dict)
        for saved, group in zip(saved_groups, self.param_groups, strict=True):
            for key, parameter in zip(saved["params"], group["params"], strict=True):
                # The base class casts every tensor to the type of its parameter: counts and float32 moments suffer.
                for name, value in state_dict["state"].get(key, {}).items():
                    if isinstance(value, Tensor) and name != "step":
                        self.state[parameter][name] = value.detach().to(parameter.device, copy=True)

    def _skip(self) -> None:
        first = self.param_groups[0]
        first["skipped"] += 1
        first["skipped_in_a_row"] += 1
        if first["skipped_in_a_row"] > first["skip_limit"]:
            raise CheckError(
                f"{first['skipped_in_a_row']} steps in a row had a gradient that is not finite",
                why="The training has diverged, or its input holds values that are not numbers.",
                fix="Lower the learning rate, clip the gradient, or look at the last batches.",
                error_id="adapt.not-finite",
            )

    def _plain_step(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        for parameter in parameters:
            state = self.state[parameter]
            if not state:
                state["step"] = torch.zeros((), device=parameter.device if group["fused"] else "cpu")
                state["exp_avg"] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
                state["exp_avg_sq"] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
        states = [self.state[parameter] for parameter in parameters]
        adamw(
            parameters,
            [cast(Tensor, parameter.grad) for parameter in parameters],
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [],
            [state["step"] for state in states],
            fused=group["fused"],
            foreach=False if group["fused"] else None,
            amsgrad=False,
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            lr=float(group["lr"]),
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=False,
        )

    def _projected_step(self, parameter: Tensor, group: dict[str, Any], number: int) -> None:
        state = self.state[parameter]
        shape = matrix_shape(parameter)
        right = resolve_side(shape, group["side"]) == "right"
        gradient = cast(Tensor, parameter.grad).reshape(shape)
        gradient = gradient.to(torch.promote_types(gradient.dtype, torch.float32))
        if not state:
            state["step"] = torch.zeros(())
            # Steps that the moments have seen: a reset starts their bias correction anew.
            state["age"] = torch.zeros(())
            state["refreshes"] = torch.zeros((), dtype=torch.int64)
            state["exp_avg"] = gradient.new_zeros(moment_shape(parameter, group))
            state["exp_avg_sq"] = torch.zeros_like(state["exp_avg"])
        if int(state["step"]) % group["update_interval"] == 0:
            basis = projection(
                gradient,
                group["rank"],
                group["projection"],
                basis_generator(group["seed"], number, int(state["refreshes"])),
                side=group["side"],
                oversampling=group["oversampling"],
                power=group["power"],
            )
            if "basis" in state:
                carry(state, basis, group["moments"], right=right)
            state["basis"] = basis
            state["refreshes"] += 1
        state["step"] += 1
        state["age"] += 1
        take = compiled_step if group["compiled"] else low_rank_step
        take(parameter, gradient, state, numbers_of(group, float(state["age"])), right=right)


def _unsuitable(what: str) -> ModelError:
    return ModelError(
        what,
        why="Moments and bases of one low-rank space mean nothing in another.",
        fix="Build the optimiser with the options of the saved run, or start a new one.",
        error_id="adapt.state",
    )

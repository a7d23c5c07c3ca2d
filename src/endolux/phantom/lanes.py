"""Eight neighbouring rays at a time: explicit vectors for the innermost loops of ``endolux.phantom.scan``.

A compiler does not vectorise a loop over a handful of rays, of which it knows neither number nor outcome. These
functions are expanded where compiled code calls them; they read ``LANES`` values from a position on, so arrays of rays
are that much longer than there are rays (``padded``). Arithmetic is IEEE and in the order that is written, lane by lane
the same as without vectors.
"""

# ruff: noqa: ARG001 - arguments are those of the code that is expanded
from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import TypeVar

import numpy as np
import numpy.typing as npt

try:
    from llvmlite import ir
    from numba import types
    from numba.core.base import BaseContext
    from numba.core.typing import Context, Signature
    from numba.extending import intrinsic
except ImportError:
    # Nothing is compiled, so nothing is expanded.
    intrinsic = None

LANES = 8
"""Rays that are looked at together."""

Value = TypeVar("Value", bound=np.generic)

_Expansion = tuple[object, Callable[..., object]]


def _expanded(function: Callable[..., _Expansion]) -> Callable[..., int]:
    made: Callable[..., int] = function if intrinsic is None else intrinsic(function)  # type: ignore[assignment]
    return made


def padded(values: npt.NDArray[Value], filler: float) -> npt.NDArray[Value]:
    """A copy with ``LANES`` more places behind.

    Example:
        >>> padded(np.ones(2, np.float32), 0.0).tolist()
        [1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]
    """
    result = np.empty(values.size + LANES, values.dtype)
    result[: values.size] = values
    result[values.size :] = filler
    return result


class _Vectors:
    """Loads and stores of lanes while code is generated."""

    def __init__(
        self, context: BaseContext, builder: ir.IRBuilder, signature: Signature, values: Sequence[ir.Value]
    ) -> None:
        self.context, self.builder = context, builder
        self._kinds, self._values = signature.args, values

    def value(self, number: int) -> ir.Value:
        return self._values[number]

    def place(self, array: int, at: int) -> ir.Value:
        """Pointer to the lanes of an array that start at the position that argument ``at`` gives."""
        kind = self._kinds[array]
        data = self.context.make_array(kind)(self.context, self.builder, self._values[array]).data
        width = self.context.get_value_type(kind.dtype)
        lanes = ir.VectorType(width, LANES)
        return self.builder.bitcast(self.builder.gep(data, [self._values[at]]), lanes.as_pointer())

    def load(self, array: int, at: int) -> ir.Value:
        return self.builder.load(self.place(array, at), align=4)

    def spread(self, value: ir.Value) -> ir.Value:
        """A number in all lanes."""
        lanes = ir.VectorType(value.type, LANES)
        first = self.builder.insert_element(ir.Constant(lanes, ir.Undefined), value, ir.Constant(ir.IntType(32), 0))
        order = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
        return self.builder.shuffle_vector(first, ir.Constant(lanes, ir.Undefined), order)

    def number(self, argument: int) -> ir.Value:
        return self.spread(self._values[argument])

    def first(self, count: int) -> ir.Value:
        """The lanes before the number that argument ``count`` gives."""
        order = ir.Constant(ir.VectorType(ir.IntType(64), LANES), list(range(LANES)))
        return self.builder.icmp_signed("<", order, self.number(count))

    def wide(self, values: ir.Value) -> ir.Value:
        return self.builder.fpext(values, ir.VectorType(ir.DoubleType(), LANES))

    def bits(self, mask: ir.Value) -> ir.Value:
        """A mask as a number with a bit a lane."""
        return self.builder.zext(self.builder.bitcast(mask, ir.IntType(LANES)), ir.IntType(64))

    def hits(self, u: int, v: int, depth: int, at: int, planes: int) -> tuple[ir.Value, ir.Value, list[ir.Value]]:
        """Which lanes meet a triangle nearer than ``depth``; the sum of its corners' weights, and the weights."""
        build = self.builder
        slope_u, slope_v = self.wide(self.load(u, at)), self.wide(self.load(v, at))
        zero = self.spread(ir.Constant(ir.DoubleType(), 0.0))
        weights, inside = [], None
        for k in range(3):
            nx, ny, nz = (self.plane(planes, 3 * k + axis) for axis in range(3))
            weight = build.fadd(build.fadd(build.fmul(slope_u, nx), build.fmul(slope_v, ny)), nz)
            beyond = build.fcmp_ordered(">=", weight, zero)
            inside = beyond if inside is None else build.and_(inside, beyond)
            weights.append(weight)
        total = build.fadd(build.fadd(weights[0], weights[1]), weights[2])
        inside = build.and_(inside, build.fcmp_ordered(">", total, zero))
        reach = build.fmul(total, self.wide(self.load(depth, at)))
        return build.and_(inside, build.fcmp_ordered("<", self.plane(planes, 9), reach)), total, weights

    def plane(self, planes: int, number: int) -> ir.Value:
        """A number of a tuple in all lanes."""
        return self.spread(self.builder.extract_value(self._values[planes], number))

    def put(self, array: int, at: int, mask: ir.Value, new: ir.Value) -> None:
        """Store in the lanes of a mask."""
        place = self.place(array, at)
        self.builder.store(self.builder.select(mask, new, self.builder.load(place, align=4)), place, align=4)

    def where_any(self, mask: ir.Value) -> AbstractContextManager[None]:
        """Code that is only run where the mask has a lane."""
        some = self.builder.icmp_unsigned("!=", self.bits(mask), ir.Constant(ir.IntType(64), 0))
        within: AbstractContextManager[None] = self.builder.if_then(some)
        return within


@_expanded
def waiting(
    typingctx: Context, depth: types.Type, at: types.Type, count: types.Type, nearest: types.Type
) -> _Expansion:
    """A bit for each of the first ``count`` lanes from ``at`` on whose depth is beyond ``nearest``."""

    def generate(
        context: BaseContext, builder: ir.IRBuilder, signature: Signature, values: Sequence[ir.Value]
    ) -> ir.Value:
        lanes = _Vectors(context, builder, signature, values)
        return lanes.bits(_waiting(lanes, 0, 1, 2, 3))

    return types.int64(depth, types.intp, types.int64, types.float32), generate


@_expanded
def waiting_within(
    typingctx: Context,
    depth: types.Type,
    at: types.Type,
    count: types.Type,
    nearest: types.Type,
    column_at: types.Type,
    row_at: types.Type,
    low_x: types.Type,
    high_x: types.Type,
    low_y: types.Type,
    high_y: types.Type,
) -> _Expansion:
    """As ``waiting``, for lanes whose grid coordinates lie in a box."""

    def generate(
        context: BaseContext, builder: ir.IRBuilder, signature: Signature, values: Sequence[ir.Value]
    ) -> ir.Value:
        lanes = _Vectors(context, builder, signature, values)
        mask = _waiting(lanes, 0, 1, 2, 3)
        for array, low, high in ((4, 6, 7), (5, 8, 9)):
            place = lanes.load(array, 1)
            mask = builder.and_(mask, builder.fcmp_ordered(">=", place, lanes.number(low)))
            mask = builder.and_(mask, builder.fcmp_ordered("<=", place, lanes.number(high)))
        return lanes.bits(mask)

    edge = types.float32
    return types.int64(depth, types.intp, types.int64, edge, column_at, row_at, edge, edge, edge, edge), generate


@_expanded
def reaching(
    typingctx: Context,
    depth: types.Type,
    ray_u: types.Type,
    ray_v: types.Type,
    at: types.Type,
    count: types.Type,
    nx: types.Type,
    ny: types.Type,
    nz: types.Type,
    low: types.Type,
) -> _Expansion:
    """A bit for each of the first ``count`` lanes from ``at`` on whose end lies further along a direction than ``low``.

    Lanes whose depth is not positive have no end.
    """

    def generate(
        context: BaseContext, builder: ir.IRBuilder, signature: Signature, values: Sequence[ir.Value]
    ) -> ir.Value:
        lanes = _Vectors(context, builder, signature, values)
        far = lanes.wide(lanes.load(0, 3))
        along = builder.fmul(lanes.number(5), lanes.wide(lanes.load(1, 3)))
        along = builder.fadd(along, builder.fmul(lanes.number(6), lanes.wide(lanes.load(2, 3))))
        along = builder.fadd(along, lanes.number(7))
        mask = builder.fcmp_ordered(">", builder.fmul(far, along), lanes.number(8))
        mask = builder.and_(mask, builder.fcmp_ordered(">", far, lanes.spread(ir.Constant(ir.DoubleType(), 0.0))))
        return lanes.bits(builder.and_(mask, lanes.first(4)))

    return types.int64(depth, ray_u, ray_v, types.intp, types.int64, *([types.float64] * 4)), generate


@_expanded
def meet(
    typingctx: Context,
    ray_u: types.Type,
    ray_v: types.Type,
    depth: types.Type,
    face: types.Type,
    bary_u: types.Type,
    bary_v: types.Type,
    at: types.Type,
    planes: types.Type,
    number: types.Type,
) -> _Expansion:
    """Let the lanes from ``at`` on meet a triangle: depth, face and weights of those that it is nearest to.

    ``planes`` are those of ``endolux.phantom.scan``, ``number`` is that of the face.
    """

    def generate(
        context: BaseContext, builder: ir.IRBuilder, signature: Signature, values: Sequence[ir.Value]
    ) -> ir.Value:
        lanes = _Vectors(context, builder, signature, values)
        mask, total, weights = lanes.hits(0, 1, 2, 6, 7)
        single = ir.VectorType(ir.FloatType(), LANES)
        with lanes.where_any(mask):
            for array, above in ((2, lanes.plane(7, 9)), (4, weights[1]), (5, weights[2])):
                lanes.put(array, 6, mask, builder.fptrunc(builder.fdiv(above, total), single))
            lanes.put(3, 6, mask, lanes.number(8))
        return context.get_dummy_value()

    return types.void(ray_u, ray_v, depth, face, bary_u, bary_v, types.intp, planes, types.int32), generate


@_expanded
def block(
    typingctx: Context,
    ray_u: types.Type,
    ray_v: types.Type,
    depth: types.Type,
    face: types.Type,
    at: types.Type,
    planes: types.Type,
    number: types.Type,
) -> _Expansion:
    """As ``meet``, where it only matters that something is met: depth -1 and the face."""

    def generate(
        context: BaseContext, builder: ir.IRBuilder, signature: Signature, values: Sequence[ir.Value]
    ) -> ir.Value:
        lanes = _Vectors(context, builder, signature, values)
        mask, _, _ = lanes.hits(0, 1, 2, 4, 5)
        with lanes.where_any(mask):
            lanes.put(2, 4, mask, lanes.spread(ir.Constant(ir.FloatType(), -1.0)))
            lanes.put(3, 4, mask, lanes.number(6))
        return context.get_dummy_value()

    return types.void(ray_u, ray_v, depth, face, types.intp, planes, types.int32), generate


@_expanded
def fetch(typingctx: Context, array: types.Type, at: types.Type) -> _Expansion:
    """Start to bring what lies at a position of an array into the cache; nothing else changes."""

    def generate(
        context: BaseContext, builder: ir.IRBuilder, signature: Signature, values: Sequence[ir.Value]
    ) -> ir.Value:
        data = context.make_array(signature.args[0])(context, builder, values[0]).data
        byte, number = ir.IntType(8).as_pointer(), ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [byte, number, number, number])
        call = builder.module.declare_intrinsic("llvm.prefetch", [byte], kind)
        place = builder.bitcast(builder.gep(data, [values[1]]), byte)
        builder.call(call, [place, ir.Constant(number, 0), ir.Constant(number, 3), ir.Constant(number, 1)])
        return context.get_dummy_value()

    return types.void(array, types.intp), generate


def _waiting(lanes: _Vectors, depth: int, at: int, count: int, nearest: int) -> ir.Value:
    beyond = lanes.builder.fcmp_ordered(">", lanes.load(depth, at), lanes.number(nearest))
    return lanes.builder.and_(lanes.first(count), beyond)

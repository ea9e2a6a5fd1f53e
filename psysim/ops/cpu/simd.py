"""Vectors of `LANES` numbers for numba kernels: every lane is one (batch, channel) row.

Numba cannot be relied on to vectorise a recurrence over rows, and if it does, the remainder loop rounds
differently from the vector loop, so a row's result would depend on its place in the batch. Here the vectors are
explicit: arithmetic on `Vector` values becomes one LLVM vector instruction per operation, the same for every lane,
whatever the processor (LLVM splits them where registers are shorter). ``contract`` allows fused multiply-add;
no other fast-math flag is set, so NaN and infinity behave as usual and stay in their lane.
"""

# ruff: noqa: ARG001
# mypy: disable-error-code="import-untyped,no-untyped-call"
# The signatures are those that numba calls; llvmlite and parts of numba carry no types.

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import extending, types
from numba.core import cgutils
from numba.extending import lower_builtin, models, register_model, type_callable

__all__ = [
    "LANES",
    "Vector",
    "absolute",
    "any_lane",
    "binary_exponent",
    "binary_fraction",
    "convert",
    "fma",
    "load",
    "load_transposed",
    "power_of_two",
    "round_even",
    "select",
    "splat",
    "sqrt",
    "store",
    "store_transposed",
]

intrinsic: Any = extending.intrinsic  # untyped: callers pass what remains after the typing context

AHEAD = 64  # samples: a tile later, so that the memory works while the tile is computed

LANES = 16  # one 512-bit register of float32, two of float64; 5 to 40 % faster than 8, 0 to 20 % faster than 32


class Vector(types.Type):
    """Numba type of `LANES` values of one dtype (float32, float64, or boolean for masks)."""

    def __init__(self, dtype: types.Type) -> None:
        self.dtype = dtype
        super().__init__(name=f"Vector({dtype} x {LANES})")


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, fe_type: Vector) -> None:
        element = ir.IntType(1) if fe_type.dtype == types.boolean else manager.lookup(fe_type.dtype).get_value_type()
        super().__init__(manager, fe_type, ir.VectorType(element, LANES))


def _splat(builder: Any, value: Any) -> Any:
    kind = ir.VectorType(value.type, LANES)
    single = builder.insert_element(ir.Constant(kind, ir.Undefined), value, ir.Constant(ir.IntType(32), 0))
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
    return builder.shuffle_vector(single, ir.Constant(kind, ir.Undefined), zeros)


def _as_vector(context: Any, builder: Any, value: Any, kind: types.Type, dtype: types.Type) -> Any:
    if isinstance(kind, Vector):
        return value
    return _splat(builder, context.cast(builder, value, kind, dtype))


def _register(op: Callable[..., Any], emit: Callable[..., Any], mask: bool) -> None:
    @type_callable(op)
    def typer(context: Any) -> Callable[..., Any]:
        def generic(a: types.Type, b: types.Type) -> types.Type | None:
            vectors = [t for t in (a, b) if isinstance(t, Vector)]
            others = [t for t in (a, b) if not isinstance(t, Vector)]
            if not vectors or len({t.dtype for t in vectors}) != 1:
                return None
            if any(not isinstance(t, types.Number) for t in others):
                return None
            return Vector(types.boolean) if mask else vectors[0]

        return generic

    def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        dtype = next(t.dtype for t in sig.args if isinstance(t, Vector))
        a, b = (_as_vector(context, builder, v, t, dtype) for v, t in zip(args, sig.args, strict=True))
        return emit(builder, a, b)

    lower_builtin(op, Vector, Vector)(lower)
    lower_builtin(op, Vector, types.Number)(lower)
    lower_builtin(op, types.Number, Vector)(lower)


_FLAGS = ("contract",)
_register(operator.add, lambda b, x, y: b.fadd(x, y, flags=_FLAGS), False)
_register(operator.sub, lambda b, x, y: b.fsub(x, y, flags=_FLAGS), False)
_register(operator.mul, lambda b, x, y: b.fmul(x, y, flags=_FLAGS), False)
_register(operator.truediv, lambda b, x, y: b.fdiv(x, y), False)
_register(operator.lt, lambda b, x, y: b.fcmp_ordered("<", x, y), True)
_register(operator.gt, lambda b, x, y: b.fcmp_ordered(">", x, y), True)


@type_callable(operator.neg)
def _type_neg(context: Any) -> Callable[..., Any]:
    return lambda a: a if isinstance(a, Vector) else None


@lower_builtin(operator.neg, Vector)
def _lower_neg(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    return builder.fneg(args[0])


def _pointer(context: Any, builder: Any, array_type: Any, array: Any, index: Any) -> Any:
    data = cgutils.create_struct_proxy(array_type)(context, builder, array).data
    element = builder.gep(data, [index])
    return builder.bitcast(element, ir.VectorType(data.type.pointee, LANES).as_pointer())


@intrinsic
def load(typingctx: Any, array: Any, index: Any) -> Any:
    """Read the elements ``index ... index + LANES - 1`` of a contiguous array."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        pointer = _pointer(context, builder, sig.args[0], args[0], args[1])
        return builder.load(pointer, align=sig.args[0].dtype.bitwidth // 8)

    return Vector(array.dtype)(array, types.intp), codegen


@intrinsic
def store(typingctx: Any, array: Any, index: Any, value: Any) -> Any:
    """Write a vector to the elements ``index ... index + LANES - 1`` of a contiguous array of the same dtype."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        pointer = _pointer(context, builder, sig.args[0], args[0], args[1])
        builder.store(args[2], pointer, align=sig.args[0].dtype.bitwidth // 8)
        return context.get_dummy_value()

    if array.dtype != value.dtype:
        return None
    return types.void(array, types.intp, value), codegen


@intrinsic
def splat(typingctx: Any, array: Any, value: Any) -> Any:
    """Make a vector with ``value`` in every lane, in the dtype of ``array``."""
    dtype = array.dtype

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return _splat(builder, context.cast(builder, args[1], sig.args[1], dtype))

    return Vector(dtype)(array, value), codegen


@intrinsic
def convert(typingctx: Any, value: Any, array: Any) -> Any:
    """Convert the vector to the dtype of ``array`` (float32 or float64)."""
    source, target = value.dtype, array.dtype

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        kind = context.get_value_type(sig.return_type)
        if source == target:
            return args[0]
        return builder.fpext(args[0], kind) if target.bitwidth > source.bitwidth else builder.fptrunc(args[0], kind)

    return Vector(target)(value, array), codegen


@intrinsic
def select(typingctx: Any, mask: Any, yes: Any, no: Any) -> Any:
    """Take ``yes`` where the mask is true, else ``no``; one of them may be a number."""
    vector = yes if isinstance(yes, Vector) else no

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        choices = zip(args[1:], sig.args[1:], strict=True)
        return builder.select(args[0], *(_as_vector(context, builder, v, t, vector.dtype) for v, t in choices))

    return vector(mask, yes, no), codegen


@intrinsic
def any_lane(typingctx: Any, mask: Any) -> Any:
    """Tell whether the mask is true in any lane."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        bits = builder.bitcast(args[0], ir.IntType(LANES))
        return builder.icmp_unsigned("!=", bits, ir.Constant(bits.type, 0))

    return types.boolean(mask), codegen


def _call(builder: Any, name: str, args: Any) -> Any:
    kind = args[0].type
    suffix = f"v{LANES}f{32 if kind.element == ir.FloatType() else 64}"
    signature = ir.FunctionType(kind, [kind] * len(args))
    return builder.call(cgutils.get_or_insert_function(builder.module, signature, f"llvm.{name}.{suffix}"), args)


def _unary(name: str) -> Any:
    def typer(typingctx: Any, value: Any) -> Any:
        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            return _call(builder, name, args)

        return value(value), codegen

    return intrinsic(typer)


sqrt = _unary("sqrt")
absolute = _unary("fabs")
round_even = _unary("rint")


@intrinsic
def fma(typingctx: Any, a: Any, b: Any, c: Any) -> Any:
    """Compute a b + c, rounded once: for kernels that must give the same bits, whatever the compiler contracts."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return _call(builder, "fma", args)

    return a(a, b, c), codegen


@intrinsic
def power_of_two(typingctx: Any, value: Any) -> Any:
    """Raise 2 to the power of an integer-valued vector; the result must be a normal number."""
    bits, bias, shift = (32, 127, 23) if value.dtype == types.float32 else (64, 1023, 52)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        kind = ir.VectorType(ir.IntType(bits), LANES)
        exponent = builder.fptosi(args[0], kind)
        exponent = builder.add(exponent, ir.Constant(kind, [bias] * LANES))
        return builder.bitcast(builder.shl(exponent, ir.Constant(kind, [shift] * LANES)), args[0].type)

    return value(value), codegen


# Per width: bits of the mantissa; sqrt(1/2) and 1.5 2^23 or 1.5 2^52 as bits
_PARTS = {32: (23, 0x3F3504F3, 0x4B400000), 64: (52, 0x3FE6A09E667F3BCD, 0x4338000000000000)}


def _bits_above_sqrt_half(builder: Any, value: Any, bits: int) -> Any:
    kind = ir.VectorType(ir.IntType(bits), LANES)
    return kind, builder.sub(builder.bitcast(value, kind), ir.Constant(kind, [_PARTS[bits][1]] * LANES))


@intrinsic
def binary_exponent(typingctx: Any, value: Any) -> Any:
    """Return k of value = 2^k m with sqrt(1/2) <= m < sqrt(2), for a vector of positive normal numbers."""
    bits = value.dtype.bitwidth
    mantissa, _, rounder = _PARTS[bits]

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        kind, above = _bits_above_sqrt_half(builder, args[0], bits)
        exponent = builder.ashr(above, ir.Constant(kind, [mantissa] * LANES))
        # Added to the last bits of a large number and freed of it: AVX2 does not convert 64-bit integers
        large = ir.Constant(kind, [rounder] * LANES)
        number = builder.bitcast(builder.add(exponent, large), args[0].type)
        return builder.fsub(number, builder.bitcast(large, args[0].type))

    return value(value), codegen


@intrinsic
def binary_fraction(typingctx: Any, value: Any) -> Any:
    """Return m of value = 2^k m, see `binary_exponent`."""
    bits = value.dtype.bitwidth

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        kind, above = _bits_above_sqrt_half(builder, args[0], bits)
        shift = builder.and_(above, ir.Constant(kind, [-1 << _PARTS[bits][0]] * LANES))
        return builder.bitcast(builder.sub(builder.bitcast(args[0], kind), shift), args[0].type)

    return value(value), codegen


def _transpose(builder: Any, rows: list[Any]) -> list[Any]:
    """Transpose LANES vectors of LANES elements by swapping blocks of halving size: log2(LANES) shuffles per vector."""
    index = ir.VectorType(ir.IntType(32), LANES)
    step = LANES // 2
    while step:
        first = [j if not j & step else LANES + j - step for j in range(LANES)]
        second = [j + step if not j & step else LANES + j for j in range(LANES)]
        for i in (i for i in range(LANES) if not i & step):
            a, b = rows[i], rows[i + step]
            rows[i] = builder.shuffle_vector(a, b, ir.Constant(index, first))
            rows[i + step] = builder.shuffle_vector(a, b, ir.Constant(index, second))
        step //= 2
    return rows


def _prefetch(context: Any, builder: Any, array_type: Any, array: Any, index: Any, write: bool) -> None:
    """Fetch the cache line of an element; a place outside the array does no harm."""
    byte, word = ir.IntType(8).as_pointer(), ir.IntType(32)
    signature = ir.FunctionType(ir.VoidType(), [byte, word, word, word])
    function = cgutils.get_or_insert_function(builder.module, signature, "llvm.prefetch.p0")
    place = builder.bitcast(_pointer(context, builder, array_type, array, index), byte)
    builder.call(function, [place, ir.Constant(word, int(write)), ir.Constant(word, 3), ir.Constant(word, 1)])


@intrinsic
def load_transposed(typingctx: Any, array: Any, offsets: Any, start: Any, tile: Any, place: Any) -> Any:
    """Read LANES samples of LANES rows; write LANES vectors over the rows to ``tile``, in its dtype.

    Row ``l`` begins at ``array[offsets[l] + start]``; the vectors go to ``tile[place]`` and on.
    """

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        source, starts, start, target, place = args
        data = cgutils.create_struct_proxy(sig.args[1])(context, builder, starts).data
        rows = []
        for lane in range(LANES):
            offset = builder.add(builder.load(builder.gep(data, [ir.Constant(start.type, lane)])), start)
            pointer = _pointer(context, builder, sig.args[0], source, offset)
            ahead = builder.add(offset, ir.Constant(offset.type, AHEAD))
            _prefetch(context, builder, sig.args[0], source, ahead, False)
            rows.append(builder.load(pointer, align=sig.args[0].dtype.bitwidth // 8))
        kind = ir.VectorType(context.get_value_type(sig.args[3].dtype), LANES)
        for step, vector in enumerate(_transpose(builder, rows)):
            value = vector if vector.type == kind else builder.fpext(vector, kind)
            pointer = _pointer(
                context, builder, sig.args[3], target, builder.add(place, ir.Constant(place.type, step * LANES))
            )
            builder.store(value, pointer, align=sig.args[3].dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(array, offsets, types.intp, tile, types.intp), codegen


@intrinsic
def store_transposed(typingctx: Any, array: Any, offsets: Any, start: Any, tile: Any, place: Any) -> Any:
    """Write LANES vectors of ``tile`` as LANES samples of LANES rows of ``array``: inverse of `load_transposed`."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        target, starts, start, source, place = args
        kind = ir.VectorType(context.get_value_type(sig.args[0].dtype), LANES)
        vectors = []
        for step in range(LANES):
            pointer = _pointer(
                context, builder, sig.args[3], source, builder.add(place, ir.Constant(place.type, step * LANES))
            )
            value = builder.load(pointer, align=sig.args[3].dtype.bitwidth // 8)
            vectors.append(value if value.type == kind else builder.fptrunc(value, kind))
        data = cgutils.create_struct_proxy(sig.args[1])(context, builder, starts).data
        for lane, row in enumerate(_transpose(builder, vectors)):
            offset = builder.add(builder.load(builder.gep(data, [ir.Constant(start.type, lane)])), start)
            pointer = _pointer(context, builder, sig.args[0], target, offset)
            ahead = builder.add(offset, ir.Constant(offset.type, AHEAD))
            _prefetch(context, builder, sig.args[0], target, ahead, True)
            builder.store(row, pointer, align=sig.args[0].dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(array, offsets, types.intp, tile, types.intp), codegen

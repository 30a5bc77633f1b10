"""What Numba has no words for: reading jobs, addresses, gathers, scatters and prefetches.

An intrinsic here names one or two machine instructions. Arrays are made of addresses: they are
not counted, and hold no memory.
"""

from __future__ import annotations

from collections.abc import Callable

from llvmlite import ir
from numba import carray, types
from numba.core import cgutils
from numba.extending import intrinsic

from cardiogen.ops.kernels.cpu.jit import HEADER, inline


@intrinsic(prefer_literal=True)
def arguments(typing_context, job, count):
    """Return the ``count`` words of a job after its header."""
    if not isinstance(count, types.IntegerLiteral):
        return None
    result = types.UniTuple(types.int64, count.literal_value)

    def generate(context, builder, signature, values):
        words = [
            builder.load(builder.gep(values[0], [ir.Constant(ir.IntType(64), HEADER + k)]))
            for k in range(count.literal_value)
        ]
        return context.make_tuple(builder, result, words)

    return result(job, count), generate


@intrinsic
def take(typing_context, job, word):
    """Return a word of a job and add 1 to it, as one step for all threads."""

    def generate(context, builder, signature, values):
        place = builder.gep(values[0], [values[1]])
        return builder.atomic_rmw("add", place, ir.Constant(ir.IntType(64), 1), "monotonic")

    return types.int64(job, types.int64), generate


@intrinsic
def call_kernel(typing_context, address, job, chunk, room):
    def generate(context, builder, signature, values):
        word = context.get_value_type(signature.args[1])
        kind = ir.FunctionType(ir.VoidType(), [word, ir.IntType(64), ir.IntType(64)])
        builder.call(builder.inttoptr(values[0], kind.as_pointer()), values[1:])
        return context.get_dummy_value()

    return types.void(address, job, chunk, room), generate


@intrinsic
def read(typing_context, array, index):
    """Return ``array[index]`` for an int32 index from 0: vectorized, one gather instruction."""

    def generate(context, builder, signature, values):
        data = cgutils.create_struct_proxy(signature.args[0])(context, builder, values[0]).data
        at = builder.sext(values[1], ir.IntType(64))
        return builder.load(builder.gep(data, [at], inbounds=True))

    return array.dtype(array, types.int32), generate


@intrinsic
def prefetch(typing_context, array, index):
    """Ask for the cache line that holds ``array[index]``."""

    def generate(context, builder, signature, values):
        data = cgutils.create_struct_proxy(signature.args[0])(context, builder, values[0]).data
        place = builder.bitcast(builder.gep(data, [values[1]]), ir.IntType(8).as_pointer())
        hint = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [place.type, hint, hint, hint])
        function = builder.module.declare_intrinsic("llvm.prefetch", [place.type], kind)
        builder.call(function, [place, hint(0), hint(2), hint(1)])
        return context.get_dummy_value()

    return types.void(array, types.int64), generate


@intrinsic
def add_at(typing_context, array, index, value):
    """Add to ``array[index]`` for an int32 index from 0."""

    def generate(context, builder, signature, values):
        data = cgutils.create_struct_proxy(signature.args[0])(context, builder, values[0]).data
        place = builder.gep(data, [builder.sext(values[1], ir.IntType(64))], inbounds=True)
        builder.store(builder.fadd(builder.load(place), values[2]), place)
        return context.get_dummy_value()

    return types.void(array, types.int32, array.dtype), generate


@intrinsic
def add32(typing_context, first, second):
    """Add int32 numbers; Numba's own sum would be an int64."""

    def generate(context, builder, signature, values):
        return builder.add(values[0], values[1])

    return types.int32(types.int32, types.int32), generate


@intrinsic
def real(typing_context, word):
    """Return the float64 whose bits a word of a job holds."""

    def generate(context, builder, signature, values):
        return builder.bitcast(values[0], ir.DoubleType())

    return types.float64(types.int64), generate


def _pointer_to(item: types.Type) -> Callable:
    @intrinsic
    def pointer(typing_context, address):
        def generate(context, builder, signature, values):
            return builder.inttoptr(values[0], context.get_value_type(signature.return_type))

        return types.CPointer(item)(address), generate

    return pointer


_float_pointer = _pointer_to(types.float32)
_double_pointer = _pointer_to(types.float64)
_int_pointer = _pointer_to(types.int32)


@inline
def floats(address, size):
    """Return the float32 array of ``size`` items at an address."""
    return carray(_float_pointer(address), size)


@inline
def doubles(address, size):
    """Return the float64 array of ``size`` items at an address."""
    return carray(_double_pointer(address), size)


@inline
def ints(address, size):
    """Return the int32 array of ``size`` items at an address."""
    return carray(_int_pointer(address), size)


@inline
def room_rows(room, first, count, size):
    """Return ``count`` rows ``(count, size)`` of a thread's room, after its ``first`` rows."""
    return carray(_float_pointer(room + 4 * first * size), (count, size))


@inline
def room_squares(room, first, size):
    """Return rows in a square ``(3, 3, size)`` of a thread's room, after its ``first`` rows."""
    return carray(_float_pointer(room + 4 * first * size), (3, 3, size))

"""Sums of products of whole numbers: 16 bits times 16 bits into 32, two products at a time.

Processors have one instruction for that (``pmaddwd`` and ``vpdpwssd`` on x86), twice as fast as floating-point
arithmetic and exact by nature; compilers do not find it in a loop over the taps of a filter. So the loop is written
in the compiler's own language (LLVM IR), in terms that every processor knows and that are recognised as the
instruction where there is one.
"""

from collections.abc import Callable
from typing import Any, Final, cast

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

BLOCK: Final = 64
"""Sums that :func:`add_products` makes at once."""

_LANES: Final = 8  # of a vector of 32-bit sums


def _add_products(typing: Any, sums: Any, at: Any, pairs: Any, offsets: Any, weights: Any) -> Any:
    """Multiply ``BLOCK`` sums by 256, and add to each a sum of weighted samples.

    sums: float32 or float64, flat; those from ``at`` on are changed.
    pairs: int16, flat; the samples of sum j under tap t are the two at 2 j + offsets[t] (int64). The last sum of a
        block may be without meaning, but its samples must be there.
    weights: int32, one a tap: the weight of the first sample in its lower half, of the second in its upper half.

    Exact if the sums stay below 2**24 (float32) or 2**53 (float64), and those of one call below 2**31.
    """
    half, whole, number = ir.IntType(16), ir.IntType(32), ir.IntType(64)
    samples, products = ir.VectorType(half, 2 * _LANES), ir.VectorType(whole, 2 * _LANES)
    lanes = ir.VectorType(whole, _LANES)
    halves = [lanes([2 * lane + odd for lane in range(_LANES)]) for odd in (0, 1)]

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = [
            argument if kind == types.int64 else context.make_array(kind)(context, builder, argument)
            for kind, argument in zip(signature.args, arguments, strict=True)
        ]
        sums, at, pairs, offsets, weights = data
        floats = ir.VectorType(sums.data.type.pointee, _LANES)
        totals = [cgutils.alloca_once(builder, lanes) for _ in range(BLOCK // _LANES)]  # type: ignore[no-untyped-call]
        for total in totals:
            builder.store(lanes([0] * _LANES), total)
        start = builder.mul(at, number(2))
        with cgutils.for_range(builder, builder.extract_value(offsets.shape, 0)) as loop:
            weight = builder.load(builder.gep(weights.data, [loop.index]))
            weight = builder.insert_element(lanes(ir.Undefined), weight, whole(0))
            weight = builder.shuffle_vector(weight, lanes(ir.Undefined), lanes([0] * _LANES))
            weight = builder.sext(builder.bitcast(weight, samples), products)
            first = builder.add(start, builder.load(builder.gep(offsets.data, [loop.index])))
            for n, total in enumerate(totals):
                place = builder.gep(pairs.data, [builder.add(first, number(2 * _LANES * n))])
                place = builder.bitcast(place, samples.as_pointer())
                product = builder.mul(builder.sext(builder.load(place, align=2), products), weight)
                even, odd = (builder.shuffle_vector(product, products(ir.Undefined), places) for places in halves)
                builder.store(builder.add(builder.load(total), builder.add(even, odd)), total)
        for n, total in enumerate(totals):
            place = builder.gep(sums.data, [builder.add(at, number(_LANES * n))])
            place = builder.bitcast(place, floats.as_pointer())
            carried = builder.fmul(builder.load(place, align=4), floats([256.0] * _LANES))
            builder.store(builder.fadd(carried, builder.sitofp(builder.load(total), floats)), place, align=4)
        return context.get_dummy_value()

    return types.void(sums, types.int64, pairs, offsets, weights), codegen


add_products = cast("Callable[..., None]", intrinsic(_add_products))

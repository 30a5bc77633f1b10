"""Narrow matrices along one axis: filters, spline expansions and their adjoints."""

from __future__ import annotations

import math

from torch import Tensor

from cardiogen.ops.kernels.cpu.arithmetic import add_product, add_scaled
from cardiogen.ops.kernels.cpu.intrinsics import arguments, floats, ints
from cardiogen.ops.kernels.cpu.jit import Kernel, rows
from cardiogen.ops.kernels.cpu.launch import launch

_CHUNK = 32768
# Neighbors along the last axis that are worked on together.
_BLOCK = 1024


def banded(tensor: Tensor, axis: int, first: Tensor, weights: Tensor) -> Tensor:
    """Return ``out[r] = sum_t weights[r, t] in[first[r] + t]`` along one spatial axis.

    Args:
        tensor: ``(B, C, *S)`` contiguous float32.
        axis: spatial axis from 0.
        first: ``(m,)`` int32, where every row of weights begins; no row reaches outside.
        weights: ``(m, taps)`` float32.
    """
    shape = tuple(tensor.shape)
    outer, size = math.prod(shape[: axis + 2]), shape[axis + 2]
    inner, rows_out = math.prod(shape[axis + 3 :]), first.shape[0]
    out = tensor.new_empty(*shape[: axis + 2], rows_out, *shape[axis + 3 :])
    taps = weights.shape[1]
    if inner == 1:
        per = max(1, _CHUNK // rows_out)
        along = weights.t().contiguous()
        launch(
            _along_last, -(-outer // per), tensor, out, first, along, outer, size, rows_out, taps,
            *_steady(first), per,
        )  # fmt: skip
    else:
        per = max(1, _CHUNK // inner)
        launch(
            _across, -(-outer * rows_out // per), tensor, out, first, weights, outer, size,
            rows_out, taps, inner, per,
        )  # fmt: skip

    return out


def _steady(first: Tensor) -> tuple[int, int]:
    """Return the longest stretch of rows that each begin one voxel after the one before."""
    best = start = 0
    stop = 0
    begins = first.tolist()
    for row in range(1, len(begins) + 1):
        if row == len(begins) or begins[row] != begins[row - 1] + 1:
            if row - start > stop - best:
                best, stop = start, row
            start = row

    return best, stop


@rows
def _add_four(a, b, c, d, wa, wb, wc, wd, out):
    for w in range(len(out)):
        out[w] += (wa * a[w] + wb * b[w]) + (wc * c[w] + wd * d[w])


@Kernel
def _across(job, chunk, room):
    in_at, out_at, first_at, weights_at, outer, size, count, taps, inner, per = arguments(job, 10)
    source = floats(in_at, outer * size * inner)
    target = floats(out_at, outer * count * inner)
    first, weights = ints(first_at, count), floats(weights_at, count * taps)
    for index in range(chunk * per, min((chunk + 1) * per, outer * count)):
        line, row = index // count, index % count
        for begin in range(0, inner, _BLOCK):
            width = min(_BLOCK, inner - begin)
            at = index * inner + begin
            out = target[at : at + width]
            out[:] = 0
            start = (line * size + first[row]) * inner + begin
            tap = 0
            while tap + 4 <= taps:
                p, k = start + tap * inner, row * taps + tap
                _add_four(
                    source[p : p + width], source[p + inner : p + inner + width],
                    source[p + 2 * inner : p + 2 * inner + width],
                    source[p + 3 * inner : p + 3 * inner + width],
                    weights[k], weights[k + 1], weights[k + 2], weights[k + 3], out,
                )  # fmt: skip
                tap += 4
            while tap < taps:
                p = start + tap * inner
                add_scaled(source[p : p + width], weights[row * taps + tap], out)
                tap += 1


@rows
def _dot_rows(source, first, weights, count, taps, begin, end, out):
    for r in range(begin, end):
        total = out[r]
        for tap in range(taps):
            total += weights[tap * count + r] * source[first[r] + tap]
        out[r] = total


@Kernel
def _along_last(job, chunk, room):
    (
        in_at, out_at, first_at, weights_at, outer, size, count, taps, begin, end, per,
    ) = arguments(job, 11)  # fmt: skip
    sources, targets = floats(in_at, outer * size), floats(out_at, outer * count)
    first, weights = ints(first_at, count), floats(weights_at, count * taps)
    for line in range(chunk * per, min((chunk + 1) * per, outer)):
        source = sources[line * size : (line + 1) * size]
        out = targets[line * count : (line + 1) * count]
        out[:] = 0
        _dot_rows(source, first, weights, count, taps, 0, begin, out)
        _dot_rows(source, first, weights, count, taps, end, count, out)
        for tap in range(taps):
            p, k = first[begin] + tap, tap * count
            add_product(source[p : p + end - begin], weights[k + begin : k + end], out[begin:end])

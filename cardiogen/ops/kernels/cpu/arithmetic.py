"""Sums of rows that several kernels take."""

from __future__ import annotations

from cardiogen.ops.kernels.cpu.jit import rows


@rows
def add_scaled(values, factor, out):
    """Add ``factor`` times a row to another."""
    for w in range(len(out)):
        out[w] += factor * values[w]


@rows
def add_product(weights, values, out):
    """Add the product of two rows to a third."""
    for w in range(len(out)):
        out[w] += weights[w] * values[w]

"""Chains to start from: what differs between scanners and patients of cardiac MR."""

from __future__ import annotations

from augment.chain import Chain
from augment.transforms import (
    Affine,
    BiasField,
    Blur,
    Contrast,
    Gamma,
    GaussianNoise,
    Gibbs,
    KSpaceMotion,
    LowResolution,
    Morph,
    RandomConvolution,
    RicianNoise,
    SliceCut,
    SliceShift,
    SliceThickness,
    Transform,
)


def classic_chain() -> Chain:
    """Return noise, bias field, affine and morph: the four families of AdvChain."""
    return Chain(transforms=(GaussianNoise(), BiasField(), Affine(), Morph()))


def full_chain(ndim: int, *, most: int | None = 4) -> Chain:
    """Return every transform there is for a number of axes, but flips; ``most`` at a time.

    Hearts have a left and a right: add ``Flip`` where headers cannot be trusted to tell them.
    """
    if ndim not in (2, 3):
        raise ValueError(f"ndim must be 2 or 3, got {ndim}")
    transforms: tuple[Transform, ...] = (
        Affine(), Morph(), BiasField(), GaussianNoise(), RicianNoise(), Gamma(), Contrast(),
        Blur(), LowResolution(), KSpaceMotion(), Gibbs(), RandomConvolution(),
    )  # fmt: skip
    if ndim == 3:
        transforms += (SliceShift(), SliceCut(), SliceThickness())

    return Chain(transforms=transforms, most=most)

"""Hearts of the reference population as training data: cines at ED and ES with exact labels."""

from __future__ import annotations

from augment.segmentation.view import draw_view, hand, view_grid
from cardiogen.base import keyed_rng, keyed_seed
from cardiogen.data import Sequence
from cardiogen.population import CineOptions, render_cine, sample_heart, short_axis_grid

_SNR, _BIAS, _TEXTURE = (10.0, 40.0), (0.0, 0.4), (0.05, 0.2)


def population_sequence(seed: int, index: int, *, spacing_mm: float, size: int) -> Sequence:
    """Return ED and ES of heart ``index`` as a cine in a random stack.

    Args:
        seed: user's seed.
        index: of the heart; it, its stack and its acquisition are functions of both.
        spacing_mm: in plane.
        size: pixels of both sides of a slice.
    """
    heart = sample_heart(seed, index)
    phases = [0.0, float(heart.timing.systole)]
    vertices = heart.vertices(phases)
    view = draw_view(keyed_rng(seed, "synthetic/view", index))
    long_axis = short_axis_grid(vertices, heart.pose)
    grid = view_grid(long_axis, vertices, view, spacing_mm=spacing_mm, size=size)
    rng = keyed_rng(seed, "synthetic/cine", index)
    options = CineOptions(
        snr=float(rng.uniform(*_SNR)),
        slice_thickness_mm=view.thickness_mm,
        bias=float(rng.uniform(*_BIAS)),
        texture=float(rng.uniform(*_TEXTURE)),
        seed=keyed_seed(seed, "synthetic/options", index),
    )
    return hand(render_cine(heart, phases, grid, options=options), view)

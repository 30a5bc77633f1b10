"""Rows of the tracking benchmark on further views: long axes beside the short axis."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from bench.tracking_cases import long_axis_grid, pig_cine, pig_long_axis
from bench.tracking_rows import Row, window
from cardiogen.data import Structure
from cardiogen.population import (
    CineOptions,
    PopulationHeart,
    displacement_field,
    render_cine,
    sample_heart,
    short_axis_grid,
)
from registration.tracking import TrackingResult, load_tracking_preset, track
from registration.tracking.inputs import check_cine
from registration.tracking.views import check_views, view_report

Array = NDArray[np.float64]


def view_rows(data: Path, preset: str) -> Iterator[Row]:
    """Long axes beside the short axis: longitudinal motion of the population, then the pig."""
    for step in (12.0, 8.0):
        yield from _population_view_rows(preset, step)
    yield from _pig_view_rows(data, preset)


def _population_view_rows(preset: str, step_mm: float) -> Iterator[Row]:
    heart, phases = sample_heart(0, 0), np.arange(20) / 20
    shown = heart.vertices(phases)
    grid = short_axis_grid(shown, heart.pose, (step_mm, 1.5, 1.5))
    cine = render_cine(heart, phases, grid, options=CineOptions(snr=20.0))
    # Long axes have a number of frames of their own, as they often do.
    views = [render_cine(heart, np.arange(25) / 25, long_axis_grid(heart, shown, angle_deg=a))
             for a in (0.0, 90.0)]  # fmt: skip
    errors = []
    for name, told in (("no view", {}), ("no view, in 3D", {"in_plane": False}),
                       ("1 long axis", {"views": views[:1]}),
                       ("2 long axes", {"views": views})):  # fmt: skip
        result = track(cine, cine.labels[0], preset=preset, **told)
        error, moves, in_plane = _longitudinal_mm(result, heart, cine.labels[0])
        es = result.sequence.es
        errors.append(error[es])
        mode = "2D+t, inferred" if result.in_plane else "3D+t"
        lead = f"slices {step_mm:.0f} mm apart, {name} ({mode})"
        asked = {1: ("less", 1.0), 2: ("<= .6 of it", 0.6)}.get(len(told.get("views", ())))
        # Against what was seen without views; motion inferred in 2D+t is no measurement.
        met = None if asked is None else bool(error[es] <= asked[1] * errors[1])
        yield Row(f"{lead}: |error| longitudinal, mm; ES",
                  f"{error.mean():.2f}; {error[es]:.2f} (moves {moves[es]:.2f})",
                  "" if asked is None else asked[0], met)  # fmt: skip
        yield Row(f"{lead}: in plane, mm; folds; seconds",
                  f"{in_plane.mean():.2f}; {result.folds.max():.2g}; "
                  f"{result.timings['total']:.1f} s")  # fmt: skip


def _longitudinal_mm(
    result: TrackingResult, heart: PopulationHeart, labels: NDArray
) -> tuple[Array, Array, Array]:
    """Return mean |error| along the heart's axis, motion there and in-plane error ``(T,)``, mm."""
    grid = result.region
    exact = np.stack([
        displacement_field(heart, grid, from_phase=0.0, to_phase=float(phase))
        for phase in result.sequence.phases
    ])  # fmt: skip
    wall = labels[window(result)] == Structure.MYO
    exact, found = (np.einsum("ij,tjn->tin", grid.affine[:3, :3], field[:, :, wall])
                    for field in (exact, result.forward.numpy()))  # fmt: skip
    up = heart.pose.axes[:, 2]
    error, moves = (np.einsum("i,tin->tn", up, field) for field in (found - exact, exact))
    rest = found - exact - error[:, None] * up[:, None]
    in_plane = np.linalg.norm(rest, axis=1).mean(axis=1)

    return np.abs(error).mean(axis=1), np.abs(moves).mean(axis=1), in_plane


def _pig_view_rows(data: Path, preset: str) -> Iterator[Row]:
    """The pig's 14 long-axis planes: what the short axis alone leaves of their motion."""
    sequence, labels = pig_cine(data)
    long = pig_long_axis(data)
    alone = track(sequence, labels, preset=preset)
    both = track(sequence, labels, preset=preset, views=[long])
    # The same measure of both: the long axis as either motion brings it to ED.
    config = load_tracking_preset(preset)
    cine = check_cine(sequence, labels, grid=None, ed=None, cycle_s=None, config=config)
    view = check_views([long], cine, config, in_plane="auto")[0]
    images = view.prepared(config, torch.device("cpu"))
    still = torch.from_numpy(sequence.images[0][window(both)].copy())[None, None]
    found = [view_report(view, images, r.motion.displacement(view.phases)[0], still)
             for r in (alone, both)]  # fmt: skip
    es = both.sequence.es
    rms = [float(x.square().mean().sqrt()) for x in (found[0].before, *(f.after for f in found))]
    yield Row("pig: ED of long and short axis where both lie, correlation",
              f"{found[1].agreement:.3f}")  # fmt: skip
    yield Row(
        "pig: rms of the long axis: as imaged; short axis alone; both",
        f"{rms[0]:.4f}; {rms[1]:.4f}; {rms[2]:.4f}",
        "falls",
        rms[2] < rms[1] < rms[0],
    )
    yield Row("pig: the same at ES", f"{found[0].before[es]:.4f}; {found[0].after[es]:.4f}; "
              f"{found[1].after[es]:.4f}")  # fmt: skip
    for name, result in (("short axis alone", alone), ("both", both)):
        along = float(_through_mm(result, labels == Structure.MYO))
        yield Row(f"pig: through the slices at ES, base against apex, mm, {name}", f"{along:+.2f}")
    worst = float(both.consistency_mm.max())
    yield Row("pig, both: forward-backward in the myocardium, mm, worst frame", f"{worst:.3f}",
              "<= .5", worst <= 0.5)  # fmt: skip
    yield Row("pig, both: closure, mm", f"{both.closure_mm:.3g}", "exact", both.closure_mm == 0.0)
    yield Row("pig, both: folds, worst frame", f"{both.folds.max():.2g}", "none",
              bool(both.folds.max() == 0))  # fmt: skip
    yield Row("pig: seconds: short axis alone; both",
              f"{alone.timings['total']:.1f}; {both.timings['total']:.1f}")  # fmt: skip


def _through_mm(result: TrackingResult, wall: NDArray) -> float:
    """Return how far the wall's basal third moves through the slices at ES, less its apical."""
    depth = np.nonzero(wall)[0]
    moved = result.ed_to_frame[result.sequence.es, 0].numpy()[wall]
    low, high = np.quantile(depth, [1 / 3, 2 / 3])
    step = result.sequence.grid.spacing[0]

    return step * float(moved[depth >= high].mean() - moved[depth <= low].mean())

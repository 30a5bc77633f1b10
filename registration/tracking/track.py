"""Track a cine: motion from ED to every frame, and everything that follows from it."""

from __future__ import annotations

import platform
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from cardiogen import __version__, ops
from cardiogen.base import Note
from cardiogen.data import Grid, Structure
from cardiogen.data.mesh import Topology
from cardiogen.data.sequence import Sequence
from cardiogen.measure import PHENOTYPES, end_systole, mesh_volumes
from registration.tracking.config import (
    InPlane,
    Strategy,
    TrackingConfig,
    resolve_tracking_config,
)
from registration.tracking.inputs import Cine, check_cine, sha256, wants_in_plane
from registration.tracking.labels import propagated_labels
from registration.tracking.motion import Motion, find_motion, with_longitudinal
from registration.tracking.result import TrackingResult, withheld_words
from registration.tracking.strain import through_plane_doubt, tracked_strain
from registration.tracking.surface import surfaces_of
from registration.tracking.view_term import ViewLevels
from registration.tracking.views import (
    View,
    ViewReport,
    check_views,
    view_doubts,
    view_notes,
    view_report,
)

Mesh = tuple[NDArray[np.float64], Topology]


def track(
    images: Sequence | Tensor | NDArray,
    ed_labels: ArrayLike | Tensor,
    *,
    grid: Grid | None = None,
    ed: int | None = None,
    cycle_s: float | None = None,
    strategy: Strategy | None = None,
    preset: str | None = None,
    config: TrackingConfig | str | Path | None = None,
    in_plane: InPlane = "auto",
    mesh: Mesh | None = None,
    views: Iterable[Sequence] = (),
    device: torch.device | str | None = None,
) -> TrackingResult:
    """Track a cine from its ED frame, and carry labels and a mesh through the cycle.

    Fields are pull-back ``ed_to_frame`` on the ED grid: mesh vertices at ED move by them, labels
    of ED are seen on a frame through the inverse. Where slices are tracked on their own, motion
    through them is inferred from the volume of the wall (``longitudinal``), and said to be so.
    Further views, such as long axes, measure it instead: one motion in 3D then explains all of
    them (``view_term``), whatever the distance of the slices.

    Args:
        images: a sequence with images, or ``(T, 1, D, H, W)`` with ``grid``; frames cover the
            cycle evenly unless the sequence's phases say otherwise. Slices lie along D.
        ed_labels: structures at ED ``(D, H, W)`` (LV and MYO at least) on the same grid.
        grid: lattice of the images, if they are an array.
        ed: frame of ED; by default the sequence's, or 0.
        cycle_s: duration of the cycle, for strain rates; by default the sequence's.
        strategy: replaces that of the config, see ``TrackingConfig``.
        preset: name of a preset, by default ``default``.
        config: settings or a TOML file instead of a preset.
        in_plane: track slices on their own; ``auto`` where they are farther apart than the config
            says (10 mm).
        mesh: vertices ``(V, 3)`` and topology at ED to carry along; by default surfaces made from
            the labels (``surface``).
        views: further cines of the same heart on other planes of the same world; their frames
            lie at their own phases, from their own ED on. For ``groupwise``.
        device: where to compute; by default the CPU.

    Raises:
        CardiogenError: see ``inputs.check_cine`` and ``views.check_views``; M07 for settings, U14
            and U15 for names.
    """
    clock = _Clock()
    settings = resolve_tracking_config(preset, config, strategy)
    cine = check_cine(images, ed_labels, grid=grid, ed=ed, cycle_s=cycle_s, config=settings)
    others = check_views(views, cine, settings, in_plane=in_plane)
    flat, note = wants_in_plane(in_plane, cine.sequence.grid, settings, views=len(others))
    notes = [note, *view_notes(others)]
    device = torch.device("cpu" if device is None else device)
    with torch.no_grad():
        pixels = cine.prepared(settings, device)
        stacks = [ViewLevels(view, view.prepared(settings, device)) for view in others]
        clock.lap("prepare")
        motion = find_motion(pixels, cine, settings, in_plane=flat, views=stacks)
        clock.lap("motion")
        if flat and settings.longitudinal:
            motion, more = with_longitudinal(motion, cine)
            notes += more
        labels = propagated_labels(motion.backward, cine, between=motion.stretch is not None)
        clock.lap("propagation")
    sequence = _with_mesh(cine, motion.forward, labels, mesh)
    clock.lap("mesh")
    # One slice has no neighbor to stretch away from, whatever moves it.
    planar = flat or cine.region.shape[0] == 1
    doubt = through_plane_doubt(cine.sequence.grid, views=len(others))
    strain, more = tracked_strain(motion.seen, cine, sequence, planar=planar, doubt=doubt,
                                  stretch=motion.stretch)  # fmt: skip
    clock.lap("strain")
    checks = _checks(motion, cine)
    ed = cine.sequence.ed
    reports = _reports(motion, stacks, pixels[ed : ed + 1])
    withheld = _withheld(cine, doubt)
    notes += [*view_doubts(reports), *more, *_withheld_notes(withheld)]
    clock.lap("checks")

    return TrackingResult(
        sequence=sequence, region=cine.region, start=cine.start, forward=motion.forward.cpu(),
        backward=motion.backward.cpu(), in_plane=flat, stretch=motion.stretch,
        motion=motion.series, strain=strain, withheld=withheld, **checks,
        energy_rows=tuple(motion.rows), views=reports, timings=clock.timings,
        provenance=_provenance(cine, others, settings, preset, pixels.device),
        notes=(*notes, *_fold_notes(checks["folds"])),
    )  # fmt: skip


class _Clock:
    """Seconds by stage, and their ``total``."""

    def __init__(self) -> None:
        self._last = time.perf_counter()
        self.timings = {"total": 0.0}

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.timings[name] = now - self._last
        self.timings["total"] += now - self._last
        self._last = now


def _with_mesh(
    cine: Cine, forward: Tensor, labels: NDArray[np.uint8], mesh: Mesh | None
) -> Sequence:
    """Return the sequence with labels, a mesh carried by the motion, and ES from its volume."""
    start, topology = surfaces_of(cine.labels, cine.sequence.grid) if mesh is None else mesh
    points = torch.from_numpy(np.asarray(start, dtype=np.float64))[None]
    moved = [ops.warp_points(points, u[None].cpu(), cine.region)[0].numpy() for u in forward]
    vertices = np.stack(moved)
    lv = mesh_volumes(vertices, topology)[Structure.LV]

    return cine.sequence.with_(
        labels=labels, vertices=vertices, topology=topology,
        es=end_systole(lv, ed=cine.sequence.ed),
    )  # fmt: skip


def _withheld(cine: Cine, doubt: str) -> dict[str, str]:
    """Return which measures are left empty, and why."""
    if cine.one_slice:
        return dict.fromkeys(PHENOTYPES, "one slice: a ventricle's volume is not known from it")
    if not doubt:
        return {}
    # Most of what the right ventricle ejects, it ejects by shortening.
    why = "it ejects along its long axis, and motion through the slices is not measured"

    return dict.fromkeys(("RVESV (mL)", "RVSV (mL)", "RVEF (%)"), why)


def _withheld_notes(withheld: dict[str, str]) -> list[Note]:
    text = withheld_words(withheld)

    return [Note("S87", "tracking", text)] if text else []


def _reports(motion: Motion, stacks: list[ViewLevels], ed_image: Tensor) -> tuple[ViewReport, ...]:
    """Return how every view fits, and what is left of the motion in it."""
    with torch.no_grad():
        return tuple(
            view_report(s.view, s.images, motion.series.displacement(s.view.phases)[0], ed_image)
            for s in stacks
        )


def _checks(motion: Motion, cine: Cine) -> dict[str, object]:
    """Return consistency, closure and folds."""
    wall = torch.from_numpy(cine.labels[cine.window] == Structure.MYO).to(motion.forward.device)
    with torch.no_grad():
        there_and_back = ops.compose(motion.forward, motion.backward)
        folds = ops.folding(motion.forward).fraction

    return {
        "consistency_mm": _wall_mean_mm(there_and_back, cine.region, wall),
        "closure_mm": float(_wall_mean_mm(motion.closure, cine.region, wall)[0]),
        "folds": folds.cpu().numpy().astype(np.float64),
    }


def _wall_mean_mm(field: Tensor, grid: Grid, wall: Tensor) -> NDArray[np.float64]:
    """Return the mean length over the wall of ``(T, 3, *S)`` voxels, mm ``(T,)``."""
    vectors = field[:, :, wall].double().cpu().numpy()
    vectors = np.einsum("ij,tjn->tin", grid.affine[:3, :3], vectors)

    return np.linalg.norm(vectors, axis=1).mean(axis=1)


def _fold_notes(folds: NDArray[np.float64]) -> list[Note]:
    if not (folds > 0).any():
        return []
    return [Note("S77", "tracking", f"up to {folds.max():.2g} of the cells of a frame fold")]


def _provenance(
    cine: Cine,
    views: tuple[View, ...],
    config: TrackingConfig,
    preset: str | None,
    device: torch.device,
) -> dict[str, object]:
    hashes = {"views_sha256": [sha256(view.sequence.images) for view in views]} if views else {}

    return {
        "cardiogen": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "device": str(device),
        "threads": torch.get_num_threads(),
        "preset": preset,
        "config": config.model_dump(mode="json"),
        "grid": {"shape": list(cine.sequence.grid.shape),
                 "affine": cine.sequence.grid.affine.tolist()},
        "images_sha256": sha256(cine.sequence.images),
        "labels_sha256": sha256(cine.labels),
        **hashes,
    }  # fmt: skip

"""Both ends of ejection of one latent, of models of meshes and of label maps alike.

Meshes end at the model's own end of ejection. Where that is found by decoding the cycle frame by
frame, and where there are label maps alone, the frame of least LV volume is searched instead:
every tenth of the cycle, then (where any phase can be decoded) a quarter of that around the best.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from cardiogen.base import CardiogenError
from cardiogen.data.labels import Structure
from cardiogen.data.mesh import Topology
from cardiogen.measure.volumes import STRUCTURES, Volumes, label_volumes, mesh_volumes, phenotypes
from cardiogen.models.protocol import AnyModel, LabelModel, gives_labels
from cardiogen.models.voxel import hard_labels
from cardiogen.population.template import template_topology

Array = NDArray[np.float64]

MEASURES = ("LVEDV (mL)", "LVESV (mL)", "LVEF (%)", "LVM (g)", "RVEDV (mL)", "RVESV (mL)",
            "RVEF (%)")  # fmt: skip
STROKES, DRIFT = slice(7, 9), 9
_COARSE = np.arange(10) / 10.0
_FINE = np.array([-0.05, -0.025, 0.025, 0.05])
# Kinds whose ``end_systole`` decodes 34 frames and more (and ``is_possible`` of some); a search
# takes 14.
_SEARCHED = ("deformation", "mesh", "pca")


@dataclass(frozen=True, eq=False)
class Ends:
    """One heart at end diastole and end systole.

    Attributes:
        row: the measures, left and right stroke volume (mL) and the change of the wall's volume
            from ED to ES (share), ``(10,)``.
        systole: phase of end systole.
        vertices: meshes ``(2, V, 3)`` in the heart's frame, mm; None of a model of label maps.
        labels: structures at ED ``(D, H, W)`` on the model's lattice; None of a model of meshes.
    """

    row: Array
    systole: float
    vertices: Array | None = None
    labels: NDArray[np.uint8] | None = None


def row_of(volumes: Volumes, ed: int = 0, es: int = 1) -> Array:
    """Return the row of :class:`Ends` of volumes over frames."""
    row = phenotypes(volumes, ed=ed, es=es)
    wall = volumes[Structure.MYO]
    drift = wall[es] / wall[ed] - 1.0

    return np.array([*(row[name] for name in (*MEASURES, "LVSV (mL)", "RVSV (mL)")), drift])


def measures_of(ends: Array, topology: Topology) -> Array:
    """Return the row of :class:`Ends` of meshes at ED and ES ``(2, V, 3)``, in any frame."""
    return row_of(mesh_volumes(ends, topology))


def latent_ends(model: AnyModel, latent: torch.Tensor) -> Ends | None:
    """Return a latent at both ends; None where it is no heart."""
    if gives_labels(model):
        return _label_ends(model, latent)
    if getattr(model, "kind", "") not in _SEARCHED:
        if not model.is_possible(latent):
            return None
        systole = model.end_systole(latent)
        vertices = model.decode(latent, [0.0, systole])
        return Ends(measures_of(vertices, model.topology), systole, vertices)
    # The others are judged by the volumes that are searched anyway.
    if model.kind == "deformation" and not model.is_possible(latent):
        return None
    meshes: dict[float, Array] = {}

    def volumes_at(phases: Array) -> Volumes:
        found = model.decode(latent, phases)
        meshes.update(zip(phases.tolist(), found, strict=True))
        return mesh_volumes(found, model.topology)

    phases, volumes = _searched(volumes_at, _COARSE, refine=True)
    es = _least(volumes)
    if not all((volumes[s] > 0).all() for s in STRUCTURES):
        return None
    both = np.stack([meshes[phases[0]], meshes[phases[es]]])
    return Ends(row_of(volumes, 0, es), float(phases[es]), both)


def _label_ends(model: LabelModel, latent: torch.Tensor) -> Ends | None:
    """Judge by volumes over the cycle: one pass tells what is possible, ED and ES."""
    known = np.array(model.known_phases)
    first: list[NDArray[np.uint8]] = []

    def volumes_at(phases: Array) -> Volumes:
        decoded = [model.decode_probs(latent, [phase]) for phase in phases.tolist()]
        labels = np.concatenate([hard_labels(probs) for probs, _ in decoded])
        first.append(labels[0])
        return label_volumes(labels, decoded[0][1])

    coarse = known if known.size else _COARSE
    phases, volumes = _searched(volumes_at, coarse, refine=not known.size)
    es = _least(volumes)
    whole = all((volumes[s] > 0).all() for s in STRUCTURES)
    # Without a frame of end systole there are no measures of one.
    if not whole or es == 0 or volumes[Structure.RV][es] >= volumes[Structure.RV][0]:
        return None
    return Ends(row_of(volumes, 0, es), float(phases[es]), labels=first[0])


def _searched(
    volumes_at: Callable[[Array], Volumes], coarse: Array, *, refine: bool
) -> tuple[Array, Volumes]:
    """Return phases, the first of them ED, and the volumes there."""
    volumes = volumes_at(coarse)
    if not refine:
        return coarse, volumes
    near = np.mod(coarse[_least(volumes)] + _FINE, 1.0)
    more = volumes_at(near)
    return np.append(coarse, near), {s: np.append(volumes[s], more[s]) for s in volumes}


def _least(volumes: Volumes) -> int:
    return int(np.argmin(volumes[Structure.LV]))


def require_template(model: AnyModel) -> None:
    """Refuse a model of meshes that cannot be compared vertex by vertex (U12)."""
    topology = model.topology
    if topology is not None and topology.vertex_count != template_topology().vertex_count:
        raise CardiogenError(
            "U12", "model", found=f"meshes of {topology.vertex_count} vertices",
            expected=f"meshes of {template_topology().vertex_count} vertices, or label maps",
            remedy="a model on the template of this cardiogen",
        )  # fmt: skip

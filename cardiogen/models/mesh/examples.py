"""Meshes of many hearts over the cycle with their conditions: what the mesh VAE learns from."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence as Listing
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cardiogen.base import CardiogenError, keyed_rng, progress
from cardiogen.data.factors import Factors
from cardiogen.data.mesh import Topology
from cardiogen.data.sequence import Sequence
from cardiogen.models.protocol import CONDITION_COLUMNS, CONDITION_UNITS, encode_condition
from cardiogen.population.anatomy import heart_vertices
from cardiogen.population.conditions import AGE_RANGE
from cardiogen.population.heart import sample_heart, shape_prior
from cardiogen.population.pose import rigid_pose
from cardiogen.population.template import template_topology


@dataclass(frozen=True, eq=False, kw_only=True)
class MeshExamples:
    """N hearts of corresponding vertices in one frame of reference.

    Attributes:
        vertices: ``(N, T, V, 3)`` float32 mm.
        phases: of every frame ``(N, T)``; stages without time (ED, ES) take any fixed two.
        conditions: ``(N, C)`` in native units, NaN where missing.
        faces: ``(F, 3)`` of one or several surfaces, for the graph.
        names: of the conditions.
        units: of the conditions.
        topology: named closed surfaces, where there are.
        staged: whether the phases only label stages, with nothing in between.
    """

    vertices: NDArray[np.float32]
    phases: NDArray[np.float64]
    conditions: NDArray[np.float64]
    faces: NDArray[np.int64]
    names: tuple[str, ...] = CONDITION_COLUMNS
    units: tuple[str, ...] = CONDITION_UNITS
    topology: Topology | None = None
    staged: bool = False

    def __post_init__(self) -> None:
        count, frames = self.vertices.shape[:2]
        if self.vertices.ndim != 4 or self.vertices.shape[3] != 3:
            raise ValueError(f"vertices must be (N, T, V, 3), got {self.vertices.shape}")
        if self.phases.shape != (count, frames):
            raise ValueError(f"phases must be ({count}, {frames}), got {self.phases.shape}")
        if self.conditions.shape != (count, len(self.names)):
            raise ValueError(
                f"conditions must be ({count}, {len(self.names)}), got {self.conditions.shape}"
            )

    def __len__(self) -> int:
        return len(self.vertices)

    def fingerprint(self) -> str:
        """Return a hash of counts, phases and conditions, by which a resumed training knows them.

        Vertices are left out: they follow from the same seeds, and their last bits differ from
        one processor to the next, where a training may go on too.
        """
        digest = hashlib.sha256(f"{self.vertices.shape}{self.names}{self.staged}".encode())
        for values in (self.phases, self.conditions):
            digest.update(np.ascontiguousarray(np.round(values, 6)).tobytes())
        return digest.hexdigest()

    def take(self, rows: ArrayLike) -> Self:
        """Return chosen hearts."""
        index = np.asarray(rows)
        return replace(
            self,
            vertices=self.vertices[index],
            phases=self.phases[index],
            conditions=self.conditions[index],
        )


def stage_examples(
    stages: Listing[NDArray],
    conditions: ArrayLike,
    faces: NDArray,
    *,
    names: tuple[str, ...],
    units: tuple[str, ...],
    topology: Topology | None = None,
) -> MeshExamples:
    """Return examples of shapes without time: ED alone, or ED and ES.

    Stage k of K stands at phase k / K of the time code, which is a label here and no time.

    Args:
        stages: one array ``(N, V, 3)`` mm for every stage, taken as given.
        conditions: ``(N, C)``.
        faces: ``(F, 3)``.
        names: of the conditions.
        units: of the conditions.
        topology: named closed surfaces, where there are.
    """
    vertices = np.stack([np.asarray(s, np.float32) for s in stages], axis=1)
    phases = np.broadcast_to(np.arange(len(stages)) / len(stages), vertices.shape[:2])
    return MeshExamples(
        vertices=vertices, phases=np.ascontiguousarray(phases),
        conditions=np.asarray(conditions, np.float64), faces=np.asarray(faces, np.int64),
        names=names, units=units, topology=topology, staged=True,
    )  # fmt: skip


def population_mesh(
    seed: int, index: int, *, frames: int = 10
) -> tuple[NDArray[np.float32], NDArray[np.float64], NDArray[np.float64]]:
    """Return vertices ``(T, V, 3)``, phases ``(T,)`` and conditions ``(5,)`` of one heart.

    It lies in the heart's own frame. The first frame is ED; the others are drawn about their even
    places, so that many hearts cover all times.
    """
    rng = keyed_rng(seed, "mesh/examples", index)
    heart = sample_heart(seed, index, Factors(age=float(rng.uniform(*AGE_RANGE))))
    phases = (np.arange(frames) + rng.uniform(-0.5, 0.5, frames)) / frames
    phases[0] = 0.0
    vertices = heart_vertices(heart.coordinates(phases)).astype(np.float32)
    return vertices, phases, encode_condition(heart.factors).numpy()


def population_meshes(count: int, seed: int, *, frames: int = 10) -> MeshExamples:
    """Return the first ``count`` hearts of the reference population."""
    made = [
        population_mesh(seed, i, frames=frames) for i in progress(range(count), "drawing meshes")
    ]
    vertices, phases, conditions = (np.stack(part) for part in zip(*made, strict=True))
    topology = template_topology()
    return MeshExamples(
        vertices=vertices, phases=phases, conditions=conditions, faces=topology.all_faces,
        topology=topology,
    )  # fmt: skip


def cohort_meshes(
    sequences: Listing[Sequence], *, frames: int, reference: NDArray[np.float64] | None = None
) -> MeshExamples:
    """Return examples of mesh sequences of one topology, brought to one frame of reference.

    Args:
        sequences: with vertices, factors and phases.
        frames: T taken of every sequence, evenly by index; ED is always among them.
        reference: ED mesh ``(V, 3)`` in the wanted frame; the average population heart by default.

    Raises:
        CardiogenError: C28 for a sequence without meshes, of too few frames or another topology.
    """
    reference = average_heart() if reference is None else reference
    vertices, phases, conditions = [], [], []
    for sequence in sequences:
        found = "no meshes" if sequence.vertices is None else (
            f"{len(sequence)} frames of {sequence.vertices.shape[1]} vertices"
        )  # fmt: skip
        if (
            sequence.vertices is None
            or len(sequence) < frames
            or sequence.vertices.shape[1] != len(reference)
        ):
            raise CardiogenError(
                "C28", sequence.subject_id, found=found,
                expected=f"{frames} frames or more of {len(reference)} vertices",
                remedy="tracking the cine, or fewer frames",
            )  # fmt: skip
        chosen = (sequence.ed + np.arange(frames) * len(sequence) // frames) % len(sequence)
        pose = rigid_pose(reference, sequence.vertices[sequence.ed])
        vertices.append(pose.to_heart(sequence.vertices[chosen]).astype(np.float32))
        phases.append(sequence.phases[chosen])
        conditions.append(encode_condition(sequence.factors or Factors()).numpy())
    topology = sequences[0].topology
    return MeshExamples(
        vertices=np.stack(vertices), phases=np.stack(phases), conditions=np.stack(conditions),
        faces=topology.all_faces, topology=topology,
    )  # fmt: skip


def average_heart() -> NDArray[np.float64]:
    """Return the ED mesh ``(V, 3)`` of the population's average shape, in the heart's frame."""
    return heart_vertices(shape_prior()[0][None])[0]

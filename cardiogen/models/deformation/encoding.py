"""Encoding: the velocities that carry the template onto the label maps of one heart.

End diastole starts from ``engine.fit_template``, pose and shape, whose mesh ``codes`` turns into a
velocity; every other frame from the mean motion of a model. ``label_codes`` then follows the
voxels. Frames are treated by themselves: any subset of them gives what it shows.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cardiogen.base import CardiogenError
from cardiogen.data.sequence import Sequence
from cardiogen.engine.chirality import margin, settle_chirality
from cardiogen.engine.contours import require_heart
from cardiogen.engine.fit_template import fit_template
from cardiogen.models.deformation.codes import CodeFitter
from cardiogen.models.deformation.decoder import VelocityDecoder
from cardiogen.models.deformation.label_codes import LabelFitter
from cardiogen.models.disease import SHORTENING_MEAN
from cardiogen.population.anatomy import heart_vertices
from cardiogen.population.pose import Pose

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class EncodedHeart:
    """One heart as velocities of the template.

    Attributes:
        pose: from the heart's frame to the patient's world.
        ed: v_ed ``(3, A)`` mm.
        motion: v_t ``(T, 3, A)`` mm; zero at end diastole.
        phases: of the frames ``(T,)``.
        margin: by how much the pose fits end diastole better than its mirror image, negative where
            the heart's cohort decided against its own fit; None if they were not compared.
    """

    pose: Pose
    ed: Tensor
    motion: Tensor
    phases: Array
    margin: float | None = None

    @property
    def ed_frame(self) -> int:
        """Number of the frame at end diastole."""
        return int(np.flatnonzero(np.mod(self.phases, 1.0) == 0)[0])

    def meshes(self, decoder: VelocityDecoder) -> Array:
        """Return the meshes of the frames ``(T, V, 3)`` in the patient's world, mm."""
        template = decoder.template
        points = torch.from_numpy(decoder.vertices).float().expand(len(self.motion), -1, -1)
        moved = template.move(points, template.displacement(self.motion))
        moved = template.move(moved, template.displacement(self.ed[None]).expand(
            len(moved), -1, -1, -1, -1))  # fmt: skip

        return self.pose.to_world(moved.double().numpy())


@dataclass(frozen=True, eq=False)
class HeartEncoder:
    """Encodes label maps with the template of a decoder.

    Attributes:
        decoder: its template is deformed.
        typical: scores of the typical heart ``(S,)``, whose motion frames start from.
    """

    decoder: VelocityDecoder
    typical: Array

    @cached_property
    def labels(self) -> LabelFitter:
        """What follows voxels."""
        return LabelFitter.of(self.decoder.template)

    @cached_property
    def meshes(self) -> CodeFitter:
        """What follows the mesh of ``fit_template``."""
        return CodeFitter(self.decoder.template)

    def encode(self, observed: Sequence) -> EncodedHeart:
        """Return the velocities of a heart with label maps of end diastole and other frames.

        An ``assumed`` header is decided by this heart alone; ``encode_cohort`` decides better.

        Raises:
            CardiogenError: L37, L60, L61 for frames without a whole heart, L49 without end
                diastole.
        """
        if not has_end_diastole(observed):
            raise CardiogenError(
                "L49", observed.subject_id, found="no frame at end diastole",
                expected="a label map at phase 0", remedy="the end-diastolic label map",
            )  # fmt: skip
        for number, labels in enumerate(observed.labels):
            require_heart(labels, f"{observed.subject_id}, frame {number}")
        (observed,), (said,) = settle_chirality([observed])
        still = observed.labels[observed.ed]
        start = fit_template(still, observed.grid, orientation=observed.orientation)
        mesh = torch.from_numpy(heart_vertices(start.z[None])).float()
        heart = self.follow(
            observed, start.pose, self.meshes.fit_ed(mesh)[0], self._starts(observed.phases)
        )

        if not np.isfinite(said):
            return replace(heart, margin=start.margin)
        return replace(heart, margin=margin(said, mirrored=heart.pose.mirrored))

    def follow(self, observed: Sequence, pose: Pose, ed: Tensor, motion: Tensor) -> EncodedHeart:
        """Return the velocities that follow the voxels of all frames, one of them end diastole.

        Args:
            observed: label maps.
            pose: of the heart.
            ed: where v_ed starts ``(3, A)`` mm.
            motion: where v_t start ``(T, 3, A)`` mm.
        """
        ed = self.labels.fit(observed.labels[observed.ed], observed.grid, pose, ed)
        found = [
            torch.zeros_like(ed)
            if number == observed.ed
            else self.labels.fit(labels, observed.grid, pose, begin, onward=ed)
            for number, (labels, begin) in enumerate(zip(observed.labels, motion, strict=True))
        ]

        return EncodedHeart(pose, ed, torch.stack(found), np.asarray(observed.phases))

    def _starts(self, phases: Array) -> Tensor:
        """Return the typical motion at phases, its base descending as patients' do."""
        _, motion = self.decoder.modes.heart_velocities(self.typical, phases)
        motion[:, 2] *= SHORTENING_MEAN

        return torch.from_numpy(motion).float()


def has_end_diastole(observed: Sequence) -> bool:
    """Whether the label map of end diastole was observed."""
    return bool(np.mod(observed.phases[observed.ed], 1.0) == 0 and observed.es != observed.ed)

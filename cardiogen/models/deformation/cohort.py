"""Cohorts of label maps as training data: what they tell of a model of the population."""

from __future__ import annotations

from collections.abc import Sequence as Listing
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from cardiogen.base import CardiogenError, progress
from cardiogen.data.factors import Factors
from cardiogen.data.labels import Structure
from cardiogen.data.mesh import Topology
from cardiogen.data.sequence import Sequence
from cardiogen.engine.chirality import margin, settle_chirality
from cardiogen.measure.volumes import label_volumes, mesh_volumes
from cardiogen.models.deformation.adaptation import shape_features
from cardiogen.models.deformation.decoder import VelocityDecoder
from cardiogen.models.deformation.encoding import EncodedHeart
from cardiogen.models.deformation.individual import seen_motion
from cardiogen.models.deformation.model import DeformationModel
from cardiogen.models.protocol import encode_condition
from cardiogen.population.render import render_labels

Array = NDArray[np.float64]

FEWEST = 5
_ED_NOISE_MM = 10.0
_PRIOR_EXCESS = 25.0  # patients beat five times farther from the mean than healthy hearts


@dataclass(frozen=True, eq=False)
class CohortCodes:
    """What a cohort tells of a model.

    Attributes:
        scores: ``(N, S)``.
        leftover: velocities of every subject's frames that no scores give, ``(T, P)`` mm each.
        phases: of these frames.
        features: of the shapes at end diastole ``(N, 5)``, see ``adaptation``.
        ejection: LVEF and RVEF over the frames ``(N, 2)``.
        factors: of the subjects, any missing.
        groups: of the subjects, None where unknown.
    """

    scores: Array
    leftover: tuple[Array, ...]
    phases: tuple[Array, ...]
    features: Array
    ejection: Array
    factors: tuple[Factors, ...]
    groups: tuple[str | None, ...]

    def of(self, chosen: Listing[int]) -> CohortCodes:
        """Return the codes of some subjects."""
        rows = list(chosen)
        leftover, phases, factors, groups = (
            tuple(values[k] for k in rows)
            for values in (self.leftover, self.phases, self.factors, self.groups)
        )
        return CohortCodes(
            self.scores[rows], leftover, phases, self.features[rows], self.ejection[rows],
            factors, groups,
        )  # fmt: skip


def encode_cohort(
    model: DeformationModel, hearts: Listing[Sequence]
) -> tuple[list[tuple[Sequence, EncodedHeart]], list[tuple[Sequence, CardiogenError]]]:
    """Encode label maps of end diastole and any other frames; see ``encoding``.

    Headers that are ``assumed`` are settled first, for all hearts together: ``engine.chirality``.

    Returns:
        Hearts with their codes, in their order, as settled (a note L63 tells how), and those that
        could not be encoded, with why.
    """
    found, refused = [], []
    settled, evidence = settle_chirality(hearts)
    for heart, said in zip(progress(settled, "encoding hearts"), evidence, strict=True):
        try:
            code = model.encoder.encode(heart)
        except CardiogenError as error:
            refused.append((heart, error))
            continue
        if np.isfinite(said):
            code = replace(code, margin=margin(said, mirrored=code.pose.mirrored))
        found.append((heart, code))

    return found, refused


def observed_codes(
    model: DeformationModel, encoded: Listing[tuple[Sequence, EncodedHeart]]
) -> CohortCodes:
    """Return what label maps and their codes tell of a cohort: what :func:`adapt` learns from.

    Time runs by stage: end systole of every heart is put at the typical heart's. Scores of frames
    at .26 to .59 of a cycle mix when with how far, and their mean at end systole moved 16 %
    farther than the mean of end systoles. Ejection fractions are those that a mesh must have to
    look as the label maps do, since rendered meshes eject less.
    """
    unknown = model.prior(encode_condition(Factors()))
    systole = model.end_systole(unknown.mean)
    lowest = [int(np.argmin(label_volumes(seen.labels, seen.grid)[Structure.LV]))
              for seen, _ in encoded]  # fmt: skip
    staged = [
        replace(heart, phases=by_stage(heart.phases, float(heart.phases[es]), systole))
        for (_, heart), es in zip(encoded, lowest, strict=True)
    ]
    codes = cohort_codes(model, staged, [seen.factors or Factors() for seen, _ in encoded])
    missed = [
        _missed_ejection(model, seen, heart, es)
        for (seen, heart), es in zip(encoded, lowest, strict=True)
    ]

    return replace(
        codes, ejection=codes.ejection + np.stack(missed),
        groups=tuple(seen.group for seen, _ in encoded),
    )  # fmt: skip


def by_stage(phases: Array, systole: float, wanted: float) -> Array:
    """Return phases in [0, 1) with systole where wanted, and time even before and after it."""
    if systole <= 0.0:
        return phases

    return np.interp(phases, [0.0, systole, 1.0], [0.0, wanted, 1.0])


def _missed_ejection(
    model: DeformationModel, seen: Sequence, heart: EncodedHeart, es: int
) -> Array:
    """Return by how much rendered meshes miss LVEF and RVEF of the label maps ``(2,)``."""
    topology = model.topology.mirrored() if heart.pose.mirrored else model.topology
    again = render_labels(heart.meshes(model.decoder)[es], topology, seen.grid)
    volumes = label_volumes(np.stack([seen.labels[heart.ed_frame], seen.labels[es], again]),
                            seen.grid)  # fmt: skip

    return np.array([(v[2] - v[1]) / v[0]
                     for v in (volumes[Structure.LV], volumes[Structure.RV])])  # fmt: skip


def cohort_codes(
    model: DeformationModel, hearts: Listing[EncodedHeart], factors: Listing[Factors]
) -> CohortCodes:
    """Return scores and features of encoded hearts."""
    decoder, prior = model.decoder, model.prior(encode_condition(Factors()))
    typical, spread = model.scores(prior.mean.numpy()), prior.covariance.numpy()
    beats = slice(decoder.modes.ed_size, None)
    scores, leftover, times, features, ejection = [], [], [], [], []
    for heart, known in zip(hearts, factors, strict=True):
        later = np.mod(heart.phases, 1.0) != 0
        phases, motion = heart.phases[later], heart.motion.flatten(1).double().numpy()[later]
        mean, _ = seen_motion(
            decoder.modes, phases, motion, typical[beats], _PRIOR_EXCESS * spread[beats, beats]
        )
        scores.append(np.concatenate([ed_scores(decoder, heart), mean]))
        _, shown = decoder.modes.heart_velocities(scores[-1], phases)
        leftover.append(motion - shown.reshape(motion.shape))
        times.append(phases)
        features.append(ed_features(decoder, heart, known))
        meshes = heart.pose.to_heart(heart.meshes(decoder))
        ejection.append(ejection_fractions(meshes, decoder.template.topology, heart.ed_frame))

    return CohortCodes(
        np.stack(scores), tuple(leftover), tuple(times), np.stack(features), np.stack(ejection),
        tuple(factors), (None,) * len(factors),
    )  # fmt: skip


def ejection_fractions(meshes: Array, topology: Topology, ed: int = 0) -> Array:
    """Return LVEF and RVEF ``(2,)`` of the meshes of a cycle ``(T, V, 3)``.

    End systole is the frame with the least left volume.
    """
    volumes = mesh_volumes(meshes, topology)
    es = int(np.argmin(volumes[Structure.LV]))
    chambers = (volumes[Structure.LV], volumes[Structure.RV])

    return np.array([1.0 - v[es] / v[ed] for v in chambers])


def ed_scores(decoder: VelocityDecoder, heart: EncodedHeart) -> Array:
    """Return the most probable scores ``(R1,)`` of the velocity at end diastole.

    Scores of modes that move less than the noise of encoding are shrunk to nothing.
    """
    modes = decoder.modes
    seen = modes.ed_modes @ (heart.ed.double().numpy().ravel() - modes.ed_mean)

    return seen * modes.ed_scale / (modes.ed_scale**2 + _ED_NOISE_MM**2)


def ed_features(decoder: VelocityDecoder, heart: EncodedHeart, factors: Factors) -> Array:
    """Return the features of the shape at end diastole ``(5,)``."""
    still = replace(heart, motion=0 * heart.motion[:1], phases=np.zeros(1))
    vertices = heart.pose.to_heart(still.meshes(decoder)[0])

    return shape_features(vertices, decoder.template.topology, factors)


def require_enough(count: int) -> None:
    """Refuse (C28) fewer than five subjects."""
    if count < FEWEST:
        raise CardiogenError(
            "C28", "cohort", found=f"{count} subjects with ED and another frame",
            expected=f"at least {FEWEST}", remedy="a larger cohort",
        )  # fmt: skip

"""The files of ``cardiogen score``: tables, maps on the mesh, and never a diagnosis."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cardiogen.base import atomic_write, write_json
from cardiogen.cli.score_norm import Norm

if TYPE_CHECKING:
    from cardiogen.export.marks import Marks
    from cardiogen.export.space import Space
    from cardiogen.models.protocol import AnatomyModel, Posterior


def write_score(
    folder: Path,
    model: AnatomyModel,
    posterior: Posterior,
    norm: Norm,
    facts: dict[str, object],
    space: Space,
) -> None:
    """Write what was found, and the facts as ``score.json``, into an existing folder."""
    from cardiogen.export.marks import Marks
    from cardiogen.export.norm_map import NOT_A_DIAGNOSIS
    from cardiogen.export.tables import write_measures
    from cardiogen.models.normative import z_scores

    marks = Marks(synthetic=False, extrapolated=bool(facts["extrapolated"]))
    z, percentile = z_scores(norm.subject, norm.draws)
    spread = norm.draws.std(axis=0, ddof=1)
    # What of the spread between healthy hearts the label maps resolve.
    left = norm.known.std(axis=0, ddof=1) if len(norm.known) > 1 else np.full_like(spread, np.nan)
    resolved = 100.0 * (1.0 - np.minimum(left / np.where(spread > 0, spread, np.nan), 1.0) ** 2)
    rows = [
        {"measure": name, "value": float(norm.subject[k]),
         "norm mean": float(norm.draws[:, k].mean()), "norm SD": float(spread[k]),
         "z": float(z[k]), "percentile": float(percentile[k]), "resolved (%)": float(resolved[k])}
        | marks.cells
        for k, name in enumerate(norm.measures)
    ]  # fmt: skip
    write_measures(folder / "phenotypes.csv", rows)
    _write_maps(folder, model, posterior, norm, marks, space)
    told = {"meaning": NOT_A_DIAGNOSIS} | facts
    write_json(folder / "score.json", told)
    with atomic_write(folder / "README.txt") as temporary:
        temporary.write_text(_README.format(NOT_A_DIAGNOSIS), encoding="utf-8")


def _write_maps(
    folder: Path,
    model: AnatomyModel,
    posterior: Posterior,
    norm: Norm,
    marks: Marks,
    space: Space,
) -> None:
    """Write the mesh with its z-scores, and the wall thickness by AHA segment."""
    from cardiogen.export.norm_map import NOT_A_DIAGNOSIS, write_norm_bullseye
    from cardiogen.export.tables import write_measures
    from cardiogen.export.vtp import write_vtp
    from cardiogen.measure.aha import SEGMENT_NAMES, segment_means
    from cardiogen.measure.mesh_thickness import mesh_thickness
    from cardiogen.models.normative import outward_shift, z_scores

    topology, mean = model.topology, norm.meshes.mean(axis=0)
    shift = outward_shift(norm.mesh, mean, topology.all_faces)
    position, _ = z_scores(shift, outward_shift(norm.meshes, mean, topology.all_faces))
    own, others = (mesh_thickness(m, topology) for m in (norm.mesh, norm.meshes))
    wall, _ = z_scores(own, others)
    segments = topology.aha_segment
    mine = segment_means(own, segments)
    theirs = np.stack([segment_means(row, segments) for row in others])
    z, percentile = z_scores(mine, theirs)
    table = [
        {"segment": k + 1, "name": name, "thickness (mm)": float(mine[k]),
         "norm mean (mm)": float(theirs[:, k].mean()),
         "norm SD (mm)": float(theirs[:, k].std(ddof=1)),
         "z": float(z[k]), "percentile": float(percentile[k])} | marks.cells
        for k, name in enumerate(SEGMENT_NAMES)
    ]  # fmt: skip
    write_measures(folder / "segments.csv", table)
    write_norm_bullseye(folder / "bullseye.png", z, title="Against the norm", marks=marks)
    shown = topology.mirrored() if posterior.pose.mirrored else topology
    write_vtp(
        folder / "norm_map.vtp", posterior.pose.to_world(norm.mesh), shown.all_faces,
        point_data={
            "position_z": position, "position_mm": shift, "thickness_mm": own, "thickness_z": wall,
            "aha_segment": segments,
        },
        fields={"meaning": NOT_A_DIAGNOSIS}, space=space, marks=marks,
    )  # fmt: skip


_README = """{}

score.json       Squared deviation of the whole heart, of its size, of the rest of its
                 end-diastolic shape and of its motion; p: rank among healthy hearts observed and
                 scored in the same way; p_by_model: what the model itself expects.
phenotypes.csv   Measures, z-scores and percentiles among healthy hearts with these factors.
                 Where little is resolved, the value is what the factors tell.
segments.csv     Wall thickness at end diastole by AHA segment.
norm_map.vtp     Mesh at end diastole: position_z (outward wall position), thickness_z; in SD.
bullseye.png     Wall thickness, SD of the norm.
"""

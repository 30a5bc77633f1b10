"""Measures of hearts: volumes, mass, thickness, AHA segments, overlap, validity, references."""

from cardiogen.measure.aha import (
    SEGMENT_NAMES,
    Insertions,
    aha_segments,
    rv_insertions,
    segment_means,
    segment_of_points,
    segment_volumes,
)
from cardiogen.measure.crossing import crossing_faces
from cardiogen.measure.cycle_validity import check_cycle, check_sequence
from cardiogen.measure.frame import LvFrame, lv_frame
from cardiogen.measure.label_validity import check_labels
from cardiogen.measure.mesh_file import closed_volume, read_mesh
from cardiogen.measure.mesh_thickness import mesh_thickness
from cardiogen.measure.mesh_validity import check_mesh
from cardiogen.measure.overlap import SurfaceDistances, compare_labels, dice, surface_distances
from cardiogen.measure.paths import Measured, measure_path, z_score_row
from cardiogen.measure.reference import Reference, reference, reference_measures, z_score
from cardiogen.measure.segments import segment_table
from cardiogen.measure.strain import field_strain
from cardiogen.measure.strain_curves import Strain, strain_rate
from cardiogen.measure.strain_mesh import mesh_strain
from cardiogen.measure.strain_tensor import (
    deformation_gradient,
    directional_strain,
    green_lagrange,
    local_strain,
)
from cardiogen.measure.strain_twist import Twist, lv_twist
from cardiogen.measure.thickness import wall_thickness
from cardiogen.measure.violation import BOUNDS, Violation
from cardiogen.measure.volumes import (
    MYOCARDIAL_DENSITY,
    PHENOTYPES,
    end_systole,
    label_volumes,
    measure_sequence,
    mesh_volume,
    mesh_volumes,
    phenotypes,
    sequence_volumes,
)

__all__ = [
    "BOUNDS",
    "MYOCARDIAL_DENSITY",
    "PHENOTYPES",
    "SEGMENT_NAMES",
    "Insertions",
    "LvFrame",
    "Measured",
    "Reference",
    "Strain",
    "SurfaceDistances",
    "Twist",
    "Violation",
    "aha_segments",
    "check_cycle",
    "check_labels",
    "check_mesh",
    "check_sequence",
    "closed_volume",
    "compare_labels",
    "crossing_faces",
    "deformation_gradient",
    "dice",
    "directional_strain",
    "end_systole",
    "field_strain",
    "green_lagrange",
    "label_volumes",
    "local_strain",
    "lv_frame",
    "lv_twist",
    "measure_path",
    "measure_sequence",
    "mesh_strain",
    "mesh_thickness",
    "mesh_volume",
    "mesh_volumes",
    "phenotypes",
    "read_mesh",
    "reference",
    "reference_measures",
    "rv_insertions",
    "segment_means",
    "segment_of_points",
    "segment_table",
    "segment_volumes",
    "sequence_volumes",
    "strain_rate",
    "surface_distances",
    "wall_thickness",
    "z_score",
    "z_score_row",
]

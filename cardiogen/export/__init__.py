"""Files of hearts: NIfTI, VTP/PVD, STL, animated GLB, CSV, JSON and pictures."""

from cardiogen.export.ages import write_ages
from cardiogen.export.axes import HeartAxes, axes_from_labels, axes_from_mesh
from cardiogen.export.bullseye import (
    bullseye_figure,
    draw_bullseye,
    strain_bullseye,
    write_bullseye,
)
from cardiogen.export.captions import describe_factors, describe_measures, reference_bands
from cardiogen.export.cohort_tables import CohortTables
from cardiogen.export.frames import frame_time_s, frame_times, key_frames
from cardiogen.export.glb import write_glb
from cardiogen.export.heart import (
    FORMATS,
    Format,
    parse_formats,
    write_heart,
)
from cardiogen.export.label_names import code_names, write_label_names
from cardiogen.export.latents import LatentRow, latent_row, read_latents, write_latents
from cardiogen.export.marks import Marks
from cardiogen.export.mesh_store import MeshStore
from cardiogen.export.norm_map import write_norm_bullseye
from cardiogen.export.picture import heart_figure, write_preview
from cardiogen.export.render import Camera, heart_camera, rasterize, render_heart
from cardiogen.export.sheet import write_contact_sheet
from cardiogen.export.slices import (
    Plane,
    direction_letters,
    four_chamber_plane,
    sample_structures,
    short_axis_plane,
    slice_pictures,
)
from cardiogen.export.space import Space, check_space, space_tag, to_space
from cardiogen.export.stl import write_stl, write_stl_surfaces
from cardiogen.export.strain_curves import (
    draw_strain_curves,
    draw_twist,
    strain_figure,
    write_strain_curves,
)
from cardiogen.export.tables import subject_row, write_frames, write_measures
from cardiogen.export.vtp import write_mesh_series, write_vtp

__all__ = [
    "FORMATS",
    "Camera",
    "CohortTables",
    "Format",
    "HeartAxes",
    "LatentRow",
    "Marks",
    "MeshStore",
    "Plane",
    "Space",
    "axes_from_labels",
    "axes_from_mesh",
    "bullseye_figure",
    "check_space",
    "code_names",
    "describe_factors",
    "describe_measures",
    "direction_letters",
    "draw_bullseye",
    "draw_strain_curves",
    "draw_twist",
    "four_chamber_plane",
    "frame_time_s",
    "frame_times",
    "heart_camera",
    "heart_figure",
    "key_frames",
    "latent_row",
    "parse_formats",
    "rasterize",
    "read_latents",
    "reference_bands",
    "render_heart",
    "sample_structures",
    "short_axis_plane",
    "slice_pictures",
    "space_tag",
    "strain_bullseye",
    "strain_figure",
    "subject_row",
    "to_space",
    "write_ages",
    "write_bullseye",
    "write_contact_sheet",
    "write_frames",
    "write_glb",
    "write_heart",
    "write_label_names",
    "write_latents",
    "write_measures",
    "write_mesh_series",
    "write_norm_bullseye",
    "write_preview",
    "write_stl",
    "write_stl_surfaces",
    "write_strain_curves",
    "write_vtp",
]

"""Grids, labels, images, sequences, clinical factors and cohorts."""

from cardiogen.data.check import CheckReport, Fault, check_cohort
from cardiogen.data.cohort import load_sequence, read_cohort
from cardiogen.data.factor_table import read_factor_table
from cardiogen.data.factors import FACTORS, FactorInfo, Factors
from cardiogen.data.grid import Grid
from cardiogen.data.labels import LABEL_MAPS, Structure, decode_labels, encode_labels, label_map
from cardiogen.data.layouts import detect_layout
from cardiogen.data.mesh import Surface, Topology
from cardiogen.data.nifti import Image, read_image, read_labels
from cardiogen.data.nifti_write import write_image
from cardiogen.data.sequence import Orientation, Sequence
from cardiogen.data.subject import Layout, Subject
from cardiogen.data.tables import read_table, write_table

__all__ = [
    "FACTORS",
    "LABEL_MAPS",
    "CheckReport",
    "FactorInfo",
    "Factors",
    "Fault",
    "Grid",
    "Image",
    "Layout",
    "Orientation",
    "Sequence",
    "Structure",
    "Subject",
    "Surface",
    "Topology",
    "check_cohort",
    "decode_labels",
    "detect_layout",
    "encode_labels",
    "label_map",
    "load_sequence",
    "read_cohort",
    "read_factor_table",
    "read_image",
    "read_labels",
    "read_table",
    "write_image",
    "write_table",
]

"""README.txt of a heart's folder: what every file is and what opens it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import wrap

from cardiogen.export.ages import CROSS_SECTIONAL
from cardiogen.export.marks import Marks
from cardiogen.export.space import Space

# File name or folder -> what it is; only what was written is listed, in this order.
_EXPLANATIONS = {
    "preview.png": "Picture: slices and meshes at ED and ES, volume curves. Look here first.",
    "heart.glb": "Beating heart (glTF 2.0) for browsers, slides, Blender. LV red, RV blue.",
    "labels.nii.gz": "Label maps of all frames (4D NIfTI). Codes: {codes} (map {label_map}).",
    "labels_overlap.nii.gz": "Label maps of the largest expected Dice over the samples.",
    "labels.txt": "Names and colors of the label codes, for ITK-SNAP.",
    "heart.pvd": "Mesh series for ParaView: plays mesh/frame_XXX.vtp in time.",
    "mesh/": "Mesh of every frame (VTP), one topology; AHA segments, regions, displacement.",
    "LV_": "Closed left ventricular blood pool at ED and ES.",
    "RV_": "Closed right ventricular blood pool at ED and ES.",
    "EPI_": "Closed epicardium of both ventricles at ED and ES.",
    "measures.csv": "Volumes, mass, ejection fractions (ukbb_cardiac's column names).",
    "frames.csv": "Volumes of every frame.",
    "parameters.json": "All inputs, seed and versions: what is needed to make this heart again.",
}

_EXTRAPOLATED = (
    "It is EXTRAPOLATED: its factors lie outside the training data (see parameters.json), so no\n"
    "data vouch for it."
)


def readme_text(
    names: Sequence[str],
    codes: Mapping[int, str],
    label_map: str,
    *,
    space: Space,
    marks: Marks,
) -> str:
    """Return the text.

    Args:
        names: written files, relative to the folder.
        codes: names of the label codes.
        label_map: name of the label map.
        space: space of the meshes.
        marks: origin of the heart.
    """
    shown_codes = ", ".join(f"{code} {name}" for code, name in sorted(codes.items()) if code)
    origin = (
        "This heart is SYNTHETIC: made by a model of cardiogen, not imaged."
        if marks.synthetic
        else "Written by cardiogen from given data; not synthetic."
    )
    lines = [
        origin,
        *([_EXTRAPOLATED] if marks.extrapolated else []),
        *(wrap(CROSS_SECTIONAL, 95) if marks.cross_sectional else []),
        "",
    ]
    for prefix, text in _EXPLANATIONS.items():
        if any(name.startswith(prefix) for name in names):
            explained = text.format(codes=shown_codes, label_map=label_map)
            lines.append(f"{_shown(prefix):<16} {explained}")
    axes = {
        "ras": "RAS: +x right, +y anterior, +z superior, as in NIfTI",
        "lps": "LPS: +x left, +y posterior, +z superior, as in DICOM; NIfTI stays RAS",
    }
    lines += [
        "",
        f"Lengths are mm in the patient's world ({axes[space]}); heart.glb opens in meters, Y up.",
        "ED: end of diastole. ES: end of systole. Blood pools include the papillary muscles.",
    ]
    return "\n".join(lines) + "\n"


def _shown(prefix: str) -> str:
    return f"{prefix}*.stl" if prefix.endswith("_") else prefix

"""Names of label codes, in the format that ITK-SNAP reads ("Import Label Descriptions")."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cardiogen.base import atomic_write
from cardiogen.data.labels import Structure, label_map
from cardiogen.export.palette import structure_colors

_LONG_NAMES = {
    Structure.LV: "left ventricular blood pool",
    Structure.MYO: "left ventricular myocardium",
    Structure.RV: "right ventricular blood pool",
}


def code_names(map_name: str) -> dict[int, str]:
    """Return the name of every file code of a label map, background included.

    Raises:
        CardiogenError: U11 for an unknown map.
    """
    return {code: structure.name for code, structure in label_map(map_name).items()}


def write_label_names(path: str | Path, map_name: str, *, overwrite: bool = False) -> Path:
    """Write code, color (R G B alpha), visibility and name of every label.

    Raises:
        CardiogenError: O01 if the file exists, U11 for an unknown map.
    """
    colors = np.rint(structure_colors() * 255).astype(int)
    lines = [
        f"# Labels of labels.nii.gz (map {map_name}), for ITK-SNAP",
        "# code  R  G  B  alpha  visible  mesh  name",
        '0 0 0 0 0 0 0 "background"',
    ]
    for code, structure in sorted(label_map(map_name).items()):
        if structure is not Structure.BACKGROUND:
            red, green, blue = colors[structure]
            name = f"{structure.name}: {_LONG_NAMES[structure]}"
            lines.append(f'{code} {red} {green} {blue} 1 1 1 "{name}"')
    with atomic_write(path, overwrite=overwrite) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return Path(path)

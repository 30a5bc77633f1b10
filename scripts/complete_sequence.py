"""Complete the cardiac cycle of one heart from its label map at end diastole.

python scripts/complete_sequence.py labels_ED.nii.gz --label-map acdc --out completed
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cardiogen
from cardiogen.measure import measure_path


def main() -> None:
    """Complete, then print the volumes of the whole cycle."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("labels", type=Path, help="label map at end diastole (NIfTI)")
    parser.add_argument("--label-map", default="acdc", help="acdc, ukbb or mnms")
    parser.add_argument("--age", type=float, help="years, if known")
    parser.add_argument("--sex", help="F or M, if known")
    parser.add_argument("--samples", type=int, default=20, help="draws that show the uncertainty")
    parser.add_argument("--out", type=Path, required=True, help="folder to make")
    options = parser.parse_args()
    folder = cardiogen.complete(
        [options.labels], label_map=options.label_map, age=options.age, sex=options.sex,
        samples=options.samples, out=options.out,
    )  # fmt: skip
    measured = measure_path(folder / "labels.nii.gz", label_map=options.label_map)
    print(measured.table.T.to_string(header=False))
    print(f"written: {folder}")


if __name__ == "__main__":
    main()

"""``cardiogen segment``: label maps of images by a network of ``cardiogen train-segmentation``."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from augment.segmentation import load_network, predict_volume
from cardiogen.base import CardiogenError, progress
from cardiogen.cli.requests import check_apart
from cardiogen.data import encode_labels, label_map, read_image, write_image
from cardiogen.data.nifti_geometry import Prefer
from cardiogen.engine.fit import find_device
from cardiogen.engine.fit.processes import Device


def segment(
    image: str | Path,
    *,
    network: str | Path,
    out: str | Path,
    label_map_name: str = "ukbb",
    prefer: Prefer | None = None,
    device: Device = "auto",
    overwrite: bool = False,
) -> Path:
    """Segment every frame of an image and write the label maps in its space.

    Args:
        image: NIfTI file, 3D or 4D, with slices along its third axis.
        network: folder ``network`` of a training.
        out: label file to write, ``.nii`` or ``.nii.gz``.
        label_map_name: map of the codes in it.
        prefer: which geometry to trust where the header contradicts itself.
        device: ``auto``, ``cpu`` or ``cuda``.
        overwrite: whether ``out`` may be replaced.

    Returns:
        The file.

    Raises:
        CardiogenError: the codes of ``read_image`` and ``load_network``, U11 for an unknown map,
            U12 for another kind of file, O01 if ``out`` exists, R01 if its folder does not.
    """
    out = Path(out)
    label_map(label_map_name)
    _check_name(out)
    if out.exists() and not overwrite:
        raise CardiogenError(
            "O01", out, found="an existing output", expected="a path that is not there yet",
            remedy="another --out, or --overwrite to replace it",
        )  # fmt: skip
    check_apart(out, [image, network])
    place, stored = find_device(device), load_network(network)
    read = read_image(image, prefer=prefer)
    model, described = stored.network.to(place), stored.description
    labels = np.stack([
        predict_volume(
            model, frame, read.grid, described.image, described.prediction, device=place,
            subject_id=f"{image}, frame {number}",
        )
        for number, frame in enumerate(progress(read.frames, "segmenting frames"))
    ])  # fmt: skip
    codes = encode_labels(labels, label_map_name)
    write_image(
        out, codes if read.data.ndim == 4 else codes[0], read.grid,
        frame_time_s=read.frame_time_s, overwrite=overwrite,
    )  # fmt: skip
    return out


def _check_name(out: Path) -> None:
    """Refuse, before the work, a file that could not be written after it."""
    if not out.name.lower().endswith((".nii", ".nii.gz")):
        raise CardiogenError(
            "U12", "--out", found=str(out), expected="a name that ends in .nii or .nii.gz",
            remedy="labels.nii.gz",
        )  # fmt: skip
    if not out.parent.is_dir():
        raise CardiogenError(
            "R01", out.parent, found="no folder", expected="a folder to write into",
            remedy="making it, or another --out",
        )  # fmt: skip

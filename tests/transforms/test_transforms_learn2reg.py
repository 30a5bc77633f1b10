"""Learn2Reg files, read by the rule of its scorer: map_coordinates on the stored arrays."""

import nibabel
import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates, zoom

from cardiogen.base import CardiogenError
from cardiogen.data import write_image
from cardiogen.data.grid import Grid
from cardiogen.transforms import SVF, read_learn2reg, write_learn2reg

EVEN = Grid.regular((8, 12, 10), (8.0, 1.5, 1.9), (5.0, -20.0, 31.0))


def scored(moving, field):
    """Warp stored (X, Y, Z) arrays as the scorer does; ``field`` is (3, X, Y, Z)."""
    identity = np.meshgrid(*[np.arange(n) for n in moving.shape], indexing="ij")
    return map_coordinates(moving, np.array(identity) + field, order=1, mode="nearest")


@pytest.mark.parametrize("suffix", [".npz", ".nii.gz"])
def test_the_scorer_moves_the_same_image(tmp_path, grid, smooth, suffix):
    svf = SVF(grid, smooth(1, 3, *grid.shape, size=0.8))
    image = smooth(1, 1, *grid.shape, seed=4)
    write_image(tmp_path / "moving.nii.gz", image[0, 0].numpy(), grid)
    path = tmp_path / f"disp_0001_0002{suffix}"
    write_learn2reg(path, svf.displacement(), grid)

    stored = np.load(path)["arr_0"] if suffix == ".npz" else nibabel.load(path).get_fdata()
    assert stored.shape == (*grid.shape[::-1], 3)
    moving = nibabel.load(tmp_path / "moving.nii.gz").get_fdata()
    found = scored(moving, np.moveaxis(stored, -1, 0))
    wanted = svf(image)[0, 0].numpy().transpose(2, 1, 0)
    assert np.abs(found - wanted).max() < 1e-5
    back = read_learn2reg(path, grid)
    assert torch.allclose(back.displacement(), svf.displacement().float(), atol=1e-6)


def test_half_size_is_what_the_scorer_enlarges(tmp_path, smooth):
    field = smooth(1, 3, *EVEN.shape, size=3.0, sigma=3.0)
    path = tmp_path / "disp_0001_0002.npz"
    write_learn2reg(path, field, EVEN, half=True)
    stored = np.load(path)["arr_0"]
    assert stored.dtype == np.float16
    assert stored.shape == (3, 5, 6, 4)
    enlarged = np.array([zoom(c.astype(np.float32), 2, order=2) for c in stored])
    ours = enlarged[::-1].transpose(0, 3, 2, 1)
    assert np.abs(read_learn2reg(path, EVEN).params[0].numpy() - ours).max() < 1e-6
    # Values stay in voxels of the full size; corners are kept by zoom.
    assert np.abs(ours - field[0].numpy()).mean() < 0.1 * np.abs(field.numpy()).mean()
    corner = field[0, :, -1, -1, -1].numpy()
    assert np.abs(ours[:, -1, -1, -1] - corner).max() < 2e-3


def test_an_unmoved_field_is_a_submission_too(tmp_path):
    write_learn2reg(tmp_path / "u.nii.gz", torch.zeros(1, 3, *EVEN.shape), EVEN)
    assert not read_learn2reg(tmp_path / "u.nii.gz", EVEN).params.any()


def test_equal_fields_are_equal_bytes(tmp_path, smooth):
    field = smooth(1, 3, *EVEN.shape)
    for name in ("one", "two"):
        write_learn2reg(tmp_path / f"{name}.npz", field, EVEN)
    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "two.npz").read_bytes()
    with pytest.raises(CardiogenError, match="CG-O01"):
        write_learn2reg(tmp_path / "one.npz", field, EVEN)


def test_odd_sizes_and_large_values_cannot_be_halved(tmp_path, grid):
    with pytest.raises(ValueError, match="even sizes"):
        write_learn2reg(tmp_path / "u.npz", torch.zeros(1, 3, *grid.shape), grid, half=True)
    with pytest.raises(ValueError, match="fit float16"):
        write_learn2reg(tmp_path / "u.npz", torch.full((1, 3, *EVEN.shape), 1e5), EVEN, half=True)
    with pytest.raises(ValueError, match=r"must end in \.npz"):
        write_learn2reg(tmp_path / "u.nii.gz", torch.zeros(1, 3, *EVEN.shape), EVEN, half=True)


def test_other_files_are_refused(tmp_path, grid):
    write_learn2reg(tmp_path / "u.npz", torch.zeros(1, 3, *EVEN.shape), EVEN)
    with pytest.raises(CardiogenError, match=r"CG-S74.*shape \(10, 12, 8, 3\)"):
        read_learn2reg(tmp_path / "u.npz", grid)
    write_learn2reg(tmp_path / "u.nii.gz", torch.zeros(1, 3, *EVEN.shape), EVEN)
    with pytest.raises(CardiogenError, match="CG-S74"):
        read_learn2reg(tmp_path / "u.nii.gz", grid)
    (tmp_path / "text.npz").write_text("hello")
    with pytest.raises(CardiogenError, match=r"CG-S74.*no readable array"):
        read_learn2reg(tmp_path / "text.npz", grid)
    content = (tmp_path / "u.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(content[: len(content) // 2])
    with pytest.raises(CardiogenError, match=r"CG-S74.*no readable array"):
        read_learn2reg(tmp_path / "cut.npz", EVEN)
    np.savez(tmp_path / "objects.npz", np.array([{}], dtype=object))
    with pytest.raises(CardiogenError, match=r"CG-S74.*no readable array"):
        read_learn2reg(tmp_path / "objects.npz", EVEN)
    np.savez(tmp_path / "whole.npz", np.zeros((10, 12, 8, 3), dtype=int))
    with pytest.raises(CardiogenError, match=r"CG-S74.*int64"):
        read_learn2reg(tmp_path / "whole.npz", EVEN)
    np.savez(tmp_path / "nan.npz", np.full((10, 12, 8, 3), np.nan))
    with pytest.raises(CardiogenError, match=r"CG-S74.*NaN"):
        read_learn2reg(tmp_path / "nan.npz", EVEN)
    np.savez_compressed(tmp_path / "bomb.npz", np.zeros(1 << 20))
    with pytest.raises(CardiogenError, match=r"CG-S74.*8388"):
        read_learn2reg(tmp_path / "bomb.npz", EVEN, limit=1 << 16)

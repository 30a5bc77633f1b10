"""Files of ITK and ANTs: SimpleITK moves the same points and images by what we wrote."""

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from cardiogen import ops
from cardiogen.base import CardiogenError
from cardiogen.data import read_image, write_image
from cardiogen.data.grid import Grid
from cardiogen.transforms import (
    SVF,
    Affine,
    Displacement,
    Rigid,
    read_displacement,
    read_itk_affine,
    write_displacement,
    write_itk_affine,
)

FLIP = np.array([-1.0, -1.0, 1.0])
MM = 1e-3  # NIfTI stores its affine in float32


@pytest.fixture
def svf(grid, smooth):
    return SVF(grid, smooth(1, 3, *grid.shape, size=1.5))


def inner_points(grid, count=25):
    share = np.random.default_rng(4).uniform(0.05, 0.95, size=(count, 3))
    return grid.to_world(share * (np.array(grid.shape) - 1))


def itk_points(transform, points):
    """Move RAS points with a SimpleITK transform, which thinks in LPS."""
    moved = [transform.TransformPoint([float(c) for c in p * FLIP]) for p in points]
    return np.array(moved) * FLIP


def read_field(path):
    return sitk.DisplacementFieldTransform(sitk.ReadImage(str(path), sitk.sitkVectorFloat64))


def itk_resampled(image, transform):
    moved = sitk.Resample(image, image, transform, sitk.sitkLinear, 0.0, sitk.sitkFloat64)
    return torch.from_numpy(sitk.GetArrayFromImage(moved).astype(np.float64))


def deep_inside(displacement):
    """Return voxels that stay inside the grid, a margin of float32 away from its border."""
    coords = ops.displaced_coords(displacement)[0]
    ends = torch.tensor(displacement.shape[2:]).view(3, 1, 1, 1) - 1
    return ((coords > 0.01) & (coords < ends - 0.01)).all(dim=0)


# ITK converts intent 1006 from RAS when it reads; 1007 it takes as it is.
@pytest.mark.parametrize("convention", ["itk", "nifti"])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_simpleitk_moves_the_same_points(tmp_path, svf, grid, convention, suffix):
    path = tmp_path / f"warp{suffix}"
    write_displacement(path, svf.displacement(), grid, convention=convention)
    points = inner_points(grid)
    wanted = svf.points(torch.from_numpy(points)[None])[0].numpy()
    found = itk_points(read_field(path), points)
    assert np.abs(wanted - points).max() > 1.0
    assert np.abs(found - wanted).max() < MM


def test_simpleitk_pulls_the_same_image(tmp_path, svf, grid, smooth):
    image = smooth(1, 1, *grid.shape, seed=3, size=5.0, sigma=1.0)
    write_image(tmp_path / "moving.nii", image[0, 0].numpy(), grid)
    write_displacement(tmp_path / "warp.nii", svf.displacement(), grid, convention="itk")
    moving = sitk.ReadImage(str(tmp_path / "moving.nii"), sitk.sitkFloat64)
    found = itk_resampled(moving, read_field(tmp_path / "warp.nii"))
    inside = deep_inside(svf.displacement())
    assert inside.double().mean() > 0.4
    assert (found - svf(image)[0, 0])[inside].abs().max() < 1e-3


@pytest.mark.parametrize("kind", [Affine, Rigid])
def test_simpleitk_reads_the_same_affine(tmp_path, grid, smooth, kind):
    params = torch.randn(1, 12, generator=torch.Generator().manual_seed(2)).double() * 0.04
    params = params.view(1, 3, 4) if kind is Affine else params[:, :6]
    transform = kind(grid, params)
    write_itk_affine(tmp_path / "affine.tfm", transform)
    theirs = sitk.ReadTransform(str(tmp_path / "affine.tfm"))
    points = inner_points(grid)
    wanted = transform.points(torch.from_numpy(points)[None])[0].numpy()
    assert np.abs(itk_points(theirs, points) - wanted).max() < 1e-10
    assert torch.allclose(read_itk_affine(tmp_path / "affine.tfm"), transform.matrix(), atol=1e-12)

    image = smooth(1, 1, *grid.shape, seed=3, size=5.0, sigma=1.0)
    write_image(tmp_path / "moving.nii", image[0, 0].numpy(), grid)
    found = itk_resampled(sitk.ReadImage(str(tmp_path / "moving.nii")), theirs)
    inside = deep_inside(transform.displacement())
    assert inside.double().mean() > 0.4
    assert (found - transform(image)[0, 0])[inside].abs().max() < 1e-3


def test_what_simpleitk_writes_is_read(tmp_path, grid, svf):
    # The shape of a field that SimpleITK makes on a grid of its own, as ANTs would write it.
    size, direction = grid.shape[::-1], (grid.affine[:3, :3] / grid.spacing)[:, ::-1]
    world = svf.points(torch.from_numpy(grid.to_world(np.stack(np.meshgrid(
        *[np.arange(n) for n in grid.shape], indexing="ij"), -1)).reshape(1, -1, 3)))  # fmt: skip
    start = grid.to_world(np.stack(np.meshgrid(
        *[np.arange(n) for n in grid.shape], indexing="ij"), -1))  # fmt: skip
    vectors = (world[0].numpy().reshape(*grid.shape, 3) - start) * FLIP
    image = sitk.GetImageFromArray(vectors, isVector=True)
    image.SetSpacing(grid.spacing[::-1])
    image.SetOrigin((grid.affine[:3, 3] * FLIP).tolist())
    image.SetDirection((direction * FLIP[:, None]).ravel().tolist())
    assert image.GetSize() == size
    sitk.WriteImage(image, str(tmp_path / "1Warp.nii.gz"))
    found = read_displacement(tmp_path / "1Warp.nii.gz")
    assert isinstance(found, Displacement)
    assert found.grid.matches(grid, tolerance_mm=MM)
    assert torch.allclose(found.displacement(), svf.displacement(), atol=1e-4)


@pytest.mark.parametrize("convention", ["itk", "nifti"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_fields_round_trip(tmp_path, svf, grid, convention, dtype):
    field = svf.displacement().to(dtype)
    write_displacement(tmp_path / "u.nii.gz", field, grid, convention=convention)
    found = read_displacement(tmp_path / "u.nii.gz")
    assert found.params.dtype == dtype
    assert found.grid.matches(grid, tolerance_mm=MM)
    assert torch.allclose(found.displacement(), field, atol=1e-5)


def test_equal_fields_are_equal_bytes_and_nothing_is_overwritten(tmp_path, svf, grid):
    field = svf.displacement()
    for name in ("one", "two"):
        write_displacement(tmp_path / f"{name}.nii.gz", field, grid, convention="itk")
    assert (tmp_path / "one.nii.gz").read_bytes() == (tmp_path / "two.nii.gz").read_bytes()
    with pytest.raises(CardiogenError, match="CG-O01"):
        write_displacement(tmp_path / "one.nii.gz", field, grid, convention="itk")
    write_displacement(tmp_path / "one.nii.gz", field, grid, convention="nifti", overwrite=True)


ITK_TRANSFORMS = {
    "affine": sitk.AffineTransform([1.1, 0.1, 0, -0.1, 0.9, 0.05, 0, 0.02, 1.05], [3.0, -4.0, 5.0],
                                   [10.0, -20.0, 30.0]),
    "euler": sitk.Euler3DTransform((10.0, -20.0, 30.0), 0.3, -0.2, 0.5, (3.0, -4.0, 5.0)),
    "versor": sitk.VersorRigid3DTransform((0.0, 0.6, 0.8), 0.7, (3.0, -4.0, 5.0), (1.0, 2.0, 3.0)),
    "translation": sitk.TranslationTransform(3, (3.0, -4.0, 5.0)),
}  # fmt: skip


@pytest.mark.parametrize("name", ITK_TRANSFORMS)
def test_itk_transforms_are_read(tmp_path, grid, name):
    transform = ITK_TRANSFORMS[name]
    sitk.WriteTransform(transform, str(tmp_path / "itk.tfm"))
    matrix = read_itk_affine(tmp_path / "itk.tfm")
    points = inner_points(grid)
    found = ops.transform_points(torch.from_numpy(points)[None], matrix)[0].numpy()
    assert np.abs(found - itk_points(transform, points)).max() < 1e-10


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("hello", "another first line"),
        ("#Insight Transform File V1.0\n", "0 entries"),
        ("#Insight Transform File V1.0\nTransform: BSplineTransform_double_3_3\n"
         "Parameters: 1\nFixedParameters: 1\n", "transform BSplineTransform"),
        ("#Insight Transform File V1.0\nTransform: AffineTransform_double_3_3\n"
         "Parameters: 1 0 0\nFixedParameters: 0 0 0\n", "3 parameters and 3 fixed"),
        ("#Insight Transform File V1.0\nTransform: AffineTransform_double_2_2\n"
         "Parameters: 1 0 0 1 0 0\nFixedParameters: 0 0\n", "transform AffineTransform_double_2"),
        ("#Insight Transform File V1.0\nTransform: TranslationTransform_double_3_3\n"
         "Parameters: 1 0 nan\nFixedParameters:\n", "not finite"),
        ("#Insight Transform File V1.0\nTransform: TranslationTransform_double_3_3\n"
         "Parameters: 1 0 x\nFixedParameters:\n", "instead of numbers"),
        ("#Insight Transform File V1.0\nTransform: VersorRigid3DTransform_double_3_3\n"
         "Parameters: 1 1 0 0 0 0\nFixedParameters: 0 0 0\n", "versor longer than 1"),
        ("\xe9", "not text"),
    ],
)  # fmt: skip
def test_other_texts_are_refused(tmp_path, text, told):
    (tmp_path / "a.tfm").write_text(text, encoding="utf-8")
    with pytest.raises(CardiogenError, match=f"CG-S73.*{told}"):
        read_itk_affine(tmp_path / "a.tfm")


def test_other_images_are_no_displacements(tmp_path, grid, svf):
    write_image(tmp_path / "image.nii", np.random.default_rng(0).normal(size=grid.shape), grid)
    with pytest.raises(CardiogenError, match="CG-N52"):
        read_displacement(tmp_path / "image.nii")
    path = tmp_path / "u.nii"
    write_displacement(path, svf.displacement(), grid, convention="itk")
    content = bytearray(path.read_bytes())
    content[68:70] = (0).to_bytes(2, "little")  # intent_code
    path.write_bytes(bytes(content))
    with pytest.raises(CardiogenError, match=r"CG-N52.*intent 0"):
        read_displacement(path)
    content[68:70] = (1007).to_bytes(2, "little")
    content[400:408] = b"\xff" * 8
    path.write_bytes(bytes(content))
    with pytest.raises(CardiogenError, match="CG-N26"):
        read_displacement(path)


def test_fields_that_do_not_fit_are_refused(tmp_path, grid, svf):
    field = svf.displacement()
    with pytest.raises(ValueError, match=r"\(1, 3, D, H, W\)"):
        write_displacement(tmp_path / "u.nii", field[:, :2], grid, convention="itk")
    with pytest.raises(ValueError, match="must be finite"):
        write_displacement(tmp_path / "u.nii", field * float("nan"), grid, convention="itk")
    with pytest.raises(ValueError, match=r"must end in \.nii"):
        write_displacement(tmp_path / "u.mha", field, grid, convention="itk")
    with pytest.raises(ValueError, match=r"must end in \.tfm"):
        write_itk_affine(tmp_path / "u.mat", Affine.identity(grid))
    with pytest.raises(ValueError, match="a batch of 2"):
        write_itk_affine(tmp_path / "u.tfm", Affine.identity(grid, batch=2))
    tilted = Grid(grid.shape, np.diag([1.0, 1.0, 1.0, 1.0]) + np.eye(4, k=1) * [0, 0.2, 0, 0])
    with pytest.raises(CardiogenError, match="CG-N19"):
        write_displacement(tmp_path / "u.nii", field, tilted, convention="itk")


def test_simpleitk_agrees_on_a_real_oblique_cine(tmp_path, real_data, smooth):
    cine = read_image(real_data / "human_cine" / "sax_cine4d.nii.gz")
    frame = torch.from_numpy(cine.frames[3].astype(np.float64))[None, None]
    write_image(tmp_path / "frame.nii", cine.frames[3], cine.grid)
    velocity = smooth(1, 3, *cine.grid.shape, size=9.0, sigma=8.0)
    velocity[:, 0] /= 12
    svf = SVF(cine.grid, velocity)
    write_displacement(tmp_path / "warp.nii.gz", svf.displacement(), cine.grid, convention="itk")
    moving = sitk.ReadImage(str(tmp_path / "frame.nii"), sitk.sitkFloat64)
    found = itk_resampled(moving, read_field(tmp_path / "warp.nii.gz"))
    inside = deep_inside(svf.displacement())
    assert inside.double().mean() > 0.5
    error = (found - svf(frame)[0, 0])[inside].abs()
    # float32 in the file and in the header: a few micrometers on edges of contrast 1000.
    assert error.max() < 1e-3 * frame.max()
    points = inner_points(cine.grid)
    wanted = svf.points(torch.from_numpy(points)[None])[0].numpy()
    assert np.abs(wanted - points).max() > 1.0
    assert np.abs(itk_points(read_field(tmp_path / "warp.nii.gz"), points) - wanted).max() < MM

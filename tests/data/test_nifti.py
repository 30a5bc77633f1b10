"""Reading and writing: what goes in comes out, in the same world, by any storage order."""

import itertools

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cardiogen.base import CardiogenError
from cardiogen.data import Grid, Structure, encode_labels, read_image, read_labels, write_image

ORDERS = [(order, flips) for order in itertools.permutations(range(3))
          for flips in itertools.product((False, True), repeat=3)]  # fmt: skip


def axes_of(seed, *, mirrored=False):
    axes, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    return axes * [1, 1, np.sign(np.linalg.det(axes)) * (-1 if mirrored else 1)]


def stored_as(data, order, flips):
    """Return ``data`` (D, H, W) in another storage order, as ``Grid.permuted`` describes it."""
    moved = data.transpose(order)
    return moved[tuple(slice(None, None, -1) if flip else slice(None) for flip in flips)]


def ramp(shape, dtype=np.int16):
    return np.arange(np.prod(shape)).reshape(shape).astype(dtype)


@st.composite
def images(draw):
    shape = tuple(draw(st.integers(1, 6)) for _ in range(3))
    frames = draw(st.sampled_from([(), (2,), (5,)]))
    dtype = draw(st.sampled_from(["u1", "i1", "u2", "i2", "i4", "f4", "f8"]))
    spacing = [draw(st.floats(0.3, 5.0)) for _ in range(3)]
    origin = [draw(st.floats(-300, 300)) for _ in range(3)]
    axes = axes_of(draw(st.integers(0, 999)), mirrored=draw(st.booleans()))
    rng = np.random.default_rng(draw(st.integers(0, 999)))
    data = (rng.normal(size=frames + shape) * 40 + 50).astype(dtype)
    data.flat[0], data.flat[-1] = 3, 4 if data.size > 1 else 3
    time = draw(st.none() | st.floats(0.001, 0.9)) if frames else None
    suffix = draw(st.sampled_from([".nii", ".nii.gz"]))
    return data, Grid.regular(shape, spacing, origin, axes), time, suffix


@settings(deadline=None, max_examples=120,
          suppress_health_check=[HealthCheck.function_scoped_fixture])  # fmt: skip
@given(images())
def test_read_of_write_is_identity(tmp_path, image):
    data, grid, time, suffix = image
    if data.min() == data.max():
        data = data.copy()
        data.flat[0] += 1
    if data.size == 1:
        return
    path = tmp_path / f"a{suffix}"
    write_image(path, data, grid, frame_time_s=time, overwrite=True)
    again = read_image(path)
    assert np.array_equal(again.data, data)
    assert again.data.dtype == data.dtype
    assert again.grid.distance_mm(grid) < 1e-3
    assert again.orientation == "trusted"
    assert [note.code for note in again.notes] == (["N23"] if data.ndim == 4 and not time else [])
    if time is None:
        assert again.frame_time_s is None
    else:
        assert again.frame_time_s == pytest.approx(time, rel=1e-6)


@pytest.mark.parametrize("mirrored", [False, True])
def test_nibabel_and_simpleitk_see_the_same_world(tmp_path, mirrored):
    grid = Grid.regular((5, 7, 9), (8, 1.4, 1.9), (5, -20, 31), axes_of(4, mirrored=mirrored))
    data = ramp(grid.shape)
    write_image(tmp_path / "a.nii.gz", data, grid)
    by_nibabel = nib.load(tmp_path / "a.nii.gz")
    by_itk = sitk.ReadImage(str(tmp_path / "a.nii.gz"))
    assert by_nibabel.header.get_xyzt_units()[0] == "mm"
    for d, h, w in ((0, 0, 0), (4, 1, 8), (2, 6, 3)):
        world = grid.to_world((d, h, w))
        assert np.allclose(
            nib.affines.apply_affine(by_nibabel.affine, (w, h, d)), world, atol=1e-4
        )
        assert np.asarray(by_nibabel.dataobj)[w, h, d] == data[d, h, w]
        lps = np.array(by_itk.TransformIndexToPhysicalPoint((w, h, d)))
        assert np.allclose(lps * [-1, -1, 1], world, atol=1e-3)
        assert by_itk[w, h, d] == data[d, h, w]


@pytest.mark.parametrize("code", ["sform", "qform"])
def test_either_matrix_alone_gives_the_world(tmp_path, code):
    grid = Grid.regular((5, 7, 9), (8, 1.4, 1.9), (5, -20, 31), axes_of(5, mirrored=True))
    write_image(tmp_path / "a.nii", ramp(grid.shape), grid)
    header = nib.Nifti1Header(bytes((tmp_path / "a.nii").read_bytes()[:348]))
    header["sform_code" if code == "qform" else "qform_code"] = 0
    whole = header.binaryblock + (tmp_path / "a.nii").read_bytes()[348:]
    (tmp_path / "b.nii").write_bytes(whole)
    image = read_image(tmp_path / "b.nii")
    assert image.grid.distance_mm(grid) < 1e-3
    other = "sform" if code == "qform" else "qform"
    with pytest.raises(CardiogenError, match=f"CG-N25 .*expected a {other}"):
        read_image(tmp_path / "b.nii", prefer=other)


def test_nifti2_is_read_like_nifti1(tmp_path):
    grid = Grid.regular((5, 7, 9), (8, 1.4, 1.9), (5, -20, 31), axes_of(6))
    data = ramp((3, *grid.shape))
    stored = nib.Nifti2Image(data.T, grid.affine[:, [2, 1, 0, 3]])
    stored.header.set_zooms((*stored.header.get_zooms()[:3], 0.05))
    stored.header.set_xyzt_units("mm", "sec")
    nib.save(stored, tmp_path / "a.nii.gz")
    image = read_image(tmp_path / "a.nii.gz")
    assert np.array_equal(image.data, data)
    assert image.grid.distance_mm(grid) < 1e-6
    assert image.frame_time_s == 0.05


def heart():
    """Return labels of an ellipsoidal heart of three structures, none alike under a flip."""
    d, h, w = np.meshgrid(*[np.arange(n) for n in (9, 22, 25)], indexing="ij")
    labels = np.zeros((9, 22, 25), np.uint8)
    labels[((d - 4) / 4) ** 2 + ((h - 12) / 9) ** 2 + ((w - 16) / 8) ** 2 < 1] = Structure.RV
    labels[((d - 4) / 4) ** 2 + ((h - 11) / 8) ** 2 + ((w - 10) / 7) ** 2 < 1] = Structure.MYO
    labels[((d - 5) / 3) ** 2 + ((h - 11) / 5) ** 2 + ((w - 10) / 4) ** 2 < 1] = Structure.LV
    return labels


def world_facts(labels, grid):
    """Return volume (mL) and centroid (mm) of each structure."""
    volumes, centers = [], []
    for structure in (Structure.LV, Structure.MYO, Structure.RV):
        voxels = np.argwhere(labels == structure)
        volumes.append(len(voxels) * grid.voxel_volume_ml)
        centers.append(grid.to_world(voxels.mean(axis=0)))
    return np.array(volumes), np.array(centers)


def check_orders(tmp_path, labels, grid, label_map):
    path = tmp_path / "a.nii"
    volumes, centers = world_facts(labels, grid)
    codes = encode_labels(labels, label_map)
    for order, flips in ORDERS:
        write_image(path, stored_as(codes, order, flips), grid.permuted(order, flips),
                    overwrite=True)  # fmt: skip
        image = read_labels(path, label_map=label_map)
        other_volumes, other_centers = world_facts(image.data, image.grid)
        assert np.allclose(other_volumes, volumes, atol=0.01)
        assert np.allclose(other_centers, centers, atol=1e-3)


@pytest.mark.parametrize("pose", range(5))
def test_all_storage_orders_give_the_same_world(tmp_path, pose):
    axes = axes_of(pose, mirrored=pose % 2 == 1)
    grid = Grid.regular((9, 22, 25), (8, 1.4, 1.9), (31.0 * pose, -20, 55), axes)
    check_orders(tmp_path, heart(), grid, "acdc")


@pytest.mark.parametrize("patient", ["patient001", "patient082"])
def test_all_storage_orders_of_real_hearts(tmp_path, real_data, patient):
    path = real_data / "acdc_dev25" / patient / f"{patient}_ES_gt.nii.gz"
    image = read_labels(path, label_map="acdc")
    inside = np.argwhere(image.data)
    low, high = inside.min(axis=0), inside.max(axis=0) + 1
    labels = image.data[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
    for pose in range(5):
        grid = Grid.regular(labels.shape, image.grid.spacing, (20, -9.0 * pose, 3), axes_of(pose))
        check_orders(tmp_path, labels, grid, "acdc")


def test_oblique_storage_gives_the_volumes_of_the_straight_one(tmp_path):
    straight = Grid.regular((9, 22, 25), (8, 1.4, 1.9))
    angle = np.deg2rad(35)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0],
                     [0, 0, 1]])  # fmt: skip
    write_image(tmp_path / "a.nii", heart(), Grid.regular((9, 22, 25), (8, 1.4, 1.9), axes=turn))
    image = read_labels(tmp_path / "a.nii", label_map="ukbb")
    volumes, _ = world_facts(image.data, image.grid)
    assert np.allclose(volumes, world_facts(heart(), straight)[0], atol=1e-4)


def shear_file(path, *, qform):
    """Write a stack whose columns lean, as gantry tilt makes them."""
    affine = np.diag([1.5, 1.5, 8.0, 1.0])
    affine[1, 2] = 1.2
    header = nib.Nifti1Header()
    header.set_data_dtype(np.int16)
    image = nib.Nifti1Image(ramp((5, 7, 9)).T, affine, header)
    image.set_sform(affine, 1)
    image.set_qform(affine if qform else None, 1 if qform else 0, strip_shears=True)
    image.header["pixdim"][1:4] = np.linalg.norm(affine[:3, :3], axis=0)
    image.header.set_xyzt_units("mm")
    nib.save(image, path)
    return affine


@pytest.mark.parametrize("qform", [False, True])
def test_shear_is_refused_or_repaired_with_a_note(tmp_path, qform):
    affine = shear_file(tmp_path / "a.nii", qform=qform)
    with pytest.raises(CardiogenError, match=r"CG-N19 .*y-z.*--repair-shear"):
        read_image(tmp_path / "a.nii")
    image = read_image(tmp_path / "a.nii", repair_shear=True)
    columns = image.grid.affine[:3, :3]
    gram = columns.T @ columns
    assert np.allclose(gram, np.diag(np.diag(gram)), atol=1e-6)
    assert np.allclose(image.grid.spacing, np.linalg.norm(affine[:3, :3], axis=0)[::-1])
    middle = np.array([2, 3, 4])
    assert np.allclose(image.grid.to_world(middle), affine[:3] @ [*middle[::-1], 1], atol=1e-4)
    assert [note.code for note in image.notes] == ["N19"]


def patched(path, **fields):
    content = path.read_bytes()
    header = nib.Nifti1Header(content[:348])
    for name, value in fields.items():
        header.structarr[name] = value
    path.write_bytes(header.structarr.tobytes() + content[348:])


def test_prefer_chooses_between_conflicting_matrices(tmp_path):
    path, grid = tmp_path / "a.nii", Grid.regular((5, 7, 9), (8, 1.4, 1.9), axes=np.eye(3)[::-1])
    write_image(path, ramp(grid.shape), grid)
    patched(path, srow_x=[1.9, 0, 0, 50.0])
    with pytest.raises(CardiogenError, match=r"CG-N18 .*50 mm apart"):
        read_image(path)
    assert np.allclose(read_image(path, prefer="sform").grid.to_world((0, 0, 0)), (50, 0, 0))
    assert np.allclose(read_image(path, prefer="qform").grid.to_world((0, 0, 0)), (0, 0, 0))


def test_prefer_pixdim_keeps_directions_and_takes_lengths(tmp_path):
    path, grid = tmp_path / "a.nii", Grid.regular((5, 7, 9), (8, 1.4, 1.9), axes=axes_of(8))
    write_image(path, ramp(grid.shape), Grid.regular(grid.shape, (1, 1, 1), axes=axes_of(8)))
    patched(path, pixdim=[1, 1.9, 1.4, 8, 0, 0, 0, 0], qform_code=0)
    with pytest.raises(CardiogenError, match="CG-N18b"):
        read_image(path)
    image = read_image(path, prefer="pixdim")
    assert image.grid.distance_mm(grid) < 1e-3
    assert image.orientation == "assumed"
    assert [note.code for note in image.notes] == ["N18b"]


def test_prefer_pixdim_without_matrices_assumes_axes_as_stored(tmp_path):
    path, grid = tmp_path / "a.nii", Grid.regular((5, 7, 9), (8, 1.4, 1.9), axes=np.eye(3)[::-1])
    write_image(path, ramp(grid.shape), grid)
    patched(path, qform_code=0, sform_code=0)
    image = read_image(path, prefer="pixdim")
    # W runs along x, H along y, D along z.
    assert np.allclose(image.grid.affine[:3, :3], np.diag([8, 1.4, 1.9])[::-1], atol=1e-6)
    assert (image.orientation, image.notes[0].code) == ("assumed", "N25")


@pytest.mark.parametrize(
    ("stored", "unit", "seconds", "noted"),
    [(0.04, 8, 0.04, False), (40, 16, 0.04, False), (40_000, 24, 0.04, False),
     (33.24, 8, 0.03324, True), (40, 0, 0.04, True), (0.04, 0, 0.04, True), (0, 8, None, True),
     (-1, 8, None, True), (float("nan"), 8, None, True), (1.0, 8, None, True)],
)  # fmt: skip
def test_frame_time_in_seconds(tmp_path, stored, unit, seconds, noted):
    grid = Grid.regular((3, 4, 5), (8, 1.4, 1.9), axes=np.eye(3)[::-1])
    write_image(tmp_path / "a.nii", ramp((20, 3, 4, 5)), grid, frame_time_s=0.5)
    patched(tmp_path / "a.nii", pixdim=[1, 1.9, 1.4, 8, stored, 0, 0, 0], xyzt_units=2 + unit)
    image = read_image(tmp_path / "a.nii")
    assert image.frame_time_s == (seconds and pytest.approx(seconds, rel=1e-6))
    assert [note.code for note in image.notes] == ["N23"] * noted


def test_lengths_in_metres_are_converted(tmp_path):
    path, grid = tmp_path / "a.nii", Grid.regular((5, 7, 9), (8, 1.4, 1.9), axes=np.eye(3)[::-1])
    write_image(path, ramp(grid.shape), grid)
    patched(path, pixdim=[1, 0.0019, 0.0014, 0.008, 0, 0, 0, 0], xyzt_units=1,
            srow_x=[0.0019, 0, 0, 0], srow_y=[0, 0.0014, 0, 0],
            srow_z=[0, 0, 0.008, 0])  # fmt: skip
    image = read_image(path)
    assert image.grid.distance_mm(grid) < 1e-3
    assert [note.code for note in image.notes] == ["N22"]


@pytest.mark.parametrize(("dtype", "result"), [("i2", "f4"), ("u1", "f4"), ("i4", "f8")])
def test_slope_and_intercept_are_applied(tmp_path, dtype, result):
    data = ramp((5, 7, 9), np.uint8).astype(dtype)
    write_image(tmp_path / "a.nii", data, Grid.regular((5, 7, 9), (8, 1.4, 1.9)))
    patched(tmp_path / "a.nii", scl_slope=0.5, scl_inter=-7)
    image = read_image(tmp_path / "a.nii")
    assert image.data.dtype == result
    assert np.array_equal(image.data, data * 0.5 - 7)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_arrays_belong_to_the_caller(tmp_path, suffix):
    write_image(tmp_path / f"a{suffix}", ramp((5, 7, 9)), Grid.regular((5, 7, 9), (8, 1.4, 1.9)))
    image = read_image(tmp_path / f"a{suffix}")
    assert image.data.flags.writeable
    assert image.data.flags.c_contiguous
    assert image.frames.shape == (1, 5, 7, 9)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_equal_content_gives_equal_bytes(tmp_path, suffix):
    grid = Grid.regular((5, 7, 9), (8, 1.4, 1.9), axes=axes_of(1))
    for name in ("a", "b"):
        write_image(tmp_path / (name + suffix), ramp((2, 5, 7, 9)), grid, frame_time_s=0.04)
    first = (tmp_path / f"a{suffix}").read_bytes()
    assert first == (tmp_path / f"b{suffix}").read_bytes()
    if suffix == ".nii.gz":
        assert first[3:8] == bytes(5)  # no name, no clock


def test_memory_layout_does_not_matter(tmp_path):
    data, grid = ramp((5, 7, 9)), Grid.regular((5, 7, 9), (8, 1.4, 1.9))
    write_image(tmp_path / "a.nii", data, grid)
    write_image(tmp_path / "b.nii", np.asfortranarray(data), grid)
    write_image(tmp_path / "c.nii", data.astype(">i2"), grid)
    contents = {(tmp_path / f"{n}.nii").read_bytes() for n in "abc"}
    assert len(contents) == 1


@pytest.mark.parametrize(("given_type", "stored"), [(bool, "u1"), (np.int64, "i4")])
def test_wide_types_are_narrowed(tmp_path, given_type, stored):
    data = (ramp((5, 7, 9)) % 2).astype(given_type)
    write_image(tmp_path / "a.nii", data, Grid.regular((5, 7, 9), (8, 1.4, 1.9)))
    image = read_image(tmp_path / "a.nii")
    assert image.data.dtype == stored
    assert np.array_equal(image.data, data)


@pytest.mark.parametrize(
    ("change", "words"),
    [({"path": "a.mha"}, "path must end in"), ({"data": ramp((5, 7, 8))}, "on grid"),
     ({"data": ramp((5, 7, 9)).astype(complex)}, "data must be 8-32 bit"),
     ({"data": np.full((5, 7, 9), np.nan)}, "data must be finite"),
     ({"data": np.full((5, 7, 9), 2**40)}, "fit into int32"),
     ({"frame_time_s": -1.0}, "frame_time_s must be positive"),
     ({"description": "é"}, "ASCII"), ({"description": "x" * 80}, "79 characters")],
)  # fmt: skip
def test_wrong_arguments_leave_no_file(tmp_path, change, words):
    arguments = {"path": "a.nii", "data": ramp((5, 7, 9))} | change
    path, data = tmp_path / arguments.pop("path"), arguments.pop("data")
    with pytest.raises(ValueError, match=words):
        write_image(path, data, Grid.regular((5, 7, 9), (8, 1.4, 1.9)), **arguments)
    assert list(tmp_path.iterdir()) == []


def test_existing_file_is_kept(tmp_path):
    grid = Grid.regular((5, 7, 9), (8, 1.4, 1.9))
    write_image(tmp_path / "a.nii", ramp((5, 7, 9)), grid)
    before = (tmp_path / "a.nii").read_bytes()
    with pytest.raises(CardiogenError, match="CG-O01"):
        write_image(tmp_path / "a.nii", ramp((5, 7, 9)) + 1, grid)
    assert (tmp_path / "a.nii").read_bytes() == before


def test_own_description_is_no_private_text(tmp_path):
    grid = Grid.regular((5, 7, 9), (8, 1.4, 1.9))
    for text, codes in (("SYNTHETIC cardiogen 0.1", []), ("Jane Doe", ["N35d"])):
        write_image(tmp_path / "a.nii", ramp((5, 7, 9)), grid, description=text, overwrite=True)
        assert [n.code for n in read_image(tmp_path / "a.nii").notes] == codes


@pytest.mark.parametrize(
    ("name", "shape", "spacing", "frame_s"),
    [("human_cine/sax_cine4d.nii.gz", (25, 6, 208, 256), (17.7, 1.40625, 1.40625), 0.03324),
     ("pig_cine/pig_lax_cine4d.nii.gz", (20, 14, 256, 256), (5, 0.8203, 0.8203), 0.032),
     ("pig_cine/pig_sax_cine4d.nii.gz", (20, 20, 256, 256), (5, 0.8203, 0.8203), 0.031)],
)  # fmt: skip
def test_real_cines(real_data, name, shape, spacing, frame_s):
    image = read_image(real_data / name)
    assert image.data.shape == shape
    assert np.allclose(image.grid.spacing, spacing, atol=1e-4)
    assert image.frame_time_s == frame_s
    assert [note.code for note in image.notes] == ["N23"]
    assert "milliseconds" in image.notes[0].text


def test_a_tiny_shear_stands_in_the_sform_alone(tmp_path):
    """A qform cannot lean by 5e-4, which is 0.1 mm over this image; the two must not conflict."""
    axes = np.eye(3)[::-1].copy()
    axes[:, 2] += 5e-4 * axes[:, 1]
    grid = Grid.regular((5, 200, 200), (8, 1.4, 1.4), axes=axes)
    write_image(tmp_path / "a.nii", ramp(grid.shape), grid)
    assert nib.load(tmp_path / "a.nii").header["qform_code"] == 0
    assert read_image(tmp_path / "a.nii").grid.distance_mm(grid) < 1e-3

"""Pictures: geometry of axes, slices and renderings by closed forms; files by what they say."""

import numpy as np
import pytest

from cardiogen.base import CardiogenError
from cardiogen.data.grid import Grid
from cardiogen.data.labels import Structure
from cardiogen.data.mesh import Surface
from cardiogen.export import (
    Camera,
    Marks,
    Plane,
    axes_from_labels,
    axes_from_mesh,
    direction_letters,
    four_chamber_plane,
    heart_camera,
    heart_figure,
    rasterize,
    render_heart,
    sample_structures,
    short_axis_plane,
    slice_pictures,
    write_contact_sheet,
    write_preview,
)
from cardiogen.export.palette import LV_RED, RV_BLUE, rgb

SYNTHETIC, REAL = Marks(synthetic=True), Marks(synthetic=False)


def load_png(path):
    from PIL import Image

    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"), dtype=float) / 255, dict(image.text)


def test_axes_of_the_mesh_are_its_pose(toy_heart):
    from_base = np.diff(toy_heart.vertices[0][[-1, -2]], axis=0)[0]  # poles of the last sphere
    axes = axes_from_mesh(toy_heart.vertices[0], toy_heart.topology)
    np.testing.assert_allclose(axes.long_axis, from_base / np.linalg.norm(from_base), atol=1e-9)
    np.testing.assert_allclose(axes.frame @ axes.frame.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(axes.frame) == pytest.approx(1)
    assert (axes.apex_mm, axes.base_mm) == pytest.approx((-22, 22), abs=1e-6)
    np.testing.assert_allclose(axes.high - axes.low, 124, rtol=0.005)
    np.testing.assert_allclose(axes.middle - axes.center, 20 * axes.rightward, atol=0.3)
    np.testing.assert_allclose(axes.level(0.5), axes.center, atol=1e-6)


def test_axes_turn_with_the_heart(toy_heart):
    turn, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))
    turn *= np.sign(np.linalg.det(turn))
    before = axes_from_mesh(toy_heart.vertices[0], toy_heart.topology)
    after = axes_from_mesh(toy_heart.vertices[0] @ turn.T + [5, -60, 7], toy_heart.topology)
    np.testing.assert_allclose(after.frame, before.frame @ turn.T, atol=1e-9)


def test_axes_of_labels_agree_with_those_of_the_mesh(toy_heart):
    mesh = axes_from_mesh(toy_heart.vertices[0], toy_heart.topology)
    labels = axes_from_labels(toy_heart.labels[0], toy_heart.grid)
    assert (np.sum(mesh.frame * labels.frame, axis=1) > np.cos(np.radians(8))).all()
    assert labels.apex_mm < 0 < labels.base_mm


def test_base_patch_serves_where_there_are_no_segments(toy_heart):
    from dataclasses import replace

    topology, vertices = toy_heart.topology, toy_heart.vertices[0].copy()
    expected = axes_from_mesh(vertices, topology)
    # A cap around the upper pole of the LV, on a heart that is longest along its axis.
    stretched = vertices - expected.center
    along = (stretched @ expected.long_axis)[:, None] * expected.long_axis
    stretched = stretched + 0.6 * along
    pool = topology.surfaces[Surface.LV_ENDO]
    cap = pool[((stretched @ expected.long_axis)[pool] > 25).all(axis=1)]
    bare = replace(
        topology, aha_segment=np.zeros_like(topology.aha_segment), parts={"base": cap}
    )  # fmt: skip
    found = axes_from_mesh(stretched, bare)
    np.testing.assert_allclose(found.long_axis, expected.long_axis, atol=1e-6)
    with pytest.raises(ValueError, match="AHA segments or a base patch"):
        axes_from_mesh(stretched, replace(bare, parts={}))
    with pytest.raises(ValueError, match="must have LV_ENDO and RV_ENDO"):
        axes_from_mesh(stretched, replace(bare, surfaces={}))


@pytest.mark.parametrize(
    ("direction", "letters"),
    [((1, 0, 0), "R"), ((-1, 0, 0), "L"), ((0, 1, 0), "A"), ((0, -1, 0), "P"), ((0, 0, 1), "S"),
     ((0, 0, -1), "I"), ((0.8, -0.6, 0), "RP"), ((0.1, 0.6, -0.79), "IA")],
)  # fmt: skip
def test_letters_name_anatomical_directions(direction, letters):
    assert direction_letters(np.array(direction)) == letters


def test_slices_look_from_the_apex_with_rv_left(toy_heart):
    axes = axes_from_mesh(toy_heart.vertices[0], toy_heart.topology)
    for plane in (short_axis_plane(axes, 0.4), four_chamber_plane(axes)):
        assert plane.right @ axes.rightward == pytest.approx(-1)
        assert plane.right @ plane.up == pytest.approx(0, abs=1e-12)
    # The viewer of right x up stands on the apical side of a short-axis slice.
    short = short_axis_plane(axes, 0.4)
    assert np.cross(short.right, short.up) @ axes.long_axis == pytest.approx(-1)
    assert four_chamber_plane(axes).up @ axes.long_axis == pytest.approx(-1)


def test_window_covers_its_width_in_the_world():
    plane = Plane(np.array([1.0, 2, 3]), np.array([0, 1.0, 0]), np.array([0, 0, 1.0]))
    points = plane.points(half_width_mm=10, pixels=5)
    np.testing.assert_allclose(points[2, 2], [1, 2, 3], atol=1e-12)
    np.testing.assert_allclose(points[0, 0], [1, 2 - 8, 3 + 8], atol=1e-12)
    np.testing.assert_allclose(points[4, 3] - points[4, 2], [0, 4, 0], atol=1e-12)


def test_shares_are_exact_at_voxel_centers_and_sum_to_one(toy_heart):
    voxels = np.argwhere(toy_heart.labels[0] >= 0)[::97]
    labels = toy_heart.labels[0][tuple(voxels.T)]
    shares = sample_structures(
        toy_heart.labels[0], toy_heart.grid, toy_heart.grid.to_world(voxels)
    )
    np.testing.assert_allclose(shares, np.eye(4)[labels].T, atol=1e-5)
    anywhere = np.random.default_rng(0).normal(0, 60, size=(500, 3)) + toy_heart.grid.corners()[0]
    shares = sample_structures(toy_heart.labels[0], toy_heart.grid, anywhere)
    np.testing.assert_allclose(shares.sum(axis=0), 1, atol=1e-6)


def test_slice_through_a_ball_shows_a_disc_of_its_area():
    grid = Grid.regular((41, 47, 51), (2.3, 1.9, 1.7), (-46, -44, -42))
    voxels = np.stack(np.meshgrid(*map(np.arange, grid.shape), indexing="ij"), axis=-1)
    labels = (np.linalg.norm(grid.to_world(voxels), axis=-1) < 30).astype(np.uint8)
    normal = np.array([0.5, -0.6, np.sqrt(1 - 0.61)])
    right = np.cross(normal, [0, 0, 1.0])
    right /= np.linalg.norm(right)
    plane = Plane(10 * normal, right, np.cross(normal, right))
    (picture,) = slice_pictures(labels, grid, [plane], half_width_mm=40, pixels=160)
    red = np.linalg.norm(picture - LV_RED, axis=-1) < 0.2
    assert red.sum() * 0.5**2 == pytest.approx(np.pi * (30**2 - 10**2), rel=0.03)


def test_empty_labels_give_background():
    grid = Grid.regular((5, 6, 7), (1, 2, 3))
    (picture,) = slice_pictures(
        np.zeros(grid.shape, np.uint8), grid, [Plane(np.zeros(3), np.eye(3)[0], np.eye(3)[1])],
        half_width_mm=9, pixels=11,
    )  # fmt: skip
    np.testing.assert_allclose(picture, np.broadcast_to(rgb("#12161d"), picture.shape), atol=1e-5)


def test_rasterized_ball_covers_its_disc_with_its_front(toy_heart):
    topology = toy_heart.topology
    faces = topology.surfaces[Surface.LV_ENDO]
    center = toy_heart.vertices[0][np.unique(faces)].mean(axis=0)
    frame, _ = np.linalg.qr(np.random.default_rng(2).normal(size=(3, 3)))
    frame *= np.sign(np.linalg.det(frame))
    camera = Camera(frame, center, half_width_mm=30.0)
    projected = camera.project(toy_heart.vertices[0], 300)
    pixel, face, weights = rasterize(projected, faces, 300)
    assert len(np.unique(pixel)) == len(pixel)
    assert len(pixel) * 0.2**2 == pytest.approx(np.pi * 22**2, rel=0.02)
    np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-5)
    assert weights.min() > -1e-5
    corners = projected[faces[face]]
    place = np.einsum("nk,nkc->nc", weights, corners)
    np.testing.assert_allclose(place[:, 0], pixel % 300 + 0.5, atol=0.01)
    np.testing.assert_allclose(place[:, 1], pixel // 300 + 0.5, atol=0.01)
    radius = np.hypot(place[:, 0] - 150, place[:, 1] - 150) * 0.2
    inside = radius < 20
    depth = np.sqrt(22**2 - radius[inside] ** 2)
    np.testing.assert_allclose(place[inside, 2], depth, atol=0.5)


def test_faces_behind_others_or_outside_the_picture_do_not_show():
    square = np.array([[0, 1, 2], [0, 2, 3]])
    corners = np.array([[2.0, 2], [2, 8], [8, 8], [8, 2]])
    near = np.c_[corners, np.full(4, 5.0)]
    far = np.c_[corners, np.full(4, -5.0)]
    away = np.c_[corners + 1000, np.full(4, 9.0)]
    pixel, face, _ = rasterize(
        np.concatenate([far, near, away]), np.concatenate([square, square + 4, square + 8]), 10
    )
    assert len(pixel) == 36
    assert set(face.tolist()) == {2, 3}
    assert len(rasterize(near, square[:, ::-1], 10)[0]) == 0


def test_rendering_shows_lv_right_and_rv_left_under_glass(toy_heart):
    axes = axes_from_mesh(toy_heart.vertices[0], toy_heart.topology)
    camera = heart_camera(axes, half_width_mm=70, turn_deg=0, tilt_deg=0)
    picture = render_heart(toy_heart.vertices[0], toy_heart.topology, camera, pixels=140)
    assert picture.shape == (140, 140, 4)
    assert np.isfinite(picture).all()
    assert 0 <= picture.min() <= picture.max() <= 1
    # One pixel is 1 mm; the window's middle lies 20 mm to the right ventricle's side of the LV.
    lv, rv, glass = picture[70, 90], picture[70, 39], picture[15, 70]
    assert lv[0] > 1.5 * lv[2]
    assert rv[2] > 1.5 * rv[0]
    assert lv[3] == rv[3] == 1
    assert 0 < glass[3] < 1
    assert picture[1, 1, 3] == 0


VOLUMES = {"LV": [45.0, 33, 23, 27, 38], "RV": [34.0, 24, 17, 20, 29]}


def test_preview_is_deterministic_marked_and_without_dates(toy_heart, tmp_path):
    options = {"volumes_ml": VOLUMES, "title": "Woman, 70 years", "marks": SYNTHETIC}
    bands = {"LVEDV (mL)": (30.0, 60.0), "RVESV (mL)": (10.0, 20.0)}
    first = write_preview(tmp_path / "a.png", toy_heart, reference_bands=bands, **options)
    second = write_preview(tmp_path / "b.png", toy_heart, reference_bands=bands, **options)
    assert first.read_bytes() == second.read_bytes()
    picture, text = load_png(first)
    assert text == {"Description": "synthetic heart"}
    for color in (LV_RED, RV_BLUE, rgb("#f0dcb4"), (1.0, 1.0, 1.0)):
        assert (np.abs(picture - color).max(axis=-1) < 0.02).mean() > 0.005
    with pytest.raises(CardiogenError, match="CG-O01"):
        write_preview(first, toy_heart, marks=SYNTHETIC)


def test_synthetic_badge_only_on_synthetic_hearts(toy_heart):
    def words(figure):
        return [text.get_text() for text in figure.texts]

    marked = heart_figure(toy_heart, volumes_ml=VOLUMES, title="T", subtitle="S", marks=SYNTHETIC)
    plain = heart_figure(toy_heart, volumes_ml=VOLUMES, marks=REAL)
    assert {"SYNTHETIC", "T", "S", "ED", "ES", "20 mm"} <= set(words(marked))
    assert "SYNTHETIC" not in words(plain)
    assert "toy_001" in words(plain)


def test_extrapolated_hearts_bear_two_badges_side_by_side(toy_heart, tmp_path):
    marks = Marks(synthetic=True, extrapolated=True)
    figure = heart_figure(toy_heart, volumes_ml=VOLUMES, marks=marks)
    figure.canvas.draw()  # places the badges around their words
    texts = {text.get_text(): text for text in figure.texts}
    boxes = [
        texts[word].get_bbox_patch().get_window_extent() for word in ("EXTRAPOLATED", "SYNTHETIC")
    ]
    assert boxes[0].x0 > 0
    assert 0 < boxes[1].x0 - boxes[0].x1 < 20
    assert boxes[1].x1 < figure.bbox.x1
    assert boxes[0].y0 == pytest.approx(boxes[1].y0, abs=0.5)
    path = write_contact_sheet(tmp_path / "s.png", [toy_heart], title="1 heart", marks=marks)
    assert load_png(path)[1]["Description"] == "synthetic extrapolated heart"


def test_preview_shows_what_there_is(toy_heart, tmp_path):
    whole = load_png(write_preview(tmp_path / "w.png", toy_heart, volumes_ml=VOLUMES,
                                   marks=SYNTHETIC))[0]  # fmt: skip
    labels = toy_heart.with_(vertices=None, topology=None)
    meshes = toy_heart.with_(labels=None, grid=None)
    first = toy_heart.with_(
        phases=toy_heart.phases[:1], labels=toy_heart.labels[:1], vertices=toy_heart.vertices[:1],
        es=None,
    )  # fmt: skip
    for number, part in enumerate((labels, meshes, first)):
        path = write_preview(tmp_path / f"{number}.png", part, marks=SYNTHETIC)
        picture, _ = load_png(path)
        assert picture.size < whole.size
        assert picture.std() > 0.1
    with pytest.raises(ValueError, match="must have labels or vertices"):
        heart_figure(labels.with_(labels=None), marks=SYNTHETIC)


def test_contact_sheet_has_a_place_for_every_heart(toy_heart, tmp_path):
    labels = toy_heart.with_(vertices=None, topology=None)
    sizes = []
    for count in (1, 3, 4):
        path = write_contact_sheet(
            tmp_path / f"{count}.png", [toy_heart, labels, labels, toy_heart][:count],
            captions=[f"heart {k}" for k in range(count)], columns=3, title="cohort",
            marks=SYNTHETIC,
        )  # fmt: skip
        picture, text = load_png(path)
        assert text["Description"] == "synthetic heart"
        assert (np.abs(picture - LV_RED).max(axis=-1) < 0.02).any()
        sizes.append(picture.shape)
    assert sizes[0][0] == sizes[1][0] < sizes[2][0]
    assert sizes[0][1] < sizes[1][1] == sizes[2][1]
    with pytest.raises(ValueError, match="captions must be none or 1"):
        write_contact_sheet(tmp_path / "x.png", [labels], captions=["a", "b"], marks=SYNTHETIC)
    with pytest.raises(ValueError, match="hearts must have labels"):
        write_contact_sheet(
            tmp_path / "x.png", [toy_heart.with_(labels=None, grid=None)], marks=SYNTHETIC
        )


def test_labels_without_rv_are_refused(toy_heart):
    labels = np.where(toy_heart.labels[0] == Structure.RV, 0, toy_heart.labels[0])
    with pytest.raises(CardiogenError, match="CG-L60"):
        axes_from_labels(labels, toy_heart.grid)

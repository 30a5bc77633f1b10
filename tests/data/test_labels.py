"""File codes and structures translate both ways through named maps, and never without one."""

import numpy as np
import pytest

from cardiogen.base import CardiogenError
from cardiogen.data import (
    LABEL_MAPS,
    Grid,
    Sequence,
    Structure,
    Surface,
    Topology,
    decode_labels,
    encode_labels,
    label_map,
    read_labels,
    write_image,
)


@pytest.mark.parametrize("name", LABEL_MAPS)
def test_encode_and_decode_are_inverse(name):
    labels = np.random.default_rng(0).integers(0, 4, (3, 4, 5)).astype(np.uint8)
    codes = encode_labels(labels, name)
    assert np.array_equal(decode_labels(codes, name), labels)
    assert np.array_equal(decode_labels(codes.astype(np.float64), name), labels)


def test_published_codes():
    # ACDC: 1 RV, 2 MYO, 3 LV; ukbb_cardiac and M&Ms: 1 LV, 2 MYO, 3 RV.
    names = {n: [label_map(n)[code].name for code in (1, 2, 3)] for n in LABEL_MAPS}
    assert names == {"acdc": ["RV", "MYO", "LV"], "ukbb": ["LV", "MYO", "RV"],
                     "mnms": ["LV", "MYO", "RV"]}  # fmt: skip


@pytest.mark.parametrize("name", LABEL_MAPS)
def test_every_map_has_every_structure_once(name):
    assert sorted(LABEL_MAPS[name].values()) == sorted(Structure)


def test_unknown_map_lists_the_known_ones():
    with pytest.raises(CardiogenError, match=r"CG-U11 .*acdc, ukbb, mnms") as caught:
        decode_labels(np.zeros(3), "mine")
    assert caught.value.exit_code == 2


def test_codes_outside_the_map_and_fractions():
    with pytest.raises(CardiogenError, match=r"CG-L39 f: found label codes \[4, 9\]"):
        decode_labels(np.array([0, 9, 4, 1]), "acdc", where="f")
    with pytest.raises(CardiogenError, match=r"CG-L38 f: found non-integer label 0\.5"):
        decode_labels(np.array([0, 0.5]), "acdc", where="f")


def test_sequence_checks_its_frames(oblique_grid):
    labels = np.zeros((2, *oblique_grid.shape), np.uint8)
    phases = np.array([0.0, 0.4])
    sequence = Sequence(phases=phases, labels=labels, grid=oblique_grid, es=1)
    assert len(sequence) == 2
    assert sequence.with_(subject_id="x").subject_id == "x"
    with pytest.raises(ValueError, match="labels must have 3 frames"):
        Sequence(phases=np.arange(3) / 3, labels=labels, grid=oblique_grid)
    with pytest.raises(ValueError, match="labels must live on grid"):
        Sequence(phases=phases, labels=labels[..., 1:], grid=oblique_grid)
    with pytest.raises(ValueError, match="ed must be a frame index"):
        Sequence(phases=phases, labels=labels, grid=oblique_grid, ed=2)


def test_topology_lists_every_face_once_with_its_part():
    one, two = np.array([[0, 1, 2]]), np.array([[2, 1, 3], [3, 1, 0]])
    topology = Topology(
        surfaces={Surface.EPI: np.concatenate([one, two])}, parts={"base": one, "epi": two},
        aha_segment=np.zeros(4, np.uint8), region=np.zeros(4, np.uint8), region_names=("all",),
    )  # fmt: skip
    assert topology.vertex_count == 4
    assert np.array_equal(topology.all_faces, np.concatenate([one, two]))
    assert list(topology.face_part) == [0, 1, 1]


@pytest.mark.parametrize(("stored", "told", "fits"), [
    ("ukbb", "acdc", "ukbb or mnms"), ("acdc", "ukbb", "acdc"), ("acdc", "mnms", "acdc"),
])  # fmt: skip
def test_labels_of_another_map_are_refused_wherever_they_are_read(tmp_path, stored, told, fits):
    """The wall surrounds the LV; by a map that swaps LV and RV it would surround the RV."""
    grid = Grid.regular((3, 26, 33), (8.0, 1.6, 1.5))
    away = np.hypot(*(np.indices((26, 33)) - np.array([13, 12])[:, None, None]))
    plane = np.select([away < 6, away < 10], [Structure.LV, Structure.MYO], 0).astype(np.uint8)
    plane[8:19, 21:30][plane[8:19, 21:30] == 0] = Structure.RV
    labels = np.repeat(plane[None], 3, axis=0)
    sequence = np.stack([labels, labels])
    for name, values in (("three.nii", labels), ("four.nii", sequence)):
        write_image(tmp_path / name, encode_labels(values, stored), grid)
        assert np.array_equal(read_labels(tmp_path / name, label_map=stored).data, values)
        with pytest.raises(CardiogenError, match=f"CG-L41 .*--label-map {fits}"):
            read_labels(tmp_path / name, label_map=told)
        read_labels(tmp_path / name, label_map=told, anatomy=False)
    # Without all three structures nothing contradicts the map.
    write_image(tmp_path / "lv.nii", encode_labels(np.where(labels == 3, 0, labels), stored), grid)
    read_labels(tmp_path / "lv.nii", label_map=told)

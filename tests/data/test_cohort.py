"""One heart stored in every layout gives one sequence; the real cohorts give their own volumes."""

import csv

import numpy as np
import pytest

from cardiogen.base import CardiogenError
from cardiogen.data import (
    Grid,
    Structure,
    detect_layout,
    encode_labels,
    load_sequence,
    read_cohort,
    write_image,
    write_table,
)
from cardiogen.data.cohort import structure_volume_ml

SHAPE = (9, 22, 25)
N_FRAMES, ED, ES = 8, 1, 4


def grid():
    axes, _ = np.linalg.qr(np.random.default_rng(2).normal(size=(3, 3)))
    return Grid.regular(SHAPE, (8, 1.4, 1.9), (5, -20, 31), axes)


def heart(frame):
    """Labels of a heart that is largest at ED and smallest at ES."""
    lag = (frame - ED) % N_FRAMES
    squeeze = 0.35 * (lag / (ES - ED) if lag <= ES - ED else (N_FRAMES - lag) / 5)
    d, h, w = np.meshgrid(*[np.arange(n) for n in SHAPE], indexing="ij")
    labels = np.zeros(SHAPE, np.uint8)
    labels[((d - 4) / 4) ** 2 + ((h - 12) / 9) ** 2 + ((w - 16) / (8 - squeeze * 4)) ** 2 < 1] = 3
    labels[((d - 4) / 4) ** 2 + ((h - 11) / 8) ** 2 + ((w - 10) / 7) ** 2 < 1] = Structure.MYO
    r = 5 * (1 - squeeze)
    labels[((d - 5) / 3) ** 2 + ((h - 11) / r) ** 2 + ((w - 10) / (r - 1)) ** 2 < 1] = Structure.LV
    return labels


CYCLE = np.stack([heart(t) for t in range(N_FRAMES)])


def cine():
    rng = np.random.default_rng(0)
    return (CYCLE * 100 + rng.integers(0, 50, CYCLE.shape)).astype(np.int16)


FACTS = {"age": 61, "sex": "M", "height_cm": 172, "weight_kg": 74, "sbp_mmhg": 128}


def put(path, data, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    write_image(path, data, grid(), **options)


def store_ours(root, *, phases=False):
    codes = encode_labels(CYCLE, "mnms")
    if phases:
        put(root / "s01" / "labels_ED.nii.gz", codes[ED])
        put(root / "s01" / "labels_ES.nii.gz", codes[ES])
        put(root / "s01" / "images_ED.nii.gz", cine()[ED])
        put(root / "s01" / "images_ES.nii.gz", cine()[ES])
    else:
        put(root / "s01" / "labels.nii.gz", codes, frame_time_s=0.1)
        put(root / "s01" / "images.nii.gz", cine(), frame_time_s=0.1)
    facts = FACTS | {"ed_frame": ED, "es_frame": ES, "n_frames": N_FRAMES, "label_map": "mnms",
                     "group": "NOR"}  # fmt: skip
    write_table(root / "subjects.csv", ["subject_id", *facts], [["s01", *facts.values()]])


def store_acdc(root):
    place = root / "patient007"
    for name, frame in (("02", ED), ("05", ES)):
        put(place / f"patient007_frame{name}.nii.gz", cine()[frame])
        put(place / f"patient007_frame{name}_gt.nii.gz", encode_labels(CYCLE[frame], "acdc"))
    (place / "Info.cfg").write_text(
        f"ED: {ED + 1}\nES: {ES + 1}\nGroup: NOR\nHeight: 172.0\nNbFrame: {N_FRAMES}\nWeight: 74\n"
    )


def store_dev25(root):
    place = root / "patient007"
    for name, frame in (("ED", ED), ("ES", ES)):
        put(place / f"patient007_{name}.nii.gz", cine()[frame])
        put(place / f"patient007_{name}_gt.nii.gz", encode_labels(CYCLE[frame], "acdc"))
    facts = FACTS | {"ed_frame": ED + 1, "es_frame": ES + 1, "n_frames": N_FRAMES, "group": "NOR"}
    write_table(root / "subjects.csv", ["patient", *facts], [["patient007", *facts.values()]])


def store_ukbb(root, *, phases=False):
    codes = encode_labels(CYCLE, "ukbb")
    if phases:
        for name, frame in (("ED", ED), ("ES", ES)):
            put(root / "1234567" / f"seg_sa_{name}.nii.gz", codes[frame])
            put(root / "1234567" / f"sa_{name}.nii.gz", cine()[frame])
    else:
        put(root / "1234567" / "seg_sa.nii.gz", codes, frame_time_s=0.1)
        put(root / "1234567" / "sa.nii.gz", cine(), frame_time_s=0.1)


STORES = {
    "ours-4d": (store_ours, {}, "cardiogen", "s01"),
    "ours-phases": (store_ours, {"phases": True}, "cardiogen", "s01"),
    "acdc": (store_acdc, {}, "acdc", "patient007"),
    "acdc_dev25": (store_dev25, {}, "acdc_dev25", "patient007"),
    "ukbb-4d": (store_ukbb, {}, "ukbb", "1234567"),
    "ukbb-phases": (store_ukbb, {"phases": True}, "ukbb", "1234567"),
}


@pytest.fixture(params=STORES)
def stored(request, tmp_path):
    store, options, layout, subject_id = STORES[request.param]
    store(tmp_path, **options)
    return tmp_path, layout, subject_id


def test_every_layout_gives_the_same_heart(stored):
    root, layout, subject_id = stored
    assert detect_layout(root) == layout
    (subject,) = read_cohort(root)
    assert (subject.subject_id, subject.layout) == (subject_id, layout)
    sequence = load_sequence(subject, images=True)
    assert sequence.grid.distance_mm(grid()) < 1e-3
    assert np.array_equal(sequence.labels[sequence.ed], CYCLE[ED])
    assert np.array_equal(sequence.labels[sequence.es], CYCLE[ES])
    assert np.array_equal(sequence.images[sequence.ed], cine()[ED])
    assert sequence.images.dtype == np.float32
    assert sequence.phases[sequence.ed] == 0
    if "all" in subject.labels:
        assert np.array_equal(sequence.labels, CYCLE)
        assert np.allclose(sequence.phases, ((np.arange(8) - ED) % 8) / 8)
        assert sequence.cycle_s == pytest.approx(0.8)
    if layout != "ukbb":
        assert sequence.phases[sequence.es] == (ES - ED) / N_FRAMES
        assert sequence.factors.height == 172
        assert subject.group == "NOR"
    assumed = layout.startswith("acdc")
    assert sequence.orientation == ("assumed" if assumed else "trusted")


def test_layout_of_a_single_subject_folder(stored):
    root, layout, subject_id = stored
    place = root / subject_id
    assert detect_layout(place) == layout
    (subject,) = read_cohort(place, label_map="ukbb" if layout == "cardiogen" else None)
    assert subject.subject_id == subject_id
    sequence = load_sequence(subject)
    assert np.array_equal(sequence.labels[sequence.ed], CYCLE[ED])


def test_unknown_phase_of_es_is_assumed_and_told(tmp_path):
    store_ukbb(tmp_path, phases=True)
    sequence = load_sequence(read_cohort(tmp_path)[0])
    assert list(sequence.phases) == [0, 0.35]
    assert any("35%" in note.text for note in sequence.notes)


def test_ed_and_es_are_found_from_volumes_and_told(tmp_path):
    store_ukbb(tmp_path)
    sequence = load_sequence(read_cohort(tmp_path)[0])
    assert (sequence.ed, sequence.es) == (ED, ES)
    assert any("ED 1 and ES 4" in note.text for note in sequence.notes)


def test_frames_without_labels_are_left_out_and_told(tmp_path):
    sparse = np.zeros_like(CYCLE)
    sparse[[ED, ES]] = CYCLE[[ED, ES]]
    put(tmp_path / "1" / "seg_sa.nii.gz", encode_labels(sparse, "ukbb"), frame_time_s=0.1)
    put(tmp_path / "1" / "sa.nii.gz", cine(), frame_time_s=0.1)
    sequence = load_sequence(read_cohort(tmp_path)[0], images=True)
    assert np.array_equal(sequence.labels, CYCLE[[ED, ES]])
    assert np.array_equal(sequence.images, cine()[[ED, ES]])
    assert list(sequence.phases) == [0, (ES - ED) / N_FRAMES]
    assert any("2 of 8 frames carry labels" in note.text for note in sequence.notes)


def test_one_frame_in_place_of_a_sequence_is_ed(tmp_path):
    put(tmp_path / "s1" / "labels.nii.gz", encode_labels(CYCLE[ED], "ukbb"))
    sequence = load_sequence(read_cohort(tmp_path / "s1", label_map="ukbb")[0])
    assert np.array_equal(sequence.labels, CYCLE[[ED]])
    assert (sequence.ed, sequence.es, list(sequence.phases)) == (0, None, [0])
    assert "taken as ED" in sequence.notes[-1].text


def test_a_missing_es_is_named(tmp_path):
    store_ours(tmp_path, phases=True)
    (tmp_path / "s01" / "labels_ES.nii.gz").unlink()
    with pytest.raises(CardiogenError, match=r"CG-N37 .*no ES labels.*labels_ES.nii.gz"):
        read_cohort(tmp_path)


def test_images_must_lie_on_the_labels(tmp_path):
    store_ours(tmp_path, phases=True)
    path = tmp_path / "s01" / "images_ED.nii.gz"
    shifted = Grid(SHAPE, np.vstack([grid().affine[:3] + [[0, 0, 0, 25]] * 3, [0, 0, 0, 1]]))
    write_image(path, cine()[ED], shifted, overwrite=True)
    (subject,) = read_cohort(tmp_path)
    with pytest.raises(CardiogenError, match=r"CG-L40b .*corners up to 43.3 mm"):
        load_sequence(subject, images=True)
    cropped = grid().cropped((0, 0, 0), (9, 22, 24))
    write_image(path, cine()[ED, :, :, :24], cropped, overwrite=True)
    with pytest.raises(CardiogenError, match=r"CG-L40a .*\(9, 22, 24\) against \(9, 22, 25\)"):
        load_sequence(subject, images=True)


def test_missing_images_are_told_when_asked_for(tmp_path):
    store_ours(tmp_path)
    (tmp_path / "s01" / "images.nii.gz").unlink()
    (subject,) = read_cohort(tmp_path)
    assert load_sequence(subject).images is None
    with pytest.raises(CardiogenError, match="CG-N37 .*no 4D image"):  # noqa: RUF043
        load_sequence(subject, images=True)


def test_our_layout_needs_a_declared_label_map(tmp_path):
    store_ours(tmp_path)
    write_table(tmp_path / "subjects.csv", ["subject_id"], [["s01"]], overwrite=True)
    with pytest.raises(CardiogenError, match=r"CG-L39 .*subjects.csv:2: .*no label_map"):
        read_cohort(tmp_path)
    sequence = load_sequence(read_cohort(tmp_path, label_map="mnms")[0])
    assert np.array_equal(sequence.labels, CYCLE)


@pytest.mark.parametrize(
    ("column", "value", "words"),
    [("ed_frame", "x", "C14 .*:2/ed_frame"), ("es_frame", "8", "C13 .*frame 8 of 8.*0 to 7"),
     ("es_frame", "2.5", "C13 .*whole number"), ("n_frames", "-1", "C13 .*whole number from 1"),
     ("label_map", "mine", "U11 .*:2/label_map"), ("age", "130", "C13 .*:2/age")],
)  # fmt: skip
def test_faulty_rows_are_named(tmp_path, column, value, words):
    store_ours(tmp_path)
    facts = FACTS | {"ed_frame": 1, "es_frame": 4, "n_frames": 8, "label_map": "mnms"}
    facts[column] = value
    write_table(tmp_path / "subjects.csv", ["subject_id", *facts], [["s01", *facts.values()]],
                overwrite=True)  # fmt: skip
    with pytest.raises(CardiogenError, match=f"CG-{words}"):
        read_cohort(tmp_path)


def test_folders_without_a_layout(tmp_path):
    with pytest.raises(CardiogenError, match=r"CG-L50 .*cardiogen, acdc, acdc_dev25, ukbb"):
        detect_layout(tmp_path)
    with pytest.raises(CardiogenError, match="CG-L47a"):
        read_cohort(tmp_path / "none")
    with pytest.raises(CardiogenError, match=r"CG-U12 .*'bids'"):
        read_cohort(tmp_path, "bids")
    with pytest.raises(CardiogenError, match="CG-L50"):
        read_cohort(tmp_path, "ukbb")


def test_subjects_come_in_the_order_of_their_ids(tmp_path):
    for name in ("30", "4", "100"):
        put(tmp_path / name / "seg_sa.nii.gz", encode_labels(CYCLE, "ukbb"))
    assert [s.subject_id for s in read_cohort(tmp_path)] == ["100", "30", "4"]


def test_real_hearts_have_the_volumes_of_their_table(real_data):
    root = real_data / "acdc_dev25"
    with (root / "subjects.csv").open() as stream:
        rows = {row["patient"]: row for row in csv.DictReader(stream)}
    cohort = read_cohort(root)
    assert [s.subject_id for s in cohort] == sorted(rows)
    for subject in cohort:
        sequence, row = load_sequence(subject, images=True), rows[subject.subject_id]
        volumes = {}
        for phase, index in (("ed", sequence.ed), ("es", sequence.es)):
            for name, structure in (("lv", 1), ("myo", 2), ("rv", 3)):
                volume = structure_volume_ml(sequence.labels[index], structure, sequence.grid)
                volumes[name, phase] = volume
                assert volume == pytest.approx(float(row[f"{name}_{phase}_ml"]), abs=0.01)
        fraction = 100 * (1 - volumes["lv", "es"] / volumes["lv", "ed"])
        assert fraction == pytest.approx(float(row["lvef_pct"]), abs=0.02)
        assert sequence.factors.bsa == pytest.approx(float(row["bsa_mosteller"]), abs=1e-4)
        assert subject.group == row["group"]
        assert sequence.orientation == "assumed"
        assert sequence.notes == ()


def test_original_layout_equals_the_converted_patient(real_data):
    (original,) = read_cohort(real_data / "acdc_original_layout")
    one = load_sequence(original, images=True)
    converted = read_cohort(real_data / "acdc_dev25")
    two = load_sequence(next(s for s in converted if s.subject_id == "patient005"), images=True)
    assert np.array_equal(one.labels, two.labels)
    assert one.grid.distance_mm(two.grid) < 1e-3
    assert np.array_equal(one.phases, two.phases)
    assert one.factors == two.factors
    assert (one.orientation, original.group) == ("assumed", "DCM")
    assert [note.code for note in one.notes] == ["N18b", "N22c"] * 2
    # The converted images are clipped at their 99th percentile and scaled to [0, 1].
    top = np.percentile(one.images[0], 99)
    assert np.allclose(np.clip(one.images[0], 0, top) / top, two.images[0], atol=2e-3)


def test_phases_on_different_grids_make_no_sequence(tmp_path):
    store_ours(tmp_path, phases=True)
    moved = Grid(SHAPE, np.vstack([grid().affine[:3] + [[0, 0, 0, 5]] * 3, [0, 0, 0, 1]]))
    codes = encode_labels(CYCLE[ES], "mnms")
    write_image(tmp_path / "s01" / "labels_ES.nii.gz", codes, moved, overwrite=True)
    with pytest.raises(CardiogenError, match=r"CG-L40b .*labels_ES.*8\.66 mm"):
        load_sequence(read_cohort(tmp_path)[0])


@pytest.mark.parametrize(
    ("columns", "words"),
    [({"ed_frame": 9}, r"CG-N37 .*ed_frame=9 of 8 frames"),
     ({"ed_frame": 2, "es_frame": 4}, r"CG-N37 .*no labels in ED frame 2")],
)  # fmt: skip
def test_frames_that_the_table_names_must_be_there(tmp_path, columns, words):
    sparse = CYCLE.copy()
    sparse[2] = 0
    put(tmp_path / "s" / "labels.nii.gz", encode_labels(sparse, "ukbb"))
    table = {"label_map": "ukbb", **columns}
    write_table(tmp_path / "subjects.csv", ["subject_id", *table], [["s", *table.values()]])
    with pytest.raises(CardiogenError, match=words):
        load_sequence(read_cohort(tmp_path)[0])


def test_image_of_another_length_is_refused(tmp_path):
    store_ours(tmp_path)
    write_image(tmp_path / "s01" / "images.nii.gz", cine()[:5], grid(), overwrite=True)
    with pytest.raises(CardiogenError, match=r"CG-N37 .*images.* 5 frames; expected 8 frames"):
        load_sequence(read_cohort(tmp_path)[0], images=True)


def test_missing_phase_image_is_told_when_asked_for(tmp_path):
    store_ours(tmp_path, phases=True)
    (tmp_path / "s01" / "images_ES.nii.gz").unlink()
    with pytest.raises(CardiogenError, match=r"CG-N37 .*no ES image"):
        load_sequence(read_cohort(tmp_path)[0], images=True)


def test_folders_of_something_else_are_left_alone(tmp_path):
    store_ours(tmp_path)
    (tmp_path / "docs").mkdir()
    (tmp_path / ".git").mkdir()
    assert [s.subject_id for s in read_cohort(tmp_path)] == ["s01"]


def test_table_without_ids_is_refused(tmp_path):
    store_ours(tmp_path)
    write_table(tmp_path / "subjects.csv", ["age", "sex"], [[70, "F"]], overwrite=True)
    with pytest.raises(CardiogenError, match=r"CG-C26 .*expected a column subject_id"):
        read_cohort(tmp_path)

"""One pass over a cohort names every fault by code, file and field, and changes nothing."""

import hashlib
import json
import os
import shutil

import numpy as np
import pytest

from cardiogen.base import CardiogenError
from cardiogen.data import Grid, check_cohort, encode_labels, write_image, write_table
from cardiogen.data.anatomy_hints import enclosure

SHAPE = (9, 22, 25)
GRID = Grid.regular(SHAPE, (8, 1.4, 1.9), (5, -20, 31), np.eye(3)[::-1])
FACTS = {"age": 61, "sex": "M", "height_cm": 172, "weight_kg": 74, "sbp_mmhg": 128}


def heart(radius, lean=0):
    """Labels with a left cavity of ``radius`` voxels; ``lean`` makes subjects differ."""
    d, h, w = np.meshgrid(*[np.arange(n) for n in SHAPE], indexing="ij")
    labels = np.zeros(SHAPE, np.uint8)
    right = ((d - 4) / 4) ** 2 + ((h - 12) / 9) ** 2 + ((w - 17 - lean) / (4 + radius)) ** 2
    labels[right < 1] = 3
    labels[((d - 4) / 4) ** 2 + ((h - 11) / 8) ** 2 + ((w - 10) / 7) ** 2 < 1] = 2
    labels[((d - 5) / 3) ** 2 + ((h - 11) / radius) ** 2 + ((w - 10) / radius) ** 2 < 1] = 1
    return labels


def image_of(labels):
    return (labels * 100 + np.arange(labels.size).reshape(labels.shape) % 50).astype(np.int16)


def put(root, name, labels, *, grid=GRID, label_map="acdc"):
    place = root / name.rpartition("_")[0]
    place.mkdir(parents=True, exist_ok=True)
    write_image(place / f"{name}_gt.nii.gz", encode_labels(labels, label_map), grid,
                overwrite=True)  # fmt: skip
    write_image(place / f"{name}.nii.gz", image_of(labels), grid, overwrite=True)


def make_cohort(root, count=4):
    names = [f"p{i}" for i in range(count)]
    for i, name in enumerate(names):
        put(root, f"{name}_ED", heart(5.5, i))
        put(root, f"{name}_ES", heart(3.5, i))
    rows = [[name, *FACTS.values(), 1, 12, 30] for name in names]
    columns = ["patient", *FACTS, "ed_frame", "es_frame", "n_frames"]
    write_table(root / "subjects.csv", columns, rows)
    return root


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    return make_cohort(tmp_path_factory.mktemp("clean"))


@pytest.fixture
def cohort(clean, tmp_path):
    shutil.copytree(clean, tmp_path / "c")
    return tmp_path / "c"


def state(root):
    return {str(p): (hashlib.sha256(p.read_bytes()).hexdigest(), p.stat().st_mtime_ns)
            for p in root.rglob("*") if p.is_file()}  # fmt: skip


def only(report, code):
    """Return the single error of a report, which must have ``code``."""
    assert [fault.code for fault in report.errors] == [f"CG-{code}"]
    return report.errors[0]


def test_clean_cohort_has_no_fault(cohort):
    before = state(cohort)
    report = check_cohort(cohort)
    assert report.faults == ()
    assert (report.subjects, report.layout, report.exit_code) == (4, "acdc_dev25", 0)
    assert state(cohort) == before


def test_real_cohorts_have_no_errors(real_data):
    for name, subjects in (("acdc_dev25", 25), ("acdc_original_layout", 1)):
        report = check_cohort(real_data / name)
        assert report.errors == ()
        assert report.subjects == subjects
        assert {f.code for f in report.warnings} <= {"CG-C28", "CG-N18b", "CG-N22c"}


@pytest.mark.parametrize("file", ["p1_ED_gt", "p1_ES_gt", "p2_ES"])
def test_damaged_file_is_named(cohort, file):
    path = cohort / file[:2] / f"{file}.nii.gz"
    path.write_bytes(path.read_bytes()[:-9])
    assert only(check_cohort(cohort), "N02").file == str(path)


def test_missing_es_is_named(cohort):
    (cohort / "p1" / "p1_ES_gt.nii.gz").unlink()
    fault = only(check_cohort(cohort), "N37")
    assert fault.file == str(cohort / "p1")
    assert fault.expected == "p1_ES_gt.nii.gz"


def test_row_without_folder_and_reverse(cohort):
    (cohort / "p2").rename(cohort / "p9")
    for path in (cohort / "p9").iterdir():
        path.rename(path.with_name(path.name.replace("p2", "p9")))
    report = check_cohort(cohort)
    assert [f.code for f in report.errors] == ["CG-C29"] * 2
    text = " ".join(f.found for f in report.errors)
    assert "folder p9 without a row" in text
    assert "'p2' without a folder" in text
    assert report.errors[1].field == "row 4"


def test_grids_of_labels_and_image_must_agree(cohort):
    mirrored = GRID.permuted((0, 1, 2), (False, False, True))
    labels = encode_labels(heart(5.5, 1), "acdc")
    write_image(cohort / "p1" / "p1_ED.nii.gz", image_of(labels), mirrored, overwrite=True)
    fault = only(check_cohort(cohort), "L40b")
    assert f"{1.9 * 24:.4g} mm" in fault.found
    write_image(cohort / "p1" / "p1_ED.nii.gz", image_of(labels)[1:],
                GRID.cropped((1, 0, 0), (8, 22, 25)), overwrite=True)  # fmt: skip
    assert "(8, 22, 25) against (9, 22, 25)" in only(check_cohort(cohort), "L40a").found


def test_unknown_codes_are_named(cohort):
    codes = encode_labels(heart(5.5, 1), "acdc")
    codes[codes == 1] = 7
    write_image(cohort / "p1" / "p1_ED_gt.nii.gz", codes, GRID, overwrite=True)
    fault = only(check_cohort(cohort), "L39")
    assert "[7]" in fault.found
    assert "1=RV" in fault.expected


def test_missing_structures_are_named(cohort):
    labels = heart(5.5, 1)
    labels[labels == 3] = 0
    put(cohort, "p1_ED", labels)
    faults = [f for f in check_cohort(cohort).errors if f.code == "CG-L37"]
    assert [f.found for f in faults] == ["classes missing at ed: RV"]


def test_swapped_frames_are_named(cohort):
    put(cohort, "p1_ED", heart(4.5, 1))
    put(cohort, "p1_ES", heart(5.5, 1))
    faults = check_cohort(cohort).errors
    assert {f.code for f in faults} == {"CG-L43"}
    assert [f.found.split()[0] for f in faults] == ["LV", "RV"]


@pytest.mark.parametrize("scale", [0.3, 2.5])
def test_impossible_volumes_are_named(cohort, scale):
    spacing = np.array([8, 1.4, 1.9]) * scale
    big = Grid.regular(SHAPE, spacing, axes=np.eye(3)[::-1])
    for phase, radius in (("ED", 5.5), ("ES", 3.5)):
        put(cohort, f"p1_{phase}", heart(radius, 1), grid=big)
    faults = check_cohort(cohort).errors
    assert bool(faults) == (scale < 1)
    assert {f.code for f in faults} <= {"CG-L44"}
    assert all(f.expected == "5 to 2000 mL" for f in faults)


def test_swapped_label_map_is_recognized(clean, real_data):
    for root in (clean, real_data / "acdc_dev25"):
        report = check_cohort(root, label_map="ukbb")
        assert {f.code for f in report.errors} == {"CG-L41"}
        assert len(report.errors) == 2 * report.subjects
        assert report.errors[0].remedy == "--label-map acdc"
        assert "encloses" in report.errors[0].found


def test_enclosure_of_a_ball_in_a_shell():
    _, h, w = np.meshgrid(*[np.arange(n) for n in SHAPE], indexing="ij")
    labels = np.zeros(SHAPE, np.uint8)
    distance = np.hypot(h - 11, w - 12)
    labels[distance < 8] = 2
    labels[distance < 4] = 1
    assert enclosure(labels, 1, GRID) == 1.0
    assert enclosure(labels, 3, GRID) == 0.0
    labels[:, :11][labels[:, :11] == 2] = 0
    assert 0.4 < enclosure(labels, 1, GRID) < 0.7


def test_equal_scans_of_two_subjects_are_named(cohort):
    put(cohort, "p3_ED", heart(5.5, 1))
    fault = only(check_cohort(cohort), "L46")
    assert "p1_ED_gt.nii.gz of subject 'p1'" in fault.found


def test_ids_equal_but_for_case_are_named(cohort):
    shutil.copytree(cohort / "p1", cohort / "P1")
    codes = {f.code for f in check_cohort(cohort).errors}
    assert "CG-L47" in codes


def test_missing_factors_are_warnings(cohort):
    rows = [[f"p{i}", 61, 1, 12, 30] for i in range(4)]
    columns = ["patient", "age", "ed_frame", "es_frame", "n_frames"]
    write_table(cohort / "subjects.csv", columns, rows, overwrite=True)
    report = check_cohort(cohort)
    table, lacking = str(cohort / "subjects.csv"), ["height_cm", "sbp_mmhg", "sex", "weight_kg"]
    assert [(f.code, f.file, f.field) for f in report.warnings] == [
        ("CG-C28", table, column) for column in lacking
    ]
    assert {f.found for f in report.warnings} == {"missing for all subjects (4)"}
    assert report.exit_code == 0


def test_gaps_of_a_column_are_told_of_their_subject(cohort):
    rows = [[f"p{i}", 61 if i != 2 else "", "M" if i else "", 1, 12, 30] for i in range(4)]
    columns = ["patient", "age", "sex", "ed_frame", "es_frame", "n_frames"]
    write_table(cohort / "subjects.csv", columns, rows, overwrite=True)
    report = check_cohort(cohort)
    single = [(f.file, f.found) for f in report.warnings if not f.field]
    assert single == [
        (str(cohort / "p0"), "missing factors: sex"), (str(cohort / "p2"), "missing factors: age")
    ]  # fmt: skip
    assert [f.field for f in report.warnings if f.field] == ["height_cm", "sbp_mmhg", "weight_kg"]


def test_repeated_frames_and_table_of_a_sequence(tmp_path):
    frames = np.stack([heart(r, 1) for r in (5.5, 4.5, 3.5, 3.5)])
    (tmp_path / "1").mkdir()
    write_image(tmp_path / "1" / "seg_sa.nii.gz", encode_labels(frames, "ukbb"), GRID,
                frame_time_s=0.2)  # fmt: skip
    write_image(tmp_path / "1" / "sa.nii.gz", image_of(frames[:3]), GRID, frame_time_s=0.2)
    report = check_cohort(tmp_path)
    assert only(report, "N37").found == "3 frames"
    assert "frames 2=3 are identical" in [f.found for f in report.warnings]


def test_a_sequence_of_another_length_is_told(tmp_path):
    for i, count in enumerate((4, 4, 3)):
        frames = np.stack([heart(r, i) for r in (5.5, 4.5, 3.5, 5.0)[:count]])
        (tmp_path / f"s{i}").mkdir()
        codes = encode_labels(frames, "ukbb")
        write_image(tmp_path / f"s{i}" / "seg_sa.nii.gz", codes, GRID, frame_time_s=0.2)
    (fault,) = [f for f in check_cohort(tmp_path).warnings if f.code == "CG-N37"]
    assert fault.file == str(tmp_path / "s2" / "seg_sa.nii.gz")
    assert (fault.found, fault.expected) == ("3 frames", "4 frames, as most of the cohort has")


def test_every_fault_in_one_pass(cohort):
    """Nine faults in nine places; each is named once, whatever stands beside it."""
    (cohort / "p0" / "p0_ED_gt.nii.gz").write_bytes(b"version https://git-lfs.github.com/spec")
    (cohort / "p0" / "p0_ES.nii.gz").unlink()
    os.mkfifo(cohort / "p0" / "p0_ES.nii.gz")
    (cohort / "p1" / "p1_ES_gt.nii.gz").unlink()
    put(cohort, "p2_ES", heart(6.5, 2))
    put(cohort, "p4_ED", heart(5.5, 4))
    put(cohort, "p4_ES", heart(3.5, 4))
    with (cohort / "subjects.csv").open("a") as stream:
        stream.write("p5,7O,X,1.75,74,128,1,12,30\np6,61\n../p7,61,F,172,74,128,1,12,30\n")
    before = state(cohort)
    report = check_cohort(cohort)
    found = sorted((f.code[3:], f.file.removeprefix(str(cohort)), f.field) for f in report.errors)
    assert found == sorted([
        ("N41", "/p0/p0_ED_gt.nii.gz", ""), ("N47", "/p0/p0_ES.nii.gz", ""), ("N37", "/p1", ""),
        ("L43", "/p2/p2_ES_gt.nii.gz", ""), ("L43", "/p2/p2_ES_gt.nii.gz", ""),
        ("C29", "/p4", ""), ("C29", "/subjects.csv", "row 6"),
        ("C29", "/subjects.csv", "row 8"), ("C14", "/subjects.csv", "row 6, age"),
        ("C24", "/subjects.csv", "row 6, sex"), ("C27", "/subjects.csv", "row 6, height"),
        ("C07", "/subjects.csv", "row 7"), ("C33", "/subjects.csv", "row 8, patient"),
    ])  # fmt: skip
    assert report.exit_code == 3
    assert state(cohort) == before
    for fault in report.faults:
        assert fault.found
        assert fault.expected
        assert fault.remedy


def test_unreadable_table_hides_no_image_fault(cohort):
    (cohort / "subjects.csv").write_bytes("patient,age\n".encode("utf-16"))
    (cohort / "p1" / "p1_ES_gt.nii.gz").write_bytes(b"")
    codes = [f.code for f in check_cohort(cohort).errors]
    assert codes == ["CG-C09", "CG-N01"]


def test_damaged_info_is_named(tmp_path):
    (tmp_path / "p1").mkdir()
    (tmp_path / "p1" / "Info.cfg").write_text("ED: 1\nHeight: 1.7\nWeight: seventy\n")
    report = check_cohort(tmp_path)
    assert {f.code for f in report.errors} >= {"CG-C28", "CG-N37"}


def test_report_for_machines(cohort):
    (cohort / "p1" / "p1_ED.nii.gz").write_bytes(b"")
    report = check_cohort(cohort)
    content = json.loads(json.dumps(report.as_dict(), allow_nan=False))
    assert content["errors"] == len(report.errors) == 1
    assert content["faults"][0] == {
        "code": "CG-N01", "file": str(cohort / "p1" / "p1_ED.nii.gz"), "field": "",
        "found": "an empty file, 0 bytes", "expected": "a NIfTI image",
        "remedy": "copying or exporting the file again", "severity": "error",
    }  # fmt: skip


def test_no_cohort_is_a_report_and_wrong_options_are_errors(tmp_path):
    assert check_cohort(tmp_path).errors[0].code == "CG-L50"
    assert check_cohort(tmp_path / "none").errors[0].code == "CG-L47a"
    (tmp_path / "x").mkdir()
    with pytest.raises(CardiogenError, match="CG-U11"):
        check_cohort(tmp_path, label_map="mine")
    with pytest.raises(CardiogenError, match="CG-U12"):
        check_cohort(tmp_path, layout="bids")


def test_phases_on_different_grids_are_named(cohort):
    moved = Grid(SHAPE, np.vstack([GRID.affine[:3] + [[0, 0, 0, 5]] * 3, [0, 0, 0, 1]]))
    put(cohort, "p1_ES", heart(3.5, 1), grid=moved)
    fault = only(check_cohort(cohort), "L40b")
    assert fault.file.endswith("p1_ES_gt.nii.gz")
    assert "8.66 mm" in fault.found


def test_sequences_of_our_layout_are_checked_frame_by_frame(tmp_path):
    frames = np.stack([heart(r, 1) for r in (5.5, 4.5, 3.5, 5.0)])
    (tmp_path / "s1").mkdir()
    write_image(tmp_path / "s1" / "labels.nii.gz", encode_labels(frames, "mnms"), GRID,
                frame_time_s=0.2)  # fmt: skip
    columns = ["subject_id", *FACTS, "label_map", "ed_frame", "es_frame"]

    def check(ed, es):
        write_table(tmp_path / "subjects.csv", columns,
                    [["s1", *FACTS.values(), "mnms", ed, es]], overwrite=True)  # fmt: skip
        return check_cohort(tmp_path)

    assert check(0, 2).faults == ()
    assert {f.code for f in check(1, 0).errors} == {"CG-L43"}
    assert only(check(0, 9), "N37").found == "es_frame 9 of 4 frames"

"""``cardiogen measure`` on real and on broken files, through the command."""

import csv
import importlib.util
import itertools
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nibabel.orientations import apply_orientation, inv_ornt_aff

from cardiogen.cli.measure import measure

# Column of the command -> column of subjects.csv, tolerance (its figures are rounded).
TRUTH = {
    "LVEDV (mL)": ("lv_ed_ml", 0.01), "LVESV (mL)": ("lv_es_ml", 0.01),
    "RVEDV (mL)": ("rv_ed_ml", 0.01), "RVESV (mL)": ("rv_es_ml", 0.01),
    "LVM (g)": ("lvm_ed_g", 0.01), "LVEF (%)": ("lvef_pct", 0.02),
    "RVEF (%)": ("rvef_pct", 0.02),
}  # fmt: skip
ORDERS = [np.array(list(zip(order, flips, strict=True)))
          for order in itertools.permutations(range(3))
          for flips in itertools.product((1, -1), repeat=3)]  # fmt: skip


def load_builders():
    """The malformed files are made by the tests of the reader."""
    path = Path(__file__).parents[1] / "data" / "test_nifti_malformed.py"
    spec = importlib.util.spec_from_file_location("malformed_builders", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


built = load_builders()


def truths(real_data):
    with (real_data / "acdc_dev25" / "subjects.csv").open(newline="") as stream:
        return {row["patient"]: row for row in csv.DictReader(stream)}


def assert_true(measured, truth):
    for column, (name, tolerance) in TRUTH.items():
        # Half a unit of the last digit of the table on top.
        assert measured[column] == pytest.approx(float(truth[name]), abs=tolerance + 0.005)


def test_real_patients_have_their_published_volumes(run, real_data):
    ran = run("measure", real_data / "acdc_dev25", "--json")
    assert ran.code == 0
    found, expected = ran.json, truths(real_data)
    assert found["failures"] == []
    assert {s["subject"] for s in found["subjects"]} == set(expected)
    assert len(expected) == 25
    for subject in found["subjects"]:
        assert_true(subject, expected[subject["subject"]])


def patient(real_data, name):
    """Return both label maps of a patient, cut to the heart, as (X, Y, Z, 2), and the affine."""
    files = [nib.load(real_data / "acdc_dev25" / name / f"{name}_{p}_gt.nii.gz")
             for p in ("ED", "ES")]  # fmt: skip
    both = np.stack([np.asarray(f.dataobj).astype(np.uint8) for f in files], axis=-1)
    where = np.argwhere(both.any(axis=-1))
    low, high = where.min(axis=0), where.max(axis=0) + 1
    affine = files[0].affine.copy()
    affine[:3, 3] += affine[:3, :3] @ low
    return both[tuple(map(slice, low, high))], affine


def store(path, labels, affine, orientation, pose):
    """Store a 4D map in another axis order and a rotated world."""
    moved = np.eye(4)
    moved[:3, :3], _ = np.linalg.qr(np.random.default_rng(pose).normal(size=(3, 3)))
    moved[:3, :3] *= np.sign(np.linalg.det(moved[:3, :3]))
    moved[:3, 3] = (10 * pose, -20, 5)
    turned = apply_orientation(labels, orientation)
    world = moved @ affine @ inv_ornt_aff(orientation, labels.shape[:3])
    image = nib.Nifti1Image(np.ascontiguousarray(turned), world)
    image.set_qform(world, 1)
    image.header.set_xyzt_units("mm", "sec")
    image.header["pixdim"][4] = 0.3
    nib.save(image, path)


def test_volumes_do_not_depend_on_axis_order_or_pose(tmp_path, real_data):
    expected = truths(real_data)
    cases = [("patient061", k, pose) for k in range(48) for pose in range(5)]
    cases += [(name, 7 * i % 48, i % 5) for i, name in enumerate(sorted(expected))]
    stored = {name: patient(real_data, name) for name in sorted(expected)}
    for name, order, pose in cases:
        store(tmp_path / "a.nii", *stored[name], ORDERS[order], pose)
        table = measure(tmp_path / "a.nii", label_map="acdc").table
        assert_true(table.iloc[0], expected[name])


def test_the_worlds_of_that_test_differ(tmp_path, real_data):
    labels, affine = patient(real_data, "patient061")
    worlds = set()
    for order, pose in itertools.product(ORDERS, range(5)):
        store(tmp_path / "a.nii", labels, affine, order, pose)
        image = nib.load(tmp_path / "a.nii")
        worlds.add((image.shape, *image.affine.round(3).ravel()))
    assert len(worlds) == 240


def test_original_layout_and_its_invalid_sform(run, refused, real_data):
    folder = real_data / "acdc_original_layout"
    expected = truths(real_data)["patient005"]
    ran = run("measure", folder, "--json")
    assert ran.code == 0
    assert_true(ran.json["subjects"][0], expected)
    assert any("N18b" in note for note in ran.json["notes"])
    file = folder / "patient005" / "patient005_frame01_gt.nii.gz"
    single = ("measure", file, "--label-map", "acdc")
    refused(*single, status=3, code="N18b", words="--prefer pixdim")
    ran = run(*single, "--prefer", "pixdim", "--json")
    assert ran.json["subjects"][0]["LVEDV (mL)"] == pytest.approx(
        float(expected["lv_ed_ml"]), abs=0.015
    )
    assert ran.json["subjects"][0]["LVEF (%)"] is None


def test_generated_heart_through_every_option(run, tmp_path, heart):
    ran = run("measure", heart / "labels.nii.gz", "--label-map", "ukbb", "--out", "m.csv",
              "--frames", "--segments", "17")  # fmt: skip
    assert ran.code == 0
    assert {p.name for p in tmp_path.iterdir()} == {"m.csv", "m_frames.csv", "m_segments.csv"}
    lines = {p.name: p.read_text().splitlines() for p in tmp_path.iterdir()}
    assert [len(lines[n]) for n in ("m.csv", "m_frames.csv", "m_segments.csv")] == [2, 26, 18]
    shown = run("measure", heart / "labels.nii.gz", "--label-map", "ukbb", "--segments", "16",
                "--frames", "--json").json  # fmt: skip
    assert len(shown["frames"]) == 25
    assert len(shown["segments"]) == 16
    assert sum(s["volume (mL)"] for s in shown["segments"]) <= shown["frames"][0]["MYO (mL)"]


def test_hearts_of_ours_need_no_label_map(run, refused, tmp_path, heart):
    whole = run("measure", heart, "--json").json["subjects"]
    named = run("measure", heart, "--label-map", "ukbb", "--json").json["subjects"]
    file = run("measure", heart / "labels.nii.gz", "--json").json["subjects"]
    assert whole == named
    assert whole[0].pop("subject") == "heart"
    assert file[0].pop("subject") == "labels"
    assert whole == file
    assert run("check", heart).code == 0
    copy = tmp_path / "copy"
    copy.mkdir()
    shutil.copy(heart / "labels.nii.gz", copy)
    refused("measure", copy, status=3, code="L39", words="no label_map")
    refused("measure", copy / "labels.nii.gz", status=2, code="U11", words="--label-map")
    for text, code, words in (
        ('{"label_map": {"name": "mine"}}', "C36", "label_map/name"),
        ('{"label_map": {"name": "ukbb"}, "label_map": {"name": "acdc"}}', "C36", "twice"),
        ('{"label_map": {"name": "ukbb"}, "key_frames": {"ED": 0, "ES": 25}}', "N37", "25"),
    ):
        (copy / "parameters.json").write_text(text)
        for place in (copy, copy / "labels.nii.gz"):
            refused("measure", place, status=3, code=code, words=words)


@pytest.mark.parametrize(("phase", "other"), [("ed", "ES"), ("es", "ED")])
def test_one_phase_is_read_back_as_that_phase(run, tmp_path, phase, other):
    run("generate", "-n", "2", "--phase-only", phase, "--spacing", "4", "--format", "nifti,csv",
        "--label-map", "acdc", "--out", "c")  # fmt: skip
    with (tmp_path / "c" / "measures.csv").open(newline="") as stream:
        written = {row["subject_id"]: row for row in csv.DictReader(stream)}
    places = ["c", "c/heart_00002", "c/heart_00002/labels.nii.gz"]
    (tmp_path / "c" / "subjects.csv").rename(tmp_path / "table.csv")
    found = [run("measure", place, "--json").json["subjects"] for place in places[1:]]
    (tmp_path / "table.csv").rename(tmp_path / "c" / "subjects.csv")
    found.append(run("measure", places[0], "--json").json["subjects"])
    for row in (*found[0], *found[1], *found[2][1:]):
        name = phase.upper()
        for side in ("LV", "RV"):
            true = float(written["heart_00002"][f"{side}{name}V (mL)"])
            assert row[f"{side}{name}V (mL)"] == pytest.approx(true, abs=1e-3)
            assert row[f"{side}{other}V (mL)"] is None
            assert row[f"{side}EF (%)"] is None
        assert (row["LVM (g)"] is None) == (phase == "es")
    assert run("check", "c").code == 0


def test_mirrored_world_swaps_segments(run, heart):
    def thickness(orientation):
        ran = run("measure", heart / "labels.nii.gz", "--label-map", "ukbb", "--json",
                  "--segments", "16", "--orientation", orientation)  # fmt: skip
        return {s["name"]: s["thickness (mm)"] for s in ran.json["segments"]}

    trusted, mirrored = thickness("trusted"), thickness("mirrored")
    assert mirrored["mid anterior"] == pytest.approx(trusted["mid inferior"], abs=1e-6)
    assert mirrored["mid inferoseptal"] == pytest.approx(trusted["mid anteroseptal"], abs=1e-6)


def test_z_scores_where_sex_and_age_are_known(run, cohort):
    rows = {
        s["subject"]: s for s in run("measure", cohort, "--z-scores", "--json").json["subjects"]
    }
    assert abs(rows["a1"]["LVEDV z"]) < 5
    assert rows["b2"]["LVEDV z"] is None


def test_closed_mesh(run, refused, heart):
    shown = run("measure", heart / "LV_ED.stl", "--json").json["subjects"]
    whole = run("measure", heart / "labels.nii.gz", "--label-map", "ukbb", "--json").json
    assert shown[0]["Volume (mL)"] == pytest.approx(whole["subjects"][0]["LVEDV (mL)"], rel=0.02)
    for name in ("mesh/frame_000.vtp", "heart.glb"):
        refused("measure", heart / name, status=3, code="S60", words="frames.csv")


def test_segments_of_untrusted_headers_say_so(run, tmp_path, heart, real_data):
    patient = real_data / "acdc_dev25" / "patient061" / "patient061_ED_gt.nii.gz"
    file = ("measure", patient, "--label-map", "acdc", "--out", "m.csv", "--overwrite")
    assert "L63" not in run(*file).err
    said = run(*file, "--segments", "16").err
    assert "L63" in said
    assert "1-6, 7-12 and 13-16" in said
    assert "--orientation mirrored or trusted" in said
    assert "L63" not in run(*file, "--segments", "16", "--orientation", "mirrored").err
    assert "L63" not in run("measure", heart, "--segments", "16", "--json").out


@pytest.mark.parametrize("case", built.CASES, ids=[case[0] for case in built.CASES])
def test_malformed_file_names_its_fault_and_keeps_outputs(refused, tmp_path, case):
    _, name, make, code, status, _ = case
    if code == "N39":
        pytest.skip("a constant image is a fault of images; labels of one code are tested below")
    # In label maps values that are not finite have a code of their own.
    code = {"N26": "L40d", "N27": "L40d"}.get(code, code)
    (tmp_path / name).write_bytes(make())
    (tmp_path / "m.csv").write_text("precious")
    refused("measure", name, "--label-map", "acdc", "--out", "m.csv", "--overwrite",
            status=status, code=code, words=name)  # fmt: skip


@pytest.mark.parametrize(
    ("code", "change", "words"),
    [("L37", lambda d: d * 0, "classes missing"), ("L38", lambda d: d / np.float32(2), "0.5"),
     ("L39", lambda d: d * 7, "[7, 14, 21]"), ("L39", lambda d: np.full_like(d, 9), "[9]"),
     ("L40d", lambda d: np.where(d == 1, np.nan, d).astype("f4"), "NaN")],
)  # fmt: skip
def test_malformed_labels_name_their_fault(refused, tmp_path, code, change, words):
    (tmp_path / "a.nii.gz").write_bytes(built.packed(built.nifti(change(built.LABELS))))
    refused("measure", "a.nii.gz", "--label-map", "acdc", status=3, code=code, words=words)


def test_a_photograph_taken_for_labels_gives_a_short_message(refused, tmp_path):
    (tmp_path / "a.nii").write_bytes(built.nifti())
    line = refused("measure", "a.nii", "--label-map", "acdc", status=3, code="L39", words="more")
    assert len(line) < 300


def test_bad_case_does_not_stop_the_others(run, tmp_path):
    good = built.packed(built.nifti(built.LABELS))
    for name, content in (("a", good), ("b", good[:-9]), ("c", good)):
        (tmp_path / f"{name}.nii.gz").write_bytes(content)
    ran = run("measure", tmp_path, "--label-map", "acdc", "--out", "m.csv")
    assert ran.code == 7
    assert "CG-N02" in ran.err
    with (tmp_path / "m.csv").open(newline="") as stream:
        assert [row["subject"] for row in csv.DictReader(stream)] == ["a", "c"]
    (failure,) = run("measure", tmp_path, "--label-map", "acdc", "--json").json["failures"]
    assert failure["code"] == "CG-N02"


def test_requests_that_are_refused(refused, tmp_path):
    (tmp_path / "a.nii").write_bytes(built.nifti(built.LABELS))
    (tmp_path / "empty").mkdir()
    single = ("measure", "a.nii", "--label-map", "acdc")
    refused("measure", "nothing.nii", status=3, code="N47")
    refused("measure", "empty", status=3, code="L50")
    refused("measure", "a.nii", status=2, code="U11", words="--label-map")
    refused(*single, "--segments", "18", status=2, code="U01", words="16 or 17")
    refused(*single, "--frames", status=2, code="U01", words="--out")
    refused(*single, "--out", "a.nii", "--overwrite", status=8, code="O02")
    (tmp_path / "m_frames.csv").write_text("precious")
    refused(*single, "--out", "m.csv", "--frames", status=8, code="O01", words="m_frames.csv")

"""``cardiogen check``: all faults in one pass; and what ``generate`` wrote has none."""

import shutil
from collections import Counter

import nibabel as nib
import numpy as np
import pytest


def test_generated_cohort_is_sound(run, cohort, tree):
    before = tree(cohort)
    report = run("check", cohort, "--json")
    assert report.code == 0
    assert report.json["layout"] == "cardiogen"
    assert report.json["subjects"] == 5
    assert report.json["errors"] == 0
    # Gaps of the table are told, and nothing else is.
    assert {fault["code"] for fault in report.json["faults"]} == {"CG-C28"}
    assert tree(cohort) == before


def test_cohort_has_an_overview(run, tmp_path):
    run("generate", "-n", "2", "--out", "c", "--phase-only", "ed", "--spacing", "4", "--format",
        "png")  # fmt: skip
    assert (tmp_path / "c" / "overview.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "c" / "heart_00002" / "preview.png").is_file()


def test_table_of_one_row_is_still_a_cohort(run, tmp_path):
    (tmp_path / "t.csv").write_text("subject_id,age\n007,50\n")
    assert run("generate", "--cohort", "t.csv", "--out", "c", "--phase-only", "ed", "--spacing",
               "4", "--format", "nifti,csv", "--json").json["hearts"] == 1  # fmt: skip
    assert run("measure", "c", "--json").json["subjects"][0]["subject"] == "007"


@pytest.mark.parametrize(
    ("table", "status", "code", "words"),
    [("subject_id,age\na,70\nb,7O\n", 3, "C14", "t.csv:3/age"),
     ("subject_id,height_cm\na,1.75\n", 3, "C27", "t.csv:2/height"),
     ("subject_id,age\na,70,\n", 3, "C06", "t.csv"), ("subject_id;age\na;70\n", 3, "C05", "t.csv"),
     ("subject_id,age\na,70\nA,60\n", 3, "L47", "t.csv:3"),
     ("subject_id,age\na,70\na,60\n", 3, "C12", "t.csv:3"),
     ("subject_id,age\n,70\n", 3, "C26", "t.csv:2"), ("subject_id,age\n", 3, "C1", "t.csv"),
     ("subject_id,age\n../a,70\n", 3, "C33", "t.csv:2"),
     ("subject_id,age\nmeasures.csv,70\n", 3, "C33", "measures.csv"),
     (f"subject_id,age\n{'x' * 300},70\n", 3, "C33", "200 bytes"),
     ("subject_id,sex\na,0\n", 3, "C24", "t.csv:2/sex"),
     ("subject_id,age\na,50\nb,17\n", 5, "D01", "b/age")],
)  # fmt: skip
def test_bad_tables_name_code_and_row(run, tmp_path, table, status, code, words):
    (tmp_path / "t.csv").write_text(table)
    ran = run("generate", "--cohort", "t.csv", "--out", "c")
    assert ran.code == status
    (line,) = ran.err.splitlines()
    assert line.startswith(f"cardiogen: CG-{code}")
    assert words in line
    assert not (tmp_path / "c").exists()


def test_generated_cohort_is_measured_as_it_says(run, cohort):
    import pandas as pd

    written = pd.read_csv(cohort / "measures.csv", dtype={"subject_id": str})
    measured = {s["subject"]: s for s in run("measure", cohort, "--json").json["subjects"]}
    assert set(measured) == {"a1", "b2", "007", "d4", "e 5"} == set(written["subject_id"])
    for _, row in written.iterrows():
        for column in ("LVEDV (mL)", "LVESV (mL)", "LVEF (%)", "LVM (g)", "RVEF (%)"):
            assert measured[row["subject_id"]][column] == pytest.approx(row[column], abs=1e-3)


def change_labels(path, change):
    image = nib.load(path)
    data = change(np.asarray(image.dataobj).copy())
    changed = nib.Nifti1Image(data.astype(np.uint8), image.affine, image.header)
    nib.save(changed, path)


def swap(data):
    return np.array([0, 3, 2, 1], np.uint8)[data]


def test_every_planted_fault_is_named_in_one_pass(run, cohort, tmp_path, tree):
    folder = tmp_path / "c"
    shutil.copytree(cohort, folder)
    (folder / "a1" / "labels.nii.gz").write_bytes(
        (cohort / "a1" / "labels.nii.gz").read_bytes()[:-100]
    )
    change_labels(folder / "b2" / "labels.nii.gz", lambda d: d * 7)
    change_labels(folder / "d4" / "labels.nii.gz", swap)
    shutil.copytree(folder / "e 5", folder / "twin")
    (folder / "strange").mkdir()
    shutil.copy(folder / "e 5" / "labels.nii.gz", folder / "strange")
    shutil.rmtree(folder / "007")
    table = (folder / "subjects.csv").read_text().splitlines()
    header, rows = table[0].split(","), {line.split(",")[0]: line.split(",") for line in table}
    rows["d4"][header.index("age")] = "-5"
    rows["e 5"][header.index("height_cm")] = "1.75"
    rows["e 5"][header.index("es_frame")] = "44"
    rows["twin"] = ["twin", *rows["a1"][1:]]
    rows["again"] = rows["a1"]
    (folder / "subjects.csv").write_text("\n".join(",".join(r) for r in rows.values()) + "\n")
    before = tree(folder)
    ran = run("check", folder, "--json")
    assert ran.code == 3
    assert tree(folder) == before
    errors = [f for f in ran.json["faults"] if f["severity"] == "error"]
    found = Counter((f["code"], f["file"].removeprefix(str(folder)).strip("/")) for f in errors)
    for code, file in (
        ("CG-N02", "a1/labels.nii.gz"), ("CG-L39", "b2/labels.nii.gz"),
        ("CG-L41", "d4/labels.nii.gz"), ("CG-L46", "twin/labels.nii.gz"),
        ("CG-C29", "strange"), ("CG-C29", "subjects.csv"), ("CG-C12", "subjects.csv"),
        ("CG-C13", "subjects.csv"), ("CG-C27", "subjects.csv"),
    ):  # fmt: skip
        assert found[code, file] >= 1, (code, file, found)
    assert any(f["field"] == "row 5, age" and f["found"] == "-5" for f in errors)
    assert any("es_frame" in f["field"] or "es_frame" in f["found"] for f in errors)
    assert ran.json["errors"] == len(errors)
    text = run("check", folder)
    assert text.code == 3
    assert len(text.out.splitlines()) == 1 + len(ran.json["faults"])


@pytest.mark.parametrize(("flags", "status"), [(["no"], 3), ([".", "--layout", "bids"], 2)])
def test_folders_that_are_no_cohort(run, flags, status):
    ran = run("check", *flags)
    assert ran.code == status
    assert "CG-" in ran.out + ran.err

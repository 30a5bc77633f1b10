"""``cardiogen generate``: every file of a heart and how they agree, and what is refused."""

import csv
import json
import os
import struct
import subprocess
import sys
import zlib
from xml.etree import ElementTree

import nibabel as nib
import numpy as np
import pytest
import torch
import trimesh

from cardiogen.cli import generate as module
from cardiogen.cli import generate_cohort, generate_heart
from cardiogen.cli.generate import generate
from cardiogen.cli.generate_heart import make_heart
from cardiogen.cli.generate_plan import Request
from cardiogen.data.factors import Factors
from cardiogen.measure import measure_path
from cardiogen.models.store import load_model

ED_CSV = ("--phase-only", "ed", "--format", "csv", "--spacing", "4")
STLS = {f"{name}_{phase}.stl" for name in ("LV", "RV", "EPI") for phase in ("ED", "ES")}


def rows_of(path):
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def parameters_of(folder):
    return json.loads((folder / "parameters.json").read_text(), parse_constant=pytest.fail)


def points_of(path):
    """Return the points of one of our VTP files: one zlib block behind four UInt32."""
    head, rest = path.read_bytes().split(b'<AppendedData encoding="raw">\n_', 1)
    root = ElementTree.fromstring(head + b"</VTKFile>")
    (points,) = root.iter("Points")
    offset, kind = (points[0].get(k) for k in ("offset", "type"))
    start = int(offset) + 16
    (packed,) = struct.unpack_from("<I", rest, start - 4)
    raw = zlib.decompress(rest[start : start + packed])
    return np.frombuffer(raw, {"Float32": "<f4", "Float64": "<f8"}[kind]).reshape(-1, 3)


def test_all_files_of_a_heart_are_there(heart):
    files = {p.relative_to(heart).as_posix() for p in heart.rglob("*") if p.is_file()}
    meshes = {f"mesh/frame_{k:03d}.vtp" for k in range(25)}
    assert files - {".cardiogen-output"} == meshes | STLS | {
        "labels.nii.gz", "labels.txt", "heart.pvd", "heart.glb", "measures.csv", "frames.csv",
        "preview.png", "parameters.json", "README.txt",
    }  # fmt: skip


def test_labels_are_a_cycle_with_named_codes(heart):
    image = nib.load(heart / "labels.nii.gz")
    assert image.shape[3] == 25
    assert np.allclose(image.header.get_zooms()[:3], 1.25)
    cycle = parameters_of(heart)["cycle_s"]
    assert image.header.get_zooms()[3] == pytest.approx(cycle / 25)
    assert image.header.get_xyzt_units() == ("mm", "sec")
    assert b"ukbb: 1=LV 2=MYO 3=RV" in image.header["descrip"].tobytes()
    assert set(np.unique(np.asarray(image.dataobj))) == {0, 1, 2, 3}


def test_series_names_existing_meshes_in_time(heart):
    sets = ElementTree.parse(heart / "heart.pvd").getroot().findall(".//DataSet")
    assert [s.get("file") for s in sets] == [f"mesh/frame_{k:03d}.vtp" for k in range(25)]
    assert all((heart / s.get("file")).is_file() for s in sets)
    assert all(np.diff([float(s.get("timestep")) for s in sets]) > 0)


def test_measures_are_those_of_the_files(heart):
    (row,) = rows_of(heart / "measures.csv")
    measured = measure_path(heart / "labels.nii.gz", label_map="ukbb")
    again = measured.table.iloc[0]
    compared = [c for c in again.index if c in row and c != "subject"]
    assert len(compared) == 11
    for column in compared:
        found = float(row[column] or "nan")
        assert found == pytest.approx(again[column], abs=1e-3, nan_ok=True), column
    frames = rows_of(heart / "frames.csv")
    assert [float(f["LV (mL)"]) for f in frames] == pytest.approx(
        list(measured.frames["LV (mL)"]), abs=1e-3
    )
    key = parameters_of(heart)["key_frames"]
    for phase, frame in key.items():
        for short in ("LV", "RV"):
            mesh = trimesh.load_mesh(heart / f"{short}_{phase}.stl")
            volume = float(frames[frame][f"{short} mesh (mL)"])
            assert mesh.volume / 1000 == pytest.approx(volume, rel=1e-4)
            assert volume == pytest.approx(float(frames[frame][f"{short} (mL)"]), rel=0.02)


def test_parameters_tell_all_that_made_the_heart(heart):
    facts = parameters_of(heart)
    assert facts["factors"] == {"age": 70.0, "sex": "F", "height": None, "weight": None,
                                "sbp": None}  # fmt: skip
    assert (facts["seed"], facts["index"], facts["frames"]) == (0, 0, 25)
    assert {"cardiogen", "torch", "numpy", "python"} <= set(facts["versions"])
    assert facts["model"]["weights_sha256"] == load_model().bundle.description.weights_sha256
    assert (facts["row_id"], facts["draw_seed"]) == (None, 0)
    assert (facts["extrapolated"], facts["extrapolation_reason"]) == (False, None)


def test_every_file_is_marked_synthetic(heart):
    assert parameters_of(heart)["synthetic"] is True
    assert "SYNTHETIC" in (heart / "README.txt").read_text()
    assert b"synthetic" in nib.load(heart / "labels.nii.gz").header["descrip"].tobytes()
    for name in ("measures.csv", "frames.csv"):
        assert all(row["synthetic"] == "1" for row in rows_of(heart / name))
    for name in STLS:
        assert b"synthetic" in (heart / name).read_bytes()[:80]
    for path in (heart / "preview.png", heart / "heart.glb", heart / "mesh" / "frame_007.vtp"):
        assert b"synthetic" in path.read_bytes()


def test_fresh_names_are_printed_and_counted_on(run, tmp_path):
    for number in (1, 2):
        ran = run("generate", "--age", "70", "--sex", "F", *ED_CSV)
        assert ran.out.strip().endswith(f"heart_F70_{number:03d}")
    assert {p.name for p in tmp_path.iterdir()} == {"heart_F70_001", "heart_F70_002"}
    ran = run("generate", "--json", *ED_CSV)
    assert ran.json["hearts"] == 1
    assert (tmp_path / ran.json["folder"] / "measures.csv").is_file()


def test_existing_output_is_kept_unless_it_is_ours_and_named(run, refused, tmp_path):
    arguments = ["generate", "--out", "x", *ED_CSV]
    assert run(*arguments).code == 0
    refused(*arguments, status=8, code="O01", words="--overwrite")
    old = (tmp_path / "x" / "measures.csv").read_text()
    assert run(*arguments, "--seed", "1", "--overwrite").code == 0
    assert (tmp_path / "x" / "measures.csv").read_text() != old


def test_overwrite_never_replaces_what_others_made(refused, tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("years of work")
    (tmp_path / "file").write_text("a file")
    (tmp_path / "link").symlink_to(tmp_path / "thesis")
    for out in ("thesis", "file", "link", tmp_path, ".", ""):
        refused("generate", "--out", out, "--overwrite", *ED_CSV, status=8, code="O03")


def test_output_cannot_hold_the_input(run, refused, tmp_path):
    (tmp_path / "t.csv").write_text("subject_id,age\na,50\nb,60\n")
    assert run("generate", "--cohort", "t.csv", "--out", "c", *ED_CSV).code == 0
    refused("generate", "--cohort", "c/subjects.csv", "--out", "c", "--overwrite", *ED_CSV,
            status=8, code="O02", words="c/subjects.csv")  # fmt: skip


def test_unwritable_place_is_a_lack_of_resources(refused, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("no folder")
    refused("generate", "--out", "file/x", *ED_CSV, status=6, code="R01")

    def read_only(*_, **__):
        raise PermissionError(30, "Read-only file system")

    monkeypatch.setattr("pathlib.Path.mkdir", read_only)
    refused("generate", "--out", "x", *ED_CSV, status=6, code="R01", words="Read-only")


@pytest.mark.parametrize(("phase", "other"), [("ed", "ES"), ("es", "ED")])
def test_one_phase_only(run, tmp_path, heart, phase, other):
    ran = run("generate", "--age", "70", "--sex", "F", "--phase-only", phase, "--out", "x",
              "--format", "nifti,csv,stl")  # fmt: skip
    assert ran.code == 0
    folder, name = tmp_path / "x", phase.upper()
    assert nib.load(folder / "labels.nii.gz").ndim == 3
    assert {p.name for p in folder.glob("*.stl")} == {n for n in STLS if name in n}
    (row,), (frame,) = rows_of(folder / "measures.csv"), rows_of(folder / "frames.csv")
    assert frame["ED/ES"] == name
    assert float(row[f"LV{name}V (mL)"]) == float(frame["LV (mL)"])
    # The other phase was not made, so nothing is said of it.
    assert [row[f"LV{other}V (mL)"], row["LVEF (%)"], row["RVSV (mL)"]] == [""] * 3
    (whole,) = rows_of(heart / "measures.csv")
    tolerance = 1e-3 if phase == "ed" else 0.02
    assert float(row[f"LV{name}V (mL)"]) == pytest.approx(
        float(whole[f"LV{name}V (mL)"]), rel=tolerance
    )


def test_lps_negates_x_and_y_of_the_meshes_and_nothing_else(run, tmp_path):
    for space in ("ras", "lps"):
        ran = run("generate", "--out", space, "--space", space, "--phase-only", "ed",
                  "--format", "vtp,stl,nifti", "--spacing", "3")  # fmt: skip
        assert ran.code == 0
    ras, lps = (points_of(tmp_path / s / "mesh" / "frame_000.vtp") for s in ("ras", "lps"))
    assert np.array_equal(ras * [-1, -1, 1], lps)
    solids = [trimesh.load_mesh(tmp_path / s / "LV_ED.stl") for s in ("ras", "lps")]
    assert np.allclose(solids[0].bounds[:, 2], solids[1].bounds[:, 2])
    assert np.allclose(-solids[0].bounds[::-1, :2], solids[1].bounds[:, :2])
    assert solids[1].volume == pytest.approx(solids[0].volume)
    grids = [nib.load(tmp_path / s / "labels.nii.gz") for s in ("ras", "lps")]
    assert np.array_equal(grids[0].affine, grids[1].affine)
    assert np.array_equal(np.asarray(grids[0].dataobj), np.asarray(grids[1].dataobj))


@pytest.mark.parametrize(("name", "codes"), [("acdc", (3, 2, 1)), ("mnms", (1, 2, 3))])
def test_label_map_renames_the_codes_only(run, tmp_path, name, codes):
    for label_map in ("ukbb", name):
        run("generate", "--out", label_map, "--label-map", label_map, "--phase-only", "ed",
            "--format", "nifti", "--spacing", "4")  # fmt: skip
    ours, other = (
        np.asarray(nib.load(tmp_path / m / "labels.nii.gz").dataobj) for m in ("ukbb", name)
    )
    assert np.array_equal(np.array([0, *codes])[ours], other)


@pytest.mark.parametrize(
    ("formats", "files"),
    [("csv", {"measures.csv", "frames.csv"}), ("glb", {"heart.glb"}), ("PNG", {"preview.png"}),
     ("nifti, stl", {"labels.nii.gz", "labels.txt", "LV_ED.stl", "RV_ED.stl", "EPI_ED.stl"})],
)  # fmt: skip
def test_formats(run, tmp_path, formats, files):
    run("generate", "--out", "x", "--phase-only", "ed", "--spacing", "4", "--format", formats)
    found = {p.relative_to(tmp_path / "x").as_posix() for p in (tmp_path / "x").rglob("*.*")}
    assert found - {".cardiogen-output"} == files | {"parameters.json", "README.txt"}


def test_cardiac_output_needs_a_heart_rate(run, tmp_path, heart):
    assert rows_of(heart / "measures.csv")[0]["LVCO (L/min)"] == ""
    run("generate", "--out", "x", "--frames", "6", "--spacing", "4", "--format", "csv",
        "--heart-rate", "80")  # fmt: skip
    (row,) = rows_of(tmp_path / "x" / "measures.csv")
    assert float(row["LVCO (L/min)"]) == pytest.approx(float(row["LVSV (mL)"]) * 0.08, abs=1e-3)


REFUSALS = [
    (["--age", "130"], 5, "D01", "130"), (["--age", "17"], 5, "D01", "18 to 83"),
    (["--age", "95"], 5, "D01", "--allow-extrapolation"), (["--age", "-5"], 2, "U01", "-5"),
    (["--age", "nan"], 2, "U01", "nan"), (["--age", "inf"], 2, "U01", "inf"),
    (["--sex", "X"], 2, "U01", "F or M"), (["-n", "0"], 2, "U01", "-n"),
    (["-n", "-1"], 2, "U01", "-1"), (["-n", "1000000000"], 6, "R03", "-n"),
    (["--height", "1.75"], 2, "U01", "meters (175 cm)"),
    (["--weight", "70000"], 2, "U01", "grams (70 kg)"), (["--sbp", "16"], 2, "U01", "kPa"),
    (["--sex", "F", "--height", "205", "--weight", "38"], 5, "D0", "--allow-extrapolation"),
    (["--sex", "F", "--height", "200", "--weight", "45"], 5, "D02", "combination"),
    (["--seed", "-1"], 2, "U01", "--seed"), (["--seed", str(2**64)], 2, "U01", "--seed"),
    (["--frames", "0"], 2, "U01", "--frames"), (["--frames", "1000000"], 6, "R03", "--frames"),
    (["--workers", "0"], 2, "U01", "--workers"), (["--spacing", "nan"], 2, "U01", "0.5 to 10"),
    (["--heart-rate", "nan"], 2, "U01", "--heart-rate"), (["--format", "obj"], 2, "U13", "nifti"),
    (["--label-map", "mine"], 2, "U11", "acdc, ukbb, mnms"),
    (["--model", "model.pt"], 4, "M01", "never unpickles"),
    (["--model", "b.zip"], 4, "M02", "zip"), (["--model", "nowhere"], 4, "M47", "nowhere"),
    (["--cohort", "no.csv"], 3, "C47", "no.csv"),
]  # fmt: skip


@pytest.mark.parametrize(("flags", "status", "code", "words"), REFUSALS,
                         ids=[" ".join(case[0]) for case in REFUSALS])  # fmt: skip
def test_requests_that_are_refused(run, monkeypatch, tmp_path, flags, status, code, words):
    monkeypatch.setattr(generate_heart, "decoded", lambda *_: pytest.fail("made a refused heart"))
    ran = run("generate", "--out", "x", *flags)
    assert ran.code == status
    (line,) = ran.err.splitlines()
    assert line.startswith(f"cardiogen: CG-{code}")
    assert words in line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("seed", [0, 2**64 - 1])
def test_seeds_at_the_ends_of_the_range(run, seed):
    assert run("generate", "--out", "x", "--seed", seed, *ED_CSV).code == 0


def test_extrapolation_is_marked_where_it_was_allowed(run, tmp_path):
    flags = ["--age", "17", "--allow-extrapolation", *ED_CSV]
    assert run("generate", "--out", "one", *flags).code == 0
    facts = parameters_of(tmp_path / "one")
    assert facts["extrapolated"] is True
    assert facts["extrapolation_reason"].startswith("CG-D01 age: found 17")
    assert "--allow" not in facts["extrapolation_reason"]
    assert run("generate", "--out", "two", "-n", "2", *flags).code == 0
    tables = [tmp_path / p for p in ("one/measures.csv", "one/frames.csv", "two/measures.csv",
                                     "two/subjects.csv")]  # fmt: skip
    assert all(row["extrapolated"] == "1" for path in tables for row in rows_of(path))
    table = rows_of(tmp_path / "two" / "subjects.csv")
    assert [(row["n_frames"], row["ed_frame"], row["es_frame"]) for row in table] == [
        ("1", "0", "")
    ] * 2
    run("generate", "--out", "inside", "--age", "50", *ED_CSV)
    assert parameters_of(tmp_path / "inside")["extrapolation_reason"] is None
    assert rows_of(tmp_path / "inside" / "measures.csv")[0]["extrapolated"] == "0"


def test_every_file_of_an_extrapolated_heart_says_so(run, tmp_path):
    (tmp_path / "t.csv").write_text("subject_id,age\nyoung,17\nolder,50\n")
    flags = ["--allow-extrapolation", "--frames", "3", "--spacing", "4", "--out", "x"]
    assert run("generate", "--cohort", "t.csv", *flags).code == 0
    sheet = (tmp_path / "x" / "overview.png").read_bytes()
    assert b"synthetic extrapolated heart" in sheet
    for name, marked in (("young", True), ("older", False)):
        folder = tmp_path / "x" / name
        texts = {p.name: p.read_bytes() for p in folder.rglob("*") if p.suffix != ".gz"
                 and p.is_file()}  # fmt: skip
        texts["labels"] = nib.load(folder / "labels.nii.gz").header["descrip"].tobytes()
        for file in ("labels", "LV_ED.stl", "heart.pvd", "preview.png"):
            assert (b"extrapolated" in texts[file]) is marked, file
        assert (b'"extrapolated":true' in texts["heart.glb"]) is marked
        assert (b'"extrapolated" NumberOfTuples="1" format="ascii">1<' in
                texts["frame_001.vtp"]) is marked  # fmt: skip
        assert (b"EXTRAPOLATED" in texts["README.txt"]) is marked
        assert rows_of(folder / "frames.csv")[0]["extrapolated"] == str(int(marked))


def test_hearts_do_not_depend_on_number_workers_or_company(tmp_path, tree):
    facts = {"phase_only": "es", "formats": "nifti,vtp,stl,csv", "spacing_mm": 4.0, "seed": 9}
    few = tree(generate(out=tmp_path / "few", n=3, workers=1, **facts))
    many = tree(generate(out=tmp_path / "many", n=6, workers=2, **facts))
    tables = {"measures.csv", "subjects.csv", "latents.csv"}
    hearts = few.keys() - tables - {"cohort.json"}
    assert len(hearts) > 20
    assert {name: many[name] for name in hearts} == {name: few[name] for name in hearts}
    for table in tables:
        short, long = ((tmp_path / f / table).read_text() for f in ("few", "many"))
        assert long.startswith(short)
    alone = make_heart(
        Request(subject_id="heart", factors=Factors(), index=4, seed=9, frames=25,
                phase_only="es", spacing_mm=4.0, allow_extrapolation=False),
        load_model(),
    )  # fmt: skip
    fifth = tmp_path / "many" / "heart_00005"
    stored = nib.load(fifth / "labels.nii.gz")
    assert np.array_equal(np.asarray(stored.dataobj), alone.labels[0].T)
    assert np.array_equal(
        points_of(fifth / "mesh" / "frame_000.vtp"), alone.vertices[0].astype(np.float32)
    )


def test_hearts_of_a_table_depend_on_their_own_row_alone(tmp_path):
    rows = ["a,40,F", "b,55,", "c,70,M"]
    tables = {"whole": rows, "shuffled": [rows[2], rows[0], rows[1]], "one": [rows[1]]}
    facts = {"phase_only": "es", "formats": "nifti,vtp", "spacing_mm": 4.0, "seed": 5}

    def bits(folder):
        files = (folder / "labels.nii.gz", folder / "mesh" / "frame_000.vtp")
        return [nib.load(files[0]).get_fdata().tobytes(), points_of(files[1]).tobytes()]

    found = {}
    for name, lines in tables.items():
        table = tmp_path / f"{name}.csv"
        table.write_text("\n".join(["subject_id,age,sex", *lines]) + "\n")
        for n in (1, 2):
            out = generate(out=tmp_path / f"{name}{n}", cohort=table, n=n, workers=1, **facts)
            found |= {(name, n, p.parent.name): bits(p.parent) for p in out.glob("*/mesh")}
    for (name, n, heart_id), heart in found.items():
        assert heart == found["whole", 2, heart_id if n == 2 else f"{heart_id}_00001"], name
    assert len({tuple(heart) for heart in found.values()}) == 6
    # What is recorded makes the heart again, without the table.
    recorded = parameters_of(tmp_path / "shuffled2" / "b_00002")
    assert (recorded["seed"], recorded["row_id"], recorded["index"]) == (5, "b", 1)
    again = generate(out=tmp_path / "x", age=55, n=2, workers=1,
                     **facts | {"seed": recorded["draw_seed"]})  # fmt: skip
    assert bits(again / "heart_00002") == found["whole", 2, "b_00002"]


def test_hearts_of_all_rows_together_are_limited(refused, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MAX_HEARTS", 5)
    (tmp_path / "t.csv").write_text("subject_id,age\na,50\nb,60\n")
    refused("generate", "--cohort", "t.csv", "-n", "3", "--out", "x", *ED_CSV, status=6,
            code="R03", words="found 6; expected at most 5")  # fmt: skip


@pytest.mark.parametrize(("formats", "kept"), [("png,csv", 1), ("csv", 0)])
def test_only_hearts_of_the_overview_stay_in_memory(tmp_path, monkeypatch, formats, kept):
    monkeypatch.setattr(generate_cohort, "OVERVIEW_HEARTS", 1)
    thumbnails, made = [], generate_heart.thumbnail
    monkeypatch.setattr(
        generate_heart, "thumbnail", lambda s: thumbnails.append(made(s)) or made(s)
    )
    out = generate(out=tmp_path / "x", n=2, phase_only="ed", formats=formats, spacing_mm=4.0)
    assert len(thumbnails) == kept
    assert (out / "overview.png").is_file() == bool(kept)
    assert len(rows_of(out / "measures.csv")) == 2


def test_bits_do_not_depend_on_threads_or_process(run, tmp_path, tree):
    arguments = [
        "generate",
        "--frames",
        "3",
        "--format",
        "nifti,vtp,csv",
        "--spacing",
        "3",
        "--out",
    ]
    two = {
        **os.environ,
        "OMP_NUM_THREADS": "2",
        "MKL_NUM_THREADS": "2",
        "OPENBLAS_NUM_THREADS": "2",
    }
    program = [sys.executable, "-c", "from cardiogen.cli import main; main()"]
    subprocess.run([*program, *arguments, str(tmp_path / "two")], check=True, env=two,
                   stdout=subprocess.DEVNULL)  # fmt: skip
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        assert run(*arguments, "one").code == 0
    finally:
        torch.set_num_threads(before)
    assert tree(tmp_path / "one") == tree(tmp_path / "two")

"""``cardiogen generate`` to target and at scale: targets, latents, stores, resuming, memory."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from cardiogen.base import CardiogenError
from cardiogen.cli import generate_cohort, generate_heart, generate_workers
from cardiogen.cli.generate import generate
from cardiogen.data.tables import read_cells
from cardiogen.export.mesh_store import MeshStore
from cardiogen.models.store import load_model

SMALL = {"phase_only": "ed", "formats": "csv", "meshes_only": True, "workers": 1}
QUICK = ("--phase-only", "ed", "--format", "csv", "--meshes-only")


def rows_of(path):
    return [cells for _, cells in read_cells(path).records()]


def facts_of(folder):
    return json.loads((folder / "parameters.json").read_text())


def test_targets_are_hit_recorded_and_decoded_again_from_their_latents(run, tmp_path):
    ran = run("generate", "--sex", "F", "--age", "60", "--target", "lvedv=150", "--target",
              "lvm=90 g", "-n", "2", "--format", "vtp", "--frames", "16", "--meshes-only",
              "--latents-out", "z.csv", "--out", "a", "--jobs", "1")  # fmt: skip
    assert ran.code == 0, ran.err
    rows = rows_of(tmp_path / "a" / "measures.csv")
    assert len(rows) == 2
    for row in rows:
        assert float(row["LVEDV (mL)"]) == pytest.approx(150, rel=0.005)
        assert float(row["LVM (g)"]) == pytest.approx(90, rel=0.005)
    assert abs(float(rows[0]["RVEDV (mL)"]) - float(rows[1]["RVEDV (mL)"])) > 1
    facts = facts_of(tmp_path / "a" / "heart_00001")
    assert facts["targets"] == ["lvedv=150 mL", "lvm=90 g"]
    assert (tmp_path / "z.csv").read_bytes() == (tmp_path / "a" / "latents.csv").read_bytes()
    ran = run("generate", "--latents", "z.csv", "--format", "vtp", "--frames", "16",
              "--meshes-only", "--out", "b", "--json")  # fmt: skip
    assert ran.json["hearts"] == 2
    assert facts_of(tmp_path / "b" / "heart_00001")["latents_given"] is True
    for name in ("heart_00001", "heart_00002"):
        meshes = [(tmp_path / f / name / "mesh" / "frame_003.vtp").read_bytes() for f in "ab"]
        assert meshes[0] == meshes[1]
    assert (tmp_path / "a" / "measures.csv").read_bytes() == (
        tmp_path / "b" / "measures.csv"
    ).read_bytes()


@pytest.mark.parametrize(
    ("flags", "status", "code", "words"),
    [(["--target", "lvedv=100", "--target", "lvesv=120"], 2, "U42", "end-systolic"),
     (["--target", "lvef=0.35"], 2, "U41", "fraction"), (["--target", "mass=3"], 2, "U40", "lvm"),
     (["--target", "lvmi=70", "--height", "170"], 2, "U43", "weight"),
     (["--guidance", "-1"], 2, "U01", "--guidance"), (["--guidance", "nan"], 2, "U01", "0 to 5"),
     (["--latents", "z.csv", "--age", "50"], 2, "U01", "factors"),
     (["--latents", "z.csv", "-n", "2"], 2, "U01", "-n"),
     (["--latents", "z.csv", "--target", "lvef=50"], 2, "U01", "--target"),
     (["--latents", "z.csv"], 3, "C47", "z.csv"), (["--resume"], 2, "U01", "cohort"),
     (["--latents-out", "x/z.csv"], 2, "U01", "outside"),
     (["--format", "nifti", "--meshes-only"], 2, "U01", "label maps")],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)  # fmt: skip
def test_requests_that_are_refused(run, monkeypatch, tmp_path, flags, status, code, words):
    monkeypatch.setattr(generate_heart, "decoded", lambda *_: pytest.fail("made a refused heart"))
    ran = run("generate", "--out", "x", *flags)
    assert ran.code == status, ran.err
    (line,) = ran.err.splitlines()
    assert line.startswith(f"cardiogen: CG-{code}")
    assert words in line
    assert list(tmp_path.iterdir()) == []


def test_existing_latents_are_kept(run, refused, tmp_path):
    (tmp_path / "z.csv").write_text("mine")
    refused("generate", *QUICK, "--out", "x", "--latents-out", "z.csv", status=8, code="O01",
            words="--latents-out")  # fmt: skip
    assert run("generate", *QUICK, "--out", "x", "--latents-out", "z.csv", "--overwrite").code == 0
    (row,) = rows_of(tmp_path / "z.csv")
    assert row["model_sha256"] == load_model().bundle.description.weights_sha256


def test_latents_far_from_hearts_are_refused_or_marked(run, tmp_path):
    assert run("generate", *QUICK, "--out", "x", "--latents-out", "z.csv").code == 0
    lines = (tmp_path / "z.csv").read_text().splitlines()
    cells = lines[1].split(",")
    cells[-1] = "40.0"
    (tmp_path / "far.csv").write_text("\n".join([lines[0], ",".join(cells)]) + "\n")
    flags = ["generate", "--latents", "far.csv", *QUICK, "--out", "y"]
    ran = run(*flags)
    assert (ran.code, "CG-D09 far.csv/heart" in ran.err) == (5, True)
    assert run(*flags, "--allow-extrapolation").code == 0
    assert rows_of(tmp_path / "y" / "measures.csv")[0]["extrapolated"] == "1"
    # The mark stays with the latents.
    assert rows_of(tmp_path / "y" / "latents.csv")[0]["extrapolated"] == "1"


def test_impossible_latents_are_refused_whatever_is_allowed(run, tmp_path):
    assert run("generate", *QUICK, "--out", "x", "--latents-out", "z.csv").code == 0
    lines = (tmp_path / "z.csv").read_text().splitlines()
    names, cells = lines[0].split(","), lines[1].split(",")
    for name in ("z001", "z002", "z003", "z004", "z005"):
        cells[names.index(name)] = "60"
    (tmp_path / "far.csv").write_text("\n".join([lines[0], ",".join(cells)]) + "\n")
    ran = run("generate", "--latents", "far.csv", *QUICK, "--out", "y", "--allow-extrapolation")
    assert (ran.code, "CG-D03" in ran.err) == (5, True), ran.err


def test_guidance_strengthens_what_factors_do(tmp_path):
    """Hearts of tall men, drawn with the same noise, are larger the more factors count."""

    def mean(guidance, **factors):
        out = tmp_path / f"{guidance}{len(factors)}"
        generate(out=out, n=4, guidance=guidance, **SMALL, **factors)
        return np.mean([float(row["LVEDV (mL)"]) for row in rows_of(out / "measures.csv")])

    man = {"sex": "M", "height": 185.0}
    plain, strong = mean(1.0, **man), mean(2.0, **man)
    everyone = mean(0.0, **man)
    assert everyone < plain - 10 < strong - 25
    assert facts_of(tmp_path / "2.02" / "heart_00003")["guidance"] == 2.0


def test_guidance_beyond_the_training_data_is_refused_or_marked(run, tmp_path):
    flags = ("generate", "--age", "80", "--sex", "M", "--height", "180", "--weight", "110",
             "--sbp", "180", *QUICK, "--out", "x")  # fmt: skip
    ran = run(*flags, "--guidance", "5")
    assert (ran.code, "CG-D09 --guidance" in ran.err) == (5, True), ran.err
    ran = run(*flags, "--guidance", "3", "--allow-extrapolation")
    assert ran.code == 0, ran.err
    facts = facts_of(tmp_path / "x")
    assert facts["extrapolated"] is True
    assert "hearts" in facts["extrapolation_reason"]
    assert run(*flags, "--guidance", "1.5", "--overwrite").code == 0
    assert facts_of(tmp_path / "x")["extrapolated"] is False


def test_an_interrupted_cohort_is_gone_on_with_bit_for_bit(tmp_path, tree, monkeypatch):
    facts = SMALL | {"formats": "vtp,csv", "seed": 4}
    whole = generate(out=tmp_path / "whole", n=7, **facts)
    made = generate_workers.make

    def stops(request, *args, **kwargs):
        if request.index == 4 and not (tmp_path / "again").exists():
            raise KeyboardInterrupt
        return made(request, *args, **kwargs)

    monkeypatch.setattr(generate_workers, "make", stops)
    with pytest.raises(CardiogenError, match=r"CG-R75 .*whole hearts are kept") as caught:
        generate(out=tmp_path / "parts", n=7, resume=True, **facts)
    assert caught.value.exit_code == 75
    parts = tmp_path / "parts"
    assert len(rows_of(parts / "measures.csv")) == 4
    (tmp_path / "again").mkdir()
    # What a kill leaves: a torn row, a heart that no table knows, a half-made one.
    with (parts / "subjects.csv").open("a") as stream:
        stream.write("heart_00005,1,0,,")
    (parts / ".cg-tmp-1").mkdir()
    generate(out=parts, n=7, resume=True, **facts)
    assert not list(parts.rglob(".cg-tmp-*"))
    ours, theirs = tree(parts), tree(whole)
    assert {n: h for n, h in ours.items() if not n.endswith(".cardiogen-output")} == {
        n: h for n, h in theirs.items() if not n.endswith(".cardiogen-output")
    }


def test_a_finished_cohort_takes_more_hearts_but_no_others(tmp_path, tree, capsys):
    few = generate(out=tmp_path / "c", n=2, resume=True, **SMALL)
    before = tree(few)
    more = tree(generate(out=tmp_path / "c", n=5, resume=True, **SMALL))
    names = [name for name in before if name.startswith("heart_")]
    assert names
    assert {name: more[name] for name in names} == {name: before[name] for name in names}
    assert len(rows_of(few / "latents.csv")) == 5
    # Asking for fewer takes none away, and says so.
    assert tree(generate(out=tmp_path / "c", n=3, resume=True, **SMALL)).keys() == more.keys()
    assert "holds 5 hearts, more than -n 3: all are kept" in capsys.readouterr().err
    for other in ({"seed": 1}, {"age": 50.0}, {"frames": 12}):
        with pytest.raises(CardiogenError, match=r"CG-O05 .*a cohort made with"):
            generate(out=tmp_path / "c", n=6, resume=True, **SMALL | other)
    with pytest.raises(CardiogenError, match=r"CG-O01"):
        generate(out=tmp_path / "c", n=6, **SMALL)


def test_a_table_of_other_rows_or_counts_is_another_cohort(tmp_path):
    (tmp_path / "t.csv").write_text("subject_id,age\na,50\nb,60\n")
    facts = SMALL | {"cohort": tmp_path / "t.csv", "out": tmp_path / "c", "resume": True}
    generate(**facts)
    with pytest.raises(CardiogenError, match=r"CG-O05 .*hearts_a_row 1, not 2"):
        generate(**facts, n=2)
    (tmp_path / "t.csv").write_text("subject_id,age\na,50\nb,61\n")
    with pytest.raises(CardiogenError, match=r"CG-O05 .*table_sha256"):
        generate(**facts)


def test_one_process_a_cohort(tmp_path):
    folder = generate(out=tmp_path / "c", n=2, resume=True, **SMALL)
    with (
        generate_cohort._locked(folder),
        pytest.raises(CardiogenError, match=r"CG-O04 .*another process"),
    ):
        generate(out=folder, n=3, resume=True, **SMALL)


def test_resume_leaves_foreign_folders_alone(tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / ".cg-tmp-notes").write_text("years of work")
    with pytest.raises(CardiogenError, match=r"CG-O05 .*no cohort"):
        generate(out=tmp_path / "thesis", n=2, resume=True, **SMALL)
    assert (tmp_path / "thesis" / ".cg-tmp-notes").read_text() == "years of work"


def test_overview_shows_hearts_of_earlier_runs_too(tmp_path):
    facts = {"phase_only": "ed", "formats": "png", "spacing_mm": 4.0, "workers": 1}
    generate(out=tmp_path / "c", n=2, resume=True, **facts)
    generate(out=tmp_path / "c", n=3, resume=True, **facts)
    generate(out=tmp_path / "whole", n=3, **facts)
    pictures = [(tmp_path / f / "overview.png").read_bytes() for f in ("c", "whole")]
    assert pictures[0] == pictures[1]


def test_meshes_only_measures_the_meshes(tmp_path):
    facts = {"frames": 3, "workers": 1, "formats": "csv"}
    out = {k: generate(out=tmp_path / str(k), meshes_only=k, **facts) for k in (True, False)}
    (mesh,), (labels,) = (rows_of(out[k] / "measures.csv") for k in (True, False))
    (frame, *_) = rows_of(out[False] / "frames.csv")
    assert float(mesh["LVEDV (mL)"]) == pytest.approx(float(frame["LV mesh (mL)"]), abs=1e-3)
    assert mesh["LVEDV (mL)"] != labels["LVEDV (mL)"]
    everything = generate(out=tmp_path / "all", meshes_only=True, frames=3)
    assert not (everything / "labels.nii.gz").exists()
    assert (everything / "preview.png").is_file()


def test_a_store_holds_the_meshes_of_the_same_hearts(tmp_path):
    pytest.importorskip("zarr")
    facts = {"phase_only": "es", "seed": 2, "age": 60.0}
    folder = generate(out=tmp_path / "c", n=5, formats="zarr", workers=2, **facts)
    names = {p.name for p in folder.iterdir()}
    assert names == {"meshes.zarr", "subjects.csv", "measures.csv", "latents.csv", "cohort.json",
                     ".cardiogen-output"}  # fmt: skip
    generate(out=tmp_path / "r", n=3, formats="zarr", resume=True, workers=1, **facts)
    again = generate(out=tmp_path / "r", n=5, formats="zarr", resume=True, workers=1, **facts)
    stores = [MeshStore.open(f / "meshes.zarr") for f in (folder, again)]
    assert [len(store) for store in stores] == [5, 5]
    for k in range(5):
        assert np.array_equal(stores[0].vertices(k), stores[1].vertices(k))
    assert stores[0].group.attrs["synthetic"] is True
    beside = generate(out=tmp_path / "b", n=2, formats="zarr,vtp", meshes_only=True, **facts)
    assert (beside / "heart_00002" / "mesh" / "frame_000.vtp").is_file()
    assert np.array_equal(MeshStore.open(beside / "meshes.zarr").vertices(1),
                          stores[0].vertices(1))  # fmt: skip


def test_a_store_needs_zarr(refused, monkeypatch):
    monkeypatch.setattr("cardiogen.export.mesh_store.importlib.util.find_spec", lambda _: None)
    refused("generate", "-n", "3", "--format", "zarr", "--out", "x", status=2, code="U31",
            words="cardiogen[cohort]")  # fmt: skip


_COHORT = """
import resource, sys
from cardiogen.cli.generate import generate
generate(out=sys.argv[1], n=int(sys.argv[2]), workers=1, phase_only="ed", formats="csv",
         meshes_only=True)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_memory_does_not_grow_with_the_number_of_hearts(tmp_path):
    def peak_mib(n):
        ran = subprocess.run(
            [sys.executable, "-c", _COHORT, str(tmp_path / str(n)), str(n)], check=True, text=True,
            capture_output=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        return int(ran.stdout.split()[-1]) / 1024

    # The meshes of 100 hearts at one phase alone are 6 MiB.
    assert peak_mib(120) - peak_mib(20) < 4

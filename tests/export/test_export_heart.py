"""The folder of a heart: every file there, every file marked, nothing that was not asked for."""

import csv
import gzip
import json
import re
import subprocess
import sys

import nibabel
import numpy as np
import pytest

from cardiogen.base import CardiogenError
from cardiogen.data.factors import Factors
from cardiogen.export import (
    FORMATS,
    code_names,
    describe_factors,
    describe_measures,
    frame_time_s,
    key_frames,
    parse_formats,
    reference_bands,
    write_heart,
)

MEASURES = {"LVEDV (mL)": 44.6, "LVEF (%)": 48.0}
FRAMES = {
    "frame": np.arange(5),
    "phase": np.arange(5) / 5,
    "LV (mL)": np.array([45.0, 33, 23, 27, 38]),
    "RV (mL)": np.array([34.0, 24, 17, 20, 29]),
}
TABLES = {"measures": MEASURES, "frames": FRAMES, "parameters": {"seed": 7}}


@pytest.fixture(scope="module")
def folder(toy_heart, tmp_path_factory):
    place = tmp_path_factory.mktemp("heart")
    written = write_heart(place, toy_heart, **TABLES)
    assert sorted(written) == sorted(p for p in place.rglob("*") if p.is_file())
    assert written[-1].name == "README.txt"
    return place


def test_all_files_are_there(folder):
    names = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    stl = {f"{surface}_{phase}.stl" for surface in ("LV", "RV", "EPI") for phase in ("ED", "ES")}
    meshes = {f"mesh/frame_{t:03d}.vtp" for t in range(5)}
    assert names == stl | meshes | {
        "labels.nii.gz", "labels.txt", "heart.pvd", "heart.glb", "measures.csv", "frames.csv",
        "preview.png", "parameters.json", "README.txt",
    }  # fmt: skip


def test_every_file_says_that_it_is_synthetic(folder):
    image = nibabel.load(folder / "labels.nii.gz")
    assert b"synthetic" in image.header["descrip"].item()
    for path in folder.rglob("*.vtp"):
        assert b'Name="synthetic" NumberOfTuples="1" format="ascii">1<' in path.read_bytes()
    for path in folder.glob("*.stl"):
        assert b"synthetic" in path.read_bytes()[:80]
    assert b'"synthetic":true' in (folder / "heart.glb").read_bytes()
    assert b"synthetic heart" in (folder / "preview.png").read_bytes()
    assert "SYNTHETIC" in (folder / "README.txt").read_text()
    assert json.loads((folder / "parameters.json").read_text())["synthetic"] is True
    for name in ("measures.csv", "frames.csv"):
        with (folder / name).open() as stream:
            assert {row["synthetic"] for row in csv.DictReader(stream)} == {"1"}


def test_every_file_says_that_it_is_extrapolated_or_not(toy_heart, folder, tmp_path):
    write_heart(tmp_path, toy_heart, **TABLES, extrapolated=True)
    word = re.compile(rb"extrapolated", re.IGNORECASE)
    for path in sorted(p for p in tmp_path.rglob("*") if p.is_file() and p.suffix != ".txt"):
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        assert word.search(content[:400] if path.suffix in (".gz", ".stl") else content), path
    assert (
        b'Name="extrapolated" NumberOfTuples="1" format="ascii">1<'
        in (tmp_path / "mesh" / "frame_003.vtp").read_bytes()
    )
    assert b'"extrapolated":true' in (tmp_path / "heart.glb").read_bytes()
    assert "It is EXTRAPOLATED: its factors lie outside" in (tmp_path / "README.txt").read_text()
    assert json.loads((tmp_path / "parameters.json").read_text())["extrapolated"] is True
    for place, mark in ((tmp_path, "1"), (folder, "0")):
        for name in ("measures.csv", "frames.csv"):
            with (place / name).open() as stream:
                assert {row["extrapolated"] for row in csv.DictReader(stream)} == {mark}
    for name in ("labels.nii.gz", "LV_ED.stl", "heart.pvd", "preview.png", "README.txt"):
        content = (folder / name).read_bytes()
        assert not word.search(gzip.decompress(content) if name.endswith(".gz") else content)


def test_labels_carry_codes_frame_time_and_world(toy_heart, folder, tmp_path):
    write_heart(tmp_path, toy_heart, **TABLES, label_map="acdc", formats=["nifti"])
    for place, name in ((folder, "ukbb"), (tmp_path, "acdc")):
        image = nibabel.load(place / "labels.nii.gz")
        assert image.get_data_dtype() == np.uint8
        assert image.header["pixdim"][4] == pytest.approx(0.16)
        codes = np.asarray(image.dataobj).transpose(3, 2, 1, 0)
        names = {"LV": 1, "MYO": 2, "RV": 3}
        for code, structure in code_names(name).items():
            expected = toy_heart.labels == names.get(structure, 0)
            np.testing.assert_array_equal(codes == code, expected)
        np.testing.assert_allclose(
            image.affine[:, [2, 1, 0, 3]], toy_heart.grid.affine, rtol=0, atol=1e-4
        )
        assert json.loads((place / "parameters.json").read_text())["label_map"]["name"] == name
    assert '3 209 52 63 1 1 1 "LV' in (tmp_path / "labels.txt").read_text()


def test_parameters_hold_inputs_and_facts(folder):
    facts = json.loads((folder / "parameters.json").read_text())
    assert facts["seed"] == 7
    assert facts["factors"]["age"] == 70
    assert facts["key_frames"] == {"ED": 0, "ES": 2}
    assert facts["mesh_space"] == "ras"


def test_readme_explains_what_is_there_and_nothing_else(toy_heart, folder, tmp_path):
    text = (folder / "README.txt").read_text()
    for name in ("labels.nii.gz", "heart.glb", "EPI_*.stl", "mesh/", "measures.csv", "1 LV"):
        assert name in text
    write_heart(tmp_path, toy_heart, **TABLES, formats=["glb"], synthetic=False, space="lps")
    text = (tmp_path / "README.txt").read_text()
    assert {p.name for p in tmp_path.iterdir()} == {"heart.glb", "parameters.json", "README.txt"}
    assert "not synthetic" in text
    assert "LPS" in text
    assert "labels.nii.gz" not in text


def test_labels_alone_and_one_frame_are_enough(toy_heart, tmp_path):
    frame = {name: values[2:3] for name, values in FRAMES.items()}
    es = toy_heart.with_(
        phases=toy_heart.phases[2:3], labels=toy_heart.labels[2:3], vertices=None, topology=None,
        es=0,
    )  # fmt: skip
    written = write_heart(tmp_path, es, measures=MEASURES, frames=frame, parameters={})
    assert {p.name for p in written} == {
        "labels.nii.gz", "labels.txt", "measures.csv", "frames.csv", "preview.png",
        "parameters.json", "README.txt",
    }  # fmt: skip
    assert nibabel.load(tmp_path / "labels.nii.gz").ndim == 3
    assert key_frames(es) == {"ES": 0}
    assert frame_time_s(es) is None


def test_uneven_frames_have_no_frame_time(toy_heart):
    uneven = toy_heart.with_(phases=np.array([0, 0.1, 0.35, 0.6, 0.8]))
    assert frame_time_s(uneven) is None
    assert frame_time_s(toy_heart) == pytest.approx(0.16)
    assert frame_time_s(toy_heart.with_(cycle_s=None)) is None


def test_nothing_is_overwritten_unless_told(toy_heart, tmp_path):
    write_heart(tmp_path, toy_heart, **TABLES, formats=["csv"])
    before = (tmp_path / "measures.csv").read_bytes()
    with pytest.raises(CardiogenError, match="CG-O01"):
        write_heart(tmp_path, toy_heart, **TABLES, formats=["csv"])
    assert (tmp_path / "measures.csv").read_bytes() == before
    write_heart(tmp_path, toy_heart, **TABLES, formats=["csv"], overwrite=True)


def test_formats_are_parsed_in_a_fixed_order():
    assert parse_formats("glb, NIfTI") == ("nifti", "glb")
    assert parse_formats("all") == FORMATS
    for text in ("obj", "", "glb,obj"):
        with pytest.raises(CardiogenError, match="CG-U13 --format"):
            parse_formats(text)


def test_unknown_formats_and_spaces_are_refused(toy_heart, tmp_path):
    with pytest.raises(ValueError, match="formats must be among"):
        write_heart(tmp_path, toy_heart, **TABLES, formats=["obj"])
    with pytest.raises(CardiogenError, match="CG-U12"):
        write_heart(tmp_path, toy_heart, **TABLES, space="xyz")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("factors", "words"),
    [
        (Factors(age=70, sex="F", height=162, weight=68, sbp=128),
         "Woman, 70 years · 162 cm · 68 kg · 128 mmHg"),
        (Factors(sex="M"), "Man"),
        (Factors(age=55.4), "Heart, 55 years"),
        (None, ""),
    ],
)  # fmt: skip
def test_factors_in_words(factors, words):
    assert describe_factors(factors) == words


def test_unknown_measures_are_left_out_of_the_words():
    measures = {"LVEDV (mL)": 120.4, "LVEF (%)": 61.2, "RVEDV (mL)": float("nan")}
    assert describe_measures(measures) == "LVEDV 120 mL   LVEF 61 %"


def test_bands_are_the_reference_of_sex_and_age():
    bands = reference_bands(Factors(age=65, sex="F"))
    assert set(bands) == {"LVEDV (mL)", "LVESV (mL)", "RVEDV (mL)", "RVESV (mL)"}
    # HHC 2024, women of 60-69 years: LVEDV 82-166 mL, to rounding.
    assert bands["LVEDV (mL)"] == pytest.approx((82, 166), abs=1)
    for unknown in (None, Factors(age=65), Factors(sex="F"), Factors(age=12, sex="F")):
        assert reference_bands(unknown) == {}


def test_importing_export_loads_nothing_heavy():
    code = (
        "import sys, cardiogen.export; "
        "heavy = {'matplotlib', 'trimesh', 'scipy', 'torch', 'pandas', 'vtk'} & set(sys.modules); "
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)

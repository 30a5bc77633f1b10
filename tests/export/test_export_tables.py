"""CSV tables: marked, escaped, rounded; read back by the csv module."""

import csv

import numpy as np
import pytest

from cardiogen.base import CardiogenError
from cardiogen.data.factors import Factors
from cardiogen.export import Marks, subject_row, write_frames, write_measures

SYNTHETIC, REAL = Marks(synthetic=True), Marks(synthetic=False)


def read(path):
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def test_subject_row_holds_origin_factors_and_measures(tmp_path):
    measures = {"LVEDV (mL)": 120.123456789, "LVCO (L/min)": float("nan")}
    row = subject_row("toy_001", Factors(age=70, sex="F"), measures, marks=SYNTHETIC)
    (found,) = read(write_measures(tmp_path / "m.csv", [row]))
    assert found["subject_id"] == "toy_001"
    assert found["synthetic"] == "1"
    assert (found["age"], found["sex"], found["height_cm"]) == ("70.0", "F", "")
    assert found["LVEDV (mL)"] == "120.1235"
    assert found["LVCO (L/min)"] == ""


def test_formulas_in_names_are_escaped(tmp_path):
    row = subject_row("=HYPERLINK(1)", None, {}, marks=REAL)
    (found,) = read(write_measures(tmp_path / "m.csv", [row]))
    assert found["subject_id"] == "'=HYPERLINK(1)"
    assert found["synthetic"] == "0"


def test_rows_of_a_cohort_share_their_columns(tmp_path):
    rows = [
        subject_row(f"toy_{k}", None, {"LVM (g)": float(k)}, marks=SYNTHETIC) for k in range(3)
    ]
    assert [r["LVM (g)"] for r in read(write_measures(tmp_path / "m.csv", rows))] == [
        "0.0", "1.0", "2.0",
    ]  # fmt: skip
    with pytest.raises(ValueError, match="row 1 must have the columns"):
        write_measures(tmp_path / "n.csv", [rows[0], {"other": 1}])
    with pytest.raises(ValueError, match="at least one subject"):
        write_measures(tmp_path / "n.csv", [])
    assert not (tmp_path / "n.csv").exists()


def test_frames_have_one_row_each(tmp_path):
    columns = {"frame": np.arange(3), "ED/ES": ["ED", "", "ES"], "LV (mL)": np.array([9.0, 7, 5])}
    found = read(write_frames(tmp_path / "f.csv", "toy_001", columns, marks=SYNTHETIC))
    assert [r["LV (mL)"] for r in found] == ["9.0", "7.0", "5.0"]
    assert [r["ED/ES"] for r in found] == ["ED", "", "ES"]
    assert all(r["subject_id"] == "toy_001" and r["synthetic"] == "1" for r in found)


def test_uneven_columns_and_existing_files_are_refused(tmp_path):
    with pytest.raises(ValueError, match="columns must have one length"):
        write_frames(tmp_path / "f.csv", "x", {"a": [1], "b": [1, 2]}, marks=SYNTHETIC)
    write_frames(tmp_path / "f.csv", "x", {"a": [1]}, marks=SYNTHETIC)
    with pytest.raises(CardiogenError, match="CG-O01"):
        write_frames(tmp_path / "f.csv", "x", {"a": [1]}, marks=SYNTHETIC)

"""Clinical tables: no cell changes in silence, every fault is named with its row."""

import csv
import io

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cardiogen.base import CardiogenError
from cardiogen.data import read_factor_table, read_table, write_table
from cardiogen.data.factor_table import id_faults, id_notes, misspelled_columns, row_faults
from cardiogen.data.tables import read_cells, scan_table

GOOD = "subject_id,age,sex\n001,70,F\n002,40.5,M\n"

CASES = [
    ("C05", b"subject_id;age\n1;70\n", r":1: found 1 column found"),
    ("C06", b"subject_id,age\n1,70\n2,40,\n", r":3: found a trailing comma"),
    ("C06-header", b"subject_id,age,\n1,70,\n", r":1: found a column without a name"),
    ("C07", b"subject_id,age\n1,70\n2,40,F\n", r":3: found 3 cells; expected 2 cells"),
    ("C07-short", b"subject_id,age,sex\n1,70\n", r":2: found 2 cells"),
    ("C09", GOOD.encode("utf-16"), "UTF-16"),
    ("C09-be", GOOD.encode("utf-16-be"), "UTF-16"),
    ("C09-le", GOOD.encode("utf-16-le"), "UTF-16"),
    ("C10", "subject_id,age\nJosé,70\n".encode("latin-1"), r":2: .*0xe9, perhaps Latin-1"),
    ("C11", b"age,sex,Age\n70,F,71\n", r"column 'Age' twice"),
    ("C16", b"subject_id,age\n1,7\x000\n", r":2: found a NUL byte"),
    ("C17", b'subject_id,age\n1,70\n2,"40\n3,50\n', r":3: found an open"),
    ("C17-stray", b'subject_id,age\n1,"7"0\n', r":2: found an open or stray quote"),
    ("C18", b"", "empty file, 0 bytes"),
    ("C18-blank", b"\n \n", "empty file"),
    ("C19", b"subject_id,age\n", "header only"),
    ("C23", b"subject_id,age\n# made by hand,\n1,70\n", r":2: found a comment line"),
    ("C23-first", b"# comment\nsubject_id,age\n1,70\n", r":1: found a comment line"),
]


@pytest.mark.parametrize(("content", "words"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_malformed_table_is_refused(tmp_path, request, content, words):
    code = request.node.callspec.id.partition("-")[0]
    path = tmp_path / "t.csv"
    path.write_bytes(content)
    with pytest.raises(CardiogenError, match=words) as caught:
        read_table(path)
    assert (caught.value.code, caught.value.exit_code) == (code, 3)
    assert str(caught.value).startswith(f"CG-{code} {path}")
    assert path.read_bytes() == content


@pytest.mark.parametrize("prefix", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_byte_order_mark_and_line_ends_do_not_matter(tmp_path, prefix, newline):
    (tmp_path / "t.csv").write_bytes(prefix + GOOD.replace("\n", newline).encode())
    table = read_table(tmp_path / "t.csv")
    assert list(table.columns) == ["subject_id", "age", "sex"]
    assert table.to_numpy().tolist() == [["001", "70", "F"], ["002", "40.5", "M"]]


def test_cells_stay_the_text_that_they_are(tmp_path):
    cells = ["0012", "NA", "nan", "1E5", "100000", "1234567890123456789", "True", "=1+1", "None"]
    (tmp_path / "t.csv").write_text("subject_id,note\n" + "".join(f"{c},x\n" for c in cells))
    assert read_table(tmp_path / "t.csv")["subject_id"].tolist() == cells


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\x00\r\n")),
                         min_size=2, max_size=2), min_size=1, max_size=5))  # fmt: skip
def test_any_csv_that_python_writes_is_read_cell_by_cell(tmp_path, rows):
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows([["a", "b"], *rows])
    (tmp_path / "t.csv").write_text(stream.getvalue(), encoding="utf-8", newline="")
    table, faults = scan_table(tmp_path / "t.csv")
    kept = [row for row in rows if not row[0].lstrip().startswith("#")]
    assert list(table.rows) == [tuple(cell.strip() for cell in row) for row in kept]
    assert {fault.code for fault in faults} <= {"C23"}


def test_all_structural_faults_in_one_pass(tmp_path):
    (tmp_path / "t.csv").write_text("subject_id,age\n1,70,\n2,40\n3\n# x,\n5,1,2,3\n")
    table, faults = scan_table(tmp_path / "t.csv")
    assert [f.code for f in faults] == ["C06", "C07", "C23", "C07"]
    assert [f.where.rpartition(":")[2] for f in faults] == ["2", "4", "5", "6"]
    assert (table.rows, table.lines) == ((("2", "40"),), (3,))


def test_rows_are_counted_as_in_an_editor(tmp_path):
    (tmp_path / "t.csv").write_text('subject_id,age\n1,"70\n"\n\n2,x\n')
    table = read_cells(tmp_path / "t.csv")
    assert table.lines == (2, 5)
    assert [f.where for f in row_faults(table)] == [f"{tmp_path / 't.csv'}:5/age"]


def test_padding_is_trimmed_and_told(tmp_path):
    (tmp_path / "t.csv").write_text("subject_id, age\n1 , 70\n")
    table = read_cells(tmp_path / "t.csv")
    assert table.columns == ("subject_id", "age")
    assert table.rows == (("1", "70"),)
    assert [note.code for note in table.notes] == ["C22"]


@pytest.mark.parametrize(
    ("ids", "codes"),
    [(["a", "a"], ["C12"]), (["a", "A"], ["L47"]), (["é", "e\u0301"], ["L47"]),
     (["a", ""], ["C26"]), (["../a", "b"], ["C33"]), (["/etc", "b"], ["C33"]),
     (["http://x", ".."], ["C33", "C33"]), (["1E5", "100000"], []), (["a\\b", "c"], ["C33"])],
)  # fmt: skip
def test_ids_that_cannot_be(tmp_path, ids, codes):
    (tmp_path / "t.csv").write_text("subject_id,age\n" + "".join(f"{i},70\n" for i in ids))
    assert [f.code for f in id_faults(read_cells(tmp_path / "t.csv"))] == codes
    if codes:
        with pytest.raises(CardiogenError, match=f"CG-{codes[0]} .*t.csv:"):
            read_factor_table(tmp_path / "t.csv")


def test_both_rows_of_a_double_are_named(tmp_path):
    (tmp_path / "t.csv").write_text("subject_id,age\na,1\nb,2\na,3\n")
    (fault,) = id_faults(read_cells(tmp_path / "t.csv"))
    assert fault.where.endswith(":4/subject_id")
    assert "t.csv:2" in fault.found


def test_ids_that_programs_mangle_are_told(tmp_path):
    (tmp_path / "t.csv").write_text("subject_id\nNA\nMAR1\n1-Mar\nNorma\nMarch\n")
    notes = id_notes(read_cells(tmp_path / "t.csv"))
    assert [note.code for note in notes] == ["C02", "C34", "C34"]


def test_factor_table_of_generate(tmp_path):
    text = "Patient,age,sex,height_cm,weight,sbp,group\n007,70,F,,60,131,NOR\n008,,m,180,80,,HCM\n"
    (tmp_path / "t.csv").write_text(text)
    (first, one), (second, two) = read_factor_table(tmp_path / "t.csv")
    assert (first, second) == ("007", "008")
    assert one.as_dict() == {"age": 70, "sex": "F", "height": None, "weight": 60, "sbp": 131}
    assert two.bsa == 2.0


def test_factor_table_without_ids_counts_rows(tmp_path):
    (tmp_path / "t.csv").write_text("age\n" + "70\n" * 11)
    ids = [subject_id for subject_id, _ in read_factor_table(tmp_path / "t.csv")]
    assert ids[0] == "row1"
    assert ids[-1] == "row11"


@pytest.mark.parametrize(
    ("header", "words"),
    [("subject_id,agee", "'agee'.*such as age"), ("age,height_m", "'height_m'.*height_cm"),
     ("age,weigth", "'weigth'.*weight"), ("subject_id,group", "any of age, sex, height_cm")],
)  # fmt: skip
def test_misspelled_columns_are_not_ignored(tmp_path, header, words):
    (tmp_path / "t.csv").write_text(f"{header}\n1,2\n")
    with pytest.raises(CardiogenError, match=f"CG-C35 .*{words}"):
        read_factor_table(tmp_path / "t.csv")


def test_columns_of_a_real_table_are_not_taken_for_misspelled(real_data):
    assert misspelled_columns(read_cells(real_data / "acdc_dev25" / "subjects.csv")) == []


def test_every_fault_of_every_row(tmp_path):
    bad = "subject_id,age,height\n" + "".join(
        f"s{i},{'7O' if i % 10 == 0 else 70},{1.7 if i % 15 == 0 else 170}\n" for i in range(3000)
    )
    (tmp_path / "t.csv").write_text(bad)
    codes = [fault.code for fault in row_faults(read_cells(tmp_path / "t.csv"))]
    assert codes.count("C14") == 300
    assert codes.count("C27") == 200


def test_written_tables_are_read_back(tmp_path):
    rows = [["007", 70.5, None], ["a,b", np.float32(2), 'say "x"'], ["é", float("nan"), -3]]
    write_table(tmp_path / "t.csv", ["subject_id", "age", "note"], rows)
    table = read_table(tmp_path / "t.csv")
    assert table.to_numpy().tolist() == [["007", "70.5", ""], ["a,b", "2.0", 'say "x"'],
                                         ["é", "", "-3"]]  # fmt: skip


@pytest.mark.parametrize("cell", ["=1+1", "+cmd", "-cmd|x", "@SUM(A1)", "\t=1", "\r=1"])
def test_formula_cells_are_escaped(tmp_path, cell):
    write_table(tmp_path / "t.csv", ["a", "b"], [[cell, "x"]])
    assert f"'{cell}" in (tmp_path / "t.csv").read_bytes().decode()


@pytest.mark.parametrize("cell", ["-5", "+1.5e3", "-inf"])
def test_numbers_are_no_formulas(tmp_path, cell):
    write_table(tmp_path / "t.csv", ["a", "b"], [[cell, "x"]])
    assert (tmp_path / "t.csv").read_text() == f"a,b\n{cell},x\n"


def test_wrong_row_or_existing_file_changes_nothing(tmp_path):
    with pytest.raises(ValueError, match="row must have 2 cells, got 1"):
        write_table(tmp_path / "t.csv", ["a", "b"], [["1", "2"], ["3"]])
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "t.csv").write_text("old")
    with pytest.raises(CardiogenError, match="CG-O01"):
        write_table(tmp_path / "t.csv", ["a"], [])
    assert (tmp_path / "t.csv").read_text() == "old"


def test_folder_or_huge_file_is_no_table(tmp_path, monkeypatch):
    with pytest.raises(CardiogenError, match=r"CG-C47 .*a folder"):
        read_table(tmp_path)
    (tmp_path / "t.csv").write_text(GOOD)
    monkeypatch.setattr("cardiogen.data.tables._LIMIT", 10)
    with pytest.raises(CardiogenError, match=r"CG-R02 .*at most 10 bytes"):
        read_table(tmp_path / "t.csv")

"""Errors carry every fact through text, JSON and worker processes; names cannot forge output."""

import pickle

import pytest

from cardiogen.base import CardiogenError, Exit, Note
from cardiogen.base.errors import printable


def make_error(code="N03", **changes):
    facts = {"found": "a", "expected": "b", "remedy": "c"} | changes
    return CardiogenError(code, "scan.nii.gz", **facts)


@pytest.mark.parametrize(
    ("code", "status"),
    [("N01", 3), ("L40a", 3), ("C12", 3), ("S01", 3), ("M02", 4), ("D01", 5), ("R01", 6),
     ("B01", 7), ("O01", 8), ("U11", 2)],
)  # fmt: skip
def test_family_decides_exit_status(code, status):
    assert make_error(code).exit_code == status


def test_given_exit_status_wins():
    assert make_error("N07", exit_code=Exit.RESOURCES).exit_code is Exit.RESOURCES


def test_message_names_code_place_found_expected_remedy():
    error = make_error(found="49 frames", expected="50 frames", remedy="frame 7")
    assert str(error) == (
        "CG-N03 scan.nii.gz: found 49 frames; expected 50 frames; try frame 7"
    )  # fmt: skip


def test_errors_survive_pickling_with_every_fact():
    error = make_error("N07", exit_code=Exit.RESOURCES)
    again = pickle.loads(pickle.dumps(error))
    assert again.as_dict() == error.as_dict()
    assert str(again) == str(error)


def test_at_moves_the_place_only():
    moved = make_error("N07", exit_code=Exit.RESOURCES).at("other")
    assert moved.where == "other"
    assert moved.as_dict() == make_error("N07", exit_code=6).as_dict() | {"where": "other"}


@pytest.mark.parametrize("bad", ["a\nb", "a\x1b[31mb", "a\u202eb", "a\x00b", "a\rb"])
def test_names_cannot_forge_output(bad):
    error = CardiogenError("N01", bad, found=bad, expected=bad, remedy=bad)
    for text in (str(error), str(Note("N01", bad, bad)), printable(bad)):
        assert all(c.isprintable() for c in text)


def test_printable_leaves_ordinary_text_alone():
    assert printable("Müller 3 µm") == "Müller 3 µm"

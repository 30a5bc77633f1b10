"""What is told beside a heart."""

import numpy as np
import pytest

from cardiogen.cli.complete_notes import misfit_notes, stroke_notes
from cardiogen.data.grid import Grid
from cardiogen.data.sequence import Sequence


@pytest.fixture
def seen():
    """A map of 100 mL of left, 50 of right ventricle and 80 mL of wall, voxels of 1 mL."""
    labels = np.repeat([0, 1, 2, 3], [770, 100, 80, 50]).astype(np.uint8).reshape(1, 10, 10, 10)
    grid = Grid.regular((10, 10, 10), (10.0, 10.0, 10.0), (0.0, 0.0, 0.0))
    return Sequence(phases=np.zeros(1), labels=labels, grid=grid)


def shown(lv=100.0, mass=84.0, rv=50.0):
    return {"LVEDV (mL)": lv, "LVM (g)": mass, "RVEDV (mL)": rv}


def test_volumes_that_no_healthy_heart_has_are_told(seen):
    (note,) = misfit_notes(shown(lv=80.0, rv=52.0), seen, "map")
    assert str(note).startswith("D12 map: taken for a healthy heart it has LVEDV (mL) 80 instead")
    assert "instead of 100" in note.text
    assert "RVEDV" not in note.text
    (note,) = misfit_notes(shown(mass=120.0, rv=70.0), seen, "map")
    assert "LVM (g) 120 instead of 84, RVEDV (mL) 70 instead of 50" in note.text


def test_a_near_heart_and_a_later_frame_need_no_note(seen):
    assert misfit_notes(shown(lv=95.0, rv=53.0), seen, "map") == []
    later = seen.with_(phases=np.array([0.3]))
    assert misfit_notes(shown(lv=20.0), later, "map") == []


def test_strokes_of_one_circulation_agree():
    measures = {"LVEDV (mL)": 100.0, "LVESV (mL)": 40.0, "RVEDV (mL)": 110.0}
    assert stroke_notes(measures | {"RVESV (mL)": 60.0}, "age_80") == []
    (note,) = stroke_notes(measures | {"RVESV (mL)": 70.0}, "age_80")
    assert str(note).startswith("D13 age_80: the left ventricle ejects 60 mL, the right one 40")
    (note,) = stroke_notes(measures | {"RVESV (mL)": 20.0}, "age_80")
    assert "60 mL, the right one 90" in note.text
    assert stroke_notes(measures | {"RVESV (mL)": float("nan")}, "age_80") == []

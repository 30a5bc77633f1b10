"""What is told beside a heart."""

import numpy as np
import pytest

from cardiogen.cli.heart_notes import misfit_notes, stroke_notes
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


def beating(left, right):
    """Two frames, voxels of 1 mL: 100 mL of left and 110 of right ventricle, less the strokes."""
    frames = []
    for lv, rv in ((100, 110), (100 - left, 110 - right)):
        sizes = [1000 - lv - rv - 80, lv, 80, rv]
        frames.append(np.repeat([0, 1, 2, 3], sizes).reshape(10, 10, 10))
    grid = Grid.regular((10, 10, 10), (10.0, 10.0, 10.0), (0.0, 0.0, 0.0))
    labels = np.stack(frames).astype(np.uint8)
    return Sequence(phases=np.array([0.0, 0.4]), labels=labels, grid=grid)


def test_strokes_of_one_circulation_agree():
    assert stroke_notes(beating(left=60, right=50), "age_80") == []
    (note,) = stroke_notes(beating(left=60, right=40), "age_80")
    assert str(note).startswith("D13 age_80: the left ventricle ejects 60 mL, the right one 40")
    (note,) = stroke_notes(beating(left=60, right=90), "age_80")
    assert "60 mL, the right one 90" in note.text

"""A mirror turns evidence round; a cohort decides together, and says so where it cannot."""

import numpy as np
import pytest

from cardiogen.data.grid import Grid
from cardiogen.data.labels import Structure
from cardiogen.data.sequence import Sequence
from cardiogen.engine import chirality
from cardiogen.engine.chirality import (
    chirality_evidence,
    common_chirality,
    settle_chirality,
)
from cardiogen.engine.fit_template import fit_frames
from cardiogen.population import (
    render_labels,
    render_sequence,
    sample_heart,
    short_axis_grid,
    template_topology,
)

MIRROR = np.diag([-1.0, 1.0, 1.0, 1.0])


def mirrored(grid):
    return Grid(grid.shape, MIRROR @ grid.affine)


@pytest.fixture(scope="module")
def stack():
    """A short-axis stack at end diastole of a heart of the population."""
    heart = sample_heart(21, 1)
    ed = heart.vertices([0.0])[0]
    grid = short_axis_grid(ed, heart.pose, (12.0, 2.1, 1.9))
    return render_labels(ed, template_topology(), grid), grid


def cohort_of(evidence, monkeypatch):
    """Hearts whose evidence is given, all with headers that nobody vouches for."""
    say = iter(evidence)
    monkeypatch.setattr(chirality, "chirality_evidence", lambda labels, grid: next(say))
    grid = Grid.regular((3, 4, 5), (8.0, 1.5, 1.4))
    labels = np.zeros((1, *grid.shape), np.uint8)
    return [
        Sequence(phases=np.zeros(1), grid=grid, labels=labels, subject_id=f"s{k}",
                 orientation="assumed")
        for k in range(len(evidence))
    ]  # fmt: skip


def test_a_mirrored_heart_is_found_out_and_others_are_left_alone(stack):
    labels, grid = stack
    turned = Sequence(phases=np.zeros(1), grid=mirrored(grid), labels=labels[None],
                      subject_id="turned", orientation="assumed")  # fmt: skip
    known = turned.with_(subject_id="known", orientation="trusted")
    no_right = np.where(turned.labels == Structure.RV, 0, turned.labels)
    broken = turned.with_(subject_id="broken", labels=no_right.astype(np.uint8))
    settled, evidence = settle_chirality([turned, known, broken])
    assert [heart.orientation for heart in settled] == ["mirrored", "trusted", "assumed"]
    assert evidence[0] < 0
    assert np.isnan(evidence[1:]).all()
    (note,) = settled[0].notes
    assert note.text == "headers mirror the hearts, say 1 of 1 fits (agreement 100%)"
    assert settled[1].notes == settled[2].notes == ()
    # A mirror turns the evidence round.
    np.testing.assert_allclose(chirality_evidence(labels, grid), -evidence[0], rtol=1e-6)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_the_vote_overrules_weak_and_single_strong_dissent(sign, monkeypatch):
    for dissent in (2.0, 900.0):
        hearts = cohort_of(sign * np.array([7.0, 12.0, -dissent, 30.0, 9.0, 8.0]), monkeypatch)
        settled, _ = settle_chirality(hearts)
        wanted = "trusted" if sign > 0 else "mirrored"
        assert {heart.orientation for heart in settled} == {wanted}
        assert settled[0].notes[-1].text.endswith("; taken so too: s2")
        assert "say 5 of 6 fits" in settled[0].notes[-1].text
        assert len({heart.notes[-1].text for heart in settled}) == 1


def test_a_mixed_cohort_is_told_and_not_forced(monkeypatch):
    evidence = np.array([7.0, -12.0, 20.0, -30.0, 9.0])
    settled, said = settle_chirality(cohort_of(evidence, monkeypatch))
    np.testing.assert_array_equal(said, evidence)
    assert [heart.orientation for heart in settled] == [
        "trusted", "mirrored", "trusted", "mirrored", "trusted"
    ]  # fmt: skip
    for heart in settled:
        assert heart.notes[-1].code == "L63"
        assert "headers mirror 2 of 5 hearts" in heart.notes[-1].text
        assert "each is decided by itself" in heart.notes[-1].text


def test_one_heart_decides_for_itself(monkeypatch):
    for own, wanted in ((0.3, "trusted"), (-0.3, "mirrored")):
        (heart,), _ = settle_chirality(cohort_of([own], monkeypatch))
        assert heart.orientation == wanted


def test_agreement_is_the_share_of_evidence_cut_to_ten():
    # c = 10, 10, -5: agreement 15 / 25.
    assert common_chirality(np.array([400.0, 10.0, -5.0])) == (False, 0.6)
    assert common_chirality(np.array([-400.0, np.nan, -10.0, 5.0])) == (True, 0.6)
    # Three quarters of the evidence are just enough.
    assert common_chirality(np.array([-9.0, 3.0])) == (True, 0.5)
    assert common_chirality(np.array([-8.9, 3.0]))[0] is None
    # Nobody says anything.
    for silent in ([], [np.nan], [0.0, 0.0]):
        assert common_chirality(np.array(silent)) == (None, 0.0)


@pytest.mark.parametrize("evidence", [-9.0, 9.0])
def test_all_frames_of_a_heart_lie_on_the_side_of_its_end_diastole(monkeypatch, evidence):
    heart = sample_heart(3, 1)
    phases = np.array([0.0, heart.timing.systole])
    world = heart.vertices(phases)
    grid = short_axis_grid(world, heart.pose, (9.0, 3.0, 3.0))
    labels = render_sequence(world, template_topology(), grid)
    monkeypatch.setattr("cardiogen.engine.chirality.chirality_evidence", lambda *_: evidence)
    monkeypatch.setattr("cardiogen.engine.map_estimate._MAX_STEPS", 1)
    seen = Sequence(phases=phases, grid=grid, labels=labels, orientation="assumed")
    _, fits = fit_frames(seen)
    assert [fit.pose.mirrored for fit in fits] == [evidence < 0] * 2
    assert fits[0].margin == pytest.approx(9.0)
    assert fits[1].margin is None

"""What is told beside a heart that was fitted to label maps: its chirality, broken rules."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cardiogen.base import Note

if TYPE_CHECKING:
    from cardiogen.data.sequence import Sequence
    from cardiogen.models.protocol import Posterior


def chirality_notes(posterior: Posterior, where: str) -> list[Note]:
    """Return what the fit decided of left and right, where headers left it open."""
    if posterior.margin is None:
        return []
    found = "mirrors the heart" if posterior.pose.mirrored else "does not mirror the heart"
    text = f"the header {found}: decided by fit, objectives {posterior.margin:.1f} apart"
    return [Note("L63", where, text)]


def broken_rules(heart: Sequence, where: str) -> list[Note]:
    """Return notes of the rules that a completed heart breaks.

    D10 of ones that no heart breaks, as where the input is none; D11 of faces that cross, as some
    do in patients, where the wall of the right ventricle is inserted.
    """
    from cardiogen.measure import check_sequence

    if heart.vertices is None:
        return []
    broken = check_sequence(heart.with_(labels=None, grid=None))
    crossing = [v for v in broken if v.rule == "no-crossing"]
    # The first of every rule: 25 frames that break one say it once.
    rules = {v.rule: f"{v.rule}: {v.detail}" for v in reversed(broken) if v not in crossing}
    notes = []
    if rules:
        text = (
            f"the completed heart is not plausible ({'; '.join(rules.values())}): do not trust it"
        )
        notes.append(Note("D10", where, text))
    if crossing:
        first = crossing[0]
        text = (
            f"faces of the mesh cross in {len(crossing)} of {len(heart.phases)} frames "
            f"(frame {first.frame}: {first.detail}): mend it before a simulation"
        )
        notes.append(Note("D11", where, text))
    return notes

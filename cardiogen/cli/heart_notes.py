"""What is told beside a heart: its chirality, rules that it breaks, volumes it does not have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from cardiogen.base import Note

if TYPE_CHECKING:
    from cardiogen.data.sequence import Sequence
    from cardiogen.models.protocol import Posterior

_STROKES = 1.3  # of 10,000 draws the strokes of none differ more
_MISFIT = 0.08  # slices of 10 mm hide some 5 % of a volume


def chirality_notes(posterior: Posterior, where: str) -> list[Note]:
    """Return what the fit decided of left and right, where headers left it open."""
    if posterior.margin is None:
        return []
    found = "mirrors the heart" if posterior.pose.mirrored else "does not mirror the heart"
    text = f"the header {found}: decided by fit, objectives {posterior.margin:.1f} apart"
    return [Note("L63", where, text)]


def misfit_notes(shown: Mapping[str, float], seen: Sequence, where: str) -> list[Note]:
    """Return a note (D12) of volumes at end diastole that a healthy heart does not reach.

    Args:
        shown: measures of the heart that stands for the subject.
        seen: its label maps; without end diastole there is nothing to compare.
        where: what the note is about.
    """
    from cardiogen.data.labels import Structure
    from cardiogen.measure.volumes import MYOCARDIAL_DENSITY, label_volumes

    if seen.phases[seen.ed] != 0:
        return []
    volumes = label_volumes(seen.labels[seen.ed : seen.ed + 1], seen.grid)
    measured = {
        "LVEDV (mL)": volumes[Structure.LV][0],
        "LVM (g)": MYOCARDIAL_DENSITY * volumes[Structure.MYO][0],
        "RVEDV (mL)": volumes[Structure.RV][0],
    }
    apart = [
        f"{name} {shown[name]:.0f} instead of {real:.0f}"
        for name, real in measured.items()
        if abs(shown[name] / real - 1.0) > _MISFIT
    ]
    if not apart:
        return []
    text = (
        f"taken for a healthy heart it has {', '.join(apart)} of the label map: z-scores and "
        "percentiles are of the former, cardiogen measure gives the latter"
    )
    return [Note("D12", where, text)]


def stroke_notes(heart: Sequence, where: str) -> list[Note]:
    """Return a note (D13) of ventricles that eject too differently to belong to one circulation.

    Args:
        heart: a cycle that begins at end diastole.
        where: what the note is about.
    """
    from cardiogen.data.labels import Structure
    from cardiogen.measure.volumes import sequence_volumes

    volumes = sequence_volumes(heart)
    left, right = (float(np.ptp(volumes[s])) for s in (Structure.LV, Structure.RV))
    if max(left, right) <= _STROKES * min(left, right):
        return []
    text = (
        f"the left ventricle ejects {left:.0f} mL, the right one {right:.0f}: in health they "
        "agree, and the model knows no disease of the valves"
    )
    return [Note("D13", where, text)]


def broken_rules(heart: Sequence, where: str) -> list[Note]:
    """Return notes of the rules that a heart breaks which was completed or moved.

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
        text = f"the heart is not plausible ({'; '.join(rules.values())}): do not trust it"
        notes.append(Note("D10", where, text))
    if crossing:
        first = crossing[0]
        text = (
            f"faces of the mesh cross in {len(crossing)} of {len(heart.phases)} frames "
            f"(frame {first.frame}: {first.detail}): mend it before a simulation"
        )
        notes.append(Note("D11", where, text))
    return notes

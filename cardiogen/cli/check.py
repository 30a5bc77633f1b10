"""``cardiogen check``: every fault of a cohort in one pass."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cardiogen.data.check import CheckReport
    from cardiogen.data.subject import Layout


def check(
    cohort: str | Path, *, layout: Layout | None = None, label_map: str | None = None
) -> CheckReport:
    """Look at every file of a cohort and report every fault; nothing is changed.

    Args:
        cohort: cohort folder, or the folder of one subject.
        layout: ``cardiogen``, ``acdc``, ``acdc_dev25`` or ``ukbb``; found if not given.
        label_map: codes of the label files; that of the layout if not given.
    """
    from cardiogen.data.check import check_cohort

    return check_cohort(cohort, layout=layout, label_map=label_map)


def describe(report: CheckReport) -> str:
    """Return the report as text, one line a fault."""
    from cardiogen.base.errors import printable

    lines = [
        f"{report.folder}: layout {report.layout or 'unknown'}, {report.subjects} subjects, "
        f"{len(report.errors)} errors, {len(report.warnings)} warnings"
    ]
    for fault in report.faults:
        place = f"{fault.file}:{fault.field}" if fault.field else fault.file
        lines.append(printable(
            f"{fault.severity}: {fault.code} {place}: found {fault.found}; "
            f"expected {fault.expected}; try {fault.remedy}"
        ))  # fmt: skip
    return "\n".join(lines)

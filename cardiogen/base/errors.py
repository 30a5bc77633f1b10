"""One error type for everything a user can cause, with a stable code and an exit status."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Self


class Exit(IntEnum):
    """Exit statuses of the command line (the same in every command)."""

    OK = 0
    INTERNAL = 1
    USAGE = 2
    DATA = 3
    MODEL = 4
    DOMAIN = 5
    RESOURCES = 6
    FAILURES = 7
    EXISTS = 8
    INTERRUPTED = 75
    CTRL_C = 130


# First letter of a code -> exit status: N NIfTI, L labels, C tables, S shapes and meshes, M models
# and configs, D the model's domain, R resources, B batches, O outputs, U usage.
_EXIT_OF_FAMILY = {
    "N": Exit.DATA,
    "L": Exit.DATA,
    "C": Exit.DATA,
    "S": Exit.DATA,
    "M": Exit.MODEL,
    "D": Exit.DOMAIN,
    "R": Exit.RESOURCES,
    "B": Exit.FAILURES,
    "O": Exit.EXISTS,
    "U": Exit.USAGE,
}


def printable(text: object) -> str:
    """Escape control and direction-changing characters so that a name cannot forge output."""
    shown = str(text)
    return "".join(c if c.isprintable() or c == " " else c.encode("unicode_escape").decode()
                   for c in shown)  # fmt: skip


@dataclass(frozen=True)
class Note:
    """A finding that does not stop the work: a code, where, and what was found or assumed."""

    code: str
    where: str
    text: str

    def __str__(self) -> str:
        return f"{self.code} {printable(self.where)}: {printable(self.text)}"


class CardiogenError(Exception):
    """A fault that the user can mend: what was wrong, where, what was expected, what to try.

    Args:
        code: family letter and number, e.g. ``"N03"``; the message shows ``CG-N03``.
        where: path (optionally with row or field) or argument that is at fault.
        found: what was there.
        expected: what should have been there.
        remedy: what to try.
        exit_code: exit status; by default that of the code's family.
    """

    def __init__(
        self,
        code: str,
        where: str | Path,
        *,
        found: str,
        expected: str,
        remedy: str,
        exit_code: Exit | None = None,
    ) -> None:
        self.code = code
        self.where = str(where)
        self.found = found
        self.expected = expected
        self.remedy = remedy
        self.exit_code = Exit(exit_code if exit_code is not None else _EXIT_OF_FAMILY[code[0]])
        super().__init__(str(self))

    def __str__(self) -> str:
        return (
            f"CG-{self.code} {printable(self.where)}: found {printable(self.found)}; "
            f"expected {printable(self.expected)}; try {printable(self.remedy)}"
        )

    def __reduce__(self) -> tuple:
        # Worker processes send errors back by pickling; keyword-only arguments need this.
        return _rebuild, (self.as_dict(),)

    def as_dict(self) -> dict[str, str | int]:
        """Return the same facts for ``--json``."""
        return {
            "code": f"CG-{self.code}",
            "where": self.where,
            "found": self.found,
            "expected": self.expected,
            "remedy": self.remedy,
            "exit_code": int(self.exit_code),
        }

    def at(self, where: str | Path) -> Self:
        """Return the same fault at another place (a caller that knows the path adds it)."""
        facts = self.as_dict() | {"where": str(where)}
        return _rebuild(facts)


def _rebuild(facts: dict) -> CardiogenError:
    return CardiogenError(
        str(facts["code"]).removeprefix("CG-"),
        facts["where"],
        found=facts["found"],
        expected=facts["expected"],
        remedy=facts["remedy"],
        exit_code=Exit(facts["exit_code"]),
    )


__all__ = ["CardiogenError", "Exit", "Note", "printable"]

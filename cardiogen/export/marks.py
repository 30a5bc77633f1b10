"""What every file says of a heart's origin, so that none can be taken for what it is not."""

from __future__ import annotations

from dataclasses import asdict, dataclass


@dataclass(frozen=True, kw_only=True)
class Marks:
    """Marks of a heart, or of any heart of a cohort.

    Attributes:
        synthetic: the heart is generated.
        extrapolated: its factors lie outside the training data of the model that made it.
        cross_sectional: it was moved to other factors by what differs between people. Files that
            are not say nothing of it.
    """

    synthetic: bool
    extrapolated: bool = False
    cross_sectional: bool = False

    @property
    def words(self) -> tuple[str, ...]:
        """Names of the marks that hold, for titles and headers."""
        return tuple(name.replace("_", "-") for name, holds in self.flags.items() if holds)

    @property
    def flags(self) -> dict[str, bool]:
        """Every mark by name, for formats that can say no as well as yes."""
        flags = asdict(self)
        if not self.cross_sectional:
            del flags["cross_sectional"]
        return flags

    @property
    def cells(self) -> dict[str, int]:
        """Every mark by name as 1 or 0, for tables and field data."""
        return {name: int(holds) for name, holds in self.flags.items()}

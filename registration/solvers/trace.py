"""Energies of a solver, step by step and pair by pair."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor


@dataclass
class Trace:
    """Energy of every pair before the first and after every step of one level.

    Attributes:
        total: one list of ``B`` numbers per step.
        parts: the same of every part, by name.
    """

    total: list[list[float]] = field(default_factory=list)
    parts: dict[str, list[list[float]]] = field(default_factory=dict)

    def add(self, total: Tensor, **parts: Tensor) -> None:
        """Keep the energies ``(B,)`` of one step."""
        self.total.append(total.detach().tolist())
        for name, values in parts.items():
            self.parts.setdefault(name, []).append(values.detach().tolist())

    def rows(self) -> list[dict[str, float | int]]:
        """Return one record per step and pair."""
        return [
            {"step": step, "pair": pair, "energy": value}
            | {name: values[step][pair] for name, values in self.parts.items()}
            for step, totals in enumerate(self.total)
            for pair, value in enumerate(totals)
        ]

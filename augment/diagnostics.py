"""What an adversary does over a run: strengths, rises, and which transform hurts which class."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from augment.adversary import Result


@dataclass
class _Mean:
    total: float = 0.0
    count: float = 0

    def add(self, value: float) -> None:
        self.total += value
        self.count += 1

    @property
    def value(self) -> float:
        return self.total / self.count if self.count else float("nan")


@dataclass
class Diagnostics:
    """Averages over results of ``Adversary.consistency_loss``; takes no random numbers.

    Attributes:
        steps: results taken in.
        risen: how many of those that were searched ended above their random start.
        searched: how many were searched. All three are multiples of these after ``of_sums``.
    """

    steps: float = 0
    risen: float = 0
    searched: float = 0
    _rise: _Mean = field(default_factory=_Mean)
    _strength: dict[str, _Mean] = field(default_factory=lambda: defaultdict(_Mean))
    _distance: dict[str, list[Tensor]] = field(default_factory=dict)

    def add(self, result: Result) -> dict[str, float]:
        """Take in a result and return its report; skipped ones change nothing."""
        report = result.report()
        if not report:
            return report
        self.steps += 1
        if "rise" in report:
            self.searched += 1
            self.risen += report["rise"] > 1
            self._rise.add(report["rise"])
        distances = result.class_distances().mean(dim=0).double().cpu()
        for name, used in result.last.draw.strengths().items():
            self._strength[name].add(float(used.mean()))
            total, count = self._distance.get(name, (torch.zeros_like(distances), 0.0))
            self._distance[name] = [total + distances, count + 1.0]

        return report

    @staticmethod
    def sum_names(transforms: Sequence[str], classes: int) -> tuple[str, ...]:
        """Return the names of ``sums`` for the transforms of a chain and a number of classes."""
        each = [f"{kind}/{name}" for name in transforms for kind in ("used", "strength")]
        distances = [f"distance/{name}/{k}" for name in transforms for k in range(classes)]

        return ("steps", "searched", "risen", "rise", *each, *distances)

    def sums(self, transforms: Sequence[str], classes: int) -> dict[str, float]:
        """Return everything as sums, the same names every time, which add up over steps.

        A training loop can so keep them in its own log, and loses none when it is interrupted.

        Args:
            transforms: names of all transforms of the chain, whether or not they were drawn.
            classes: channels of the prediction.
        """
        found = dict.fromkeys(self.sum_names(transforms, classes), 0.0)
        found |= {"steps": float(self.steps), "searched": float(self.searched)}
        found |= {"risen": float(self.risen), "rise": self._rise.total}
        for name, (total, count) in self._distance.items():
            found[f"used/{name}"] = count
            found[f"strength/{name}"] = self._strength[name].total
            found |= {f"distance/{name}/{k}": float(value) for k, value in enumerate(total)}

        return found

    @classmethod
    def of_sums(
        cls, sums: Mapping[str, float], transforms: Sequence[str], classes: int
    ) -> Diagnostics:
        """Return what sums, or any multiple of them, tell; see ``sums``."""
        made = cls(steps=sums["steps"], risen=sums["risen"], searched=sums["searched"])
        made._rise = _Mean(sums["rise"], sums["searched"])
        for name in transforms:
            if count := sums[f"used/{name}"]:
                made._strength[name] = _Mean(sums[f"strength/{name}"], count)
                total = [sums[f"distance/{name}/{k}"] for k in range(classes)]
                made._distance[name] = [torch.tensor(total, dtype=torch.float64), count]

        return made

    def worst_transform(self, number: int) -> str:
        """Return the transform whose chains cost a class (channel number) the most overlap.

        Chains hold several transforms, so this is an association over many steps, not a cause.
        """
        if not self._distance:
            raise ValueError("worst_transform needs at least one result; see add")
        means = {n: float(total[number]) / count for n, (total, count) in self._distance.items()}

        return max(means, key=means.__getitem__)

    def summary(self) -> dict[str, float | str]:
        """Return all averages for logging: rise, strengths, and the worst transform by class."""
        found: dict[str, float | str] = {"steps": float(self.steps)}
        if self.searched:
            found["risen"] = self.risen / self.searched
            found["rise"] = self._rise.value
        for name, mean in sorted(self._strength.items()):
            found[f"strength/{name}"] = mean.value
        if self._distance:
            classes = len(next(iter(self._distance.values()))[0])
            for number in range(classes):
                found[f"worst/{number}"] = self.worst_transform(number)

        return found

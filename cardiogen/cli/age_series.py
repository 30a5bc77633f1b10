"""The hearts of ``cardiogen age``: which are asked for, and what the subject becomes in each."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence as Listing
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from cardiogen.base import CardiogenError, Note
from cardiogen.cli.requests import request_factors, usage_error
from cardiogen.cli.subject import Subject, check_domain
from cardiogen.data.factors import Factors, Sex

if TYPE_CHECKING:
    from torch import Tensor

    from cardiogen.models.store import LoadedModel


@dataclass(frozen=True)
class Planned:
    """One heart of the series before anything is fitted.

    Attributes:
        name: of its folder.
        factors: that it is shown at.
        outside: why the training data do not cover them, if so.
    """

    name: str
    factors: Factors
    outside: str | None


@dataclass(frozen=True, eq=False, kw_only=True)
class Shown:
    """One heart of the series: the subject itself, or what it is moved to."""

    name: str
    factors: Factors
    latent: Tensor
    outside: str | None
    moved: bool


def asked_changes(
    to: Listing[float],
    to_sex: Sex | None,
    to_weight: float | None,
    loaded: LoadedModel,
    allow: bool,
) -> list[Factors]:
    """Return the factors that every target sets, those that it leaves alone unknown.

    Raises:
        CardiogenError: U01, D01 or D02 at the option that asked for them.
    """
    changes = []
    for age in to or (None,):
        with _at_option(age):
            change = request_factors(age=age, weight=to_weight, sex=to_sex)
            check_domain(loaded, change, allow=allow)
        changes.append(change)
    return changes


def plan_series(
    given: Factors, changes: Listing[Factors], loaded: LoadedModel, allow: bool
) -> list[Planned]:
    """Return the subject and every target, in order.

    Raises:
        CardiogenError: U01 for a factor of the subject that must be known; D01 or D02 (exit 5)
            outside the training data, at the option that asked for it.
    """
    if given.age is None:
        raise usage_error(
            "--age", "a subject of unknown age", "the age at which the heart was seen: its effect "
            "is taken out before that of another age is put in", "--age with it",
        )  # fmt: skip
    if changes[0].weight is not None and given.weight is None:
        raise usage_error(
            "--to-weight", "a subject of unknown weight", "the weight it had", "--weight with it"
        )
    own = check_domain(loaded, given, allow=allow)
    plan = [Planned(f"own_age_{given.age:g}", given, own)]
    for change in changes:
        age = given.age if change.age is None else change.age
        with _at_option(age):
            factors = replace(
                given, age=age, sex=change.sex or given.sex, weight=change.weight or given.weight
            )
            outside = check_domain(loaded, factors, allow=allow)
        name = f"age_{age:g}"
        name += "" if change.sex is None else f"_{change.sex}"
        name += "" if change.weight is None else f"_{change.weight:g}kg"
        plan.append(Planned(name, factors, outside))
    return plan


@contextmanager
def _at_option(age: float | None) -> Iterator[None]:
    """Let faults of a target name the options that set it."""
    try:
        yield
    except CardiogenError as error:
        flags = {"--weight": "--to-weight", "--sex": "--to-sex"}
        if age is not None:
            flags |= dict.fromkeys(("--age", "age"), f"--to {age:g}")
        raise error.at(flags.get(error.where, error.where)) from error


def moved_hearts(
    subject: Subject, plan: Listing[Planned], loaded: LoadedModel
) -> tuple[list[Shown], tuple[Note, ...]]:
    """Return the heart at its own age and at all others, and what was decided on the way.

    Raises:
        CardiogenError: D03 (exit 5) for a target at which it is no heart.
    """
    from cardiogen.models.counterfactual import counterfactual, likely_sex
    from cardiogen.models.protocol import encode_condition

    latents, notes = loaded.model.latents, list(subject.notes)
    own = likely_sex(latents, subject.latent, encode_condition(subject.factors))
    if subject.factors.sex is None:
        found = "M" if own[1] else "F"
        text = f"unknown; taken as {found}, under which this heart is likelier"
        notes.append(Note("D05", "--sex", text))
    shown = []
    for number, planned in enumerate(plan):
        wanted = encode_condition(planned.factors)
        moved = counterfactual(latents, subject.latent, given=own, wanted=wanted)
        if not subject.model.is_possible(moved):
            raise CardiogenError(
                "D03", planned.name,
                found="a heart that ejects more than it holds, or whose shape folds",
                expected="a heart", remedy="a target nearer to the subject's own factors",
            )  # fmt: skip
        shown.append(
            Shown(name=planned.name, factors=planned.factors, latent=moved, moved=number > 0,
                  outside=planned.outside or plan[0].outside)
        )  # fmt: skip
    return shown, tuple(notes)

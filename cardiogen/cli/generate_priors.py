"""What hearts of given factors are drawn from: the model's prior, guided or given targets."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence as Listing
from typing import TYPE_CHECKING

from cardiogen.base import CardiogenError
from cardiogen.cli.generate_rows import Row
from cardiogen.cli.requests import domain_reason
from cardiogen.data.factors import Factors

if TYPE_CHECKING:
    from cardiogen.cli.generate_heart import Shared
    from cardiogen.cli.write import OutputOptions
    from cardiogen.models.protocol import LatentDistribution
    from cardiogen.models.store import LoadedModel
    from cardiogen.models.target_values import Targets
    from cardiogen.models.targets import TargetedPrior


def with_priors(
    rows: list[Row],
    targets: Listing[str],
    guidance: float,
    loaded: LoadedModel,
    options: OutputOptions,
    frames: int,
    allow: bool,
) -> tuple[list[Row], Shared]:
    """Return the rows with what targets say of them, and what all hearts have in common.

    Raises:
        CardiogenError: see :func:`guided_rows` and :func:`targeted_rows`.
    """
    from cardiogen.cli.generate_heart import Shared

    rows, priors = guided_rows(rows, loaded, guidance=guidance, allow=allow)
    if not targets:
        return rows, Shared(options=options, guidance=guidance, priors=priors)
    rows, targeted, wanted = targeted_rows(
        rows, targets, loaded, guided=priors, frames=frames, allow=allow
    )
    return rows, Shared(options=options, guidance=guidance, priors=targeted, targets=wanted)


def guided_rows(
    rows: Listing[Row], loaded: LoadedModel, *, guidance: float, allow: bool
) -> tuple[list[Row], dict[Factors, LatentDistribution]]:
    """Return rows with the reason why guidance takes them outside the training data, if it does.

    Returns:
        The rows, and the guided prior of the factors of every row; none for a strength of 1.

    Raises:
        CardiogenError: D09 (exit 5) for such a row, unless ``allow``; U44 for models that cannot
            be guided.
    """
    from cardiogen.models.protocol import encode_condition
    from cardiogen.models.targets import check_guidance, guided_prior

    priors, reasons = {}, {}
    if guidance == 1.0:
        return list(rows), priors
    for row in rows:
        if row.factors in reasons:
            continue
        reasons[row.factors] = None
        condition = encode_condition(row.factors)
        try:
            prior = guided_prior(loaded.model, condition, guidance)
            priors[row.factors] = prior
            check_guidance(prior, loaded.model, condition, guidance)
        except CardiogenError as error:
            if error.code != "D09" or not allow:
                where = error.where if len(rows) == 1 else f"{row.row_id}/{error.where}"
                raise error.at(where) from error
            reasons[row.factors] = domain_reason(error)
    return _because(rows, reasons), priors


def targeted_rows(
    rows: Listing[Row],
    texts: Listing[str],
    loaded: LoadedModel,
    *,
    guided: Mapping[Factors, LatentDistribution],
    frames: int,
    allow: bool,
) -> tuple[list[Row], dict[Factors, TargetedPrior], dict[Factors, Targets]]:
    """Return rows with reasons, and for the factors of every row its prior given the targets.

    Args:
        rows: what is asked for.
        texts: the targets.
        loaded: the model.
        guided: priors of :func:`guided_rows`; without one it is the model's own.
        frames: of the cycle.
        allow: accept targets that hardly any heart shows.

    Raises:
        CardiogenError: U40-U44 for targets that make no sense, D07 (exit 5) for ones that hardly
            any heart of the model shows, unless ``allow``, D08 for ones that none shows.
    """
    from cardiogen.models.protocol import encode_condition
    from cardiogen.models.target_values import parse_targets
    from cardiogen.models.targets import condition_on_targets

    # All of them before the first one is worked on, which takes seconds.
    targets = {row.factors: parse_targets(texts, row.factors) for row in rows}
    priors, reasons = {}, {}
    for factors, wanted in targets.items():
        prior = guided.get(factors)
        if prior is None:
            prior = loaded.model.prior(encode_condition(factors))
        priors[factors] = condition_on_targets(loaded.model, prior, wanted, frames=frames)
        try:
            priors[factors].check_domain()
        except CardiogenError as error:
            if not allow:
                raise error
            reasons[factors] = domain_reason(error)
    return _because(rows, reasons), priors, targets


def _because(rows: Listing[Row], reasons: Mapping[Factors, str | None]) -> list[Row]:
    """Return rows with one reason more of each extrapolation, where there is one."""
    found = []
    for row in rows:
        known = [reason for reason in (row.reason, reasons.get(row.factors)) if reason]
        found.append(Row(row.row_id, row.factors, row.latent, "; ".join(known) or None))
    return found

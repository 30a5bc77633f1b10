"""``cardiogen train``: a model of anatomy from a cohort, written as a bundle."""

from __future__ import annotations

from pathlib import Path

from cardiogen.base.files import check_replaceable
from cardiogen.cli.requests import check_apart
from cardiogen.engine.config import TrainConfig, build_config, load_config
from cardiogen.models.linear_fit import fit_linear, population_examples
from cardiogen.models.store import save_linear

_LICENCE = "Apache-2.0 (trained on the synthetic reference population only)"

_CARD = """# Model card: {name}

| | |
| --- | --- |
| kind | linear: PCA of end-diastolic shape and Fourier motion, conditional Gaussian on factors |
| trained on | {n} hearts of cardiogen's reference population, seed {seed}; no patient data |
| conditions | age {age} years, sex F or M, height {height} cm, weight {weight} kg, \
systolic pressure {sbp} mmHg; any may be missing |
| gives | left and right ventricle over the cardiac cycle: meshes and label maps at any phase |
| size | {ed} end-diastolic and {motion} motion scores |
| licence | {licence} |

The reference population is a statistical model of healthy adults written from published figures:
means and spreads from the Healthy Hearts Consortium (2024, White, smooth contours), slopes on body
mass index and pressure from UK Biobank (Petersen 2017). These sources cannot all be met exactly:
the marginals of the consortium come first, the slopes second, the published variance explained
third. Shapes, motion and their variation beyond those figures are plausible, not measured.

Not for diagnosis. Differences between ages are cross-sectional: they compare different people and
do not say how one heart ages; for the left ventricular mass of men even the sign differs from
longitudinal studies (MESA, Eng 2016: +8.0 g per decade). The model knows healthy hearts only.
"""


def train(
    out: str | Path,
    *,
    model: str = "linear",
    cohort: str = "population",
    n: int = 4000,
    seed: int = 0,
    config: str | Path | None = None,
    overwrite: bool = False,
) -> Path:
    """Train a model and write its bundle.

    Args:
        out: bundle folder to make.
        model: kind of model; ``linear``.
        cohort: ``population``, the embedded reference population.
        n: number of training hearts.
        seed: same seed, same model.
        config: TOML file with the settings of ``TrainConfig`` instead of the four arguments.
        overwrite: whether ``out`` may be replaced.

    Raises:
        CardiogenError: M07 for settings that are unknown or out of range, O01 if ``out`` exists.
    """
    out = Path(out)
    # Before the training, not after it.
    check_replaceable(out, overwrite)
    if config is not None:
        check_apart(out, [config])
        settings = load_config(TrainConfig, config)
    else:
        flags = {"model": model, "cohort": cohort, "n": n, "seed": seed}
        settings = build_config(TrainConfig, flags, "command line")
    weights = fit_linear(
        population_examples(settings.n, settings.seed),
        ed_variance=settings.ed_variance,
        motion_variance=settings.motion_variance,
    )
    name = f"linear-population-{settings.n}"
    spans = [f"{low:.0f}-{high:.0f}" for low, high in weights.factor_range]
    card = _CARD.format(
        name=name, n=settings.n, seed=settings.seed, licence=_LICENCE, age=spans[0],
        height=spans[1], weight=spans[2], sbp=spans[3], ed=len(weights.ed_modes),
        motion=len(weights.motion_modes),
    )  # fmt: skip
    return save_linear(
        out, weights, name=name, licence=_LICENCE, card=card, overwrite=overwrite,
        training_data={"cohort": settings.cohort, "n": settings.n, "seed": settings.seed},
    )  # fmt: skip

"""``cardiogen train``: a model of anatomy from a cohort, written as a bundle."""

from __future__ import annotations

from pathlib import Path

import typer

from cardiogen.base import Note
from cardiogen.base.files import check_replaceable
from cardiogen.cli.train_card import training_card
from cardiogen.cli.train_networks import NetworkRun, NetworkTraining, run_folder, train_network
from cardiogen.cli.train_settings import check_enough, check_used, read_settings
from cardiogen.cli.train_template import (
    check_template,
    tell_broken_draws,
    template_facts,
    template_licence,
    training_template,
)
from cardiogen.data.sequence import Orientation
from cardiogen.engine.config import (
    DeformationTraining,
    LinearTraining,
    PcaTraining,
    Training,
)
from cardiogen.engine.fit.folder import remove_checkpoints
from cardiogen.engine.fit.processes import this_rank
from cardiogen.models.linear import LinearModel
from cardiogen.models.linear_fit import fit_linear, population_examples
from cardiogen.models.store import StoredModel, require_sound, save_model

_LICENCE = "Apache-2.0 (trained on the synthetic reference population only)"


def train(
    out: str | Path,
    *,
    model: str | None = None,
    cohort: str | None = None,
    base: str | None = None,
    orientation: Orientation | None = None,
    template: str | None = None,
    label_map: str | None = None,
    template_rounds: int | None = None,
    n: int | None = None,
    seed: int | None = None,
    config: str | Path | None = None,
    jobs: int | None = None,
    device: str | None = None,
    devices: int | None = None,
    nodes: int | None = None,
    resume: bool = False,
    overwrite: bool = False,
) -> Path:
    """Train a model and write its bundle.

    Args:
        out: bundle folder to make.
        model: kind of model: ``linear``, the default, ``pca``, ``deformation``, ``mesh``,
            ``volume`` or ``sequence``.
        cohort: ``population``, the embedded reference population and the default; for a
            deformation model also a folder of label maps, see ``cli.train_cohort``.
        base: bundle of the deformation model that is adapted to such a folder, by default the
            shipped one; found as every ``model`` is: a local folder of that name comes first.
        orientation: ``trusted`` if the headers of such a folder are known not to mirror hearts,
            ``mirrored`` if they do, ``assumed`` to let the hearts decide together; by default
            what the headers say.
        template: what a deformation model deforms: ``population``, the default, a label map of end
            diastole (``.nii.gz``), or a deformation bundle, whose template is taken.
        label_map: codes of such a label map; ``orientation`` tells of its header too.
        template_rounds: times that the template is moved to the mean of the training hearts, by
            default none.
        n: number of training hearts, by default 2000; of a folder at most so many.
        seed: same seed, same model; by default 0.
        config: TOML file with the settings of ``engine.config``, or the name of a preset such as
            ``deformation``, which made the shipped model; instead of the arguments above, of which
            only ``model`` may say the same beside it.
        jobs: processes that make training data, by default one; on one thread each they do not
            change a bit.
        device: ``auto``, the default, ``cpu`` or ``cuda``, for networks.
        devices: of every node that a network is trained on, by default one.
        nodes: number of machines, by default one; all see the same files.
        resume: go on with the training of a network that was interrupted; its checkpoints and
            ``log.csv`` lie in ``OUT.run``, the checkpoints until the bundle is whole.
        overwrite: whether ``out`` may be replaced.

    Raises:
        CardiogenError: M07 for settings of a config that are unknown or out of range, U01 for
            such arguments, for settings beside ``config``, a config of another model, or settings
            that the training would not use, C28 for fewer hearts than a model is learned from,
            O01 if ``out`` exists, or ``OUT.run`` has checkpoints without ``resume``, R75 when
            the training of a network is interrupted; else the codes of ``engine.fit.fit``.
    """
    out = Path(out)
    # Before the training, not after it.
    check_replaceable(out, overwrite)
    flags = {
        "model": model, "cohort": cohort, "base": base, "orientation": orientation, "n": n,
        "template": template, "label_map": label_map, "template_rounds": template_rounds,
        "seed": seed,
    }  # fmt: skip
    settings = read_settings(out, {k: v for k, v in flags.items() if v is not None}, config)
    networks = {"device": device, "devices": devices, "nodes": nodes, "resume": resume or None}
    check_enough(settings)
    check_used(settings, {k for k, v in {"jobs": jobs, **networks}.items() if v is not None})
    jobs = 1 if jobs is None else jobs
    if isinstance(settings, NetworkTraining):
        run = NetworkRun(
            folder=run_folder(out), resume=resume, device=device or "auto", devices=devices or 1,
            num_nodes=nodes or 1,
        )  # fmt: skip
        trained = train_network(settings, run, jobs=jobs)
        if this_rank() == 0:
            _tell_if_unfinished(out, trained)
            _save(out, trained, settings, overwrite=overwrite)
            remove_checkpoints(run.folder)
        return out
    if isinstance(settings, DeformationTraining):
        if settings.cohort != "population":
            from cardiogen.cli.train_cohort import train_on_cohort

            return train_on_cohort(settings, out, overwrite=overwrite)
        check_template(settings)
        trained = _deformation(settings, jobs)
    elif isinstance(settings, PcaTraining):
        trained = _pca(settings, jobs)
    else:
        trained = _linear(settings)
    return _save(out, trained, settings, overwrite=overwrite)


def _tell_if_unfinished(out: Path, trained: StoredModel) -> None:
    """Tell (M54) of a network that makes no heart yet: no command would load its bundle."""
    try:
        require_sound(trained)
    except ValueError as error:
        text = f"the network makes no heart yet ({error}): it needs more steps or hearts"
        typer.echo(f"cardiogen: note {Note('M54', out.name, text)}", err=True)


def _save(out: Path, trained: StoredModel, settings: Training, *, overwrite: bool) -> Path:
    name = f"{trained.kind}-population-{settings.n}"
    facts = {"cohort": settings.cohort, "n": settings.n, "seed": settings.seed}
    licence, but = _LICENCE, ""
    if isinstance(settings, DeformationTraining) and (template := template_facts(settings)):
        facts |= template
        name += "-own-template"
        licence = template_licence(settings, _LICENCE)
        but = "" if licence == _LICENCE else f" but its template, {template['template']}"
    card = training_card(trained, name, settings, licence=licence, but=but)
    return save_model(
        out, trained, name=name, licence=licence, card=card, overwrite=overwrite,
        training_data=facts,
    )  # fmt: skip


def _linear(settings: LinearTraining) -> StoredModel:
    return LinearModel(
        fit_linear(
            population_examples(settings.n, settings.seed),
            ed_variance=settings.ed_variance,
            motion_variance=settings.motion_variance,
        )
    )


def _pca(settings: PcaTraining, jobs: int) -> StoredModel:
    from cardiogen.models.pca import pca_from_population

    return pca_from_population(
        settings.n, settings.seed, ed_modes=settings.ed_modes,
        motion_modes=settings.motion_modes, fits=settings.fits, jobs=jobs,
    )  # fmt: skip


def _deformation(settings: DeformationTraining, jobs: int) -> StoredModel:
    from cardiogen.models.deformation.training import deformation_from_population

    model = deformation_from_population(
        settings.n, settings.seed, ed_modes=settings.ed_modes, fields=settings.fields,
        motion_modes=settings.motion_modes, fits=settings.fits, flow=settings.flow,
        template=training_template(settings), jobs=jobs,
    )  # fmt: skip
    if settings.flow is not None and model.flow is None:
        text = "flow: left out; held-out hearts are told no better with it than by a Gaussian"
        typer.echo(f"cardiogen: note M50 {text}", err=True)
    if template_facts(settings):
        tell_broken_draws(model, settings)

    return model

"""Real patients of a cohort folder: end systole from the ED label map, and reconstruction.

Nothing is known of a patient but label maps; the model's prior is that of any health. A patient
that a model refuses, and a structure that a prediction lacks, are failures and no numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cardiogen.base import CardiogenError, progress
from cardiogen.data.cohort import load_sequence, read_cohort
from cardiogen.data.factors import Factors
from cardiogen.data.sequence import Sequence as Heart
from cardiogen.engine.fit_template import fit_template
from cardiogen.evaluate.completion import ejection_lines
from cardiogen.evaluate.contests import Contest, mean_of
from cardiogen.evaluate.lines import Line, Result, mean_line
from cardiogen.evaluate.reconstruction import (
    PATIENTS,
    STRUCTURES,
    overlap,
    overlap_lines,
)
from cardiogen.evaluate.settings import Size
from cardiogen.measure.overlap import dice, surface_distances
from cardiogen.measure.volumes import label_volumes
from cardiogen.models.linear import LinearModel
from cardiogen.models.protocol import AnyModel, encode_condition
from cardiogen.models.store import load_model
from cardiogen.population.anatomy import heart_vertices
from cardiogen.population.render import render_labels
from cardiogen.synthesis import decode_sequence

Labels = NDArray[np.uint8]
_DICE, _ASSD, _EF, _TRUE_EF = slice(0, 3), slice(3, 6), slice(6, 8), slice(8, 10)


@dataclass(frozen=True, eq=False)
class Patients:
    """Sequences with ED and ES maps, and how many subjects of the folder lack them."""

    hearts: tuple[Heart, ...]
    left_out: int


def read_patients(folder: str, most: int) -> Patients:
    """Read ``most`` subjects of a cohort folder, evenly spaced: groups often stand together.

    Raises:
        CardiogenError: as ``read_cohort``; C28 if fewer than two subjects have both maps.
    """
    subjects = read_cohort(folder)
    if len(subjects) > most:
        places = np.linspace(0, len(subjects) - 1, most).round().astype(int)
        subjects = [subjects[place] for place in places]
    hearts = [load_sequence(s) for s in progress(subjects, "reading patients")]
    whole = [h for h in hearts if h.labels is not None and h.es is not None and h.es != h.ed]
    if len(whole) < 2:
        raise CardiogenError(
            "C28", folder, found=f"{len(whole)} subjects with label maps at ED and ES",
            expected="2 or more", remedy="a cohort with both frames, or --cohort population",
        )  # fmt: skip
    return Patients(tuple(whole), len(hearts) - len(whole))


def patient_completion(
    patients: Patients, models: Mapping[str, AnyModel], size: Size, *, seed: int
) -> Result:
    """Return Dice, ASSD and EF errors at ES of every model, copy ED and mean motion."""
    linear = load_model("linear").model
    tables: dict[str, list[NDArray]] = {"copy ED": [], "mean motion": []}
    tables |= {name: [] for name in models}
    for heart in progress(patients.hearts, "completing patients"):
        ed = heart.labels[heart.ed]
        tables["copy ED"].append(_compare((ed, ed), heart))
        tables["mean motion"].append(_compare(_mean_motion(heart, linear), heart))
        for name, model in models.items():
            tables[name].append(_compare(_predicted(heart, model), heart))
    found = {name: np.stack(rows) for name, rows in tables.items()}
    lines = [line for n, table in found.items() for line in _lines(n, table, size, seed)]
    ejection = {"held-out": found["copy ED"][:, _TRUE_EF]}
    ejection |= {name: table[:, _EF] for name, table in found.items()}

    contests = _contests({name: found[name] for name in models})

    return Result(tuple(lines), arrays={"ejection": ejection}, contests=tuple(contests))


def _contests(found: Mapping[str, NDArray[np.float64]]) -> Iterator[Contest]:
    dice = {n: 1.0 - t[:, _DICE].mean(axis=1) for n, t in found.items()}
    yield Contest("completion", "1 - mean Dice at ES", "1", dice, mean_of)
    apart = {n: t[:, _ASSD].mean(axis=1) for n, t in found.items()}
    yield Contest("completion", "mean ASSD at ES", "mm", apart, mean_of)
    for k, name in enumerate(("LVEF", "RVEF")):
        errors = {n: np.abs(t[:, _EF][:, k] - t[:, _TRUE_EF][:, k]) for n, t in found.items()}
        yield Contest("completion", f"{name} MAE", "EF points", errors, mean_of)


def patient_reconstruction(
    patients: Patients, models: Mapping[str, AnyModel], size: Size, *, seed: int
) -> Result:
    """Return Dice at ED and ES of patients whose two maps are given."""
    lines: list[Line] = []
    both = [_both_ends(heart) for heart in patients.hearts]
    for name, model in models.items():
        scores = np.stack([overlap(model, h, healthy=False) for h in progress(both, "fitting")])
        lines += overlap_lines(scores, name, {"ED": PATIENTS, "ES": PATIENTS}, size, seed)

    return Result(tuple(lines))


def _both_ends(heart: Heart) -> Heart:
    """Return ED and ES alone; two maps have no times, so ES is put where hearts have it."""
    frames = [heart.ed, heart.es]
    dense = len(heart) > len(frames)
    phase = float(heart.phases[heart.es] - heart.phases[heart.ed]) % 1.0 if dense else 0.35
    return heart.with_(
        phases=np.array([0.0, phase]), labels=heart.labels[frames], images=None, ed=0, es=1,
        factors=Factors(),
    )  # fmt: skip


def end_diastole(heart: Heart) -> Heart:
    """Return a patient of whom the label map at end diastole is seen alone."""
    return heart.with_(
        phases=np.zeros(1), labels=heart.labels[heart.ed : heart.ed + 1], images=None, ed=0,
        es=None,
    )  # fmt: skip


def _predicted(heart: Heart, model: AnyModel) -> tuple[Labels, Labels] | None:
    """Return maps at ED and ES given the ED map; None where the model refuses."""
    try:
        posterior = model.posterior(
            end_diastole(heart), encode_condition(heart.factors or Factors())
        )
        model, latent = posterior.own or model, posterior.latents.mean
        if not model.is_possible(latent):
            return None
        ends = decode_sequence(
            model, latent, [0.0, model.end_systole(latent)], pose=posterior.pose, grid=heart.grid
        )
    except CardiogenError:
        return None
    ed, es = ends.labels
    return ed, es


def _mean_motion(heart: Heart, linear: LinearModel) -> tuple[Labels, Labels] | None:
    """Return maps of the template fitted to ED and moved as the average heart moves."""
    try:
        fit = fit_template(heart.labels[heart.ed], heart.grid, orientation=heart.orientation)
    except CardiogenError:
        return None
    average = linear.prior(encode_condition(Factors())).mean
    moving = linear.coordinates(average, [0.0, linear.end_systole(average)])
    vertices = fit.pose.to_world(heart_vertices(fit.z + moving - moving[0]))
    topology = linear.topology.mirrored() if fit.pose.mirrored else linear.topology
    ed, es = (render_labels(v, topology, heart.grid) for v in vertices)
    return ed, es


def _compare(guess: tuple[Labels, Labels] | None, heart: Heart) -> NDArray[np.float64]:
    """Return Dice and ASSD (mm) at ES, predicted and true LVEF and RVEF (%), ``(10,)``."""
    row = np.full(10, np.nan)
    ed_map, es_map = heart.labels[heart.ed], heart.labels[heart.es]
    maps = [ed_map, es_map] if guess is None else [ed_map, es_map, *guess]
    volumes = label_volumes(np.stack(maps), heart.grid)
    chambers = [volumes[STRUCTURES[0]], volumes[STRUCTURES[2]]]
    row[_TRUE_EF] = [_ejection(v[0], v[1]) for v in chambers]
    if guess is None:
        return row
    row[_EF] = [_ejection(v[2], v[3]) for v in chambers]
    pairs = [(guess[1] == s, es_map == s) for s in STRUCTURES]
    row[_DICE] = [dice(a, b) for a, b in pairs]
    row[_ASSD] = [surface_distances(a, b, spacing=heart.grid.spacing).assd_mm for a, b in pairs]
    return row


def _ejection(ed_ml: float, es_ml: float) -> float:
    return float(100 * (1 - es_ml / ed_ml)) if ed_ml > 0 else float("nan")


def _lines(method: str, table: NDArray[np.float64], size: Size, seed: int) -> Iterator[Line]:
    options = {"resamples": size.resamples, "seed": seed}
    for k, structure in enumerate(STRUCTURES):
        yield mean_line("Dice at ES", method, table[:, _DICE][:, k], of=structure.name, **options)
    for k, structure in enumerate(STRUCTURES):
        yield mean_line(
            "ASSD at ES", method, table[:, _ASSD][:, k], of=structure.name, unit="mm", **options
        )
    for k, name in enumerate(("LVEF", "RVEF")):
        yield from ejection_lines(
            name, method, table[:, _EF][:, k], table[:, _TRUE_EF][:, k], size, seed
        )
    failed = ~np.isfinite(table[:, :8]).all(axis=1)
    yield mean_line("failure rate", method, failed.astype(float), **options)

"""One generated heart: from its request to its files and its rows of the tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cardiogen.cli.generate_latents import latent_of
from cardiogen.cli.generate_plan import Request
from cardiogen.cli.write import OutputOptions, write_one
from cardiogen.data.factors import Factors

if TYPE_CHECKING:
    import torch

    from cardiogen.data.sequence import Sequence
    from cardiogen.models.protocol import LatentDistribution
    from cardiogen.models.store import LoadedModel
    from cardiogen.models.target_values import Targets


@dataclass(frozen=True, kw_only=True)
class Shared:
    """What all hearts of a run have in common.

    Attributes:
        options: how they are written.
        guidance: strength of the factors.
        priors: what hearts of given factors are drawn from, where it is not the model's own prior.
        targets: phenotypes that hearts of given factors hit.
        folders: whether each heart gets a folder of files.
        store: whether its meshes go to the cohort's store.
    """

    options: OutputOptions
    guidance: float = 1.0
    priors: Mapping[Factors, LatentDistribution] = field(default_factory=dict)
    targets: Mapping[Factors, Targets] = field(default_factory=dict)
    folders: bool = True
    store: bool = False

    def of_model(self, loaded: LoadedModel | None) -> Shared:
        """Return the same with a model in its targeted priors, or without, to be sent away."""
        model = None if loaded is None else loaded.model
        moved = {
            factors: replace(prior, model=model) if factors in self.targets else prior
            for factors, prior in self.priors.items()
        }
        return replace(self, priors=moved)


@dataclass(frozen=True, kw_only=True)
class Made:
    """What tables, store and overview of a cohort need of one heart."""

    request: Request
    measures: dict[str, float]
    files: dict[str, str | int | None]
    latent: tuple[float, ...]
    meshes: NDArray[np.int16] | None
    thumbnail: Sequence | None


def make_heart(request: Request, loaded: LoadedModel, *, shared: Shared | None = None) -> Sequence:
    """Return the heart of a request, with label maps and the meshes that its model has."""
    prior = None if shared is None else shared.priors.get(request.factors)
    return decoded(request, loaded, latent_of(request, loaded.model, prior))


def decoded(request: Request, loaded: LoadedModel, latent: torch.Tensor) -> Sequence:
    """Return the heart of a latent as a request wants it."""
    from cardiogen.population.pose import typical_pose
    from cardiogen.synthesis import cycle_phases, decode_sequence

    phases = cycle_phases(loaded.model, request.frames)
    if request.phase_only is not None:
        phases = [0.0 if request.phase_only == "ed" else loaded.model.end_systole(latent)]
    sequence = decode_sequence(
        loaded.model,
        latent,
        phases,
        pose=typical_pose(),
        spacing_mm=None if request.meshes_only else request.spacing_mm,
        factors=request.factors,
        subject_id=request.subject_id,
    )
    return sequence.with_(es=0) if request.phase_only == "es" else sequence


def write_files(
    folder: Path, request: Request, sequence: Sequence, loaded: LoadedModel, shared: Shared
) -> dict[str, float]:
    """Write the files of a heart into an existing folder; returns its measures."""
    targets = shared.targets.get(request.factors)
    parameters = {
        "command": "generate",
        "seed": request.seed,
        "row_id": request.row_id,
        "draw_seed": request.draw_seed,
        "index": request.index,
        "frames": request.frames,
        "phase_only": request.phase_only,
        "spacing_mm": None if request.meshes_only else request.spacing_mm,
        "targets": None if targets is None else list(targets.asked),
        "guidance": shared.guidance,
        "latents_given": request.latent is not None,
        "extrapolated": request.extrapolation_reason is not None,
        "extrapolation_reason": request.extrapolation_reason,
        "model": loaded.facts,
    }
    return write_one(folder, sequence, parameters=parameters, options=shared.options)


def make(
    request: Request, loaded: LoadedModel, shared: Shared, folder: Path | None, *, shown: bool
) -> Made:
    """Make one heart of a cohort.

    Args:
        request: the heart.
        loaded: its model.
        shared: what it has in common with the others.
        folder: existing folder for its files; None writes none.
        shown: whether the overview will show it.
    """
    latent = latent_of(request, loaded.model, shared.priors.get(request.factors))
    sequence = decoded(request, loaded, latent)
    if folder is None:
        measures = _measured(sequence, shared.options.heart_rate)
    else:
        measures = write_files(folder, request, sequence, loaded, shared)
    return Made(
        request=request,
        measures=measures,
        files=file_facts(sequence, request)
        | {"label_map": None if sequence.labels is None else shared.options.label_map},
        latent=tuple(latent.tolist()),
        meshes=_packed(sequence, shared) if shared.store else None,
        thumbnail=thumbnail(sequence) if shown and sequence.labels is not None else None,
    )


def _measured(sequence: Sequence, heart_rate: float | None) -> dict[str, float]:
    """Return the phenotypes that ``measure_sequence`` does, of the two frames they need."""
    from cardiogen.measure.volumes import phenotypes, sequence_volumes

    ed, es = sequence.ed, sequence.es
    keep = [ed] if es is None or es == ed else [ed, es]
    ends = sequence.with_(
        phases=sequence.phases[keep],
        labels=None if sequence.labels is None else sequence.labels[keep],
        vertices=None if sequence.vertices is None else sequence.vertices[keep],
        ed=0, es=None,
    )  # fmt: skip
    row = phenotypes(
        sequence_volumes(ends), ed=0, es=None if es is None else len(keep) - 1,
        cycle_s=None if heart_rate is None else 60.0 / heart_rate,
    )  # fmt: skip
    if es == ed:
        row = {name: value if "ESV" in name else np.nan for name, value in row.items()}
    return row


def _packed(sequence: Sequence, shared: Shared) -> NDArray[np.int16]:
    from cardiogen.export.mesh_store import packed

    return packed(sequence.vertices, shared.options.space)


def thumbnail(sequence: Sequence) -> Sequence:
    """Return the label maps of ED and ES without anything else."""
    keep = [sequence.ed] if sequence.es is None else [sequence.ed, sequence.es]
    return sequence.with_(
        phases=sequence.phases[keep], labels=sequence.labels[keep], vertices=None, ed=0,
        es=None if len(keep) == 1 else 1,
    )  # fmt: skip


def file_facts(sequence: Sequence, request: Request) -> dict[str, str | int | None]:
    """Return how many frames the files of a heart have, and which are ED and ES."""
    if request.phase_only is not None:
        only = f"{request.phase_only}_frame"
        return {"n_frames": 1, "ed_frame": None, "es_frame": None} | {only: 0}
    return {"n_frames": len(sequence), "ed_frame": sequence.ed, "es_frame": sequence.es}

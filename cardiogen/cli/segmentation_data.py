"""Hearts that a segmentation network learns from: patients of a cohort, and synthetic ones."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from augment.segmentation import (
    Frame,
    SegmentationConfig,
    Split,
    paint_sequence,
    population_sequence,
    prepare_sequence,
    split_subjects,
)
from augment.segmentation.prepare import wanted_frames
from cardiogen.base import progress
from cardiogen.data import Factors, Sequence, Subject, load_sequence, read_cohort

if TYPE_CHECKING:
    from augment.shape_space import ShapeSpace

POPULATION = "population"
# Fine against slices of 6 mm and more, and a quarter of the voxels of 1.25 mm.
_DECODED_MM = 2.0
_DRAWS = 2000
_LEAST_SHARE = 1e-9  # of the largest variance: less is rounding


@dataclass(frozen=True, eq=False, kw_only=True)
class Hearts:
    """Prepared frames by what they are for."""

    real: list[Frame]
    synthetic: list[Frame]
    validation: list[Frame]


def split_cohort(settings: SegmentationConfig) -> Split:
    """Return the subjects of the cohort by part; none of them without a cohort.

    Raises:
        CardiogenError: C28 and C29 for subjects that are not there; else as ``read_cohort``.
    """
    data = settings.data
    if not data.cohort:
        return Split((), (), ())
    return split_subjects(read_cohort(data.cohort, data.layout, data.label_map), data)


def load_hearts(settings: SegmentationConfig, split: Split) -> Hearts:
    """Read and prepare the hearts of the training and the validation."""
    return Hearts(
        real=_prepared(_patients(split.train, "reading training hearts"), settings),
        synthetic=_prepared(_synthetic(settings), settings),
        validation=_prepared(_patients(split.validation, "reading validation hearts"), settings),
    )


def _prepared(sequences: Iterator[Sequence], settings: SegmentationConfig) -> list[Frame]:
    # One heart at a time: whole images of a large cohort need not fit into memory at once.
    frames = settings.data.frames
    return [f for s in sequences for f in prepare_sequence(s, settings.image, frames=frames)]


def _patients(subjects: tuple[Subject, ...], text: str) -> Iterator[Sequence]:
    for subject in progress(subjects, text):
        yield load_sequence(subject, images=True)


def _synthetic(settings: SegmentationConfig) -> Iterator[Sequence]:
    """Yield the synthetic hearts that the settings name, with images."""
    source, count = settings.data.synthetic, settings.data.synthetic_hearts
    if not source:
        return
    if source == POPULATION:
        hearts = (_population(settings, index) for index in range(count))
    elif (Path(source) / "model.json").is_file():
        hearts = _decoded(settings)
    else:
        subjects = read_cohort(source, label_map=settings.data.synthetic_label_map)[:count]
        count = len(subjects)
        hearts = (_of_files(settings, *each) for each in enumerate(subjects))
    yield from progress(hearts, "making synthetic hearts", total=count)


def _population(settings: SegmentationConfig, index: int) -> Sequence:
    return population_sequence(
        settings.data.synthetic_seed, index, spacing_mm=settings.image.spacing_mm,
        size=settings.image.patch,
    )  # fmt: skip


def _decoded(settings: SegmentationConfig) -> Iterator[Sequence]:
    """Yield hearts that a bundle generates, at ED and ES, with painted images."""
    from cardiogen.models.protocol import encode_condition
    from cardiogen.models.store import load_model
    from cardiogen.population.pose import typical_pose
    from cardiogen.synthesis import decode_sequence, draw_latent, with_labels

    model = load_model(settings.data.synthetic).model
    anyone = encode_condition(Factors())
    pose, seed = typical_pose(), settings.data.synthetic_seed
    for index in range(settings.data.synthetic_hearts):
        latent = draw_latent(model, anyone, seed=seed, index=index)
        phases = [0.0, model.end_systole(latent)]
        heart = decode_sequence(
            model, latent, phases, pose=pose, subject_id=f"synthetic_{index:06d}"
        )
        yield _painted(settings, with_labels(heart, pose, spacing_mm=_DECODED_MM), index)


def _of_files(settings: SegmentationConfig, index: int, subject: Subject) -> Sequence:
    """Return a heart of a cohort; one without images is painted."""
    sequence = load_sequence(subject, images=bool(subject.images))
    if sequence.images is not None:
        return sequence
    return _painted(settings, sequence, index)


def _painted(settings: SegmentationConfig, sequence: Sequence, index: int) -> Sequence:
    """Paint the frames of a heart that are to be learned from."""
    numbers = wanted_frames(sequence, settings.data.frames)
    es = numbers.index(sequence.es) if sequence.es in numbers else None
    part = sequence.with_(
        phases=sequence.phases[numbers], labels=sequence.labels[numbers], images=None,
        ed=numbers.index(sequence.ed), es=es, vertices=None, topology=None,
    )  # fmt: skip
    return paint_sequence(
        part, seed=settings.data.synthetic_seed, index=index,
        spacing_mm=settings.image.spacing_mm, size=settings.image.patch,
    )  # fmt: skip


def shape_space(bundle: str | None) -> ShapeSpace:
    """Return the changes of anatomy that a bundle's prior over all hearts allows, at ED.

    Its covariance is that of draws: every model can be drawn from.
    """
    from augment.shape_space import ShapeModes, ShapeSpace
    from cardiogen.models.protocol import encode_condition
    from cardiogen.models.store import load_model

    model = load_model(bundle).model
    prior = model.prior(encode_condition(Factors()))
    generator = torch.Generator().manual_seed(0)
    draws = torch.stack([prior.sample(generator) for _ in range(_DRAWS)])
    values, vectors = torch.linalg.eigh(torch.cov(draws.T))
    kept = values > _LEAST_SHARE * values[-1]
    factor = vectors[:, kept] * values[kept].sqrt()
    modes = ShapeModes.from_decoder(lambda z: model.decode(z, [0.0])[0], prior.mean, factor)
    return ShapeSpace(modes=modes)

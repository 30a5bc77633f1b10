"""``cardiogen train-segmentation``: a U-Net from patients, synthetic hearts or both, and its
scores."""

from __future__ import annotations

from pathlib import Path

from augment.segmentation import (
    SegmentationConfig,
    Segmented,
    Split,
    TrainedSegmentation,
    overlap_table,
    save_network,
    segment_sequence,
    summarize,
    train_segmentation,
    write_predictions,
)
from augment.segmentation.arms import Arm
from augment.segmentation.examples import require_validation
from augment.segmentation.watch import (
    adversary_summary,
    adversary_table,
    collapse_table,
    lost_structures,
)
from cardiogen.base import CardiogenError, Note, progress, write_json
from cardiogen.base.files import check_replaceable
from cardiogen.cli.requests import check_apart
from cardiogen.cli.segmentation_data import POPULATION, load_hearts, split_cohort
from cardiogen.cli.write import versions
from cardiogen.data import load_sequence, write_table
from cardiogen.engine.config import build_config, load_config, preset_path
from cardiogen.engine.fit import Fitted, find_device
from cardiogen.engine.fit.processes import Device

_PRESETS = "segmentation"


def train_segmentation_network(
    config: str | Path,
    *,
    out: str | Path,
    cohort: str | Path | None = None,
    synthetic: str | Path | None = None,
    arm: str | None = None,
    seed: int | None = None,
    device: Device = "auto",
    resume: bool = False,
) -> dict[str, object]:
    """Train a segmentation network, segment the subjects of the test and score them.

    Args:
        config: TOML file with the settings of ``augment.segmentation``, or the name of a preset.
        out: folder to make: ``network/``, ``predictions/`` (a cohort of label maps in the space of
            the images), ``metrics.csv``, ``summary.json``, ``log.csv``, ``collapse.csv`` (recall
            of every structure over the steps), ``adversary.csv`` (what a search did) and
            ``checkpoints/``.
        cohort: folder of patients, in place of ``data.cohort``.
        synthetic: ``population``, a bundle or a folder of label maps, in place of
            ``data.synthetic``.
        arm: of augmentation, in place of ``augmentation.arm``.
        seed: of the training, in place of ``fit.seed``.
        device: ``auto``, ``cpu`` or ``cuda``.
        resume: go on with the run that ``out`` holds.

    Returns:
        Where the results are, counts of what was learned from, mean scores over the test, and
        notes: M31 for every structure that the network does not find, and those of ``fit``.

    Raises:
        CardiogenError: M07 for settings that are unknown or out of range, C28 and C29 for
            subjects that are not there, O01 if ``out`` exists, R75 when interrupted; else the
            codes of the readers and of ``engine.fit.fit``.
    """
    out = Path(out)
    if not resume:
        # Before the work, not after it.
        check_replaceable(out, overwrite=False)
    changes = {"cohort": cohort, "synthetic": synthetic, "arm": arm, "seed": seed}
    settings = _settings(config, changes)
    sources = (settings.data.cohort, settings.data.synthetic)
    check_apart(out, [place for place in sources if place not in ("", POPULATION)])
    split = split_cohort(settings)
    # Before hearts are read, which may take long.
    _require_training(settings, split)
    require_validation(settings.fit, len(split.validation))
    hearts = load_hearts(settings, split)
    trained = train_segmentation(
        settings, real=hearts.real, synthetic=hearts.synthetic, validation=hearts.validation,
        arm=_arm(settings), folder=out, resume=resume, device=device,
    )  # fmt: skip
    facts = {
        "train": len(split.train), "validation": len(split.validation), "test": len(split.test),
        "synthetic_frames": len(hearts.synthetic), "arm": settings.augmentation.arm,
        "steps": trained.fitted.steps, "seed": settings.fit.seed,
    }  # fmt: skip
    lost = lost_structures(trained.fitted)
    facts["collapsed"] = " ".join(each.structure for each in lost)
    told = (*_unused(settings), *trained.fitted.notes, *(each.note() for each in lost))
    notes = [str(note) for note in told]
    _write_watch(trained.fitted, out, overwrite=resume)
    scores = _write(trained, settings, split, out, facts, notes, device=device, overwrite=resume)
    return {"folder": str(out), **facts, **scores, "notes": notes}


def _settings(config: str | Path, changes: dict[str, object]) -> SegmentationConfig:
    """Return the settings of a file or preset with those of the command line in their place."""
    path = Path(config)
    bare = str(path) == path.stem and not path.is_file()
    content = load_config(
        SegmentationConfig, preset_path(f"{_PRESETS}/{path}") if bare else path
    ).model_dump()
    for key, section in (
        ("cohort", "data"), ("synthetic", "data"), ("arm", "augmentation"), ("seed", "fit")
    ):  # fmt: skip
        if changes[key] is not None:
            value = changes[key]
            content[section][key] = value if isinstance(value, int) else str(value)
    return build_config(SegmentationConfig, content, "command line")


def _require_training(settings: SegmentationConfig, split: Split) -> None:
    """Refuse (C28) a cohort that the other parts take whole, before it is read."""
    held = len(split.validation) + len(split.test)
    if settings.data.cohort and not (split.train or settings.data.synthetic):
        raise CardiogenError(
            "C28", "data.train",
            found=f"no subject to train on, with {held} in the validation and the test",
            expected="a subject at least, or synthetic hearts",
            remedy="fewer in data.validation and data.test, or data.train = -1",
        )  # fmt: skip


def _unused(settings: SegmentationConfig) -> list[Note]:
    """Return a note of a test that is asked for without a cohort to take it from."""
    if settings.data.cohort or not settings.data.test:
        return []
    return [Note("C28", "data.test", "there is no cohort, so no subject was tested on")]


def _arm(settings: SegmentationConfig) -> Arm:
    """Return the arm of the settings; a shape model is read here, since augment knows none."""
    from augment.segmentation.build import build_arm
    from cardiogen.cli.segmentation_data import shape_space

    chosen = settings.augmentation
    shape = shape_space(chosen.bundle or None) if chosen.arm == "shape" else None
    return build_arm(chosen, spacing=(settings.image.spacing_mm,) * 2, shape=shape)


def _write(
    trained: TrainedSegmentation,
    settings: SegmentationConfig,
    split: Split,
    out: Path,
    facts: dict[str, object],
    notes: list[str],
    *,
    device: Device,
    overwrite: bool,
) -> dict[str, float]:
    """Write the network, the predictions of the test and their scores; return the scores."""
    save_network(
        out / "network", trained.network, image=settings.image, config=settings.network,
        prediction=settings.prediction, training=facts, overwrite=overwrite,
    )  # fmt: skip
    scores: dict[str, float] = {}
    if split.test:
        segmented = _segment(trained, settings, split, device)
        write_predictions(
            out / "predictions", segmented, label_map=split.test[0].label_map, overwrite=overwrite
        )
        table = overlap_table(segmented)
        write_table(
            out / "metrics.csv", table.columns, table.itertuples(index=False), overwrite=overwrite
        )
        scores = summarize(table)
    summary = {
        **facts,
        "scores": {name: None if value != value else value for name, value in scores.items()},
        "adversary": adversary_summary(trained.fitted),
        "notes": notes,
        "training_seconds": round(trained.fitted.seconds, 1),
        "subjects": {
            name: [s.subject_id for s in getattr(split, name)]
            for name in ("train", "validation", "test")
        },
        "settings": settings.model_dump(mode="json"),
        "versions": versions(),
    }
    write_json(out / "summary.json", summary, overwrite=overwrite)
    return scores


def _write_watch(fitted: Fitted, out: Path, *, overwrite: bool) -> None:
    """Write what the guards saw: ``collapse.csv``, and ``adversary.csv`` if there was a search."""
    for name, rows in (
        ("collapse.csv", collapse_table(fitted)), ("adversary.csv", adversary_table(fitted))
    ):  # fmt: skip
        if rows:
            values = (row.values() for row in rows)
            write_table(out / name, rows[0], values, overwrite=overwrite)


def _segment(
    trained: TrainedSegmentation, settings: SegmentationConfig, split: Split, device: Device
) -> list[Segmented]:
    place, segmented = find_device(device), []
    network = trained.network.to(place)
    for subject in progress(split.test, "segmenting the test"):
        each = segment_sequence(
            network, load_sequence(subject, images=True), settings.image, settings.prediction,
            frames=settings.data.frames, device=place,
        )  # fmt: skip
        segmented.append(each.without_images())
    network.cpu()
    return segmented

"""Training: a phantom is learned in seconds, the same seed gives the same weights."""

import numpy as np
import pytest
import torch

from augment.segmentation import (
    AugmentationConfig,
    DataConfig,
    ImageConfig,
    NetworkConfig,
    SegmentationConfig,
    SegmentationTask,
    Segmented,
    SliceExamples,
    UNet,
    overlap_table,
    prepare_sequence,
    segment_sequence,
    summarize,
    train_segmentation,
    write_predictions,
)
from augment.segmentation.build import build_arm
from cardiogen.base import CardiogenError
from cardiogen.data import load_sequence, read_cohort
from cardiogen.engine.config import build_config
from cardiogen.engine.fit import FitConfig, Task, ValidatedTask


def settings(steps=160, **changes) -> SegmentationConfig:
    return SegmentationConfig(
        image=ImageConfig(spacing_mm=2.5, patch=32, heart_share=1.0, jitter_mm=4.0),
        network=NetworkConfig(widths=(4, 8, 12)),
        fit=FitConfig(steps=steps, batch_size=4, learning_rate=1e-2, warmup_steps=5, log_every=20),
        **changes,
    )


def frames(hearts, config):
    return [f for h in hearts for f in prepare_sequence(h, config.image, frames="ed+es")]


@pytest.fixture(scope="module")
def trained(hearts):
    config = settings()
    return config, train_segmentation(config, real=frames(hearts[:2], config), device="cpu")


def test_a_phantom_is_learned_and_found_again_in_others(trained, hearts):
    config, result = trained
    losses = [row["loss"] for row in result.fitted.history]
    assert losses[-1] < 0.4 * losses[0]
    segmented = [
        segment_sequence(result.network, heart, config.image, config.prediction)
        for heart in hearts[2:]
    ]
    scores = summarize(overlap_table(segmented))
    assert scores["dice"] > 0.85
    assert scores["missed"] == 0
    assert scores["hd95 (mm)"] < 10


def test_the_table_has_a_row_for_every_structure_of_every_frame(hearts):
    heart = hearts[0]
    exact = Segmented(sequence=heart, numbers=[0, 1], labels=heart.labels)
    table = overlap_table([exact])
    assert list(table["frame"]) == ["ED"] * 3 + ["ES"] * 3
    assert (table["dice"] == 1).all()
    assert (table["hd95 (mm)"] == 0).all()
    empty = Segmented(sequence=heart, numbers=[1], labels=np.zeros_like(heart.labels[1:]))
    scores = summarize(overlap_table([empty]))
    assert scores["dice"] == 0
    assert scores["missed"] == 3


def test_predictions_are_a_cohort_that_reads_back(trained, hearts, tmp_path):
    config, result = trained
    segmented = [
        segment_sequence(result.network, h, config.image, config.prediction).without_images()
        for h in hearts[:2]
    ]
    write_predictions(tmp_path / "predictions", segmented, label_map="acdc")
    for subject, each in zip(read_cohort(tmp_path / "predictions"), segmented, strict=True):
        sequence = load_sequence(subject)
        np.testing.assert_array_equal(sequence.labels, each.labels)
        assert sequence.grid.matches(each.sequence.grid)
    with pytest.raises(CardiogenError, match="CG-O01"):
        write_predictions(tmp_path / "predictions", segmented, label_map="acdc")


def test_predictions_of_all_frames_are_one_file(hearts, tmp_path):
    heart = hearts[0]
    labels = np.concatenate([heart.labels, heart.labels[:1]])
    longer = heart.with_(phases=np.array([0.0, 0.3, 0.6]), labels=labels, images=None)
    each = Segmented(sequence=longer, numbers=[0, 1, 2], labels=labels)
    write_predictions(tmp_path / "predictions", [each], label_map="ukbb")
    (subject,) = read_cohort(tmp_path / "predictions")
    assert (subject.ed_frame, subject.es_frame) == (0, 1)
    np.testing.assert_array_equal(load_sequence(subject).labels, labels)


@pytest.mark.parametrize("arm", ["random", "adversarial"])
def test_the_same_seed_gives_the_same_weights_and_resumes_to_them(hearts, tmp_path, arm):
    config = settings(steps=6, augmentation=AugmentationConfig(arm=arm, ramp_share=0.2))
    made = build_arm(config.augmentation, spacing=(2.5, 2.5))
    real = frames(hearts[:1], config)
    whole = train_segmentation(config, real=real, arm=made, device="cpu")
    again = train_segmentation(config, real=real, arm=made, device="cpu", folder=tmp_path)
    for one, other in zip(*(t.network.state_dict().values() for t in (whole, again)), strict=True):
        assert torch.equal(one, other)
    resumed = train_segmentation(
        config, real=real, arm=made, device="cpu", folder=tmp_path, resume=True
    )
    assert resumed.fitted.steps == 6
    other = train_segmentation(
        settings(steps=6), real=frames(hearts[1:2], config), device="cpu", folder=tmp_path / "b"
    )
    assert other.fitted.steps == 6
    with pytest.raises(CardiogenError, match="CG-M08"):
        train_segmentation(
            config, real=frames(hearts[1:2], config), arm=made, device="cpu", folder=tmp_path,
            resume=True,
        )  # fmt: skip


@pytest.mark.parametrize("arm", ["random", "consistency", "adversarial"])
def test_arms_train_in_half_precision_and_with_deep_supervision(hearts, arm):
    config = settings(
        augmentation=AugmentationConfig(arm=arm, ramp_share=0.0, supervised="random")
    )
    network = NetworkConfig(widths=(4, 8, 12), deep_supervision=True)
    fit = config.fit.model_copy(update={"steps": 3, "precision": "bf16-mixed", "accumulate": 2})
    config = config.model_copy(update={"network": network, "fit": fit})
    made = build_arm(config.augmentation, spacing=(2.5, 2.5))
    result = train_segmentation(config, real=frames(hearts[:1], config), arm=made, device="cpu")
    assert result.fitted.history[-1]["skipped"] == 0
    assert all(torch.isfinite(p).all() for p in result.network.parameters())


def test_a_task_answers_the_protocol_and_validates(hearts):
    config = settings()
    examples = SliceExamples(tuple(frames(hearts[:1], config)), config.image)
    task = SegmentationTask(UNet(widths=(2, 3)), config, real=examples,
                            validation=frames(hearts[1:2], config))  # fmt: skip
    assert isinstance(task, Task)
    assert isinstance(task, ValidatedTask)
    scores = task.validate(task.module.eval())
    assert set(scores) == {"loss"} | {f"{k}_{n}" for k in ("dice", "recall")
                                      for n in ("lv", "myo", "rv")}  # fmt: skip
    overlaps = [scores[f"dice_{n}"] for n in ("lv", "myo", "rv")]
    assert scores["loss"] == pytest.approx(1 - np.mean(overlaps))
    bare = SegmentationTask(task.module, config, real=examples)
    with pytest.raises(ValueError, match="validation must be given"):
        bare.validate(task.module)


def test_synthetic_hearts_alone_train_and_none_at_all_do_not(hearts):
    config = settings(steps=2, data=DataConfig(synthetic="population"))
    result = train_segmentation(config, synthetic=frames(hearts[:1], config), device="cpu")
    assert result.fitted.steps == 2
    with pytest.raises(CardiogenError, match="CG-C28 data"):
        train_segmentation(config, device="cpu")
    fit = config.fit.model_copy(update={"validate_every": 1})
    config = config.model_copy(update={"fit": fit})
    with pytest.raises(CardiogenError, match=r"CG-C28 data\.validation"):
        train_segmentation(config, synthetic=frames(hearts[:1], config), device="cpu")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"image": {"patch": 40}, "network": {"widths": [4, 8, 8, 8, 8]}}, "multiple of 16"),
        ({"augmentation": {"arm": "magic"}}, r"augmentation\.arm"),
        ({"network": {"widths": [0, 8]}}, r"network\.widths\.0"),
        ({"network": {"widths": [4, 8, -3]}}, r"network\.widths\.2"),
        ({"network": {"widths": [4, 10**9]}}, r"network\.widths\.1"),
        ({"data": {"train": -2}}, "train must be at least -1, got -2"),
        ({"data": {"test": -3}}, "test must be at least 0, got -3"),
        ({"image": {"spacing": 2.0}}, r"image\.spacing"),
    ],
)
def test_settings_that_mean_nothing_are_named(content, message):
    with pytest.raises(CardiogenError, match=rf"CG-M07 here: .*{message}"):
        build_config(SegmentationConfig, content, "here")

"""What a training tells of itself: structures that are lost, and what the search did."""

import math
import shutil
from dataclasses import replace

import pytest
import torch

from augment.segmentation import (
    AugmentationConfig,
    ImageConfig,
    NetworkConfig,
    Plain,
    SegmentationConfig,
    UNet,
    adversary_summary,
    adversary_table,
    collapse_table,
    lost_structures,
    prepare_sequence,
    train_segmentation,
)
from augment.segmentation.build import build_arm
from augment.segmentation.watch import batch_shares
from cardiogen.engine.fit import FitConfig, Fitted

NAMES = ("lv", "myo", "rv")


def settings(arm="none", *, steps=6, fit=None, **augmentation) -> SegmentationConfig:
    return SegmentationConfig(
        image=ImageConfig(spacing_mm=2.5, patch=32, heart_share=1.0),
        network=NetworkConfig(widths=(4, 8)),
        augmentation=AugmentationConfig(arm=arm, ramp_share=0.0, **augmentation),
        fit=FitConfig(steps=steps, batch_size=3, learning_rate=1e-2, log_every=2, **(fit or {})),
    )


def train(hearts, config, *, arm=None, validated=False, **options):
    frames = [
        [f for h in part for f in prepare_sequence(h, config.image, frames="ed+es")]
        for part in (hearts[:1], hearts[1:2] if validated else [])
    ]
    made = arm or build_arm(config.augmentation, spacing=(2.5, 2.5))
    return train_segmentation(
        config, real=frames[0], validation=frames[1], arm=made, device="cpu", **options
    )


def fitted(history=(), validation=(), best_step=None) -> Fitted:
    return Fitted(
        module=UNet(widths=(2, 3)), history=list(history), validation=list(validation), steps=9,
        seconds=0.0, checkpoint=None, active_units=None, best_step=best_step, notes=[], rank=0,
    )  # fmt: skip


def validated(step, *recalls):
    return {"step": step, "loss": 0.1} | {
        f"recall_{n}": r for n, r in zip(NAMES, recalls, strict=True)
    }


def patches(step, found, there):
    return {"step": step, "skipped": 0, "loss": 0.1} | {
        f"{kind}_{n}": value for kind, values in (("found", found), ("there", there))
        for n, value in zip(NAMES, values, strict=True)
    }  # fmt: skip


def test_a_structure_that_vanishes_from_the_validation_is_told():
    rows = [validated(10, 0.5, 0.5, 0.3), validated(20, 0.9, 0.8, 0.4),
            validated(30, 0.9, 0.8, 0.02)]  # fmt: skip
    (lost,) = lost_structures(fitted(validation=rows))
    assert (lost.structure, lost.step, lost.last_found) == ("RV", 30, 20)
    assert lost.recall == pytest.approx(0.02)
    assert str(lost.note()).startswith(
        "M31 network, RV: collapsed: 2% of it is found in the validation at step 30, last found "
        "at 20"
    )
    assert [row["collapsed"] for row in collapse_table(fitted(validation=rows))] == ["", "", "RV"]
    # The weights of step 20 were kept: they find it.
    assert lost_structures(fitted(validation=rows, best_step=20)) == []


def test_a_structure_is_back_above_a_quarter_and_nan_is_not_judged():
    rows = [validated(1, 0.05, 0.9, math.nan), validated(2, 0.2, 0.9, math.nan),
            validated(3, 0.3, 0.9, math.nan)]  # fmt: skip
    table = collapse_table(fitted(validation=rows))
    assert [row["collapsed"] for row in table] == ["LV", "LV", ""]
    assert math.isnan(table[-1]["recall_rv"])
    (lost,) = lost_structures(fitted(validation=rows[:2]))
    assert lost.last_found is None
    assert "never found" in str(lost.note())
    assert lost_structures(fitted()) == collapse_table(fitted()) == []


def test_training_patches_are_watched_where_there_is_no_validation():
    there = (0.2, 0.1, 0.01)
    rows = [patches(2, (0.15, 0.05, 0.009), there), patches(4, (0.18, 0.08, 0.0), there)]
    (lost,) = lost_structures(fitted(history=rows))
    assert (lost.structure, lost.on, lost.last_found) == ("RV", "training patches", 2)
    # A row whose steps were all skipped changed no weight, one without the structure tells none.
    more = [
        *rows,
        patches(6, (math.nan,) * 3, (math.nan,) * 3),
        patches(8, (0.1, 0, 0), (0.2, 0, 0)),
    ]
    assert [x.structure for x in lost_structures(fitted(history=more))] == ["RV"]
    assert math.isnan(collapse_table(fitted(history=more))[2]["recall_lv"])


def test_shares_of_a_batch_give_its_recall():
    logits = torch.randn(2, 4, 8, 6, generator=torch.Generator().manual_seed(0))
    target = torch.zeros(2, 4, 8, 6)
    target[:, 0], target[0, 1, :4], target[0, 0, :4] = 1, 1, 0
    shares = batch_shares([logits, logits[..., ::2, ::2]], target)
    assert shares["there_lv"].item() == pytest.approx(24 / 96)
    wanted = (logits.argmax(1)[0, :4] == 1).float().mean()
    torch.testing.assert_close(shares["found_lv"] / shares["there_lv"], wanted)
    assert shares["there_rv"].item() == shares["found_rv"].item() == 0
    logits[0, 1] = math.nan
    assert batch_shares(logits, target)["found_lv"].item() == 0


class NoRight(Plain):
    """Learns that a right ventricle is background."""

    def losses(self, network, batch, supervised, *, step, generator):
        target = batch.target.clone()
        target[:, 0] += target[:, 3]
        target[:, 3] = 0
        return supervised(network(batch.image), target)


def test_a_network_that_unlearns_a_structure_is_caught_by_its_validation(hearts):
    config = settings(steps=80, fit={"validate_every": 40})
    found = train(hearts, config, arm=NoRight(), validated=True).fitted
    assert [lost.structure for lost in lost_structures(found)] == ["RV"]
    assert not {"found_rv", "there_rv"} & found.history[0].keys()


def test_patches_of_a_training_are_watched_in_its_log(hearts):
    found = train(hearts, settings(steps=60)).fitted
    table = collapse_table(found)
    assert [row["step"] for row in table] == list(range(2, 61, 2))
    assert all(0 <= row["recall_lv"] <= 1 for row in table)
    assert table[-1]["recall_lv"] > 0.5
    assert table[-1]["collapsed"] == " ".join(x.structure for x in lost_structures(found))
    untrained = lost_structures(train(hearts, settings(steps=1)).fitted)
    assert all(lost.last_found is None for lost in untrained)


@pytest.mark.parametrize("arm", ["adversarial", "consistency", "random"])
def test_searches_and_only_they_are_told_in_the_log(hearts, arm):
    found = train(hearts, settings(arm, every=2)).fitted
    told = [name for name in found.history[0] if name.startswith("adversary/")]
    if arm != "adversarial":
        assert told == adversary_table(found) == []
        assert adversary_summary(found) == {}
        return
    table, whole = adversary_table(found), adversary_summary(found)
    # Two steps a row, of which one is searched in.
    assert [(row["step"], row["steps"]) for row in table] == [(2, 1), (4, 1), (6, 1)]
    assert whole["steps"] == 3
    assert whole["rise"] == pytest.approx(sum(row["rise"] for row in table) / 3)
    assert all(row["rise"] >= 1 - 1e-6 for row in table)
    names = [n.removeprefix("strength/") for n in whole if n.startswith("strength/")]
    assert set(names) == {"Affine", "Morph", "BiasField", "Gamma", "Contrast", "GaussianNoise"}
    used = [row[f"strength/{n}"] for row in table for n in names]
    assert all(0 <= value <= 1 for value in used if value is not None)
    assert {row[f"worst/{s}"] for row in table for s in ("LV", "MYO", "RV")} <= set(names)


@pytest.mark.parametrize(
    ("arm", "weighted"), [("adversarial", {}), ("adversarial", {"weight": 0.0})]
)
def test_watching_changes_no_bit_of_the_weights(hearts, monkeypatch, arm, weighted):
    config = settings(arm, fit={"accumulate": 2}, **weighted)
    made = build_arm(config.augmentation, spacing=(2.5, 2.5))
    watched = train(hearts, config, arm=made)
    blind = replace(made, tells=(), disagreement=replace(made.disagreement, tells=False))
    monkeypatch.setattr("augment.segmentation.task.batch_shares", lambda *_: {})
    other = train(hearts, config, arm=blind)
    assert "there_lv" not in other.fitted.history[0]
    for a, b in zip(*(t.network.state_dict().values() for t in (watched, other)), strict=True):
        assert torch.equal(a, b)
    if weighted:
        # A weight of 0 searches nothing.
        assert {row["rise"] for row in adversary_table(watched.fitted)} == {None}


def resumed(hearts, config, folder):
    """Train, then again from the checkpoint in the middle."""
    whole = train(hearts, config, folder=folder)
    shutil.rmtree(folder / "checkpoints" / f"step-{config.fit.steps:09d}")
    return whole, train(hearts, config, folder=folder, resume=True)


@pytest.mark.parametrize("reference", ["prediction", "teacher"])
def test_a_resumed_run_tells_and_learns_what_an_uninterrupted_one_does(
    hearts, tmp_path, reference
):
    # A checkpoint in the middle of a row of the log.
    config = settings("adversarial", steps=6, reference=reference, fit={"checkpoint_every": 3})
    whole, again = resumed(hearts, config, tmp_path)
    assert adversary_table(again.fitted) == adversary_table(whole.fitted)
    assert collapse_table(again.fitted) == collapse_table(whole.fitted)
    for a, b in zip(*(t.network.state_dict().values() for t in (whole, again)), strict=True):
        assert torch.equal(a, b)


def weights(hearts, **changes):
    fit = {"accumulate": 3, "validate_every": 3, "keep_best": True}
    config = settings("consistency", fit=fit, **changes)
    found = train(hearts, config, validated=True).network
    assert isinstance(found, UNet)
    return torch.cat([t.flatten() for t in found.state_dict().values()])


def test_a_teacher_gives_the_reference(hearts):
    own = weights(hearts)
    # One that forgets at once is the network itself, which knows no difference between modes.
    torch.testing.assert_close(weights(hearts, reference="teacher", teacher_decay=0.0), own,
                               rtol=0, atol=1e-6)  # fmt: skip
    slow = weights(hearts, reference="teacher", teacher_decay=0.9)
    assert torch.equal(slow, weights(hearts, reference="teacher", teacher_decay=0.9))
    assert (slow - own).abs().max() > 1e-4

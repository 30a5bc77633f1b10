"""The closed loop: its cines make a cohort, its settings are settings, its model is a model."""

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from augment.segmentation import SegmentationConfig
from cardiogen.data import Factors, Grid, Sequence, Structure, load_sequence, read_cohort
from cardiogen.engine.config import load_config
from cardiogen.measure import mesh_volumes
from cardiogen.models.protocol import encode_condition
from cardiogen.population import sample_heart, template_topology

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"


@pytest.fixture
def loop(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import closed_loop
    from bench import augment_loop

    return closed_loop, augment_loop


def cine(seed):
    rng = np.random.default_rng(seed)
    grid = Grid.regular((4, 9, 11), (8.0, 2.0, 1.7), (3.0, -20.0, 9.0))
    labels = np.zeros((3, *grid.shape), dtype=np.uint8)
    labels[:, 1:3, 2:7, 2:9] = Structure.MYO
    labels[:, 1:3, 3:6, 4:7] = Structure.LV
    labels[:, 1:3, 2:7, 9:] = Structure.RV
    images = (labels + rng.normal(size=labels.shape)).astype(np.float32)
    return Sequence(phases=np.arange(3) / 3, es=1, grid=grid, labels=labels, images=images)


def test_cines_become_a_cohort_that_networks_can_be_trained_on(loop, tmp_path):
    script, stages = loop
    hearts = [stages.Tracked(sequence=cine(n), meshes=np.zeros((3, 1, 3)), factors=Factors(),
                             facts={}) for n in range(2)]  # fmt: skip
    unseen = [cine(5).with_(phases=np.array([0.0, 0.3]), labels=cine(5).labels[:2],
                            images=cine(5).images[:2])]  # fmt: skip
    plan = stages.Plan(hearts=2, test=1, steps=7, generated=3)
    names = script.write_cines(tmp_path / "cines", plan, hearts, unseen, None)
    assert names == {"tracked": ["tracked_000", "tracked_001"], "unseen": ["unseen_000"]}
    subjects = read_cohort(tmp_path / "cines")
    for subject, wanted in zip(subjects, [*(h.sequence for h in hearts), *unseen], strict=True):
        found = load_sequence(subject, images=True)
        assert np.array_equal(found.labels, wanted.labels)
        np.testing.assert_allclose(found.images, wanted.images, atol=1e-5)
        assert found.grid.matches(wanted.grid, tolerance_mm=1e-3)
        assert (found.ed, found.es) == (0, 1)
    config = tmp_path / "arm.toml"
    config.write_text(script.settings(tmp_path, plan, [], names["unseen"], 'hearts "of" mine'))
    settings = load_config(SegmentationConfig, config)
    assert settings.data.train == 0
    assert settings.data.test == ("unseen_000",)
    assert settings.data.synthetic == 'hearts "of" mine'
    assert settings.fit.steps == 7


def test_the_table_is_written_as_it_is_printed(loop, tmp_path, capsys):
    script, _ = loop
    rows = [{"stage": "generate", "what": "seconds", "value": 2.5}]
    script.finish(tmp_path, rows)
    assert capsys.readouterr().out.split() == ["generate", "seconds", "2.500"]
    with (tmp_path / "summary.csv").open() as stream:
        assert list(csv.DictReader(stream)) == [
            {"stage": "generate", "what": "seconds", "value": "2.5"}
        ]


@pytest.mark.slow
def test_a_model_is_learned_from_tracked_meshes_with_and_without_factors(loop):
    _, stages = loop
    hearts = []
    for index in range(40):
        heart = sample_heart(0, index, Factors(sex="FM"[index % 2]))
        meshes = heart.pose.to_heart(heart.vertices(np.arange(3) / 3))
        hearts.append(stages.Tracked(sequence=cine(0), meshes=meshes, factors=heart.factors,
                                     facts={}))  # fmt: skip
    unknown = replace(hearts[0], factors=Factors())
    plan = stages.Plan(hearts=40, ed_modes=5, fields=6, motion_modes=4)
    model = stages.learn_model(plan, [*hearts, unknown])
    mean = model.prior(encode_condition(Factors())).mean
    volume = mesh_volumes(model.decode(mean, [0.0]), template_topology())[Structure.LV][0]
    true = [mesh_volumes(h.meshes[:1], template_topology())[Structure.LV][0] for h in hearts]
    assert volume == pytest.approx(np.mean(true), rel=0.1)
    drawn = model.prior(encode_condition(Factors())).sample(torch.Generator().manual_seed(0))
    assert np.isfinite(model.decode(drawn, [0.0, 0.33])).all()

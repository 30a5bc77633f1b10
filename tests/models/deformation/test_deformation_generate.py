"""Generation with the deformation model: targets, worker processes, and folds of its fields."""

import runpy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cardiogen.cli.generate import generate
from cardiogen.data.factors import Factors
from cardiogen.models.deformation.decoder import VelocityDecoder
from cardiogen.models.deformation.model import DeformationModel
from cardiogen.models.protocol import encode_condition
from cardiogen.models.store import save_model
from cardiogen.models.target_solver import measure_latent
from cardiogen.models.target_values import TOLERANCE, parse_targets
from cardiogen.models.targets import condition_on_targets

SCRIPT = Path(__file__).resolve().parents[3] / "scripts" / "bench" / "validity.py"


@pytest.fixture(scope="module")
def typical(small_model):
    """Targets near the model's own mean: EDV 4 % up, EF as it is."""
    mean = small_model.prior(encode_condition(Factors())).mean
    measures, _ = measure_latent(small_model, mean, np.arange(25) / 25)
    ef = 100 * (1 - measures[1] / measures[0])
    return [f"lvedv={1.04 * measures[0]:.3f}", f"lvef={ef:.3f}"]


def test_hearts_hit_targets(small_model, typical):
    targets = parse_targets(typical, Factors())
    prior = small_model.prior(encode_condition(Factors()))
    found = condition_on_targets(small_model, prior, targets)
    for seed in range(3):
        latent = found.sample(torch.Generator().manual_seed(seed))
        measures, _ = measure_latent(small_model, latent, found.phases)
        assert targets.miss(measures) < TOLERANCE


def test_targeted_hearts_are_the_same_bits_in_worker_processes(small_model, typical, tmp_path):
    bundle = save_model(
        tmp_path / "bundle", small_model, name="small", training_data={}, licence="none", card="x"
    )
    facts = {"model": bundle, "n": 4, "targets": typical, "formats": "csv", "meshes_only": True,
             "frames": 16}  # fmt: skip
    tables = [
        (generate(out=tmp_path / str(k), workers=k, **facts) / "latents.csv").read_bytes()
        for k in (1, 2)
    ]
    assert tables[0] == tables[1]


def test_folds_are_counted_where_fields_are_too_steep(small_model):
    folded = runpy.run_path(str(SCRIPT))["folded"]
    scores = np.zeros(small_model.latent_size)
    assert folded(small_model, scores, 5) == (0, 0)
    assert folded("a model without fields", scores, 5) is None
    modes = small_model.decoder.modes
    steep = replace(modes, ed_mean=modes.ed_mean + 6000 * modes.ed_modes[0])
    model = DeformationModel(
        VelocityDecoder(small_model.decoder.template, steep), small_model.latents,
        small_model.phenotypes, noise=small_model.noise,
    )  # fmt: skip
    cells, fields = folded(model, scores, 5)
    assert cells > 0
    assert fields == 1  # the one at end diastole; motion is as before

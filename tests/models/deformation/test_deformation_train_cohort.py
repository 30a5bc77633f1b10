"""``cardiogen train --cohort DIR``: adaptation of a deformation model to label maps."""

import numpy as np
import pytest
import torch

from cardiogen.base import CardiogenError
from cardiogen.cli.train import train
from cardiogen.models.deformation import encoding
from cardiogen.models.deformation.encoding import EncodedHeart
from cardiogen.models.store import load_model, save_model
from cardiogen.population.pose import typical_pose


@pytest.fixture(scope="module")
def base(small_model, tmp_path_factory):
    path = tmp_path_factory.mktemp("base") / "bundle"
    save_model(path, small_model, name="small", training_data={}, licence="none", card="x")
    return str(path)


@pytest.fixture
def quick(monkeypatch):
    """Encoding that takes no time: motion that grows from subject to subject."""
    count = iter(range(100))

    def encode(self: encoding.HeartEncoder, observed: object) -> EncodedHeart:
        scores = self.typical.copy()
        scores[0] += 0.3 * next(count)
        ed, motion = self.decoder.modes.heart_velocities(scores, observed.phases)
        return EncodedHeart(
            typical_pose(), torch.from_numpy(ed).float(),
            torch.from_numpy(motion * (0.8 + 0.05 * scores[0])).float(),
            np.asarray(observed.phases),
        )  # fmt: skip

    monkeypatch.setattr(encoding.HeartEncoder, "encode", encode)


def test_a_cohort_adapts_a_bundle(real_data, base, quick, tmp_path, capsys):
    cohort = real_data / "acdc_dev25"
    out = train(tmp_path / "b", model="deformation", cohort=str(cohort), base=base, n=6)
    loaded = load_model(out)
    assert loaded.model.cohort is not None
    assert loaded.bundle.description.training_data["n"] == 6
    assert "6 subjects of the cohort acdc_dev25" in (out / "card.md").read_text()
    assert "note C28" in capsys.readouterr().err


def test_fewer_than_five_subjects_are_refused(real_data, base, tmp_path):
    with pytest.raises(CardiogenError, match="4 subjects"):
        train(tmp_path / "b", model="deformation", cohort=str(real_data / "acdc_dev25"),
              base=base, n=4)  # fmt: skip
    assert not (tmp_path / "b").exists()


def test_other_models_are_not_adapted(tmp_path):
    options = {"model": "deformation", "cohort": str(tmp_path), "base": "default"}
    with pytest.raises(CardiogenError, match="model of the kind 'linear'"):
        train(tmp_path / "b", **options)
    with pytest.raises(CardiogenError, match="cohort"):
        train(tmp_path / "b", model="linear", cohort=str(tmp_path))

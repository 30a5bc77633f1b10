"""``cardiogen train --model deformation`` on the population, and what it deforms."""

import json

import numpy as np
import pytest

from cardiogen.base import keyed_rng
from cardiogen.measure.vertex_distance import vertex_rmse
from cardiogen.models.deformation.heart_codes import HeartCodes
from cardiogen.models.deformation.template import population_template
from cardiogen.models.fitted_meshes import FittedMeshes
from cardiogen.models.store import load_model
from cardiogen.population import sample_conditions


def breathing_codes(count, seed, *, template, first=0, jobs=1):
    """Codes of hearts that differ by stretching and contract across their axis."""
    assert jobs == 2
    rng = np.random.default_rng(seed + first)
    places = np.argwhere(template.active) * template.control_mm
    places = places - places.mean(axis=0)
    ways = np.stack([np.eye(3)[k][:, None] * places[:, k] for k in range(3)]).reshape(3, -1)
    factors = tuple(sample_conditions(keyed_rng(seed, "test", k)) for k in range(count))
    size = 0.1 * rng.normal(size=(count, 3)) + 0.004 * np.array([[f.age - 50] for f in factors])
    beat = np.zeros((count, 16, ways.shape[1]))
    squeeze = 0.09 + 0.02 * rng.normal(size=(count, 1))
    beat[:, 0] = squeeze * (ways[0] + ways[1])
    phenotypes = np.concatenate([size, squeeze, rng.normal(size=(count, 2))], axis=1)
    return HeartCodes((size @ ways).astype("f4"), beat.astype("f4"), phenotypes, factors)


def still_fits(count, seed, *, first, jobs):
    """Fits that take every heart for the template, with some noise."""
    assert (count, first, jobs) == (8, 80, 2)
    flat = population_template().vertices.ravel()
    noise = np.random.default_rng(seed).normal(size=(8, 2, flat.size))
    return FittedMeshes(np.tile([0.0, 0.4], (8, 1)), flat + noise, np.ones((8, 2)))


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Hearts that need not be fitted."""
    monkeypatch.setattr("cardiogen.models.deformation.training.population_codes", breathing_codes)
    monkeypatch.setattr("cardiogen.models.deformation.training.fitted_population", still_fits)


def test_deformation_model_is_trained_and_generates(run, tmp_path):
    (tmp_path / "d.toml").write_text(
        'model = "deformation"\nn = 80\ned_modes = 3\nfields = 2\nmotion_modes = 1\nfits = 8\n'
    )
    assert run("train", "--config", "d.toml", "--jobs", "2", "--out", "b").code == 0
    description = json.loads((tmp_path / "b" / "model.json").read_text())
    assert description["kind"] == "deformation"
    assert "3 end-diastolic and 1 motion scores" in (tmp_path / "b" / "card.md").read_text()
    made = run("generate", "--model", "b", "--age", "60", "--out", "x", "--format", "csv",
               "--frames", "5", "--spacing", "4")  # fmt: skip
    assert made.code == 0
    volumes = np.genfromtxt(tmp_path / "x" / "frames.csv", delimiter=",", names=True)
    lv = volumes[next(n for n in volumes.dtype.names if n.startswith("LV"))]
    assert lv[0] > 20
    assert lv.min() < 0.95 * lv[0]


def test_template_of_a_label_map_is_deformed(run, tmp_path):
    assert run("generate", "--age", "30", "--sex", "M", "--out", "heart", "--frames", "1",
               "--spacing", "3").code == 0  # fmt: skip
    (tmp_path / "d.toml").write_text(
        'model = "deformation"\nn = 80\ned_modes = 3\nfields = 2\nmotion_modes = 1\nfits = 8\n'
        'template = "heart/labels.nii.gz"\n'
    )
    made = run("train", "--config", "d.toml", "--jobs", "2", "--out", "b")
    assert made.code == 0
    assert "note M52 labels.nii.gz: Dice of the template with its label map: LV" in made.err
    description = json.loads((tmp_path / "b" / "model.json").read_text())
    assert description["training_data"]["template"] == "labels.nii.gz"
    assert description["name"] == "deformation-population-80-own-template"
    card = (tmp_path / "b/card.md").read_text()
    assert "licence | that of its template, labels.nii.gz" in card
    assert "no patient data but its template" in card
    # A second model takes the template of the first, and moves it to the mean of its hearts.
    text = (tmp_path / "d.toml").read_text().replace("heart/labels.nii.gz", "b")
    (tmp_path / "e.toml").write_text(text + "template_rounds = 1\n")
    made = run("train", "--config", "e.toml", "--jobs", "2", "--out", "c")
    assert made.code == 0
    assert "mean of 80 hearts; the last round moved it" in made.err
    first, second = (load_model(tmp_path / name).model.decoder.template for name in "bc")
    assert vertex_rmse(first.vertices, population_template().vertices) > 2
    assert vertex_rmse(second.vertices, first.vertices) > 1


def test_draws_of_a_template_that_break_rules_are_counted(run, tmp_path, monkeypatch):
    from cardiogen.measure.violation import Violation

    calls = []

    def check(vertices, topology):
        calls.append(len(vertices))
        found = Violation("no-crossing", 0, "2 pairs of faces cross")
        return [found] if len(calls) % 4 == 0 else []

    monkeypatch.setattr("cardiogen.measure.mesh_validity.check_mesh", check)
    text = "n = 80\ned_modes = 3\nfields = 2\nmotion_modes = 1\nfits = 8\n"
    (tmp_path / "d.toml").write_text(f'model = "deformation"\n{text}template_rounds = 1\n')
    made = run("train", "--config", "d.toml", "--jobs", "2", "--out", "b")
    assert made.code == 0
    assert calls == [10] * 12
    assert "note M53 population: 3 of 12 draws break a rule (no-crossing)" in made.err
    assert "Apache-2.0" in (tmp_path / "b/card.md").read_text()


@pytest.mark.parametrize(
    ("lines", "status", "code", "words"),
    [
        ('template = "nothing.nii.gz"', 3, "N47", "found nothing"),
        ('template = "nothing"', 4, "M47", "nothing"),
        ('template = "linear"', 4, "M21", "a model of the kind 'linear'"),
        ('label_map = "acdc"', 2, "U01", "acdc beside the template population"),
        ('template = ""', 2, "U01", "--template: found nothing"),
        ('orientation = "trusted"', 2, "U01", "orientation: found set, but without a use"),
        ("template_rounds = 21", 4, "M07", "template_rounds"),
        ('template = "x.nii.gz"\ncohort = "folder"', 2, "U01", "a folder of label maps"),
    ],
)
def test_templates_that_are_none_are_refused(refused, tmp_path, lines, status, code, words):
    (tmp_path / "d.toml").write_text(f'model = "deformation"\nn = 80\n{lines}\n')
    refused("train", "--config", "d.toml", "--out", "b", status=status, code=code, words=words)


def test_templates_of_other_models_are_refused(refused):
    refused("train", "--model", "linear", "--template", "b", "--out", "c", status=2, code="U01",
            words="--template: found b beside --model linear")  # fmt: skip

"""``cardiogen train --cohort DIR``: adaptation of a deformation model to label maps."""

import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from cardiogen.base import CardiogenError
from cardiogen.cli.complete import complete
from cardiogen.cli.train import train
from cardiogen.data import encode_labels, load_sequence, read_cohort, write_image
from cardiogen.data.sequence import Sequence
from cardiogen.engine import chirality, find_bundle
from cardiogen.models.deformation import encoding
from cardiogen.models.deformation.cohort import encode_cohort
from cardiogen.models.deformation.encoding import EncodedHeart
from cardiogen.models.store import load_model, save_model
from cardiogen.population import render_labels, sample_heart, short_axis_grid, template_topology
from cardiogen.population.pose import Pose, typical_pose


@pytest.fixture(scope="module")
def base(small_model, tmp_path_factory):
    path = tmp_path_factory.mktemp("base") / "bundle"
    save_model(path, small_model, name="small", training_data={}, licence="none", card="x")
    return str(path)


@pytest.fixture
def quick(monkeypatch):
    """Encoding that takes no time: motion that grows from subject to subject.

    Lists what orientations the encoder was given.
    """
    count, seen = iter(range(100)), []

    def encode(self: encoding.HeartEncoder, observed: Sequence) -> EncodedHeart:
        seen.append(observed.orientation)
        scores = self.typical.copy()
        scores[0] += 0.3 * next(count)
        ed, motion = self.decoder.modes.heart_velocities(scores, observed.phases)
        return EncodedHeart(
            turned_pose(observed.orientation == "mirrored"), torch.from_numpy(ed).float(),
            torch.from_numpy(motion * (0.8 + 0.05 * scores[0])).float(),
            np.asarray(observed.phases),
        )  # fmt: skip

    monkeypatch.setattr(encoding.HeartEncoder, "encode", encode)
    return seen


@pytest.fixture
def evidence(monkeypatch):
    """Return a function that sets what the hearts of a cohort say of their headers."""

    def set_to(*values: float) -> None:
        say = iter(values)
        monkeypatch.setattr(chirality, "chirality_evidence", lambda labels, grid: next(say))

    return set_to


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Five hearts of the population as a cohort of label maps of two frames."""
    root = tmp_path_factory.mktemp("cohort") / "five"
    rows = ["subject_id,ed_frame,es_frame,label_map"]
    for index in range(5):
        heart = sample_heart(4, index)
        frames = heart.vertices([0.0, 0.35])
        grid = short_axis_grid(frames, heart.pose, (9.0, 3.1, 2.9))
        labels = np.stack([render_labels(v, template_topology(), grid) for v in frames])
        (root / f"s{index}").mkdir(parents=True)
        write_image(root / f"s{index}" / "labels.nii.gz", encode_labels(labels, "ukbb"), grid,
                    frame_time_s=0.03)  # fmt: skip
        rows.append(f"s{index},0,1,ukbb")
    (root / "subjects.csv").write_text("\n".join(rows) + "\n")
    return str(root)


def turned_pose(mirrored: bool) -> Pose:
    """The usual pose, or its mirror image."""
    pose = typical_pose()
    return Pose(pose.axes * (-1.0 if mirrored else 1.0), pose.origin)


def adapted(folder: str, base: str, out: Path, **settings: object) -> str:
    """Train and return the card."""
    train(out, model="deformation", cohort=folder, base=base, **settings)
    return (out / "card.md").read_text()


def test_a_cohort_adapts_a_bundle(real_data, base, quick, tmp_path, capsys):
    cohort = real_data / "acdc_dev25"
    out = train(tmp_path / "b", model="deformation", cohort=str(cohort), base=base, n=6,
                orientation="mirrored")  # fmt: skip
    loaded = load_model(out)
    assert loaded.model.cohort is not None
    assert loaded.bundle.description.training_data["n"] == 6
    assert "6 subjects of the cohort acdc_dev25" in (out / "card.md").read_text()
    assert "note C28" in capsys.readouterr().err
    assert loaded.model.cohort.groups == ("DCM", "HCM")
    seen = [cohort / "patient001" / "patient001_ED_gt.nii.gz"]
    for model, words in ((out, "expected DCM or HCM"), ("deformation", "adapted to no cohort")):
        with pytest.raises(CardiogenError, match=f"CG-U01 --group: found NOR; .*{words}"):
            complete(seen, label_map="acdc", out=tmp_path / "c", model=model, group="NOR")


def test_fewer_than_five_subjects_are_refused(real_data, base, tmp_path):
    with pytest.raises(CardiogenError, match="4 subjects"):
        train(tmp_path / "b", model="deformation", cohort=str(real_data / "acdc_dev25"),
              base=base, n=4)  # fmt: skip
    assert not (tmp_path / "b").exists()


def swapped(folder: str, to: Path, *which: int) -> str:
    """A copy of a cohort in which the codes of LV and RV are swapped in some subjects."""
    copy = shutil.copytree(folder, to)
    for index in which:
        path = copy / f"s{index}" / "labels.nii.gz"
        image = nib.load(path)
        codes = np.array([0, 3, 2, 1], np.uint8)[np.asarray(image.dataobj)]
        nib.save(nib.Nifti1Image(codes, image.affine, image.header), path)
    return str(copy)


def test_a_bad_cohort_is_told_why_it_is_bad(folder, base, quick, tmp_path):
    bad = swapped(folder, tmp_path / "bad", 1, 3)
    words = r"found 3 subjects .*L\d+ s1: left out: found .*s3: left out.*cardiogen check .*bad"
    with pytest.raises(CardiogenError, match=rf"CG-C28 .*bad: {words}"):
        adapted(bad, base, tmp_path / "b")


def test_subjects_that_are_left_out_are_noted(base, quick, folder, tmp_path, capsys):
    more = swapped(folder, tmp_path / "more")
    rows = (tmp_path / "more" / "subjects.csv").read_text()
    for index in (5, 6):
        shutil.copytree(tmp_path / "more" / "s0", tmp_path / "more" / f"s{index}")
        rows += f"s{index},0,1,ukbb\n"
    (tmp_path / "more" / "subjects.csv").write_text(rows)
    bad = swapped(more, tmp_path / "bad", 2, 6)
    card = adapted(bad, base, tmp_path / "b")
    err = capsys.readouterr().err
    for name in ("s2", "s6"):
        (line,) = [row for row in err.splitlines() if f" {name}: left out: found " in row]
        assert line.removeprefix("cardiogen: note ") in card


def test_other_models_are_not_adapted(tmp_path):
    options = {"model": "deformation", "cohort": str(tmp_path), "base": "linear"}
    with pytest.raises(CardiogenError, match="model of the kind 'linear'"):
        train(tmp_path / "b", **options)
    with pytest.raises(CardiogenError, match="cohort"):
        train(tmp_path / "b", model="linear", cohort=str(tmp_path))


@pytest.mark.parametrize("orientation", ["trusted", "mirrored"])
def test_orientation_is_taken_at_its_word(orientation, folder, base, quick, evidence, tmp_path):
    evidence()  # nobody is asked
    card = adapted(folder, base, tmp_path / "b", orientation=orientation)
    assert quick == [orientation] * 5
    assert f"| left and right | {orientation} |" in card


def test_headers_are_believed_if_nothing_is_said(folder, base, quick, evidence, tmp_path):
    evidence()
    assert "| left and right | as the headers say |" in adapted(folder, base, tmp_path / "b")
    assert quick == ["trusted"] * 5


def test_hearts_of_assumed_headers_decide_together(
    folder, base, quick, evidence, tmp_path, capsys
):
    evidence(-12.0, -5.0, 3.0, -9.0, -23.0)
    card = adapted(folder, base, tmp_path / "b", orientation="assumed")
    assert quick == ["mirrored"] * 5
    told = "headers mirror the hearts, say 4 of 5 fits (agreement 84%); taken so too: s2"
    assert f"cardiogen: note L63 {told}\n" in capsys.readouterr().err
    assert f"| left and right | {told} |" in card


def test_a_mixed_cohort_is_told(folder, base, quick, evidence, tmp_path, capsys):
    evidence(-12.0, 5.0, 13.0, -9.0, 20.0)
    adapted(folder, base, tmp_path / "b", orientation="assumed")
    assert quick == ["mirrored", "trusted", "trusted", "mirrored", "trusted"]
    assert "note L63 headers mirror 2 of 5 hearts" in capsys.readouterr().err


def test_margins_are_of_the_pose_that_was_taken(folder, small_model, quick, evidence):
    hearts = [load_sequence(subject) for subject in read_cohort(folder)]
    assumed = [heart.with_(orientation="assumed") for heart in hearts[:4]]
    evidence(-12.0, -5.0, 3.0, -9.0)
    found, refused = encode_cohort(small_model, [*assumed, hearts[4]])
    assert refused == []
    assert [code.margin for _, code in found] == [12.0, 5.0, -3.0, 9.0, None]
    assert [code.pose.mirrored for _, code in found] == [True] * 4 + [False]
    assert [heart.subject_id for heart, _ in found] == ["s0", "s1", "s2", "s3", "s4"]


def test_settings_without_a_use_are_refused(folder, tmp_path):
    options = {"model": "deformation", "out": tmp_path / "b"}
    for unused in ({"seed": 0}, {"jobs": 1}, {"device": "auto"}):
        with pytest.raises(CardiogenError, match=f"CG-U01 {next(iter(unused))}: found set, but"):
            train(**options, cohort=folder, **unused)
    for unused in ({"orientation": "assumed"}, {"base": "deformation"}):
        with pytest.raises(CardiogenError, match=f"CG-U01 {next(iter(unused))}: found set, but"):
            train(**options, **unused)
    config = tmp_path / "c.toml"
    config.write_text(f'model = "deformation"\ncohort = "{folder}"\nfields = 9\ned_modes = 96\n')
    with pytest.raises(CardiogenError, match="CG-U01 ed_modes, fields, jobs: found set, but"):
        train(tmp_path / "b", config=config, jobs=2)
    assert not (tmp_path / "b").exists()


def test_base_is_found_as_every_model_is(tmp_path, monkeypatch):
    """A folder of that name comes first, as with --model; else the shipped bundle."""
    monkeypatch.chdir(tmp_path)
    assert find_bundle("deformation").parent.name == "bundles"
    (tmp_path / "deformation").mkdir()
    (tmp_path / "five").mkdir()
    with pytest.raises(CardiogenError, match=r"CG-M47 deformation"):
        train("b", model="deformation", cohort="five")


def test_a_heart_alone_decides_for_itself(folder, small_model, evidence, monkeypatch):
    def follow(self: object, observed: Sequence, pose: Pose, *_: object) -> EncodedHeart:
        return EncodedHeart(pose, torch.zeros(3, 4), torch.zeros(1, 3, 4), np.zeros(1))

    monkeypatch.setattr(encoding.HeartEncoder, "follow", follow)
    evidence(-3.5)
    heart = load_sequence(read_cohort(folder)[0]).with_(orientation="assumed")
    code = small_model.encoder.encode(heart)
    assert code.pose.mirrored
    assert code.margin == 3.5

"""``train-segmentation`` and ``segment``: from folders to folders, and clear errors."""

import csv
import json
import shutil

import nibabel as nib
import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from augment.segmentation import SegmentationConfig
from cardiogen.base import CardiogenError
from cardiogen.cli.segment import segment
from cardiogen.cli.segmentation_commands import add_segmentation_commands
from cardiogen.cli.segmentation_data import load_hearts, split_cohort
from cardiogen.cli.train_segmentation import train_segmentation_network
from cardiogen.data import encode_labels, load_sequence, read_cohort, read_labels, write_image
from cardiogen.engine.config import load_config, preset_path

CONFIG = """
[data]
test = 2
validation = 1
synthetic_hearts = 2
[image]
spacing_mm = 3.0
patch = 32
[network]
widths = [3, 6]
[fit]
steps = 4
batch_size = 2
validate_every = 2
keep_best = true
log_every = 2
"""


@pytest.fixture(scope="module")
def cohort(tmp_path_factory, hearts):
    """A cohort of four phantoms in the layout of cardiogen, codes of ACDC."""
    folder = tmp_path_factory.mktemp("cohort")
    rows = [["subject_id", "label_map"]]
    for heart in hearts:
        place = folder / heart.subject_id
        place.mkdir()
        for number, name in enumerate(("ED", "ES")):
            codes = encode_labels(heart.labels[number], "acdc")
            write_image(place / f"labels_{name}.nii.gz", codes, heart.grid)
            write_image(place / f"images_{name}.nii.gz", heart.images[number], heart.grid)
        rows.append([heart.subject_id, "acdc"])
    with (folder / "subjects.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows(rows)
    return folder


@pytest.fixture
def config(tmp_path):
    file = tmp_path / "config.toml"
    file.write_text(CONFIG)
    return file


def test_a_cohort_becomes_a_network_predictions_and_scores(cohort, config, tmp_path):
    out = tmp_path / "run"
    found = train_segmentation_network(config, out=out, cohort=cohort, device="cpu", arm="none")
    assert (found["train"], found["validation"], found["test"]) == (1, 1, 2)
    assert {p.name for p in out.iterdir()} >= {
        "network", "predictions", "metrics.csv", "summary.json", "log.csv", "validation.csv"
    }  # fmt: skip
    summary = json.loads((out / "summary.json").read_text())
    assert summary["settings"]["data"]["cohort"] == str(cohort)
    assert summary["scores"]["dice"] == pytest.approx(found["dice"])
    with (out / "metrics.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 2 * 2 * 3
    assert {r["subject_id"] for r in rows} == set(summary["subjects"]["test"])
    subjects = read_cohort(out / "predictions")
    assert [s.subject_id for s in subjects] == summary["subjects"]["test"]
    assert {s.label_map for s in subjects} == {"acdc"}


def test_what_the_guards_saw_is_written_and_told(cohort, config, tmp_path, monkeypatch):
    told = {"loss": 0.5, "recall_lv": 0.9, "recall_myo": 0.9, "recall_rv": 0.01}
    monkeypatch.setattr("augment.segmentation.SegmentationTask.validate", lambda *_: told)
    config.write_text(CONFIG + "[augmentation]\nramp_share = 0.0\nreference = 'teacher'\n")
    app, out = typer.Typer(), tmp_path / "run"
    add_segmentation_commands(app)
    asked = ["--config", config, "--out", out, "--cohort", cohort, "--arm", "adversarial"]
    done = CliRunner().invoke(app, ["train-segmentation", *map(str, asked), "--device", "cpu"])
    assert done.exit_code == 0
    assert "cardiogen: note M31 network, RV: collapsed: 1% of it" in done.output
    summary = json.loads((out / "summary.json").read_text())
    assert summary["collapsed"] == "RV"
    assert [note[:15] for note in summary["notes"]] == ["M31 network, RV"]
    assert summary["adversary"]["steps"] == 4
    network = json.loads((out / "network" / "network.json").read_text())
    assert network["training"]["collapsed"] == "RV"
    for name, columns in (
        ("collapse.csv", {"step", "recall_lv", "recall_myo", "recall_rv", "collapsed"}),
        ("adversary.csv", {"step", "steps", "risen", "rise", "strength/Affine", "worst/RV"}),
    ):
        with (out / name).open() as stream:
            rows = list(csv.DictReader(stream))
        assert [row["step"] for row in rows] == ["2", "4"]
        assert columns <= rows[0].keys()


def test_a_finished_run_can_be_resumed_and_not_overwritten(cohort, config, tmp_path):
    out = tmp_path / "run"
    first = train_segmentation_network(config, out=out, cohort=cohort, device="cpu")
    weights = (out / "network" / "network.safetensors").read_bytes()
    again = train_segmentation_network(config, out=out, cohort=cohort, device="cpu", resume=True)
    assert again["dice"] == first["dice"]
    assert (out / "network" / "network.safetensors").read_bytes() == weights
    with pytest.raises(CardiogenError, match="CG-O01"):
        train_segmentation_network(config, out=out, cohort=cohort, device="cpu")


def test_a_network_segments_single_files(cohort, config, tmp_path):
    out = tmp_path / "run"
    train_segmentation_network(config, out=out, cohort=cohort, device="cpu")
    name = json.loads((out / "summary.json").read_text())["subjects"]["test"][0]
    image = cohort / name / "images_ED.nii.gz"
    label_file = tmp_path / "labels.nii.gz"
    segment(image, network=out / "network", out=label_file, label_map_name="acdc", device="cpu")
    subject = next(s for s in read_cohort(out / "predictions") if s.subject_id == name)
    wanted = load_sequence(subject)
    found = read_labels(label_file, label_map="acdc", anatomy=False)
    np.testing.assert_array_equal(found.data, wanted.labels[0])
    assert found.grid.matches(wanted.grid)
    with pytest.raises(CardiogenError, match="CG-O01"):
        segment(image, network=out / "network", out=label_file)
    with pytest.raises(CardiogenError, match="CG-U11"):
        segment(image, network=out / "network", out=tmp_path / "x.nii", label_map_name="none")


@pytest.mark.parametrize("source", ["population", "labels", "bundle"])
def test_synthetic_hearts_of_every_source_are_learned_from(cohort, config, tmp_path, source):
    from cardiogen.engine.bundle import default_bundle_path

    place = {"population": "population", "labels": cohort, "bundle": default_bundle_path()}[source]
    out = tmp_path / "run"
    found = train_segmentation_network(
        config, out=out, cohort=cohort, synthetic=place, device="cpu"
    )
    assert found["synthetic_frames"] == 4
    assert json.loads((out / "summary.json").read_text())["settings"]["data"]["synthetic"] == str(
        place
    )


def test_label_maps_without_images_are_painted(cohort, config, tmp_path):
    bare = tmp_path / "bare"
    for subject in read_cohort(cohort)[:1]:
        place = bare / subject.subject_id
        place.mkdir(parents=True)
        for name in ("ED", "ES"):
            file = f"labels_{name}.nii.gz"
            (place / file).write_bytes((subject.folder / file).read_bytes())
    (bare / "subjects.csv").write_text(f"subject_id,label_map\n{subject.subject_id},acdc\n")
    settings = load_config(SegmentationConfig, config)
    data = settings.data.model_copy(update={"synthetic": str(bare)})
    settings = settings.model_copy(update={"data": data})
    hearts = load_hearts(settings, split_cohort(settings))
    assert len(hearts.synthetic) == 2
    assert hearts.real == hearts.validation == []
    assert hearts.synthetic[0].image.shape[1:] == (32, 32)


def test_wrong_requests_are_named(cohort, config, tmp_path):
    def run(**changes):
        train_segmentation_network(config, **{"out": tmp_path / "run", "cohort": cohort} | changes)

    with pytest.raises(CardiogenError, match="CG-C28 data"):
        run(cohort="")
    with pytest.raises(CardiogenError, match=r"CG-M07 command line: .*augmentation\.arm"):
        run(arm="magic")
    with pytest.raises(CardiogenError, match="CG-L47a"):
        run(cohort=tmp_path / "nowhere")
    with pytest.raises(CardiogenError, match="CG-O02"):
        run(out=cohort.parent / "new" / "..", cohort=cohort)
    with pytest.raises(CardiogenError, match="CG-M47"):
        train_segmentation_network("no_such_preset", out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("change", ["validation = 0", "validation = []"])
def test_a_validation_of_no_heart_is_refused_before_training(cohort, config, tmp_path, change):
    config.write_text(CONFIG.replace("validation = 1", change))
    with pytest.raises(CardiogenError, match=r"CG-C28 data\.validation: .*validate_every = 0"):
        train_segmentation_network(config, out=tmp_path / "run", cohort=cohort, device="cpu")
    # Synthetic hearts alone have none to validate on either.
    config.write_text(CONFIG)
    with pytest.raises(CardiogenError, match=r"CG-C28 data\.validation"):
        train_segmentation_network(config, out=tmp_path / "run", synthetic="population")
    assert not (tmp_path / "run").exists()


def altered(cohort, folder, change):
    """Copy a cohort, its last subject's ED files changed by ``change(labels, image)``."""
    shutil.copytree(cohort, folder)
    place = sorted(p for p in folder.iterdir() if p.is_dir())[-1]
    files = [place / f"{kind}_ED.nii.gz" for kind in ("labels", "images")]
    opened = [nib.load(file) for file in files]
    parts = change(*(np.asarray(each.dataobj) for each in opened))
    for file, each, data in zip(files, opened, parts, strict=True):
        nib.save(nib.Nifti1Image(data, each.affine, each.header), file)
    return folder


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda labels, image: (np.where(labels == 3, 77, labels), image), "L39"),
        (lambda labels, image: (labels * 0, image), "L37"),
        (lambda labels, image: (labels, np.where(image > 1, np.nan, image)), "N26"),
        (lambda labels, image: (labels, image * 0), "N39"),
        (lambda labels, image: (labels, image[:-1]), "L40a"),
    ],
)
def test_damaged_subjects_are_named_before_training(cohort, config, tmp_path, change, code):
    damaged = altered(cohort, tmp_path / "cohort", change)
    everyone = CONFIG.replace("test = 2\nvalidation = 1\n", "")
    config.write_text(everyone.replace("validate_every = 2\nkeep_best = true\n", ""))
    with pytest.raises(CardiogenError, match=f"CG-{code} .*phantom03"):
        train_segmentation_network(config, out=tmp_path / "run", cohort=damaged, device="cpu")
    assert not (tmp_path / "run").exists()


def test_files_that_are_not_there_or_are_none_are_named(cohort, config, tmp_path):
    def run(cohort=cohort):
        train_segmentation_network(config, out=tmp_path / "run", cohort=cohort, device="cpu")

    for image in cohort.glob("*/labels_*.nii.gz"):
        place = tmp_path / "bare" / image.parent.name
        place.mkdir(parents=True, exist_ok=True)
        shutil.copy(image, place)
    shutil.copy(cohort / "subjects.csv", tmp_path / "bare")
    with pytest.raises(CardiogenError, match=r"CG-N37 .*no ED image"):
        run(tmp_path / "bare")
    for text in ("[data\n", "data = [1]", "[fit]\nfoo = 1", "[nothing]\na = 1"):
        config.write_text(text)
        with pytest.raises(CardiogenError, match="CG-M07"):
            run()
    config.unlink()
    with pytest.raises(CardiogenError, match="CG-M47"):
        run()
    assert not (tmp_path / "run").exists()


def test_a_cohort_that_is_too_small_is_named(cohort, config, tmp_path):
    one = tmp_path / "one"
    shutil.copytree(cohort / "phantom00", one / "phantom00")
    (one / "subjects.csv").write_text("subject_id,label_map\nphantom00,acdc\n")
    config.write_text(CONFIG.replace("test = 2", "test = 0"))
    with pytest.raises(CardiogenError, match=r"CG-C28 data\.train: found no subject to train on"):
        train_segmentation_network(config, out=tmp_path / "run", cohort=one, device="cpu")
    assert not (tmp_path / "run").exists()


def test_subjects_to_validate_on_may_wait(cohort, config, tmp_path):
    config.write_text(CONFIG.replace("validate_every = 2\nkeep_best = true\n", ""))
    out = tmp_path / "run"
    train_segmentation_network(config, out=out, cohort=cohort, device="cpu")
    # The patches of the training are watched: nothing is validated.
    assert (out / "collapse.csv").is_file()
    assert not (out / "validation.csv").exists()


def test_a_test_without_a_cohort_is_told(config, tmp_path):
    config.write_text(CONFIG.replace("validate_every = 2\nkeep_best = true\n", ""))
    found = train_segmentation_network(
        config, out=tmp_path / "run", synthetic="population", device="cpu"
    )
    assert found["notes"][0].startswith("C28 data.test: there is no cohort")


def test_a_file_that_could_not_be_written_is_refused_before_the_work(tmp_path):
    for out, code in ((tmp_path / "labels.png", "U12"), (tmp_path / "no" / "labels.nii", "R01")):
        with pytest.raises(CardiogenError, match=f"CG-{code}"):
            segment(tmp_path / "image.nii", network=tmp_path / "network", out=out)


@pytest.mark.parametrize("name", ["small", "large", "synthetic"])
def test_presets_are_settings(name):
    assert load_config(SegmentationConfig, preset_path(f"segmentation/{name}")).fit.steps >= 1000


def test_the_commands_answer_like_the_functions(cohort, config, tmp_path):
    app = typer.Typer()
    add_segmentation_commands(app)
    runner, out = CliRunner(), tmp_path / "run"
    told = runner.invoke(app, ["train-segmentation", "--config", str(config), "--out", str(out),
                               "--cohort", str(cohort), "--device", "cpu", "--json"])  # fmt: skip
    assert told.exit_code == 0
    facts = json.loads(told.stdout)
    assert facts["folder"] == str(out)
    assert facts["steps"] == 4
    image = next(cohort.glob("*/images_ED.nii.gz"))
    labels = tmp_path / "labels.nii"
    told = runner.invoke(app, ["segment", str(image), "--network", str(out / "network"),
                               "--out", str(labels), "--device", "cpu"])  # fmt: skip
    assert told.exit_code == 0
    assert told.stdout.strip() == str(labels)
    assert labels.is_file()

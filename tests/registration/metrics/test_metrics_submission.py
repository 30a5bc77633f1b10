"""Files of Learn2Reg: datasets, configs, displacement fields, and a task scored from disk."""

import json

import nibabel as nib
import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter, map_coordinates

from cardiogen.base import CardiogenError
from cardiogen.data import Grid
from cardiogen.ops import warp
from cardiogen.transforms import read_learn2reg
from registration.metrics import (
    EvaluationConfig,
    EvaluationMethod,
    L2RDataset,
    Pair,
    evaluate_registration,
    evaluation_config,
    find_submission,
    read_dataset,
    read_evaluation_config,
    score_submission,
    write_dataset,
    write_evaluation_config,
    write_scores,
    write_submission,
)

SHAPE = (7, 10, 13)
GRID = Grid.regular(SHAPE, (2.5, 1.4, 1.9), axes=np.eye(3)[:, ::-1])
PAIR = Pair("./imagesTr/HEART_0001_0000.nii.gz", "./imagesTr/HEART_0001_0001.nii.gz")
OTHER = Pair("./imagesTr/HEART_0002_0000.nii.gz", "./imagesTr/HEART_0003_0000.nii.gz")
METHODS = (
    EvaluationMethod("LogJacDetStd", "sdlogj"),
    EvaluationMethod("DSC", "dice", labels=(1, 2, 3)),
    EvaluationMethod("HD95", "hd95", labels=(1, 2, 3)),
    EvaluationMethod("TRE_lm", "tre", dest="landmarks"),
)
DATASET = L2RDataset(
    "HEART", SHAPE[::-1],
    training=({"image": PAIR.fixed, "label": "./labelsTr/HEART_0001_0000.nii.gz"},),
    training_pairs=({"0": PAIR.fixed, "1": PAIR.moving},),
    validation=(PAIR, OTHER),
    test=(OTHER,),
    extra={"modality": {"0": "MR"}, "numTraining": 1, "licence": "none"},
)  # fmt: skip


def smooth(seed):
    noise = np.random.default_rng(seed).normal(size=(3, *SHAPE))
    field = 10 * np.stack([gaussian_filter(component, 1.5) for component in noise])
    return torch.from_numpy(field.astype(np.float32))[None]


def test_the_file_pulls_as_learn2reg_pulls_and_as_we_do(tmp_path):
    """moving(identity + array) in (x, y, z) is warp(moving, displacement) in (d, h, w)."""
    field = smooth(4)
    array = np.load(write_submission(tmp_path, PAIR, field, GRID))["arr_0"]
    moving = torch.rand(1, 1, *SHAPE, generator=torch.Generator().manual_seed(0))
    coords = np.indices(SHAPE[::-1]) + np.moveaxis(array, -1, 0)
    theirs = map_coordinates(moving[0, 0].numpy().T, coords, order=1, mode="nearest")
    np.testing.assert_allclose(theirs.T, warp(moving, field)[0, 0].numpy(), atol=1e-5)


@pytest.mark.parametrize("form", ["npz", "nii.gz"])
def test_files_are_named_by_their_pair(tmp_path, form):
    for pair, name in ((PAIR, "disp_0001_0001"), (OTHER, "disp_0002_0000_0003_0000")):
        path = write_submission(tmp_path, pair, smooth(1), GRID, form=form)
        assert path == tmp_path / f"{name}.{form}"
        assert find_submission(tmp_path, pair) == path
        assert torch.equal(read_learn2reg(path, GRID).displacement(), smooth(1))
        with pytest.raises(CardiogenError, match="CG-O01"):
            write_submission(tmp_path, pair, smooth(1), GRID, form=form)
        write_submission(
            tmp_path, pair, torch.zeros(1, 3, *SHAPE), GRID, form=form, overwrite=True
        )
        assert not read_learn2reg(path, GRID).displacement().any()
    with pytest.raises(ValueError, match="form must be"):
        write_submission(tmp_path, PAIR, smooth(1), GRID, form="mat")


def test_names_are_tried_in_order(tmp_path):
    long, short = tmp_path / "disp_0001_0000_0001_0001", tmp_path / "disp_0001_0001"
    for stem in (long, short):
        for form in ("nii.gz", "npz"):
            path = stem.with_name(f"{stem.name}.{form}")
            path.write_bytes(b"")
            assert find_submission(tmp_path, PAIR) == path


def test_short_names_are_for_modalities_0_and_1_only(tmp_path):
    write_submission(tmp_path, OTHER, smooth(0), GRID).rename(tmp_path / "disp_0002_0003.npz")
    with pytest.raises(CardiogenError, match=r"CG-N60 .*disp_0002_0000_0003_0000.npz"):
        find_submission(tmp_path, OTHER)


def test_files_of_other_writers_are_scored_alike(task):
    """As nibabel and NumPy write them: float64, identity affine, any name of the array."""
    truth, folder, _ = task
    config = EvaluationConfig("HEART", METHODS, (13, 10, 7, 3), (PAIR,))
    expected = score_submission(folder, truth, config)
    path = folder / "disp_0001_0001.npz"
    array = np.load(path)["arr_0"].astype(np.float64)
    np.savez(path, field=np.asfortranarray(array))
    assert score_submission(folder, truth, config) == expected
    path.unlink()
    nib.save(nib.Nifti1Image(array, np.eye(4)), folder / "disp_0001_0001.nii.gz")
    assert score_submission(folder, truth, config) == expected


def test_datasets_and_configs_come_back(tmp_path):
    write_dataset(tmp_path / "HEART_dataset.json", DATASET)
    assert read_dataset(tmp_path / "HEART_dataset.json") == DATASET
    stored = json.loads((tmp_path / "HEART_dataset.json").read_text())
    assert stored["tensorImageShape"] == {"0": [13, 10, 7]}
    assert stored["registration_val"][0] == {"fixed": PAIR.fixed, "moving": PAIR.moving}
    config = evaluation_config(DATASET, METHODS, masked=True)
    assert config.pairs == (PAIR, OTHER)
    assert evaluation_config(DATASET, METHODS, split="test").pairs == (OTHER,)
    write_evaluation_config(tmp_path / "config.json", config)
    assert read_evaluation_config(tmp_path / "config.json") == config
    stored = json.loads((tmp_path / "config.json").read_text())
    assert stored["expected_shape"] == [13, 10, 7, 3]
    assert stored["evaluation_methods"][1] == {
        "name": "DSC", "metric": "dice", "labels": [1, 2, 3],
    }  # fmt: skip
    with pytest.raises(CardiogenError, match="CG-O01"):
        write_dataset(tmp_path / "HEART_dataset.json", DATASET)


def test_shapes_of_other_modalities_are_kept(tmp_path):
    write_dataset(tmp_path / "one.json", DATASET)
    content = json.loads((tmp_path / "one.json").read_text())
    content["tensorImageShape"]["1"] = [4, 5, 6]
    (tmp_path / "two.json").write_text(json.dumps(content))
    write_dataset(tmp_path / "three.json", read_dataset(tmp_path / "two.json"))
    assert json.loads((tmp_path / "three.json").read_text()) == content


def edited(content, path, value):
    *keys, last = path
    inner = content
    for key in keys:
        inner = inner[key]
    inner[last] = value
    return json.dumps(content)


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        (("expected_shape",), [13, 10, 7], "expected_shape"),
        (("expected_shape",), [13, 10, 7, 3.0], "expected_shape"),
        (("evaluation_methods", 0, "metric"), "nmi", "a metric of sdlogj"),
        (("evaluation_methods", 1, "labels"), ["1"], "labels"),
        (("evaluation_methods", 1, "name"), "HD95", "names that differ"),
        (("evaluation_methods", 3, "dest"), "../secret", "name of a folder"),
        (("evaluation_methods",), {}, "evaluation_methods as list"),
        (("eval_pairs",), [], "at least one pair"),
        (("task_name",), 5, "task_name as str"),
        (("masked_evaluation",), "yes", "masked_evaluation as bool"),
        (("eval_pairs", 0), "x", "eval_pairs"),
        (("eval_pairs", 0, "fixed"), "../../HEART_0001_0000.nii.gz", "inside of it"),
        (("eval_pairs", 0, "fixed"), "/etc/HEART_0001_0000.nii.gz", "inside of it"),
        (("eval_pairs", 0, "fixed"), "./imagesTr/heart.nii.gz", "_0001_0000.nii.gz"),
    ],
)
def test_bad_configs_are_refused(tmp_path, path, value, words):
    write_evaluation_config(tmp_path / "config.json", evaluation_config(DATASET, METHODS))
    content = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(edited(content, path, value))
    with pytest.raises(CardiogenError, match=f"CG-C40 .*{words}"):
        read_evaluation_config(tmp_path / "config.json")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[]", "an object"),
        ("{", "valid JSON"),
        ("{}", "tensorImageShape as dict"),
        ('{"name": "A", "tensorImageShape": {"0": [0, 1, 2]}}', "tensorImageShape"),
        ('{"name": "A", "tensorImageShape": {"0": [3, 1, 2]}, "training": [1]}', "training"),
    ],
)
def test_bad_datasets_are_refused(tmp_path, text, words):
    (tmp_path / "dataset.json").write_text(text)
    with pytest.raises(CardiogenError, match=f"CG-C40 .*{words}"):
        read_dataset(tmp_path / "dataset.json")


def store(path, array):
    """Write ``(D, H, W)`` as another tool would: array (X, Y, Z), spacing in a diagonal affine."""
    path.parent.mkdir(exist_ok=True)
    spacing = (*GRID.spacing[::-1], 1.0)
    nib.save(nib.Nifti1Image(array.T.astype(np.int16), np.diag(spacing)), path)


@pytest.fixture
def task(tmp_path):
    """Ground truth and submission of two cases on disk, and the same in memory."""
    truth, folder = tmp_path / "truth", tmp_path / "submission"
    truth.mkdir()
    folder.mkdir()
    rng, cases = np.random.default_rng(0), []
    for number, pair in enumerate((PAIR, OTHER)):
        labels, points = [], []
        for image in (pair.fixed, pair.moving):
            name = image.rsplit("/", 1)[1]
            store(truth / "imagesTr" / name, rng.integers(0, 99, size=SHAPE))
            labels.append(rng.integers(0, 4, size=SHAPE))
            store(truth / "labelsTr" / name, labels[-1])
            points.append(rng.uniform(0, 6, size=(5, 3)))
            csv = truth / "landmarksTr" / name.replace(".nii.gz", ".csv")
            csv.parent.mkdir(exist_ok=True)
            np.savetxt(csv, points[-1][:, ::-1], delimiter=",")
        field = smooth(number)
        write_submission(folder, pair, field, GRID)
        cases.append((pair, field, labels, points))
    return truth, folder, cases


def test_a_task_scored_from_disk_equals_the_same_in_memory(task, tmp_path):
    truth, folder, cases = task
    scores = score_submission(folder, truth, evaluation_config(DATASET, METHODS))
    assert list(scores.cases) == ["0001_0000<--0001_0001", "0002_0000<--0003_0000"]
    means = {method.name: [] for method in METHODS}
    for pair, field, (fixed, moving), (fixed_points, moving_points) in cases:
        found = evaluate_registration(
            field, GRID, fixed_labels=fixed, moving_labels=moving, mode="l2r",
            fixed_points_mm=GRID.to_world(fixed_points),
            moving_points_mm=GRID.to_world(moving_points),
        )  # fmt: skip
        case = scores.cases[pair.case]
        assert case["LogJacDetStd"].mean == pytest.approx(found.field.sdlogj, abs=1e-9)
        assert case["DSC"].mean == pytest.approx(found.mean_dice, abs=1e-12)
        assert case["HD95"].mean == pytest.approx(found.mean_hd95_mm, abs=1e-12)
        assert case["TRE_lm"].mean == pytest.approx(found.landmarks.tre_mm, abs=1e-5)
        assert len(case["DSC"].detailed) == 3
        assert len(case["TRE_lm"].detailed) == 5
        assert case["num_foldings"].mean == 0.0
        for name in means:
            means[name].append(case[name].mean)
    for name, values in means.items():
        low, high = sorted(values)
        share = 0.3 if name in ("DSC", "HD95") else 0.7
        assert scores.aggregates[name].mean == pytest.approx((low + high) / 2)
        assert scores.aggregates[name].std == pytest.approx((high - low) / 2)
        assert scores.aggregates[name].quantile30 == pytest.approx(low + share * (high - low))
    write_scores(tmp_path / "metrics.json", scores)
    stored = json.loads((tmp_path / "metrics.json").read_text())
    assert stored["aggregates"]["DSC"]["30"] == scores.aggregates["DSC"].quantile30
    assert set(stored) == {"name", "aggregates", "cases", "eval_version"}


def test_masks_and_their_absence(task):
    truth, folder, cases = task
    mask = np.zeros(SHAPE, int)
    mask[2:5, 3:8, 3:9] = 1
    store(truth / "masksTr" / "HEART_0001_0000.nii.gz", mask)
    config = EvaluationConfig("HEART", METHODS[:1], (13, 10, 7, 3), (PAIR, OTHER), masked=True)
    scores = score_submission(folder, truth, config)
    for (pair, field, _, _), region in zip(cases, (mask, None), strict=True):
        found = evaluate_registration(field, GRID, mask=region, mode="l2r")
        assert scores.cases[pair.case]["LogJacDetStd"].mean == pytest.approx(found.field.sdlogj)
    assert [note.code for note in scores.notes] == ["C42"]


def test_faults_of_a_task_are_named(task):
    truth, folder, _ = task
    config = evaluation_config(DATASET, METHODS)
    with pytest.raises(ValueError, match="pairs must not be empty"):
        score_submission(folder, truth, EvaluationConfig("HEART", METHODS, (13, 10, 7, 3), ()))
    wrong = EvaluationConfig("HEART", METHODS, (13, 10, 8, 3), config.pairs)
    with pytest.raises(CardiogenError, match=r"CG-S74 .*disp_0001_0001.npz.*\(13, 10, 7, 3\)"):
        score_submission(folder, truth, wrong)
    points = truth / "landmarksTr" / "HEART_0001_0001.csv"
    whole = points.read_text()
    for text, words in (
        ("1,2\n", "three finite numbers"),
        ("1,2,nan\n", "three finite numbers"),
        ("x,y,z\n", "three numbers"),
        ("", "one landmark per line"),
        (whole.split("\n")[0], "1 points"),
    ):
        points.write_text(text)
        with pytest.raises(CardiogenError, match=f"CG-C41 .*{words}"):
            score_submission(folder, truth, config)
    points.write_text(whole)
    store(truth / "labelsTr" / "HEART_0001_0000.nii.gz", np.ones((7, 10, 12), int))
    with pytest.raises(CardiogenError, match=r"CG-S70 .*labels of shape"):
        score_submission(folder, truth, config)
    (folder / "disp_0002_0000_0003_0000.npz").unlink()
    with pytest.raises(CardiogenError, match=r"CG-N60 .*0002_0000<--0003_0000"):
        score_submission(folder, truth, config)


def test_other_pairs_of_modalities_have_landmarks_of_their_own(task):
    """0001 onto 0000: the folder's name takes both, in order."""
    truth, folder, _ = task
    pair = Pair(PAIR.moving, PAIR.fixed)
    write_submission(folder, pair, torch.zeros(1, 3, *SHAPE), GRID)
    config = EvaluationConfig("HEART", METHODS[3:], (13, 10, 7, 3), (pair,))
    with pytest.raises(CardiogenError, match="landmarks00000001Tr"):
        score_submission(folder, truth, config)
    own = truth / "landmarks00000001Tr"
    own.mkdir()
    for name in ("HEART_0001_0000.csv", "HEART_0001_0001.csv"):
        (own / name).write_text("1,2,3\n4,5,6\n")
    assert score_submission(folder, truth, config).aggregates["TRE_lm"].mean == 0.0

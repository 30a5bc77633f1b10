"""``cardiogen train`` of networks: ended and gone on with, checked before hearts are made."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path

import pytest

PROGRAM = [sys.executable, "-c", "from cardiogen.cli import main; main()"]
LABELS = """
shape = [19, 17, 18]
spacing_mm = [7.5, 7.5, 7.5]
widths = [4, 8]
latent = 3
code = 4
"""
MESH = """
latents = 3
harmonics = 1
shape_modes = 6
noise_modes = 3
width = 16
heads = 2
layers = 1
memory = 2
channels = [4, 6]
condition_width = 8
"""
NETWORKS = {
    "mesh": f"frames = 3\n[network]{MESH}",
    "volume": f"[network]{LABELS}",
    "sequence": f"[network]\nframes = 3\nframes_per_step = 2{LABELS}",
}
STEPS = 40


def settings(kind, fit=""):
    return (
        f'model = "{kind}"\nn = 64\n{NETWORKS[kind]}'
        f"[network.fit]\nsteps = {STEPS}\nbatch_size = 4\nlog_every = 5\nema_decay = 0.9\n{fit}"
    )


def program(folder, *arguments):
    """A process of its own: threads and signals as a user has them."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen(
        [*PROGRAM, "train", "--config", "c.toml", "--device", "cpu", *arguments], cwd=folder,
        env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def ended(process):
    """Exit status and what was told."""
    told = process.communicate()[1]
    return process.returncode, told


def wait_for(path, process, seconds=120):
    end = time.monotonic() + seconds
    while not path.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.005)


@pytest.mark.parametrize("kind", NETWORKS)
def test_a_training_that_was_ended_goes_on_to_the_same_bits(tmp_path, tree, kind):
    (tmp_path / "c.toml").write_text(settings(kind, "checkpoint_every = 2\n"))
    code, told = ended(program(tmp_path, "--out", "whole"))
    assert code == 0, told
    process = program(tmp_path, "--out", "cut")
    wait_for(tmp_path / "cut.run" / "checkpoints" / "step-000000004", process)
    process.send_signal(signal.SIGTERM)
    code, told = ended(process)
    assert code == 75, told
    assert "CG-R75" in told
    assert not (tmp_path / "cut").exists()
    code, told = ended(program(tmp_path, "--out", "cut", "--resume"))
    assert code == 0, told
    assert tree(tmp_path / "cut") == tree(tmp_path / "whole")
    logs = [rows(tmp_path / f"{name}.run" / "log.csv") for name in ("cut", "whole")]
    assert logs[0] == logs[1]
    assert len(logs[0]) == STEPS // 5
    # The bundle holds the weights now, and nothing stands in the way of another training.
    assert list((tmp_path / "cut.run" / "checkpoints").iterdir()) == []


def rows(path: Path):
    with path.open(newline="") as stream:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(stream)]


@pytest.mark.parametrize("kind", NETWORKS)
def test_weights_are_validated_on_hearts_of_their_own(run, tmp_path, monkeypatch, kind):
    asked = {}

    def seen(examples, config, **given):
        held = given["held_out" if kind == "mesh" else "validation"]
        asked[bool(config.fit.validate_every)] = (examples, held)
        return trainer(examples, config, **given)

    where = f"cardiogen.models.{kind}.train_{kind}"
    trainer = import_module(f"cardiogen.models.{kind}").__dict__[f"train_{kind}"]
    monkeypatch.setattr(where, seen)
    for name, fit in (("no", ""), ("held", "validate_every = 20\nkeep_best = true\n")):
        (tmp_path / "c.toml").write_text(settings(kind, fit))
        ran = run("train", "--config", "c.toml", "--device", "cpu", "--out", name)
        assert ran.code == 0, ran.err
    (plain, none), (examples, held) = asked[False], asked[True]
    assert none is None
    assert (len(plain), len(held)) == (64, 6)
    assert examples.fingerprint() == plain.fingerprint()
    known, new = (conditions(e) for e in (examples, held))
    assert not known & new
    assert len(known | new) == 70
    assert [row["step"] for row in rows(tmp_path / "held.run" / "validation.csv")] == ["20", "40"]


def conditions(examples):
    found = examples.conditions
    return {tuple(row.tolist()) for row in (found() if callable(found) else found)}


@pytest.fixture
def no_hearts(monkeypatch):
    """Fails where hearts are made: refusals come before that."""

    def made(*arguments, **options):
        pytest.fail("hearts were made")

    monkeypatch.setattr("cardiogen.models.mesh.population_meshes", made)
    monkeypatch.setattr("cardiogen.models.voxel.population_examples", made)


@pytest.mark.parametrize("kind", NETWORKS)
def test_faults_of_a_run_are_told_before_hearts_are_made(
    refused, tmp_path, monkeypatch, no_hearts, kind
):
    (tmp_path / "c.toml").write_text(settings(kind))
    train = ("train", "--config", "c.toml", "--out", "b")
    with monkeypatch.context() as patch:
        patch.setattr("cardiogen.engine.fit.processes.importlib.util.find_spec", lambda _: None)
        refused(*train, "--device", "cpu", "--nodes", "2", status=2, code="U30")
    begun = tmp_path / "b.run" / "checkpoints" / "step-000000004"
    begun.mkdir(parents=True)
    (begun / "state.json").write_text(json.dumps({}))
    refused(*train, status=8, code="O01", words="--resume")


@pytest.mark.parametrize("kind", ["linear", "pca", "deformation"])
@pytest.mark.parametrize("flags", [("--resume",), ("--devices", "1"), ("--nodes", "1"),
                                   ("--device", "cpu")])  # fmt: skip
def test_flags_of_networks_are_refused_beside_models_without(refused, kind, flags):
    refused("train", "--model", kind, "--out", "b", *flags, status=2, code="U01",
            words=f"{flags[0][2:]}: found set, but without a use")  # fmt: skip

"""``cardiogen train``, and what ``generate`` does with sound and with damaged bundles."""

import json
import os
import shutil

import pytest

SMALL = ("--phase-only", "ed", "--format", "csv", "--spacing", "4")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    from cardiogen.cli.train import train

    return train(tmp_path_factory.mktemp("bundle") / "b", n=200, seed=3)


def test_bundle_is_whole_and_generates(run, tmp_path, bundle):
    description = json.loads((bundle / "model.json").read_text())
    assert description["training_data"] == {"cohort": "population", "n": 200, "seed": 3}
    assert {p.name for p in bundle.iterdir()} - {".cardiogen-output"} == {
        "model.safetensors", "model.json", "card.md"
    }  # fmt: skip
    assert run("generate", "--model", bundle, "--out", "x", *SMALL).code == 0
    facts = json.loads((tmp_path / "x" / "parameters.json").read_text())
    assert facts["model"]["weights_sha256"] == description["weights_sha256"]


def test_same_seed_same_bytes(run, tmp_path, bundle, tree):
    assert run("train", "--out", "b", "-n", "200", "--seed", "3", "--json").json == {"bundle": "b"}
    assert tree(tmp_path / "b") == tree(bundle)


def test_requests_that_are_refused(refused, tmp_path):
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "file").write_text("precious")
    for name, text in (("odd", "n = 200\nepochs = 3"), ("neg", "n = -1"), ("yaml", "n: 200"),
                       ("text", 'n = "many"'), ("twice", "n = 200\nn = 300")):  # fmt: skip
        (tmp_path / f"{name}.toml").write_text(text)
        refused("train", "--out", "b", "--config", f"{name}.toml", status=4, code="M07")
    refused("train", "--out", "b", "--config", "odd.toml", status=4, code="M07", words="epochs")
    refused("train", "--out", "b", "--config", "no.toml", status=4, code="M47")
    refused("train", "--out", "kept", status=8, code="O01")
    refused("train", "--out", "kept", "--overwrite", status=8, code="O03")


@pytest.mark.parametrize("flags", [("-n", "200"), ("--seed", "0"), ("--cohort", "population")])
def test_flags_beside_a_config_are_refused(refused, tmp_path, flags):
    (tmp_path / "c.toml").write_text("n = 300")
    name = flags[0].lstrip("-")
    for config in ("c.toml", "linear"):
        refused("train", "--out", "b", "--config", config, *flags, status=2, code="U01",
                words=f"found {name} beside a file")  # fmt: skip


@pytest.mark.parametrize(
    ("flags", "status", "code", "words"),
    [
        (("--model", "gan"), 2, "U01", "--model: found gan; expected linear, pca, deformation"),
        (("--seed", "-1"), 2, "U01", "--seed: found -1; expected greater"),
        (("-n", "0"), 2, "U01", "-n: found 0; expected greater"),
        (("-n", "2000000"), 2, "U01", "-n: found 2000000; expected less"),
        (("--base", "b"), 2, "U01", "--base: found b beside --model linear"),
        (("--model", "mesh", "--cohort", "c"), 2, "U01", "--cohort: found c beside --model mesh"),
        (("-n", "3"), 3, "C28", "-n: found 3 training hearts; expected at least 40"),
        (("--model", "mesh", "-n", "3"), 3, "C28", "-n: found 3 training hearts"),
        (("--model", "deformation", "-n", "3"), 3, "C28", "-n: found 3 training hearts"),
    ],
)
def test_faults_of_flags_are_no_faults_of_a_config(refused, flags, status, code, words):
    line = refused("train", "--out", "b", *flags, status=status, code=code, words=words)
    assert "config" not in line
    assert "keys" not in line


def test_a_config_of_another_model_than_asked_for_is_refused(refused, tmp_path):
    (tmp_path / "c.toml").write_text("n = 300")
    for config, kind in (("c.toml", "linear"), ("volume_small", "volume")):
        refused("train", "--out", "b", "--config", config, "--model", "sequence", status=2,
                code="U01", words=f"--model: found sequence; expected {kind}, as")  # fmt: skip


def test_command_trains_on_one_thread_with_the_settings_asked_for(run, monkeypatch):
    seen = []

    def examples(n, seed):
        seen.append((n, seed, os.environ.get("OMP_NUM_THREADS")))
        raise KeyboardInterrupt

    monkeypatch.setattr("cardiogen.cli.train.population_examples", examples)
    named = ("--config", "linear", "--model", "linear")
    for flags in ((), ("--config", "linear"), named, ("-n", "300", "--seed", "7")):
        monkeypatch.delenv("OMP_NUM_THREADS")
        assert run("train", "--out", "b", *flags).code == 130
    assert seen == [(2000, 0, "1"), *[(12000, 2024, "1")] * 2, (300, 7, "1")]


def test_a_network_that_makes_no_heart_yet_is_told(monkeypatch, capsys):
    from pathlib import Path

    from cardiogen.cli import train as command

    def empty(model):
        raise ValueError("no blood")

    monkeypatch.setattr(command, "require_sound", lambda model: None)
    command._tell_if_unfinished(Path("x/b"), object())
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(command, "require_sound", empty)
    command._tell_if_unfinished(Path("x/b"), object())
    assert "note M54 b: the network makes no heart yet (no blood)" in capsys.readouterr().err


@pytest.mark.slow
def test_mesh_model_is_trained_and_generates(run, tmp_path):
    (tmp_path / "m.toml").write_text(
        'model = "mesh"\nn = 60\nframes = 5\n[network]\nlatents = 8\n[network.fit]\nsteps = 20\n'
    )
    assert run("train", "--config", "m.toml", "--out", "b").code == 0
    made = run("generate", "--model", "b", "--age", "60", "--out", "x", *SMALL)
    assert made.code == 0


def damage(name, change):
    def apply(folder):
        path = folder / name
        path.write_bytes(change(bytearray(path.read_bytes())))

    return apply


def flip(content):
    content[len(content) // 2] ^= 1
    return content


@pytest.mark.parametrize(
    "hurt",
    [damage("model.safetensors", flip), damage("model.safetensors", lambda c: c[:-9]),
     damage("model.safetensors", lambda c: b""), damage("model.json", lambda c: b"{}"),
     damage("model.json", lambda c: c.replace(b'"linear"', b'"linaer"')),
     damage("model.json", lambda c: c.replace(b"200", b"NaN", 1)),
     lambda folder: (folder / "model.json").unlink(),
     lambda folder: (folder / "model.safetensors").unlink()],
)  # fmt: skip
def test_damaged_bundle_is_refused(run, tmp_path, bundle, hurt):
    shutil.copytree(bundle, tmp_path / "hurt")
    hurt(tmp_path / "hurt")
    ran = run("generate", "--model", "hurt", "--out", "x", *SMALL)
    assert ran.code == 4
    (line,) = ran.err.splitlines()
    assert line.startswith("cardiogen: CG-M")
    assert not (tmp_path / "x").exists()

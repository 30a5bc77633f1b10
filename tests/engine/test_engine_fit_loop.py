"""The training loop: it minimizes, it resumes bit for bit, and it refuses what it should."""

import csv
import importlib.util
import io
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from cardiogen.base import CardiogenError, Exit
from cardiogen.engine.config import build_config, load_config
from cardiogen.engine.fit import (
    FitConfig,
    draw_latent,
    example_indices,
    fit,
    gaussian_kl,
    keyed_layers,
    kl_loss,
    learning_rate,
)
from cardiogen.engine.fit.checkpoint import find_checkpoints
from cardiogen.engine.fit.step import clip_gradient

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = {
    "steps": 23, "batch_size": 6, "learning_rate": 0.01, "warmup_steps": 4, "weight_decay": 0.1,
    "ema_decay": 0.9, "beta_max": 0.5, "beta_warmup_steps": 7, "free_bits": 0.05, "seed": 3,
    "checkpoint_every": 5, "log_every": 4, "validate_every": 6, "keep_best": True,
}  # fmt: skip


class TinyVAE(nn.Module):
    """Five numbers, two latents; with dropout, batch statistics and a buffer that is not kept."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Linear(5, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Dropout(0.2)
        )
        self.heads, self.decoder = nn.Linear(8, 4), nn.Linear(2, 5)
        self.register_buffer("passing", torch.ones(3), persistent=False)


class TinyTask:
    """Points on a curve in five dimensions; augmentation and latents both draw noise."""

    def __init__(self, *, count=37, slow_s=0.0, bad=()):
        with keyed_layers(11, "tiny/init"):
            self.module = TinyVAE()
        self.slow_s, self.bad = slow_s, bad
        angle = torch.arange(count)[:, None] * torch.arange(1.0, 6.0) / 7.0
        self.points, self.seen = torch.sin(angle), []

    def __len__(self):
        return len(self.points)

    def batch(self, indices, generator):
        self.seen += list(indices)
        time.sleep(self.slow_s)
        noise = torch.randn((len(indices), 5), generator=generator)
        return {"points": self.points[torch.tensor(indices)] + 0.01 * noise}

    def loss(self, batch, *, step, generator):
        module, points = self.module, batch["points"]
        mean, log_var = module.heads(module.encoder(points)).chunk(2, dim=1)
        kl = gaussian_kl(mean, log_var)
        decoded = module.decoder(draw_latent(mean, log_var, generator=generator))
        error = (decoded - points).square().sum(dim=1).mean()
        total = error + step.kl_weight * kl_loss(kl, free_bits=step.free_bits)
        if step.step in self.bad:
            total = total * math.nan
        return {"loss": total, "error": error, "kl_per_latent": kl.mean(dim=0)}

    def validate(self, module):
        points = self.points.to(module.heads.weight.device)
        mean, _ = module.heads(module.encoder(points)).chunk(2, dim=1)
        return {"loss": float((module.decoder(mean) - points).square().mean())}


class Line(nn.Module):
    def __init__(self, dtype=torch.float64):
        super().__init__()
        self.slope = nn.Parameter(torch.zeros(3, 1, dtype=dtype))
        self.offset = nn.Parameter(torch.zeros(1, dtype=dtype))


class Regression:
    """Least squares, whose minimum is known."""

    def __init__(self, dtype=torch.float64):
        self.module = Line(dtype)
        t = torch.arange(40, dtype=dtype)
        self.x = torch.stack([torch.sin(t), torch.cos(2 * t), t / 40], dim=1)
        self.y = self.x @ torch.tensor([[1.5], [-2.0], [0.5]], dtype=dtype) + 0.3
        self.y += 0.1 * torch.sin(5 * t)[:, None]

    def __len__(self):
        return len(self.x)

    def batch(self, indices, generator):
        index = torch.tensor(indices)
        return self.x[index], self.y[index]

    def loss(self, batch, *, step, generator):
        x, y = batch
        return {"loss": (x @ self.module.slope + self.module.offset - y).square().mean()}


def settings(**changes):
    return FitConfig(**SETTINGS | changes)


def weights(module):
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def without_seconds(folder):
    with (folder / "log.csv").open() as stream:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(stream)]


class Killed(Exception):
    pass


class DyingTask(TinyTask):
    """Dies while the batch of a step is made, as if the power went."""

    def __init__(self, at):
        super().__init__()
        self.calls_left = at

    def batch(self, indices, generator):
        if self.calls_left == 0:
            raise Killed("the power went")
        self.calls_left -= 1
        return super().batch(indices, generator)


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """An uninterrupted run: its folder and its result."""
    folder = tmp_path_factory.mktemp("straight")
    task = TinyTask()
    fitted = fit(task, settings(), folder=folder, device="cpu")
    return folder, fitted


def test_least_squares_is_found():
    task = Regression()
    config = FitConfig(
        steps=1500, batch_size=40, learning_rate=0.05, gradient_clip=0.0, final_share=0.0
    )
    fitted = fit(task, config, device="cpu")
    design = np.concatenate([task.x.numpy(), np.ones((40, 1))], axis=1)
    best = np.linalg.lstsq(design, task.y.numpy(), rcond=None)[0][:, 0]
    found = torch.cat([fitted.module.slope[:, 0], fitted.module.offset]).detach().numpy()
    np.testing.assert_allclose(found, best, atol=1e-6)
    assert fitted.history[-1]["loss"] < fitted.history[0]["loss"]
    assert fitted.checkpoint is None
    assert fitted.active_units is None
    assert fitted.steps == 1500


def test_a_run_killed_after_any_step_resumes_bit_for_bit(tmp_path, straight):
    folder, expected = straight
    rng = np.random.default_rng(5)
    for number, first in enumerate(rng.integers(1, 22, size=10)):
        here = tmp_path / str(number)
        with pytest.raises(Killed, match="power"):
            fit(DyingTask(int(first)), settings(), folder=here, device="cpu")
        # A second death, after the first resumption.
        try:
            fit(DyingTask(7), settings(checkpoint_every=3), folder=here, resume=True, device="cpu")
        except Killed:
            fitted = fit(TinyTask(), settings(), folder=here, resume=True, device="cpu")
            assert same(weights(fitted.module), weights(expected.module))
        raw, raw_expected = (newest_tensors(f) for f in (here, folder))
        assert same(raw, raw_expected)
        assert {name.split(".")[0] for name in raw} == {"weights", "average", "best", "optimizer"}
        assert without_seconds(here) == without_seconds(folder)
        assert (here / "validation.csv").read_text() == (folder / "validation.csv").read_text()


def newest_tensors(folder):
    from safetensors.torch import load_file

    return load_file(find_checkpoints(folder / "checkpoints")[0] / "state.safetensors")


def test_the_log_has_every_row_once_and_the_result_says_the_same(straight):
    folder, fitted = straight
    rows = without_seconds(folder)
    assert [int(row["step"]) for row in rows] == [4, 8, 12, 16, 20, 23]
    for row, kept in zip(rows, fitted.history, strict=True):
        assert {k: float(v) for k, v in row.items()} == {
            k: v for k, v in kept.items() if k != "seconds"
        }
    assert float(rows[1]["learning_rate"]) == learning_rate(settings(), 7)
    assert [row["step"] for row in fitted.validation] == [6, 12, 18, 23]
    assert fitted.active_units == fitted.history[-1]["active_units"]
    assert fitted.checkpoint == find_checkpoints(folder / "checkpoints")[0]
    assert len(find_checkpoints(folder / "checkpoints")) == 2
    assert sorted(p.name for p in folder.iterdir() if p.name != "tensorboard") == [
        ".lock", "checkpoints", "log.csv", "validation.csv",
    ]  # fmt: skip


def test_a_finished_run_resumes_to_the_same_weights(tmp_path, straight):
    folder, expected = straight
    again = fit(TinyTask(), settings(), folder=folder, resume=True, device="cpu")
    assert same(weights(again.module), weights(expected.module))
    assert again.history == expected.history
    assert again.best_step == expected.best_step


def test_the_best_weights_are_returned(straight):
    _, fitted = straight
    best = min(fitted.validation, key=lambda row: row["loss"])
    assert fitted.best_step == best["step"]
    with torch.no_grad():
        assert TinyTask().validate(fitted.module)["loss"] == best["loss"]
    assert not fitted.module.training


def test_prefetching_changes_nothing(straight):
    fitted = fit(TinyTask(), settings(prefetch=3), device="cpu")
    assert same(weights(fitted.module), weights(straight[1].module))


def test_the_average_is_the_recursion_of_the_weights(tmp_path):
    seen = []

    class Watched(Regression):
        def loss(self, batch, *, step, generator):
            seen.append(self.module.slope.detach().clone())
            return super().loss(batch, step=step, generator=generator)

    task = Watched()
    config = FitConfig(steps=30, batch_size=8, learning_rate=0.1, ema_decay=0.8)
    fitted = fit(task, config, folder=tmp_path, device="cpu")
    seen.append(newest_tensors(tmp_path)["weights.slope"])
    average = seen[0]
    for step, slope in enumerate(seen[1:]):
        decay = min(0.8, (1 + step) / (10 + step))
        average = decay * average + (1 - decay) * slope
    torch.testing.assert_close(fitted.module.slope.detach(), average)
    assert fitted.module is task.module


def test_shares_of_a_batch_add_up_to_it():
    found = []
    for accumulate in (1, 3, 7):
        config = FitConfig(steps=40, batch_size=7, learning_rate=0.05, accumulate=accumulate)
        found.append(fit(Regression(), config, device="cpu").module.slope.detach())
    torch.testing.assert_close(found[1], found[0], rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(found[2], found[0], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("count", [1, 5, 37])
def test_every_epoch_holds_every_example_once_whatever_the_batch(count):
    whole = example_indices(9, 0, 3 * count, count)
    epochs = [whole[k * count : (k + 1) * count] for k in range(3)]
    assert all(sorted(epoch) == list(range(count)) for epoch in epochs)
    for size in (1, 4, 2 * count + 1):
        parts = [example_indices(9, k, size, count) for k in range(0, 3 * count, size)]
        assert sum(parts, [])[: 3 * count] == whole  # noqa: RUF017
    if count > 5:
        assert epochs[0] != epochs[1]
        assert whole != example_indices(8, 0, 3 * count, count)


def test_the_order_is_the_same_in_training():
    task = TinyTask()
    fit(task, settings(), device="cpu")
    assert task.seen == example_indices(3, 0, 23 * 6, 37)


def test_the_global_generators_are_neither_read_nor_changed():
    torch.manual_seed(1)
    before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    first = weights(fit(TinyTask(), settings(), device="cpu").module)
    assert torch.equal(torch.get_rng_state(), before)
    assert np.array_equal(np.random.get_state()[1], numpy_before)  # noqa: NPY002
    torch.manual_seed(2)
    assert same(weights(fit(TinyTask(), settings(), device="cpu").module), first)
    other = fit(TinyTask(), settings(seed=4), device="cpu").module
    assert not same(weights(other), first)


def test_a_gradient_is_clipped_to_its_limit():
    gradient = torch.tensor([3.0, -4.0])
    clip_gradient(gradient, 5.0, 0.5)
    torch.testing.assert_close(gradient, torch.tensor([0.3, -0.4]))
    clip_gradient(gradient, 0.5, 0.0)
    clip_gradient(gradient, 0.5, 2.0)
    torch.testing.assert_close(gradient, torch.tensor([0.3, -0.4]))


def test_decay_is_of_matrices_alone():
    class Nothing(Regression):
        def loss(self, batch, *, step, generator):
            zero = sum((p * 0).sum() for p in self.module.parameters())
            return {"loss": zero}

    task = Nothing()
    with torch.no_grad():
        task.module.slope.fill_(2.0)
        task.module.offset.fill_(2.0)
    config = FitConfig(steps=3, learning_rate=0.1, weight_decay=0.5, schedule="constant")
    fit(task, config, device="cpu")
    torch.testing.assert_close(
        task.module.slope.detach(), torch.full((3, 1), 2.0).double() * 0.95**3
    )
    assert task.module.offset.item() == 2.0


def test_a_step_that_is_not_finite_changes_nothing_and_is_counted():
    fitted = fit(TinyTask(bad=(5, 6)), settings(max_skipped=2), device="cpu")
    assert [row["skipped"] for row in fitted.history] == [0, 2, 0, 0, 0, 0]
    assert all(math.isfinite(row["loss"]) for row in fitted.history)
    assert all(t.isfinite().all() for t in fitted.module.state_dict().values())
    one = Regression()

    class Bad(Regression):
        def loss(self, batch, *, step, generator):
            return {"loss": super().loss(batch, step=step, generator=generator)["loss"] * math.inf}

    bad = Bad()
    fit(bad, FitConfig(steps=4), device="cpu")
    assert same(weights(bad.module), weights(one.module))


def test_steps_that_stay_non_finite_end_the_run(tmp_path):
    with pytest.raises(CardiogenError, match=r"CG-M09 step 14: found 4 steps in a row .*loss nan"):
        fit(TinyTask(bad=range(10, 23)), settings(max_skipped=3), folder=tmp_path, device="cpu")
    tensors = newest_tensors(tmp_path)
    assert all(t.isfinite().all() for t in tensors.values())


@pytest.mark.parametrize("precision", ["bf16-mixed", "16-mixed"])
def test_half_precision_learns_and_resumes(tmp_path, precision):
    config = FitConfig(
        steps=200, batch_size=16, learning_rate=0.05, precision=precision, checkpoint_every=50,
        gradient_clip=0.0,
    )  # fmt: skip
    straight = fit(Regression(torch.float32), config, device="cpu")
    assert straight.history[-1]["loss"] < 0.05 * straight.history[0]["loss"]

    class Dying(Regression):
        calls = 0

        def batch(self, indices, generator):
            self.calls += 1
            if self.calls == 120:
                raise Killed("the power went")
            return super().batch(indices, generator)

    with pytest.raises(Killed, match="power"):
        fit(Dying(torch.float32), config, folder=tmp_path, device="cpu")
    again = fit(Regression(torch.float32), config, folder=tmp_path, resume=True, device="cpu")
    assert same(weights(again.module), weights(straight.module))


# ---- checkpoints and folders


@pytest.fixture
def begun(tmp_path):
    """A run that died in step 13, with checkpoints after 5 and 10."""
    with pytest.raises(Killed, match="power"):
        fit(DyingTask(13), settings(), folder=tmp_path, device="cpu")
    names = [path.name for path in find_checkpoints(tmp_path / "checkpoints")]
    assert names == ["step-000000010", "step-000000005"]
    return tmp_path


def test_a_run_that_is_there_is_not_overwritten(begun):
    with pytest.raises(CardiogenError, match=r"CG-O01 .*--resume"):
        fit(TinyTask(), settings(), folder=begun, device="cpu")


CHANGES = {
    "learning_rate": "learning_rate = 0.01; expected learning_rate = 0.02",
    "seed": "seed = 3; expected seed = 4",
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_checkpoint_of_another_configuration_is_refused(begun, name):
    changed = settings(**{name: {"learning_rate": 0.02, "seed": 4}[name]})
    with pytest.raises(CardiogenError, match=f"CG-M08 .*found {CHANGES[name]}"):
        fit(TinyTask(), changed, folder=begun, resume=True, device="cpu")
    with pytest.raises(CardiogenError, match=r"CG-M08 .*found data = ''; expected data = 'b'"):
        fit(TinyTask(), settings(), folder=begun, resume=True, fingerprint="b", device="cpu")


def test_a_checkpoint_of_another_model_is_refused(begun):
    task = TinyTask()
    task.module.decoder = nn.Linear(2, 5, bias=False)
    with pytest.raises(CardiogenError, match=r"CG-M04 .*average.decoder.bias.*expected None"):
        fit(task, settings(), folder=begun, resume=True, device="cpu")


def flip(path, place):
    content = bytearray(path.read_bytes())
    content[place % len(content)] ^= 0x10
    path.write_bytes(content)


def test_any_flipped_byte_is_seen_and_the_older_checkpoint_taken(begun, straight):
    newest = find_checkpoints(begun / "checkpoints")[0]
    flip(newest / "state.safetensors", 12345)
    fitted = fit(TinyTask(), settings(), folder=begun, resume=True, device="cpu")
    assert same(weights(fitted.module), weights(straight[1].module))
    assert len(fitted.notes) == 1
    assert "M03" in str(fitted.notes[0])
    assert "went on from step-000000005" in str(fitted.notes[0])
    assert without_seconds(begun) == without_seconds(straight[0])


@pytest.mark.parametrize("name", ["state.json", "state.safetensors"])
def test_a_run_whose_checkpoints_are_all_damaged_is_refused(begun, name):
    rng = np.random.default_rng(2)
    new, old = (path / name for path in find_checkpoints(begun / "checkpoints"))
    flip(old, 77)
    whole = new.read_bytes()
    for place in rng.integers(0, len(whole), size=12):
        flip(new, int(place))
        with pytest.raises(CardiogenError, match=r"CG-M0[367] .*step-0000000") as caught:
            fit(TinyTask(), settings(), folder=begun, resume=True, device="cpu")
        assert caught.value.exit_code == Exit.MODEL
        new.write_bytes(whole)
    new.write_bytes(whole[:-5])
    with pytest.raises(CardiogenError, match=r"CG-M0[37] "):
        fit(TinyTask(), settings(), folder=begun, resume=True, device="cpu")
    new.unlink()
    with pytest.raises(CardiogenError, match=r"CG-M47 "):
        fit(TinyTask(), settings(), folder=begun, resume=True, device="cpu")


def test_a_newer_schema_is_refused(begun):
    for path in find_checkpoints(begun / "checkpoints"):
        text = (path / "state.json").read_text()
        (path / "state.json").write_text(
            text.replace('"schema_version": 1', '"schema_version": 2')
        )
    with pytest.raises(CardiogenError, match=r"CG-M06 .*version 2.*at most 1"):
        fit(TinyTask(), settings(), folder=begun, resume=True, device="cpu")


def test_half_written_rows_and_stale_files_are_removed(begun, straight):
    with (begun / "log.csv").open("a") as stream:
        stream.write("16,2,0.00")
    stale = begun / "checkpoints" / ".cg-tmp-0123"
    stale.mkdir()
    (stale / "state.safetensors").write_bytes(b"half")
    fit(TinyTask(), settings(), folder=begun, resume=True, device="cpu")
    assert not stale.exists()
    assert without_seconds(begun) == without_seconds(straight[0])


def test_a_table_of_another_kind_is_refused(begun):
    (begun / "log.csv").write_text("name,age\nx,3\n")
    with pytest.raises(CardiogenError, match=r"CG-M08 .*log.csv.*'name', 'age'"):
        fit(TinyTask(), settings(), folder=begun, resume=True, device="cpu")


def test_one_process_works_on_a_folder(tmp_path):
    class Nested(TinyTask):
        def batch(self, indices, generator):
            with pytest.raises(CardiogenError, match=r"CG-O04 .*another process") as caught:
                fit(TinyTask(), settings(), folder=tmp_path, device="cpu")
            assert caught.value.exit_code == Exit.EXISTS
            return super().batch(indices, generator)

    fit(Nested(), settings(steps=1), folder=tmp_path, device="cpu")


def test_resuming_nothing_begins(tmp_path, straight):
    fitted = fit(TinyTask(), settings(), folder=tmp_path / "new", resume=True, device="cpu")
    assert same(weights(fitted.module), weights(straight[1].module))


# ---- signals and other processes


def child(folder, *, slow_s, devices=1):
    command = [sys.executable, __file__, str(folder), str(slow_s), str(devices)]
    # Bits hold for one number of threads, so the child gets ours.
    environment = os.environ | {
        "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": str(torch.get_num_threads())
    }  # fmt: skip
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)


def wait_for(path, process):
    for _ in range(1500):
        if path.exists() or process.poll() is not None:
            break
        time.sleep(0.02)
    assert path.exists()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_process_that_is_killed_resumes_bit_for_bit(tmp_path, straight, number):
    process = child(tmp_path, slow_s=0.05)
    wait_for(tmp_path / "checkpoints" / "step-000000005", process)
    process.send_signal(number)
    _, error = process.communicate(timeout=60)
    if number == signal.SIGTERM:
        assert process.returncode == Exit.INTERRUPTED
        assert "CG-R75" in error
        assert "SIGTERM after step" in error
        assert "--resume" in error
    else:
        assert process.returncode == -signal.SIGKILL
    process = child(tmp_path, slow_s=0.0)
    _, error = process.communicate(timeout=60)
    assert (process.returncode, error) == (0, "")
    alone = fit(TinyTask(), settings(), folder=tmp_path, resume=True, device="cpu")
    assert same(weights(alone.module), weights(straight[1].module))
    assert without_seconds(tmp_path) == without_seconds(straight[0])


def test_an_interrupt_finishes_the_step_and_handlers_are_put_back(tmp_path):
    class Interrupting(TinyTask):
        def batch(self, indices, generator):
            if len(self.seen) == 6 * 8:
                signal.raise_signal(signal.SIGINT)
            return super().batch(indices, generator)

    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(CardiogenError, match=r"CG-R75 .*SIGINT after step 9 of 23") as caught:
        fit(Interrupting(), settings(), folder=tmp_path, device="cpu")
    assert caught.value.exit_code == Exit.INTERRUPTED
    assert find_checkpoints(tmp_path / "checkpoints")[0].name == "step-000000009"
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == before


def test_a_second_interrupt_acts_at_once(tmp_path):
    class Impatient(TinyTask):
        def batch(self, indices, generator):
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
            return super().batch(indices, generator)

    # What runs in the background of a shell, such as CI, begins with interrupts ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt, match=r"^$"):
            fit(Impatient(), settings(), folder=tmp_path, device="cpu")
    finally:
        signal.signal(signal.SIGINT, before)


def test_two_processes_do_what_two_shares_do(tmp_path):
    pytest.importorskip("lightning_fabric")
    process = child(tmp_path / "two", slow_s=0.05, devices=2)
    wait_for(tmp_path / "two" / "checkpoints" / "step-000000005", process)
    process.send_signal(signal.SIGTERM)
    _, error = process.communicate(timeout=60)
    assert process.returncode == Exit.INTERRUPTED, error
    process = child(tmp_path / "two", slow_s=0.0, devices=2)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 0, error
    fit(TinyTask(), settings(accumulate=2), folder=tmp_path / "one", device="cpu")
    one, two = newest_tensors(tmp_path / "one"), newest_tensors(tmp_path / "two")
    for name in TinyTask().module.state_dict():
        # Batch statistics are those of the shares that a process saw.
        if "running" not in name and "tracked" not in name:
            torch.testing.assert_close(two[f"weights.{name}"], one[f"weights.{name}"])
    found, expected = (without_seconds(tmp_path / name) for name in ("two", "one"))
    assert [row["step"] for row in found] == [row["step"] for row in expected]
    for row, other in zip(found, expected, strict=True):
        assert float(row["loss"]) == pytest.approx(float(other["loss"]), rel=1e-5)


def test_tensorboard_is_written_where_it_is_installed(tmp_path):
    fit(TinyTask(), settings(), folder=tmp_path, device="cpu")
    installed = importlib.util.find_spec("tensorboard") is not None
    assert any((tmp_path / "tensorboard").glob("events*")) == installed
    if not installed:
        assert "tensorboard" not in sys.modules


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("precision", ["32", "bf16-mixed", "16-mixed"])
def test_a_gpu_learns_and_resumes(tmp_path, precision):
    config = settings(precision=precision, checkpoint_every=7)
    before = torch.cuda.get_rng_state()
    straight = fit(TinyTask(), config, device="cuda").module
    assert next(straight.parameters()).is_cuda
    with pytest.raises(Killed, match="power"):
        fit(DyingTask(17), config, folder=tmp_path, device="cuda")
    again = fit(TinyTask(), config, folder=tmp_path, resume=True, device="cuda").module
    for name, tensor in straight.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], tensor)
    assert torch.equal(torch.cuda.get_rng_state(), before)


def test_the_bar_shows_the_loss(monkeypatch):
    stream = io.StringIO()
    stream.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(sys.modules["cardiogen.base.progress"], "_PATIENCE_S", -1.0)
    fitted = fit(TinyTask(), settings(), device="cpu", description="fitting points")
    assert "fitting points" in stream.getvalue()
    assert f"loss {fitted.history[-1]['loss']:.4g}" in stream.getvalue()


# ---- contracts


def test_a_task_that_breaks_its_contract_is_refused():
    with pytest.raises(ValueError, match="task must have module, batch, loss and len, got object"):
        fit(object(), settings(), device="cpu")
    with pytest.raises(ValueError, match="task must have validate where validate_every is set"):
        fit(Regression(), settings(), device="cpu")
    with pytest.raises(ValueError, match="an example at least"):
        fit(TinyTask(count=0), settings(), device="cpu")
    with pytest.raises(CardiogenError, match=r"CG-M07 batch_size: found 2; expected at least 1"):
        fit(TinyTask(), settings(batch_size=2, accumulate=3), device="cpu")
    frozen = TinyTask()
    frozen.module.requires_grad_(False)
    with pytest.raises(ValueError, match="trainable parameters of one dtype"):
        fit(frozen, settings(), device="cpu")


def test_a_loss_that_breaks_its_contract_is_refused():
    class Odd(Regression):
        def __init__(self, answer):
            super().__init__()
            self.answer = answer

        def loss(self, batch, *, step, generator):
            found = super().loss(batch, step=step, generator=generator)["loss"]
            return self.answer(found, step.step)

    config = FitConfig(steps=3)
    with pytest.raises(ValueError, match="losses must have 'loss'"):
        fit(Odd(lambda loss, _: {"total": loss}), config, device="cpu")
    with pytest.raises(ValueError, match=r"losses must be scalars, got each \(2,\)"):
        fit(Odd(lambda loss, _: {"loss": loss, "each": loss.expand(2)}), config, device="cpu")
    with pytest.raises(ValueError, match="the same names in every step"):
        fit(Odd(lambda loss, s: {"loss": loss, f"n{s}": loss}), config, device="cpu")


def test_devices_that_are_not_there_are_named(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(CardiogenError, match="CG-R05 --device: found no CUDA device"):
        fit(TinyTask(), settings(), device="cuda")
    with pytest.raises(ValueError, match="device must be auto, cpu or cuda, got 'tpu'"):
        fit(TinyTask(), settings(), device="tpu")
    with pytest.raises(ValueError, match="devices and num_nodes must be at least 1, got 0 and 1"):
        fit(TinyTask(), settings(), devices=0)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(CardiogenError, match=r"CG-U30 --devices: .*cardiogen\[train\]"):
        fit(TinyTask(), settings(), devices=2)


def test_a_device_out_of_memory_is_told():
    class Huge(TinyTask):
        def loss(self, batch, *, step, generator):
            raise torch.OutOfMemoryError("no room")

    with pytest.raises(
        CardiogenError, match=r"CG-R04 device memory: .*larger accumulate"
    ) as found:
        fit(Huge(), settings(), device="cpu")
    assert found.value.exit_code == Exit.RESOURCES


def test_configurations_are_checked(tmp_path):
    path = tmp_path / "fit.toml"
    path.write_text('steps = 70\nprecision = "bf16-mixed"\nlearning_rate = 1\n')
    config = load_config(FitConfig, path)
    assert (config.steps, config.precision, config.learning_rate) == (70, "bf16-mixed", 1.0)
    with pytest.raises(CardiogenError, match=r"CG-M07 .*lr.*known keys steps, batch_size"):
        build_config(FitConfig, {"lr": 0.1}, "here")
    with pytest.raises(CardiogenError, match=r"CG-M07 .*keep_best: .*validate_every above 0"):
        build_config(FitConfig, {"keep_best": True}, "here")
    for bad in ({"steps": 0}, {"ema_decay": 1.0}, {"learning_rate": math.inf}, {"seed": -1}):
        with pytest.raises(CardiogenError, match=f"CG-M07 here: found {next(iter(bad))}"):
            build_config(FitConfig, bad, "here")


def main() -> int:
    """Train in a process of its own, as a command would."""
    try:
        task = TinyTask(slow_s=float(sys.argv[2]))
        devices = int(sys.argv[3])
        fit(task, settings(), folder=sys.argv[1], resume=True, device="cpu", devices=devices)
    except CardiogenError as error:
        sys.stderr.write(f"{error}\n")
        return int(error.exit_code)
    return 0


if __name__ == "__main__":
    sys.exit(main())

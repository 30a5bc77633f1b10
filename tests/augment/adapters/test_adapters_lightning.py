"""The mixin for Lightning: batches augmented in training, draws kept in checkpoints."""

import warnings

import pytest
import torch

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    lightning = pytest.importorskip("lightning")

from augment import Chain, GaussianNoise, classic_chain
from augment.adapters.for_lightning import AdversarialMixin

pytestmark = pytest.mark.filterwarnings("ignore")


class Segmenter(AdversarialMixin, lightning.LightningModule):
    def __init__(self, chain=None, share=0.5):
        super().__init__()
        torch.manual_seed(0)
        self.network = torch.nn.Conv2d(1, 4, 3, padding=1)
        self.set_up_augmentation(chain or classic_chain(), spacing=(1.4, 1.9), random_share=share)
        self.losses = []

    def training_step(self, batch, batch_idx):
        image, one_hot = batch
        loss = self.adversarial_loss(
            self.network, image, lambda out: torch.nn.functional.cross_entropy(out, one_hot)
        )
        self.losses.append(float(loss.detach()))
        return loss

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), 1e-2)


def batches(count=4):
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 4, (count, 2, 16, 24), generator=generator)
    one_hot = torch.nn.functional.one_hot(labels, 4).movedim(-1, 2).float()
    image = torch.rand(count, 2, 1, 16, 24, generator=generator)
    return list(zip(image, one_hot, strict=True))


def loader(count=4):
    return torch.utils.data.DataLoader(batches(count), batch_size=None)


def trainer(steps, folder):
    return lightning.Trainer(
        max_steps=steps, accelerator="cpu", devices=1, logger=False, barebones=False,
        enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False,
        default_root_dir=folder,
    )  # fmt: skip


def test_the_example_runs(run_example, tmp_path):
    module = run_example("for_lightning")["Segmenter"]()
    trainer(2, tmp_path).fit(module, loader(2))
    assert module._adversary.calls == 2


def test_training_batches_are_augmented_and_others_are_not():
    module = Segmenter(Chain(transforms=(GaussianNoise(),)), share=1.0)
    image, one_hot = batches()[0]
    changed, labels = module.train().on_after_batch_transfer((image, one_hot), 0)
    assert not torch.equal(changed, image)
    assert torch.equal(labels, one_hot)
    same, _ = module.eval().on_after_batch_transfer((image, one_hot), 0)
    assert same is image


def test_a_run_goes_on_as_it_was(tmp_path):
    whole = Segmenter()
    trainer(4, tmp_path).fit(whole, loader())
    first = Segmenter()
    started = trainer(2, tmp_path)
    started.fit(first, loader())
    started.save_checkpoint(tmp_path / "half.ckpt")
    second = Segmenter()
    checkpoint = torch.load(tmp_path / "half.ckpt", weights_only=True)
    second.load_state_dict(checkpoint["state_dict"])
    second.on_load_checkpoint(checkpoint)
    assert second._adversary.calls == 2
    assert torch.equal(second._draws.get_state(), first._draws.get_state())
    assert torch.equal(
        second._adversary.generator.get_state(), first._adversary.generator.get_state()
    )
    assert first.losses == pytest.approx(whole.losses[:2])

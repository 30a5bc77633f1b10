"""The search: it climbs, keeps the best, stays in bounds, and leaves the network as it was."""

import copy
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from augment import (
    Adversary,
    Affine,
    Ascent,
    BiasField,
    Blur,
    Chain,
    Consistency,
    Contrast,
    DeepSupervision,
    Flip,
    GaussianNoise,
    Lattice,
    Morph,
    MultiHead,
    classic_chain,
    full_chain,
    sigmoid_output,
    softmax_output,
)
from augment.ascent import Climber
from augment.model_state import kept_buffers
from augment.search import Passes
from cardiogen import ops
from cardiogen.ops import one_hot

SPACING = (2.0, 2.0)
CONSISTENCY = Consistency(kl=1.0, contour=0.5)


def adversary(seed=0, **options):
    options = {"chain": classic_chain(), "consistency": CONSISTENCY} | options
    return Adversary(generator=torch.Generator().manual_seed(seed), **options)


def everything(net):
    state = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    grads = [None if p.grad is None else p.grad.clone() for p in net.parameters()]
    asks = [p.requires_grad for p in net.parameters()]
    return state, grads, asks, [m.training for m in net.modules()], torch.get_rng_state()


def same(before, after):
    for a, b in zip(before, after, strict=True):
        if isinstance(a, dict):
            assert all(torch.equal(a[name], b[name]) for name in a)
        elif isinstance(a, torch.Tensor):
            assert torch.equal(a, b)
        else:
            for x, y in zip(a, b, strict=True):
                assert torch.equal(x, y) if isinstance(x, torch.Tensor) else x == y


def with_gradients(net):
    """Return a copy with gradients accumulated by its owner, one of them missing."""
    net = copy.deepcopy(net)
    for parameter in net.parameters():
        parameter.grad = torch.full_like(parameter, 0.25)
    next(net.parameters()).grad = None
    list(net.parameters())[2].requires_grad_(False)
    return net


@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("statistics", ["frozen", "separate"])
def test_the_network_is_untouched_bit_for_bit(kit, batch_net, mode, statistics):
    net = getattr(with_gradients(batch_net), mode)()
    image, _ = kit.phantoms(3, seed=5)
    before = everything(net)
    result = adversary(statistics=statistics).consistency_loss(net, image, spacing=SPACING)
    same(before, everything(net))
    assert result.loss.requires_grad
    result.loss.backward()
    assert list(net.parameters())[4].grad.sub(0.25).abs().sum() > 0


class Failing(nn.Module):
    """A network that fails at a given pass, in the middle of it."""

    def __init__(self, net, at):
        super().__init__()
        self.net, self.at, self.passes = net, at, 0

    def forward(self, image):
        self.passes += 1
        found = self.net(image)
        self.eval()
        torch.rand(3)
        if self.passes == self.at:
            raise RuntimeError("the device is gone")
        return found


@pytest.mark.parametrize("at", [1, 2, 3])
@pytest.mark.parametrize("statistics", ["frozen", "separate", "shared"])
def test_the_network_is_untouched_when_something_is_raised(kit, batch_net, at, statistics):
    net = Failing(with_gradients(batch_net), at)
    image, _ = kit.phantoms(2, seed=5)
    before = everything(net)
    with pytest.raises(RuntimeError, match="the device is gone"):
        adversary(statistics=statistics).consistency_loss(net, image, spacing=SPACING)
    same(before, everything(net))


def test_running_statistics_follow_the_policy(kit, batch_net):
    image, _ = kit.phantoms(4, seed=5)
    found = {}
    for policy in ("frozen", "shared", "separate"):
        net = copy.deepcopy(batch_net)
        one = adversary(statistics=policy)
        before = everything(net)[0]
        one.consistency_loss(net, image, spacing=SPACING, reference=net(image).detach())
        found[policy] = (before, net.state_dict(), one.own_buffers)
    counts = {p: int(after["body.1.num_batches_tracked"] - before["body.1.num_batches_tracked"])
              for p, (before, after, _) in found.items()}  # fmt: skip
    # The one pass on the clean image is the caller's.
    assert counts["frozen"] == counts["separate"] == 1
    assert counts["shared"] >= 2
    own = found["separate"][2]
    assert not torch.equal(own["body.1.running_mean"], found["separate"][1]["body.1.running_mean"])
    assert not found["frozen"][2]


def test_buffers_that_are_replaced_come_back():
    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("count", torch.zeros(1))

        def forward(self, image):
            self.count = self.count + 1
            return image

    net = Counting()
    buffer = net.count
    with kept_buffers(net):
        net(torch.zeros(1))
    assert net.count is buffer
    assert net.count == 0


@pytest.mark.parametrize("ascent", [
    Ascent(), Ascent(method="sign", step=0.5), Ascent(method="adam", step=0.5, steps=3),
    Ascent(steps=3, step=0.5), Ascent(starts=3), Ascent(method="power"),
], ids=lambda a: f"{a.method}-{a.steps}-{a.starts}")  # fmt: skip
def test_the_loss_rises_and_never_ends_below_its_start(kit, instance_net, ascent):
    image, _ = kit.phantoms(40, seed=7)
    one = adversary(ascent=ascent)
    ends, starts = [], []
    for batch in image.split(2):
        result = one.consistency_loss(instance_net, batch, spacing=SPACING)
        ends.append(float(result.loss.detach()))
        starts.append(float(result.found.start_losses.mean()))
    rises = torch.tensor(ends) / torch.tensor(starts)
    assert (rises >= 1 - 1e-5).all()
    wanted = 0.95 if ascent.method != "power" else 0.5
    assert (rises > 1).double().mean() >= wanted
    assert rises.median() > 1.1


def test_the_loss_of_a_net_with_batch_norm_does_not_end_below_its_start(kit, batch_net):
    image, _ = kit.phantoms(32, seed=7)
    one, net = adversary(), copy.deepcopy(batch_net).train()
    for batch in image.split(4):
        result = one.consistency_loss(net, batch, spacing=SPACING)
        report = result.report()
        assert report["loss"] >= report["start_loss"] * (1 - 1e-5)


def test_parameters_stay_in_their_bounds_and_nothing_folds(kit, instance_net):
    image, _ = kit.phantoms(4, seed=7)
    chain = Chain(transforms=(Morph(rms_mm=5.0, control_mm=20.0), Affine(), BiasField(),
                              GaussianNoise()), least=4)  # fmt: skip
    one = adversary(chain=chain, ascent=Ascent(steps=5))
    for _ in range(3):
        result = one.consistency_loss(instance_net, image, spacing=SPACING)
        for used in result.last.draw.strengths().values():
            assert (used <= 1 + 1e-5).all()
        number = [t.name for t in result.last.draw.transforms].index("Morph")
        morph, params = chain.transforms[0], result.last.draw.params[number]
        for inverse in (False, True):
            field = morph.pull_back(params, result.last.draw.lattice, inverse=inverse)
            assert ops.folding_determinants(field).min() > 0


def test_ascent_follows_the_gradient_of_what_it_raises(kit, instance_net):
    """A net that has seen no brightness is weakest there: the search turns brightness up."""
    image, _ = kit.phantoms(8, seed=7)
    chain = Chain(transforms=(Contrast(factor=1.0 + 1e-6, brightness_sd=1.0),))
    one = adversary(chain=chain, ascent=Ascent(step=0.5, steps=2))
    result = one.consistency_loss(instance_net, image, spacing=SPACING)
    before = result.found.start.params[0].free[:, 1].abs()
    after = result.last.draw.params[0].free[:, 1].abs()
    assert (after > before).double().mean() >= 0.75


def test_samples_that_a_transform_spares_stay_spared(kit, instance_net):
    image, _ = kit.phantoms(16, seed=7)
    chain = Chain(transforms=(Contrast(), Flip()), least=2, probability=0.5)
    result = adversary(chain=chain).consistency_loss(instance_net, image, spacing=SPACING)
    for before, after in zip(result.found.start.params, result.last.draw.params, strict=True):
        if before.free.numel():
            spared = (before.free == 0).all(1)
            assert 0 < spared.sum() < 16
            assert not after.free[spared].any()
            assert after.free[~spared].any()


def test_same_seed_same_bits_and_a_stored_generator_goes_on(kit, batch_net):
    image, _ = kit.phantoms(3, seed=5)

    def run(one, net):
        result = one.consistency_loss(net, image, spacing=SPACING, reference=batch_net(image))
        return result.loss.detach(), result.last.applied.image

    torch.manual_seed(1)
    net = copy.deepcopy(batch_net)
    first, other = adversary(seed=4), adversary(seed=4)
    a = run(first, net)
    state = first.generator.get_state()
    torch.manual_seed(1)
    b = run(other, net)
    assert torch.equal(a[0], b[0])
    assert torch.equal(a[1], b[1])
    torch.manual_seed(1)
    c = run(first, net)
    assert not torch.equal(a[1], c[1])
    other.generator.set_state(state)
    torch.manual_seed(1)
    d = run(other, net)
    assert torch.equal(c[0], d[0])


def test_gradients_of_the_loss_are_those_of_one_pass(kit, instance_net):
    net = copy.deepcopy(instance_net)
    image, labels = kit.phantoms(4, seed=5)
    reference = net(image)
    supervised = F.cross_entropy(reference, labels[:, 0])
    result = adversary().consistency_loss(net, image, spacing=SPACING, reference=reference)
    (supervised + 2.0 * result.loss).backward()
    found = [p.grad.clone() for p in net.parameters()]
    net.zero_grad()
    applied = result.last.applied
    loss = F.cross_entropy(net(image), labels[:, 0]) + 2.0 * CONSISTENCY(
        [h.detached() for h in softmax_output(net(image))],
        softmax_output(net(applied.image)), applied,
    ).mean()  # fmt: skip
    loss.backward()
    for a, p in zip(found, net.parameters(), strict=True):
        torch.testing.assert_close(a, p.grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("batch", [1, 2, 3])
def test_any_batch_dtype_and_leaf_will_do(kit, instance_net, batch):
    image, _ = kit.phantoms(batch, seed=5)
    double = copy.deepcopy(instance_net).double()
    scaled = image.double().requires_grad_() * 2
    result = adversary(chain=full_chain(2)).consistency_loss(double, scaled, spacing=SPACING)
    assert result.loss.dtype == torch.float64
    assert result.last.applied.image.dtype == torch.float64
    for half in (torch.bfloat16, torch.float16):
        with torch.autocast("cpu", dtype=half):
            result = adversary().consistency_loss(instance_net, image, spacing=SPACING)
        assert result.loss.dtype == torch.float32
        assert result.loss.isfinite()
        assert result.report()["rise"] > 1


def test_directions_of_small_losses_survive_half_precision(kit, instance_net):
    image, _ = kit.phantoms(2, seed=5)
    lattice = Lattice.of(image, spacing=SPACING)
    draw = Chain(transforms=(BiasField(),)).sample(lattice, generator=kit.seeded())
    passes = Passes(
        network=instance_net, image=image,
        objective=lambda output, applied: 1e-4 * output.float().square().mean(),
    )  # fmt: skip
    with passes.searching():
        full = passes.gradients(draw)[1][0].flatten()
        with torch.autocast("cpu", dtype=torch.float16):
            half = passes.gradients(draw)[1][0].flatten()
    # Without a scale such slopes vanish: the least that half precision holds is 6e-8.
    assert F.cosine_similarity(full, half.float(), dim=0) > 0.95


def test_it_works_where_gradients_are_off_elsewhere(kit, instance_net):
    image, _ = kit.phantoms(2, seed=5)
    with torch.no_grad():
        result = adversary().consistency_loss(instance_net, image, spacing=SPACING)
    assert not result.loss.requires_grad
    assert result.report()["rise"] >= 1


def test_examples_are_harder_and_keep_their_labels(kit, instance_net):
    image, labels = kit.phantoms(8, seed=5)
    hot = one_hot(labels, 4)
    hard, probs, found = adversary().examples(instance_net, image, hot, spacing=SPACING)
    easy = found.start.apply(image)
    assert hard.shape == image.shape
    torch.testing.assert_close(probs.sum(1), torch.ones_like(probs[:, 0]))

    def loss(image, probs):
        return -(probs * instance_net(image).log_softmax(1)).sum(1).mean()

    assert loss(hard, probs) > 1.05 * loss(easy.image, easy.labels(hot))

    def objective(output, applied):
        return loss(applied.image, applied.labels(hot))

    _, _, found = adversary().examples(
        instance_net, image, hot, spacing=SPACING, objective=objective
    )
    assert found.start_losses.shape == ()


def test_labels_can_be_the_reference(kit, instance_net):
    image, labels = kit.phantoms(4, seed=5)
    hot = one_hot(labels, 4)
    result = adversary(ascent=Ascent(steps=0)).consistency_loss(
        instance_net, image, spacing=SPACING, labels=hot
    )
    assert result.found.start_losses is None
    assert torch.equal(result.reference[0].probs, hot)
    assert "rise" not in result.report()


class ManyHeads(nn.Module):
    """A network with deep supervision, regions and a name for each."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, image):
        logits = self.net(image)
        return {"deep": [logits, logits[..., ::2, ::2]], "regions": logits[:, 1:], "other": None}


def test_deep_supervision_regions_and_several_heads(kit, instance_net):
    image, _ = kit.phantoms(4, seed=5)
    heads = {"deep": DeepSupervision(weights=(1.0, 0.5)), "regions": sigmoid_output}
    one = adversary(output=MultiHead(heads=heads), chain=full_chain(2))
    result = one.consistency_loss(ManyHeads(instance_net), image, spacing=SPACING)
    assert len(result.reference) == 3
    assert result.class_distances().shape == (4, 4)
    assert result.loss.requires_grad


def test_budget_is_kept(kit, instance_net):
    image, _ = kit.phantoms(8, seed=5)
    sizes = []
    net = lambda x: sizes.append(len(x)) or instance_net(x)  # noqa: E731
    one = adversary(every=3, share=0.25)
    results = [
        one.consistency_loss(net, image, spacing=SPACING, reference=instance_net(image))
        for _ in range(6)
    ]
    assert [len(r.index) for r in results] == [2, 0, 0, 2, 0, 0]
    assert set(sizes) == {2}
    assert not results[1].report()
    assert results[1].loss == 0
    (2.0 * results[1].loss).backward()
    assert torch.equal(results[0].index, results[0].index.sort().values)
    with pytest.raises(ValueError, match="not skipped"):
        results[1].class_distances()


def test_one_forward_and_one_backward_a_step_and_no_weight_gradients(kit, instance_net):
    """What a step costs, counted: an ascent pass and a final pass; the reference is shared."""
    image, _ = kit.phantoms(2, seed=5)
    asked = []

    class Counted(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = instance_net

        def forward(self, x):
            asked.append((x.requires_grad, next(self.parameters()).requires_grad))
            return self.net(x)

    one = adversary(chain=Chain(transforms=(BiasField(),)))
    one.consistency_loss(Counted(), image, spacing=SPACING, reference=instance_net(image))
    assert asked in ([(True, False), (False, True)], [(True, False), (False, True), (False, True)])


def test_images_are_resampled_once_and_predictions_once(kit, instance_net, monkeypatch):
    image, _ = kit.phantoms(2, seed=5)
    calls = []
    for name in ("warp", "warp_labels"):
        real = getattr(ops, name)
        monkeypatch.setattr(
            f"augment.geometry.{name}",
            lambda *a, real=real, name=name, **k: calls.append(name) or real(*a, **k),
        )
    chain = Chain(transforms=(Affine(), Morph(), Flip()), least=3)
    one = adversary(chain=chain, ascent=Ascent(steps=0))
    one.consistency_loss(instance_net, image, spacing=SPACING, reference=instance_net(image))
    assert calls == ["warp", "warp_labels"]


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")
def test_a_compiled_network_will_do(kit, instance_net):
    image, _ = kit.phantoms(2, seed=5)
    compiled = torch.compile(copy.deepcopy(instance_net), backend="eager")
    a = adversary().consistency_loss(compiled, image, spacing=SPACING)
    b = adversary().consistency_loss(instance_net, image, spacing=SPACING)
    torch.testing.assert_close(a.loss, b.loss)


def test_gradients_accumulate_over_parts_of_a_batch(kit, instance_net):
    net = copy.deepcopy(instance_net)
    image, _ = kit.phantoms(4, seed=5)
    one = adversary()
    for part in image.split(2):
        (one.consistency_loss(net, part, spacing=SPACING).loss / 2).backward()
    halves = [p.grad.clone() for p in net.parameters()]
    net.zero_grad()
    one = adversary()
    parts = [one.consistency_loss(net, part, spacing=SPACING).loss for part in image.split(2)]
    (sum(parts) / 2).backward()
    for a, p in zip(halves, net.parameters(), strict=True):
        torch.testing.assert_close(a, p.grad, rtol=1e-4, atol=1e-6)


def test_distributed_networks_search_without_talking(kit, batch_net, tmp_path):
    dist = torch.distributed
    if not dist.is_available() or not dist.is_gloo_available():
        pytest.skip("this torch has no gloo to distribute with")
    image, labels = kit.phantoms(4, seed=5)
    plain = copy.deepcopy(batch_net)
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        net = nn.parallel.DistributedDataParallel(copy.deepcopy(batch_net))
        for one in (net, plain):
            torch.manual_seed(0)
            output = one(image)
            result = adversary().consistency_loss(one, image, spacing=SPACING, reference=output)
            (F.cross_entropy(output, labels[:, 0]) + result.loss).backward()
        for a, b in zip(net.parameters(), plain.parameters(), strict=True):
            torch.testing.assert_close(a.grad, b.grad)
    finally:
        dist.destroy_process_group()


_RANK = """
import sys, datetime
import torch
from torch import nn
from augment import Adversary, Ascent, classic_chain
import augment.search as search

rank, store = int(sys.argv[1]), sys.argv[2]
torch.set_num_threads(1)
torch.distributed.init_process_group(
    "gloo", init_method=f"file://{store}", rank=rank, world_size=2,
    timeout=datetime.timedelta(seconds=60),
)
torch.manual_seed(0)
net = nn.parallel.DistributedDataParallel(
    nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 1))
)
optimizer = torch.optim.SGD(net.parameters(), 0.05)
fell = 0
below = search._below
def counted(a, b):
    global fell
    fell += below(a, b)
    return below(a, b)
search._below = counted
one = Adversary(chain=classic_chain(), generator=torch.Generator().manual_seed(rank),
                ascent=Ascent(steps=3, step=1.0, method="sign"))
data = torch.Generator().manual_seed(100 + rank)
for _ in range(6):
    image = torch.rand(2, 1, 24, 20, generator=data)
    labels = torch.randint(0, 4, (2, 24, 20), generator=data)
    optimizer.zero_grad()
    output = net(image)
    result = one.consistency_loss(net, image, spacing=(1.4, 1.4), reference=output.detach())
    (nn.functional.cross_entropy(output, labels) + result.loss).backward()
    optimizer.step()
    assert result.found.start_losses.mean() <= result.last.losses.mean() + 1e-6
print(fell, sum(float(p.detach().double().sum()) for p in net.parameters()))
"""


def test_ranks_that_find_differently_do_not_wait_for_each_other(tmp_path):
    if not torch.distributed.is_available() or not torch.distributed.is_gloo_available():
        pytest.skip("this torch has no gloo to distribute with")
    (tmp_path / "rank.py").write_text(_RANK)
    command = [sys.executable, tmp_path / "rank.py"]
    ranks = [
        subprocess.Popen([*command, str(k), tmp_path / "store"], stdout=subprocess.PIPE, text=True)
        for k in range(2)
    ]
    try:
        said = [rank.communicate(timeout=240)[0].split() for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    assert [rank.returncode for rank in ranks] == [0, 0]
    # One rank's steps failed more often than the other's, and the weights are the same.
    assert said[0][0] != said[1][0]
    assert said[0][1] == said[1][1]


def test_own_statistics_of_a_frozen_norm_keep_gradients_right(kit, batch_net):
    net = copy.deepcopy(batch_net)
    image, _ = kit.phantoms(4, seed=5)
    one = adversary(statistics="separate", ascent=Ascent(steps=0))
    for _ in range(20):
        one.consistency_loss(net, 3 * image, spacing=SPACING)
    net.eval()
    own = copy.deepcopy(net)
    for name, buffer in own.named_buffers():
        buffer.copy_(one.own_buffers[name])
    reference = torch.randn(4, kit.CLASSES, *image.shape[2:], generator=kit.seeded())
    found = []
    for network, statistics in ((net, "separate"), (own, "frozen")):
        again = adversary(statistics=statistics, ascent=Ascent(steps=0))
        again.own_buffers.update(one.own_buffers)
        result = again.consistency_loss(network, image, spacing=SPACING, reference=reference)
        found.append(torch.autograd.grad(result.loss, list(network.parameters())))
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-8)


def test_what_comes_to_nothing_on_the_way_still_acts(kit):
    lattice = kit.lattice_of(2, batch=2)
    draw = Chain(transforms=(Blur(),)).sample(lattice, generator=kit.seeded(0))
    climber = Climber(Ascent(method="sign", step=1.0))
    draw = draw.with_free([torch.tensor([[0.7], [0.0]])])
    down = climber.step(draw, [-torch.ones(2, 1)])
    assert not down.params[0].free.any()
    up = climber.step(down, [torch.ones(2, 1)])
    assert up.params[0].free.flatten().tolist() == [1.0, 0.0]


def test_an_empty_chain_may_be_drawn_for_a_function(kit):
    chain = Chain(transforms=(Blur(),), least=0, most=0)
    image, _ = kit.phantoms(2)
    found = adversary(chain=chain).consistency_loss(
        lambda x: x.expand(-1, 4, -1, -1), image, spacing=SPACING
    )
    assert float(found.loss) == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize(("make", "message"), [
    (lambda: Ascent(method="newton"), "method must be one of l2, sign, adam, power"),
    (lambda: Ascent(step=0.0), "step must be positive"),
    (lambda: Ascent(starts=0), "starts at least 1"),
    (lambda: Ascent(probe=0.0), "probe must lie"),
    (lambda: adversary(statistics="none"), "statistics must be frozen, shared or separate"),
    (lambda: adversary(share=0.0), "share lie in"),
])  # fmt: skip
def test_impossible_settings_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_bad_batches_are_refused(kit, instance_net):
    one = adversary(chain=Chain(transforms=(Blur(),)))
    image, labels = kit.phantoms(2)
    with pytest.raises(ValueError, match="finite, got NaN or infinity in sample 0"):
        one.consistency_loss(instance_net, image / 0, spacing=SPACING)
    with pytest.raises(ValueError, match="batch and voxels of image"):
        one.consistency_loss(instance_net, image, spacing=SPACING, labels=one_hot(labels, 4)[:1])
    with pytest.raises(ValueError, match="at least one sample"):
        one.consistency_loss(instance_net, image[:0], spacing=SPACING)

"""The weighted sum: it adds up, names what is missing, learns weights, follows its device."""

import math

import pytest
import torch

from cardiogen.base import CardiogenError
from cardiogen.losses import (
    LNCC,
    MSE,
    Bending,
    Dice,
    Diffusion,
    Energy,
    ImageTerm,
    Incompressibility,
    TemporalSmoothness,
    Weighted,
    make_term,
)

SPACING = (8.0, 1.4, 1.9)
SHAPE = (4, 7, 6)


def inputs(batch=2, seed=0):
    generator = torch.Generator().manual_seed(seed)

    def random(*channels):
        return torch.randn(batch, *channels, *SHAPE, generator=generator, dtype=torch.float64)

    return {
        "image": (random(1), random(1)),
        "label": (random(3).softmax(1), random(3).softmax(1)),
        "field": 0.3 * random(3),
        "sequence": 0.3 * random(4, 3),
    }


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_total_is_the_weighted_sum_of_its_terms(reduction):
    terms = {"look": LNCC(), "overlap": Dice(), "smooth": Bending(), "beat": TemporalSmoothness()}
    weights = [1.0, torch.tensor(0.3), torch.tensor([2.0, 5.0]), 1e-3]
    energy = Energy(
        {n: Weighted(term=t, weight=w) for (n, t), w in zip(terms.items(), weights, strict=True)}
    )
    given = inputs()
    found = energy(**given, spacing=SPACING, reduction=reduction)
    wanted = torch.zeros(2)
    for (name, term), weight in zip(terms.items(), weights, strict=True):
        data = given[term.kind] if isinstance(given[term.kind], tuple) else (given[term.kind],)
        value = weight * term.value(*data, spacing=SPACING, reduction=reduction)
        torch.testing.assert_close(found.terms[name], value)
        wanted = wanted + value
    torch.testing.assert_close(found.total, wanted)
    assert energy.kinds == {"image", "label", "field", "sequence"}


def test_masks_go_to_kinds_or_terms_and_data_masks_spare_regularizers():
    myocardium = torch.rand(1, 1, *SHAPE, generator=torch.Generator().manual_seed(1)) > 0.5
    view = torch.ones(1, 1, *SHAPE, dtype=torch.bool)
    view[..., :3] = False
    energy = Energy({"look": MSE(), "smooth": Diffusion(), "volume": Incompressibility()})
    given = {k: v for k, v in inputs().items() if k in ("image", "field")}
    found = energy(**given, spacing=SPACING, masks={"image": view, "volume": myocardium}).terms
    field = given["field"]
    wanted = {
        "look": MSE().value(*given["image"], spacing=SPACING, mask=view),
        "smooth": Diffusion().value(field, spacing=SPACING),
        "volume": Incompressibility().value(field, spacing=SPACING, mask=myocardium),
    }
    torch.testing.assert_close(found, wanted)


def test_fields_may_live_on_a_coarser_grid():
    energy = Energy({"look": MSE(), "smooth": Diffusion()})
    given = {k: v for k, v in inputs().items() if k in ("image", "field")}
    given["field"] = given["field"][..., :3, :3]
    coarse = (8.0, 2.8, 3.8)
    found = energy(**given, spacing=SPACING, field_spacing=coarse).terms["smooth"]
    torch.testing.assert_close(found, Diffusion().value(given["field"], spacing=coarse))


def test_weights_can_be_learned_kept_and_replaced():
    given = {"field": inputs()["field"]}
    plain = Diffusion().value(given["field"], spacing=SPACING)
    own = torch.nn.Parameter(torch.tensor(3.0, dtype=torch.float64))
    energy = Energy(
        {
            "learned": Weighted(term=Diffusion(), weight=2.0, learnable=True),
            "own": Weighted(term=Diffusion(), weight=own),
            "map": Weighted(term=Diffusion(), weight=torch.full((1, 1, *SHAPE), 0.5)),
        }
    )
    assert {n for n, _ in energy.named_parameters()} == {"log_weight_learned", "weight_own"}
    assert {n for n, _ in energy.named_buffers()} == {"weight_map"}
    found = energy(**given, spacing=SPACING)
    torch.testing.assert_close(found.total, 5.5 * plain, rtol=1e-6, atol=0)
    found.total.sum().backward()
    torch.testing.assert_close(own.grad, plain.sum())
    torch.testing.assert_close(
        energy.log_weight_learned.grad.double(), 2 * plain.sum(), rtol=1e-6, atol=0
    )
    replaced = energy(**given, spacing=SPACING, weights={"own": torch.tensor([0.0, 1.0])})
    torch.testing.assert_close(
        replaced.total - found.total, torch.tensor([-3.0, -2.0]) * plain, rtol=1e-5, atol=1e-6
    )
    torch.testing.assert_close(math.log(2.0), float(energy.log_weight_learned.detach()))


class LearnedDistance(ImageTerm, torch.nn.Module):
    """Squared difference of one learned feature."""

    def __init__(self):
        super().__init__()
        self.gain = torch.nn.Parameter(torch.tensor(2.0, dtype=torch.float64))

    def map(self, fixed, moved, *, spacing, mask=None):
        return (self.gain * (fixed - moved)).square()


def test_a_learned_similarity_trains_with_its_energy():
    energy = Energy({"look": Weighted(term=LearnedDistance(), weight=3.0)})
    pair = inputs()["image"]
    found = energy(image=pair, spacing=SPACING)
    torch.testing.assert_close(found.total, 12 * MSE().value(*pair, spacing=SPACING))
    found.total.sum().backward()
    (gain,) = energy.parameters()
    torch.testing.assert_close(gain.grad, found.total.sum().detach())


def test_what_is_missing_or_unknown_is_named():
    energy = Energy({"look": MSE()})
    with pytest.raises(ValueError, match="image must be given for the term look, got None"):
        energy(spacing=SPACING)
    pair = inputs()["image"]
    with pytest.raises(ValueError, match=r"masks must name .*look.*, got \['images'\]"):
        energy(image=pair, spacing=SPACING, masks={"images": torch.ones(1)})
    with pytest.raises(ValueError, match=r"weights must name look, got \['image'\]"):
        energy(image=pair, spacing=SPACING, weights={"image": 1.0})
    with pytest.raises(ValueError, match="terms must name at least one term, got none"):
        Energy({})
    with pytest.raises(ValueError, match="weight of look must be positive to be learned"):
        Energy({"look": Weighted(term=MSE(), weight=0.0, learnable=True)})


def test_configs_name_terms():
    assert make_term("lncc", {"radius_mm": 4.0}) == LNCC(radius_mm=4.0)
    assert make_term("bending") == Bending()
    for name, options, message in (
        ("lnc", {}, "CG-M07 energy term: found 'lnc'; expected one of mse, ncc, lncc"),
        ("lncc", {"radius": 4}, "CG-M07 energy term lncc: found radius; expected options radius_"),
        ("bending", {"mu": 4}, "CG-M07 energy term bending: found mu; expected no options"),
        ("mse", {"sigma": -1}, "CG-M07 energy term mse: found sigma must be positive, got -1"),
        ("mse", {"sigma": "a"}, "CG-M07 energy term mse: found '>' not supported"),
    ):
        with pytest.raises(CardiogenError, match=message):
            make_term(name, options)

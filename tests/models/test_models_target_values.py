"""Targets as text: units, what follows from what, and what contradicts itself."""

import numpy as np
import pytest

from cardiogen.base import CardiogenError
from cardiogen.data.factors import Factors
from cardiogen.models.target_values import UNITS, parse_targets

TALL = Factors(height=180.0, weight=80.0)  # 2.0 m2 by Mosteller
HEART = np.array([200.0, 80.0, 130.0, 210.0, 90.0])  # EDV, ESV, mass, right EDV, right ESV


def wanted(*texts, factors=TALL):
    return dict(parse_targets(texts, factors).wanted)


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [("lvedv=220", "lvedv", 220.0), ("LVEDV = 220 mL", "lvedv", 220.0),
     ("lvedv=0.22L", "lvedv", 220.0), ("lvedv=220cm³", "lvedv", 220.0), ("lvef=35%", "lvef", 35.0),
     ("lvm=0.12 kg", "lvm", 120.0), ("lvmi=70 g/m²", "lvm", 140.0), ("rvedvi=9e1", "rvedv", 180.0),
     ("rvsv=80", "rvsv", 80.0)],
)  # fmt: skip
def test_units_are_turned_into_those_of_the_measure(text, name, value):
    assert wanted(text) == {name: pytest.approx(value)}


def test_nothing_asked_is_no_target():
    assert parse_targets([], TALL) is None


def test_every_name_says_its_unit():
    assert {name: UNITS[name][0] for name in ("lvedv", "lvef", "lvm", "lvmi", "rvesvi")} == {
        "lvedv": "mL", "lvef": "%", "lvm": "g", "lvmi": "g/m2", "rvesvi": "mL/m2",
    }  # fmt: skip
    assert parse_targets(["lvmi=70"], TALL).asked == ("lvmi=70 g/m2",)


@pytest.mark.parametrize(
    "texts",
    [("lvedv=200", "lvesv=80", "lvsv=120", "lvef=60"), ("lvsv=120", "lvef=60", "lvedvi=100"),
     ("lvesv=80", "lvsv=120", "lvef=60"), ("lvesv=80", "lvef=60", "lvedv=200.5")],
)  # fmt: skip
def test_what_follows_from_other_targets_is_no_second_constraint(texts):
    found = parse_targets(texts, TALL)
    assert len(found.wanted) == 2
    assert found.miss(HEART) < 0.005


def test_transform_is_zero_away_from_the_goal_exactly_at_it():
    targets = parse_targets(["lvedv=200", "lvef=60", "lvm=130", "rvedv=210", "rvsv=120"], TALL)
    assert np.allclose(targets.transform(HEART), targets.goal, rtol=1e-12)
    assert targets.miss(HEART) < 1e-12
    assert targets.needs_systole
    more = HEART.copy()
    more[2] *= 1.02
    assert targets.miss(more) == pytest.approx(0.02)


def test_targets_at_end_diastole_need_no_systole():
    assert not parse_targets(["lvedv=200", "lvm=130", "rvedv=210"], TALL).needs_systole


@pytest.mark.parametrize(
    ("texts", "code", "words"),
    [(("lvedw=200",), "U40", "lvedv"), (("lvedv",), "U40", "NAME=VALUE"),
     (("lvedv=1.2.3",), "U40", "number"), (("lvedv=200 oz",), "U41", "mL, cm3, L"),
     (("lvef=35 mL",), "U41", "unknown unit"), (("lvef=0.35",), "U41", "fraction"),
     (("lvedv=0.2",), "U41", "fits L"), (("lvm=0.12",), "U41", "fits kg"),
     (("lvedv=-5",), "U42", "positive"), (("lvef=100",), "U42", "between 0 and 100"),
     (("lvef=0",), "U42", "between"), (("lvedv=1e400",), "U42", "positive"),
     (("lvedv=100", "lvesv=120"), "U42", "below the end-diastolic"),
     (("lvedv=100", "lvsv=120"), "U42", "below the end-diastolic"),
     (("lvesv=90", "lvedvi=40"), "U42", "below the end-diastolic"),
     (("rvedv=200", "rvesv=80", "rvef=50"), "U42", "make it 60"),
     (("lvedv=200", "lvedvi=90"), "U42", "agree"), (("lvm=90", "lvm=91"), "U42", "twice")],
)  # fmt: skip
def test_what_makes_no_sense_is_refused_with_the_usage_status(texts, code, words):
    with pytest.raises(CardiogenError, match=f"CG-{code} --target: .*{words}") as caught:
        parse_targets(texts, TALL)
    assert caught.value.exit_code == 2


def test_indices_need_a_body_surface():
    with pytest.raises(CardiogenError, match=r"CG-U43 --target: .*height and weight"):
        parse_targets(["lvmi=70"], Factors(height=180.0))

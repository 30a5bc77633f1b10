"""Clinical factors: units that cannot be mistaken, text that is taken for what it says."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cardiogen.base import CardiogenError
from cardiogen.data import FACTORS, Factors
from cardiogen.data.factors import factor_faults, factor_of, parse_number


def test_everything_may_be_missing():
    factors = Factors()
    assert factors.missing == ("age", "sex", "height", "weight", "sbp")
    assert factors.bsa is None
    assert factors.bmi is None


@given(st.floats(100, 220), st.floats(15, 40))
def test_derived_indices_follow_their_equations(height, bmi):
    weight = bmi * (height / 100) ** 2
    factors = Factors(height=height, weight=weight)
    assert factors.bmi == pytest.approx(bmi)
    assert 3600 * factors.bsa**2 == pytest.approx(height * weight)


def test_mosteller_of_a_published_example():
    # 180 cm and 80 kg are exactly 2 m2 (Mosteller 1987).
    assert Factors(height=180, weight=80).bsa == 2.0


def test_mapping_round_trip():
    factors = Factors(age=70, sex="F", height=165, weight=60.5, sbp=131)
    assert Factors.from_mapping(factors.as_dict()) == factors


@pytest.mark.parametrize(
    ("column", "name"),
    [("age", "age"), (" Age ", "age"), ("SEX", "sex"), ("height", "height"),
     ("height_cm", "height"), ("weight_kg", "weight"), ("sbp_mmHg", "sbp"), ("dbp", None),
     ("height_m", None)],
)  # fmt: skip
def test_columns_and_aliases(column, name):
    assert factor_of(column) == name


def test_every_factor_has_unit_range_and_description():
    for name, info in FACTORS.items():
        assert hasattr(Factors(), name)
        assert info.low < info.high
        assert info.description
        assert bool(info.unit) == (name != "sex")


@pytest.mark.parametrize(("text", "sex"), [("F", "F"), ("male", "M"), (" f ", "F"), ("", None)])
def test_sex_as_text(text, sex):
    assert Factors.from_mapping({"sex": text}).sex == sex


@pytest.mark.parametrize("code", ["X", "?", "0", "1", 0, 1, True, "w", "FM"])
def test_undeclared_sex_codes_are_refused(code):
    with pytest.raises(CardiogenError, match=r"CG-C24 t/sex: .*F or M"):
        Factors.from_mapping({"sex": code}, where="t")


@pytest.mark.parametrize(
    ("text", "code", "words"),
    [("7O", "C14", "a number such as"), ("seventy", "C14", "a number"), ("0x46", "C14", "number"),
     ("7_0", "C14", "number"), ("12:30", "C14", "number"), ("\u0667\u0660", "C14", "number"),
     ("nan", "C13", "finite"), ("inf", "C13", "finite"), ("-Infinity", "C13", "finite"),
     ("1e400", "C13", "finite"), ("70,5", "C04", "decimal point"),
     ("70,000", "C21", "without grouped digits"), ("89+", "C15", "exact value"),
     ("130", "C13", "0 to 120 years"), ("-5", "C13", "0 to 120 years")],
)  # fmt: skip
def test_ages_that_are_none(text, code, words):
    with pytest.raises(CardiogenError, match=f"CG-{code} t.csv:3/age: .*{words}"):
        Factors.from_mapping({"age": text}, where="t.csv:3")


@pytest.mark.parametrize(
    ("text", "value"), [("70", 70), (" 70.5 ", 70.5), (".5", 0.5), ("7e1", 70), ("+70.", 70)]
)
def test_plain_decimal_notation(text, value):
    assert parse_number(text, "x") == value


@given(st.floats(-1e300, 1e300))
def test_every_number_python_prints_is_read_back(value):
    assert parse_number(repr(value), "x") == value


@given(st.text(max_size=8))
def test_parsed_text_is_finite_or_refused(text):
    try:
        value = parse_number(text, "x")
    except CardiogenError as error:
        assert error.code in ("C04", "C13", "C14", "C15", "C21")  # noqa: PT017
    else:
        assert math.isfinite(value)


@pytest.mark.parametrize(
    ("values", "hint"),
    [({"height": 1.75}, r"looks like meters \(175 cm\)"),
     ({"height": 1750}, r"looks like millimeters \(175 cm\)"),
     ({"height": 70, "weight": 75}, r"looks like inches \(178\)"),
     ({"height": 120, "weight": 200}, r"looks like lb \(91 kg\)"),
     ({"weight": 75000}, r"looks like grams \(75 kg\)"),
     ({"sbp": 17.5}, r"looks like kPa \(131 mmHg\)"),
     ({"height": 250, "weight": 30}, "checking both values")],
)  # fmt: skip
def test_other_units_are_recognized(values, hint):
    with pytest.raises(CardiogenError, match=f"CG-C27 .*{hint}"):
        Factors(**values)


@pytest.mark.parametrize("name", ["age", "height", "weight", "sbp"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0, 1e9])
def test_impossible_values_are_refused(name, value):
    with pytest.raises(CardiogenError, match=f"CG-C13 {name}: "):
        Factors(**{name: value})


def test_one_factor_in_two_columns_is_refused():
    with pytest.raises(CardiogenError, match=r"CG-C11 .*height twice"):
        Factors.from_mapping({"height": "170", "height_cm": "171"})


@pytest.mark.parametrize("value", [True, [70], b"70"])
def test_other_types_are_refused(value):
    with pytest.raises(CardiogenError, match="CG-C14"):
        Factors.from_mapping({"age": value})


def test_all_faults_at_once():
    cells = {"age": "7O", "sex": "X", "height": "1.75", "sbp": "120", "group": "NOR"}
    assert [f.code for f in factor_faults(cells, where="t")] == ["C14", "C24", "C27"]
    assert [f.code for f in factor_faults({"height": "70", "weight": "75"}, where="t")] == ["C27"]
    assert factor_faults({"age": "70"}, where="t") == []

"""The reference table: linear in age, symmetric, and equal to its source."""

import numpy as np
import pandas as pd
import pytest

from cardiogen.base import CardiogenError
from cardiogen.measure import reference, reference_measures, z_score
from cardiogen.measure.reference import AGE_BANDS, _table


def test_published_bounds_lie_on_lines():
    """Rounding moves a bound by up to 0.5; through 25, 35, ..., 75 years nothing else does."""
    for _, bounds in _table().values():
        values = np.array(list(bounds.values()))
        assert list(bounds) == list(AGE_BANDS)
        ages = np.array(list(AGE_BANDS.values()))
        for side in values.T:
            residual = side - np.polyval(np.polyfit(ages, side, 1), ages)
            assert np.abs(residual).max() < 0.5


def test_line_reproduces_the_decades():
    for convention, sex, measure in _table():
        for band, age in AGE_BANDS.items():
            line = reference(measure, sex=sex, age=age, convention=convention)
            row = reference(measure, sex=sex, age=age, convention=convention, by_decade=True)
            assert abs(line.lower - row.lower) < 0.7, (measure, band)
            assert abs(line.upper - row.upper) < 0.7, (measure, band)


def test_published_values():
    """Men of 50 to 59 years, from the paper's table."""
    row = reference("LVEDV (mL)", sex="M", age=53, by_decade=True)
    assert (row.lower, row.upper, row.mean, row.unit) == (109, 227, 168, "mL")
    assert row.sd == pytest.approx(118 / 3.919928)
    assert "10.1016/j.jcmg.2024.01.009" in row.source
    assert reference("LVEDV", sex="M", age=55, convention="anatomical").mean == pytest.approx(
        151, abs=1
    )


def test_mean_is_linear_and_width_constant():
    ages = np.array([18.0, 30.0, 42.0, 54.0, 66.0, 78.0])
    rows = [reference("RVEDV", sex="F", age=age) for age in ages]
    np.testing.assert_allclose(np.diff([r.mean for r in rows], 2), 0.0, atol=1e-9)
    np.testing.assert_allclose([r.sd for r in rows], rows[0].sd)
    assert rows[0].mean > rows[-1].mean


def test_z_scores():
    expected = reference("LVEF", sex="F", age=61.5)
    assert z_score(expected.mean, "LVEF", sex="F", age=61.5) == 0.0
    assert z_score(expected.upper, "LVEF", sex="F", age=61.5) == pytest.approx(1.959964)
    assert z_score(expected.lower, "LVEF (%)", sex="F", age=61.5) == pytest.approx(-1.959964)


def test_measures():
    measures = reference_measures()
    wanted = {"LVEDV", "LVESV", "LVSV", "LVEF", "LVM", "RVEDV", "RVESV", "RVSV", "RVEF"}
    assert wanted <= set(measures)


def test_faults_are_told():
    with pytest.raises(CardiogenError, match="CG-D20 age: found 90 years"):
        reference("LVEDV", sex="F", age=90)
    with pytest.raises(CardiogenError, match="CG-D20 age: found nan years"):
        reference("LVEDV", sex="F", age=float("nan"))
    with pytest.raises(CardiogenError, match="CG-U20 measure: found 'LVXY'"):
        reference("LVXY", sex="F", age=50)
    with pytest.raises(ValueError, match="sex must be F or M"):
        reference("LVEDV", sex="female", age=50)


def test_table_equals_its_source(real_data):
    source = pd.read_csv(real_data / "tables" / "reference_ranges_hhc.csv")
    assert len(source) == 6 * len(_table())
    for row in source.itertuples():
        bounds = _table()[row.segmentation, row.sex, row.measure][1]
        assert bounds[row.age_band] == (row.lower95, row.upper95)

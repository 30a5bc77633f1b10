"""Laws of the volume curve: closed, smooth, isovolumic between ejection and filling."""

import numpy as np
import pytest

from cardiogen.base import keyed_rng
from cardiogen.population import Timing, sample_timing


def timings(age, count=40):
    return [sample_timing(keyed_rng(5, "timing", i), age) for i in range(count)]


@pytest.fixture(params=[20.0, 60.0, 83.0])
def timing(request):
    return timings(request.param, 1)[0]


def test_motion_starts_and_ends_full(timing):
    np.testing.assert_array_equal(timing.emptied([0.0, 1.0, 2.0, -3.0]), 0.0)
    assert timing.emptied([timing.systole])[0] == 1.0


def test_motion_is_periodic(timing):
    phases = np.linspace(0, 1, 101)
    np.testing.assert_allclose(timing.emptied(phases + 3), timing.emptied(phases), atol=1e-12)


def test_motion_is_largest_at_end_systole_and_isovolumic_after(timing):
    phases = np.linspace(0, 1, 2001)
    emptied = timing.emptied(phases)
    assert emptied.min() >= -1e-15
    assert emptied.max() == 1.0
    rest = (phases >= timing.systole) & (phases <= timing.systole + 0.045)
    np.testing.assert_allclose(emptied[rest], 1.0, atol=1e-12)
    assert (np.diff(emptied[phases <= timing.systole]) >= 0).all(), "ejection turns back"
    assert (np.diff(emptied[phases > timing.systole]) <= 1e-15).all(), "filling turns back"


@pytest.mark.parametrize("order", [1, 2])
def test_motion_is_smooth(timing, order):
    """The largest step of the derivative falls with the step of the phase: no kink."""

    def jump(count):
        phases = np.arange(count) / count
        value = timing.emptied(phases)
        for _ in range(order):
            value = (np.roll(value, -1) - value) * count
        return np.abs(np.roll(value, -1) - value).max()

    assert jump(8000) < 0.6 * jump(4000) < 0.4 * jump(2000)


def test_motion_atrial_share_rises_with_age():
    shares = [np.mean([t.atrial_share for t in timings(age)]) for age in (20.0, 40.0, 60.0, 80.0)]
    assert (np.diff(shares) > 0.03).all()


def test_motion_ratio_of_filling_peaks_falls_from_two_to_one():
    def ratio(age):
        phases = np.arange(4000) / 4000
        found = []
        for timing in timings(age):
            flow = -np.gradient(timing.emptied(phases), phases)
            # The atrial wave is the last 0.16 of the cycle.
            found.append(flow[phases < 0.8].max() / flow[phases > 0.86].max())
        return np.median(found)

    assert ratio(25.0) == pytest.approx(2.0, rel=0.15)
    assert ratio(65.0) == pytest.approx(1.0, rel=0.15)


def test_motion_timing_is_plausible():
    found = timings(50.0, 300)
    assert 0.3 < min(t.systole for t in found) < max(t.systole for t in found) < 0.42
    assert 0.6 < min(t.cycle_s for t in found) < max(t.cycle_s for t in found) < 1.5
    assert isinstance(found[0], Timing)

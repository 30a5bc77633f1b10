"""Progress passes items through; the bar exists only for slow work on a terminal."""

import io
import sys

import pytest

from cardiogen.base import progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize("tty", [False, True])
def test_items_pass_in_order_without_output(monkeypatch, tty):
    stream = Terminal() if tty else io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    assert list(progress(range(5), "Counting")) == list(range(5))
    assert list(progress((i for i in range(3)), "Counting")) == [0, 1, 2]
    assert stream.getvalue() == ""


def test_bar_appears_on_slow_work_and_ends_with_it(monkeypatch):
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    # The package re-exports the function under the name of its module.
    monkeypatch.setattr(sys.modules["cardiogen.base.progress"], "_PATIENCE_S", -1.0)
    assert list(progress([1, 2, 3], "Counting")) == [1, 2, 3]
    assert "Counting" in stream.getvalue()

"""The live line: a bar with the row's values on a terminal."""

import io
import sys

from ktfast.training.progress import LiveLine


class Terminal(io.StringIO):
    """A stderr that says it is a terminal."""

    def isatty(self) -> bool:
        return True


ROW = {"step": 0, "epoch": 0.5, "loss": 1.25, "images_per_second": 182.4, "loader_wait": 0.02}


def test_a_terminal_shows_a_bar(monkeypatch):
    monkeypatch.setattr(sys, "stderr", screen := Terminal())
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "160")
    with LiveLine("toy", 20, enabled=True) as line:
        for step in (10, 20):
            line.show({**ROW, "step": step}, "bound by compute", eta=1.0)
    shown = screen.getvalue()
    for part in ("toy", "20/20", "epoch 0.50 loss 1.250 | 182 images/s, feed wait 2%, bound by"):
        assert part in shown
    assert "0:00:00" in shown


def test_a_silent_line_shows_nothing(monkeypatch):
    monkeypatch.setattr(sys, "stderr", screen := Terminal())
    with LiveLine("toy", 20, enabled=False) as line:
        line.show(ROW, "bound by compute", eta=1.0)
    assert screen.getvalue() == ""

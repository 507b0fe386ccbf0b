"""The live line: figures that fit a terminal, log lines elsewhere, no leftovers on the screen."""

import io
import logging
from types import SimpleNamespace

import pytest

from ktfast.errors import ShownFormatter
from ktfast.training.live_line import LiveLine, line_text, spelled_time
from ktfast.training.progress import row_parts
from ktfast.training.speed import SpeedBounds

ROW = {"step": 0, "epoch": 0.5, "loss": 1.25, "images_per_second": 182.4, "loader_wait": 0.02}
BOUNDS = SpeedBounds(182.4, 5_016_246.0, 186.0, 2.0, 0.81, 0.1)


class Terminal(io.StringIO):
    """A stderr that says it is a terminal, and what the terminal shows in the end."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True

    def lines(self) -> list[str]:
        """The lines of the screen, after all erasures."""
        return [line.rpartition("\r\x1b[K")[2] for line in self.getvalue().split("\n")]


@pytest.fixture
def screen(monkeypatch):
    # pytest replaces sys.stderr itself between the setup and the call of a test.
    screen = Terminal()
    monkeypatch.setattr("ktfast.training.live_line.sys", SimpleNamespace(stderr=screen))
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    return screen


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("ktfast.training.live_line.time.monotonic", lambda: now[0])
    return now


def test_name_bar_and_remaining_time_come_first_and_the_line_fits():
    parts = row_parts({**ROW, "accuracy": 0.125}, BOUNDS)
    text = line_text("pretext", 0.41, 5025.0, parts, 79)
    assert text == "pretext ━━━━━─────────  41% ETA 1:23:45  loss 1.250  accuracy 0.125"
    assert line_text("pretext", 0.41, 65.0, parts, 85).endswith("accuracy 0.125  182 images/s")
    for columns in (20, 40, 79, 200):
        for name in ("pretext", "voc/classification-transfer-long-name"):
            assert len(line_text(name, 0.5, 1e7, parts, columns)) <= columns
    assert line_text("toy", 0.5, None, [], 79, "ascii") == "toy #######-------  50% ETA ?"
    assert " 99% " in line_text("toy", 0.9999, 1.0, [], 79)
    wide = line_text("pretext", 0.41, 5025.0, parts, 200)
    assert wide.endswith("182 images/s  epoch 0.50  feed wait 2%  bound by compute  81% of peak")


def test_no_absurd_figure_is_shown():
    assert "5,016,246" not in BOUNDS.text() + BOUNDS.summary() + " ".join(row_parts(ROW, BOUNDS))
    assert BOUNDS.text() == "bound by compute (feed alone over 100 times as fast), 81% of peak"
    assert "feed alone over 100 times as fast, network alone 186 images/s" in BOUNDS.summary()


def test_times_are_spelled():
    for seconds, text in ((None, "?"), (0.2, "0:00:00"), (5025, "1:23:45"), (4e6, "46 days")):
        assert spelled_time(seconds) == text


def test_a_terminal_shows_one_line_that_is_rewritten(screen, clock):
    with LiveLine("toy", 20) as line:
        assert screen.lines() == ["toy ──────────────   0% ETA ?"]
        line.start(0, forecast=7200.0)
        assert "ETA 2:00:00" in screen.lines()[0]
        for step in range(1, 11):
            clock[0] += 3.0
            line.advance(step)
        assert screen.lines() == ["toy ━━━━━━━───────  50% ETA 0:00:30"]
        line.advance(11, row_parts(ROW, BOUNDS))
        assert "loss 1.250  182 images/s" in screen.lines()[0]
        line.advance(20)
    assert screen.lines()[0].startswith("toy ━━━━━━━━━━━━━━ 100% ETA 0:00:00")
    assert screen.lines()[1:] == [""]


def test_drawing_waits_for_a_fifth_of_a_second(screen, clock):
    with LiveLine("toy", 1000) as line:
        line.start(0)
        for step in range(1, 1001):
            clock[0] += 0.001
            line.advance(step)
        assert screen.getvalue().count("toy") < 10


def test_a_log_line_in_between_stands_on_a_line_of_its_own(screen):
    handler = logging.StreamHandler(screen)
    handler.setFormatter(ShownFormatter("%(message)s"))
    logger = logging.getLogger("ktfast")
    logger.addHandler(handler)
    try:
        with LiveLine("toy", 20) as line:
            line.advance(4, ["loss 3"])
            logger.warning("a warning")
            line.advance(8, ["loss 2"])
        logger.warning("the end")
    finally:
        logger.removeHandler(handler)
    lines = screen.lines()
    assert lines[0] == "a warning"
    assert lines[1].startswith("toy ━━━━━")
    assert lines[2:] == ["the end", ""]
    assert not handler.filters


def test_a_log_has_its_first_figure_within_ten_seconds(caplog, clock):
    with caplog.at_level(logging.INFO), LiveLine("toy", 1000, unit="images") as line:
        line.start(0)
        for step in range(1, 31):
            clock[0] += 1.0
            line.advance(step)
    messages = [record.getMessage() for record in caplog.records]
    assert messages == [
        "toy 5/1000 ETA 0:16:35 | 1 images/s",
        "toy 15/1000 ETA 0:16:25 | 1 images/s",
        "toy 25/1000 ETA 0:16:15 | 1 images/s",
    ]


def test_a_silent_line_shows_nothing(screen):
    with LiveLine("toy", 20, enabled=False) as line:
        line.start(0)
        line.advance(20, row_parts(ROW, BOUNDS))
    assert screen.getvalue() == ""


def test_a_terminal_that_is_gone_ends_no_training(screen):
    with LiveLine("toy", 20) as line:
        screen.write = lambda _: (_ for _ in ()).throw(OSError("gone"))
        line.advance(1, ["loss 3"])
        line.advance(2, ["loss 3"])

"""Progress of long work: one line that is rewritten on a terminal, else a few log lines.

On a terminal, name, bar, share and remaining time come first. Figures follow as long as they fit
the width. A log line first erases the live line, which is then drawn again below the log line.
"""

import logging
import os
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import TextIO

logger = logging.getLogger(__name__)

LINE_SECONDS = 10.0
"""Least time between two log lines if stderr is no terminal, seconds."""
FIRST_SECONDS = 5.0
"""Time after which the first log line comes, seconds."""
DRAW_SECONDS = 0.2
"""Least time between two drawings on a terminal, seconds."""
_NAME, _BAR = 24, 14  # longest name, and length of the bar, in characters
_ERASE = "\r\x1b[K"


class LiveLine:
    """Show the progress of long work. Use the object in a ``with`` block.

    Parameters
    ----------
    name : str
        Name of the work.
    total : int
        Number of steps, images or other units of the work.
    enabled : bool
        Whether to show anything.
    unit : str
        Name of the units, such as "images", to show the units per second. Empty: the rate is not
        shown.
    """

    def __init__(self, name: str, total: int, *, enabled: bool = True, unit: str = "") -> None:
        self.name = name
        self.total = total
        self.enabled = enabled
        self.unit = unit
        self._parts: Sequence[str] = ()
        self._first = self._done = 0
        self._eta: float | None = None
        self._began = self._shown = time.monotonic()
        self._pause = FIRST_SECONDS
        self._screen: TextIO | None = None
        self._erasers: list[tuple[logging.Handler, _Eraser]] = []

    def __enter__(self) -> "LiveLine":
        if self.enabled and is_screen(sys.stderr):
            self._screen = sys.stderr
            for handler in _handlers():
                self._erasers.append((handler, eraser := _Eraser(self._screen)))
                handler.addFilter(eraser)
            self._draw()
        return self

    def __exit__(self, *_: object) -> None:
        for handler, eraser in self._erasers:
            handler.removeFilter(eraser)
        if self._screen is not None:
            self._draw()
            self._write("\n")
        self._screen = None

    def start(self, done: int, forecast: float | None = None) -> None:
        """Start the clock that measures the speed.

        Parameters
        ----------
        done : int
            Units that were done earlier, for example before an interruption.
        forecast : float, optional
            Expected seconds of the remaining work. None: unknown.
        """
        self._first = self._done = done
        self._eta = forecast
        self._began = self._shown = time.monotonic()
        self._draw()

    def advance(self, done: int, parts: Sequence[str] | None = None) -> None:
        """Set the number of units that are done. The call is cheap unless a new line is due.

        Parameters
        ----------
        done : int
            Units that are done.
        parts : sequence of str, optional
            Figures to show after the remaining time, the most important first. None: the figures
            of the last call.
        """
        if not self.enabled:
            return
        self._parts = self._parts if parts is None else parts
        now, self._done = time.monotonic(), done
        fresh = done - self._first
        if fresh > 0:
            self._eta = (now - self._began) / fresh * (self.total - done)
        if self._screen is not None:
            if parts is not None or now - self._shown >= DRAW_SECONDS:
                self._shown = now
                self._draw()
        elif (parts is not None and done == self.total) or now - self._shown >= self._pause:
            self._shown, self._pause = now, LINE_SECONDS
            parts = "".join(f" | {part}" for part in self._figures())
            clock = spelled_time(self._eta)
            logger.info("%s %d/%d ETA %s%s", self.name, done, self.total, clock, parts)

    def _figures(self) -> Sequence[str]:
        fresh, seconds = self._done - self._first, time.monotonic() - self._began
        if not self.unit or fresh <= 0:
            return self._parts
        return [f"{fresh / max(seconds, 1e-9):,.0f} {self.unit}/s", *self._parts]

    def _draw(self) -> None:
        if self._screen is not None:
            share = self._done / max(self.total, 1)
            columns = width_of(self._screen) - 1  # a line of full width wraps on some terminals
            encoding = getattr(self._screen, "encoding", None) or "ascii"
            text = line_text(self.name, share, self._eta, self._figures(), columns, encoding)
            self._write(f"{_ERASE}{text}")

    def _write(self, text: str) -> None:
        if self._screen is not None:
            with suppress(OSError):  # the terminal is gone, but the work goes on
                self._screen.write(text)
                self._screen.flush()


class _Eraser(logging.Filter):
    """Erases the line before a handler writes a log line to the same screen."""

    def __init__(self, screen: TextIO) -> None:
        super().__init__()
        self._screen = screen

    def filter(self, record: logging.LogRecord) -> bool:
        with suppress(OSError):
            self._screen.write(_ERASE)
            self._screen.flush()
        return True


def _handlers() -> list[logging.Handler]:
    """Handlers that write ktfast's log lines to a screen."""
    handlers = [*logging.getLogger().handlers, *logging.getLogger("ktfast").handlers]
    return [handler for handler in handlers if is_screen(getattr(handler, "stream", None))]


def is_screen(stream: object) -> bool:
    """Say whether a stream is a terminal that can erase a line."""
    isatty = getattr(stream, "isatty", None)
    with suppress(ValueError):  # the stream is closed
        return bool(isatty and isatty()) and os.environ.get("TERM") != "dumb"
    return False


def width_of(screen: TextIO) -> int:
    """Number of columns of a terminal; 80 if unknown."""
    given = os.environ.get("COLUMNS", "")
    if given.isdecimal() and int(given):
        return int(given)
    try:
        return os.get_terminal_size(screen.fileno()).columns or 80
    except (OSError, ValueError, AttributeError):
        return 80


def line_text(
    name: str,
    share: float,
    eta: float | None,
    parts: Sequence[str],
    columns: int,
    encoding: str = "utf-8",
) -> str:
    """Compose the line of a terminal.

    Parameters
    ----------
    name : str
        Name of the work.
    share : float
        Share of the work that is done, 0 to 1.
    eta : float or None
        Expected seconds of the remaining work. None: unknown.
    parts : sequence of str
        Figures, the most important first. Those that do not fit are left out.
    columns : int
        Largest length of the line in characters.
    encoding : str
        Encoding of the terminal.

    Returns
    -------
    text : str
        The line.
    """
    full, empty, dots = "━", "─", "…"
    try:
        f"{full}{empty}{dots}".encode(encoding)
    except (UnicodeEncodeError, LookupError):
        full, empty, dots = "#", "-", "~"
    filled = min(_BAR, int(share * _BAR))
    short = name if len(name) <= _NAME else name[: _NAME - 1] + dots
    text = f"{short} {full * filled}{empty * (_BAR - filled)}"
    # Only finished work shows 100 %: 99.6 % is shown as 99 %.
    text += f" {min(int(100 * share), 100):3d}% ETA {spelled_time(eta)}"
    for part in parts:
        if len(text) + 2 + len(part) > columns:
            break
        text += f"  {part}"
    return text[:columns]


def spelled_time(seconds: float | None) -> str:
    """Spell a duration as `1:02:03`, as `5 days` from two days on, or as `?` if unknown."""
    if seconds is None:
        return "?"
    if seconds >= 48 * 3600:
        return f"{seconds / 86400:,.0f} days"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"

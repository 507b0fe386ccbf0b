"""How the report prints numbers, times and the names of models."""

from collections.abc import Sequence
from datetime import datetime, timezone

from ktfast.evaluation.json_values import number

MODEL_NAMES = {
    "transfer": "transfer (clusters as labels)",
    "pretext": "pretext task only (no clustering)",
    "labels": "true labels",
    "random": "random weights",
}


def with_others(names: Sequence[str], noun: str = "run") -> str:
    """The first of several names, and how many others there are: "a", "a and 1 other run"."""
    others = len(names) - 1
    return f"{names[0]} and {others} other {noun}{'s' * (others > 1)}" if others else names[0]


def duration(seconds: object) -> str:
    """Seconds as `4.2 s`, `3 min 05 s` or `1 h 12 min`; a dash if the value is no number."""
    value = number(seconds)
    if value is None:
        return "–"
    if value < 60:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours:,} h {minutes:02} min"


def moment(seconds: object) -> str:
    """Seconds since 1970 as `2026-05-01 12:03` in UTC; a dash if the value is no number."""
    value = number(seconds)
    if value is None or not 0 <= value < 1e11:
        return "–"
    return datetime.fromtimestamp(value, timezone.utc).strftime("%Y-%m-%d %H:%M")


def amount(value: object) -> str:
    """A whole number in full, another number with 3 significant digits; a dash if no number."""
    known = number(value)
    if known is None:
        return "–"
    if known.is_integer() and abs(known) < 1e15:
        return f"{int(known):,}"
    return f"{known:,.0f}" if abs(known) >= 100 else f"{known:.3g}"


def percent(value: object, digits: int = 1) -> str:
    """A fraction as `12.3 %` with a non-breaking space; a dash if the value is no number."""
    known = number(value)
    return "–" if known is None else f"{100 * known:.{digits}f}\u00a0%"

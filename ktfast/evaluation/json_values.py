"""Read values of stored JSON whose type is not certain, because the file is old or damaged."""

import math
from typing import Any

Json = dict[str, Any]
"""A JSON object."""


def number(value: object) -> float | None:
    """The value as a float if it is a finite number, else None."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def mapping(value: object) -> Json:
    """The value if it is a JSON object, else an empty one."""
    return value if isinstance(value, dict) else {}


def numbers(value: object) -> dict[str, float]:
    """The entries of a JSON object that are finite numbers."""
    known = {str(key): number(item) for key, item in mapping(value).items()}
    return {key: item for key, item in known.items() if item is not None}

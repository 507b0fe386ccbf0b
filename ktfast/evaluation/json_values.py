"""Read values of stored JSON whose type is not certain, because the file is old or damaged."""

import math
from typing import Any

Json = dict[str, Any]
"""A JSON object."""


def number(value: object) -> float | None:
    """The value as a float if it is a finite number, else None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        known = float(value)
    except OverflowError:  # JSON has integers of any length
        return None
    return known if math.isfinite(known) else None


def mapping(value: object) -> Json:
    """The value if it is a JSON object, else an empty one."""
    return value if isinstance(value, dict) else {}


def required_number(value: object) -> Any:
    """The value unchanged if it is a finite number; else `TypeError`."""
    if number(value) is None:
        raise TypeError(f"expected a number, got {value!r}")
    return value


def required_numbers(value: object) -> Json:
    """The value unchanged if it is a JSON object of finite numbers; else `TypeError`."""
    known = required_mapping(value)
    for item in known.values():
        required_number(item)
    return known


def required_mapping(value: object) -> Json:
    """The value unchanged if it is a JSON object; else `TypeError`."""
    if not isinstance(value, dict):
        raise TypeError(f"expected a JSON object, got {value!r}")
    return value


def numbers(value: object) -> dict[str, float]:
    """The entries of a JSON object that are finite numbers."""
    known = {str(key): number(item) for key, item in mapping(value).items()}
    return {key: item for key, item in known.items() if item is not None}

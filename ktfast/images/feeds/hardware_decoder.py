"""The share of the JPEG data that a GPU's hardware decoder takes in the DALI feed.

DALI divides the images between the hardware decoder and a decoder on CPU and GPU. The best share
depends on the images and on the number of CPU cores, so the feed times a few shares before the
first epoch. The two decoders may round a pixel differently. To get the same bits in every run, set
the share instead of measuring it.
"""

import logging
from collections.abc import Callable

import torch

logger = logging.getLogger(__name__)

LOADS = (0.65, 0.0, 0.4, 0.8, 0.95)
"""Shares of the JPEG data to try; the first one is DALI's default."""
WARM_UP, TIMED = 3, 12
"""Number of untimed batches at the start of a trial, and of timed batches after them."""
WORTH_BATCHES = 1000
"""Fewest batches of an epoch that justify the trials, which decode 90 batches."""
GAIN = 0.97
"""A share replaces the default if a batch takes at most this fraction of the default's time."""


def is_in(device: torch.device) -> bool:
    """Whether a device is a GPU with a hardware decoder, such as A100, H100 or B100."""
    if device.type != "cuda":
        return False
    major, minor = torch.cuda.get_device_capability(device)
    return major >= 8 and minor == 0


def fastest_load(seconds_of: Callable[[float], float]) -> float:
    """Measure every share of `LOADS` and return the fastest one.

    Parameters
    ----------
    seconds_of : callable
        Function from a share to the seconds that decoding a batch takes.

    Returns
    -------
    float
        The fastest share, or DALI's default if no other share is clearly faster.
    """
    default, *others = LOADS
    seconds_of(default)  # brings the files from disk into the page cache
    seconds = {load: seconds_of(load) for load in LOADS}
    best = min(others, key=lambda load: seconds[load])
    logger.info(
        "milliseconds to decode a batch for each share of the hardware decoder: %s",
        ", ".join(f"{1e3 * value:.1f} ({load:.0%})" for load, value in sorted(seconds.items())),
    )
    return best if seconds[best] <= GAIN * seconds[default] else default

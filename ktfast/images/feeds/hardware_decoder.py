"""How much of the work a GPU's JPEG decoder in hardware takes, beside decoding on CPU and GPU.

The best share depends on the images and on the CPU's cores, so a few are timed before the first
epoch. Two decoders may round a pixel differently: for the same bits in every run, give the share.
"""

import logging
from collections.abc import Callable

import torch

logger = logging.getLogger(__name__)

LOADS = (0.65, 0.0, 0.4, 0.8, 0.95)
"""Shares of the JPEG data that are tried, DALI's default first."""
WARM_UP, TIMED = 3, 12
"""Batches of a trial."""
WORTH_BATCHES = 1000
"""Batches of an epoch from which on the trials, which decode 90, are worth their time."""
GAIN = 0.97
"""A share is chosen over the default if its batches take at most this part of the time."""


def is_in(device: torch.device) -> bool:
    """Whether a device is a GPU with such a decoder: the chips that A100, H100 and B100 began."""
    if device.type != "cuda":
        return False
    major, minor = torch.cuda.get_device_capability(device)
    return major >= 8 and minor == 0


def fastest_load(seconds_of: Callable[[float], float]) -> float:
    """The one of `LOADS` whose batches are decoded fastest.

    Parameters
    ----------
    seconds_of : measures a batch that is decoded with a share for the hardware.
    """
    default, *others = LOADS
    seconds_of(default)  # reads the files from the disk
    seconds = {load: seconds_of(load) for load in LOADS}
    best = min(others, key=lambda load: seconds[load])
    logger.info(
        "ms to decode a batch, by the hardware decoder's share: %s",
        ", ".join(f"{1e3 * value:.1f} ({load:.0%})" for load, value in sorted(seconds.items())),
    )
    return best if seconds[best] <= GAIN * seconds[default] else default

"""The instruction-set levels of the CPU kernels, and those that this processor has."""

from ktfast.native import modules

LEVELS = ["scalar", "avx2", "avx512", "amx", "neon"]


def available():
    """The levels of this processor, lowest first. KTFAST_SIMD must not be set."""
    highest = modules.simd_level()
    if highest == "neon":
        return ["scalar", "neon"]
    return LEVELS[: LEVELS.index(highest) + 1]

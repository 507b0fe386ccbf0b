"""The peak rates of this machine, measured: arithmetic of its cores and copies of its memory."""

from collections.abc import Sequence

from ktfast.native import modules

COMPUTE = ("fp32", "bf16", "int8")


def peaks(
    threads: int, kinds: Sequence[str] = COMPUTE, *, seconds: float = 0.02, repeats: int = 25
) -> dict[str, float]:
    """Measure peak rates: the best of many short measurements.

    Other processes can only lower a measurement, so the best one is nearest to the truth.

    Parameters
    ----------
    threads : int
        Threads that compute at the same time.
    kinds : sequence of str, optional
        "fp32" is float32 multiply-adds, "bf16" and "int8" are dot products, and "copy" is a copy
        from memory to memory. Each "copy" takes 512 MiB of new memory, so measure it fewer times
        and longer.
    seconds : float, optional
        Length of one measurement.
    repeats : int, optional
        Measurements of each kind.

    Returns
    -------
    rates : dict of float
        Operations per second of each kind, where a multiply-add is two operations; bytes copied
        per second for "copy". Kinds for which the processor has no instructions are left out.

    Raises
    ------
    ValueError
        A kind is unknown, or a number is not positive.
    """
    best = {
        kind: max(
            modules.cpu.machine_peak(kind=kind, seconds=seconds, n_threads=threads)
            for _ in range(repeats)
        )
        for kind in kinds
    }
    return {kind: value for kind, value in best.items() if value > 0}

"""The ceilings of this machine: what its cores compute and its memory copies a second, measured."""

from collections.abc import Sequence

from ktfast.native import modules

COMPUTE = ("fp32", "bf16", "int8")


def peaks(
    threads: int, kinds: Sequence[str] = COMPUTE, *, seconds: float = 0.02, repeats: int = 25
) -> dict[str, float]:
    """The best of many short measurements, since other processes can only lower them.

    Parameters
    ----------
    threads : how many compute at the same time.
    kinds : "fp32" multiply-adds, "bf16" and "int8" dot products, "copy" from memory to memory,
        for which fewer and longer measurements do, as each takes 512 MiB of new memory.
    seconds : of one measurement.
    repeats : measurements of each kind.

    Returns
    -------
    kind -> operations a second, a multiply-add being two, or copied bytes a second. Kinds the
    processor has no instructions for are left out.

    Raises
    ------
    ValueError : an unknown kind, or a number that is not positive.
    """
    best = {
        kind: max(
            modules.cpu.machine_peak(kind=kind, seconds=seconds, n_threads=threads)
            for _ in range(repeats)
        )
        for kind in kinds
    }
    return {kind: value for kind, value in best.items() if value > 0}

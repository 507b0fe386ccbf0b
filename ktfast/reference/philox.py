"""Philox4x32-10 in NumPy, and the two ways ops turn its words into choices.

Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
"""

import numpy as np
import numpy.typing as npt

Words = npt.NDArray[np.uint32]

_MASK = np.uint64(0xFFFFFFFF)


def philox4x32(key: int, counter: npt.ArrayLike) -> Words:
    """The four random words of each counter.

    Parameters
    ----------
    key : 64 bits.
    counter : uint32 [..., 4], lowest word first.

    Returns
    -------
    uint32 [..., 4].
    """
    c = np.asarray(counter, dtype=np.uint64)
    c0, c1, c2, c3 = (c[..., i] for i in range(4))
    k0, k1 = key & 0xFFFFFFFF, key >> 32
    for _ in range(10):
        p0 = np.uint64(0xD2511F53) * c0
        p1 = np.uint64(0xCD9E8D57) * c2
        c0, c1, c2, c3 = (
            (p1 >> np.uint64(32)) ^ c1 ^ np.uint64(k0),
            p1 & _MASK,
            (p0 >> np.uint64(32)) ^ c3 ^ np.uint64(k1),
            p0 & _MASK,
        )
        k0 = (k0 + 0x9E3779B9) & 0xFFFFFFFF
        k1 = (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return np.stack([c0, c1, c2, c3], axis=-1).astype(np.uint32)


def draw(seed: int, sample_id: int, epoch: int, block: int) -> list[int]:
    """Four words of a sample's stream, as the kernels draw them."""
    unsigned = sample_id & 0xFFFFFFFFFFFFFFFF
    words = philox4x32(seed, [unsigned & 0xFFFFFFFF, unsigned >> 32, epoch, block])
    return [int(w) for w in words]


def bounded(word: int, n: int) -> int:
    """Map 32 random bits to 0..n-1; the bias is below n / 2^32."""
    return (word * n) >> 32


def happens(word: int, probability: float) -> bool:
    """Whether an event of this probability occurs: always at 1, never at 0."""
    return word < int(probability * 2**32)

"""The random generator Philox4x32-10 in NumPy, and how its random words become random choices.

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
    key : int
        Key of 64 bits.
    counter : array, uint32 [..., 4]
        Counters, lowest word first.

    Returns
    -------
    array, uint32 [..., 4]
        Random words.
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
    """The four random words of one block of a sample's stream, as in the kernels."""
    unsigned = sample_id & 0xFFFFFFFFFFFFFFFF
    words = philox4x32(seed, [unsigned & 0xFFFFFFFF, unsigned >> 32, epoch, block])
    return [int(w) for w in words]


def bounded(word: int, n: int) -> int:
    """Map a word of 32 random bits to an integer 0 to n - 1; the bias is below n / 2^32."""
    return (word * n) >> 32


def happens(word: int, probability: float) -> bool:
    """Whether an event of this probability occurs. Probability 1 means always, 0 means never."""
    return word < int(probability * 2**32)

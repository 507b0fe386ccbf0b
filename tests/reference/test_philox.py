import numpy as np
import pytest

from ktfast.reference.philox import bounded, draw, happens, philox4x32

# The lines "philox4x32 10" of the file kat_vectors of Random123.
KNOWN_ANSWERS = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000",
     "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff",
     "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0",
     "d16cfe09 94fdcceb 5001e420 24126ea1"),
]  # fmt: skip


def words(text):
    return [int(w, 16) for w in text.split()]


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN_ANSWERS)
def test_known_answers(counter, key, expected):
    low, high = words(key)
    assert philox4x32(low | high << 32, words(counter)).tolist() == words(expected)


def test_many_counters_at_once_are_each_alone():
    counters = np.arange(24, dtype=np.uint32).reshape(2, 3, 4) * np.uint32(0x9E3779B9)
    together = philox4x32(77, counters)
    assert together.shape == (2, 3, 4)
    assert (together[1, 2] == philox4x32(77, counters[1, 2])).all()


def test_negative_sample_ids_use_all_64_bits():
    assert draw(1, -1, 2, 3) == philox4x32(1, [0xFFFFFFFF, 0xFFFFFFFF, 2, 3]).tolist()


def test_bounded_draws_reach_both_ends_only():
    assert [bounded(w, 5) for w in (0, 2**32 // 5, 2**32 - 1)] == [0, 0, 4]
    assert bounded(2**32 - 1, 1) == 0


def test_certain_and_impossible_events():
    assert happens(2**32 - 1, 1.0)
    assert not happens(0, 0.0)

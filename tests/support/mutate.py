"""Damage the bytes of a file in many ways, the same ways for the same seed."""

import random
import re
from collections.abc import Callable, Iterator

NUMBERS = (
    0,
    1,
    0x7F,
    0x80,
    0xFF,
    0x7FFF,
    0xFFFF,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**63 - 1,
    2**64 - 1,
)
WORDS = (
    b"-1", b"0", b"1e400", b"NaN", b"null", b"true", b"[]", b"{}", b'""', b"9" * 20, b"9" * 400,
    b"1.5", b"\xef\xbb\xbf", b"\x00", b"\xff\xfe", b"\xe9", b"[" * 3000, b"(" * 300, b"<a>" * 300,
    b"&x;", b"~", b"'", b'"', b"\n",
)  # fmt: skip


def mutations(content: bytes, n: int, seed: int) -> Iterator[bytes]:
    """Damage a file n times, each time by one to three changes."""
    for number in range(n):
        draw = random.Random(f"{seed} {number}")
        changed = content
        for _ in range(draw.choice((1, 1, 1, 2, 3))):
            changed = draw.choice(CHANGES)(changed, draw)
        yield changed


def _flip_bit(content: bytes, draw: random.Random) -> bytes:
    at = draw.randrange(max(len(content), 1))
    return content[:at] + bytes(b ^ 1 << draw.randrange(8) for b in content[at : at + 1]) + (
        content[at + 1 :]
    )  # fmt: skip


def _set_byte(content: bytes, draw: random.Random) -> bytes:
    at = draw.randrange(max(len(content), 1))
    return content[:at] + bytes([draw.randrange(256)]) + content[at + 1 :]


def _set_number(content: bytes, draw: random.Random) -> bytes:
    size, at = draw.choice((1, 2, 4, 8)), draw.randrange(max(len(content), 1))
    number = draw.choice(NUMBERS) % 256**size
    written = number.to_bytes(size, draw.choice(("little", "big")))
    return content[:at] + written + content[at + size :]


def _cut(content: bytes, draw: random.Random) -> bytes:
    return content[: draw.randrange(len(content) + 1)]


def _remove(content: bytes, draw: random.Random) -> bytes:
    at = draw.randrange(len(content) + 1)
    return content[:at] + content[at + draw.randint(1, 40) :]


def _repeat(content: bytes, draw: random.Random) -> bytes:
    at = draw.randrange(len(content) + 1)
    part = content[at : at + draw.randint(1, 60)]
    return content[:at] + part * draw.randint(2, 5) + content[at + len(part) :]


def _insert_word(content: bytes, draw: random.Random) -> bytes:
    at = draw.randrange(len(content) + 1)
    return content[:at] + draw.choice(WORDS) + content[at:]


def _replace_value(content: bytes, draw: random.Random) -> bytes:
    """Another word where a number or a name stands."""
    places = list(re.finditer(rb"-?\d+(\.\d+)?|[A-Za-z_]{2,}", content[:20_000]))
    if not places:
        return _insert_word(content, draw)
    place = draw.choice(places)
    return content[: place.start()] + draw.choice(WORDS) + content[place.end() :]


CHANGES: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    _flip_bit, _flip_bit, _set_byte, _set_byte, _set_number, _set_number, _cut, _remove, _repeat,
    _insert_word, _replace_value, _replace_value,
)  # fmt: skip

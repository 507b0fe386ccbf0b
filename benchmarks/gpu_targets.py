"""What the project wants to reach on a GPU of Hopper's class, beside what a session measured."""

from collections.abc import Callable, Iterator
from typing import Any

Row = dict[str, Any]
Values = Callable[[list[Row]], list[float]]
# A peer that works approximately may find more; ktfast must not.
INERTIA = 1 - 1e-5


def of(section: str, key: str, **wanted: str) -> Values:
    """The values of a key in rows of a section, or of all that begin so, with the wanted texts."""

    def values(rows: list[Row]) -> list[float]:
        return [
            float(row[key])
            for row in rows
            if str(row.get("section")).startswith(section)
            and isinstance(row.get(key), int | float)
            and all(matches(str(row.get(name, "")), text) for name, text in wanted.items())
        ]

    return values


def matches(text: str, wanted: str) -> bool:
    """Whether a text is, or holds between commas, what is wanted."""
    return text == wanted or wanted in text.split(", ")


# What is measured, where, the bound, and whether it is the least that is allowed or the most.
TARGETS: tuple[tuple[str, Values, float, str], ...] = (
    ("iteration of a fit, d 4096, ms", of("kmeans:fits", "ms", case="d 4096", precision="exact"),
     30.0, "at most"),
    ("iteration of a fit, d 256, ms", of("kmeans:fits", "ms", case="d 256", precision="exact"),
     2.5, "at most"),
    ("flash-kmeans, d 256, times ktfast", of("peers:256", "ratio", engine="flash-kmeans"),
     2.0, "at least"),
    ("flash-kmeans, d 512, times ktfast", of("peers:512", "ratio", engine="flash-kmeans"),
     2.0, "at least"),
    ("flash-kmeans, d 4096, times ktfast",
     of("peers:4096", "ratio", engine="flash-kmeans"), 3.0, "at least"),
    ("cuVS, times ktfast", of("peers", "ratio", engine="cuvs"), 3.0, "at least"),
    ("model of faiss-gpu's host path, times ktfast", of("peers", "ratio", engine="torch-host"),
     50.0, "at least"),
    ("inertia of peers, times ktfast's", of("peers", "inertia_ratio"), INERTIA, "at least"),
    ("streamed, of the host link", of("kmeans:stream", "of_link"), 0.8, "at least"),
    ("Jigsaw++ tiles, of a copy", of("bench:jigsaw_tiles", "of_copy"), 0.8, "at least"),
    ("VGG-16 Jigsaw++, of the matmul peak",
     of("train", "share_of_peak", job="Jigsaw++", side="ktfast"), 0.5, "at least"),
)  # fmt: skip


def target_rows(rows: list[Row]) -> Iterator[Row]:
    """A row per target that was measured: the worst value counts."""
    for text, values, bound, kind in TARGETS:
        found = values(rows)
        if found:
            worst = max(found) if kind == "at most" else min(found)
            met = worst <= bound if kind == "at most" else worst >= bound
            yield {"target": text, kind.replace(" ", "_"): bound, "measured": worst} | {"met": met}

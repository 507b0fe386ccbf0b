"""A fit on several processes gives the bits of a fit on one process, or an error on all of them."""

import functools

import numpy as np
import pytest

from support import spread_fits
from support.spread_fits import CASES, cuts, digest, fit_part, in_threads


@functools.cache
def expected(name):
    return digest([fit_part(name, None, slice(None))])


def spread(name, size, kind="uneven", **options):
    bounds = cuts(len(CASES[name][0]()), size, kind)
    models, errors = in_threads(
        size,
        lambda own: fit_part(name, own, slice(bounds[own.rank], bounds[own.rank + 1]), **options),
    )
    assert errors == [None] * size
    return models


@pytest.mark.filterwarnings("ignore:Number of distinct clusters")
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize(("size", "kind"), [(1, "even"), (2, "even"), (4, "uneven"), (3, "empty")])
def test_any_number_of_processes_gives_the_bits_of_one(name, size, kind):
    assert digest(spread(name, size, kind)) == expected(name)

"""Test the NEON kernels on any processor with AVX2, by running other tests again.

The other tests run in a separate process, which imports a build of ktfast with the intrinsics of
emulation/neon/. The process takes its processor for one with NEON.
"""

import os

import pytest

from emulation.avx512.build import build_plain
from emulation.neon.build import build
from emulation.rerun import printed, run_tests
from support.shared_build import built_once

pytestmark = pytest.mark.timeout(900)  # the first test builds ktfast for the emulation
SELECTION = "neon and not 2_to_31"


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    plain = built_once(tmp_path_factory, "plain_objects", build_plain)
    return build(tmp_path_factory.mktemp("emulated_neon"), plain)


def environment(package, lacks):
    """Return the environment of a process that imports the package and may lack dot products."""
    kept = {k: v for k, v in os.environ.items() if k != "KTFAST_SIMD" and "PYTEST" not in k}
    return {**kept, "PYTHONPATH": str(package), "NEON_EMULATION_LACKS": lacks}


@pytest.mark.parametrize(("lacks", "found"), [("", "neon True"), ("dot", "neon False")])
def test_the_build_takes_the_processor_for_one_with_neon(package, lacks, found):
    code = "_cpu.simd_level(), _cpu.kmeans_has_fast(code='int8')"
    assert printed(package, code, environment(package, lacks)) == found


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "least", "lacks"),
    [
        ("test_jigsaw_tiles.py", 20, ""),
        ("test_jigsaw_tiles_memory.py", 1, ""),
        ("test_kmeans_assign.py", 60, ""),
        ("test_kmeans_few.py", 30, ""),
        ("test_kmeans_screen.py", 30, ""),
        ("test_kmeans_screen.py", 20, "dot"),
    ],
)
def test_kernels(package, tmp_path, file, least, lacks):
    # Only products of int8 use the instructions for dot products.
    selection = f"{SELECTION} and not float32 and not bfloat16" if lacks else SELECTION
    ran, skipped = run_tests(
        package, tmp_path / "report.xml", file, environment(package, lacks), selection
    )
    assert len(ran) >= least
    assert {reason for reason in skipped if "CUDA" not in reason} == set()

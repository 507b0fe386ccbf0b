"""Test the AVX-512 and AMX kernels on any processor with AVX2, by running other tests again.

The other tests run in a separate process, which imports a build of ktfast with the intrinsics of
emulation/avx512/. The process takes the emulated instruction sets for those of its processor.
"""

import os

import pytest

from emulation.avx512.build import build, build_plain
from emulation.rerun import printed, run_tests
from ktfast.native import modules
from support.shared_build import built_once
from support.simd_levels import available

pytestmark = pytest.mark.timeout(1500)  # the first test builds ktfast for the emulation
# Other levels have run, and a row of 2^31 features takes as long as all the rest.
SELECTION = "not scalar and not avx2 and not neon and not cuda and not 2_to_31"
WITHOUT_PRODUCTS = "avx512_vnni avx512_bf16"  # as Skylake


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    plain = built_once(tmp_path_factory, "plain_objects", build_plain)
    return build(tmp_path_factory.mktemp("emulated_avx512"), plain)


def environment(package, lacks):
    """Return the environment of a process that imports the package and lacks some extensions."""
    kept = {k: v for k, v in os.environ.items() if k != "KTFAST_SIMD" and "PYTEST" not in k}
    return {**kept, "PYTHONPATH": str(package), "AVX512_EMULATION_LACKS": lacks}


@pytest.mark.parametrize(
    ("lacks", "found"),
    [
        ("", "amx True True"),
        ("amx", "avx512 True True"),
        ("avx512_bf16", "avx512 True False"),
        (WITHOUT_PRODUCTS, "avx512 False False"),
    ],
)
def test_the_build_takes_the_processor_for_one_with_amx(package, lacks, found):
    fast = ", ".join(f"_cpu.kmeans_has_fast(code={code!r})" for code in ("int8", "bfloat16"))
    code = f"_cpu.simd_level(), {fast}"
    assert printed(package, code, environment(package, lacks)) == found


# Where the processor has AVX-512 with its byte products (VNNI), these files have run its kernels,
# except the bfloat16 products. AMX computes only products, which test_kmeans_screen.py shows.
NATIVE = "avx512" in available() and modules.cpu.kmeans_has_fast(code="int8")
LEFT = "not (avx512 and (int8 or float32))"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "least", "lacks"),
    [
        ("test_jigsaw_tiles.py", 25, ""),
        ("test_jigsaw_tiles_memory.py", 60, ""),
        ("test_kmeans_assign.py", 130, ""),
        ("test_kmeans_few.py", 70, ""),
        ("test_kmeans_screen.py", 80, ""),
        ("test_kmeans_screen.py", 35, WITHOUT_PRODUCTS),
    ],
)
def test_kernels(package, tmp_path, file, least, lacks):
    # Products of float32 need none of the extensions that a processor may lack.
    selection = f"{SELECTION} and not float32" if lacks else SELECTION
    if NATIVE and not lacks:
        if file != "test_kmeans_screen.py":
            pytest.skip("run natively; test_kmeans_screen.py runs what this processor lacks")
        least, selection = 60, f"{SELECTION} and {LEFT}"
    ran, skipped = run_tests(
        package, tmp_path / "report.xml", file, environment(package, lacks), selection
    )
    assert sum("avx512" in name or "amx" in name for name in ran) >= least
    others = {reason for reason in skipped if "CUDA" not in reason}
    assert others <= ({"this processor has no amx"} if lacks else set())

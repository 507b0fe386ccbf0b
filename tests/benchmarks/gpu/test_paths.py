"""The first part of a GPU session: every code and path, on the emulated GPU."""

import pytest

torch = pytest.importorskip("torch")

import paths  # noqa: E402
import results  # noqa: E402

from ktfast.native import modules  # noqa: E402
from ktfast.ops import kmeans_assign  # noqa: E402

pytestmark = pytest.mark.skipif(modules.has_cuda(), reason="the session runs the part itself")


@pytest.mark.parametrize("path", paths.PATHS)
@pytest.mark.parametrize("code", paths.CANDIDATES)
def test_the_stored_results_are_those_of_the_emulated_gpu(emulated_gpu, code, path):
    rows = paths.assign("cuda", code, path)
    assert [row["candidates"] for row in rows] == list(paths.CANDIDATES[code])
    assert all(row["labels"] and row["found"] for row in rows)
    assert f"{'wg' if path == 'fastest' else ''}mma_screen_kernel" in emulated_gpu.launches()


def test_the_stored_labels_are_the_cpus():
    labels, _ = kmeans_assign(*paths.inputs())
    assert paths.hashlib.sha256(labels.tobytes()).hexdigest().startswith(paths.LABELS)


def test_wrong_products_fail_the_part_although_the_labels_are_right(emulated_gpu, monkeypatch):
    """Codes of zeros leave every centre a candidate, so that each row is compared with all."""
    from ktfast.ops.kmeans_tensor import TensorScreen

    prepare = TensorScreen.prepare
    monkeypatch.setattr(TensorScreen, "prepare", lambda self, c: prepare(self, c.flip(0)))
    rows = paths.assign("cuda", "int8", "fastest")
    assert any(results.row_failed(row) for row in rows)

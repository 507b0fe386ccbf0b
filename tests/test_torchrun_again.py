"""The loop that starts torchrun again, with a stand-in for torchrun."""

import os
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "examples" / "torchrun_again.sh"

pytestmark = pytest.mark.skipif(not SCRIPT.is_file(), reason="needs the checkout")


@pytest.mark.parametrize(
    ("good", "short", "status", "starts"), [(3, 0, 0, 3), (9, 0, 7, 4), (9, 60, 7, 3)]
)
def test_the_loop_ends_with_success_or_after_its_limits(tmp_path, good, short, status, starts):
    count = tmp_path / "count"
    fake = tmp_path / "torchrun"
    fake.write_text(f'#!/bin/sh\necho "$@" >> {count}\n[ $(wc -l < {count}) -ge {good} ] || exit 7')
    fake.chmod(0o755)
    limits = {"ATTEMPTS": "4", "SHORT": str(short), "PAUSE": "0"}
    path = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run([SCRIPT, "-m", "--", "x y"], env={**os.environ, **limits, **path})
    assert done.returncode == status
    assert count.read_text().splitlines() == ["--max-restarts 0 -m -- x y"] * starts

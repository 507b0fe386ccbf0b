"""Run tests of the ops again, in a process that imports a build with emulated kernels."""

import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).parents[2]


def run_tests(package, report, file, variables, selection):
    """Run a file's tests in the package. Return the names that ran and the reasons of the skips."""
    command = [
        *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--rootdir={ROOT}"),
        *(f"--junitxml={report}", "-k", selection, ROOT / "tests" / "ops" / file),
    ]
    done = subprocess.run(
        command,
        cwd=package,
        env=variables,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    ran, skipped = [], []
    for case in ElementTree.parse(report).iter("testcase"):
        reason = case.find("skipped")
        if reason is None:
            ran.append(case.get("name"))
        else:
            skipped.append(reason.get("message"))
    return ran, skipped

"""Run tests of the ops again, in a process that imports a build with emulated kernels."""

import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).parents[2]


def printed(package, code, variables):
    """Run code that imports the package. Return what it prints."""
    code = f"from ktfast.native import _cpu\nprint(_cpu.__file__, {code})"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=package,
        env=variables,
        capture_output=True,
        text=True,
        check=True,
    )
    file, _, rest = done.stdout.strip().partition(" ")
    assert Path(file).is_relative_to(package)
    return rest


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

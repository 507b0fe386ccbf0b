"""The scripts of benchmarks/gpu import each other by name, so their folder must be on the path."""

import sys
from pathlib import Path

SCRIPTS = Path(__file__).parents[3] / "benchmarks" / "gpu"
if str(SCRIPTS) not in sys.path:
    sys.path.append(str(SCRIPTS))

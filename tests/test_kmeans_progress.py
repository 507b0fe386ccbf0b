"""What a fit tells while it runs, and what is left of one that is interrupted."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import ktfast

INTERRUPTED = """
import numpy as np, sys, time
from ktfast import KMeans
x = np.random.default_rng(0).normal(size=(60_000, 128)).astype(np.float32)
model = KMeans(3, random_state=0, n_threads=1).fit(x[:1000])
before = model.cluster_centers_.copy()
print("ready", flush=True)
try:
    model.set_params(n_clusters=3000, tol=0).fit(x)
except KeyboardInterrupt:
    raised = time.time()
assert (model.cluster_centers_ == before).all() and len(model.predict(x)) == len(x)
print(raised, flush=True)
"""


def test_interrupt_ends_a_fit_within_a_second_and_keeps_the_old_state():
    process = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED],
        stdout=subprocess.PIPE,
        text=True,
        cwd="/",  # not the checkout, whose ktfast may not be built
        env=os.environ | {"PYTHONPATH": str(Path(ktfast.__file__).parents[1])},
    )
    with process:
        assert process.stdout.readline() == "ready\n"
        time.sleep(1)
        process.send_signal(signal.SIGINT)
        sent = time.time()
        raised = float(process.stdout.readline())
        assert raised - sent < 1
        assert process.wait(20) == 0

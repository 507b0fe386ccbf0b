"""The smallest run of every stage, in children that tests can kill or whose disk can fail.

As a script, this file serves a test: it reads one JSON order per line, runs the order in a forked
child, and prints the child's exit code. The children share the imports of their parent, so that
each child starts fast. `Server` is the other end.
"""

import contextlib
import ctypes
import hashlib
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

IGNORED = 99  # the exit code of a run that ended well although a call failed

RECIPE = """
seed = 3
device = "cpu"
threads = 1

[data]
short_side = 90

[pretext]
trunk = "alexnet"
width = 0.0625
crop = 84
tile_size = 25
permutations = 4
tile_features = 8
hidden = 8
training = { epochs = 1, batch_size = 12, learning_rate = 0.01, checkpoint_minutes = 1e-6 }

[features]
batch_size = 12

[cluster]
n_clusters = 3

[transfer]
width = 0.0625
image_size = 64
crop = 56
training = { epochs = 1, batch_size = 12, learning_rate = 0.01, checkpoint_minutes = 1e-6 }

[evaluate]
probe_epochs = 1
neighbors = 3
"""


def write_inputs(folder: Path) -> list[str]:
    """Write a recipe and photographs of two classes; return the arguments that name them."""
    from PIL import Image

    from support.photographs import squares

    pictures = iter(squares(36, 96))
    for role, count in (("train", 12), ("test", 6)):
        for name in ("bright", "dark"):
            (folder / role / name).mkdir(parents=True)
            for number in range(count):
                picture = next(pictures) // (1 if name == "bright" else 3)
                Image.fromarray(picture).save(folder / role / name / f"{number}.png")
    (folder / "small.toml").write_text(RECIPE)
    return [
        *("--config", str(folder / "small.toml"), "--data.pretext", str(folder / "train")),
        *("--data.test", str(folder / "test")),
    ]


def results(run: Path) -> dict[str, str]:
    """Return the hash of everything in a finished run that does not depend on the clock."""
    found = {}
    for path in sorted(run.rglob("*")):
        if path.name.startswith("checkpoint-"):  # holds the time
            continue
        if path.suffix in (".npy", ".npz", ".safetensors", ".tar"):
            found[str(path.relative_to(run))] = hashlib.sha256(path.read_bytes()).hexdigest()
        elif path.name == "result.json":
            result = json.loads(path.read_text())
            kept = json.dumps([result["fingerprint"], sorted(result["outputs"])])
            found[str(path.relative_to(run))] = kept
    return found


def leftovers(run: Path) -> list[str]:
    return [str(path.relative_to(run)) for path in run.rglob(".*.tmp")]


class Server:
    """A process that runs the small pipeline in children, one order at a time."""

    def __init__(self, faults: Path, arguments: list[str], whole: Path) -> None:
        import ktfast

        tests = Path(__file__).parents[1]
        paths = [str(tests), str(Path(ktfast.__file__).parents[1])]
        self.process = subprocess.Popen(
            [sys.executable, "-W", "ignore", __file__, str(whole), *arguments],
            stderr=subprocess.DEVNULL,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={
                **{name: value for name, value in os.environ.items() if "PYTEST" not in name},
                **{"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"},
                **{"LD_PRELOAD": str(faults), "KTFAST_TEST_FAULTS": str(faults)},
            },
        )
        if self._line() != "ready":
            self.close()
            raise RuntimeError(f"the uninterrupted run failed; its log is {whole}/log.txt")

    def run(self, arguments: list[str], run: Path, **fault: Any) -> int:
        """Run the pipeline and return the exit code, negative for a signal.

        `fault` is empty, or names the call that fails (see `Faults.arm`), or is `kill_after`: the
        seconds after which the child is killed.
        """
        kill_after = fault.pop("kill_after", None)
        self._send({"arguments": arguments, "run": str(run), "fault": fault})
        child = int(self._line())
        if kill_after is not None:
            threading.Event().wait(kill_after)
            os.kill(child, 9)  # the server has not been told to wait, so the id is not reused
        self._send({})
        return int(self._line())

    def close(self) -> None:
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait()

    def _send(self, order: dict) -> None:
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()

    def _line(self) -> str:
        return self.process.stdout.readline().strip()


class Faults:
    """The library of faults.cpp in this process."""

    def __init__(self) -> None:
        self.library = ctypes.CDLL(os.environ["KTFAST_TEST_FAULTS"])
        self.at = 0

    def arm(
        self,
        run: str,
        site: str = "",
        at: int = 0,
        code: int = 0,
        lasting: bool = False,
        trace: str = "",
    ) -> None:
        """Let a call in the run folder fail, or trace the calls.

        The call number `at` of the site fails with errno `code`; 0 kills the process. An empty site
        stands for every call. If the failure is `lasting`, all later calls fail too.
        """
        file = os.open(trace, os.O_WRONLY | os.O_CREAT) if trace else -1
        self.at = at
        self.library.faults_arm(
            f"{run}/".encode(), site.encode(), ctypes.c_long(at), code, int(lasting), file
        )

    def happened(self) -> bool:
        return 0 < self.at <= self.library.faults_calls()


def _child(order: dict) -> int:
    from ktfast.cli.main import main

    log = os.open(f"{order['run']}.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    faults = Faults()
    faults.arm(order["run"], **order["fault"])
    code = main(["run", "--run", order["run"], *order["arguments"]])
    return IGNORED if code == 0 and faults.happened() else code


def _serve(arguments: list[str], run: str) -> None:
    """Run once in this process, which imports everything, and then every order in a child."""
    import torch

    from ktfast.cli.main import main
    from ktfast.report import plots
    from ktfast.training import loop

    torch.set_num_threads(1)
    # The drawings and the measurements of speed take most of a run's time and touch no file.
    plots._svg = lambda *_: ""
    loop.image_flops, loop.matmul_peak = lambda *_: 1e6, lambda *_: 1e9
    with contextlib.redirect_stdout(sys.stderr):
        assert main(["run", "--run", run, *arguments]) == 0
    print("ready", flush=True)
    while line := sys.stdin.readline():
        child = os.fork()
        if child == 0:
            code = 70
            try:
                code = _child(json.loads(line))
            finally:
                os._exit(code)
        print(child, flush=True)
        sys.stdin.readline()
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    _serve(sys.argv[2:], sys.argv[1])

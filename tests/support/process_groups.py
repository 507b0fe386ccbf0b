"""Groups of forked processes, as torchrun would start them: trainings with lanes, and small runs.

As a script, this file runs the small pipeline once in this process, and then serves a test: it
reads one JSON order per line, forks as many processes as the order says, and prints their exit
codes. The processes share the imports of their parent, so that they start fast. `Groups` is the
other end.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import traceback
from pathlib import Path
from typing import Any

LANES = ["--pretext.training.lanes", "2", "--transfer.training.lanes", "2"]


STAGES = ("prepare", "pretext", "features", "cluster", "transfer")


class Groups:
    """A process that starts groups of processes."""

    def __init__(self, arguments: list[str], whole: Path) -> None:
        self.process = subprocess.Popen(
            [
                sys.executable,
                "-W",
                "ignore",
                "-m",
                "support.process_groups",
                str(whole),
                *arguments,
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={
                **{name: value for name, value in os.environ.items() if "PYTEST" not in name},
                "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
                "OMP_NUM_THREADS": "1",
                "KTFAST_PROCESS_TIMEOUT": "2",
            },
        )
        if self.process.stdout.readline() != "ready\n":
            self.close()
            raise RuntimeError(f"the run on one process failed; its log is {whole}/log.txt")

    def run(
        self, size: int, arguments: list[str], log: Path, fault: str = "", **kill: Any
    ) -> list[int]:
        """Run a command on `size` processes; return their exit codes. `log` gets the output.

        `kill` is empty, or gives the `rank` that kills itself with SIGKILL, the number of the
        `exchange` before which it does so, and a `delay` in seconds. Exchange 0 is none: the
        process writes the number of its exchanges into the file `count`.
        """
        return self._order(size, arguments=arguments, log=log, fault=fault, kill=kill)

    def train(self, size: int, *trainings: dict) -> list[int]:
        """Run trainings with lanes, one after the other; see `lane_training`."""
        return self._order(size, trainings=trainings)

    def _order(self, size: int, **order: Any) -> list[int]:
        self.process.stdin.write(json.dumps({"size": size, **order}, default=str) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def close(self) -> None:
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait()


def _fail(fault: str) -> None:
    """Let the next shared work of this process fail."""
    from ktfast.errors import InputError
    from ktfast.pipeline.steps import probe_layers, shared_work

    def failing(*_):
        if fault != "error":
            os.kill(os.getpid(), signal.Signals[fault])
        raise InputError("the helper cannot help")

    shared_work.FeedOrder.open = failing
    probe_layers.knn_accuracy = failing


def _kill(rank: int, exchange: int, delay: float, count: str = "") -> None:
    """Let this process kill itself before an exchange of data, or a little later."""
    from ktfast.kmeans.distributed import TorchCommunicator

    wait, done = TorchCommunicator._wait, 0

    def counted(self, begin):
        nonlocal done
        done += 1
        if count:
            Path(count).write_text(str(done))
        if done == exchange:
            threading.Timer(delay, os.kill, (os.getpid(), signal.SIGKILL)).start()
        wait(self, begin)

    TorchCommunicator._wait = counted


def _child(order: dict, rank: int, port: int) -> int:
    os.environ |= {
        **{"RANK": str(rank), "WORLD_SIZE": str(order["size"])},
        **{"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)},
    }
    return _train(order["trainings"]) if "trainings" in order else _run(order, rank)


def _run(order: dict, rank: int) -> int:
    from ktfast.cli.main import main

    log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    if order["fault"] and rank == 1:
        _fail(order["fault"])
    if order["kill"] and rank == order["kill"]["rank"]:
        _kill(**order["kill"])
    try:
        return main(order["arguments"])
    finally:
        sys.stdout.flush()  # os._exit() does not


def _train(trainings: list[dict]) -> int:
    from ktfast.kmeans.distributed import TorchCommunicator
    from ktfast.kmeans.distributed.ranks import Ranks
    from support.lane_training import lane_training

    ranks = Ranks(TorchCommunicator(timeout=60), is_owned=True)
    for training in trainings:
        lane_training(ranks, **training)
    ranks.leave()
    return 0


def _serve(run: str, arguments: list[str]) -> None:
    import torch
    import torch._dynamo  # whoever makes an optimiser imports this module, which takes seconds

    from ktfast.cli import main as command
    from ktfast.features import transform, writer
    from ktfast.pipeline import team, team_watch
    from ktfast.pipeline.steps import fit_clusters
    from ktfast.report import plots
    from ktfast.training import speed
    from support.spread_fits import free_port

    torch.set_num_threads(1)
    plots._svg = lambda *_: ""  # the drawings take most of a run's time
    speed.FEED_SECONDS = speed.PEAK_SECONDS = speed.TRIAL_SECONDS = 1e-3
    team.PATIENCE_SECONDS = 3.0
    team_watch.GRACE_SECONDS = 0.5
    # Several shards, and several blocks of rows, of few images.
    writer.SHARD_BYTES = 1 << 10
    transform.BLOCK_ROWS = fit_clusters.BLOCK_ROWS = 14
    # The stages that several processes share, and the report.
    every = command.run
    command.run = lambda *given, stages, **more: every(
        *given, stages=STAGES if len(stages) > 1 else stages, **more
    )
    with contextlib.redirect_stdout(sys.stderr):
        assert command.main(["run", "--run", run, *arguments]) == 0
    print("ready", flush=True)
    for line in sys.stdin:
        order, port, children = json.loads(line), free_port(), []
        for rank in range(order["size"]):
            child = os.fork()
            if child == 0:
                code = 70
                try:
                    code = _child(order, rank, port)
                except BaseException:
                    traceback.print_exc()
                finally:
                    os._exit(code)
            children.append(child)
        if order.get("fault") == "SIGSTOP":  # the others end without the stopped process
            os.waitid(os.P_PID, children[0], os.WEXITED | os.WNOWAIT)
            os.kill(children[1], signal.SIGKILL)
        codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        print(json.dumps(codes), flush=True)


if __name__ == "__main__":
    _serve(sys.argv[1], sys.argv[2:])

"""Strong scaling over processes, and what a model of it needs: ``python -m benchmarks.scaling``.

Each number of processes is started anew in each round, in turn, so that ratios are of times that
were measured beside each other. Each process has one thread. What the model in scaling.md consists
of is measured too: what one process of P computes, by its processor's clock, and how long messages
take.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import machine
from benchmarks.report import duration
from benchmarks.work import Work, write_data
from dlfs_gpu import SGD, MultiLayerNet
from dlfs_gpu.machine.threads import one_blas_thread
from dlfs_gpu.processes import Processes, world
from dlfs_gpu.training.sharing import SharedUpdate

Do = Callable[[], object]

_REPEATS = 15
# Processes whose share is computed, and bytes that each gives in a gather.
_SHARES = (1, 2, 4, 8)
_BYTES = (2**6, 2**12, 2**16, 2**20, 2**23)


class Share(Processes):
    """The first of P processes: it does its share, and leaves out the messages."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def gather(self, part: Any, shares: Sequence[slice]) -> Any:
        """Return an array of the right shape, of like numbers."""
        if part.shape[-1] == 0:
            part = np.zeros((*part.shape[:-1], 1), part.dtype)
        total = shares[-1].stop
        return np.tile(part, -(-total // part.shape[-1]))[..., :total]

    def exchange(self, rows: Any, counts: Sequence[int], shares: Sequence[slice]) -> Any:
        """Return an array of the right shape."""
        return np.zeros((sum(counts), shares[0].stop), rows.dtype)


def gradient(folder: Path, activation: Any, processes: Processes) -> Do:
    """Return what computes a numerical gradient of 784-512-512-10, batch 100."""
    work = Work(folder, sizes=(784, 512, 512, 10), activation=activation)
    network = MultiLayerNet(784, [512, 512], 10, activation, seed=0, backend="numpy")
    x, t = network._check(*work.minibatch())
    if processes.comm is None:
        return lambda: network._loss_and_differences(x, t, threads=1, processes=processes)
    return lambda: network.numerical_gradient(x, t, threads=1, comm=processes.comm)


def update(folder: Path, processes: Processes) -> Do:
    """Return what does an update of 784-1024-10 by backpropagation, batch 4,096."""
    work = Work(folder, sizes=(784, 1024, 10), batch=4096)
    network = MultiLayerNet(784, [1024], 10, "sigmoid", seed=0, backend="numpy")
    x, t = network._check(*work.images())
    rows = work.minibatches(0)[0]
    do = SharedUpdate(network, SGD(), x, t, work.batch, "backprop", processes)
    return lambda: do(rows)


WORKS: dict[str, Callable[[Path, Processes], Do]] = {
    "numerical gradient of 784-512-512-10 relu, batch 100": lambda f, p: gradient(f, "relu", p),
    "numerical gradient of 784-512-512-10 sigmoid, batch 100": lambda f, p: gradient(
        f, "sigmoid", p
    ),
    "update of 784-1024-10 sigmoid, batch 4,096": update,
}


def times(do: Do, clock: Callable[[], float], wait: Do) -> float:
    """Return the least of seconds, after one repetition that is not counted.

    Others on the machine hold up two processes that wait for each other more often than one.
    """
    do()
    seconds = []
    for _ in range(_REPEATS):
        wait()
        begun = clock()
        do()
        wait()
        seconds.append(clock() - begun)
    return min(seconds)


def take_part(folder: Path) -> dict[str, float]:
    """Return the seconds of each work, and of gathers, in this process of several."""
    comm = world()
    processes = Processes(comm)
    found = {}
    with one_blas_thread:
        for name, make in WORKS.items():
            found[name] = times(make(folder, processes), time.perf_counter, comm.Barrier)
    for size in _BYTES:
        shares = processes.shares(size * comm.size, size)
        do = functools.partial(processes.gather, np.zeros(size, np.uint8), shares)
        found[f"{size}"] = times(do, time.perf_counter, comm.Barrier)
    return found


def compute_shares(folder: Path) -> dict[str, list[float]]:
    """Return the processor's seconds that the first of 1, 2, 4 and 8 processes computes."""
    with one_blas_thread:
        return {
            name: [
                times(make(folder, Share(size)), time.process_time, lambda: None)
                for size in _SHARES
            ]
            for name, make in WORKS.items()
        }


def start(count: int, folder: Path) -> dict[str, float]:
    """Return what `take_part` finds in so many processes."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    command = [str(shutil.which("mpiexec", path=path)), "-n", str(count), sys.executable]
    command += ["-m", "benchmarks.scaling", "--part", str(folder)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def main() -> None:
    """Measure, and print tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="of each number (default: 5)")
    parser.add_argument(
        "--processes", type=int, nargs="+", default=[1, 2], help="numbers (default: 1 2)"
    )
    parser.add_argument("--part", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.part:
        found = take_part(arguments.part)
        if world().Get_rank() == 0:
            print(json.dumps(found))
        return
    print(*(f"{key}: {value}" for key, value in machine.describe().items() if value), sep="\n")
    print(machine.versions(["numpy", "numba", "mpi4py"]))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        print(f"data: {write_data(folder)}")
        rounds = [
            {count: start(count, folder) for count in arguments.processes}
            for _ in range(arguments.rounds)
        ]
        print(table(rounds))
        print(shares_table(compute_shares(folder)))
        print(gathers_table(rounds))


def table(rounds: Sequence[dict[int, dict[str, float]]]) -> str:
    """Return the times, and their ratios within each round, as a Markdown table."""
    counts = list(rounds[0])
    first = counts[0]
    header = [f"{first} process", *(f"{count}, of that time" for count in counts[1:])]
    lines = ["", "| | " + " | ".join(header) + " |", "|---" * (len(counts) + 1) + "|"]
    for work in WORKS:
        cells = [duration(statistics.median(each[first][work] for each in rounds))]
        for count in counts[1:]:
            ratios = sorted(each[count][work] / each[first][work] for each in rounds)
            cells.append(f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})")
        lines.append(f"| {work} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def shares_table(shares: dict[str, list[float]]) -> str:
    """Return what one process computes, and s + w/P fitted to it."""
    lines = ["", "| one process of | " + " | ".join(map(str, _SHARES)) + " | s | w |"]
    lines.append("|---" * (len(_SHARES) + 3) + "|")
    for work, seconds in shares.items():
        columns = np.stack([np.ones(len(_SHARES)), 1 / np.array(_SHARES)], axis=1)
        fit = np.linalg.lstsq(columns, np.array(seconds), rcond=None)[0]
        lines.append(f"| {work} | " + " | ".join(map(duration, [*seconds, *fit])) + " |")
    return "\n".join(lines)


def gathers_table(rounds: Sequence[dict[int, dict[str, float]]]) -> str:
    """Return how long a gather takes when each process gives so many bytes."""
    counts = [count for count in rounds[0] if count > 1]
    lines = ["", "| bytes each | " + " | ".join(f"{count} processes" for count in counts) + " |"]
    lines.append("|---" * (len(counts) + 1) + "|")
    for size in _BYTES:
        cells = [duration(min(each[count][f"{size}"] for each in rounds)) for count in counts]
        lines.append(f"| {size:,} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()

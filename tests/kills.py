"""Kills trainings at random moments, and resumes them until they finish: a process of its own.

``python kills.py FOLDER KILLS SEED OPTION...`` runs ``dlfs-gpu train OPTION...`` once to its end,
and then again and again in folders beside it; it fails unless all end with the same results.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from pathlib import Path

# What a run needs, so that its children only have to be forked.
import matplotlib.backends.backend_agg  # noqa: F401
import sklearn.datasets  # noqa: F401

from dlfs_gpu.cli import main, resume
from dlfs_gpu.cli.app import app  # noqa: F401

RESULTS = {"model.safetensors", "history.csv", "curves.png", "summary.json"}
SAME = ("model.safetensors", "history.csv")


def start(folder: Path, options: list[str], operations: int = -1) -> int:
    """Start a training and return its process; it kills itself before that many operations."""
    child = os.fork()
    if child:
        return child
    done = 0

    def count(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal done
        if event in ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir"):
            done += str(arguments[0]).startswith(str(folder))
            if done == operations:
                os.kill(os.getpid(), signal.SIGKILL)

    status = 1
    try:
        sys.stdout = sys.stderr = open(f"{folder}.log", "w")  # noqa: SIM115
        sys.addaudithook(count)
        goes_on = (folder / resume.CHECKPOINT).exists()
        place = ["--resume" if goes_on else "--out", str(folder)]
        sys.argv = ["dlfs-gpu", "train", *place, *options]
        main()
    except SystemExit as ended:
        status = int(ended.code or 0)
        if operations < 0:
            Path(f"{folder}.operations").write_text(str(done))
    finally:
        sys.stdout.flush()
        os._exit(status)


def finish(child: int) -> bool:
    """Wait for a training, and say whether it came to its end; otherwise it was killed."""
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return False
    return os.WEXITSTATUS(status) == 0 or sys.exit(f"exit status {os.WEXITSTATUS(status)}")


def check(folder: Path, straight: Path) -> None:
    names = {path.name for path in folder.iterdir()}
    assert names == RESULTS, f"{folder} holds {names}"
    for name in SAME:
        assert (folder / name).read_bytes() == (straight / name).read_bytes(), f"{folder / name}"


def torment(here: Path, kills: int, seed: str, options: list[str]) -> None:
    # As many checkpoints as there can be.
    resume._SHARE = 1
    options = [*options, "--checkpoint-every", "0.01"]
    rng = random.Random(seed)
    straight = here / "straight"
    began = time.perf_counter()
    assert finish(start(straight, options))
    seconds = time.perf_counter() - began
    operations = int(Path(f"{straight}.operations").read_text())
    killed = runs = 0
    in_a_row = 0
    while killed < kills or in_a_row:
        folder = here / str(runs)
        if killed == kills:
            ended = finish(start(folder, options))
        elif killed % 2:
            ended = finish(start(folder, options, 1 + rng.randrange(operations)))
        else:
            child = start(folder, options)
            time.sleep(rng.random() * seconds)
            os.kill(child, signal.SIGKILL)
            ended = finish(child)
        if ended:
            check(folder, straight)
            runs, in_a_row = runs + 1, 0
        else:
            killed, in_a_row = killed + 1, in_a_row + 1
    print(f"{killed} kills, {runs} trainings, {seconds:.2f} s and {operations} operations each")


if __name__ == "__main__":
    torment(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4:])

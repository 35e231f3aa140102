"""Programs that tests start in several processes: ``python mpi_programs.py NAME RESULT``.

Each returns what the first process writes to the JSON file RESULT.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

import dlfs_gpu as d
from dlfs_gpu import backend, cli, processes
from dlfs_gpu.cli import resume
from dlfs_gpu.kernels import use_kernels
from dlfs_gpu.layers import Affine, Identity, Sigmoid
from dlfs_gpu.models import MultiLayerNet
from dlfs_gpu.network import Network
from dlfs_gpu.protocols import Layer
from dlfs_gpu.training.progress import Progress

NETWORKS: dict[str, tuple[list[int], str]] = {
    "two hidden layers": ([31, 130, 70, 5], "relu"),
    "three": ([20, 33, 97, 40, 3], "tanh"),
    "one": ([31, 200, 5], "sigmoid"),
    "none": ([31, 70], "relu"),
}


class Plain(Sigmoid):
    """A layer without a `difference` of its own ``forward``."""

    def forward(self, x: Any) -> Any:
        """Return σ(x), in one more way."""
        self.x = x
        return 1 / (1 + np.exp(-x))


def digest(arrays: Mapping[str, np.ndarray]) -> str:
    """Return the SHA-256 of all bits."""
    total = hashlib.sha256()
    for key in sorted(arrays):
        total.update(f"{key} {arrays[key].dtype} {arrays[key].shape}".encode())
        total.update(np.ascontiguousarray(arrays[key]).data)
    return total.hexdigest()


def data(inputs: int, classes: int, samples: int = 23) -> tuple[np.ndarray, np.ndarray]:
    """Return samples, half of whose numbers are zeros, and labels."""
    rng = np.random.default_rng(0)
    x = rng.random((samples, inputs))
    x[x < 0.5] = 0
    return x, rng.integers(classes, size=samples)


def gradients(comm: Any = None) -> dict[str, str]:
    """Return digests of numerical gradients, of networks and of a function."""
    found = {}
    for dtype in ("float32", "float64"):
        for name, (sizes, activation) in NETWORKS.items():
            x, t = data(sizes[0], sizes[-1])
            options: Any = {"dropout_ratio": 0.2, "seed": 1, "dtype": dtype, "backend": "numpy"}
            for kernels in ("auto", "off"):
                network = MultiLayerNet(sizes[0], sizes[1:-1], sizes[-1], activation, **options)
                with use_kernels(kernels):
                    grads = network.numerical_gradient(x, t, comm=comm)
                found[f"{name}, {dtype}, kernels {kernels}"] = digest(grads)
        rng = np.random.default_rng(2)
        W = [rng.standard_normal(shape).astype(dtype) for shape in ((5, 7), (7, 3))]
        x, t = data(5, 3)
        for method in ("difference", "batched", "loop"):
            layers: list[Layer] = [Affine(W[0], np.zeros(7, dtype)), Plain(), Affine(W[1])]
            stack = Network(layers, weight_decay_lambda=0.1)
            budget = None if method == "difference" else 20_000
            grads = stack.numerical_gradient(x, t, None, method, max_memory=budget, comm=comm)
            found[f"own layer, {dtype}, {method}"] = digest(grads)
        gradient, error = d.numerical_gradient(
            lambda x: np.sum(np.exp(x) * x),
            rng.standard_normal((3, 7)).astype(dtype),
            method="difference",
            return_error=True,
            comm=comm,
        )
        found[f"function, {dtype}"] = digest({"gradient": gradient, "error": error})
    return found


def checks(comm: Any = None) -> dict[str, Any]:
    """Return what `check_gradients` says of a network, and what it was."""
    sizes, activation = NETWORKS["two hidden layers"]
    network = MultiLayerNet(sizes[0], sizes[1:-1], sizes[-1], activation, seed=1, backend="numpy")
    report = d.check_gradients(network, *data(sizes[0], sizes[-1]), comm=comm)
    return {"report": str(report), "ok": bool(report.ok)}


def batched(comm: Any = None) -> str:
    """Return a digest of a gradient by ``"batched"``, of processes that have unlike memory free."""
    if comm is not None:
        vars(backend)["_host_budget"] = lambda: 20_000 * (1 + comm.rank)
    network = d.TwoLayerNet(5, 7, 3, seed=0, backend="numpy")
    return digest(network.numerical_gradient(*data(5, 3), method="batched", comm=comm))


def differing(comm: Any) -> dict[str, str]:
    """Return what is said when one process is told something else."""
    network = MultiLayerNet(4, [3], 2, seed=0, dropout_ratio=0.5, backend="numpy")
    x, t = data(4, 2)
    found = {}

    def attempt(what: str, **options: Any) -> None:
        arguments = {"x": x, "t": t} | options
        try:
            network.numerical_gradient(**arguments, comm=comm)
            found[what] = "nothing"
        except d.ArgumentError as error:
            found[what] = str(error)

    attempt("nothing")
    attempt("x", x=x + comm.rank)
    attempt("t", t=(t + comm.rank) % 2)
    attempt("h", h=0.1 * (1 + comm.rank))
    attempt("method", method=("loop", "batched")[comm.rank])
    if comm.rank == 1:
        network.params["b1"][0] = 1
    attempt("W1")
    network.params["b1"][0] = 0
    if comm.rank == 1:
        network.predict(x)
        network.gradient(x, t)
    attempt("dropout")
    with use_kernels(("auto", "off")[comm.rank]):
        attempt("kernels")
    if comm.rank == 1:
        vars(processes)["versions"] = lambda: {"numpy": "1.0"}
    attempt("versions")
    everywhere = comm.allgather(found)
    assert all(other == found for other in everywhere)
    return found


TRAININGS: dict[str, dict[str, Any]] = {
    "sgd": {},
    "odd batch": {"mini_batch_size": 13, "optimizer": "momentum"},
    "few samples": {"mini_batch_size": 5, "optimizer": "adam"},
    "large batch": {"mini_batch_size": 2600, "iterations": 2},
    "weight decay": {"weight_decay_lambda": 0.1, "optimizer": "adam"},
    "dropout": {"dropout_ratio": 0.3, "optimizer": "adam"},
    "early stopping": {"mini_batch_size": 900, "patience": 2, "optimizer_param": {"lr": 9.0}},
    "difference": {"gradient": "difference", "dropout_ratio": 0.3},
    "batched": {"gradient": "batched", "iterations": 2},
}
"""Options of `Trainer` and of the network."""


DATA = (*data(31, 3, samples=2700), *data(31, 3, 130))
x_val, t_val = data(31, 3, samples=100)
VALIDATION: dict[str, Any] = {"x_val": x_val, "t_val": t_val}


def trainer(comm: Any, dtype: str, options: dict[str, Any]) -> d.Trainer:
    """Return a trainer; all processes but the first have another network, and other minibatches."""
    rank = 0 if comm is None else comm.rank
    own = {"weight_decay_lambda", "dropout_ratio"}
    few = options.get("gradient") == "batched"
    network = MultiLayerNet(
        31,
        [4] if few else [70, 20],
        3,
        "tanh",
        seed=rank,
        dtype=dtype,
        backend="numpy",
        **{key: value for key, value in options.items() if key in own},
    )
    arguments = VALIDATION | {"mini_batch_size": 100, "iterations": 9, "seed": rank}
    arguments |= {key: value for key, value in options.items() if key not in own}
    return d.Trainer(network, *DATA, verbose=False, comm=comm, **arguments)


def outcome(trainer: d.Trainer) -> list[Any]:
    """Return what a training comes to: digests of network and losses, and all evaluations."""
    history = trainer.train()
    return [
        digest({**trainer.network.params, "losses": history.losses}),
        history.train_accuracy,
        history.test_accuracy,
        history.val_loss,
        history.stopped,
        history.best_iteration,
    ]


def cases(comm: Any) -> dict[str, tuple[str, dict[str, Any]]]:
    """Return the trainings that so many processes can do, by their names; of very many, fewer."""
    size = 1 if comm is None else comm.size
    return {
        f"{name}, {dtype}": (dtype, options)
        for dtype in ("float32", "float64")[: 2 if size <= 4 else 1]
        for name, options in TRAININGS.items()
        if size <= options.get("mini_batch_size", 100)
    }


def trainings(comm: Any = None) -> dict[str, Any]:
    """Return what trainings come to."""
    return {name: outcome(trainer(comm, *case)) for name, case in cases(comm).items()}


def stops(comm: Any = None, folder: Path = Path()) -> None:
    """Leave checkpoints of trainings that one process stops, in the middle of an epoch."""

    def stop_after(learner: d.Trainer, updates: int) -> None:
        def look() -> None:
            if learner.history.losses.shape[0] == updates:
                learner.stop()
            else:
                learner._call_after(0.0, look)

        learner._call_after(0.0, look)

    for name, case in cases(comm).items():
        learner = trainer(comm, *case)
        if comm is None or comm.rank == comm.size - 1:
            stop_after(learner, min(4, learner.max_iter - 2))
        assert learner.train().stopped == "interrupted"
        learner.save(folder / f"{name}.safetensors")


def resumes(comm: Any) -> dict[str, Any]:
    """Return what the trainings of `stops` come to in the end."""
    found = {}
    for name in cases(comm):
        # All but the first process are told of none.
        path = f"{name}.safetensors" if comm.rank == 0 else "none"
        learner = d.Trainer.resume(path, *DATA, **VALIDATION, verbose=False, comm=comm)
        found[name] = outcome(learner)
    return found


class Coupling(Identity):
    """A layer that makes samples depend on each other; the difference is not of this forward."""

    def forward(self, x: Any) -> Any:
        """Return x less its mean over the minibatch."""
        return x - x.mean(axis=0)


class Noise(Identity):
    """A layer that draws from nobody knows where."""

    frozen = False


class Own(MultiLayerNet):
    """A network with a gradient of its own."""

    def gradient(self, x: Any, t: Any) -> Any:
        """Return half of it."""
        return {key: grad / 2 for key, grad in super().gradient(x, t).items()}


def refused(comm: Any) -> dict[str, Any]:
    """Return what is said of trainings that processes cannot do together."""
    found: dict[str, Any] = {}

    def attempt(what: str, network: Network | None = None, **options: Any) -> None:
        x, t = data(4, 2)
        arguments: dict[str, Any] = {"x_train": x, "t_train": t, "iterations": 1, "verbose": False}
        arguments |= {"mini_batch_size": 10, "comm": comm} | options
        network = network or MultiLayerNet(4, [3], 2, seed=0, dtype="float64", backend="numpy")
        try:
            d.Trainer(network, **arguments).train()
            found[what] = None
        except d.ArgumentError as error:
            found[what] = [error.argument, error.problem]

    W = np.random.default_rng(0).standard_normal((4, 2))
    frozen = MultiLayerNet(4, [3], 2, dropout_ratio=0.5, backend="numpy")
    frozen.freeze_dropout()
    x, t = data(4, 2)
    attempt("nothing")
    attempt("shards", mini_batch_size=comm.size - 1)
    attempt("coupling", Network([Coupling(), Affine(W.copy())]))
    attempt("own gradient", Own(4, [3], 2, backend="numpy"))
    attempt("frozen", frozen)
    attempt("difference", Network([Coupling(), Affine(W.copy())]), gradient="difference")
    attempt("noise", Network([Noise(), Affine(W.copy())]), gradient="difference")
    attempt("noise by samples", Network([Noise(), Affine(W.copy())]))
    attempt("x_train", x_train=x + (comm.rank == comm.size - 1))
    attempt("t_test", x_test=x, t_test=(t + comm.rank) % 2)
    attempt("iterations", iterations=1 + comm.rank)
    attempt("optimizer", optimizer=("sgd", "adam")[comm.rank % 2])
    sizes = MultiLayerNet(4, [3 + comm.rank], 2, backend="numpy")
    attempt("network", sizes)
    free = comm.Dup()
    free.Free()
    attempt("freed", comm=free)
    found["freed"].pop()  # which has an address
    return found


def gpus(comm: Any) -> list[int]:
    """Return which GPU each process uses, of two that are made up."""
    used: list[int] = []

    class Device:
        def __init__(self, number: int) -> None:
            self.use = lambda: used.append(number)

    runtime = SimpleNamespace(getDeviceCount=lambda: 2)
    sys.modules["cupy"] = SimpleNamespace(  # type: ignore[assignment]
        cuda=SimpleNamespace(Device=Device, runtime=runtime)
    )
    processes.Processes(comm).deal_gpus()
    (number,) = used
    return list(comm.allgather(number))


def fails(comm: Any) -> None:
    """Fail in one process, in which others wait for it."""
    if comm.rank == comm.size - 1:
        network = d.TwoLayerNet(2, 3, 2, backend="numpy")
        network.numerical_gradient(np.ones((1, 5)), np.array([0]), comm=comm)
    comm.Barrier()


def command(*arguments: str) -> None:
    """Run the command line; a file ``training-RANK`` tells the process when it trains."""
    from mpi4py import MPI

    begin = d.Trainer.train

    def train(trainer: d.Trainer) -> d.History:
        part = Path(f"part-{MPI.COMM_WORLD.rank}")
        part.write_text(str(os.getpid()))
        part.rename(f"training-{MPI.COMM_WORLD.rank}")
        return begin(trainer)

    d.Trainer.train = train  # type: ignore[assignment, method-assign]
    sys.argv = ["dlfs-gpu", *arguments]
    cli.main()


def interrupted(number: str, updates: str, *arguments: str) -> None:
    """Run the command line; the last process gets a signal after so many updates."""
    from mpi4py import MPI

    count, updated = itertools.count(1), Progress.updated

    def counted(progress: Progress, losses: Any) -> None:
        updated(progress, losses)
        if next(count) == int(updates) and MPI.COMM_WORLD.rank == MPI.COMM_WORLD.size - 1:
            signal.raise_signal(int(number))

    Progress.updated = counted  # type: ignore[assignment, method-assign]
    resume._SHARE = 0  # as many checkpoints as there can be
    sys.argv = ["dlfs-gpu", *arguments]
    cli.main()


def main() -> None:
    """Run a program, and have the first process write what it returns."""
    from mpi4py import MPI

    name, path, *rest = sys.argv[1:]
    if name in ("command", "interrupted"):
        globals()[name](path, *rest)
    result = globals()[name](MPI.COMM_WORLD)
    everywhere = MPI.COMM_WORLD.allgather(result)
    assert all(other == result for other in everywhere), "processes differ"
    if MPI.COMM_WORLD.rank == 0:
        Path(path).write_text(json.dumps(result))


if __name__ == "__main__":
    main()

"""Estimators for scikit-learn beside each other: ``python -m benchmarks.estimators``.

The networks get the same sizes, optimizer, rate, batch and epochs, all estimators the same float32
data; each starts from weights of its own. They take turns in one process.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import statistics
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from benchmarks import machine
from benchmarks.report import duration
from dlfs_gpu import NetworkClassifier, load_digits, load_mnist

# The chapter's 10,000 updates are 16.7 epochs of MNIST in minibatches of 100.
_MNIST_EPOCHS = 17


@dataclass(frozen=True)
class Contest:
    """Estimators to fit, and the data.

    Attributes
    ----------
    title : str
    load : callable
        Returns ``(x_train, t_train), (x_test, t_test)``.
    makers : dict of str to callable
        Make the estimator of each name, new and with the seed that they are given.
    """

    title: str
    load: Callable[[], Any]
    makers: dict[str, Callable[[int], Any]]


@dataclass
class Score:
    """Seconds of each fit, and its accuracy on the test data."""

    seconds: list[float] = field(default_factory=list)
    accuracy: list[float] = field(default_factory=list)


def main() -> None:
    """Fit every estimator some times in turn, and print a table for each data set."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.estimators",
        description="Compare NetworkClassifier with scikit-learn's estimators and, where it is "
        "installed, skorch: accuracy and time to fit, on digits and on MNIST from the folder that "
        "DLFS_GPU_DATA names, or a download.",
    )
    parser.add_argument("--rounds", type=int, default=3, help="fits of each estimator (default: 3)")
    parser.add_argument(
        "--threads",
        type=int,
        help="BLAS threads for all; of 1, CPU time is measured (default: what each library takes)",
    )
    parser.add_argument("--only", choices=("digits", "mnist"), help="one data set (default: both)")
    arguments = parser.parse_args()

    print(*(f"{key}: {value}" for key, value in machine.describe().items() if value), sep="\n")
    print(machine.versions(["numpy", "sklearn", "torch", "skorch"]))
    contests = {"digits": digits(), "mnist": mnist()}
    for name, contest in contests.items():
        if arguments.only in (None, name):
            print(table(contest, measure(contest, arguments.rounds, arguments.threads)))


def digits() -> Contest:
    """Return the contest of default settings, after a scaler."""
    makers: dict[str, Callable[[int], Any]] = {
        "NetworkClassifier": lambda seed: NetworkClassifier(random_state=seed),
        "MLPClassifier": lambda seed: MLPClassifier(random_state=seed),
        "LogisticRegression": lambda seed: LogisticRegression(),
    }
    if _has_skorch():
        makers["skorch"] = lambda seed: _skorch((64, 100, 10), "Adam", 0.001, 200, 200, seed)

    def scaled(make: Callable[[int], Any]) -> Callable[[int], Any]:
        return lambda seed: make_pipeline(StandardScaler(), make(seed))

    return Contest(
        "Digits, default settings (ReLU, 100 hidden units, Adam, at most 200 epochs)",
        lambda: load_digits(backend="numpy"),
        {name: scaled(make) for name, make in makers.items()},
    )


def mnist() -> Contest:
    """Return the contest of the chapter's training."""
    shared: dict[str, Any] = {
        "hidden_layer_sizes": (50,),
        "batch_size": 100,
        "learning_rate_init": 0.1,
        "max_iter": _MNIST_EPOCHS,
        "n_iter_no_change": _MNIST_EPOCHS,
    }
    makers: dict[str, Callable[[int], Any]] = {
        "NetworkClassifier": lambda seed: NetworkClassifier(
            activation="sigmoid", optimizer="sgd", random_state=seed, **shared
        ),
        "MLPClassifier": lambda seed: MLPClassifier(
            activation="logistic", solver="sgd", momentum=0, random_state=seed, **shared
        ),
        "LogisticRegression": lambda seed: LogisticRegression(),
    }
    if _has_skorch():
        sizes = (784, 50, 10)
        makers["skorch"] = lambda seed: _skorch(sizes, "SGD", 0.1, 100, _MNIST_EPOCHS, seed)
    return Contest(
        f"MNIST, the chapter's settings (sigmoid, 50 hidden units, SGD, batch 100, "
        f"{600 * _MNIST_EPOCHS:,} updates)",
        lambda: load_mnist(backend="numpy"),
        makers,
    )


def measure(contest: Contest, rounds: int, threads: int | None) -> dict[str, Score]:
    """Fit all estimators once in each round; who begins rotates.

    On one thread, CPU time is measured, which other processes disturb less.
    """
    clock = time.process_time if threads == 1 else time.perf_counter
    (x, t), (x_test, t_test) = contest.load()
    names = list(contest.makers)
    scores = {name: Score() for name in names}
    for seed in range(rounds):
        first = seed % len(names)
        for name in names[first:] + names[:first]:
            estimator = contest.makers[name](seed)
            limit = contextlib.nullcontext() if threads is None else threadpool_limits(threads)
            with limit, warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that training ended before it converged
                begun = clock()
                estimator.fit(x, t)
                scores[name].seconds.append(clock() - begun)
                scores[name].accuracy.append(float(np.mean(estimator.predict(x_test) == t_test)))
    return scores


def table(contest: Contest, scores: dict[str, Score]) -> str:
    """Return medians as a Markdown table; times are compared within each round."""
    own = scores["NetworkClassifier"].seconds
    lines = [f"\n### {contest.title}\n", "| | accuracy | fit | × ours |", "|---|---|---|---|"]
    for name, score in scores.items():
        ratio = statistics.median(a / b for a, b in zip(score.seconds, own, strict=True))
        lines.append(
            f"| {name} | {100 * statistics.median(score.accuracy):.1f} % "
            f"| {duration(statistics.median(score.seconds))} | {ratio:.2f} |"
        )
    return "\n".join(lines)


def _has_skorch() -> bool:
    return importlib.util.find_spec("skorch") is not None


def _skorch(
    sizes: tuple[int, int, int], optimizer: str, lr: float, batch: int, epochs: int, seed: int
) -> Any:
    import torch
    from skorch import NeuralNetClassifier

    torch.manual_seed(seed)
    inputs, hidden, outputs = sizes
    activation = torch.nn.ReLU() if optimizer == "Adam" else torch.nn.Sigmoid()
    network = torch.nn.Sequential(
        torch.nn.Linear(inputs, hidden), activation, torch.nn.Linear(hidden, outputs)
    )
    return NeuralNetClassifier(
        network,
        criterion=torch.nn.CrossEntropyLoss,
        optimizer=getattr(torch.optim, optimizer),
        lr=lr,
        batch_size=batch,
        max_epochs=epochs,
        iterator_train__shuffle=True,
        train_split=None,
        verbose=0,
    )


if __name__ == "__main__":
    main()

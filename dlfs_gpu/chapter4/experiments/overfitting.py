"""Over-fitting on a small set, and what helps: dropout, weight decay, early stopping (6.4)."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dlfs_gpu.backend import Backend, get_backend
from dlfs_gpu.data import load_digits
from dlfs_gpu.data.minibatches import MinibatchSampler
from dlfs_gpu.functions import softmax_cross_entropy
from dlfs_gpu.models import MultiLayerNet
from dlfs_gpu.optimizers import Adam
from dlfs_gpu.training import Trainer

_BATCH = 50
_LR = 0.01


class Course(NamedTuple):
    """How a training went, at the start and after each epoch: four arrays (epochs + 1,).

    Losses are those of the data, without weight decay, with dropout off.
    """

    train_loss: NDArray[np.float64]
    val_loss: NDArray[np.float64]
    train_accuracy: NDArray[np.float64]
    val_accuracy: NDArray[np.float64]


class EarlyStop(NamedTuple):
    """When early stopping ended the training, and what it kept."""

    stopped_epoch: int
    best_epoch: int
    val_loss: float
    val_accuracy: float


class Overfitting(NamedTuple):
    """The same training four ways."""

    plain: Course
    dropout: Course
    weight_decay: Course
    early_stop: EarlyStop


def overfitting(
    *,
    samples: int = 300,
    mislabelled: float = 0.3,
    epochs: int = 100,
    dropout_ratio: float = 0.5,
    weight_decay_lambda: float = 0.01,
    patience: int = 10,
    seed: int = 0,
    backend: str | Backend | None = None,
) -> Overfitting:
    """Train a large network on few digits, some of them labelled at random.

    Left alone it learns the wrong labels by heart: the training loss falls on, while the loss on
    400 other digits, all labelled right, turns and climbs. Both sets come from the training part
    of the embedded digits; the test part is for nothing but a last look, and is not touched.

    Parameters
    ----------
    samples : int
        Digits to train on, at most 1,037.
    mislabelled : float
        Share of them that get a random label.
    epochs : int
        Passes over them, but for early stopping.
    dropout_ratio, weight_decay_lambda : float
        As in `MultiLayerNet`, each in a training of its own.
    patience : int
        Epochs without a lower validation loss after which early stopping ends the plain training.
    seed : int
        Of everything drawn.
    backend : str or Backend, optional
        As for `dlfs_gpu.get_backend`.
    """
    place = get_backend(backend)
    (x, t), _ = load_digits(backend="numpy")
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(x))
    train, val = order[:samples], order[samples : samples + 400]
    labels = t[train]
    wrong = rng.random(samples) < mislabelled
    labels[wrong] = rng.integers(10, size=np.count_nonzero(wrong))
    data = tuple(place.asarray(part) for part in (x[train], labels, x[val], t[val]))

    def network(**options: Any) -> MultiLayerNet:
        return MultiLayerNet(64, [100], 10, seed=seed, backend=place, **options)

    return Overfitting(
        _course(network(), data, epochs, seed),
        _course(network(dropout_ratio=dropout_ratio), data, epochs, seed),
        _course(network(weight_decay_lambda=weight_decay_lambda), data, epochs, seed),
        _early_stop(network(), data, epochs, seed, patience),
    )


def _course(network: MultiLayerNet, data: tuple[Any, ...], epochs: int, seed: int) -> Course:
    x, t, x_val, t_val = data
    sampler = MinibatchSampler(len(x), _BATCH, seed=seed)
    optimizer = Adam(_LR)

    def state() -> list[float]:
        losses = (softmax_cross_entropy(network.scores(a), b) for a, b in ((x, t), (x_val, t_val)))
        return [*map(float, losses), network.accuracy(x, t), network.accuracy(x_val, t_val)]

    states = [state()]
    for _ in range(epochs):
        for rows in network.backend.asarray(sampler.draw(len(x) // _BATCH)):
            optimizer.update(network.params, network.gradient(x[rows], t[rows]))
        states.append(state())
    return Course(*np.asarray(states).T)


def _early_stop(
    network: MultiLayerNet, data: tuple[Any, ...], epochs: int, seed: int, patience: int
) -> EarlyStop:
    x, t, x_val, t_val = data
    trainer = Trainer(
        network,
        x,
        t,
        epochs=epochs,
        mini_batch_size=_BATCH,
        optimizer="Adam",
        optimizer_param={"lr": _LR},
        seed=seed,
        x_val=x_val,
        t_val=t_val,
        patience=patience,
        verbose=False,
    )
    history = trainer.train()
    # With the best weights restored, this is the least of the losses seen.
    val_loss = float(network.loss(x_val, t_val))
    return EarlyStop(
        history.iterations[-1] // trainer.iter_per_epoch,
        (history.best_iteration or 0) // trainer.iter_per_epoch,
        val_loss,
        network.accuracy(x_val, t_val),
    )

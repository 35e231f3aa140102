"""Data in two parts: to train on, and to test on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from dlfs_gpu._validation import Array
from dlfs_gpu.backend import Backend
from dlfs_gpu.functions import one_hot

Splits: TypeAlias = tuple[tuple[Array, Array], tuple[Array, Array]]
"""``(x_train, t_train), (x_test, t_test)``."""


@dataclass(frozen=True, eq=False)
class DataSet:
    """Samples to train on and to test on, and what they are called.

    Attributes
    ----------
    x_train, x_test : array of float32, shape (N, features)
    t_train, t_test : array of int64, shape (N,), or of float32, shape (N, len(classes))
        Labels counted from 0, one-hot if that was asked for.
    classes : tuple of int or of str
        The labels of the data themselves: ``classes[t]`` is what they say where `t_train` says t.
    features : tuple of str
        Names of the columns of `x_train` and `x_test`; empty for images.
    """

    x_train: Array
    t_train: Array
    x_test: Array
    t_test: Array
    classes: tuple[int, ...] | tuple[str, ...]
    features: tuple[str, ...] = ()


def stratified_split(t: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the rows to train on and those to test on, a fifth; the same for the same labels.

    Every label is in both parts in proportion.
    """
    import sklearn.model_selection

    train, test = sklearn.model_selection.train_test_split(
        np.arange(len(t)), test_size=0.2, random_state=0, stratify=t
    )
    return train, test


def to_backend(
    backend: Backend, x: NDArray[Any], t: NDArray[np.int64], num_classes: int, one_hot_label: bool
) -> tuple[Array, Array]:
    """Put samples and labels on a backend, the labels one-hot if that is asked for."""
    labels = backend.asarray(t)
    return backend.asarray(x), one_hot(labels, num_classes) if one_hot_label else labels

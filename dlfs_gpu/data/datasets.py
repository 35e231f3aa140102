"""Data to train on: the embedded digits, MNIST and its like, CSV files; labels and minibatches."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from dlfs_gpu._validation import Array
from dlfs_gpu.backend import Backend, get_backend
from dlfs_gpu.data.csv import check_alike, read_table
from dlfs_gpu.data.idx import load_idx
from dlfs_gpu.data.published import load_published
from dlfs_gpu.functions import one_hot

__all__ = [
    "CsvData",
    "load_csv",
    "load_digits",
    "load_fashion_mnist",
    "load_idx",
    "load_mnist",
]

Splits: TypeAlias = tuple[tuple[Array, Array], tuple[Array, Array]]
"""``(x_train, t_train), (x_test, t_test)``."""

_CLASSES = 10


def load_digits(one_hot_label: bool = False, *, backend: str | Backend | None = None) -> Splits:
    """Load the handwritten digits that come with scikit-learn: 1,797 images of 8 by 8 pixels.

    They need no network. The split is always the same: 1,437 to train and 360 to test, with every
    digit in both in proportion [1]_.

    Parameters
    ----------
    one_hot_label : bool, optional
        Give the labels as float32 of shape (N, 10) instead of int64 of shape (N,).
    backend : str or Backend, optional
        Where to put the arrays, as for `dlfs_gpu.backend.get_backend`.

    Returns
    -------
    (x_train, t_train), (x_test, t_test)
        Images as float32 of shape (N, 64) between 0 and 1, and their labels.

    References
    ----------
    .. [1] E. Alpaydin, C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine
       Learning Repository, 1998, https://doi.org/10.24432/C50P49
    """
    import sklearn.datasets

    chosen = get_backend(backend)
    images, labels = sklearn.datasets.load_digits(return_X_y=True)
    x = (images / 16).astype(np.float32)
    t = labels.astype(np.int64)
    train, test = _stratified_split(t)
    return (
        _place(chosen, x[train], t[train], _CLASSES, one_hot_label),
        _place(chosen, x[test], t[test], _CLASSES, one_hot_label),
    )


def load_mnist(
    normalize: bool = True,
    flatten: bool = True,
    one_hot_label: bool = False,
    *,
    data_dir: str | os.PathLike[str] | None = None,
    backend: str | Backend | None = None,
) -> Splits:
    """Load MNIST: 60,000 and 10,000 handwritten digits of 28 by 28 pixels [1]_.

    The four files, packed (.gz) or not, are taken from `data_dir`, or else from the folder named
    by the environment variable ``DLFS_GPU_DATA``; where neither is given, they are downloaded
    once to the user's cache folder. Wherever they come from, they are checked against the
    published digests before they are used.

    Parameters
    ----------
    normalize : bool, optional
        Give pixels as float32 between 0 and 1; otherwise as uint8 between 0 and 255.
    flatten : bool, optional
        Give images of shape (N, 784); otherwise (N, 1, 28, 28).
    one_hot_label : bool, optional
        Give labels as float32 of shape (N, 10); otherwise as int64 of shape (N,).
    data_dir : path, optional
        The folder that holds the four files.
    backend : str or Backend, optional
        Where to put the arrays, as for `dlfs_gpu.backend.get_backend`.

    Returns
    -------
    (x_train, t_train), (x_test, t_test)

    Raises
    ------
    FileNotFoundError
        If the folder lacks some of the files.
    ConnectionError
        If no mirror gave a file; the message says which files to put where.
    ValueError
        If a file is damaged, or not MNIST's; the message names the file, and the digest found
        and the one expected.

    References
    ----------
    .. [1] Y. LeCun, L. Bottou, Y. Bengio, P. Haffner, "Gradient-Based Learning Applied to
       Document Recognition", Proceedings of the IEEE 86(11), 1998,
       https://doi.org/10.1109/5.726791
    """
    return _load("mnist", normalize, flatten, one_hot_label, data_dir, backend)


def load_fashion_mnist(
    normalize: bool = True,
    flatten: bool = True,
    one_hot_label: bool = False,
    *,
    data_dir: str | os.PathLike[str] | None = None,
    backend: str | Backend | None = None,
) -> Splits:
    """Load Fashion-MNIST: ten kinds of clothes in the layout of MNIST [1]_.

    The files are found, the arguments understood and the errors raised as by `load_mnist`, but
    local files must be packed: no digests are published that unpacked ones could be checked
    against.

    References
    ----------
    .. [1] H. Xiao, K. Rasul, R. Vollgraf, "Fashion-MNIST: a Novel Image Dataset for Benchmarking
       Machine Learning Algorithms", 2017, https://arxiv.org/abs/1708.07747
    """
    return _load("fashion-mnist", normalize, flatten, one_hot_label, data_dir, backend)


@dataclass(frozen=True, eq=False)
class CsvData:
    """Samples from CSV files.

    Attributes
    ----------
    x_train, x_test : array of float32, shape (N, columns)
        The columns other than the label's, divided by the scale.
    t_train, t_test : array of int64, shape (N,), or of float32, shape (N, len(classes))
        Labels counted from 0, one-hot if that was asked for.
    classes : tuple of int
        The files' own labels: ``classes[t]`` is what the file says where `t_train` says t.
    features : tuple of str
        Names of the columns of `x_train` and `x_test`.
    """

    x_train: Array
    t_train: Array
    x_test: Array
    t_test: Array
    classes: tuple[int, ...]
    features: tuple[str, ...]


def load_csv(
    train: str | os.PathLike[str],
    test: str | os.PathLike[str] | None = None,
    *,
    label_column: str = "label",
    scale: float = 255.0,
    one_hot_label: bool = False,
    backend: str | Backend | None = None,
) -> CsvData:
    """Load CSV files with a header row, a column of integer labels, and numbers in all others.

    Labels may be any integers and skip some, as those of the sign-language alphabet do
    (0 to 24 without 9); they are mapped to 0, 1, 2, ...

    Parameters
    ----------
    train : path
        The file to train on.
    test : path, optional
        The file to test on, with the same columns. Without it, a fixed fifth of `train` is set
        apart, with every label in both parts in proportion.
    label_column : str, optional
        Name of the column of labels.
    scale : float, optional
        What the other columns are divided by: 255 makes bytes lie between 0 and 1.
    one_hot_label : bool, optional
        Give the labels as float32 of shape (N, number of classes) instead of int64 of shape (N,).
    backend : str or Backend, optional
        Where to put the arrays, as for `dlfs_gpu.backend.get_backend`.

    Raises
    ------
    OSError
        If a file is missing or cannot be read.
    ValueError
        If `scale` is not positive and finite in float32; if a file is empty, has no rows, not
        exactly one label column, no other, or two of one name; if a row has another length than
        the header, a cell is not a finite number, or a label not an integer; if all labels of
        `train` are the same; if `test` has other columns or labels than `train`, or `train` is
        too small to be split. The message names the file and the line.
    """
    single = np.finfo(np.float32)
    if not float(single.tiny) <= scale <= float(single.max):
        raise ValueError(f"scale is {scale}; it must be positive and finite in float32")
    chosen = get_backend(backend)
    known = read_table(Path(train), label_column, scale)
    classes, t_known, counts = np.unique(known.labels, return_inverse=True, return_counts=True)
    if len(classes) == 1:
        raise ValueError(f"{train} has only the label {classes[0]}; there must be two or more")
    if test is None:
        held = math.ceil(len(t_known) / 5)
        fault = None
        if lonely := int(np.sum(counts == 1)):
            label = classes[np.argmin(counts)]
            fault = f"{lonely} of its {len(classes)} labels, {label} for one, occur only once"
        elif held < len(classes):
            fault = f"a fifth of it is {held} rows, fewer than its {len(classes)} labels"
        if fault is not None:
            raise ValueError(
                f"{train} cannot be split into parts to train and to test on: {fault}. "
                "Add rows, or give a file as test."
            )
        train_rows, test_rows = _stratified_split(known.labels)
        x_train, t_train = known.x[train_rows], t_known[train_rows]
        x_test, t_test = known.x[test_rows], t_known[test_rows]
    else:
        unseen = read_table(Path(test), label_column, scale)
        check_alike(unseen, known)
        x_train, t_train = known.x, t_known
        x_test, t_test = unseen.x, np.searchsorted(classes, unseen.labels)
    return CsvData(
        *_place(chosen, x_train, t_train, len(classes), one_hot_label),
        *_place(chosen, x_test, t_test, len(classes), one_hot_label),
        tuple(classes.tolist()),
        tuple(known.features),
    )


def _load(
    name: str,
    normalize: bool,
    flatten: bool,
    one_hot_label: bool,
    data_dir: str | os.PathLike[str] | None,
    backend: str | Backend | None,
) -> Splits:
    chosen = get_backend(backend)

    def arrange(x: NDArray[np.uint8], t: NDArray[np.int64]) -> tuple[Array, Array]:
        shaped = x.reshape(len(x), -1) if flatten else x[:, np.newaxis]
        pixels = shaped / np.float32(255) if normalize else shaped
        return _place(chosen, pixels, t, _CLASSES, one_hot_label)

    train, test = load_published(name, data_dir)
    return arrange(*train), arrange(*test)


def _place(
    backend: Backend, x: NDArray[Any], t: NDArray[np.int64], num_classes: int, one_hot_label: bool
) -> tuple[Array, Array]:
    labels = backend.asarray(t)
    return backend.asarray(x), one_hot(labels, num_classes) if one_hot_label else labels


def _stratified_split(t: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the rows to train on and those to test on, a fifth."""
    import sklearn.model_selection

    train, test = sklearn.model_selection.train_test_split(
        np.arange(len(t)), test_size=0.2, random_state=0, stratify=t
    )
    return train, test

"""The handwritten digits that come with scikit-learn."""

from __future__ import annotations

import numpy as np

from dlfs_gpu.backend import Backend, get_backend
from dlfs_gpu.data.splits import Splits, stratified_split, to_backend


def load_digits(one_hot_label: bool = False, *, backend: str | Backend | None = None) -> Splits:
    """Load the handwritten digits that come with scikit-learn: 1,797 images of 8 by 8 pixels.

    They need no network. The split is always the same: 1,437 to train and 360 to test, with every
    digit in both in proportion [1]_.

    Parameters
    ----------
    one_hot_label : bool, optional
        Give the labels as float32 of shape (N, 10) instead of int64 of shape (N,).
    backend : str or Backend, optional
        Where to put the arrays, as for `dlfs_gpu.get_backend`.

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
    train, test = stratified_split(t)
    return (
        to_backend(chosen, x[train], t[train], 10, one_hot_label),
        to_backend(chosen, x[test], t[test], 10, one_hot_label),
    )

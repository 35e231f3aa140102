"""Data to train on."""

from dlfs_gpu.data.datasets import (
    CsvData,
    load_csv,
    load_digits,
    load_fashion_mnist,
    load_idx,
    load_mnist,
)
from dlfs_gpu.data.minibatches import MinibatchSampler

__all__ = [
    "CsvData",
    "MinibatchSampler",
    "load_csv",
    "load_digits",
    "load_fashion_mnist",
    "load_idx",
    "load_mnist",
]

"""Data to train on."""

from dlfs_gpu.data.datasets import (
    CsvData,
    MinibatchSampler,
    load_csv,
    load_digits,
    load_fashion_mnist,
    load_idx,
    load_mnist,
    one_hot,
)

__all__ = [
    "CsvData",
    "MinibatchSampler",
    "load_csv",
    "load_digits",
    "load_fashion_mnist",
    "load_idx",
    "load_mnist",
    "one_hot",
]

"""Data to train on."""

from dlfs_gpu.data.csv import load_csv
from dlfs_gpu.data.digits import load_digits
from dlfs_gpu.data.idx import load_idx
from dlfs_gpu.data.minibatches import MinibatchSampler
from dlfs_gpu.data.mnist import load_fashion_mnist, load_mnist
from dlfs_gpu.data.splits import DataSet

__all__ = [
    "DataSet",
    "MinibatchSampler",
    "load_csv",
    "load_digits",
    "load_fashion_mnist",
    "load_idx",
    "load_mnist",
]

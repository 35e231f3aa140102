"""Training by minibatches."""

from dlfs_gpu.training.history import History
from dlfs_gpu.training.trainer import Trainer

__all__ = ["History", "Trainer"]

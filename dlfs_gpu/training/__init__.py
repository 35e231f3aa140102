"""Training by minibatches."""

from dlfs_gpu.training.trainer import History, Trainer

__all__ = ["History", "Trainer"]

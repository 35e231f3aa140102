"""Finite differences without rounding."""

from dlfs_gpu.differences.stack import difference_gradients

__all__ = ["difference_gradients"]

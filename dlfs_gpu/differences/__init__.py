"""Finite differences without rounding."""

# The rules make themselves known when they are imported.
from dlfs_gpu.differences import (  # noqa: F401
    arithmetic,
    indexing,
    joining,
    linear,
    piecewise,
    reductions,
    shaping,
    transcendental,
)
from dlfs_gpu.differences.array import Differenced
from dlfs_gpu.differences.pointwise import with_difference

__all__ = ["Differenced", "with_difference"]

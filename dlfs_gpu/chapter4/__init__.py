"""Chapter 4, recomputed: each number beside the one that must come out, and the figures."""

from dlfs_gpu.chapter4.model import Report
from dlfs_gpu.chapter4.runner import SECTIONS, run_chapter4

__all__ = ["SECTIONS", "Report", "run_chapter4"]

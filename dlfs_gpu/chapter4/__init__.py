"""Chapter 4, recomputed: each number beside the one the sources print, and the figures."""

from dlfs_gpu.chapter4.runner import SECTIONS, Report, run_chapter4

__all__ = ["SECTIONS", "Report", "run_chapter4"]

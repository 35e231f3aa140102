"""Benchmarks: pytest-benchmark suites (``bench_*.py``) and the comparison with other libraries.

``python -m pytest benchmarks`` times the library's parts over every backend here;
``python -m benchmarks`` compares it with the chapter's own code, PyTorch, JAX and DeZero.
"""

"""Fixtures for the whole suite."""

from __future__ import annotations

import os
import signal

# One BLAS thread for each worker, set before NumPy loads BLAS, and for subprocesses too: more
# threads than cores spend their time waiting for each other.
for _variable in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")
# scikit-learn's array API support asks for SciPy's, which is chosen before SciPy is imported.
os.environ.setdefault("SCIPY_ARRAY_API", "1")

# ruff: noqa: E402
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pytest
from hypothesis import settings
from libraries import Library, libraries

from dlfs_gpu.data.mnist import cache_folder
from dlfs_gpu.kernels import use_kernels

mpl.use("Agg")
# In the background Python ignores Ctrl-C, which tests send.
signal.signal(signal.SIGINT, signal.default_int_handler)

# The first call on a GPU compiles its kernels: an example may take as long as it needs. The same
# examples come in every run, so that what fails once fails again.
settings.register_profile("the suite", deadline=None, derandomize=True)
settings.load_profile("the suite")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run each test that asks for `lib` on every array library."""
    if "lib" in metafunc.fixturenames:
        cases: list[Any] = []
        for case in libraries():
            if isinstance(case, Library):
                cases.append(pytest.param(case, id=f"{case.name}-{case.dtype}"))
            else:
                skip = pytest.mark.skip(reason=case[1])
                cases.append(pytest.param(None, id=case[0], marks=skip))
        metafunc.parametrize("lib", cases)


# Hypothesis wants what its examples share to be of a wider scope than one test.
@pytest.fixture(scope="module", params=["auto", "off"])
def kernels(request: pytest.FixtureRequest) -> Iterator[str]:
    """With compiled loops, where there are any, and without."""
    with use_kernels(request.param):
        yield request.param


@pytest.fixture(scope="session")
def mnist_dir() -> Path:
    """The folder of the real MNIST files; tests that need it are skipped without."""
    folder = Path(os.environ.get("DLFS_GPU_DATA") or cache_folder("mnist"))
    if not (folder / "train-images-idx3-ubyte.gz").is_file():
        pytest.skip(f"MNIST is not in {folder}; set DLFS_GPU_DATA to its folder")
    return folder.absolute()

"""Fixtures of the kernels' tests."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

import pytest

from dlfs_gpu import backend
from dlfs_gpu.kernels import cuda, proof
from kernels.emulated import COMPILER, FOLDER
from kernels.fake_cupy import FakeCupy, fake


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A folder for compiled programs, the same for all workers of a run."""
    if COMPILER is None:
        pytest.skip("there is no C++ compiler")
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "kernels"
    folder.mkdir(exist_ok=True)
    os.environ[FOLDER] = str(folder)


@pytest.fixture
def cupy(compiled: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeCupy]:
    """The stand-in for CuPy, as new, and a process that has not used a kernel yet."""
    monkeypatch.setitem(sys.modules, "cupy", fake)
    monkeypatch.setitem(sys.modules, "array_api_compat.cupy", fake)
    monkeypatch.delenv("DLFS_GPU_KERNELS", raising=False)
    monkeypatch.setattr(proof, "_statuses", {})
    monkeypatch.setattr(proof, "_passed", set())
    fake.reset()
    caches = backend._probe_gpu, cuda.load
    for cache in caches:
        cache.cache_clear()
    yield fake
    for cache in caches:
        cache.cache_clear()

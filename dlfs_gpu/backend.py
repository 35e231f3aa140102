"""Which array library and device to use, why, and moving arrays to and from it."""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.util
import os
import platform
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
from array_api_compat import is_cupy_array

from dlfs_gpu._validation import Array, check_choice, check_count
from dlfs_gpu.machine.memory import free_host_memory
from dlfs_gpu.machine.threads import cpu_cores

_NAMES = ("auto", "numpy", "cupy")
ENVIRONMENT_VARIABLE = "DLFS_GPU_BACKEND"

_scoped: ContextVar[Backend | None] = ContextVar("dlfs_gpu_backend", default=None)


class BackendError(RuntimeError):
    """The backend that was asked for cannot run here; the message says why and what mends it."""


@dataclass(frozen=True)
class Backend:
    """An array library on a device, and why it was chosen.

    Attributes
    ----------
    name : {"numpy", "cupy"}
        The library.
    device : str
        The device in words, for people to read.
    reason : str
        Why this backend was chosen.
    """

    name: str
    device: str
    reason: str

    @property
    def xp(self) -> ModuleType:
        """The library's array API namespace: ``backend.xp.exp(x)``."""
        # Not kept, because a module cannot be pickled or copied.
        return np if self.name == "numpy" else importlib.import_module("array_api_compat.cupy")

    def asarray(self, x: Any, dtype: Any = None) -> Array:
        """Put `x` (a list, a NumPy array, or an array already here) on this backend.

        Parameters
        ----------
        x : array_like
            Numbers of any shape. An array that is already here is not copied.
        dtype : dtype or str, optional
            Type of the result; that of `x` by default.

        Raises
        ------
        TypeError
            If `x` is a CuPy array and this backend is NumPy.
        """
        if self.name == "numpy" and is_cupy_array(x):
            raise TypeError("x is a cupy.ndarray: move it to the host with cupy.asnumpy(x) first")
        return self.xp.asarray(x, dtype=None if dtype is None else np.dtype(dtype))

    def to_numpy(self, x: Array) -> np.ndarray:
        """Copy `x` to the host if it is not there; waits for the device."""
        return to_numpy(x)

    def synchronize(self) -> None:
        """Wait until the device has finished all work given to it; NumPy never has any left."""
        if self.name == "cupy":
            self.xp.cuda.get_current_stream().synchronize()

    def free_memory(self) -> int:
        """Bytes that new arrays can take on the device, those cached in CuPy's pool included."""
        if self.name == "cupy":
            pool = self.xp.get_default_memory_pool()
            free = self.xp.cuda.Device().mem_info[0] + pool.free_bytes()
            limit = pool.get_limit()
            return int(min(free, limit - pool.used_bytes()) if limit else free)
        return free_host_memory()


def get_backend(name: str | Backend | None = None) -> Backend:
    """Choose a backend.

    The first of these that is given decides: the argument, the innermost `use_backend` around
    the call, the environment variable ``DLFS_GPU_BACKEND``, and last ``"auto"``.

    Parameters
    ----------
    name : {"auto", "numpy", "cupy"} or Backend, optional
        ``"auto"`` is CuPy when a kernel and a matrix product have really run on a GPU, and
        NumPy otherwise; the backend's ``reason`` says which and why.

    Raises
    ------
    ArgumentError
        If the name is none of the three.
    BackendError
        If ``"cupy"`` is asked for and cannot run; the message quotes the cause and the remedy.
    """
    if isinstance(name, Backend):
        return name
    if name is None:
        scoped = _scoped.get()
        if scoped is not None:
            return scoped
        variable = os.environ.get(ENVIRONMENT_VARIABLE, "")
        if variable:
            return _backend(variable, f"{ENVIRONMENT_VARIABLE}={variable}", ENVIRONMENT_VARIABLE)
        return _backend("auto", "nothing asked for", "backend")
    return _backend(name, f"{name!r} was asked for", "backend")


@contextlib.contextmanager
def use_backend(name: str | Backend) -> Iterator[Backend]:
    """Make a backend the default inside a ``with`` block, and restore what was at its end.

    Blocks nest. Each thread has its own: a block does not reach threads started inside it.

    Parameters
    ----------
    name : {"auto", "numpy", "cupy"} or Backend
        As for `get_backend`, which also says what is raised.
    """
    backend = get_backend(name)
    token = _scoped.set(backend)
    try:
        yield backend
    finally:
        _scoped.reset(token)


def to_numpy(x: Array) -> np.ndarray:
    """Copy `x` to the host if it is not there; waits for the device."""
    return np.asarray(x.get() if is_cupy_array(x) else x)


def memory_budget(x: Array, max_memory: int | None) -> int:
    """Return `max_memory` in bytes, or its default for work in the library of `x`.

    The default is half of the free memory: on a GPU of what it has now, and on the host of what
    this process could take when it was first asked, but no less than 16 MiB and no more than 256.

    Raises
    ------
    ArgumentError
        If `max_memory` is given and is not a positive whole number.
    """
    if max_memory is None:
        return get_backend("cupy").free_memory() // 2 if is_cupy_array(x) else _host_budget()
    return check_count("max_memory", max_memory)


def run_in_chunks(run: Callable[[int, int], None], total: int, chunk: int, title: str = "") -> None:
    """Call ``run(start, stop)`` over 0..total in chunks, halved and retried on MemoryError.

    Parameters
    ----------
    run : callable
        Does the work of one chunk; called again with a smaller one when it lacked memory.
    total, chunk : int
        How much there is to do, and how much at once at first.
    title : str, optional
        Title of a progress bar; none is shown by default.
    """
    from tqdm import tqdm

    start = 0
    with tqdm(total=total, desc=title, disable=not title, leave=False) as bar:
        while start < total:
            stop = min(start + chunk, total)
            try:
                run(start, stop)
            except MemoryError as error:
                if stop - start == 1:
                    raise
                on_gpu = type(error).__module__.startswith("cupy")
            else:
                bar.update(stop - start)
                start = stop
                continue
            # Past the handler: until here its traceback kept the failed chunk's arrays alive.
            chunk = (stop - start) // 2
            if on_gpu:
                importlib.import_module("cupy").get_default_memory_pool().free_all_blocks()


def _backend(name: str, asked: str, argument: str) -> Backend:
    name = check_choice(argument, name, _NAMES)
    if name == "numpy":
        return Backend("numpy", _host_name(), asked)
    gpu = _probe_gpu()
    if gpu.failure is None:
        reason = f"{asked}; a kernel and a matrix product ran on the GPU"
        return Backend("cupy", gpu.device, reason)
    if name == "cupy":
        raise BackendError(
            f"{argument} asks for 'cupy', which cannot run here: {gpu.failure}\n{gpu.remedy}"
        ) from gpu.cause
    return Backend("numpy", _host_name(), f"{asked}; {gpu.failure}")


@dataclass(frozen=True)
class _Gpu:
    """What came of trying the GPU."""

    device: str = ""
    failure: str | None = None
    remedy: str = ""
    cause: Exception | None = None


@functools.cache
def _probe_gpu() -> _Gpu:
    """Try the GPU once: import CuPy, ask for a device, and run a kernel and a matrix product.

    `cupy.is_available` alone is not enough: without NVRTC or cuBLAS it says True, and the first
    real use fails.
    """
    if importlib.util.find_spec("cupy") is None:
        return _Gpu(
            failure="CuPy is not installed",
            remedy='Install it: pip install "cupy-cuda13x[ctk]" '
            "(or cupy-cuda12x, where nvidia-smi shows CUDA 12).",
        )
    try:
        cupy = importlib.import_module("cupy")
    except Exception as error:
        return _Gpu(
            failure=f"CuPy is installed but cannot be imported ({_quote(error)})",
            remedy="Keep exactly one cupy package installed, of the driver's CUDA version.",
            cause=error,
        )
    if os.environ.get("CUDA_VISIBLE_DEVICES", "0").strip() in ("", "-1"):
        return _Gpu(
            failure="CUDA_VISIBLE_DEVICES hides every GPU",
            remedy="Unset CUDA_VISIBLE_DEVICES, or set it to the number of a GPU.",
        )
    try:
        cupy.cuda.runtime.getDeviceCount()
    except Exception as error:
        return _Gpu(
            failure=f"no GPU was found ({_quote(error)})",
            remedy="Install the NVIDIA driver; nvidia-smi must list a GPU.",
            cause=error,
        )
    try:
        host = np.arange(4, dtype=np.float32).reshape(2, 2)
        x = cupy.asarray(host)
        result, expected = (cupy.exp(x) @ x).get(), np.exp(host) @ host
        if not np.allclose(result, expected, rtol=1e-4):
            raise ArithmeticError(f"exp(x) @ x gave {result.tolist()}, not {expected.tolist()}")
        properties = cupy.cuda.runtime.getDeviceProperties(cupy.cuda.Device().id)
    except Exception as error:
        return _Gpu(
            failure=f"a GPU was found, but nothing runs on it ({_quote(error)})",
            remedy='Install the CUDA libraries with CuPy: pip install "cupy-cuda13x[ctk]" '
            "(or cupy-cuda12x).",
            cause=error,
        )
    memory = properties["totalGlobalMem"] / 2**30
    return _Gpu(device=f"{properties['name'].decode()}, {memory:.0f} GiB")


def _quote(error: Exception) -> str:
    first_line = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {first_line}"


@functools.cache
def _host_name() -> str:
    return f"CPU ({platform.machine() or 'unknown'}, {cpu_cores()} cores)"


@functools.cache
def _host_budget() -> int:
    # Asked again and again, this would take as long as the gradient of a small network. Where
    # nothing seems free, a little is tried.
    return min(2**28, max(2**24, free_host_memory() // 2))

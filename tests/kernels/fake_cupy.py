"""A stand-in for CuPy 14 on the host, which runs kernels by `emulated`.

It refuses what CuPy refuses (found with CuPy 14.2 where no GPU is needed, else by its sources), and
what CuPy takes but a kernel would read wrongly: numbers of another type than the argument's.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.machinery
import operator
import warnings
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np

from kernels import emulated

_ABSENT = ("errstate", "nditer", "ndenumerate", "ma", "insert")
# What a block has without being asked for more.
_SHARED = 48 << 10
_HANDLE = 12345


class CompileException(Exception):  # noqa: N818
    """As `cupy.cuda.compiler.CompileException`."""


class CUDADriverError(RuntimeError):
    """As `cupy_backends.cuda.api.driver.CUDADriverError`."""


class OutOfMemoryError(MemoryError):
    """As `cupy.cuda.memory.OutOfMemoryError`."""

    __module__ = "cupy.cuda.memory"


class ndarray:  # noqa: N801
    """An array on the device: nothing but what is in `fake` gets at its numbers."""

    __module__ = "cupy"
    __array_ufunc__ = None  # NumPy's arrays leave operators to this class, which refuses them
    device = "the device"

    def __init__(self, host: Any) -> None:
        self.host = np.asarray(host)

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise TypeError("Implicit conversion to a NumPy array is not allowed.")

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.host, name)
        return _on_device(found) if callable(found) else _wrap(found)

    def __len__(self) -> int:
        return len(self.host)

    def __getitem__(self, index: Any) -> ndarray:
        return ndarray(self.host[_unwrap(index)])

    def __setitem__(self, index: Any, value: Any) -> None:
        self.host[_unwrap(index)] = _unwrap(value)

    @property
    def data(self) -> Any:
        return SimpleNamespace(ptr=self.host.ctypes.data)

    def get(self) -> Any:
        return self.host.copy()


def _unwrap(x: Any) -> Any:
    if isinstance(x, ndarray):
        return x.host
    if isinstance(x, tuple):
        return tuple(map(_unwrap, x))
    if isinstance(x, np.ndarray | list):
        raise TypeError(f"Unsupported type {type(x)}")
    return x


def _wrap(x: Any) -> Any:
    if isinstance(x, tuple):
        return tuple(map(_wrap, x))
    return ndarray(x) if isinstance(x, np.ndarray | np.generic) else x


def _on_device(function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        lists = function in (np.stack, np.concat)
        args = tuple(tuple(a) if lists and isinstance(a, list) else a for a in args)
        values = {key: _unwrap(value) for key, value in kwargs.items() if key != "device"}
        return _wrap(function(*map(_unwrap, args), **values))

    return call


def _operator(name: str) -> Callable[..., Any]:
    def call(self: ndarray, *others: Any) -> Any:
        result = getattr(self.host, name)(*map(_unwrap, others))
        if name.startswith("__i") and name not in ("__invert__", "__int__"):
            self.host = result
            return self
        return _wrap(result) if name not in ("__float__", "__int__", "__bool__") else result

    return call


for _name in (
    *(
        f"__{p}{n}__"
        for n in ("add", "sub", "mul", "truediv", "mod", "pow", "matmul")
        for p in ("", "r", "i")
    ),
    *(
        f"__{n}__"
        for n in ("neg", "abs", "invert", "and", "or", "lt", "le", "gt", "ge", "eq", "ne")
    ),
    *("__float__", "__int__", "__bool__"),
):
    setattr(ndarray, _name, _operator(_name))


def _gemm(letter: str) -> Callable[..., None]:
    """Return cuBLAS's product of matrices by columns, given by pointers."""
    number = np.ctypeslib.as_ctypes_type(letter)

    def array(pointer: int, rows: int, columns: int, leading: int) -> Any:
        assert leading >= rows
        numbers = ctypes.cast(pointer, ctypes.POINTER(number))
        return np.ctypeslib.as_array(numbers, (columns, leading))[:, :rows].T

    def gemm(*arguments: int) -> None:
        handle, op_a, op_b, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc = map(
            operator.index, arguments
        )
        if fake.recorded is not None:
            raise NotImplementedError("calling cuBLAS API during stream capture")
        assert handle == _HANDLE
        left = array(a, k, m, lda).T if op_a else array(a, m, k, lda)
        right = array(b, n, k, ldb).T if op_b else array(b, k, n, ldb)
        out, kept = array(c, m, n, ldc), array(beta, 1, 1, 1).item()
        product = array(alpha, 1, 1, 1) * (left @ right)
        out[...] = product + kept * out if kept else product

    return gemm


class RawKernel:
    """A kernel and its attributes."""

    shared_size_bytes = 4960

    def __init__(
        self, cupy: FakeCupy, name: str, kernel: emulated.Kernel, cooperative: bool
    ) -> None:
        self._cupy = cupy
        self._name = name
        self._kernel = kernel
        self._cooperative = cooperative
        self._shared = _SHARED - self.shared_size_bytes

    @property
    def max_dynamic_shared_size_bytes(self) -> int:
        return self._shared

    @max_dynamic_shared_size_bytes.setter
    def max_dynamic_shared_size_bytes(self, size: int) -> None:
        if size + self.shared_size_bytes > self._cupy.attributes["MaxSharedMemoryPerBlockOptin"]:
            raise CUDADriverError("CUDA_ERROR_INVALID_VALUE: invalid argument")
        self._shared = size

    def __call__(
        self, grid: tuple[int, ...], block: tuple[int, ...], args: Any, *, shared_mem: int = 0
    ) -> None:
        for name, value in (("grid", grid), ("block", block)):
            if not isinstance(value, tuple):
                raise TypeError(
                    f"Argument '{name}' has incorrect type (expected tuple, got {type(value)})"
                )
        grid, block = (tuple(map(operator.index, sizes)) for sizes in (grid, block))
        signature = self._kernel.signature
        if len(args) != len(signature):
            raise AssertionError(f"{len(args)} arguments for {signature}: the driver reads on")
        arguments = [_argument(x, letter) for x, letter in zip(args, signature, strict=True)]
        if shared_mem > self._shared or np.prod(block) > 1024:
            raise CUDADriverError("CUDA_ERROR_INVALID_VALUE: invalid argument")
        processors = self._cupy.attributes["MultiProcessorCount"]
        if self._cooperative and grid[0] > processors:
            warnings.warn(
                f"The grid size will be reduced from {grid[0]} to {processors}, as the specified "
                "grid size exceeds the limit.",
                stacklevel=2,
            )
            grid = (processors,)
        if self._cupy.recorded is not None:
            again = functools.partial(self, grid, block, args, shared_mem=shared_mem)
            self._cupy.recorded.append(again)
            return
        self._cupy.launches.append((grid, block, shared_mem))
        self._cupy.launched.append(self._name)
        if self._cupy.launch_error is not None:
            raise self._cupy.launch_error
        self._kernel.launch(
            grid,
            block,
            arguments,
            shared=shared_mem,
            order=self._cupy.order,
            cooperative=self._cooperative,
        )


def _argument(x: Any, letter: str) -> Any:
    """Return an argument as the emulator takes it."""
    if isinstance(x, ndarray):
        assert letter == "P", "an array for a number"
        return x.host
    if isinstance(x, np.ndarray):
        raise TypeError(
            f"You are trying to pass a numpy.ndarray of shape {x.shape} as a kernel parameter."
        )
    if isinstance(x, int | float) and not isinstance(x, np.generic):
        x = np.int64(x) if isinstance(x, int) else np.float64(x)
    if not isinstance(x, np.generic):
        raise TypeError(f"Unsupported type {type(x)}")
    if letter == "P":
        assert repr(x) == "np.uint64(0)", f"{x!r} for a pointer"
        return None
    assert x.dtype == np.dtype(letter), f"{x!r} for an argument of the type {letter!r}"
    return x


class RawModule:
    """A source that is compiled when a kernel is asked for."""

    def __init__(
        self,
        *,
        code: str,
        options: tuple[str, ...] = (),
        name_expressions: Any = None,
        enable_cooperative_groups: bool = False,
    ) -> None:
        if not isinstance(options, tuple):
            raise TypeError("Argument 'options' has incorrect type (expected tuple)")
        self._code = code
        self._names = tuple(name_expressions)
        self._cooperative = enable_cooperative_groups

    def get_function(self, name: str) -> RawKernel:
        if name not in self._names:
            raise CUDADriverError("CUDA_ERROR_NOT_FOUND: named symbol not found")
        if fake.compile_error is not None:
            raise fake.compile_error
        code = self._code
        for old, new in fake.mutations:
            assert code.count(old) <= 1, f"more than once in the source: {old}"
            code = code.replace(old, new)
        try:
            kernel = emulated.Kernel(code, name, fake.sanitizer, alone=bool(fake.mutations))
        except emulated.CompileError as error:
            raise CompileException(str(error)) from None
        return RawKernel(fake, name.partition("<")[0], kernel, self._cooperative)


class Stream:
    """A stream whose launches can be recorded instead of carried out."""

    def __init__(self, *, non_blocking: bool = False) -> None:
        assert non_blocking, "other streams wait for the one that everything else runs on"

    def __enter__(self) -> None:
        assert fake.stream is None
        fake.stream = self

    def __exit__(self, *_: object) -> None:
        fake.stream = None

    def begin_capture(self) -> None:
        assert fake.stream is self
        fake.recorded = []

    def end_capture(self) -> Graph:
        recorded, fake.recorded = fake.recorded, None
        assert recorded is not None
        return Graph(recorded)


class Graph:
    """What a stream has recorded."""

    def __init__(self, launches: list[Callable[[], None]]) -> None:
        self._launches = launches

    def launch(self) -> None:
        for launch in self._launches:
            launch()


class FakeCupy(ModuleType):
    """The module ``cupy``.

    Attributes
    ----------
    attributes : dict
        The device's.
    order, sanitizer
        How kernels are run; see `emulated`.
    mutations : list of (old, new)
        Changes of the source.
    compile_error, launch_error : Exception or None
        What compiling or launching raises.
    memory : int or None
        Arrays that `empty` still has memory for.
    stream, recorded
        The one that is current, and its launches while it is recorded.
    launches, launched : list
        Grid, block and shared memory of each; names of the kernels.
    """

    def __init__(self) -> None:
        super().__init__("cupy")
        self.RawModule = RawModule
        self.ndarray = ndarray
        self.__spec__ = importlib.machinery.ModuleSpec("cupy", None)
        self.cuda = SimpleNamespace(
            Device=lambda: SimpleNamespace(
                id=0,
                attributes=self.attributes,
                compute_capability=self.compute_capability,
                mem_info=(2**30, 2**30),
                cublas_handle=_HANDLE,
            ),
            cublas=SimpleNamespace(
                CUBLAS_OP_N=0, CUBLAS_OP_T=1, sgemm=_gemm("f"), dgemm=_gemm("d")
            ),
            runtime=SimpleNamespace(
                getDeviceCount=lambda: 1,
                getDeviceProperties=lambda _: {"name": b"Stand-in", "totalGlobalMem": 2**30},
            ),
            Stream=Stream,
            get_current_stream=lambda: SimpleNamespace(synchronize=lambda: None),
        )
        self.reset()

    def reset(self) -> None:
        self.attributes = {
            "CooperativeLaunch": 1,
            "MaxSharedMemoryPerBlockOptin": 227 << 10,
            "MultiProcessorCount": 3,
        }
        self.compute_capability = "90"
        self.order = 0
        self.sanitizer: emulated.Sanitizer | None = None
        self.mutations: list[tuple[str, str]] = []
        self.compile_error: Exception | None = None
        self.launch_error: Exception | None = None
        self.memory: int | None = None
        self.launches: list[Any] = []
        self.launched: list[str] = []
        self.stream: Stream | None = None
        self.recorded: list[Callable[[], None]] | None = None

    def __getattr__(self, name: str) -> Any:
        if name in _ABSENT or name.startswith("__"):
            raise AttributeError(f"module 'cupy' has no attribute {name!r}")
        found = getattr(np, name)
        return _on_device(found) if callable(found) and not isinstance(found, type) else found

    def asarray(self, x: Any, dtype: Any = None, **options: Any) -> ndarray:
        """Upload, or return what is here."""
        options.pop("device", None)
        return ndarray(
            np.array(x.host if isinstance(x, ndarray) else x, dtype, **{"copy": None} | options)
        )

    def empty(self, shape: Any, dtype: Any = float, **_: Any) -> ndarray:
        """Return an array of what may be anything: NaN, or −1."""
        if self.memory is not None:
            self.memory -= 1
            if self.memory < 0:
                raise OutOfMemoryError("Out of memory allocating 1,024 bytes.")
        host = np.empty(shape, dtype)
        host.view(np.uint8)[...] = 0xFF
        return ndarray(host)

    def get_default_memory_pool(self) -> Any:
        return SimpleNamespace(
            free_bytes=lambda: 0, get_limit=lambda: 0, free_all_blocks=lambda: None
        )


fake = FakeCupy()

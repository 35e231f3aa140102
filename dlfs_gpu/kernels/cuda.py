"""The CUDA kernels: which networks they take, compiling and launching them.

The mathematics is in the sources beside this file. NVRTC compiles a kernel for the device at hand
when it is first needed; CuPy keeps the binary on disk. Networks end in softmax cross entropy. Those
of the classes here have one hidden layer, whose sizes are constants of the kernel. Parameters and
data are CuPy arrays of one floating-point type. What the kernels do not take raises `UnfitError`.
"""

from __future__ import annotations

import functools
import importlib
import importlib.resources
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from array_api_compat import is_cupy_array

from dlfs_gpu._validation import Array
from dlfs_gpu.kernels.proof import UnfitError

ACTIVATIONS = ("sigmoid", "tanh", "relu")

# The instructions of the grid's barrier came with Volta.
_MIN_CAPABILITY = 70
_LANES = 32
# A warp's lanes hold one class each, and the registers of `differences` all of them.
_MAX_CLASSES = _LANES
# Threads, warps and rows of a tile, as in training.cu; registers and shared memory suffice up to
# these sizes.
_SGD_THREADS = 512
_SGD_WARPS = 16
_SGD_ROWS, _SGD_LAST_ROWS = 8, 2
_SGD_MAX_INPUTS, _SGD_MAX_HIDDEN, _SGD_MAX_SAMPLES = 4096, 128, 512
# Multiplications in the first layer up to which one launch of some blocks is the fastest.
_SGD_MAX_PRODUCTS = 60_000_000
# The same in differences.cu.
_FORWARD_THREADS = 256
_FORWARD_MAX_HIDDEN = 512
_DIFFERENCES_WARPS = 4
CTYPES = {"float32": "float", "float64": "double"}
# A pointer that the kernel does not follow.
NULL = np.uintp(0)

Params = tuple[Array, Array, Array, Array]
"""W1, (I, J), b1, (J,), W2, (J, C), and b2, (C,)."""


def device_name() -> str:
    """Return the name of the current device, as `dlfs_gpu.kernels.report` shows it."""
    return f"cuda:{current_device().id}"


def source(file: str) -> str:
    """Return the text of a CUDA source beside this file, behind what all of them share."""
    folder = importlib.resources.files("dlfs_gpu.kernels")
    return "".join((folder / name).read_text(encoding="utf-8") for name in ("common.cu", file))


class Training:
    """Many updates by SGD in one launch (training.cu).

    Parameters
    ----------
    activation : {"sigmoid", "tanh", "relu"}
    params : Params
    x : array, shape (M, I)
    labels : array of int64, shape (M,)
        The data set, already checked.
    mini_batch_size : int

    Attributes
    ----------
    key : tuple
        What it was compiled for.

    Raises
    ------
    UnfitError
        If it does not take these sizes, arrays, or this device.
    """

    def __init__(
        self, activation: str, params: Params, x: Array, labels: Array, mini_batch_size: int
    ) -> None:
        inputs, hidden, classes = _check(params, x, labels)
        check_at_most(_SGD_MAX_INPUTS, inputs, "inputs")
        check_at_most(_SGD_MAX_HIDDEN, hidden, "hidden units")
        check_at_most(_SGD_MAX_SAMPLES, mini_batch_size, "samples in a mini-batch")
        products = mini_batch_size * inputs * hidden
        check_at_most(_SGD_MAX_PRODUCTS, products, "multiplications")
        device = current_device()
        if not device.attributes["CooperativeLaunch"]:
            raise UnfitError("the device has no cooperative launch")
        self.key = ("sgd", *_template(activation, params), mini_batch_size)
        self._params, self._x, self._labels = params, x, labels
        self._kernel = load("training.cu", self.key, device.id, cooperative=True)
        dtype, empty = x.dtype, cupy().empty
        # What training.cu lays out in `memory`.
        lanes = _LANES * math.ceil(hidden / _LANES)
        parts = max(_SGD_THREADS // lanes * _SGD_ROWS, _SGD_WARPS)
        listed = _SGD_THREADS * math.ceil(inputs / _SGD_THREADS)
        numbers = mini_batch_size * _SGD_ROWS + parts * hidden + listed
        self._shared = numbers * dtype.itemsize + listed * np.dtype(np.int16).itemsize
        has = device.attributes["MaxSharedMemoryPerBlockOptin"]
        needed = self._shared + self._kernel.shared_size_bytes
        if needed > has:
            raise UnfitError(f"a block needs {needed} bytes of shared memory; the device has {has}")
        self._kernel.max_dynamic_shared_size_bytes = self._shared
        tiles = math.ceil((inputs + 1) / _SGD_ROWS) + math.ceil((hidden + 1) / _SGD_LAST_ROWS)
        # Every block must be on the device at once; each processor takes one for certain.
        self._blocks = min(max(tiles, mini_batch_size), device.attributes["MultiProcessorCount"])
        widths = (hidden, hidden, classes, 1)
        self._workspace = [empty((mini_batch_size, width), dtype) for width in widths]

    def run(self, indices: Array, lr: float) -> Array:
        """Do one update in place for each row of `indices`, (U, B); return the losses before, (U,).

        All that can fail for want of memory or because of the arguments does so before the launch.
        """
        dtype = self._x.dtype
        indices = cupy().ascontiguousarray(indices, np.int64)
        losses = cupy().empty(len(indices), dtype)
        arrived = cupy().zeros(1, np.uint32)
        arguments = (
            *(self._x, self._labels, indices, *self._params, *self._workspace, losses, arrived),
            *(dtype.type(lr), np.int32(len(indices))),
        )
        self._kernel((self._blocks,), (_SGD_THREADS,), arguments, shared_mem=self._shared)
        return losses


class Differences:
    """The gradient by central differences, in three launches (differences.cu).

    Parameters
    ----------
    activation, params
        As for `Training`, whose attribute and errors it has.
    x : array, shape (N, I)
    labels : array of int64, shape (N,)
        The batch, already checked.

    Attributes
    ----------
    nbytes : int
        Bytes of the arrays that it has made for the gradient and on the way to it.
    """

    def __init__(self, activation: str, params: Params, x: Array, labels: Array) -> None:
        inputs, hidden, classes = _check(params, x, labels)
        check_at_most(_FORWARD_MAX_HIDDEN, hidden, "hidden units")
        self.key = ("forward", *_template(activation, params))
        ctype, name = self.key[1:3]
        device = current_device().id
        self._forward = load("differences.cu", self.key, device)
        self._differences = [
            load("differences.cu", ("differences", ctype, kind, classes), device)
            for kind in (name, "LAST")
        ]
        self._params, self._x, self._labels = params, x, labels
        n, dtype, empty = len(x), x.dtype, cupy().empty
        widths = (hidden, hidden, hidden, classes, classes)
        self._saved = [empty((n, width), dtype) for width in widths]
        self._saved += [empty(n, np.int32), empty(n, np.float64)]
        shapes = ((inputs + 1, hidden), (hidden + 1, classes))
        self._grads = [empty(shape, dtype) for shape in shapes]
        self.nbytes: int = sum(array.nbytes for array in (*self._saved, *self._grads))

    def gradient(self, h: float) -> tuple[Array, list[dict[str, Array]]]:
        """Return the loss, (), and dW and db of both layers, for the step h in the arrays' type."""
        n, dtype = len(self._x), self._x.dtype
        z, q, out, y, log_y, likeliest, losses = self._saved
        step = dtype.type(h)
        scale = np.float64(1 / (2 * float(step) * n))
        self._forward(
            (n,), (_FORWARD_THREADS,), (self._x, self._labels, *self._params, *self._saved)
        )
        for kernel, before, grad in zip(
            self._differences,
            ((self._x, z, q, self._params[2]), (out, NULL, NULL, NULL)),
            self._grads,
            strict=True,
        ):
            rows, columns = grad.shape
            loss = (y, log_y, self._labels, likeliest)
            kernel(
                (rows, math.ceil(columns / _LANES)),
                (_LANES, min(_DIFFERENCES_WARPS, math.ceil(n / _LANES))),
                (*before, *loss, grad, step, scale, *map(np.int32, (n, rows - 1, columns))),
            )
        grads = [{"W": grad[:-1], "b": grad[-1]} for grad in self._grads]
        return losses.mean().astype(dtype), grads


def _check(params: Params, x: Array, labels: Array) -> tuple[int, int, int]:
    """Return the network's sizes, or raise UnfitError, also if data does not suit it."""
    check_arrays(params, x, labels)
    (inputs, hidden), classes = params[0].shape, params[2].shape[1]
    check_at_most(_MAX_CLASSES, classes, "classes")
    capability = current_device().compute_capability
    if int(capability) < _MIN_CAPABILITY:
        raise UnfitError(f"compute capability is {capability}; the kernels need {_MIN_CAPABILITY}")
    return inputs, hidden, classes


def check_arrays(arrays: Sequence[Array], x: Array, labels: Array | None = None) -> np.dtype[Any]:
    """Return the type of all but labels, or raise UnfitError."""
    dtype: np.dtype[Any] = arrays[0].dtype
    if dtype.name not in CTYPES:
        raise UnfitError(f"the network is in {dtype}; the kernels take float32 and float64")
    for array in arrays:
        _check_array("a parameter", array, dtype)
    _check_array("x", x, dtype)
    if labels is not None:
        _check_array("labels", labels, np.int64)
    return dtype


def _check_array(name: str, array: Array, dtype: Any) -> None:
    if not is_cupy_array(array):
        raise UnfitError(f"{name} is no CuPy array")
    if array.dtype != dtype:
        raise UnfitError(f"{name} is in {array.dtype}, not in {np.dtype(dtype)}")
    if not array.flags.c_contiguous:
        raise UnfitError(f"{name} is not contiguous")


def check_at_most(limit: int, count: int, things: str) -> None:
    """Raise UnfitError if there are more things than the limit."""
    if count > limit:
        raise UnfitError(f"there are {count} {things}; the kernel takes up to {limit}")


def _template(activation: str, params: Params) -> tuple[Any, ...]:
    W1, _, W2, _ = params
    return (CTYPES[W1.dtype.name], activation.upper(), *W1.shape, W2.shape[1])


@functools.cache
def load(file: str, key: tuple[Any, ...], device: int, *, cooperative: bool = False) -> Any:
    """Return a kernel, given by its name and template arguments, compiled for the device."""
    name, *template = key
    expression = f"{name}<{', '.join(map(str, template))}>"
    module = cupy().RawModule(
        code=source(file),
        options=("-std=c++17",),
        name_expressions=(expression,),
        enable_cooperative_groups=cooperative,
    )
    try:
        return module.get_function(expression)
    except OSError as error:
        raise OSError(f"CuPy keeps kernels in CUPY_CACHE_DIR; it says: {error}") from error


def current_device() -> Any:
    """Return CuPy's object for the device that it uses."""
    return cupy().cuda.Device()


def cupy() -> Any:
    """Import CuPy."""
    return importlib.import_module("cupy")

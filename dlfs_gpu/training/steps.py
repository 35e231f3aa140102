"""What the library's optimizers do, in one launch of a CUDA kernel."""

from __future__ import annotations

import math
import operator
from collections.abc import MutableMapping, Sequence
from typing import Any

import numpy as np

from dlfs_gpu._validation import Array
from dlfs_gpu.kernels import cuda
from dlfs_gpu.kernels.proof import UnfitError
from dlfs_gpu.optimizers import EPSILON, AdaGrad, Adam, Momentum, Nesterov, RMSprop

_THREADS, _MOST_BLOCKS = 256, 2048
# What each keeps for each parameter.
_KEPT: dict[type, tuple[str, ...]] = {
    Momentum: ("v",),
    Nesterov: ("v",),
    AdaGrad: ("h",),
    RMSprop: ("h",),
    Adam: ("m", "v"),
}


def has_kernel(optimizer: Any) -> bool:
    """Say whether an optimizer is one of the library's, as it was made."""
    return type(optimizer) in _KEPT and not {"update", "_step", "_zeros"} & vars(optimizer).keys()


class Step:
    """What an optimizer does to parameters.

    Parameters
    ----------
    optimizer
    params : mapping of str to array
    grads : sequence of array
        Where the gradient by each will be; like `params` contiguous CuPy arrays, of one type.

    Attributes
    ----------
    key : tuple
        What the kernel was compiled for.

    Raises
    ------
    UnfitError
        If the optimizer has no kernel, or keeps what belongs to other parameters.
    """

    def __init__(
        self, optimizer: Any, params: MutableMapping[str, Array], grads: Sequence[Array]
    ) -> None:
        if not has_kernel(optimizer):
            raise UnfitError("the optimizer has no kernel")
        self._optimizer, self._params, self._grads = optimizer, params, grads
        self._kept = self._now_kept()
        sizes = [grad.size for grad in grads]
        for arrays in self._kept:
            if [array.size for array in arrays] != sizes:
                raise UnfitError("the optimizer keeps what belongs to other parameters")
            cuda.check_arrays(arrays, grads[0])
        name = type(optimizer).__name__.upper()
        self.key = ("step", cuda.CTYPES[grads[0].dtype.name], name)
        self._kernel = cuda.load("optimizers.cu", self.key, cuda.current_device().id)
        self._grid = (min(math.ceil(sum(sizes) / _THREADS), _MOST_BLOCKS),)
        upload = cuda.cupy().asarray
        pointers = [
            upload(np.array([array.data.ptr for array in arrays], np.uintp))
            for arrays in (params.values(), grads, *self._kept)
        ]
        self._pointers = (*pointers, cuda.NULL)[:4]
        self._ends = upload(np.cumsum(sizes))

    def suits(self, optimizer: Any, grads: Sequence[Array]) -> bool:
        """Say whether it is still what this optimizer does with a gradient that lies there."""
        return (
            optimizer is self._optimizer
            and grads is self._grads
            and all(
                all(map(operator.is_, now, kept))
                for now, kept in zip(self._now_kept(), self._kept, strict=True)
            )
        )

    def _now_kept(self) -> list[list[Array]]:
        optimizer, names = self._optimizer, _KEPT[type(self._optimizer)]
        return [list(optimizer._zeros(name, self._params).values()) for name in names]

    def __call__(self) -> None:
        """Change the parameters."""
        optimizer, number = self._optimizer, self._grads[0].dtype.type
        a = b = 0.0
        rate = optimizer.lr
        if isinstance(optimizer, Momentum):
            a = optimizer.momentum
        elif isinstance(optimizer, RMSprop):
            a, b = optimizer.decay_rate, 1 - optimizer.decay_rate
        elif isinstance(optimizer, Adam):
            a, b = 1 - optimizer.beta1, 1 - optimizer.beta2
            rate = optimizer._next_rate()
        numbers = map(number, (rate, a, b, EPSILON))
        arguments = (*self._pointers, self._ends, *numbers, np.int32(len(self._grads)))
        self._kernel(self._grid, (_THREADS,), arguments)

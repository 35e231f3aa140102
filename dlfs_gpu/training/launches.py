"""Updates by CUDA kernels, compared with array operations when first used."""

from __future__ import annotations

import copy
import functools
import operator
from collections.abc import Callable, Iterable, MutableMapping, Sequence
from typing import Any, TypeVar

import numpy as np

from dlfs_gpu._validation import Array
from dlfs_gpu.backend import to_numpy
from dlfs_gpu.kernels import cuda
from dlfs_gpu.kernels.host import loop_of
from dlfs_gpu.kernels.layers import Layers
from dlfs_gpu.kernels.products import Products
from dlfs_gpu.kernels.proof import UnfitError, attempt, check_near, prove
from dlfs_gpu.network import Network
from dlfs_gpu.optimizers import is_plain_sgd
from dlfs_gpu.training.fused import FusedGradient
from dlfs_gpu.training.steps import Step, has_kernel

# Updates that are compared, and by which share of itself each parameter's change may differ.
_PROOF_UPDATES, _PROOF_LR = 3, 0.1
_TOLERANCE = {"float32": 1e-3, "float64": 1e-9}

_Result = TypeVar("_Result")


class Launcher:
    """Kernels for the updates of a network, made and compared when they are first asked for.

    Parameters
    ----------
    network : Network
        One that is `dlfs_gpu.training.fused.replaceable`, on CuPy arrays.
    x : array, shape (M, I)
    labels : array of int64, shape (M,)
        Data set, checked.
    mini_batch_size : int
    """

    def __init__(self, network: Network, x: Array, labels: Array, mini_batch_size: int) -> None:
        self._network = network
        self._layers, self._params = list(network.layers), list(network.params.values())
        self._data = (x, labels, mini_batch_size)
        self._made: dict[str, Any] = {}
        self._step: Step | None = None

    def suits(self, network: Network) -> bool:
        """Say whether these are still a network's layers and parameters."""
        params = network.params.values()
        return self._layers == network.layers and all(map(operator.is_, self._params, params))

    def update(self, indices: Array, optimizer: Any) -> Array | None:
        """Do updates.

        Parameters
        ----------
        indices : array of int64, shape (U, mini_batch_size)
            Rows of the data set, for each update.
        optimizer
            What does them.

        Returns
        -------
        array, shape (K,), or None
            The mean losses before the first K updates, which have been done. None where this
            cannot do them: then nothing has been changed.
        """
        if is_plain_sgd(optimizer):
            kinds = ("training", "products", "layers")
            return self._first(kinds, lambda kernels: kernels.run(indices, optimizer.lr))
        if not has_kernel(optimizer):
            return None

        def action(kernels: Layers) -> Array:
            return kernels.run_with(self._step_of(optimizer, kernels.grads), indices)

        return self._first(("products", "layers"), action)

    def _step_of(self, optimizer: Any, grads: Sequence[Array]) -> Step:
        """Return what an optimizer does, compared with array operations if it is new."""
        params = self._network.params

        def proven() -> Step:
            step = Step(optimizer, params, grads)
            compare = functools.partial(_compare_steps, optimizer, params)
            prove("step", cuda.device_name(), step.key, compare)
            return step

        if self._step is None or not self._step.suits(optimizer, grads):
            self._step, problem = attempt("step", cuda.device_name(), proven)
            if self._step is None:
                raise UnfitError(problem)
        return self._step

    def gradient(self, indices: Array) -> tuple[Array, dict[str, Array]] | None:
        """Return the loss of a minibatch, (), and its gradient by each parameter, or None."""

        def action(kernels: Layers) -> tuple[Array, dict[str, Array]]:
            loss = kernels.gradient(indices)
            return loss, dict(zip(self._network.params, kernels.grads, strict=True))

        return self._first(("products", "layers"), action)

    def _first(self, kinds: Iterable[str], action: Callable[[Any], _Result]) -> _Result | None:
        """Return what `action` makes of the first kernels that take the network."""
        for kind in kinds:
            do = functools.partial(self._do, kind, action)
            result = attempt(kind, cuda.device_name(), do)[0]
            if result is not None:
                return result
        return None

    def _do(self, kind: str, action: Callable[[Any], _Result]) -> _Result:
        """Return what `action` makes of kernels, which are compared first if they are new."""
        if kind not in self._made:
            self._made[kind] = None
            kernels = _make(kind, self._network, *self._data)
            compare = functools.partial(_compare, kind, self._network, *self._data)
            prove(kind, cuda.device_name(), kernels.key, compare)
            self._made[kind] = kernels
        if self._made[kind] is None:
            raise UnfitError("it did not take the network before")
        return action(self._made[kind])


def _make(kind: str, network: Network, x: Array, labels: Array, mini_batch_size: int) -> Any:
    activations: Any = [loop_of(layer.forward) for layer in network.layers[1::2]]
    params: Any = tuple(network.params.values())
    data = (x, labels, mini_batch_size)
    if kind != "training":
        return (Products if kind == "products" else Layers)(activations, params, *data)
    if len(activations) != 1:
        raise UnfitError(f"the network has {len(activations)} hidden layers; the kernel takes one")
    return cuda.Training(activations[0], params, *data)


def _compare(kind: str, network: Network, x: Array, labels: Array, mini_batch_size: int) -> None:
    """Raise an error that says what differs between kernels and array operations."""
    data = (x, labels, mini_batch_size)
    numbers = cuda.cupy().arange(_PROOF_UPDATES * mini_batch_size) % len(x)
    rows = numbers.reshape(_PROOF_UPDATES, mini_batch_size)
    moved, desired = copy.deepcopy(network), copy.deepcopy(network)
    kernels, fused = _make(kind, moved, *data), FusedGradient(desired, *data)
    name = network.dtype.name
    tolerance, eps = _TOLERANCE[name], float(np.finfo(name).eps)
    if isinstance(kernels, Layers):
        kernels.gradient(rows[0])
        fused(rows[0])
        for grad, (key, expected) in zip(kernels.grads, fused.grads.items(), strict=True):
            check_near(f"the gradient by {key}", grad, expected, tolerance, eps)
    losses, expected_losses = kernels.run(rows, _PROOF_LR), []
    for k in range(len(losses)):
        expected_losses.append(fused(rows[k], -_PROOF_LR))
        for key, param in desired.params.items():
            param += fused.grads[key]
    for key, start in network.params.items():
        rounding = 2 * len(losses) * eps * float(np.linalg.norm(to_numpy(start)))
        change, expected = (each.params[key] - start for each in (moved, desired))
        check_near(f"the change of {key}", change, expected, tolerance, rounding)
    # Of losses that are nearly 0, no digit need be right.
    check_near("the loss", losses, cuda.cupy().stack(expected_losses), tolerance, tolerance)


def _compare_steps(optimizer: Any, params: MutableMapping[str, Array]) -> None:
    """Raise an error that says what differs between two steps by a kernel and by arrays."""
    cupy = cuda.cupy()
    sides = []
    for by_kernel in (True, False):
        one = copy.deepcopy(optimizer)
        moved = {key: param.copy() for key, param in params.items()}
        grads = {key: cupy.empty_like(param) for key, param in params.items()}
        step = Step(one, moved, list(grads.values())) if by_kernel else None
        for factor in (1, -0.5):
            for grad in grads.values():
                grad[...] = cupy.sin(cupy.arange(grad.size)).reshape(grad.shape) * factor
            if step is None:
                one.update(moved, grads)
            else:
                step()
        sides.append(moved)
    eps = float(np.finfo(next(iter(params.values())).dtype).eps)
    for key, param in params.items():
        change, expected = (moved[key] - param for moved in sides)
        rounding = 4 * eps * float(np.linalg.norm(to_numpy(param)))
        check_near(f"the step of {key}", change, expected, 1e3 * eps, rounding)

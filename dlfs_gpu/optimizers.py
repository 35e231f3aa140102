"""Optimizers: ``update(params, grads)`` changes parameters (section 6.1 of the book).

``params`` and ``grads`` map the same names to arrays, which are changed in place, or to plain
numbers, which are replaced. Names and defaults are the book's but for `SGD`'s learning rate. Where
PyTorch defines an optimizer differently, its class says how.

All that an optimizer keeps lies in its attributes: ``copy.deepcopy(vars(optimizer))`` is its state,
and ``vars(optimizer).update(state)`` restores it.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, MutableMapping
from typing import Any, Protocol, runtime_checkable

from dlfs_gpu._validation import (
    ArgumentError,
    Array,
    check_choice,
    check_fraction,
    check_positive,
    namespace_of,
)

EPSILON = 1e-7
"""What AdaGrad, RMSprop and Adam add to the root they divide by."""


@runtime_checkable
class Optimizer(Protocol):
    """What a trainer asks of an optimizer."""

    def update(self, params: MutableMapping[str, Array], grads: Mapping[str, Array]) -> None:
        """Change the parameters, given the gradient of the loss by each."""


class _Optimizer(ABC):
    """Base of the optimizers here: a learning rate, and state that starts as zeros.

    Parameters
    ----------
    lr : float
        Learning rate.

    Raises
    ------
    ArgumentError
        If `lr` is not positive and finite, or another number is not at least 0 and less than 1.
    """

    def __init__(self, lr: float = 0.01) -> None:
        self.lr = check_positive("lr", lr)
        self._state: dict[str, dict[str, Array]] = {}

    def update(self, params: MutableMapping[str, Array], grads: Mapping[str, Array]) -> None:
        """Change each array of `params` in place; replace each number.

        Raises
        ------
        ArgumentError
            If `grads` has other keys or shapes, or `params` has others than at the first update.
        """
        needed = _shapes(params)
        if (found := _shapes(grads)) != needed:
            raise ArgumentError("grads", f"has the shapes {found}; they must be {needed}")
        for kept in map(_shapes, self._state.values()):
            if kept != needed:
                problem = (
                    f"has the shapes {needed}, but this optimizer keeps what belongs to {kept}; "
                )
                raise ArgumentError("params", problem + "make another one")
        self._step(params, grads)

    @abstractmethod
    def _step(self, params: MutableMapping[str, Array], grads: Mapping[str, Array]) -> None:
        """Do what `update` does with arrays that fit."""

    def _zeros(self, name: str, params: Mapping[str, Array]) -> dict[str, Array]:
        """Return the state called `name`, one array or number for each parameter."""
        if name not in self._state:
            self._state[name] = {
                key: 0.0
                if isinstance(param, int | float)
                else namespace_of(param).zeros_like(param)
                for key, param in params.items()
            }
        return self._state[name]


class SGD(_Optimizer):
    """Stochastic gradient descent: W ← W − lr·g (6.1.2).

    `lr` is 0.1 by default, the learning rate of chapter 4; the book's class has 0.01.
    """

    def __init__(self, lr: float = 0.1) -> None:
        super().__init__(lr)

    def _step(self, params: MutableMapping[str, Array], grads: Mapping[str, Array]) -> None:
        for key in params:
            params[key] -= self.lr * grads[key]


class Momentum(_Optimizer):
    """SGD with momentum: v ← momentum·v − lr·g, W ← W + v (6.1.4).

    PyTorch keeps v without the factor lr; the same while lr does not change.
    """

    def __init__(self, lr: float = 0.01, momentum: float = 0.9) -> None:
        super().__init__(lr)
        self.momentum = check_fraction("momentum", momentum)

    def _step(self, params: MutableMapping[str, Array], grads: Mapping[str, Array]) -> None:
        v = self._zeros("v", params)
        for key in params:
            v[key] *= self.momentum
            v[key] -= self.lr * grads[key]
            params[key] += v[key]


class Nesterov(Momentum):
    """Nesterov's accelerated gradient: v as in `Momentum`, W ← W + momentum·v − lr·g.

    Y. Bengio et al., "Advances in optimizing recurrent networks" (2012), arXiv:1212.0901.
    """

    def _step(self, params: MutableMapping[str, Array], grads: Mapping[str, Array]) -> None:
        v = self._zeros("v", params)
        for key in params:
            step = self.lr * grads[key]
            v[key] *= self.momentum
            v[key] -= step
            params[key] += self.momentum * v[key] - step


class AdaGrad(_Optimizer):
    """W ← W − lr·g / (√h + 1e-7), where h sums g² (6.1.5).

    PyTorch's eps is 1e-10 by default.
    """

    def _step(self, params: MutableMapping[str, Array], grads: Mapping[str, Array]) -> None:
        h = self._zeros("h", params)
        for key, grad in grads.items():
            h[key] += grad * grad
            params[key] -= self.lr * grad / (_sqrt(h[key]) + EPSILON)


class RMSprop(_Optimizer):
    """W ← W − lr·g / (√h + 1e-7), where h is a running mean of g² (6.1.5).

    PyTorch's eps is 1e-8 by default.
    """

    def __init__(self, lr: float = 0.01, decay_rate: float = 0.99) -> None:
        super().__init__(lr)
        self.decay_rate = check_fraction("decay_rate", decay_rate)

    def _step(self, params: MutableMapping[str, Array], grads: Mapping[str, Array]) -> None:
        h = self._zeros("h", params)
        for key, grad in grads.items():
            h[key] *= self.decay_rate
            h[key] += (1 - self.decay_rate) * (grad * grad)
            params[key] -= self.lr * grad / (_sqrt(h[key]) + EPSILON)


class Adam(_Optimizer):
    """Running means of g and g², corrected for their start (6.1.6).

    D. P. Kingma and J. Ba, "Adam" (2015), arXiv:1412.6980, in the form at the end of its
    section 2, as in the book: eps is added to √v before the correction, where PyTorch adds it
    after, so PyTorch's eps is this one divided by √(1 − beta2ᵗ).
    """

    def __init__(self, lr: float = 0.001, beta1: float = 0.9, beta2: float = 0.999) -> None:
        super().__init__(lr)
        self.beta1 = check_fraction("beta1", beta1)
        self.beta2 = check_fraction("beta2", beta2)
        self.iter = 0

    def _step(self, params: MutableMapping[str, Array], grads: Mapping[str, Array]) -> None:
        m, v = self._zeros("m", params), self._zeros("v", params)
        lr = self._next_rate()
        for key, grad in grads.items():
            m[key] += (1 - self.beta1) * (grad - m[key])
            v[key] += (1 - self.beta2) * (grad * grad - v[key])
            params[key] -= lr * m[key] / (_sqrt(v[key]) + EPSILON)

    def _next_rate(self) -> float:
        """Count a step, and return its learning rate, corrected for the start."""
        self.iter += 1
        return self.lr * math.sqrt(1 - self.beta2**self.iter) / (1 - self.beta1**self.iter)


OPTIMIZERS: dict[str, type[_Optimizer]] = {
    cls.__name__.lower(): cls for cls in (SGD, Momentum, Nesterov, AdaGrad, RMSprop, Adam)
}


def make_optimizer(optimizer: str | Optimizer, **params: Any) -> Optimizer:
    """Return the optimizer that is meant by a name or an object.

    Parameters
    ----------
    optimizer : str or object
        One of `OPTIMIZERS`, in upper or lower case, to be made with `params`; or any object with
        ``update(params, grads)``, which is returned as it is.
    **params
        Arguments of an optimizer given by name, such as ``lr=0.01``.

    Raises
    ------
    ArgumentError
        If there is none of that name, or `params` are given beside an object.
    """
    if isinstance(optimizer, Optimizer) and not isinstance(optimizer, type):
        if params:
            raise ArgumentError(
                "optimizer_param", f"is {params}; only an optimizer given by name takes any"
            )
        return optimizer
    return OPTIMIZERS[check_choice("optimizer", optimizer, OPTIMIZERS)](**params)


def is_plain_sgd(optimizer: Any) -> bool:
    """Say whether an optimizer does nothing but add the gradient times −lr."""
    return type(optimizer) is SGD and "update" not in vars(optimizer)


def _shapes(arrays: Mapping[str, Array]) -> dict[str, tuple[int, ...]]:
    return {key: tuple(getattr(x, "shape", ())) for key, x in arrays.items()}


def _sqrt(x: Array) -> Array:
    return math.sqrt(x) if isinstance(x, float) else namespace_of(x).sqrt(x)

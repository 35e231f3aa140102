"""Optimizers: ``update(params, grads)`` changes parameters in place (section 6.1 of the book).

``params`` and ``grads`` are dictionaries of arrays with the same keys. Names and defaults are the
book's. Where PyTorch defines an optimizer differently, its class says how.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import MutableMapping
from typing import Any

from dlfs_gpu._validation import Array, namespace_of

Arrays = MutableMapping[str, Array]

EPSILON = 1e-7
"""What AdaGrad, RMSprop and Adam add to the root they divide by."""


class Optimizer(ABC):
    """Base of all: a learning rate, and arrays of state that start as zeros.

    Parameters
    ----------
    lr : float
        Learning rate.

    Raises
    ------
    ValueError
        If `lr` is not positive and finite.
    """

    def __init__(self, lr: float = 0.01) -> None:
        if not (math.isfinite(lr) and lr > 0):
            raise ValueError(f"lr is {lr}; it must be positive and finite")
        self.lr = lr
        self._state: dict[str, Arrays] = {}

    def update(self, params: Arrays, grads: Arrays) -> None:
        """Change each array of `params` in place.

        Raises
        ------
        ValueError
            If `grads` has other keys, or an array of another shape.
        """
        if params.keys() != grads.keys():
            raise ValueError(
                f"grads has the keys {sorted(grads)}; it must have those of params, "
                f"{sorted(params)}"
            )
        for key, param in params.items():
            if getattr(grads[key], "shape", None) != param.shape:
                raise ValueError(
                    f"grads[{key!r}] has shape {getattr(grads[key], 'shape', ())}; it must have "
                    f"the parameter's, {param.shape}"
                )
        self._step(params, grads)

    @abstractmethod
    def _step(self, params: Arrays, grads: Arrays) -> None:
        """Do what `update` does with arrays that fit."""

    def _zeros(self, name: str, params: Arrays) -> Arrays:
        """Return the state called `name`, one array for each parameter."""
        if name not in self._state:
            self._state[name] = {k: namespace_of(p).zeros_like(p) for k, p in params.items()}
        return self._state[name]


class SGD(Optimizer):
    """Stochastic gradient descent: W ← W − lr·g (6.1.2)."""

    def _step(self, params: Arrays, grads: Arrays) -> None:
        for key in params:
            params[key] -= self.lr * grads[key]


class Momentum(Optimizer):
    """SGD with momentum: v ← momentum·v − lr·g, W ← W + v (6.1.4).

    PyTorch keeps v without the factor lr; the same while lr does not change.
    """

    def __init__(self, lr: float = 0.01, momentum: float = 0.9) -> None:
        super().__init__(lr)
        self.momentum = _fraction("momentum", momentum)

    def _step(self, params: Arrays, grads: Arrays) -> None:
        v = self._zeros("v", params)
        for key in params:
            v[key] *= self.momentum
            v[key] -= self.lr * grads[key]
            params[key] += v[key]


class Nesterov(Momentum):
    """Nesterov's accelerated gradient: v as in `Momentum`, W ← W + momentum·v − lr·g.

    Y. Bengio et al., "Advances in optimizing recurrent networks" (2012), arXiv:1212.0901.
    """

    def _step(self, params: Arrays, grads: Arrays) -> None:
        v = self._zeros("v", params)
        for key in params:
            step = self.lr * grads[key]
            v[key] *= self.momentum
            v[key] -= step
            params[key] += self.momentum * v[key] - step


class AdaGrad(Optimizer):
    """W ← W − lr·g / (√h + 1e-7), where h sums g² (6.1.5).

    PyTorch's eps is 1e-10 by default.
    """

    def _step(self, params: Arrays, grads: Arrays) -> None:
        h = self._zeros("h", params)
        for key, grad in grads.items():
            h[key] += grad * grad
            params[key] -= self.lr * grad / (_sqrt(h[key]) + EPSILON)


class RMSprop(Optimizer):
    """W ← W − lr·g / (√h + 1e-7), where h is a running mean of g² (6.1.5).

    PyTorch's eps is 1e-8 by default.
    """

    def __init__(self, lr: float = 0.01, decay_rate: float = 0.99) -> None:
        super().__init__(lr)
        self.decay_rate = _fraction("decay_rate", decay_rate)

    def _step(self, params: Arrays, grads: Arrays) -> None:
        h = self._zeros("h", params)
        for key, grad in grads.items():
            h[key] *= self.decay_rate
            h[key] += (1 - self.decay_rate) * (grad * grad)
            params[key] -= self.lr * grad / (_sqrt(h[key]) + EPSILON)


class Adam(Optimizer):
    """Running means of g and g², corrected for their start (6.1.6).

    D. P. Kingma and J. Ba, "Adam" (2015), arXiv:1412.6980, in the form at the end of its
    section 2, as in the book: eps is added to √v before the correction, where PyTorch adds it
    after, so PyTorch's eps is this one divided by √(1 − beta2ᵗ).
    """

    def __init__(self, lr: float = 0.001, beta1: float = 0.9, beta2: float = 0.999) -> None:
        super().__init__(lr)
        self.beta1 = _fraction("beta1", beta1)
        self.beta2 = _fraction("beta2", beta2)
        self.iter = 0

    def _step(self, params: Arrays, grads: Arrays) -> None:
        m, v = self._zeros("m", params), self._zeros("v", params)
        self.iter += 1
        lr = self.lr * math.sqrt(1 - self.beta2**self.iter) / (1 - self.beta1**self.iter)
        for key, grad in grads.items():
            m[key] += (1 - self.beta1) * (grad - m[key])
            v[key] += (1 - self.beta2) * (grad * grad - v[key])
            params[key] -= lr * m[key] / (_sqrt(v[key]) + EPSILON)


OPTIMIZERS: dict[str, type[Optimizer]] = {
    cls.__name__.lower(): cls for cls in (SGD, Momentum, Nesterov, AdaGrad, RMSprop, Adam)
}


def make_optimizer(name: Any, **params: Any) -> Any:
    """Return the optimizer of that name, in upper or lower case, made with `params`.

    Raises
    ------
    ValueError
        If there is none of that name; the message lists them.
    """
    if name.lower() not in OPTIMIZERS:
        raise ValueError(f"optimizer is {name!r}; it must be one of {', '.join(OPTIMIZERS)}")
    return OPTIMIZERS[name.lower()](**params)


def _fraction(name: str, value: float) -> float:
    if not 0 <= value < 1:
        raise ValueError(f"{name} is {value}; it must be at least 0 and less than 1")
    return value


def _sqrt(x: Array) -> Array:
    return namespace_of(x).sqrt(x)

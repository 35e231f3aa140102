"""Random smooth functions of n variables with their exact gradients, to try estimates on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

Pair = tuple[Callable[[Any], Any], Callable[[Any], Any]]
"""A function of x, (..., n), computed in the type of x; and its gradient, of x in float64."""


def drawn(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Numbers that are the same in float32 and float64."""
    return rng.normal(size=shape).astype(np.float32).astype(np.float64)


def sum_of_sines(rng: np.random.Generator, n: int) -> Pair:
    a, b, c = drawn(rng, 3, n)

    def f(x: Any) -> Any:
        u, v, w = (p.astype(x.dtype) for p in (a, b, c))
        return (u * np.sin(v * x + w)).sum(-1)

    return f, lambda x: a * b * np.cos(b * x + c)


def polynomial(rng: np.random.Generator, n: int) -> Pair:
    a, b, c, d = drawn(rng, 4, n)

    def f(x: Any) -> Any:
        p, q, r, s = (k.astype(x.dtype) for k in (a, b, c, d))
        return (x * (p + x * (q + x * (r + x * s)))).sum(-1)

    return f, lambda x: a + 2 * b * x + 3 * c * x**2 + 4 * d * x**3


def quadratic_form(rng: np.random.Generator, n: int) -> Pair:
    A = drawn(rng, n, n)
    return lambda x: (x * (x @ A.astype(x.dtype))).sum(-1), lambda x: (A + A.T) @ x


def mean_of_squares(rng: np.random.Generator, n: int) -> Pair:
    A, b = drawn(rng, n, 20), drawn(rng, 20)

    def f(x: Any) -> Any:
        return ((x @ A.astype(x.dtype) - b.astype(x.dtype)) ** 2).mean(-1)

    return f, lambda x: A @ (x @ A - b) / 10


def product(rng: np.random.Generator, n: int) -> Pair:
    a = drawn(rng, n)

    def f(x: Any) -> Any:
        return np.prod(1 + (a.astype(x.dtype) * x) ** 2 / n, -1)

    return f, lambda x: np.prod(1 + (a * x) ** 2 / n) * 2 * a**2 * x / (n + (a * x) ** 2)


def exponential(rng: np.random.Generator, n: int) -> Pair:
    a = drawn(rng, n) / 2 ** (n.bit_length() // 2)

    def f(x: Any) -> Any:
        return np.exp(x @ a.astype(x.dtype))

    return f, lambda x: a * np.exp(x @ a)


def cross_entropy(rng: np.random.Generator, n: int) -> Pair:
    """Of scores of some √n, so that it may be small against them."""
    W = drawn(rng, n, 10)

    def f(x: Any) -> Any:
        z = x @ W.astype(x.dtype)
        z = z - z.max(-1, keepdims=True)
        return np.log(np.exp(z).sum(-1)) - z[..., 3]

    def gradient(x: Any) -> Any:
        z = x @ W
        p = np.exp(z - z.max())
        return W @ (p / p.sum() - np.eye(10)[3])

    return f, gradient


def tanh_network(rng: np.random.Generator, n: int) -> Pair:
    W, v = drawn(rng, n, 8) / 2 ** (n.bit_length() // 2), drawn(rng, 8)

    def f(x: Any) -> Any:
        return np.tanh(x @ W.astype(x.dtype)) @ v.astype(x.dtype)

    return f, lambda x: W @ ((1 - np.tanh(x @ W) ** 2) * v)


def few_variables_matter(rng: np.random.Generator, n: int) -> Pair:
    a = drawn(rng, n) * (rng.random(n) < 0.3)
    return lambda x: np.sin(x @ a.astype(x.dtype)), lambda x: a * np.cos(x @ a)


def cancelling_variance(rng: np.random.Generator, n: int) -> Pair:
    """A mean of squares less a squared mean, of numbers around 30: almost all of both cancels."""
    return (
        lambda x: ((x + 30) ** 2).mean(-1) - (x + 30).mean(-1) ** 2,
        lambda x: 2 * (x - x.mean()) / n,
    )


KINDS = [
    sum_of_sines,
    polynomial,
    quadratic_form,
    mean_of_squares,
    product,
    exponential,
    cross_entropy,
    tanh_network,
    few_variables_matter,
    cancelling_variance,
]

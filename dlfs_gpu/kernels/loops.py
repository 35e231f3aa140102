"""The hot loops of differences on the CPU, in Python that Numba can compile.

`dlfs_gpu.kernels.host` compiles and calls them. They are written for that: plain loops over arrays
of one floating-point type, constants in that type, inner loops without branches that become vector
instructions. Nothing assumes that numbers are finite.
"""

from __future__ import annotations

import numpy as np

SIGMOID, RELU = 0, 1
"""Activations. Of sigmoid, `first` and `second` are s(1 − s) and ½ − s, where s = σ(x); of ReLU
min(x, 0) and −max(x, 0)."""


def line(
    d: np.ndarray,
    activation: int,
    scale: float,
    terms: int,
    first: np.ndarray,
    second: np.ndarray,
    coefficients: np.ndarray,
    start: int,
    stop: int,
    total: np.ndarray,
) -> None:
    """Add Σ_n F(s) − F(r) to rows `start` to `stop` of `total`, (I, J), in float64.

    F(s) = Σ c_k·s^k is the loss along the line of output j, and s and r are what ±d[n, i] change
    the activation of that output by. With m = 2cosh d − 2, b = s(1 − s), g = ½ − s and u =
    b / (1 + b·m), sigmoid changes by u·(m·g ± sinh d): so there is one division, no exponential of
    each output's own, and nothing cancels. F(s) − F(r) is (s − r)·Σ c_k·h_(k−1), where h_k are the
    sums of all products of k factors that are s or r: h_0 = 1, h_1 = s + r and h_(k+1) =
    (s + r)·h_k − s·r·h_(k−1).

    Parameters
    ----------
    d : array, shape (N, I)
    activation : {SIGMOID, RELU}
    scale : float
        What multiplies d and the change; 2 makes tanh of sigmoid.
    terms : int
        Of the power series of sinh and cosh behind the first: they suffice for the largest d.
    first, second : array, shape (N, J)
    coefficients : array, shape (K, N, J)
        c_k for k from 1 on, at least three.
    """
    number = d.dtype.type
    one, two = number(1), number(2)
    factor = number(scale)
    samples, outputs = first.shape
    rows = stop - start
    odd, even = np.empty(rows, d.dtype), np.empty(rows, d.dtype)
    difference, both = np.empty(outputs, d.dtype), np.empty(outputs, d.dtype)
    product, series = np.empty(outputs, d.dtype), np.empty(outputs, d.dtype)
    before, last = np.empty(outputs, d.dtype), np.empty(outputs, d.dtype)
    for n in range(samples):
        moves = d[n, start:stop]
        a, b = first[n], second[n]
        c1, c2, c3 = coefficients[0, n], coefficients[1, n], coefficients[2, n]
        # (sinh d) / d and (2cosh d − 2) / d², as sums of positive terms.
        for i in range(rows):
            odd[i] = one
            even[i] = one
        for k in range(terms, 0, -1):
            of_odd = number(1 / (2 * k * (2 * k + 1)))
            of_even = number(1 / ((2 * k + 1) * (2 * k + 2)))
            for i in range(rows):
                square = factor * moves[i] * factor * moves[i]
                odd[i] = one + odd[i] * square * of_odd
                even[i] = one + even[i] * square * of_even
        for i in range(rows):
            move = moves[i]
            if move == 0:
                continue
            if activation == SIGMOID:
                move *= factor
                sinh = factor * move * odd[i]
                m = move * move * even[i]
                scaled = factor * m
                for j in range(outputs):
                    u = a[j] / (one + a[j] * m)
                    shift = scaled * b[j]
                    difference[j] = u * (two * sinh)
                    both[j] = u * (two * shift)
                    product[j] = u * u * (shift * shift - sinh * sinh)
            else:
                for j in range(outputs):
                    up, down = a[j] + move, a[j] - move
                    up = up if up > b[j] else b[j]
                    down = down if down > b[j] else b[j]
                    difference[j] = up - down
                    both[j] = up + down
                    product[j] = up * down
            for j in range(outputs):
                before[j] = both[j]
                last[j] = both[j] * both[j] - product[j]
                series[j] = c1[j] + both[j] * c2[j] + last[j] * c3[j]
            for k in range(3, len(coefficients)):
                c = coefficients[k, n]
                for j in range(outputs):
                    following = both[j] * last[j] - product[j] * before[j]
                    before[j] = last[j]
                    last[j] = following
                    series[j] += c[j] * following
            row = total[start + i]
            for j in range(outputs):
                row[j] += np.float64(difference[j] * series[j])

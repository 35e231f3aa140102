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
    moves, where = np.empty(stop - start, d.dtype), np.empty(stop - start, np.int64)
    odd, even = np.empty(stop - start, d.dtype), np.empty(stop - start, d.dtype)
    difference, series = np.empty(outputs, d.dtype), np.empty(outputs, d.dtype)
    both, product = np.empty(outputs, d.dtype), np.empty(outputs, d.dtype)
    before, last = np.empty(outputs, d.dtype), np.empty(outputs, d.dtype)
    for n in range(samples):
        a, b = first[n], second[n]
        c1, c2, c3 = coefficients[0, n], coefficients[1, n], coefficients[2, n]
        count = 0
        for i in range(start, stop):
            moves[count] = factor * d[n, i]
            where[count] = i
            count += d[n, i] != 0
        # (sinh d) / d and (2cosh d − 2) / d², as sums of positive terms.
        for p in range(count):
            odd[p] = one
            even[p] = one
        for k in range(terms, 0, -1):
            of_odd = number(1 / (2 * k * (2 * k + 1)))
            of_even = number(1 / ((2 * k + 1) * (2 * k + 2)))
            for p in range(count):
                square = moves[p] * moves[p]
                odd[p] = one + odd[p] * square * of_odd
                even[p] = one + even[p] * square * of_even
        for p in range(count):
            move = moves[p]
            if activation == SIGMOID:
                sinh = factor * move * odd[p]
                m = move * move * even[p]
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
                following = both[j] * both[j] - product[j]
                series[j] = c1[j] + both[j] * c2[j] + following * c3[j]
            if len(coefficients) > 3:
                for j in range(outputs):
                    before[j] = both[j]
                    last[j] = both[j] * both[j] - product[j]
            for k in range(3, len(coefficients)):
                c = coefficients[k, n]
                for j in range(outputs):
                    following = both[j] * last[j] - product[j] * before[j]
                    before[j] = last[j]
                    last[j] = following
                    series[j] += c[j] * following
            row = total[where[p]]
            for j in range(outputs):
                row[j] += np.float64(difference[j] * series[j])


def curve(
    values: np.ndarray,
    counts: np.ndarray,
    starts: np.ndarray,
    where: np.ndarray,
    which: np.ndarray,
    activation: int,
    scale: float,
    terms: int,
    first: np.ndarray,
    second: np.ndarray,
    scores: np.ndarray,
    kinked: np.ndarray,
    units: np.ndarray,
    negative: np.ndarray,
    floor: np.ndarray,
    weights: np.ndarray,
    effects: np.ndarray,
    y: np.ndarray,
    total_t: np.ndarray,
    exp_terms: int,
    log_terms: int,
    start: int,
    stop: int,
    total: np.ndarray,
) -> None:
    """Add Σ_n L(s) − L(r) to rows `start` to `stop` of `total`, (J, I), in float64.

    As for `line`, s and r are what ±d changes the activation of output j by. The scores move
    along a curve, Σ_m `scores`[m]·s^(m + 1), and by what the units near a kink of ReLU add. The
    loss changes by its slope times the change of the scores, and by Σt·(log Σ y·e^d − Σ y·d),
    which power series give, because all changes are small.

    Parameters
    ----------
    values : array, shape (N, U)
        Changes d of the activation's input.
    counts, starts, where, which : array of int
        How many values each sample has; and for sample n, from `starts`[n] to `starts`[n + 1],
        `where` in a row of `total` which of its values belongs. Without any, each in its place.
    activation, scale, terms, first, second
        As for `line`.
    scores : array, shape (M, J, N, C + 1)
        The coefficients for the changes of the scores, less that of the likeliest class, and last
        for the slope of the loss times these changes.
    kinked, units, negative, floor, effects : array
        Of sample n, from `kinked`[n] to `kinked`[n + 1]: the units of the next layer that may
        reach the kink, min(x, 0) and −max(x, 0) of them, and what their change does, (C + 1,).
    weights : array, shape (J, K)
        By which the next layer's units change.
    y, total_t : array, shape (N, C) and (N,)
        Probabilities, and Σt.
    exp_terms, log_terms : int
        The highest powers in the series of e^d and log(1 + u).
    """
    number = values.dtype.type
    zero, one = number(0), number(1)
    factor = number(scale)
    samples, longest = values.shape
    powers = len(scores)
    classes = scores.shape[3] - 1
    odd, even = np.empty(longest, values.dtype), np.empty(longest, values.dtype)
    ends = np.empty((2, longest), values.dtype)
    moved = np.empty((classes + 1, longest), values.dtype)
    linear, curved = np.empty(longest, values.dtype), np.empty(longest, values.dtype)
    series, change = np.empty(longest, values.dtype), np.empty(longest, values.dtype)
    for n in range(samples):
        count = counts[n]
        moves = values[n]
        for p in range(count):
            odd[p] = one
            even[p] = one
        for k in range(terms, 0, -1):
            of_odd = number(1 / (2 * k * (2 * k + 1)))
            of_even = number(1 / ((2 * k + 1) * (2 * k + 2)))
            for p in range(count):
                square = factor * moves[p] * factor * moves[p]
                odd[p] = one + odd[p] * square * of_odd
                even[p] = one + even[p] * square * of_even
        for p in range(count):
            move = factor * moves[p]
            odd[p] = factor * move * odd[p]
            even[p] = move * move * even[p]
        for j in range(start, stop):
            a, b = first[n, j], second[n, j]
            if activation == SIGMOID:
                for p in range(count):
                    u = a / (one + a * even[p])
                    shift = factor * even[p] * b
                    ends[0, p] = u * (shift + odd[p])
                    ends[1, p] = u * (shift - odd[p])
            else:
                still = True
                for p in range(count):
                    up, down = a + moves[p], a - moves[p]
                    up = up if up > b else b
                    down = down if down > b else b
                    ends[0, p] = up
                    ends[1, p] = down
                    if up != 0 or down != 0:
                        still = False
                if still:
                    continue
            for p in range(count):
                change[p] = zero
            for end in range(2):
                s = ends[end]
                for c in range(classes + 1):
                    row = moved[c]
                    coefficient = scores[powers - 1, j, n, c]
                    for p in range(count):
                        row[p] = coefficient * s[p]
                    for m in range(powers - 2, -1, -1):
                        coefficient = scores[m, j, n, c]
                        for p in range(count):
                            row[p] = (row[p] + coefficient) * s[p]
                for k in range(kinked[n], kinked[n + 1]):
                    weight = weights[j, units[k]]
                    low, least = negative[k], floor[k]
                    for p in range(count):
                        x = weight * s[p] + low
                        series[p] = x if x > least else least
                    for c in range(classes + 1):
                        row = moved[c]
                        effect = effects[k, c]
                        for p in range(count):
                            row[p] += effect * series[p]
                for p in range(count):
                    linear[p] = zero
                    curved[p] = zero
                for c in range(classes):
                    row = moved[c]
                    share = y[n, c]
                    for p in range(count):
                        series[p] = zero
                    for k in range(exp_terms, 1, -1):
                        # e^d − 1 − d by Horner's scheme, as d/2·(d + d/3·(d + ...))
                        reciprocal = number(1 / k)
                        for p in range(count):
                            series[p] = (series[p] + row[p]) * row[p] * reciprocal
                    for p in range(count):
                        linear[p] += share * row[p]
                        curved[p] += share * series[p]
                for p in range(count):
                    linear[p] += curved[p]
                    series[p] = zero
                for k in range(log_terms, 1, -1):
                    # log(1 + u) − u = −u²/2 + u³/3 − ...
                    reciprocal = number((-1) ** (k + 1) / k)
                    for p in range(count):
                        series[p] = (series[p] + reciprocal) * linear[p]
                sign = one if end == 0 else -one
                row = moved[classes]
                for p in range(count):
                    logarithm = curved[p] + series[p] * linear[p]
                    change[p] += sign * (row[p] + total_t[n] * logarithm)
            sums = total[j]
            if len(where) == 0:
                for p in range(count):
                    sums[p] += np.float64(change[p])
            else:
                for k in range(starts[n], starts[n + 1]):
                    sums[where[k]] += np.float64(change[which[k]])

"""The hot loops of training on the CPU, in Python that Numba can compile: see `loops`."""

from __future__ import annotations

import math

import numpy as np


def compress(x: np.ndarray, starts: np.ndarray, columns: np.ndarray, values: np.ndarray) -> None:
    """Write the numbers of x, (M, I), that are not 0, row by row.

    Parameters
    ----------
    x : array, shape (M, I)
    starts : array of int, shape (M + 1,)
        Gets where each row begins, and where the last ends.
    columns, values : array, shape (numbers + 1,)
        Get the column of each number, and the number.
    """
    k = 0
    for n in range(len(x)):
        starts[n] = k
        for i in range(x.shape[1]):
            columns[k] = i
            values[k] = x[n, i]
            k += x[n, i] != 0
    starts[len(x)] = k


def by_columns(
    values: np.ndarray,
    columns: np.ndarray,
    firsts: np.ndarray,
    lasts: np.ndarray,
    column_firsts: np.ndarray,
    column_lasts: np.ndarray,
    rows: np.ndarray,
    sorted_values: np.ndarray,
) -> None:
    """Sort what `compress` wrote of some rows by columns, and in each by rows.

    Parameters
    ----------
    values, columns : array
        As `compress` writes them.
    firsts, lasts : array of int, shape (N,)
        Where each row begins and ends.
    column_firsts, column_lasts : array of int, shape (I,)
        Get where each column begins and ends in the following.
    rows, sorted_values : array
        Get the row of each number, counted in `firsts`, and the number.
    """
    # One number of each cache line first: the processor then waits for many lines at a time.
    total = values[0]
    for n in range(len(firsts)):
        for k in range(firsts[n], lasts[n], 16):
            total += values[k] + columns[k]
    sorted_values[0] = total
    for i in range(len(column_lasts)):
        column_lasts[i] = 0
    for n in range(len(firsts)):
        for k in range(firsts[n], lasts[n]):
            column_lasts[columns[k]] += 1
    place = 0
    for i in range(len(column_lasts)):
        count = column_lasts[i]
        column_firsts[i] = place
        column_lasts[i] = place
        place += count
    for n in range(len(firsts)):
        for k in range(firsts[n], lasts[n]):
            place = column_lasts[columns[k]]
            rows[place] = n
            sorted_values[place] = values[k]
            column_lasts[columns[k]] = place + 1


def combine(
    values: np.ndarray,
    which: np.ndarray,
    firsts: np.ndarray,
    lasts: np.ndarray,
    vectors: np.ndarray,
    out: np.ndarray,
) -> None:
    """Write Σ values[k]·vectors[which[k]] to each row of `out`.

    Parameters
    ----------
    values, which : array
        Factors, and rows of `vectors`.
    firsts, lasts : array of int, shape (R,)
        The sum's k go from the first up to, but not including, the last.
    vectors : array, shape (Q, J)
    out : array, shape (R, J)
    """
    length = vectors.shape[1]
    zero = vectors.dtype.type(0)
    for r in range(len(out)):
        total = out[r]
        for j in range(length):
            total[j] = zero
        k = firsts[r]
        while k + 8 <= lasts[r]:
            v0, v1, v2, v3 = values[k], values[k + 1], values[k + 2], values[k + 3]
            v4, v5, v6, v7 = values[k + 4], values[k + 5], values[k + 6], values[k + 7]
            a, b = vectors[which[k]], vectors[which[k + 1]]
            c, d = vectors[which[k + 2]], vectors[which[k + 3]]
            e, f = vectors[which[k + 4]], vectors[which[k + 5]]
            g, h = vectors[which[k + 6]], vectors[which[k + 7]]
            for j in range(length):
                total[j] += ((v0 * a[j] + v1 * b[j]) + (v2 * c[j] + v3 * d[j])) + (
                    (v4 * e[j] + v5 * f[j]) + (v6 * g[j] + v7 * h[j])
                )
            k += 8
        while k < lasts[r]:
            v, vector = values[k], vectors[which[k]]
            for j in range(length):
                total[j] += v * vector[j]
            k += 1


def softmax(scores: np.ndarray, labels: np.ndarray, scale: float, loss: np.ndarray) -> None:
    """Write the mean cross entropy to `loss`, (), and its gradient times `scale` to `scores`.

    As log(1 + what the other classes add) no digits are lost where the label's class is nearly
    certain; nor of its slope, the share of the others.

    Parameters
    ----------
    scores : array, shape (N, C)
    labels : array of int, shape (N,)
        In range.
    scale : float
    loss : array, shape ()
    """
    number = scores.dtype.type
    total = number(0)
    factor = number(scale / len(scores))
    for n in range(len(scores)):
        row, label = scores[n], labels[n]
        highest = row[0]
        for c in range(len(row)):
            highest = row[c] if row[c] > highest else highest
        score = row[label] - highest
        others = number(0)
        for c in range(len(row)):
            row[c] = math.exp(row[c] - highest)
            others += row[c] if c != label else number(0)
        total += math.log1p(others + math.expm1(score)) - score
        slope = factor / (others + row[label])
        for c in range(len(row)):
            row[c] *= slope
        row[label] = -others * slope
    loss[()] = total / number(len(scores))

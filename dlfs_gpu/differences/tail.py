"""How a change of one layer's output becomes a change of the loss.

Moving weight W[i, j] of a `Linear` layer by h moves output j of that layer by h·x[n, i] for each
sample n, and no other output: not at all where the input is 0, and alike where inputs are equal.
So all changes that can happen are known from one array. For x of shape (N, I), with J outputs and
C classes behind:

1. d = h·x and a column of h for the bias, (N, I + 1): what any one output may change by.
2. Through the activation these are changes of output j *alone*, (N, J, I + 1), since each output
   has an input of its own.
3. The next `Linear` layer *spreads* each out over all its outputs, (N, C, J·(I + 1)), and the
   layers behind take them together.
4. The loss makes one number of each, (N, J·(I + 1)): L(x + d) − L(x + e), where e is what −h does.
   Summed over samples and divided by 2hN they are dW and db.

Two short ways spare step 3. Where the loss follows the next `Linear` layer, the scores move along
a *line*, by s·W[j, :] for a number s, the change of output j; a `LineDifferencing` loss is asked
that. Where it follows at once, the scores move one at a *time*, along the rows of the identity:
then a `ColumnDifferencing` loss can say the same. This is done in float64, because it is little
work, and no digit is lost.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from array_api_compat import device

from dlfs_gpu._validation import Array, namespace_of
from dlfs_gpu.protocols import Linear, is_linear

COLUMNS = 64
"""Columns of a layer that are worked on together, by one task and one process.

Fixed, because BLAS may round differently for another shape.
"""


@np.errstate(over="ignore")  # exp(−x) may be infinite in the narrower type, and is meant then
def _rounded(arrays: Sequence[Array], dtype: Any) -> tuple[Array, ...]:
    return tuple(namespace_of(a).astype(a, dtype, copy=False) for a in arrays)


class Tail:
    """The layers behind one `Linear` layer, and how a change of its output becomes one of the loss.

    Parameters
    ----------
    moved : Linear
        The layer whose weights move.
    after : list of (layer, saved)
        The layers behind, with what `difference` needs of them.
    loss, h, dtype
        As for `difference_gradients`.
    budget : int
        Bytes that may be used.

    Attributes
    ----------
    d : array, shape (N, I + 1)
        All changes of any one column of the moved layer's output.
    h : float
        The step, rounded.
    columns : int
        How many outputs the moved layer has.
    width : int
        Features of the widest array that `change` makes of one changed column.
    """

    def __init__(
        self,
        moved: Linear,
        after: list[tuple[Any, tuple[Array, ...]]],
        loss: Any,
        h: float,
        dtype: Any,
        budget: int,
    ) -> None:
        xp = namespace_of(moved.x)
        self.loss = loss
        self.columns = moved.params["W"].shape[1]
        self.width = 1
        split = 0
        while split < len(after) and _is_elementwise(after[split][0]):
            split += 1
        self.alone, self.together = after[:split], after[split:]
        self.one_at_a_time = not self.together and hasattr(loss, "column_difference")
        if self.one_at_a_time:
            dtype = moved.x.dtype
        self.alone = [(layer, _rounded(arrays, dtype)) for layer, arrays in self.alone]
        self.h = float(xp.asarray(h, dtype=dtype))
        self.d = moved.weight_difference(xp.astype(moved.x, dtype, copy=False), self.h)
        self.line: tuple[Array, ...] | None = None
        joint: Array = None
        if self.together and is_linear(self.together[0][0]):
            joint = self.together.pop(0)[0].params["W"]
        if not self.together and hasattr(loss, "line_difference"):
            slopes = [layer.lipschitz for layer, _ in self.alone]
            reach = float(xp.max(xp.abs(self.d))) * math.prod(slopes)
            line = loss.line_saved(joint, reach, float(xp.finfo(dtype).eps), budget)
            if line is not None:
                self.line = _rounded(line, dtype)
                return
        if self.one_at_a_time:
            self.loss_saved = loss.column_saved()
            return
        if joint is None:  # The identity writes a column out for the layers behind.
            joint = xp.eye(self.columns, dtype=dtype, device=device(moved.x))
        self.weights: Array = xp.astype(joint, dtype, copy=False)
        self.together = [(layer, _rounded(arrays, dtype)) for layer, arrays in self.together]
        self.loss_saved = _rounded(loss.saved(), dtype)
        wide = [layer.params["W"].shape[1] for layer, _ in self.together if is_linear(layer)]
        self.width = max(self.weights.shape[1], *wide, 1)

    def by_odd_powers(self, columns: slice) -> Array | None:
        """Return the changes summed over samples, (I + 1, K), where s is d and r is −d; else None.

        Then the line's power series at s less that at r is twice its odd terms, and each is a
        matrix product.
        """
        if self.line is None or self.alone:
            return None
        xp = namespace_of(self.d)
        power = xp.astype(self.d, xp.float64, copy=False)
        square = power * power
        blocks = blocks_of(columns)
        parts = []
        for k, c in enumerate(self.line[::2]):
            if k:
                power = power * square
            c = xp.astype(c[..., 0], xp.float64, copy=False)
            parts.append(2 * xp.concat([power.T @ c[:, block] for block in blocks], axis=1))
        return sum(reversed(parts))

    def change(self, d: Array, samples: Any, columns: slice, at_once: int) -> Array:
        """Return L(+d) − L(−d) for each of the given samples and columns, moved alone.

        Parameters
        ----------
        d : array, shape (R, U)
            Changes of any one column of the moved layer's output in R samples.
        samples : slice or array of int
            Which samples.
        columns : slice
            Which columns.
        at_once : int
            How many columns to follow side by side once they are spread out.

        Returns
        -------
        array, shape (R, columns, U)
        """
        xp = namespace_of(d)
        r, u = d.shape
        count = len(range(self.columns)[columns])
        d = xp.concat([d, -d], axis=1)[:, None, :]
        for layer, arrays in self.alone:
            d = layer.difference(d, *(_part(a, samples, columns) for a in arrays))
        if self.line is not None:
            arrays = tuple(_part(a, samples, columns) for a in self.line)
            return self.loss.line_difference(d[..., :u], d[..., u:], *arrays)
        if self.one_at_a_time:
            arrays = tuple(_part(a, samples, columns) for a in self.loss_saved)
            change = self.loss.column_difference(d[..., :u], d[..., u:], *arrays)
            return xp.broadcast_to(change, (r, count, u))
        d = xp.broadcast_to(d, (r, count, 2 * u))
        if isinstance(d, np.ndarray) and not (moving := d.any(axis=(0, 2))).all():
            # A dead unit moves nothing behind it. Not asked of a GPU, which would have to wait.
            result = np.zeros((r, count, u), dtype=d.dtype)
            if moving.any():
                which = np.arange(self.columns)[columns][moving]
                result[:, moving] = self._spread(d[:, moving], samples, which, at_once)
            return result
        return self._spread(d, samples, columns, at_once)

    def _spread(self, d: Array, samples: Any, columns: Any, at_once: int) -> Array:
        """Return what `change` does, by spreading changes (R, columns, 2U) out."""
        xp = namespace_of(d)
        r, count, p = d.shape
        if count > at_once:
            which = np.arange(self.columns)[columns]
            return xp.concat(
                [
                    self._spread(d[:, k : k + at_once], samples, which[k : k + at_once], at_once)
                    for k in range(0, count, at_once)
                ],
                axis=1,
            )
        u = p // 2
        ends = []
        for part in (d[..., :u], d[..., u:]):
            part = _written_out(part, self.weights[columns, ...])
            for layer, arrays in self.together:
                part = layer.difference(part, *(a[samples, ...] for a in arrays))
            ends.append(part)
        change = self.loss.difference(*ends, *(a[samples, ...] for a in self.loss_saved))
        return xp.reshape(change, (r, count, u))


def blocks_of(columns: slice) -> list[slice]:
    """Return columns in blocks that are worked on together."""
    return [
        slice(first, min(first + COLUMNS, columns.stop))
        for first in range(columns.start, columns.stop, COLUMNS)
    ]


def _is_elementwise(layer: Any) -> bool:
    return hasattr(layer, "lipschitz") and not is_linear(layer)


def _part(array: Array, samples: Any, columns: slice) -> Array:
    """Return an array's samples and columns, if it has more than one of these."""
    array = array[samples, ...]
    return array if array.shape[1] == 1 else array[:, columns, ...]


def _written_out(d: Array, W: Array) -> Array:
    """Return W[i, j]·d[n, i, p] as an array (N, J, I·P): what one input's change alone does.

    With the identity for W it writes changes of single features out as changes of them all.
    """
    xp = namespace_of(d)
    n, i, p = d.shape
    # Through one dimension, so that the product comes out contiguous and reshapes without a copy.
    weights = xp.reshape(xp.reshape(W.T, (-1,)), (W.shape[1], i, 1))
    return xp.reshape(weights * d[:, None, ...], (n, W.shape[1], i * p))

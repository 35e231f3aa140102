"""Rules of products of arrays: matmul, dot, tensordot, outer, einsum.

All are sums of products: of C = A·B the change is dA·B + (A + dA)·dB, in which nothing is
subtracted.
"""

from __future__ import annotations

import math
import string
from typing import Any

from dlfs_gpu._validation import Array
from dlfs_gpu.differences import rules, windows
from dlfs_gpu.differences.array import Differenced
from dlfs_gpu.differences.namespace import Namespace
from dlfs_gpu.differences.operands import (
    as_float_array,
    check_library,
    check_together,
    make,
    still,
    widen,
)
from dlfs_gpu.differences.pointwise import namespace
from dlfs_gpu.differences.windows import Window, is_empty


@rules.rule("matmul", "linalg.matmul")
def _matmul(a: Any, b: Any) -> Any:
    xp = namespace((a, b))
    a, b = _operands((a, b))
    if a.ndim == 0 or b.ndim == 0:
        raise ValueError("matmul takes no single numbers; use * instead")
    if a.ndim == 1:
        return rules.call("squeeze", _matmul(_expanded(a, 0), b), axis=-2 if b.ndim > 1 else 0)
    if b.ndim == 1:
        return rules.call("squeeze", _matmul(a, _expanded(b, 1)), axis=-1)
    like = check_together([x for x in (a, b) if isinstance(x, Differenced)])
    value = xp.matmul(_value(a), _value(b))
    of_a = _from_first(xp, a, b, value) if isinstance(a, Differenced) else None
    of_b = _from_second(xp, a, b, value) if isinstance(b, Differenced) else None
    terms = [term for term in (of_a, of_b) if term is not None]
    if not terms:
        return still(like, value)
    box = windows.union([window for _, window in terms])
    first, *second = (windows.enlarge(xp, part, window, box) for part, window in terms)
    return make(like, value, first + second[0] if second else first, box)


def _from_first(xp: Any, a: Differenced, b: Any, value: Array) -> tuple[Array, Window] | None:
    """Return dA @ B and its window, which has all columns."""
    if is_empty(a.window):
        return None
    shape = tuple(value.shape)
    rows, inner = a.window[-2:]
    right = _value(b)[..., slice(*inner), :]
    if value.ndim > 2:
        part, _ = widen(a, tuple(range(a.ndim - 2)))
        part = xp.matmul(_aligned(xp, part, len(shape)), right)
        return part, (*windows.whole(shape[:-2]), rows, (0, shape[-1]))
    part = a.part
    count, height, width = part.shape
    product = xp.matmul(xp.reshape(part, (count * height, width)), right)
    return xp.reshape(product, (count, height, shape[-1])), (rows, (0, shape[-1]))


def _from_second(xp: Any, a: Any, b: Differenced, value: Array) -> tuple[Array, Window] | None:
    """Return (A + dA) @ dB and its window, which has all rows."""
    if is_empty(b.window):
        return None
    shape = tuple(value.shape)
    inner, columns = b.window[-2:]
    left = _value(a)[..., slice(*inner)]
    moves = isinstance(a, Differenced) and not is_empty(a.window)
    if moves:
        change = windows.enlarge(xp, a.part, a.window, windows.whole(a.shape))
        left = _aligned(xp, change, max(a.ndim, len(shape)))[..., slice(*inner)] + left
    part, _ = widen(b, tuple(range(b.ndim - 2)))
    window = (*windows.whole(shape[:-1]), columns)
    if not moves and a.ndim == b.ndim == 2 and part.shape[-1] == 1:
        # One product of matrices instead of many of a matrix and a vector.
        product = xp.matmul(part[..., 0], xp.permute_dims(left, (1, 0)))
        return product[..., None], window
    return xp.matmul(left, _aligned(xp, part, len(shape))), window


def _aligned(xp: Any, part: Array, ndim: int) -> Array:
    """Return changes of an array with axes of one element in front, `ndim` in all."""
    missing = ndim + 1 - part.ndim
    return xp.reshape(part, (part.shape[0], *(1,) * missing, *part.shape[1:]))


def _operands(args: tuple[Any, ...]) -> list[Any]:
    """Return arguments as arrays of numbers."""
    like = next(arg for arg in args if isinstance(arg, Differenced))
    operands: list[Any] = []
    for arg in args:
        check_library(like.xp, arg)
        if isinstance(arg, Differenced):
            operands.append(as_float_array(arg))
        else:
            is_array = hasattr(arg, "dtype")
            operands.append(arg if is_array else like.xp.asarray(arg, device=like.device))
    return operands


def _value(x: Any) -> Array:
    return x.value if isinstance(x, Differenced) else x


def _expanded(x: Any, axis: int) -> Any:
    return x[None, :] if axis == 0 else x[:, None]


@rules.rule("dot")
def _dot(a: Any, b: Any) -> Any:
    a, b = _operands((a, b))
    if a.ndim == 0 or b.ndim == 0:
        return a * b
    if b.ndim == 1 or a.ndim <= 2 >= b.ndim:
        return _matmul(a, b)
    return _tensordot(a, b, ([-1], [-2]))


@rules.rule("vdot")
def _vdot(a: Any, b: Any) -> Any:
    xp = Namespace.of(namespace((a, b)))
    a, b = _operands((a, b))
    return _matmul(*(xp.reshape(x, (-1,)) for x in (a, b)))


@rules.rule("vecdot", "linalg.vecdot")
def _vecdot(a: Any, b: Any, *, axis: int = -1) -> Any:
    return rules.call("sum", a * b, axis=axis)


@rules.rule("inner")
def _inner(a: Any, b: Any) -> Any:
    a, b = _operands((a, b))
    return a * b if a.ndim == 0 or b.ndim == 0 else _tensordot(a, b, ([-1], [-1]))


@rules.rule("outer", "linalg.outer")
def _outer(a: Any, b: Any) -> Any:
    xp = Namespace.of(namespace((a, b)))
    a, b = (xp.reshape(x, (-1,)) for x in _operands((a, b)))
    return a[:, None] * b[None, :]


@rules.rule("tensordot", "linalg.tensordot")
def _tensordot(a: Any, b: Any, axes: Any = 2) -> Any:
    """Return the product of two matrices: the axes that are summed over, and the others."""
    xp = Namespace.of(namespace((a, b)))
    a, b = _operands((a, b))
    if isinstance(axes, int):
        axes = (list(range(a.ndim - axes, a.ndim)), list(range(axes)))
    summed_a, summed_b = (
        [k % x.ndim for k in ([ks] if isinstance(ks, int) else ks)]
        for x, ks in zip((a, b), axes, strict=True)
    )
    kept_a = [k for k in range(a.ndim) if k not in summed_a]
    kept_b = [k for k in range(b.ndim) if k not in summed_b]
    shape = [a.shape[k] for k in kept_a] + [b.shape[k] for k in kept_b]
    inner = math.prod(a.shape[k] for k in summed_a)
    left = xp.reshape(xp.permute_dims(a, (*kept_a, *summed_a)), (-1, inner))
    right = xp.reshape(xp.permute_dims(b, (*summed_b, *kept_b)), (inner, -1))
    return xp.reshape(_matmul(left, right), tuple(shape))


@rules.rule("einsum")
def _einsum(subscripts: str, *operands: Any, optimize: Any = True) -> Any:
    """Return the sum of products, with the change Σₖ X₁ … Xₖ₋₁ dₖ xₖ₊₁ … xₙ."""
    if not isinstance(subscripts, str):
        raise TypeError("einsum has a rule for subscripts written as a string only")
    xp = namespace(operands)
    operands = tuple(_operands(operands))
    einsum = rules.find(xp, ("einsum",))
    like = check_together([x for x in operands if isinstance(x, Differenced)])
    inputs, output = _subscripts(subscripts)
    value = einsum(subscripts, *map(_value, operands))
    letter = next(c for c in string.ascii_letters if c not in subscripts)
    total = None
    for k, x in enumerate(operands):
        if not isinstance(x, Differenced):
            continue
        terms = [
            (inputs[j], _value(y))
            if j > k or not isinstance(y, Differenced)
            else (letter + inputs[j], y.change if j == k else y.value + y.change)
            for j, y in enumerate(operands)
        ]
        joined = ",".join(names for names, _ in terms)
        arrays = [array for _, array in terms]
        part = einsum(f"{joined}->{letter}{output}", *arrays, optimize=optimize)
        total = part if total is None else total + part
    return make(like, value, total, windows.whole(value.shape))


def _subscripts(subscripts: str) -> tuple[list[str], str]:
    """Return what einsum calls the axes of its operands and of its result."""
    left, arrow, output = subscripts.replace(" ", "").partition("->")
    if not arrow:
        letters = left.replace("...", "").replace(",", "")
        output = "..." * ("..." in left)
        output += "".join(c for c in sorted(set(letters)) if letters.count(c) == 1)
    return left.split(","), output

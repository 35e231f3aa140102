"""What arguments must be: checked once, at the door, in one place."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable
from typing import Any, Literal, TypeAlias, TypeVar

import array_api_compat
import numpy as np
from array_api_compat import device

Array: TypeAlias = Any
"""An array of any array API library; the standard has no type for it to name."""

Choice = TypeVar("Choice", bound=str)


class ArgumentError(ValueError):
    """An argument is not what it must be.

    Parameters
    ----------
    argument : str
        Its name.
    problem : str
        What it was and what it must be, to be read behind the name: "is -1; it must be positive".

    Attributes
    ----------
    argument, problem : str
    """

    def __init__(self, argument: str, problem: str) -> None:
        super().__init__(argument, problem)
        self.argument = argument
        self.problem = problem

    def __str__(self) -> str:
        return f"{self.argument} {self.problem}"


class DataError(ValueError):
    """A file holds something else than it must; the message names the file."""


def check_count(name: str, value: Any, minimum: int = 1) -> int:
    """Return a whole number that is no less than `minimum`; True and 2.0 are none."""
    try:
        count = operator.index(value)
    except TypeError:
        count = minimum - 1
    if isinstance(value, bool | np.bool) or count < minimum:
        raise ArgumentError(name, f"is {value!r}; it must be a whole number, {minimum} or more")
    return count


def check_positive(name: str, value: Any) -> float:
    """Return a number that is positive and finite as Python's, which promotes no array."""
    return _check_number(name, value, lambda x: 0 < x < math.inf, "positive and finite")


def check_not_negative(name: str, value: Any) -> float:
    """Return a number that is 0 or more, and finite."""
    return _check_number(name, value, lambda x: 0 <= x < math.inf, "0 or more, and finite")


def check_fraction(name: str, value: Any) -> float:
    """Return a number that is at least 0 and less than 1."""
    return _check_number(name, value, lambda x: 0 <= x < 1, "at least 0 and less than 1")


def check_memory(budget: int, needed: int, what: str) -> None:
    """Refuse a budget, in bytes, that does not suffice for the least that must fit."""
    if budget < needed:
        raise ArgumentError("max_memory", f"is {budget} bytes; {what} takes {needed}")


def check_choice(name: str, value: Any, choices: Iterable[Choice]) -> Choice:
    """Return the choice that `value` is, in upper or lower case."""
    choices = tuple(choices)
    for choice in choices:
        if isinstance(value, str) and value.lower() == choice:
            return choice
    raise ArgumentError(name, f"is {value!r}; it must be one of {', '.join(map(repr, choices))}")


def check_dtype(dtype: Any) -> Literal["float32", "float64"]:
    """Return the name of a floating-point type, given by its name or as a type."""
    try:
        # NumPy takes None for float64.
        name = dtype if dtype is None else np.dtype(dtype).name
    except TypeError:
        name = dtype
    return check_choice("dtype", name, ("float32", "float64"))


def array_namespace(**arrays: Array) -> Any:
    """Return the array API namespace that all the arrays, given by name, belong to.

    A namespace whose arrays hold those of another library, which it names in ``library``, takes
    that library's arrays too, and is returned for both.

    Raises
    ------
    TypeError
        If one is not an array, or two are of different libraries; both are named.
    """
    if all(type(x) is np.ndarray for x in arrays.values()):
        return np
    namespaces = {name: _namespace(name, x) for name, x in arrays.items()}
    (first, xp), *others = namespaces.items()
    for name, other in others:
        if other is getattr(xp, "library", xp):
            continue
        if getattr(other, "library", other) is xp:
            first, xp = name, other
        elif other is not xp:
            raise TypeError(
                f"{first} is a {_type_name(arrays[first])} and {name} is a "
                f"{_type_name(arrays[name])}: arrays are not moved by themselves; put both on one "
                "backend with get_backend().asarray(...) or on the host with "
                "get_backend().to_numpy(...)"
            )
    return xp


def namespace_of(x: Array) -> Any:
    """Return the array API namespace of one array."""
    if type(x) is np.ndarray:
        return np
    return array_namespace(x=x)


def as_float(x: Array, name: str = "x") -> Array:
    """Return `x` as a real floating-point array; integers and booleans become float64.

    Raises
    ------
    TypeError
        If `x` is no array, number or list of numbers, or is complex or masked.
    """
    if isinstance(x, np.ma.MaskedArray):
        raise TypeError(f"{name} is a masked array; fill it first: {name}.filled(...)")
    if isinstance(x, int | float | list | tuple | np.generic | np.ndarray):
        x = np.asarray(x)  # also of np.matrix, whose * and ** are matrix products
        if x.dtype.kind == "f":
            return x
    xp = array_namespace(**{name: x})
    if xp.isdtype(x.dtype, "real floating"):
        return x
    if xp.isdtype(x.dtype, ("integral", "bool")):
        return xp.astype(x, xp.float64)
    raise TypeError(f"{name} has the type {x.dtype}; it must hold real numbers")


def as_scores(x: Array, name: str = "x") -> Array:
    """Return `x` as floating point, and refuse arrays without any class along the last axis."""
    x = as_float(x, name)
    if x.ndim == 0 or x.shape[-1] == 0:
        raise ArgumentError(
            name, f"has shape {tuple(x.shape)}; it must have at least one class in its last axis"
        )
    return x


def as_same_shape(y: Any, t: Any, name: str = "y") -> tuple[Array, Array]:
    """Return two arrays of one shape as floating point, `t` in the type of `y`."""
    y, t = as_float(y, name), as_float(t, "t")
    xp = array_namespace(**{name: y, "t": t})
    if y.shape != t.shape:
        raise ArgumentError(
            "t", f"has shape {tuple(t.shape)}; it must be that of {name}, {tuple(y.shape)}"
        )
    if math.prod(y.shape) == 0:
        raise ArgumentError(name, f"has shape {tuple(y.shape)}: it is empty")
    return y, xp.astype(t, y.dtype, copy=False)


def check_targets(t: Array, shape: tuple[int, ...], like: Array, name: str = "y") -> Array:
    """Return targets ready for use with outputs of `shape`, one sample (C,) or a batch (N, C).

    One-hot and soft targets get the type of `like`, labels int64. Looks at label values, so it
    waits for a GPU: call it once, before a loop.

    Raises
    ------
    ArgumentError
        If the shapes do not fit, the batch is empty, or a label is not in 0..C-1.
    TypeError
        If labels are not integers, or `t` is of another array library than `like`.
    """
    shape = tuple(shape)
    if isinstance(t, int):
        t = namespace_of(like).asarray(t, device=device(like))
    elif isinstance(t, list | tuple | np.generic):
        t = np.asarray(t)
    xp = array_namespace(**{name: like, "t": t})
    if len(shape) not in (1, 2):
        raise ArgumentError(name, f"has shape {shape}; it must be (C,) or a batch (N, C)")
    if math.prod(shape) == 0:
        raise ArgumentError(name, f"has shape {shape}: the batch is empty")
    if t.shape == shape:
        t = xp.astype(as_float(t, "t"), like.dtype, copy=False)
        check_finite("t", t)
        return t
    if t.shape != shape[:-1]:
        raise ArgumentError(
            "t",
            f"has shape {tuple(t.shape)}; for {name} of shape {shape} integer labels must have "
            f"the shape {shape[:-1]}, one-hot or soft targets {shape}",
        )
    return check_labels(t, shape[-1])


def check_labels(t: Array, num_classes: int, name: str = "t") -> Array:
    """Return labels of any shape as int64, and refuse all but integers in 0..num_classes-1.

    Raises
    ------
    TypeError
        If they are not integers.
    ArgumentError
        If one is out of range.
    """
    xp = array_namespace(**{name: t})
    if not xp.isdtype(t.dtype, "integral"):
        raise TypeError(f"{name} holds labels of the type {t.dtype}; labels must be integers")
    if math.prod(t.shape):
        low, high = int(xp.min(t)), int(xp.max(t))
        if low < 0 or high >= num_classes:
            raise ArgumentError(
                name,
                f"holds the label {low if low < 0 else high}; "
                f"labels of {num_classes} classes are 0 to {num_classes - 1}",
            )
    return xp.astype(t, xp.int64, copy=False)


def check_unit_targets(t: Array) -> None:
    """Refuse targets of any shape, in floating point, that are not all between 0 and 1."""
    xp = namespace_of(t)
    outside = ~((t >= 0) & (t <= 1))
    if bool(xp.any(outside)):
        index = first_index(outside)
        raise ArgumentError("t", f"holds {float(t[index])}; these targets must lie between 0 and 1")


def is_finite(*arrays: Array) -> bool:
    """Say whether no element of any array is NaN or infinite; waits for a GPU, once."""
    xp = namespace_of(arrays[0])
    return bool(xp.all(xp.stack([xp.all(xp.isfinite(x)) for x in arrays])))


def check_finite(name: str, x: Array) -> None:
    """Refuse arrays that hold NaN or infinity; waits for a GPU."""
    if not is_finite(x):
        raise ArgumentError(
            name, f"holds NaN or infinity in {x.dtype}; every number must be finite"
        )


def first_index(mask: Array) -> tuple[int, ...]:
    """Return the index of the first true element."""
    xp = namespace_of(mask)
    flat = int(xp.argmax(xp.astype(xp.reshape(mask, (-1,)), xp.int8)))
    return tuple(int(i) for i in np.unravel_index(flat, mask.shape))


def _check_number(name: str, value: Any, is_right: Any, description: str) -> float:
    try:
        number = math.nan if isinstance(value, bool | np.bool | str) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not is_right(number):
        raise ArgumentError(name, f"is {value!r}; it must be a number that is {description}")
    return number


def _namespace(name: str, x: Any) -> Any:
    # NumPy speaks the standard itself; array_api_compat would load much for it.
    if isinstance(x, np.ndarray | np.generic):
        return np
    try:
        return array_api_compat.array_namespace(x)
    except TypeError:
        raise TypeError(f"{name} must be an array, not {_type_name(x)}") from None


def _type_name(x: Any) -> str:
    return f"{type(x).__module__.split('.')[0]}.{type(x).__name__}"

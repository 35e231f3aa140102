"""An array that carries changes: what a function of it gives for many moved points at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import numpy as np
from array_api_compat import device
from numpy.lib.mixins import NDArrayOperatorsMixin

from dlfs_gpu._validation import ArgumentError, Array, array_namespace, as_float
from dlfs_gpu.differences import rules, windows
from dlfs_gpu.differences.ledger import Ledger
from dlfs_gpu.differences.namespace import Namespace
from dlfs_gpu.differences.windows import Window


def _method(name: str) -> Callable[..., Any]:
    """Return the method that applies the rule of this name to the array."""

    def method(self: Differenced, *args: Any, **kwargs: Any) -> Any:
        return rules.call(name, self, *args, **kwargs)

    method.__name__ = name
    method.__doc__ = f"Apply `numpy.{name}`."
    return method


class Differenced(NDArrayOperatorsMixin):
    """An array and P changes of it, kept apart: points x + d₁ … x + d_P beside x.

    Every operation gives its result at x, and by how much the result changes at each moved point,
    in a form that never subtracts two nearly equal numbers (*computational divided differencing*
    [1]_). The changes are exact to rounding for steps of any size, across kinks and jumps too: a
    finite difference, not a derivative. `numerical_gradient` with ``method="difference"`` calls a
    function with such an array.

    It works with Python's operators, NumPy's functions (also around CuPy's arrays; `cupy.exp`
    itself takes no other array than CuPy's own, so write ``np.exp(x)``), the methods of an
    ndarray, and the functions of ``x.__array_namespace__()``. A function without a rule is
    refused; `with_difference` gives it one.

    Comparisons give an array of truth values, whose changes say which of them flip at each moved
    point; ``where`` chooses by it. A Python branch may ask for one truth value if none flips.

    Parameters
    ----------
    value : array, shape S
        Real floating-point or Boolean, of any array library.
    change : array, shape (P, *S) or broadcastable to it, P from its first axis
        Changes, of the library and on the device of `value`; of a Boolean array, where it flips.

    Attributes
    ----------
    value : array, shape S

    Raises
    ------
    ArgumentError
        If the shapes do not fit.
    TypeError
        If `value` is neither real nor Boolean, or `change` of another library or kind.

    References
    ----------
    .. [1] T. W. Reps and L. B. Rall, "Computational divided differencing and divided-difference
       arithmetics", Higher-Order and Symbolic Computation 16 (2003), 93-149.

    Examples
    --------
    >>> import numpy as np
    >>> from dlfs_gpu import Differenced
    >>> x = Differenced(np.array([3.0, 4.0]), 1e-20 * np.eye(2))
    >>> np.sum(x**2).change / 1e-20
    array([6., 8.])
    """

    __array_priority__ = 1e6
    __hash__ = None  # type: ignore[assignment]

    value: Array
    part: Array  # changes inside the window, (P, *window)
    window: Window
    ledger: Ledger | None  # of the evaluation that the array belongs to
    xp: Any

    def __init__(self, value: Array, change: Array) -> None:
        if not hasattr(value, "dtype") or not str(value.dtype).startswith("bool"):
            value = as_float(value, "value")
        self.xp = xp = array_namespace(value=value, change=change)
        if xp.isdtype(change.dtype, "bool") != xp.isdtype(value.dtype, "bool"):
            raise TypeError(f"change has the type {change.dtype}, value {value.dtype}")
        shape = tuple(value.shape)
        try:
            if change.ndim != len(shape) + 1:
                raise ValueError
            part = xp.broadcast_to(change, (change.shape[0], *shape))
        except ValueError:
            raise ArgumentError(
                "change",
                f"has shape {tuple(change.shape)}; for a value of shape {shape} it must be "
                "broadcastable to (P, *shape)",
            ) from None
        self.value = value
        self.part = xp.astype(part, value.dtype, copy=False)
        self.window = windows.whole(shape)
        self.ledger = None

    def __del__(self) -> None:
        if getattr(self, "ledger", None) is not None:
            self.ledger.close(self.part)  # type: ignore[union-attr]

    @property
    def change(self) -> Array:
        """The changes, (P, *S); of a Boolean array, where it flips."""
        return windows.enlarge(self.xp, self.part, self.window, windows.whole(self.shape))

    # What it looks like.

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the value."""
        return tuple(self.value.shape)

    @property
    def ndim(self) -> int:
        """Number of axes of the value."""
        return len(self.value.shape)

    @property
    def size(self) -> int:
        """Number of elements of the value."""
        return int(np.prod(self.value.shape))

    @property
    def dtype(self) -> Any:
        """Type of the value and, but for truth values, of the changes."""
        return self.value.dtype

    @property
    def device(self) -> Any:
        """Device of the value and the changes."""
        return device(self.value)

    @property
    def real(self) -> Differenced:
        """The array itself."""
        return self

    @property
    def T(self) -> Differenced:  # noqa: N802
        """The array with its axes reversed."""
        return rules.call("transpose", self)  # type: ignore[no-any-return]

    @property
    def mT(self) -> Differenced:  # noqa: N802
        """The array with its last two axes exchanged."""
        return rules.call("matrix_transpose", self)  # type: ignore[no-any-return]

    def __repr__(self) -> str:
        return f"Differenced({self.value!r}, {self.part.shape[0]} changes)"

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("len() of a single number")
        return self.shape[0]

    def __iter__(self) -> Iterator[Differenced]:
        if not self.shape:
            raise TypeError("iteration over a single number")
        return (self[k] for k in range(self.shape[0]))

    def __getitem__(self, index: Any) -> Differenced:
        return rules.call("getitem", self, index)  # type: ignore[no-any-return]

    def __contains__(self, item: Any) -> bool:
        return bool(rules.call("any", self == item))

    # Methods of an ndarray; `dot` and the like take other arrays too.

    all = _method("all")
    any = _method("any")
    astype = _method("astype")
    clip = _method("clip")
    conj = conjugate = _method("conj")
    copy = _method("copy")
    cumsum = _method("cumsum")
    diagonal = _method("diagonal")
    dot = _method("dot")
    flatten = ravel = _method("ravel")
    max = _method("max")
    mean = _method("mean")
    min = _method("min")
    prod = _method("prod")
    repeat = _method("repeat")
    round = _method("round")
    squeeze = _method("squeeze")
    std = _method("std")
    sum = _method("sum")
    swapaxes = _method("swapaxes")
    take = _method("take")
    trace = _method("trace")
    var = _method("var")

    def reshape(self, *shape: Any, order: str = "C") -> Differenced:
        """Apply `numpy.reshape`."""
        new = shape[0] if len(shape) == 1 else shape
        return rules.call("reshape", self, new, order=order)  # type: ignore[no-any-return]

    def transpose(self, *axes: Any) -> Differenced:
        """Apply `numpy.transpose`."""
        order = axes[0] if len(axes) == 1 else axes or None
        return rules.call("transpose", self, order)  # type: ignore[no-any-return]

    def __getattr__(self, name: str) -> Any:
        # Methods of an ndarray that are not here are refused when they are called.
        if not name.startswith("_") and callable(getattr(np.ndarray, name, None)):

            def refuse(*_args: Any, **_kwargs: Any) -> NoReturn:
                raise rules.no_rule(name)

            return refuse
        raise AttributeError(f"a Differenced array has no attribute {name!r}")

    # How functions meet it.

    def __array_namespace__(self, *, api_version: str | None = None) -> Namespace:
        return Namespace.of(self.xp)

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Any:
        name = ufunc.__name__
        if any(isinstance(out, Differenced) for out in kwargs.get("out", ())):
            raise TypeError(
                f"{name} would write into a Differenced array, which other arrays may share; "
                "write x = x + y instead of x += y"
            )
        rule = rules.by_function.get(ufunc)
        if method == "reduce" and name in _REDUCTIONS:
            kwargs.setdefault("axis", 0)
            name = _REDUCTIONS[name]
            rule = rules.by_name[name]
        elif method != "__call__":
            name, rule = f"{name}.{method}", None
        if rule is None:
            raise rules.no_rule(name)
        return rules.apply(name, rule, inputs, kwargs)

    def __array_function__(
        self, function: Any, _types: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        name = function.__name__
        rule = rules.by_function.get(function)
        if rule is None:
            raise rules.no_rule(name)
        return rules.apply(name, rule, args, dict(kwargs))

    # What would lose the changes.

    def __bool__(self) -> bool:
        if self.size != 1:
            raise TypeError(f"an array of shape {self.shape} is neither true nor false")
        if not is_truth(self):
            self._refuse("bool() of a number", "compare it: x != 0")
        self.check_same_truth("a branch in Python")
        return bool(self.value)

    def check_same_truth(self, what: str) -> None:
        """Refuse truth values that differ between x and a point it is moved to."""
        if bool(self.xp.any(self.part)):
            raise TypeError(
                f"{what} can go one way only, and this condition is true for x and false for a "
                "point that it is moved to, or the other way round: use where(condition, a, b), "
                "maximum, minimum or clip instead, or method='loop'"
            )

    def __float__(self) -> float:
        self._refuse("float()", "use NumPy's functions instead of those of math")

    def __int__(self) -> int:
        self._refuse("int()", "use floor, or trunc")

    def __index__(self) -> int:
        self._refuse("using it as an index", "use where(condition, a, b)")

    def __complex__(self) -> complex:
        self._refuse("complex()", "only real functions have a rule")

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        self._refuse(
            "making a plain array of it (np.asarray, np.array, writing it into an array)",
            "leave asarray out; put arrays together with stack, concatenate, pad or where",
        )

    def __setitem__(self, index: Any, value: Any) -> None:
        raise TypeError(
            "a Differenced array cannot be written into, because other arrays may share it: use "
            "where(condition, a, b), stack or concatenate"
        )

    def _refuse(self, what: str, instead: str) -> NoReturn:
        raise TypeError(
            f"{what} would lose the changes of a Differenced array: {instead}, or {rules.REMEDY}"
        )


_REDUCTIONS = {
    "add": "sum",
    "multiply": "prod",
    "maximum": "max",
    "minimum": "min",
    "logical_and": "all",
    "logical_or": "any",
}


def is_truth(x: Any) -> bool:
    """Say whether an array holds truth values."""
    return str(getattr(x, "dtype", "")).rpartition(".")[2] == "bool"

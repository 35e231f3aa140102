"""Which rule answers for which function, and what is said where none does.

A rule is registered under the names that NumPy and the array API standard have for its function,
and found by name (operators, `Namespace`) or by NumPy's function itself (NEP 13 and 18).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from operator import attrgetter
from typing import Any, TypeVar

import numpy as np

Rule = Callable[..., Any]
Function = TypeVar("Function", bound=Rule)

by_name: dict[str, Rule] = {}
by_function: dict[Any, Rule] = {}
"""Those of NumPy's functions, and of others that ask their arguments for a rule, as ufuncs do."""

REMEDY = "use method='batched' or method='loop', which only evaluate the function"


def rule(*names: str) -> Callable[[Function], Function]:
    """Register a rule that takes the arguments of the function of these names.

    Parameters
    ----------
    *names : str
        ``"sum"``, ``"linalg.norm"``: as in the array API standard or in NumPy.
    """

    def register(function: Function) -> Function:
        for name in names:
            by_name[name] = function
            try:
                known = attrgetter(name)(np)
            except AttributeError:  # a name of the standard that this NumPy lacks
                continue
            by_function[known] = function
        return function

    return register


def call(name: str, *args: Any, **kwargs: Any) -> Any:
    """Apply the rule of a name."""
    return apply(name, by_name[name], args, kwargs)


def apply(name: str, rule: Rule, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Apply a rule, and refuse arguments that no rule takes."""
    if kwargs.pop("out", None) is not None:
        raise TypeError(
            f"{name}(out=...) would write changes into an array that cannot hold them; "
            "use what it returns"
        )
    if kwargs.pop("where", True) is not True:
        raise TypeError(f"{name}(where=...) has no rule; use where(condition, x, y) around it")
    try:
        return rule(*args, **kwargs)
    except TypeError:
        try:
            inspect.signature(rule).bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{name} has no rule for such arguments ({error}): {REMEDY}") from None
        raise


def find(library: Any, names: tuple[str, ...]) -> Callable[..., Any]:
    """Return a library's function, under the first of its names that the library has."""
    for name in names:
        try:
            return attrgetter(name)(library)  # type: ignore[no-any-return]
        except AttributeError:
            continue
    raise TypeError(f"{library.__name__} has no function {names[0]}; {REMEDY}")


def no_rule(name: str) -> TypeError:
    """Return the error for a function without a rule."""
    return TypeError(
        f"{name} has no rule for differences without rounding: {REMEDY}, "
        "or give it a rule with dlfs_gpu.with_difference"
    )

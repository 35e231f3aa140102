"""The array API namespace of arrays that carry changes."""

from __future__ import annotations

import functools
from typing import Any

from dlfs_gpu.differences import rules


class Namespace:
    """An array library's namespace whose functions know the rules.

    Functions with a rule take plain arrays as well as those with changes; those that make arrays,
    types and constants are the library's own.

    Parameters
    ----------
    library : module
        The namespace of the arrays inside.
    prefix : str, optional
        ``"linalg."`` for the library's ``linalg``.

    Attributes
    ----------
    library : module
    """

    def __init__(self, library: Any, prefix: str = "") -> None:
        self.library = library
        self._prefix = prefix

    @staticmethod
    @functools.cache
    def of(library: Any) -> Namespace:
        """Return the namespace of a library, the same one each time."""
        return Namespace(library)

    def __repr__(self) -> str:
        return f"<differences with {self.library.__name__}>"

    def __getattr__(self, name: str) -> Any:
        known = getattr(self.library, name)
        if name == "linalg":
            return Namespace(known, "linalg.")
        if isinstance(known, type) or not callable(known):
            return known
        attribute, name = name, self._prefix + name

        @functools.wraps(known)
        def function(*args: Any, **kwargs: Any) -> Any:
            if not any(map(_carries_changes, (*args, *kwargs.values()))):
                return known(*args, **kwargs)
            rule = rules.by_name.get(name)
            if rule is None:
                raise rules.no_rule(name)
            return rules.apply(name, rule, args, kwargs)

        self.__dict__[attribute] = function  # so that it is not made again
        return function


def _carries_changes(argument: Any) -> bool:
    if isinstance(argument, list | tuple):
        return any(map(_carries_changes, argument))
    return hasattr(type(argument), "check_same_truth")

"""Chapter 4 of *Deep Learning from Scratch* on NumPy or an NVIDIA GPU (CuPy).

Numerical gradients fast and exact enough to train with, beside the chapter's losses, layers,
networks, optimizers and training loop, under the book's names.
"""

import ast
import importlib
from pathlib import Path
from typing import Any

# What type checkers read, `__getattr__` goes by: each name, and the module that has it.
_STUB = ast.parse(Path(__file__).with_suffix(".pyi").read_text(encoding="utf-8"))
_MODULES = {
    alias.name: str(node.module)
    for node in _STUB.body
    if isinstance(node, ast.ImportFrom)
    for alias in node.names
}
__all__ = list(_MODULES)


def __getattr__(name: str) -> Any:
    """Import what is first asked for: the command line is there, and interrupted, without it."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(importlib.import_module(_MODULES[name]), name)
    return globals().setdefault(name, found)


def __dir__() -> list[str]:
    return __all__

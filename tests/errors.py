"""What tests expect of errors."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import pytest

from dlfs_gpu._validation import ArgumentError


def refused(argument: str) -> AbstractContextManager[Any]:
    """Expect an ArgumentError that names this argument."""
    return pytest.raises(ArgumentError, match=rf"^{argument} ")

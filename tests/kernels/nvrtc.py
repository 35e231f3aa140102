"""NVIDIA's run-time compiler, called through ctypes: it needs no GPU."""

from __future__ import annotations

import ctypes
import functools
import importlib.metadata
from collections.abc import Sequence
from pathlib import Path

import pytest

_PACKAGE = "nvidia-cuda-nvrtc"


@functools.cache
def library() -> ctypes.CDLL:
    """Load NVRTC from its package, or skip the test that asks."""
    try:
        files = importlib.metadata.files(_PACKAGE) or []
    except importlib.metadata.PackageNotFoundError:
        pytest.skip(f"{_PACKAGE} is not installed")
    paths = [Path(str(file.locate())) for file in files]
    return ctypes.CDLL(str(next(p for p in paths if p.name.startswith("libnvrtc.so"))))


def compile_log(source: str, expressions: Sequence[str], architecture: str) -> str:
    """Compile kernels as CuPy does, and return what the compiler and the assembler say.

    Parameters
    ----------
    source : str
        CUDA C++.
    expressions : sequence of str
        Kernels wanted, as ``name<template arguments>``.
    architecture : str
        For example ``"sm_90"``.

    Raises
    ------
    AssertionError
        If it does not compile; with the log.
    """
    nvrtc = library()
    program = ctypes.c_void_p()
    _check(
        nvrtc.nvrtcCreateProgram(
            ctypes.byref(program), source.encode(), b"kernels.cu", 0, None, None
        )
    )
    for expression in expressions:
        _check(nvrtc.nvrtcAddNameExpression(program, expression.encode()))
    options = ["-std=c++17", "-ftz=true", "--ptxas-options=-v", f"-arch={architecture}"]
    texts = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
    status = nvrtc.nvrtcCompileProgram(program, len(options), texts)
    size = ctypes.c_size_t()
    _check(nvrtc.nvrtcGetProgramLogSize(program, ctypes.byref(size)))
    log = ctypes.create_string_buffer(size.value)
    _check(nvrtc.nvrtcGetProgramLog(program, log))
    nvrtc.nvrtcDestroyProgram(ctypes.byref(program))
    assert status == 0, log.value.decode()
    return log.value.decode()


def _check(status: int) -> None:
    assert status == 0, f"NVRTC error {status}"

"""The CUDA kernels compiled as C++ and run on the CPU (cuda_on_cpu.h)."""

from __future__ import annotations

import ctypes
import fcntl
import functools
import hashlib
import itertools
import os
import re
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

COMPILER = os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")
FOLDER = "EMULATED_KERNELS"
"""The environment variable that names the folder of compiled programs."""

Sanitizer = Literal["thread", "address"]

_HERE = Path(__file__).parent
_HEADER, _EMULATOR, _PROGRAM = (
    _HERE / name for name in ("cuda_on_cpu.h", "emulator.h", "sanitized.cpp")
)
# Ubuntu's compilers harden longjmp, which then refuses to jump to another stack.
_OPTIONS = ("-std=c++17", "-O1", "-ffp-contract=off", "-w", "-pthread", "-U_FORTIFY_SOURCE")
_LIBRARY = ("-fPIC", "-shared")
_SANITIZERS: dict[Sanitizer, tuple[str, ...]] = {
    "thread": ("-g1", "-fsanitize=thread"),
    "address": ("-g1", "-fsanitize=address,bounds,signed-integer-overflow"),
}
_TYPES = ("float", "double")
_ACTIVATIONS = ("SIGMOID", "TANH", "RELU")


class EmulatorError(RuntimeError):
    """A launch went wrong, or a sanitizer found something."""


class CompileError(ValueError):
    """The source is not C++."""


class Kernel:
    """A kernel that can be launched.

    Parameters
    ----------
    source : str
        CUDA C++.
    expression : str
        ``name<type, activation, sizes>``.
    sanitizer : {"thread", "address"}, optional
        Watch every launch, in a process of its own.
    alone : bool
        Compile this kernel only; otherwise all types and activations with it, which takes less for
        tests that ask for all.

    Attributes
    ----------
    signature : str
        A letter for each argument: ``P`` for a pointer, NumPy's for numbers.
    """

    def __init__(
        self,
        source: str,
        expression: str,
        sanitizer: Sanitizer | None = None,
        *,
        alone: bool = False,
    ) -> None:
        # The header has what this line declares.
        source = re.sub(r"extern __shared__ double memory\[\];", "", source)
        start = f'#include "{_HEADER}"\n{source}\n'
        group = [expression] if alone or sanitizer else _group(expression)
        exports = "".join(f"EMULATED({k}, {text})\n" for k, text in enumerate(group))
        library = _load(start + exports)
        number = group.index(expression)
        self._launch = getattr(library, f"launch_{number}")
        self._launch.restype = ctypes.c_char_p
        text = getattr(library, f"signature_{number}")
        text.restype = ctypes.c_char_p
        self.signature: str = text().decode()
        self._program: Path | None = None
        if sanitizer is not None:
            program = f'{start}EMULATED(0, {expression})\n#include "{_PROGRAM}"\n'
            self._program = _build(program, _SANITIZERS[sanitizer])

    def launch(
        self,
        grid: Sequence[int],
        threads: Sequence[int],
        arguments: Sequence[Any],
        *,
        shared: int = 0,
        order: int = 0,
        cooperative: bool = False,
    ) -> None:
        """Run it on arrays of NumPy and numbers, as the signature says; None is a null pointer.

        Parameters
        ----------
        order : int
            In which order threads take turns; see emulator.h.

        Raises
        ------
        EmulatorError
            If it fails, with the reason.
        """
        grid, threads = (*grid, 1, 1)[:3], (*threads, 1, 1)[:3]
        if self._program is not None:
            head = struct.pack("6IQII", *grid, *threads, shared, order, cooperative)
            self._launch_program(head, arguments)
            return
        holders = [
            ctypes.c_void_p(None if argument is None else argument.ctypes.data)
            if letter == "P"
            else np.ctypeslib.as_ctypes_type(letter)(argument)
            for letter, argument in zip(self.signature, arguments, strict=True)
        ]
        problem = self._launch(
            (ctypes.c_uint * 3)(*grid),
            (ctypes.c_uint * 3)(*threads),
            ctypes.c_size_t(shared),
            (ctypes.c_void_p * len(holders))(*map(ctypes.addressof, holders)),
            ctypes.c_uint(order),
            ctypes.c_int(cooperative),
        )
        if problem is not None:
            raise EmulatorError(problem.decode())

    def _launch_program(self, head: bytes, arguments: Sequence[Any]) -> None:
        """Run the program that a sanitizer watches; arrays go there and back in a file."""
        arrays = [
            np.asarray([] if argument is None else argument, None if letter == "P" else letter)
            for letter, argument in zip(self.signature, arguments, strict=True)
        ]
        with tempfile.NamedTemporaryFile(dir=os.environ[FOLDER]) as file:
            file.write(head)
            for array in arrays:
                file.write(struct.pack("Q", array.nbytes) + array.tobytes())
            file.flush()
            result = subprocess.run(
                [str(self._program), file.name],
                capture_output=True,
                text=True,
                check=False,
                env=os.environ
                | {"TSAN_OPTIONS": "halt_on_error=1", "ASAN_OPTIONS": "detect_leaks=0"},
            )
            if result.returncode:
                raise EmulatorError(result.stderr)
            file.seek(len(head))
            for array in arrays:
                file.read(8)
                array[...] = np.frombuffer(file.read(array.nbytes), array.dtype).reshape(
                    array.shape
                )


def require(sanitizer: Sanitizer) -> None:
    """Skip the test that asks where a sanitizer is missing, or does not run on this system."""
    problem = _sanitizer_problem(sanitizer)
    if problem:
        pytest.skip(f"the {sanitizer} sanitizer does not run here: {problem}")


@functools.cache
def _sanitizer_problem(sanitizer: Sanitizer) -> str:
    try:
        program = _build("int main() {}", _SANITIZERS[sanitizer])
    except CompileError as error:
        return str(error)
    result = subprocess.run([str(program)], capture_output=True, text=True, check=False)
    return result.stderr


def _group(expression: str) -> list[str]:
    """Return the same kernel for all types and activations."""
    name, template = expression.removesuffix(">").split("<")
    _, *rest = template.split(", ")
    choices = [_ACTIVATIONS if text in _ACTIVATIONS else (text,) for text in rest]
    return [f"{name}<{', '.join(all_)}>" for all_ in itertools.product(_TYPES, *choices)]


@functools.cache
def _load(program: str) -> ctypes.CDLL:
    return ctypes.CDLL(str(_build(program, _LIBRARY)))


def _build(program: str, options: Sequence[str]) -> Path:
    """Compile C++ once for all processes of this test run; return the file's path."""
    folder = Path(os.environ[FOLDER])
    files = [path.read_text() for path in (_HEADER, _EMULATOR, _PROGRAM)]
    key = hashlib.sha256("\0".join([program, *files, *options]).encode()).hexdigest()[:16]
    path = folder / key
    with (folder / f"{key}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            source = folder / f"{key}.cpp"
            source.write_text(program)
            command = [str(COMPILER), *_OPTIONS, *options, str(source), "-o", f"{path}.part"]
            result = subprocess.run(command, capture_output=True, text=True, check=False)
            if result.returncode:
                raise CompileError(result.stderr)
            Path(f"{path}.part").rename(path)
    return path

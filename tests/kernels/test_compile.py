"""NVRTC compiles every kernel for the GPUs of CUDA 13, without one."""

from __future__ import annotations

import re

import pytest

from dlfs_gpu.kernels.cuda import source
from kernels.nvrtc import compile_log

# Turing, Ampere, Hopper, Blackwell.
ARCHITECTURES = ("sm_75", "sm_80", "sm_90", "sm_100")
ACTIVATIONS = ("SIGMOID", "TANH", "RELU")
# For the sizes of the chapter's network, and the largest that the loader lets through; but beyond
# 26 classes `differences` spills ten numbers in double on Blackwell.
KERNELS = {
    "sgd": ("training.cu", "784, 50, 10, 100", "4096, 128, 32, 512"),
    "forward": ("differences.cu", "784, 50, 10", "4096, 512, 32"),
    "differences": ("differences.cu", "10", "26"),
}


@pytest.mark.parametrize("ctype", ["float", "double"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("name", KERNELS)
def test_compiles_without_spills(name: str, architecture: str, ctype: str) -> None:
    file, usual, largest = KERNELS[name]
    # All activations on one of them, as they differ in a few instructions.
    activations = ACTIVATIONS if architecture == "sm_90" else ACTIVATIONS[:1]
    wanted = [(activation, usual) for activation in activations]
    if name == "differences":
        wanted.append(("LAST", usual))
    if architecture in (ARCHITECTURES[0], ARCHITECTURES[-1]):
        wanted.append((ACTIVATIONS[0], largest))
    expressions = [f"{name}<{ctype}, {activation}, {sizes}>" for activation, sizes in wanted]
    assert_no_spills(file, expressions, architecture)


@pytest.mark.parametrize("ctype", ["float", "double"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_layers_compile_without_spills(architecture: str, ctype: str) -> None:
    expressions = [f"{name}<{ctype}>" for name in ("gather", "softmax", "columns")]
    activations = ACTIVATIONS if architecture == "sm_90" else ACTIVATIONS[:1]
    expressions += [f"activation<{ctype}, {activation}>" for activation in activations]
    assert_no_spills("layers.cu", expressions, architecture)


@pytest.mark.parametrize("ctype", ["float", "double"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_products_compile_without_spills(architecture: str, ctype: str) -> None:
    warps = 16 if ctype == "float" else 8
    expressions = [f"{name}<{ctype}, {warps}>" for name in ("last", "back", "weights")]
    activations = ACTIVATIONS if architecture == "sm_90" else ACTIVATIONS[:1]
    expressions += [f"forward<{ctype}, {warps}, {activation}>" for activation in activations]
    assert_no_spills("products.cu", expressions, architecture)


@pytest.mark.parametrize("ctype", ["float", "double"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_optimizers_compile_without_spills(architecture: str, ctype: str) -> None:
    assert_no_spills("optimizers.cu", [f"step<{ctype}, ADAM>"], architecture)


def assert_no_spills(file: str, expressions: list[str], architecture: str) -> None:
    log = compile_log(source(file), expressions, architecture)
    used = re.findall(r"(\d+) bytes stack frame, (\d+) bytes spill stores", log)
    # Functions that are called have lines of their own.
    assert len(used) >= len(expressions), log
    assert set(used) == {("0", "0")}, log


def test_errors_are_reported() -> None:
    with pytest.raises(AssertionError, match="undefined"):
        compile_log(source("training.cu") + "\nint x = undefined;", [], "sm_90")

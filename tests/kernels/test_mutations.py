"""Kernels broken on purpose, each caught by the proof that is there for its kind of fault."""

from __future__ import annotations

import re
from typing import Literal, cast, get_args

import numpy as np
import pytest

from dlfs_gpu.kernels.cuda import Differences, Training
from kernels.emulated import EmulatorError, Sanitizer, require
from kernels.fake_cupy import FakeCupy
from kernels.problems import error, make_problem, updated

# numbers: other results than in float64. bits: others for another number of blocks, or if threads
# take turns in another order. thread, address: what a sanitizer finds.
Proof = Literal["numbers", "bits", "thread", "address"]


WAIT = """wait(arrived, arrivals);

        if (more && block < SAMPLES) fetch_sample();"""
# The old text, the new, and what catches it.
MUTATIONS: dict[str, tuple[str, str, list[Proof]]] = {
    "a barrier removed": (
        """            __syncthreads();
            if (tid < HIDDEN) {
                T z = bias1;""",
        """            if (tid < HIDDEN) {
                T z = bias1;""",
        ["numbers", "bits", "thread"],
    ),
    "a barrier of all blocks not waited for": (
        WAIT,
        WAIT.replace("wait(arrived, arrivals);", "__syncthreads();"),
        ["numbers", "bits", "thread"],
    ),
    "a barrier of a warp removed": ("        __syncwarp();\n", "", ["thread"]),
    "an index off by one": (
        "const int i = tile * ROWS + tid % ROWS;",
        "const int i = tile * ROWS + tid % ROWS + 1;",
        ["numbers"],
    ),
    "one element read too many": (
        "own2[k] = at < HIDDEN * CLASSES ?",
        "own2[k] = at <= HIDDEN * CLASSES ?",
        ["address"],
    ),
    "more shared memory used than asked for": (
        "partial + PARTS);",
        "partial + PARTS + 1);",
        ["address"],
    ),
    "a sum in another order on every second block": (
        "own[k] += partial[g * ROWS + r][column];",
        "own[k] += partial[(block % 2 ? GROUPS - 1 - g : g) * ROWS + r][column];",
        ["bits"],
    ),
}
CASES = [(name, proof) for name, (*_, proofs) in MUTATIONS.items() for proof in proofs]


def train(cupy: FakeCupy, blocks: int = 2, order: int = 0) -> tuple[bytes, float]:
    """Train a small network; return all bits that come of it, and the largest error."""
    problem = make_problem((20, 40, 3))
    indices = np.random.default_rng(1).integers(40, size=(2, 5))
    cupy.attributes["MultiProcessorCount"] = blocks
    cupy.order = order
    params = problem.uploaded
    data = cupy.asarray(problem.x), cupy.asarray(problem.labels)
    losses = Training("sigmoid", params, *data, 5).run(cupy.asarray(indices), 0.1)
    wanted, expected_losses = updated(problem, indices, 0.1)
    arrays, expected = [*params, losses], [*wanted.values(), expected_losses]
    errors = [error(array, want) for array, want in zip(arrays, expected, strict=True)]
    return b"".join(array.host.tobytes() for array in arrays), float(max(errors))


def catches(cupy: FakeCupy, proof: Proof) -> bool:
    """Say whether the kernel fails a proof."""
    if proof in get_args(Sanitizer):
        cupy.sanitizer = cast(Sanitizer, proof)
        require(cupy.sanitizer)
        try:
            train(cupy)
        except EmulatorError as problem:
            return re.search("Sanitizer|runtime error", str(problem)) is not None
        return False
    runs = [train(cupy, *how) for how in ((2, 0), (1, 0), (5, 1), (2, 7))]
    if proof == "numbers":
        return not all(error < 1e-6 for _, error in runs)
    return len({bits for bits, _ in runs}) > 1


@pytest.mark.parametrize(("name", "proof"), CASES)
def test_a_broken_kernel_is_caught(cupy: FakeCupy, name: str, proof: Proof) -> None:
    cupy.mutations = [MUTATIONS[name][:2]]
    assert catches(cupy, proof)


@pytest.mark.parametrize("proof", get_args(Proof))
def test_the_kernel_itself_is_not(cupy: FakeCupy, proof: Proof) -> None:
    assert not catches(cupy, proof)


@pytest.mark.parametrize("sanitizer", get_args(Sanitizer))
def test_sanitizers_find_nothing_in_differences(cupy: FakeCupy, sanitizer: Sanitizer) -> None:
    require(sanitizer)
    cupy.sanitizer = sanitizer
    problem = make_problem((3, 40, 3), samples=40)
    data = cupy.asarray(problem.x), cupy.asarray(problem.labels)
    loss, _ = Differences("sigmoid", problem.uploaded, *data).gradient(1e-4)
    assert np.isfinite(float(loss))

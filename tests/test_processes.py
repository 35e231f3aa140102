"""Many processes, by MPI itself: the same bits on any number, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mpi
import mpi_programs
import numpy as np
import pytest

from dlfs_gpu import ArgumentError, TwoLayerNet, check_gradients, numerical_gradient
from dlfs_gpu.processes import Processes


def results(count: int, program: str, folder: Path) -> Any:
    """Return what a program of `mpi_programs` comes to in so many processes."""
    path = folder / f"{program}-{count}.json"
    done = mpi.run(count, mpi_programs.__file__, program, path, cwd=folder)
    assert done.returncode == 0, done.stderr
    return json.loads(path.read_text())


@mpi.needs_mpi
class TestNumericalGradients:
    @pytest.mark.parametrize("count", [1, 2, 3, 4])
    def test_same_bits_as_alone(self, count: int, tmp_path: Path) -> None:
        assert results(count, "gradients", tmp_path) == mpi_programs.gradients()

    def test_checks(self, tmp_path: Path) -> None:
        found = results(2, "checks", tmp_path)
        assert found == mpi_programs.checks()
        assert found["ok"]

    def test_arguments_that_differ_are_named_on_all(self, tmp_path: Path) -> None:
        found = results(2, "differing", tmp_path)
        end = " is not the same on the processes 0 and 1; it must be on all"
        assert found == {
            "nothing": "nothing",
            "x": "x" + end,
            "t": "t" + end,
            "h": "h" + end,
            "method": "method" + end,
            "W1": "b1" + end,
            "dropout": "layers[2]" + end,
        }


@pytest.mark.parametrize("comm", [0, "COMM_WORLD", object()])
def test_communicators_that_are_none(comm: Any) -> None:
    network, x, t = TwoLayerNet(2, 3, 2, backend="numpy"), np.ones((1, 2)), np.array([1])
    calls: list[Any] = [
        lambda: Processes(comm),
        lambda: network.numerical_gradient(x, t, comm=comm),
        lambda: check_gradients(network, x, t, comm=comm),
        lambda: numerical_gradient(lambda x: (x * x).sum(), x, comm=comm),
    ]
    for call in calls:
        with pytest.raises(ArgumentError, match="must be an mpi4py communicator") as raised:
            call()
        assert raised.value.argument == "comm"


class TestShares:
    @pytest.mark.parametrize(
        ("total", "block", "size"), [(512, 64, 4), (130, 64, 2), (5, 64, 3), (0, 1, 2), (7, 1, 7)]
    )
    def test_whole_blocks_in_a_row(self, total: int, block: int, size: int) -> None:
        processes = Processes()
        processes.size = size
        shares = processes.shares(total, block)
        assert len(shares) == size
        assert [k for share in shares for k in range(total)[share]] == list(range(total))
        assert all(share.start % block == 0 for share in shares if share.start < share.stop)
        counts = [-(-(share.stop - share.start) // block) for share in shares]
        assert max(counts) - min(counts) <= 1

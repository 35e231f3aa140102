"""Many processes, by MPI itself: the same bits on any number, and what is refused."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mpi
import mpi_programs
import numpy as np
import pytest
from test_cli import QUICK, write_flowers

from dlfs_gpu import ArgumentError, TwoLayerNet, check_gradients, numerical_gradient, processes
from dlfs_gpu.cli.resume import CHECKPOINT
from dlfs_gpu.cli.train import RESULTS
from dlfs_gpu.machine.threads import one_blas_thread
from dlfs_gpu.models import MultiLayerNet
from dlfs_gpu.optimizers import SGD, Adam
from dlfs_gpu.processes import Processes, world
from dlfs_gpu.training.sharing import SharedUpdate
from dlfs_gpu.training.update import Update


def many(*counts: int) -> list[Any]:
    """Return parameters of a test: more processes than every version need be tried on."""
    return [pytest.param(count, marks=pytest.mark.once) for count in counts]


def results(count: int, program: str, folder: Path) -> Any:
    """Return what a program of `mpi_programs` comes to in so many processes."""
    path = folder / f"{program}-{count}.json"
    done = mpi.run(count, mpi_programs.__file__, program, path, cwd=folder)
    assert done.returncode == 0, done.stderr
    return json.loads(path.read_text())


@mpi.needs_mpi
class TestNumericalGradients:
    @pytest.mark.parametrize("count", [1, 2, *many(3, 4)])
    def test_same_bits_as_alone(self, count: int, tmp_path: Path) -> None:
        assert results(count, "gradients", tmp_path) == mpi_programs.gradients()

    def test_checks(self, tmp_path: Path) -> None:
        found = results(2, "checks", tmp_path)
        assert found == mpi_programs.checks()
        assert found["ok"]

    def test_free_memory_may_differ(self, tmp_path: Path) -> None:
        assert results(2, "batched", tmp_path) == mpi_programs.batched()

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
            "dropout": "layers[2]._rng" + end,
            "kernels": "kernels" + end,
            "versions": "version of numpy" + end,
        }


@pytest.fixture(scope="module")
def trainings_of_one(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return results(1, "trainings", tmp_path_factory.mktemp("one"))


@mpi.needs_mpi
class TestTraining:
    @pytest.mark.parametrize("count", [2, *many(4, 8)])
    def test_same_bits_on_any_number(
        self, count: int, trainings_of_one: Any, tmp_path: Path
    ) -> None:
        found = results(count, "trainings", tmp_path)
        left_out = {
            name for name in trainings_of_one if count == 8 and re.search("few samples|64", name)
        }
        assert found.keys() == trainings_of_one.keys() - left_out
        assert found == {name: trainings_of_one[name] for name in found}

    @pytest.mark.once
    def test_resumed_on_another_number(self, trainings_of_one: Any, tmp_path: Path) -> None:
        for stopped, resumed in ((2, (1, 4)), (1, (2,))):
            results(stopped, "stops", tmp_path)
            for count in resumed:
                assert results(count, "resumes", tmp_path) == trainings_of_one

    @pytest.mark.once
    def test_numerical_gradients_that_began_alone(self, tmp_path: Path) -> None:
        """They go on to the same bits; the rest to others, which is told."""
        mpi_programs.stops(folder=tmp_path)
        done = mpi.run(2, mpi_programs.__file__, "resumes", "found", cwd=tmp_path)
        assert "comes from training alone and not by MPI: what follows may differ" in done.stderr
        found = json.loads((tmp_path / "found").read_text())
        alone = mpi_programs.trainings()
        for name, (digest, *_) in found.items():
            assert (digest == alone[name][0]) == name.startswith(("difference", "batched"))

    def test_what_cannot_be_shared(self, tmp_path: Path) -> None:
        found = results(2, "refused", tmp_path)
        accepted = [what for what, said in found.items() if said is None]
        assert accepted == ["nothing", "difference"]
        differs = "is not the same on the processes 0 and 1; it must be on all"
        for name in ("x_train", "t_test", "iterations", "optimizer", "network"):
            assert found[name] == [name, differs]
        beginnings = {
            "shards": ["comm", "has 2 processes; a minibatch of 1 is cut into 1 shards"],
            "coupling": ["network", "has Coupling, which has no `difference`"],
            "own gradient": ["network", "is a Own with a gradient of its own"],
            "noise": ["network", "has Noise, which draws at random; its attribute `lasting`"],
            "noise by samples": ["network", "has Noise, which draws for whole minibatches"],
            "frozen": ["network", "has Dropout, which draws for whole minibatches"],
        }
        assert found["freed"] == ["comm"]
        for what, (argument, beginning) in beginnings.items():
            assert found[what][0] == argument
            assert found[what][1].startswith(beginning)


@pytest.mark.parametrize("size", [100, 13, 3, 2100])
def test_shards_change_rounding_alone(size: int) -> None:
    """Also with dropout: the shards' masks are those of the minibatch."""
    x, t = mpi_programs.data(31, 3, samples=3000)
    networks, losses = [], []
    for kind in (Update, SharedUpdate):
        for dropout in (0.0, 0.3):
            network = MultiLayerNet(
                31, [9, 7], 3, "tanh", 1.0, dropout / 3, dropout_ratio=dropout, seed=0,
                dtype="float64", backend="numpy",
            )  # fmt: skip
            update = kind(network, Adam(), x, t, size, "backprop", Processes())
            rng = np.random.default_rng(1)
            losses.append([float(update(rng.integers(3000, size=size))) for _ in range(5)])
            networks.append(network)
    np.testing.assert_allclose(losses[2:], losses[:2], rtol=1e-12)
    for network, other in zip(networks[:2], networks[2:], strict=True):
        for key, param in network.params.items():
            np.testing.assert_allclose(other.params[key], param, rtol=1e-9, atol=1e-11)


def test_kernels_of_a_process_alone_are_left_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def taken(*arguments: Any) -> Any:
        raise AssertionError

    x, t = mpi_programs.data(4, 2)
    network = TwoLayerNet(4, 3, 2, seed=0, dtype="float64", backend="numpy")
    expected = network.numerical_gradient(x, t)
    monkeypatch.setattr("dlfs_gpu.differences.network_loss.loss_and_differences", taken)
    monkeypatch.setattr("dlfs_gpu.training.update.is_cupy_array", lambda x: True)
    monkeypatch.setattr("dlfs_gpu.training.update.Launcher", taken)
    one = Processes()
    one.comm = object()
    _, grads = network._loss_and_differences(x, t, threads=1, processes=one)
    for key, grad in expected.items():
        np.testing.assert_array_equal(grads[key], grad)
    update = SharedUpdate(network, SGD(), x, t, 10, "backprop", one)
    assert len(list(update.run(np.arange(20).reshape(2, 10)))) == 2


@mpi.needs_mpi
def test_gpus_are_dealt_out_in_turn(tmp_path: Path) -> None:
    assert results(3, "gpus", tmp_path) == [0, 1, 0]


def test_what_is_no_way_for_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DLFS_GPU_MPI", "gpu")
    with pytest.raises(ArgumentError, match="DLFS_GPU_MPI is 'gpu'; it must be one of 'host', "):
        processes._buffer(np.ones(2))


@pytest.mark.parametrize("way", ["host", "direct"])
def test_arrays_of_a_gpu_go_through_the_host_unless_told(
    way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Directly only when the GPU has made them."""
    done: list[str] = []

    def contiguous(x: np.ndarray) -> np.ndarray:
        done.append("made")
        return np.ascontiguousarray(x)

    def copied(x: np.ndarray) -> np.ndarray:
        done.append("copied")
        return x

    stream = SimpleNamespace(synchronize=lambda: done.append("waited"))
    cuda = SimpleNamespace(get_current_stream=lambda: stream)
    cupy: Any = SimpleNamespace(ascontiguousarray=contiguous, cuda=cuda)
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    monkeypatch.setattr(processes, "is_cupy_array", lambda x: True)
    monkeypatch.setattr(processes, "to_numpy", copied)
    monkeypatch.setenv("DLFS_GPU_MPI", way)
    lib, sent = processes._buffer(np.arange(6.0).reshape(2, 3).T)
    assert sent.flags.c_contiguous
    assert (lib is cupy, done) == (
        (True, ["made", "waited"]) if way == "direct" else (False, ["copied"])
    )


@pytest.mark.parametrize("variable", [None, "OMP_NUM_THREADS", "MKL_NUM_THREADS"])
def test_one_blas_thread_unless_the_environment_says_otherwise(
    variable: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    if variable is not None:
        monkeypatch.setenv(variable, "2")
    several, alone = Processes(), Processes()
    several.comm = object()
    assert (several.threads() is one_blas_thread) == (variable is None)
    assert alone.threads() is not one_blas_thread


@mpi.needs_mpi
def test_what_one_process_raises_ends_all(tmp_path: Path) -> None:
    done = mpi.run(2, mpi_programs.__file__, "fails", "none", cwd=tmp_path)
    assert done.returncode != 0
    assert "ArgumentError: x has shape (1, 5); it must be (N, 2) or (2,)" in done.stderr


COMMAND = ("-m", "dlfs_gpu", "train", "--mpi", *QUICK)


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A folder with the data of the commands."""
    write_flowers(tmp_path / "flowers.csv")
    return tmp_path


@mpi.needs_mpi
class TestCommands:
    def test_train(self, here: Path) -> None:
        for count in (1, 2):
            done = mpi.run(count, *COMMAND, "--iterations", "30", "--out", str(count), cwd=here)
            assert done.returncode == 0, done.stderr
            assert done.stdout.count("results in") == 1
            summary = json.loads((here / str(count) / "summary.json").read_text())
            assert summary["processes"] == count
        for name in ("model.safetensors", "history.csv"):
            assert (here / "1" / name).read_bytes() == (here / "2" / name).read_bytes()

    def test_gradcheck(self, tmp_path: Path) -> None:
        arguments = ("-m", "dlfs_gpu", "gradcheck", "--mpi", "--mini-batch-size", "5")
        done = mpi.run(2, *arguments, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("gradients agree") == 1

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (("train",), "--mpi must be given: mpiexec has started 2 processes"),
            (("info",), "info runs in one process; mpiexec has started 2"),
            ((*COMMAND[2:4], "--mini-batch-size", "1"), "--mpi has 2 processes; a minibatch of 1"),
            ((*COMMAND[2:4], "--data", "none.csv"), "none.csv: No such file or directory"),
        ],
    )
    def test_bad_input(self, arguments: tuple[str, ...], message: str, tmp_path: Path) -> None:
        done = mpi.run(2, "-m", "dlfs_gpu", *arguments, cwd=tmp_path)
        assert done.returncode == 2
        assert f"dlfs-gpu: {message}" in done.stderr
        assert "Traceback" not in done.stderr
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.skipif(sys.platform == "win32", reason="Windows has other signals")
    def test_a_signal_to_one_ends_all_at_one_update_with_results(self, here: Path) -> None:
        with self.started(here) as (process, pids):
            os.kill(pids[1], signal.SIGTERM)
            process.communicate(timeout=60)
        assert process.returncode != 0
        summary = json.loads((here / "a" / "summary.json").read_text())
        assert (summary["stopped"], summary["signal"]) == ("interrupted", "SIGTERM")
        assert names_in(here / "a") == {*RESULTS, CHECKPOINT}

    @pytest.mark.skipif(sys.platform == "win32", reason="Windows has other signals")
    @pytest.mark.parametrize("rank", [0, 1])
    def test_one_that_is_killed_ends_all_with_nothing_half_written(
        self, rank: int, here: Path
    ) -> None:
        with self.started(here) as (process, pids):
            os.kill(pids[rank], signal.SIGKILL)
            process.communicate(timeout=60)
        assert process.returncode != 0
        # A folder of what was being written may be left; the next run removes it.
        names = {name for name in names_in(here / "a") if not name.startswith(".dlfs_gpu-")}
        assert names <= {CHECKPOINT}

    @pytest.mark.once
    @pytest.mark.skipif(sys.platform == "win32", reason="Windows has other signals")
    @pytest.mark.parametrize(
        ("name", "gradient", "count"),
        [("SIGKILL", "backprop", 4), ("SIGTERM", "backprop", 1), ("SIGKILL", "difference", 1)],
    )
    def test_stopped_on_two_and_resumed_on_others(
        self, name: str, gradient: str, count: int, here: Path
    ) -> None:
        options = (
            *("--gradient", gradient, "--optimizer", "adam", "--dropout-ratio", "0.2"),
            *("--validation-split", "0.2", "--patience", "99", "--iterations", "60"),
            *("--kernels", "off"),
        )
        done = mpi.run(1, *COMMAND, *options, "--out", "straight", cwd=here)
        assert done.returncode == 0, done.stderr
        killed = (mpi_programs.__file__, "interrupted", str(signal.Signals[name].value), "30")
        rest = (*COMMAND[2:], *options, "--checkpoint-every", "1e-9", "--out", "a")
        done = mpi.run(2, *killed, *rest, cwd=here)
        assert done.returncode != 0
        assert CHECKPOINT in names_in(here / "a")
        done = mpi.run(count, *COMMAND[:4], "--resume", "a", cwd=here)
        assert done.returncode == 0, done.stderr
        assert "may differ" not in done.stderr
        assert names_in(here / "a") == set(RESULTS)
        for result in ("model.safetensors", "history.csv"):
            expected = (here / "straight" / result).read_bytes()
            assert (here / "a" / result).read_bytes() == expected

    @contextlib.contextmanager
    def started(self, folder: Path) -> Iterator[tuple[subprocess.Popen[str], list[int]]]:
        """Start an endless training, and yield mpiexec and the processes' numbers."""
        arguments = (*COMMAND[2:], "--iterations", "100000000", "--out", "a")
        process = mpi.start(2, mpi_programs.__file__, "command", *arguments, cwd=folder)
        try:
            while not all((folder / f"training-{rank}").exists() for rank in range(2)):
                assert process.poll() is None
                time.sleep(0.05)
            yield process, [int((folder / f"training-{rank}").read_text()) for rank in range(2)]
        finally:
            process.kill()


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if not path.name.startswith(".dlfs_gpu-")}


def test_mpi_without_mpi4py(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    with pytest.raises(ArgumentError, match=r'mpi needs mpi4py: pip install "dlfs-gpu\[mpi\]"'):
        world()


@pytest.mark.skipif(importlib.util.find_spec("mpi4py") is None, reason="mpi4py is not installed")
def test_mpi_without_mpi(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "dlfs_gpu", "train", "--mpi"],
        cwd=tmp_path,
        env=mpi.ENVIRONMENT | {"MPI4PY_LIBMPI": "none.so"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("dlfs-gpu: --mpi needs MPI: ")
    assert len(done.stderr.splitlines()) == 1


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
        several = Processes()
        several.size = size
        shares = several.shares(total, block)
        assert len(shares) == size
        assert [k for share in shares for k in range(total)[share]] == list(range(total))
        assert all(share.start % block == 0 for share in shares if share.start < share.stop)
        counts = [-(-(share.stop - share.start) // block) for share in shares]
        assert max(counts) - min(counts) <= 1

"""What training and numerical gradients make of the kernels, on a stand-in for CuPy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from dlfs_gpu._validation import ArgumentError
from dlfs_gpu.kernels import KernelWarning, kernels_mode, report, use_kernels
from dlfs_gpu.layers import Sigmoid
from dlfs_gpu.models import MultiLayerNet, TwoLayerNet
from dlfs_gpu.optimizers import SGD, Momentum
from dlfs_gpu.training import Trainer
from dlfs_gpu.training.update import Update
from kernels.fake_cupy import CompileException, CUDADriverError, FakeCupy, fake
from kernels.problems import Arrays, Problem, error, make_problem, updated

INDICES = np.random.default_rng(1).integers(40, size=(5, 5))
LR = 0.1
LAYERS = {"gather", "activation", "softmax", "columns"}
PRODUCTS = {"forward", "last", "back", "weights"}


def train(
    problem: Problem, network: Any = None, *, optimizer: Any = None, t: Any = None, x: Any = None
) -> tuple[list[Any], Any]:
    """Do five updates; return the losses as they came, and the network."""
    network = problem.network() if network is None else network
    x = fake.asarray(problem.x) if x is None else x
    t = fake.asarray(problem.labels) if t is None else t
    update = Update(network, optimizer or SGD(LR), x, t, INDICES.shape[1])
    return [losses.host for losses in update.run(fake.asarray(INDICES))], network


def gradient(problem: Problem, network: Any = None, t: Any = None, **options: Any) -> Arrays:
    network = problem.network() if network is None else network
    t = fake.asarray(problem.labels) if t is None else t
    return dict(network.numerical_gradient(fake.asarray(problem.x), t, **options))


def assert_trained(problem: Problem, parts: list[Any], network: Any, launches: int = 1) -> None:
    """Check that the updates were done, in so many parts."""
    expected, losses = updated(problem, INDICES, LR)
    assert [len(part) for part in parts] == [len(INDICES) // launches] * launches
    np.testing.assert_allclose(np.concatenate(parts), losses, rtol=1e-5)
    for key, param in network.params.items():
        assert error(param, expected[key]) < 1e-6


def assert_differentiated(problem: Problem, grads: Arrays) -> None:
    with use_kernels("off"):
        expected = problem.network("numpy", "float64").numerical_gradient(problem.x, problem.labels)
    for key, grad in grads.items():
        assert error(grad, expected[key]) < 1e-6


class TestMode:
    def test_order(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("DLFS_GPU_KERNELS", raising=False)
        assert kernels_mode() == "auto"
        monkeypatch.setenv("DLFS_GPU_KERNELS", "off")
        assert kernels_mode() == "off"
        with use_kernels("auto"):
            assert kernels_mode() == "auto"
            with use_kernels("off"):
                assert kernels_mode() == "off"
            assert kernels_mode() == "auto"
        assert kernels_mode() == "off"

    def test_unknown(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with pytest.raises(ArgumentError) as caught, use_kernels("on"):  # type: ignore[arg-type]
            pass
        assert caught.value.argument == "kernels"
        monkeypatch.setenv("DLFS_GPU_KERNELS", "yes")
        with pytest.raises(ArgumentError) as caught:
            kernels_mode()
        assert caught.value.argument == "DLFS_GPU_KERNELS"

    def test_off(self, cupy: FakeCupy) -> None:
        problem = make_problem()
        with use_kernels("off"):
            assert_trained(problem, *train(problem), launches=5)
            assert_differentiated(problem, gradient(problem))
        assert cupy.launches == []
        assert report() == []


class TestLaunches:
    """Grid, block and bytes of shared memory."""

    def test_training(self, cupy: FakeCupy) -> None:
        cupy.attributes["MultiProcessorCount"] = 2
        problem = make_problem()
        assert_trained(problem, *train(problem))
        # 5 samples of 8 inputs; 128 partial sums of 7 hidden units; up to 512 inputs, listed.
        shared = 4 * (5 * 8 + 128 * 7 + 512) + 2 * 512
        assert cupy.launches == 2 * [((2,), (512,), shared)]

    def test_no_more_blocks_than_there_is_work_for(self, cupy: FakeCupy) -> None:
        cupy.attributes["MultiProcessorCount"] = 132
        train(make_problem())
        # 3 tiles of W1 and 4 of W2.
        assert cupy.launches[0][0] == (7,)

    def test_differences(self, cupy: FakeCupy) -> None:
        problem = make_problem(samples=140)
        assert_differentiated(problem, gradient(problem))
        # 130 samples are compared first.
        for first, samples in ((0, 130), (3, 140)):
            assert cupy.launches[first : first + 3] == [
                ((samples,), (256,), 0),
                ((21, 1), (32, 4), 0),
                ((8, 1), (32, 4), 0),
            ]
        assert len(cupy.launches) == 6

    def test_a_trainer(self, cupy: FakeCupy) -> None:
        """A launch for each epoch, and the losses of the array operations."""
        problem = make_problem()
        histories = []
        for mode in ("auto", "off"):
            with use_kernels(mode):
                data = fake.asarray(problem.x), fake.asarray(problem.labels)
                trainer = Trainer(
                    problem.network(), *data, epochs=3, mini_batch_size=5, seed=0, verbose=False
                )
                histories.append(trainer.train())
        assert len(cupy.launches) == 3 + 1
        assert len(histories[0].losses) == 24
        np.testing.assert_allclose(histories[0].losses, histories[1].losses, rtol=1e-5)


class TestProof:
    def test_training(self, cupy: FakeCupy) -> None:
        problem = make_problem()
        assert_trained(problem, *train(problem))
        assert [str(status) for status in report()] == ["training on cuda:0: passed"]
        # Three updates were compared first, on a copy; another network of the same sizes is not.
        assert len(cupy.launches) == 2
        train(problem)
        assert len(cupy.launches) == 3

    def test_another_size_is_compared_for_itself(self, cupy: FakeCupy) -> None:
        train(make_problem())
        train(make_problem((5, 1, 2)))
        assert len(cupy.launches) == 4

    def test_differences(self, cupy: FakeCupy) -> None:
        problem = make_problem(samples=8)
        for launches in (6, 9):
            assert_differentiated(problem, gradient(problem))
            assert len(cupy.launches) == launches
        assert [str(status) for status in report()] == ["differences on cuda:0: passed"]

    def test_other_numbers(self, cupy: FakeCupy) -> None:
        cupy.mutations = [("own[k] += partial", "own[k] -= partial")]
        problem = make_problem()
        with pytest.warns(KernelWarning, match="the change of W1 differs") as caught:
            assert_trained(problem, *train(problem))
        assert len(caught) == 1
        # From then on other kernels do it, for all networks, without a further warning.
        cupy.launched.clear()
        other = make_problem((5, 1, 2))
        assert_trained(other, *train(other))
        assert set(cupy.launched) == PRODUCTS
        assert [status.failure is None for status in report()] == [False, True]
        # Differences are another kind.
        cupy.mutations = []
        cupy.launched.clear()
        gradient(problem)
        assert len(cupy.launched) == 6

    def test_differences_of_other_numbers(self, cupy: FakeCupy) -> None:
        cupy.mutations = [("T(scale * sum)", "T(scale * sum * 1.001)")]
        problem = make_problem(samples=8)
        with pytest.warns(KernelWarning, match="the gradient of W1 differs"):
            assert_differentiated(problem, gradient(problem))

    def test_other_losses(self, cupy: FakeCupy) -> None:
        cupy.mutations = [("losses[update] = sum / SAMPLES", "losses[update] = sum")]
        problem = make_problem()
        with pytest.warns(KernelWarning, match="the loss differs"):
            assert_trained(problem, *train(problem))

    def test_other_numbers_of_layers(self, cupy: FakeCupy) -> None:
        cupy.mutations = [("sums[0][0] / samples", "sums[0][0]")]
        problem = make_problem((20, 7, 33))
        with pytest.warns(KernelWarning, match=r"the layers kernel .*the loss differs") as caught:
            assert_trained(problem, *train(problem), launches=5)
        assert len(caught) == 1
        cupy.launches.clear()
        train(problem, optimizer=Momentum(LR))
        assert cupy.launches == []

    def test_numbers_that_are_not_finite_prove_nothing(self, cupy: FakeCupy) -> None:
        problem = make_problem()
        problem.params["b2"][0] = np.nan
        with np.errstate(invalid="ignore"):
            parts, _ = train(problem)
        assert np.isnan(parts).all()
        assert len(parts) == 5
        assert report() == []


class TestFailures:
    @pytest.mark.parametrize(
        "problem",
        [
            CompileException("kernels.cu(1): error: no such thing\nmore"),
            ImportError("libnvrtc.so.13: cannot open shared object file"),
            RuntimeError("Failed to find NVRTC"),
            CUDADriverError("CUDA_ERROR_NO_BINARY_FOR_GPU"),
        ],
        ids=lambda problem: type(problem).__name__,
    )
    def test_compiling(self, cupy: FakeCupy, problem: Exception) -> None:
        cupy.compile_error = problem
        first_line = str(problem).partition("\n")[0]
        network = make_problem()
        with pytest.warns(KernelWarning, match="kernel on cuda:0 is not used") as caught:
            assert_trained(network, *train(network), launches=5)
        kinds = ("training", "products", "layers")
        for warning, kind in zip(caught, kinds, strict=True):
            assert str(warning.message).startswith(f"the {kind} kernel")
            assert first_line in str(warning.message)
        train(network)
        with pytest.warns(KernelWarning, match="differences kernel"):
            assert_differentiated(network, gradient(network))
        assert [status.failure is None for status in report()] == 4 * [False]

    def test_a_cache_that_cannot_be_written(self, cupy: FakeCupy) -> None:
        cupy.compile_error = PermissionError(13, "Permission denied", "/home/me/.cupy")
        with pytest.warns(KernelWarning, match=r"CUPY_CACHE_DIR.*/home/me/\.cupy"):
            train(make_problem())

    def test_launching(self, cupy: FakeCupy) -> None:
        cupy.launch_error = CUDADriverError("CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE")
        problem = make_problem()
        with pytest.warns(KernelWarning, match="COOPERATIVE_LAUNCH_TOO_LARGE"):
            assert_trained(problem, *train(problem), launches=5)

    @pytest.mark.parametrize("proved", [False, True])
    def test_out_of_memory_changes_nothing(self, cupy: FakeCupy, proved: bool) -> None:
        problem = make_problem()
        if proved:
            train(problem)
        network = problem.network()
        update = Update(network, SGD(LR), fake.asarray(problem.x), fake.asarray(problem.labels), 5)
        cupy.memory = 2
        with pytest.warns(KernelWarning, match="Out of memory"):
            assert update._launched(fake.asarray(INDICES)) is None
        for key, param in network.params.items():
            np.testing.assert_array_equal(param.get(), problem.params[key])

    def test_a_stop_by_the_user_is_none(self, cupy: FakeCupy) -> None:
        cupy.launch_error = KeyboardInterrupt()  # type: ignore[assignment]
        with pytest.raises(KeyboardInterrupt):
            train(make_problem())
        assert report() == []


class Own(TwoLayerNet):
    """A network with its own gradient, which is nothing."""

    def gradient(self, x: Any, t: Any) -> Any:
        return {key: 0 * grad for key, grad in super().gradient(x, t).items()}


def transposed(W: Any) -> Any:
    return fake.asarray(np.asfortranarray(W.host))


class TestUnfit:
    """What one launch does not take, or no kernel: others do it without a warning."""

    @pytest.mark.parametrize(
        "sizes", [(20, 7, 33), (20, 129, 3), (4097, 7, 3)], ids=["classes", "hidden", "inputs"]
    )
    def test_sizes(self, cupy: FakeCupy, sizes: tuple[int, int, int]) -> None:
        problem = make_problem(sizes)
        assert_trained(problem, *train(problem))
        kind, launched = ("products", PRODUCTS) if sizes[-1] <= 32 else ("layers", LAYERS)
        assert set(cupy.launched) == launched
        assert [str(status) for status in report()] == [f"{kind} on cuda:0: passed"]

    @pytest.mark.parametrize("sizes", [(20, 7, 33), (2, 513, 3)], ids=["classes", "hidden"])
    def test_sizes_for_differences(self, cupy: FakeCupy, sizes: tuple[int, int, int]) -> None:
        problem = make_problem(sizes, samples=4)
        assert_differentiated(problem, gradient(problem))
        assert cupy.launches == []

    def test_large_minibatches(self, cupy: FakeCupy) -> None:
        problem = make_problem(samples=600)
        data = fake.asarray(problem.x), fake.asarray(problem.labels)
        update = Update(problem.network(), SGD(LR), *data, 513)
        assert len(list(update.run(fake.asarray(np.arange(513)[None])))) == 1
        assert set(cupy.launched) == PRODUCTS

    def test_several_hidden_layers(self, cupy: FakeCupy) -> None:
        problem = make_problem()
        network = MultiLayerNet(20, [7, 4], 3, seed=0, backend="cupy")
        assert len(train(problem, network)[0]) == 1
        gradient(problem, network)
        assert set(cupy.launched) == PRODUCTS

    @pytest.mark.parametrize("change", ["subclass", "decay", "soft targets", "order"])
    def test_what_the_kernel_would_not_do(self, cupy: FakeCupy, change: str) -> None:
        problem = make_problem()
        network: Any = problem.network()
        options: dict[str, Any] = {}
        if change == "subclass":
            network = Own(20, 7, 3, seed=0, backend="cupy")
        elif change == "decay":
            network.weight_decay_lambda = 0.1
        elif change == "soft targets":
            options["t"] = fake.asarray(np.full((40, 3), 1 / 3, np.float32))
        else:
            network.params["W1"] = transposed(network.params["W1"])
        parts, _ = train(problem, network, **options)
        assert len(parts) == 5
        assert cupy.launches == []

    def test_what_differences_would_not_be(
        self, cupy: FakeCupy, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        problem = make_problem()
        gradient(problem, t=fake.asarray(np.full((40, 3), 1 / 3, np.float32)))
        original = Sigmoid.forward
        monkeypatch.setattr(Sigmoid, "forward", lambda self, x: original(self, x))
        gradient(problem)
        assert cupy.launches == []

    def test_one_hot_targets_and_weight_decay(self, cupy: FakeCupy) -> None:
        problem = make_problem()
        t = fake.asarray(np.eye(3, dtype=np.float32)[problem.labels])
        assert_trained(problem, *train(problem, t=t))
        assert_differentiated(problem, gradient(problem, t=t))
        network = problem.network()
        network.weight_decay_lambda = 0.5
        grads = gradient(problem, network, t)
        for key, expected in gradient(problem).items():
            decay = 0.5 * problem.params[key] if key.startswith("W") else 0
            assert error(grads[key], expected.host + decay) < 1e-6
        assert len(cupy.launches) == 2 + 6 + 3 + 3

    def test_a_budget_that_is_too_small(self, cupy: FakeCupy) -> None:
        with pytest.raises(ArgumentError) as caught:
            gradient(make_problem(), max_memory=100)
        assert caught.value.argument == "max_memory"
        assert cupy.launches == []

    def test_arrays(self, cupy: FakeCupy) -> None:
        problem = make_problem()
        fitting = fake.asarray(problem.x)
        other = fake.asarray(np.asfortranarray(problem.x))
        assert len(train(problem, x=other)[0]) == 5
        assert cupy.launches == []
        assert len(train(problem, x=fitting)[0]) == 1

    @pytest.mark.parametrize(
        "change",
        [
            lambda cupy: cupy.attributes.update(CooperativeLaunch=0),
            lambda cupy: cupy.attributes.update(MaxSharedMemoryPerBlockOptin=10_000),
            lambda cupy: setattr(cupy, "compute_capability", "61"),
        ],
        ids=["no cooperative launch", "too little shared memory", "an old device"],
    )
    def test_devices(self, cupy: FakeCupy, change: Callable[[FakeCupy], None]) -> None:
        change(cupy)
        problem = make_problem()
        assert_trained(problem, *train(problem))
        assert set(cupy.launched) == PRODUCTS

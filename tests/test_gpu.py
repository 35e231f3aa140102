"""What only a GPU can show: its kernels pass their proof, and it comes to what the CPU comes to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dlfs_gpu.backend import BackendError, get_backend
from dlfs_gpu.kernels import proof, report, use_kernels
from dlfs_gpu.models import MultiLayerNet
from dlfs_gpu.training import Trainer

SIZES = (784, 50, 10)
# By the kernels that train them.
DEEP = {"products": (784, 100, 64, 10), "layers": (784, 40, 40)}
TOLERANCE = {"float32": 1e-4, "float64": 1e-9}


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that has not used a kernel yet, with a GPU."""
    try:
        get_backend("cupy")
    except BackendError as error:
        pytest.skip(str(error).splitlines()[0])
    monkeypatch.delenv("DLFS_GPU_KERNELS", raising=False)
    monkeypatch.setattr(proof, "_statuses", {})
    monkeypatch.setattr(proof, "_passed", set())


def network(
    backend: str, activation: str, dtype: str, sizes: tuple[int, ...] = SIZES
) -> MultiLayerNet:
    inputs, *hidden, classes = sizes
    return MultiLayerNet(inputs, hidden, classes, activation, dtype=dtype, seed=0, backend=backend)


def samples(dtype: str) -> tuple[np.ndarray, np.ndarray]:
    """Images as sparse as MNIST's, of ten kinds."""
    rng = np.random.default_rng(0)
    labels = rng.integers(10, size=600)
    drawn = rng.random((10, 784)) < 0.4
    x = rng.random((600, 784)) * (drawn[labels] & (rng.random((600, 784)) < 0.5))
    return x.astype(dtype), labels


def train(
    backend: str,
    activation: str,
    dtype: str,
    sizes: tuple[int, ...] = SIZES,
    optimizer: str = "SGD",
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Return the losses of 100 updates, and the parameters."""
    model = network(backend, activation, dtype, sizes)
    data = [model.backend.asarray(array) for array in samples(dtype)]
    x, t = data
    trainer = Trainer(model, x, t, iterations=100, optimizer=optimizer, seed=0, verbose=False)
    losses = trainer.train().losses
    return losses, {key: model.backend.to_numpy(p) for key, p in model.params.items()}


@pytest.mark.parametrize("kernels", ["auto", "off"])
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("activation", ["sigmoid", "tanh", "relu"])
def test_training_as_on_the_cpu(activation: str, dtype: str, kernels: Any) -> None:
    with use_kernels(kernels):
        losses, params = train("cupy", activation, dtype)
    passed = ["training on cuda:0: passed"] if kernels == "auto" else []
    assert [str(status) for status in report()] == passed
    expected, expected_params = train("numpy", activation, dtype)
    assert expected[-1] < expected[0]
    np.testing.assert_allclose(losses, expected, rtol=TOLERANCE[dtype])
    for key, param in params.items():
        assert np.linalg.norm(param - expected_params[key]) < TOLERANCE[dtype] * np.linalg.norm(
            expected_params[key]
        )


@pytest.mark.parametrize("kind", DEEP)
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("optimizer", ["SGD", "Momentum"])
def test_deep_networks_as_on_the_cpu(optimizer: str, dtype: str, kind: str) -> None:
    losses, params = train("cupy", "sigmoid", dtype, DEEP[kind], optimizer)
    kinds = [kind] if optimizer == "SGD" else [kind, "step"]
    assert [str(status) for status in report()] == [f"{kind} on cuda:0: passed" for kind in kinds]
    expected, expected_params = train("numpy", "sigmoid", dtype, DEEP[kind], optimizer)
    np.testing.assert_allclose(losses, expected, rtol=TOLERANCE[dtype])
    for key, param in params.items():
        assert np.linalg.norm(param - expected_params[key]) < TOLERANCE[dtype] * np.linalg.norm(
            expected_params[key]
        )


@pytest.mark.parametrize("sizes", [SIZES, *DEEP.values()])
def test_the_same_bits_in_every_run(sizes: tuple[int, ...]) -> None:
    losses, params = train("cupy", "sigmoid", "float32", sizes=sizes)
    again, again_params = train("cupy", "sigmoid", "float32", sizes=sizes)
    np.testing.assert_array_equal(again, losses)
    for key, param in params.items():
        np.testing.assert_array_equal(again_params[key], param)


@pytest.mark.parametrize("optimizer", ["SGD", "Adam"])
@pytest.mark.parametrize("sizes", [SIZES, *DEEP.values()])
def test_resuming(sizes: tuple[int, ...], optimizer: str, tmp_path: Path) -> None:
    """From a checkpoint in the middle to the same bits."""
    model = network("cupy", "sigmoid", "float32", sizes)
    x, t = (model.backend.asarray(array) for array in samples("float32"))

    def save(trainer: Trainer) -> None:
        trainer.save(tmp_path / f"{len(trainer.history.losses)}.safetensors")

    whole = Trainer(
        model,
        x,
        t,
        epochs=10,
        mini_batch_size=50,
        optimizer=optimizer,
        verbose=False,
        seed=0,
        callback=save,
    )
    losses = whole.train().losses
    resumed = Trainer.resume(tmp_path / "60.safetensors", x, t, verbose=False)
    np.testing.assert_array_equal(resumed.train().losses, losses)
    for key, param in resumed.network.params.items():
        np.testing.assert_array_equal(param.get(), model.params[key].get())


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("activation", ["sigmoid", "tanh", "relu"])
def test_differences_against_the_cpu(activation: str, dtype: str) -> None:
    model = network("cupy", activation, dtype)
    x, t = (array[:100] for array in samples(dtype))
    grads = model.numerical_gradient(*map(model.backend.asarray, (x, t)))
    assert [str(status) for status in report()] == ["differences on cuda:0: passed"]
    h = float(np.dtype(dtype).type(1e-4))
    exact = network("numpy", activation, dtype)
    for key, param in exact.params.items():
        exact.params[key] = param.astype(np.float64)
    with use_kernels("off"):
        expected = exact.numerical_gradient(x.astype(np.float64), t, h)
    eps = np.finfo(dtype).eps
    for key, grad in grads.items():
        difference = model.backend.to_numpy(grad) - expected[key]
        assert np.linalg.norm(difference) < 20 * eps * np.linalg.norm(expected[key])

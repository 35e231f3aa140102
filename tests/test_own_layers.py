"""Layers that people write with nothing but forward and backward: their numerical gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dlfs_gpu import (
    Affine,
    Dropout,
    Network,
    Relu,
    Sigmoid,
    SoftmaxWithLoss,
    check_gradients,
)


class LeakyRelu:
    def __init__(self, slope: float = 0.1) -> None:
        self.slope = slope

    def forward(self, x: Any) -> Any:
        self.negative = x < 0
        return np.where(self.negative, self.slope * x, x)

    def backward(self, dout: Any) -> Any:
        return np.where(self.negative, self.slope * dout, dout)


class BatchNorm:
    """Normalises each feature over the batch, and keeps running statistics (6.3)."""

    def __init__(self, features: int) -> None:
        self.params = {"gamma": np.linspace(0.5, 1.5, features), "beta": np.zeros(features)}
        self.grads: dict[str, Any] = {}
        self.running_mean = np.zeros(features)
        self.train_flg = True

    def forward(self, x: Any) -> Any:
        if not self.train_flg:
            return self.params["gamma"] * (x - self.running_mean) + self.params["beta"]
        mean = x.mean(axis=0)
        self.centred = x - mean
        self.std = np.sqrt(np.mean(self.centred**2, axis=0) + 1e-6)
        self.normal = self.centred / self.std
        self.running_mean = 0.9 * self.running_mean + 0.1 * mean
        return self.params["gamma"] * self.normal + self.params["beta"]

    def backward(self, dout: Any) -> Any:
        self.grads = {"gamma": np.sum(self.normal * dout, axis=0), "beta": dout.sum(axis=0)}
        n = dout.shape[0]
        d = self.params["gamma"] * dout
        dstd = -np.sum(d * self.normal, axis=0) / self.std
        dcentred = d / self.std + self.centred * dstd / (n * self.std)
        return dcentred - dcentred.mean(axis=0)


class Convolution:
    """Filters W, (FN, C, FH, FW), over images given as rows, by im2col (7.4)."""

    def __init__(self, shape: tuple[int, int, int], filters: int, size: int, pad: int) -> None:
        rng = np.random.default_rng(3)
        self.shape, self.pad = shape, pad
        self.params = {
            "W": 0.3 * rng.normal(size=(filters, shape[0], size, size)),
            "b": 0.1 * rng.normal(size=filters),
        }
        self.grads: dict[str, Any] = {}

    def _places(self) -> tuple[Any, Any, Any]:
        """Channel, row and column of each element of im2col's rows, for each place of a filter."""
        _, _, fh, fw = self.params["W"].shape
        channels, height, width = self.shape
        oh, ow = height + 2 * self.pad - fh + 1, width + 2 * self.pad - fw + 1
        channel, i, j = (a.ravel() for a in np.indices((channels, fh, fw)))
        row, column = (a.ravel()[:, None] for a in np.indices((oh, ow)))
        return channel[None, :], row + i, column + j

    def forward(self, x: Any) -> Any:
        images = x.reshape(-1, *self.shape)
        edge = (self.pad, self.pad)
        images = np.pad(images, ((0, 0), (0, 0), edge, edge))
        W = self.params["W"]
        self.columns = images[:, *self._places()]  # (N, places, C·FH·FW)
        out = self.columns @ W.reshape(W.shape[0], -1).T + self.params["b"]
        return out.reshape(out.shape[0], -1)

    def backward(self, dout: Any) -> Any:
        W = self.params["W"]
        n = self.columns.shape[0]
        dout = dout.reshape(n, -1, W.shape[0])
        self.grads = {
            "W": np.einsum("npf,npk->fk", dout, self.columns).reshape(W.shape),
            "b": dout.sum(axis=(0, 1)),
        }
        channels, height, width = self.shape
        images = np.zeros((n, channels, height + 2 * self.pad, width + 2 * self.pad))
        places: Any = (slice(None), *self._places())
        np.add.at(images, places, dout @ W.reshape(W.shape[0], -1))
        inner = slice(self.pad, -self.pad or None)
        return images[:, :, inner, inner].reshape(n, -1)


class WrongConvolution(Convolution):
    def backward(self, dout: Any) -> Any:
        result = super().backward(dout)
        self.grads["W"][1, 0, 1, 0] *= 1.001
        return result


def affine(inputs: int, outputs: int) -> Affine:
    rng = np.random.default_rng(inputs)
    return Affine(0.4 * rng.normal(size=(inputs, outputs)), 0.1 * rng.normal(size=outputs))


def networks() -> dict[str, Network]:
    convolution = Convolution((1, 4, 4), 2, 3, 1)
    return {
        "LeakyRelu": Network([affine(16, 5), LeakyRelu(), affine(5, 3)]),
        "BatchNorm": Network([affine(16, 5), BatchNorm(5), Sigmoid(), affine(5, 3)]),
        "Convolution": Network([convolution, Relu(), affine(32, 3)]),
        "all": Network(
            [
                Convolution((1, 4, 4), 2, 3, 1),
                BatchNorm(32),
                LeakyRelu(),
                Dropout(0.3, seed=1),
                affine(32, 4),
                Sigmoid(),
                affine(4, 3),
            ],
            weight_decay_lambda=0.1,
        ),
    }


def batch() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.normal(size=(6, 16)), rng.integers(3, size=6)


@pytest.mark.parametrize("name", networks())
class TestOwnLayers:
    def test_gradients_are_the_loops(self, name: str) -> None:
        """Of all parameters, at a step that leaves a truncation error."""
        network = networks()[name]
        network.freeze_dropout()
        x, t = batch()
        network.loss(x, t)
        expected = network.numerical_gradient(x, t, 0.01, "loop")
        result = network.numerical_gradient(x, t, 0.01)
        assert result.keys() == network.params.keys()
        for key, gradient in expected.items():
            np.testing.assert_allclose(result[key], gradient, rtol=1e-8, atol=1e-11)

    def test_checks_pass(self, name: str) -> None:
        network = networks()[name]
        network.freeze_dropout()
        report = check_gradients(network, *batch())
        assert report.ok, str(report)
        assert report.method == "difference"

    def test_nothing_is_left_behind(self, name: str) -> None:
        """What layers keep comes from one pass of training, and holds no changes."""
        network, other = networks()[name], networks()[name]
        x, t = batch()
        network.numerical_gradient(x, t)
        other.gradient(x, t)
        np.testing.assert_array_equal(network.predict(x), other.predict(x))
        np.testing.assert_array_equal(network.gradient(x, t)["W1"], other.gradient(x, t)["W1"])

    def test_dropout_that_is_not_frozen(self, name: str) -> None:
        """One draw for all: that which the pass of training makes."""
        network, frozen = networks()[name], networks()[name]
        frozen.freeze_dropout()
        x, t = batch()
        frozen.gradient(x, t)
        expected = frozen.numerical_gradient(x, t)
        for key, gradient in network.numerical_gradient(x, t).items():
            np.testing.assert_allclose(gradient, expected[key], rtol=1e-12, atol=1e-14)


def test_a_fault_is_found_where_it_is() -> None:
    network = Network([WrongConvolution((1, 4, 4), 2, 3, 1), Relu(), affine(32, 3)])
    report = check_gradients(network, *batch())
    assert [key for key, check in report.checks.items() if not check.ok] == ["W1"]
    assert report.checks["W1"].index == (1, 0, 1, 0)


def test_float32() -> None:
    """Right to 1e-6, where evaluation has an error of 1e-3 at its best step."""
    network, exact = networks()["all"], networks()["all"]
    for each in (network, exact):
        each.freeze_dropout()
    x, t = batch()
    for key, param in network.params.items():
        network.params[key] = param.astype(np.float32)
        exact.params[key] = network.params[key].astype(np.float64)
    x = x.astype(np.float32)
    result, expected = network.numerical_gradient(x, t), exact.numerical_gradient(x, t)
    for key, gradient in result.items():
        assert gradient.dtype == np.float32
        size, error = (float(np.linalg.norm(a)) for a in (expected[key], gradient - expected[key]))
        assert error <= 1e-6 * max(size, 1e-6)


def test_a_loss_of_ones_own() -> None:
    class Tempered(SoftmaxWithLoss):
        def forward(self, x: Any, t: Any) -> Any:
            return super().forward(x / 3, t)

    network = Network([affine(16, 5), Sigmoid(), affine(5, 3)], Tempered())
    x, t = batch()
    expected = network.numerical_gradient(x, t, 0.01, "loop")
    for key, gradient in network.numerical_gradient(x, t, 0.01).items():
        np.testing.assert_allclose(gradient, expected[key], rtol=1e-8, atol=1e-11)


def test_what_has_no_rule_is_named() -> None:
    class Sorted:
        def forward(self, x: Any) -> Any:
            return np.sort(x, axis=1)

        def backward(self, dout: Any) -> Any:
            return dout

    network = Network([affine(16, 5), Sorted(), affine(5, 3)])
    with pytest.raises(TypeError, match="sort has no rule") as error:
        network.numerical_gradient(*batch())
    assert "Sorted.forward" in error.value.__notes__[0]
    network.numerical_gradient(*batch(), method="loop")


def test_a_layer_that_mixes_the_columns_of_an_affine_one() -> None:
    """Its weights are not dealt out in blocks of columns."""

    class Centred(Affine):
        """An affine layer whose outputs have the mean 0."""

        def forward(self, x: Any) -> Any:
            out = super().forward(x)
            return out - out.mean(axis=-1, keepdims=True)

    rng = np.random.default_rng(0)
    W = [0.1 * rng.standard_normal(shape) for shape in ((3, 70), (70, 2))]
    network = Network([Centred(W[0]), Sigmoid(), Affine(W[1])])
    x, t = rng.standard_normal((4, 3)), np.array([0, 1, 1, 0])
    by_difference = network.numerical_gradient(x, t)
    by_loop = network.numerical_gradient(x, t, method="loop")
    for key, grad in by_loop.items():
        np.testing.assert_allclose(by_difference[key], grad, rtol=1e-6, atol=1e-10)

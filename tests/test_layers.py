"""Layers: forward, backward, and differences exact to rounding whatever their size."""

from __future__ import annotations

from decimal import Decimal, localcontext
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from libraries import Library

from dlfs_gpu._validation import ArgumentError
from dlfs_gpu.functions import relu_grad, sigmoid, sigmoid_grad
from dlfs_gpu.layers import Affine, Dropout, Identity, Relu, Sigmoid, Tanh

ACTIVATIONS: list[Any] = [Sigmoid, Tanh, Relu, Identity]


def close(actual: Any, expected: Any, lib: Library) -> None:
    assert lib.name == "numpy" or type(actual).__module__.startswith(("array_api", "cupy"))
    host = lib.to_numpy(actual)
    assert host.dtype == lib.dtype
    np.testing.assert_allclose(host, expected, rtol=50 * lib.eps, atol=50 * lib.eps)


# Forward and backward


def test_affine(lib: Library) -> None:
    x, W, b = (
        np.array([[1.0, 2], [3, 4]]),
        np.array([[1.0, 0, 2], [0, 1, -1]]),
        np.array([1.0, 2, 3]),
    )
    layer = Affine(lib.asarray(W), lib.asarray(b))
    close(layer.forward(lib.asarray(x)), [[2, 4, 3], [4, 6, 5]], lib)
    dout = np.array([[1.0, 0, 0], [0, 1, 1]])
    close(layer.backward(lib.asarray(dout)), [[1, 0], [2, 0]], lib)
    close(layer.dW, [[1, 3, 3], [2, 4, 4]], lib)
    close(layer.db, [1, 1, 1], lib)


def test_affine_without_bias(lib: Library) -> None:
    layer = Affine(lib.asarray(np.array([[2.0], [3]])))
    close(layer.forward(lib.asarray(np.array([[1.0, 1]]))), [[5]], lib)
    close(layer.backward(lib.asarray(np.array([[1.0]]))), [[2, 3]], lib)
    assert layer.db is None


def test_affine_promotes_integers() -> None:
    layer = Affine(np.array([[1, 2]]), np.array([0, 1]))
    np.testing.assert_array_equal(layer.forward(np.array([[0.5]])), [[0.5, 2]])
    assert layer.W.dtype == layer.b.dtype == np.float64


def test_bad_affine() -> None:
    with pytest.raises(ValueError, match=r"W has shape \(3,\); it must be \(inputs, outputs\)"):
        Affine(np.ones(3))
    with pytest.raises(ValueError, match=r"b has shape \(3,\); it must be \(2,\)"):
        Affine(np.ones((3, 2)), np.ones(3))
    with pytest.raises(TypeError, match="W has the type complex128; it must hold real numbers"):
        Affine(np.ones((3, 2)) + 0j)


@pytest.mark.parametrize(
    ("layer", "function", "slope"),
    [
        (Sigmoid(), sigmoid, sigmoid_grad),
        (Tanh(), np.tanh, lambda x: 1 / np.cosh(x) ** 2),
        (Relu(), lambda x: np.maximum(x, 0), relu_grad),
        (Identity(), lambda x: x, np.ones_like),
    ],
)
def test_activation(layer: Any, function: Any, slope: Any, lib: Library) -> None:
    x = np.array([[-30.0, -2, -0.5], [0, 1, 30]])
    dout = np.array([[1.0, 2, 3], [-1, 5, 1]])
    x_lib, dout_lib = lib.asarray(x), lib.asarray(dout)
    close(layer.forward(x_lib), function(x), lib)
    close(layer.backward(dout_lib), dout * slope(x), lib)
    # The book's Relu changes its arguments.
    np.testing.assert_array_equal(lib.to_numpy(x_lib), lib.to_numpy(lib.asarray(x)))
    np.testing.assert_array_equal(lib.to_numpy(dout_lib), lib.to_numpy(lib.asarray(dout)))


def test_backward_against_pytorch() -> None:
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    x, W, b = rng.standard_normal((7, 5)), rng.standard_normal((5, 4)), rng.standard_normal(4)
    dout = rng.standard_normal((7, 4))
    theirs = (torch.sigmoid, torch.tanh, torch.relu)
    for kind, function in zip(ACTIVATIONS[:3], theirs, strict=True):
        affine, activation = Affine(W, b), kind()
        out = activation.forward(affine.forward(x))
        dx = affine.backward(activation.backward(dout))
        leaves = [torch.tensor(a, requires_grad=True) for a in (x, W, b)]
        result = function(leaves[0] @ leaves[1] + leaves[2])
        result.backward(torch.tensor(dout))
        np.testing.assert_allclose(out, result.detach().numpy(), rtol=1e-12)
        for ours, leaf in zip((dx, affine.dW, affine.db), leaves, strict=True):
            np.testing.assert_allclose(ours, leaf.grad.numpy(), rtol=1e-12, atol=1e-14)


# Dropout


def test_dropout_keeps_the_mean(lib: Library) -> None:
    layer = Dropout(0.25, seed=0)
    x = lib.asarray(np.ones((100, 200)))
    out = lib.to_numpy(layer.forward(x))
    np.testing.assert_array_equal(np.unique(out), np.array([0, 1 / 0.75], lib.dtype))
    np.testing.assert_allclose(out.mean(), 1, atol=0.02)
    close(layer.backward(x), out, lib)
    # Another pass, another mask.
    assert not np.array_equal(lib.to_numpy(layer.forward(x)), out)


def test_dropout_mask_is_drawn_on_the_host(lib: Library) -> None:
    x = np.ones((5, 8))
    ours = Dropout(0.5, seed=3).forward(lib.asarray(x))
    np.testing.assert_array_equal(lib.to_numpy(ours), Dropout(0.5, seed=3).forward(x))
    assert not np.array_equal(lib.to_numpy(ours), Dropout(0.5, seed=4).forward(x))


def test_dropout_is_off_when_predicting(lib: Library) -> None:
    layer = Dropout(0.5, seed=0)
    layer.train_flg = False
    x = lib.asarray(np.ones((4, 6)))
    for out in (layer.forward(x), layer.backward(x), layer.difference(x, *layer.saved())):
        close(out, np.ones((4, 6)), lib)


def test_frozen_dropout_keeps_its_mask() -> None:
    layer = Dropout(0.5, seed=0)
    layer.frozen = True
    x = np.ones((4, 6))
    first = layer.forward(x)
    np.testing.assert_array_equal(layer.forward(x), first)
    # Stacked passes share it; a batch of another size needs another.
    np.testing.assert_array_equal(layer.forward(np.ones((3, 4, 6))), [first] * 3)
    with pytest.raises(ArgumentError, match=r"^x .*\(5, 6\).* frozen for \(4, 6\)"):
        layer.forward(np.ones((5, 6)))
    # Nor does it change the type of what it meets.
    assert layer.forward(np.ones((4, 6), np.float32)).dtype == np.float32


@pytest.mark.parametrize("ratio", [-0.1, 1, 1.5, np.nan])
def test_bad_dropout_ratio(ratio: float) -> None:
    with pytest.raises(ValueError, match=f"dropout_ratio is {ratio}"):
        Dropout(ratio)


# Differences


def exact(layer: Any, x: float, d: float) -> float:
    """The change of an activation's output, to 120 digits and then rounded."""
    with localcontext() as context:
        context.prec = 120

        def sigma(a: Decimal) -> Decimal:
            return 1 / (1 + (-a).exp())

        function: Any = {
            Sigmoid: sigma,
            Tanh: lambda a: 2 * sigma(2 * a) - 1,
            Relu: lambda a: max(a, Decimal(0)),
            Identity: lambda a: a,
        }[type(layer)]
        before = Decimal(x)
        return float(function(before + Decimal(d)) - function(before))


def sizes(largest: float) -> Any:
    """Numbers of any magnitude up to `largest`, and 0."""
    return st.builds(
        lambda sign, exponent: sign * largest * 10.0**-exponent,
        st.sampled_from([-1, 0, 1]),
        st.floats(0, 14),
    )


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("activation", ACTIVATIONS)
@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_difference_of_activations(activation: Any, dtype: Any, data: st.DataObject) -> None:
    x = dtype(data.draw(sizes(60.0)))
    # A change may be huge, tiny, or just about undo x: the kink of Relu, the middle of others.
    undo = sizes(1e-3).map(lambda shift: shift - x)
    d = dtype(data.draw(sizes(40.0) | sizes(1e4) | undo))
    layer = activation()
    layer.forward(np.full((1, 1), x))
    change = layer.difference(np.full((1, 1, 1), d), *layer.saved())
    assert change.dtype == dtype
    expected = exact(layer, float(x), float(d))
    eps = np.finfo(dtype)
    np.testing.assert_allclose(change[0, 0, 0], expected, rtol=20 * eps.eps, atol=2 * eps.tiny)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("activation", [Sigmoid, Tanh])
def test_differences_from_one_tail_to_the_other(activation: Any, dtype: Any) -> None:
    # exp(−x) is 0 or infinite here; of the last sums the type takes no more than a part.
    x = np.array([[-900, 900, -95, 95, -60, 60]], dtype)
    d = np.array([[[1000], [-1000], [96], [-96], [25.057341], [-25.057341]]], dtype)
    layer = activation()
    layer.forward(x)
    change = layer.difference(d, *layer.saved())[0, :, 0]
    pairs = zip(x[0].tolist(), d[0, :, 0].tolist(), strict=True)
    expected = [exact(layer, *pair) for pair in pairs]
    np.testing.assert_allclose(change, expected, rtol=1e-6)


@pytest.mark.parametrize(("activation", "x"), [(Sigmoid, 20.0), (Tanh, 12.0)])
def test_backward_of_saturated_units(activation: Any, x: float, lib: Library) -> None:
    # Computed from the output itself, the slope would be 0 in float32.
    layer = activation()
    layer.forward(lib.asarray([[x, -x]]))
    slope = layer.backward(lib.asarray([[1.0, 1.0]]))
    expected = sigmoid_grad(20.0) if activation is Sigmoid else np.cosh(12.0) ** -2
    np.testing.assert_allclose(lib.to_numpy(slope), [[expected] * 2], rtol=1e-5)


def test_difference_of_activations_in_any_library(lib: Library) -> None:
    rng = np.random.default_rng(0)
    x, d = rng.standard_normal((3, 4)), rng.standard_normal((3, 4, 5))
    for activation in ACTIVATIONS:
        layer = activation()
        layer.forward(lib.asarray(x))
        change = layer.difference(lib.asarray(d), *layer.saved())
        close(change, layer.forward(x[..., None] + d) - layer.forward(x[..., None]), lib)


def test_saturated_derivative_is_not_lost() -> None:
    # Computed from σ itself, 1 − σ(25) would be 0 in float32.
    layer = Sigmoid()
    layer.forward(np.array([[-25, 25]], np.float32))
    d = np.full((1, 2, 1), 1e-4, np.float32)
    change = layer.difference(d, *layer.saved())[0, :, 0]
    np.testing.assert_allclose(change, 1e-4 * sigmoid_grad(np.array([-25.0, 25])), rtol=1e-4)


def test_difference_of_dropout(lib: Library) -> None:
    layer = Dropout(0.5, seed=0)
    x, d = np.ones((3, 4)), np.random.default_rng(0).standard_normal((3, 4, 5))
    mask = lib.to_numpy(layer.forward(lib.asarray(x)))
    close(layer.difference(lib.asarray(d), *layer.saved()), d * mask[..., None], lib)


@pytest.fixture
def affine(lib: Library) -> tuple[Affine, np.ndarray]:
    """A layer 4-3, and x of 2 samples that it has seen."""
    rng = np.random.default_rng(0)
    W, b, x = rng.standard_normal((4, 3)), rng.standard_normal(3), rng.standard_normal((2, 4))
    layer = Affine(lib.asarray(W), lib.asarray(b))
    layer.forward(lib.asarray(x))
    return layer, x


def test_difference_of_affine(affine: tuple[Affine, np.ndarray], lib: Library) -> None:
    layer, x = affine
    d = np.random.default_rng(1).standard_normal((2, 4, 5))
    moved = x[..., None] + d
    before = lib.to_numpy(layer.forward(lib.asarray(x)))
    after = np.stack(
        [lib.to_numpy(layer.forward(lib.asarray(moved[..., p]))) for p in range(5)], axis=-1
    )
    close(layer.difference(lib.asarray(d), *layer.saved()), after - before[..., None], lib)


def test_weight_difference_of_affine(affine: tuple[Affine, np.ndarray], lib: Library) -> None:
    layer, x = affine
    h = 0.5
    change = lib.to_numpy(layer.weight_difference(layer.x, h))
    assert change.shape == (2, 5)
    W, b = lib.to_numpy(layer.W), lib.to_numpy(layer.b)
    before = x @ W + b
    for i in range(5):
        for j in range(3):
            moved = np.vstack([W, b])
            moved[i, j] += h
            after = x @ moved[:4] + moved[4]
            expected = np.zeros((2, 3))
            expected[:, j] = change[:, i]
            np.testing.assert_allclose(after - before, expected, atol=20 * lib.eps)

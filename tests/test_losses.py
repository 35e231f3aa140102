"""Losses: values and gradients against other sources, differences exact to rounding."""

from __future__ import annotations

from decimal import Decimal, localcontext
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from libraries import Library

from dlfs_gpu.functions import (
    log_softmax,
    mean_squared_error,
    sigmoid,
    sigmoid_cross_entropy,
    softmax,
    softmax_cross_entropy,
    sum_squared_error,
)
from dlfs_gpu.losses import (
    MeanSquaredError,
    SigmoidWithLoss,
    SoftmaxWithLoss,
    SumSquaredError,
)

N, C = 6, 4
CASES: list[Any] = [
    pytest.param(SoftmaxWithLoss, "labels", id="softmax-labels"),
    pytest.param(SoftmaxWithLoss, "one-hot", id="softmax-one-hot"),
    pytest.param(SoftmaxWithLoss, "soft", id="softmax-soft"),
    pytest.param(SoftmaxWithLoss, "weights", id="softmax-weights"),
    pytest.param(SigmoidWithLoss, "unit", id="sigmoid"),
    pytest.param(SumSquaredError, "unit", id="sum"),
    pytest.param(MeanSquaredError, "unit", id="mean"),
]
every_loss = pytest.mark.parametrize(("kind", "targets"), CASES)


def make_targets(name: str, n: int, c: int, rng: np.random.Generator) -> np.ndarray:
    labels = rng.integers(0, c, n)
    if name == "labels":
        return labels
    if name == "one-hot":
        return np.eye(c)[labels]
    if name == "soft":
        return rng.dirichlet(np.ones(c), n)
    # "weights" need not sum to 1; "unit" are separate probabilities.
    return rng.random((n, c)) * (2 if name == "weights" else 1)


def scores_and_targets(targets: str) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return 3 * rng.standard_normal((N, C)), make_targets(targets, N, C, rng)


@every_loss
def test_value(kind: Any, targets: str, lib: Library) -> None:
    x, t = scores_and_targets(targets)
    function: Any = {
        SoftmaxWithLoss: softmax_cross_entropy,
        SigmoidWithLoss: sigmoid_cross_entropy,
        SumSquaredError: lambda x, t: sum_squared_error(x, t) / N,
        MeanSquaredError: mean_squared_error,
    }[kind]
    loss = lib.to_numpy(kind().forward(lib.asarray(x), lib.asarray(t)))
    assert loss.shape == ()
    assert loss.dtype == lib.dtype
    np.testing.assert_allclose(loss, function(x, t), rtol=50 * lib.eps)


@every_loss
def test_stacked_scores(kind: Any, targets: str, lib: Library) -> None:
    x, t = scores_and_targets(targets)
    if targets == "labels":
        t = np.eye(C)[t]
    stacked = np.stack([x, 2 * x, -x])
    losses = kind().forward(lib.asarray(stacked), lib.asarray(t))
    each = [kind().forward(scores, t) for scores in stacked]
    np.testing.assert_allclose(lib.to_numpy(losses), each, rtol=50 * lib.eps)


@every_loss
def test_backward_against_differences(kind: Any, targets: str, lib: Library) -> None:
    x, t = scores_and_targets(targets)
    loss = kind()
    loss.forward(lib.asarray(x), lib.asarray(t))
    gradient = lib.to_numpy(loss.backward())
    assert gradient.dtype == lib.dtype
    h = 1e-4
    expected = np.empty((N, C))
    for index in np.ndindex(N, C):
        step = np.zeros((N, C))
        step[index] = h
        expected[index] = (kind().forward(x + step, t) - kind().forward(x - step, t)) / (2 * h)
    np.testing.assert_allclose(gradient, expected, rtol=1e-5, atol=1e-8 + 10 * lib.eps)
    np.testing.assert_allclose(lib.to_numpy(loss.backward(2.0)), 2 * gradient, rtol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("size", [8.0, 17.0, 30.0])
def test_backward_of_confident_answers(dtype: str, size: float) -> None:
    # Of y − t as it stands, nothing would be left in float32 from size 17 on.
    x = np.array([[size, 0, -1], [0, size, 1]], dtype)
    loss = SoftmaxWithLoss()
    loss.forward(x, np.array([0, 1]))
    wide = x.astype(np.longdouble)
    y = np.exp(wide) / np.exp(wide).sum(axis=1, keepdims=True)
    expected = y.copy()
    for n in range(2):
        expected[n, n] = -np.delete(y[n], n).sum()
    np.testing.assert_allclose(loss.backward(), expected / 2, rtol=10 * float(np.finfo(dtype).eps))
    binary = SigmoidWithLoss()
    binary.forward(x[:, :1], np.ones((2, 1), dtype))
    expected = -1 / (1 + np.exp(wide[:, :1]))
    np.testing.assert_allclose(binary.backward(), expected / 2, rtol=1e-6)


@every_loss
def test_against_pytorch(kind: Any, targets: str) -> None:
    torch = pytest.importorskip("torch")
    functional = torch.nn.functional
    x, t = scores_and_targets(targets)
    scores, goals = torch.tensor(x, requires_grad=True), torch.tensor(t)
    functions: dict[Any, Any] = {
        SoftmaxWithLoss: functional.cross_entropy,
        SigmoidWithLoss: lambda z, t: C * functional.binary_cross_entropy_with_logits(z, t),
        SumSquaredError: lambda z, t: functional.mse_loss(z, t, reduction="sum") / (2 * N),
        MeanSquaredError: functional.mse_loss,
    }
    theirs = functions[kind](scores, goals)
    theirs.backward()
    loss = kind()
    np.testing.assert_allclose(loss.forward(x, t), theirs.item(), rtol=1e-12)
    np.testing.assert_allclose(loss.backward(), scores.grad.numpy(), rtol=1e-11, atol=1e-15)


def test_predictions(lib: Library) -> None:
    x, _ = scores_and_targets("unit")
    answers: dict[Any, Any] = {
        SoftmaxWithLoss: softmax(x),
        SigmoidWithLoss: sigmoid(x),
        SumSquaredError: x,
        MeanSquaredError: x,
    }
    for kind, answer in answers.items():
        result = lib.to_numpy(kind().predict(lib.asarray(x)))
        np.testing.assert_allclose(result, answer, rtol=50 * lib.eps, atol=lib.eps)


# Differences


def exact(kind: Any, x: list[float], d: list[float], e: list[float], t: list[float]) -> float:
    """By how much one sample's loss is larger at x + d than at x + e, from 120 digits."""
    with localcontext() as context:
        context.prec = 120
        weights = [Decimal(value) for value in t]

        def loss(z: list[Decimal]) -> Decimal:
            pairs = list(zip(weights, z, strict=True))
            if kind is SoftmaxWithLoss:
                total = sum(a.exp() for a in z)
                assert isinstance(total, Decimal)
                return sum((w * (total.ln() - a) for w, a in pairs), Decimal(0))
            if kind is SigmoidWithLoss:
                return sum(((1 + a.exp()).ln() - w * a for w, a in pairs), Decimal(0))
            squares = sum(((a - w) ** 2 for w, a in pairs), Decimal(0))
            return squares / (2 if kind is SumSquaredError else len(z))

        ends = (
            [Decimal(value) + Decimal(change) for value, change in zip(x, changes, strict=True)]
            for changes in (d, e)
        )
        return float(loss(next(ends)) - loss(next(ends)))


def condition(kind: Any, x: np.ndarray, d: np.ndarray, t: np.ndarray) -> float:
    """What the change of one sample's loss is the sum of, without signs.

    Rounding of a few parts in eps of it is all that a sum of so many terms can promise.
    """
    x, d, t = x.astype(np.float64), d.astype(np.float64), t.astype(np.float64)
    if kind is SoftmaxWithLoss:
        d = d - d[np.argmax(x)]
        log_y = log_softmax(x)
        largest = max(0.0, np.max(log_y + d))
        after, before = np.exp(log_y + d - largest), np.exp(log_y - largest)
        change = np.abs(after - before).sum() / after.sum()
        return float(t.sum() * change * (1 + np.ptp(x)) + t @ np.abs(d))
    if kind is SigmoidWithLoss:
        return float((1 + np.abs(x)) @ np.abs(d))
    return float(np.abs(d) @ (np.abs(x - t) + np.abs(x) + np.abs(t) + np.abs(d)))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@every_loss
@settings(max_examples=100, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    classes=st.integers(1, 5),
    spread=st.sampled_from([0.1, 1, 10, 30, 150]),
    size=st.sampled_from([1e-12, 1e-8, 1e-4, 0.03, 0.1, 1, 10, 40, 100, 1e4]),
    other=st.sampled_from(["none", "opposite", "any"]),
)
def test_difference(
    kind: Any,
    targets: str,
    dtype: Any,
    seed: int,
    classes: int,
    spread: float,
    size: float,
    other: str,
) -> None:
    rng = np.random.default_rng(seed)
    x = (spread * rng.uniform(-1, 1, (1, classes))).astype(dtype)
    d, e = size * rng.uniform(-1, 1, (2, 1, classes, 1)) * (rng.random(classes) < 0.7)[:, None]
    d, e = d.astype(dtype), e.astype(dtype)
    e = {"none": np.zeros_like(d), "opposite": -d, "any": e}[other]
    t = make_targets(targets, 1, classes, rng)
    t = t if targets == "labels" else t.astype(dtype)
    weights = np.eye(classes, dtype=dtype)[t[0]] if targets == "labels" else t[0]
    loss = kind()
    loss.forward(x, t)
    change = loss.difference(d, e, *loss.saved())
    assert (change.shape, change.dtype) == ((1, 1), dtype)
    before, first, second, goal = (a.ravel().tolist() for a in (x, d, e, weights))
    expected = exact(kind, before, first, second, goal)
    scale = abs(expected) + sum(condition(kind, x[0], a[0, :, 0], weights) for a in (d, e))
    eps = np.finfo(dtype)
    # 1e-100 is what 120 digits leave of a change that is 0; below `tiny` digits are lost.
    rounding = 10 * float(eps.eps) * (scale + float(eps.tiny) / float(eps.eps)) + 1e-100
    assert abs(float(change[0, 0]) - expected) <= rounding


@every_loss
def test_difference_of_many_changes(kind: Any, targets: str, lib: Library) -> None:
    x, t = scores_and_targets(targets)
    d, e = np.random.default_rng(1).standard_normal((2, N, C, 5))
    loss = kind()
    loss.forward(lib.asarray(x), lib.asarray(t))
    change = lib.to_numpy(loss.difference(lib.asarray(d), lib.asarray(e), *loss.saved()))
    assert change.shape == (N, 5)
    for n in range(N):
        sample = t[n : n + 1]
        ends = [
            np.stack([kind().forward(x[n : n + 1] + a[n, :, p], sample) for p in range(5)])
            for a in (d, e)
        ]
        np.testing.assert_allclose(change[n], ends[0] - ends[1], atol=200 * lib.eps)


@every_loss
def test_difference_of_single_scores(kind: Any, targets: str, lib: Library) -> None:
    x, t = scores_and_targets(targets)
    for size in (1e-3, 1.0, 50.0):
        d, e = size * np.random.default_rng(1).standard_normal((2, N, C, 3))
        loss = kind()
        loss.forward(lib.asarray(x), lib.asarray(t))
        both = lib.asarray(d), lib.asarray(e)
        change = lib.to_numpy(loss.column_difference(*both, *loss.column_saved()))
        for c in range(C):
            alone = np.zeros((2, N, C, 3))
            alone[:, :, c] = d[:, c], e[:, c]
            expected = loss.difference(*map(lib.asarray, alone), *loss.saved())
            np.testing.assert_allclose(
                change[:, c], lib.to_numpy(expected), rtol=1e-4, atol=100 * lib.eps * size
            )


@pytest.mark.parametrize("gap", [1e-2, 1e-4, 1e-6])
def test_soft_targets_near_the_predictions_lose_no_digits(gap: float) -> None:
    rng = np.random.default_rng(0)
    x, d = rng.standard_normal((1, 5)), 1e-4 * rng.standard_normal((1, 5, 1))
    t = softmax(x) * (1 + gap * rng.standard_normal((1, 5)))
    t /= t.sum()
    loss = SoftmaxWithLoss()
    loss.forward(x, t)
    saved = tuple(a.astype(np.float32) for a in loss.saved())
    d = d.astype(np.float32)
    change = loss.difference(d, -d, *saved)
    lists = (a.ravel().tolist() for a in (x, d, -d, t))
    np.testing.assert_allclose(change[0, 0], exact(SoftmaxWithLoss, *lists), rtol=3e-6)


@pytest.mark.parametrize("kind", [SumSquaredError, MeanSquaredError])
def test_even_parts_of_squared_errors_lose_no_digits(kind: Any) -> None:
    """Of L(x + d) − L(x − d) nothing is left but 2·d·(x − t), times 2/C for the mean."""
    rng = np.random.default_rng(0)
    loss, error = kind(), 1e-8 * rng.standard_normal((N, C)).astype(np.float32)
    loss.forward(error, np.zeros_like(error))
    d = rng.standard_normal((N, C, 3)).astype(np.float32)
    change = loss.column_difference(d, -d, *loss.column_saved())
    expected = 2.0 * d * error[..., None] * (1.0 if kind is SumSquaredError else 2 / C)
    np.testing.assert_allclose(change, expected, rtol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_changes_that_turn_an_answer_round(dtype: str) -> None:
    # The class that had all the probability loses it: 1 + Σ y·expm1(d) alone has no digit left.
    x, d = np.array([[40.0, 0, -20]], dtype), np.array([[[-80.0], [0], [0]]], dtype)
    eps = float(np.finfo(dtype).eps)
    for label in range(3):
        loss = SoftmaxWithLoss()
        loss.forward(x, np.array([label]))
        goal = np.eye(3)[label].tolist()
        expected = exact(SoftmaxWithLoss, [40, 0, -20], [-80, 0, 0], [0] * 3, goal)
        change = loss.difference(d, 0 * d, *loss.saved())
        np.testing.assert_allclose(change[0, 0], expected, rtol=10 * eps)
        change = loss.column_difference(d, 0 * d, *loss.column_saved())
        np.testing.assert_allclose(change[0, 0, 0], expected, rtol=10 * eps)
    binary = SigmoidWithLoss()
    binary.forward(x[:, :1], np.zeros((1, 1), dtype))
    change = binary.difference(d[:, :1], 0 * d[:, :1], *binary.saved())
    expected = exact(SigmoidWithLoss, [40], [-80], [0], [0])
    np.testing.assert_allclose(change[0, 0], expected, rtol=1e-6)


@pytest.mark.parametrize("targets", ["labels", "soft", "weights"])
@pytest.mark.parametrize("reach", [1e-4, 0.01, 0.1])
def test_difference_along_lines(targets: str, reach: float, lib: Library) -> None:
    x, t = scores_and_targets(targets)
    rng = np.random.default_rng(1)
    W, (s, r) = rng.uniform(-1, 1, (5, C)) / 2, rng.uniform(-reach, reach, (2, N, 5, 2))
    loss = SoftmaxWithLoss()
    loss.forward(lib.asarray(x), lib.asarray(t))
    saved = loss.line_saved(lib.asarray(W), reach, lib.eps, 2**30)
    if saved is None:
        assert reach == 0.1
        assert lib.dtype == "float64"
        return
    change = lib.to_numpy(loss.line_difference(lib.asarray(s), lib.asarray(r), *saved))
    for j in range(5):
        d, e = (lib.asarray(a[:, None, j, :] * W[j][:, None]) for a in (s, r))
        expected = lib.to_numpy(loss.difference(d, e, *loss.saved()))
        np.testing.assert_allclose(change[:, j], expected, rtol=1e-4, atol=20 * lib.eps * reach)


def test_lines_are_left_where_terms_or_memory_do_not_suffice() -> None:
    x, t = scores_and_targets("labels")
    W = np.random.default_rng(1).standard_normal((5, C))
    loss = SoftmaxWithLoss()
    loss.forward(x, t)
    assert loss.line_saved(W, 0.01, 1e-16, 2**30) is not None
    assert loss.line_saved(W, 100.0, 1e-16, 2**30) is None
    assert loss.line_saved(W, 0.01, 1e-16, 1000) is None

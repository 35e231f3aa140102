"""Activations and losses: golden numbers, float64 references, laws, and what is refused."""

from collections.abc import Callable
from typing import Any

import array_api_strict
import numpy as np
import pytest
from errors import refused
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from libraries import Library

from dlfs_gpu.functions import (
    binary_cross_entropy_error,
    cross_entropy_error,
    function_1,
    function_2,
    identity_function,
    log_softmax,
    mean_squared_error,
    one_hot,
    relu,
    relu_grad,
    sigmoid,
    sigmoid_cross_entropy,
    sigmoid_grad,
    softmax,
    softmax_cross_entropy,
    softmax_loss,
    step_function,
    sum_squared_error,
)

Y1 = [0.1, 0.05, 0.6, 0.0, 0.05, 0.1, 0.0, 0.1, 0.0, 0.0]
Y2 = [0.1, 0.05, 0.1, 0.0, 0.05, 0.1, 0.0, 0.6, 0.0, 0.0]
ONE_HOT_2 = np.eye(10)[2]

ACTIVATIONS = [
    identity_function,
    step_function,
    sigmoid,
    sigmoid_grad,
    relu,
    relu_grad,
    softmax,
    log_softmax,
]
ELEMENTWISE = ACTIVATIONS[:6]
LOSSES = [
    sum_squared_error,
    mean_squared_error,
    cross_entropy_error,
    softmax_cross_entropy,
    softmax_loss,
    binary_cross_entropy_error,
    sigmoid_cross_entropy,
]


def reference(f: Callable[..., Any], x: np.ndarray) -> np.ndarray:
    """The defining formula of an activation in extended precision."""
    v = x.astype(np.longdouble)
    with np.errstate(over="ignore"):
        s = 1 / (1 + np.exp(-v))
        slope = 1 / (2 + np.exp(v) + np.exp(-v))
    e = np.exp(v - v.max(axis=-1, keepdims=True))
    total = e.sum(axis=-1, keepdims=True)
    values = {
        "identity_function": v,
        "step_function": np.where(v > 0, 1, 0),
        "sigmoid": s,
        "sigmoid_grad": slope,
        "relu": np.where(v > 0, v, 0),
        "relu_grad": np.where(v > 0, 1, 0),
        "softmax": e / total,
        "log_softmax": v - v.max(axis=-1, keepdims=True) - np.log(total),
    }
    return np.asarray(values[f.__name__], dtype=np.float64)


class TestGolden:
    """The chapter's numbers."""

    @pytest.mark.parametrize(
        ("loss", "y1", "y2"),
        [
            (sum_squared_error, 0.09750000000000003, 0.5975),
            (mean_squared_error, 0.0195, 0.1195),
            (cross_entropy_error, 0.510825457099338, 2.302584092994546),
        ],
    )
    def test_one_sample(self, lib: Library, loss: Callable[..., Any], y1: float, y2: float) -> None:
        for y, expected in ((Y1, y1), (Y2, y2)):
            result = loss(lib.asarray(y), lib.asarray(ONE_HOT_2))
            assert result.shape == ()
            assert float(result) == pytest.approx(expected, rel=4 * lib.eps)

    def test_cross_entropy_of_a_label(self, lib: Library) -> None:
        loss = cross_entropy_error(lib.asarray(Y1), 2)
        assert float(loss) == pytest.approx(0.510825457099338, rel=4 * lib.eps)

    def test_cross_entropy_without_the_delta(self, lib: Library) -> None:
        with np.errstate(divide="ignore"):
            scores = np.log([Y1, Y2])
        for z, expected in zip(scores, (0.5108256237659907, 2.3025850929940455), strict=True):
            loss = softmax_cross_entropy(lib.asarray(z), 2)
            assert float(loss) == pytest.approx(expected, rel=8 * lib.eps)

    def test_limits_of_the_delta(self, lib: Library) -> None:
        sure = cross_entropy_error(lib.asarray([1.0, 0.0]), 0)
        assert float(sure) == pytest.approx(-1.0e-7, rel=1e-6, abs=lib.eps)
        assert float(sure) < 0
        wrong = cross_entropy_error(lib.asarray([1.0, 0.0]), 1)
        assert float(wrong) == pytest.approx(16.118095650958, rel=4 * lib.eps)
        without = softmax_cross_entropy(lib.asarray([0.0, -1e4]), 0)
        assert float(without) == 0

    def test_batch(self, lib: Library) -> None:
        y = lib.asarray([Y1, Y2])
        for t in (lib.asarray([ONE_HOT_2, ONE_HOT_2]), lib.asarray([2, 2])):
            loss = cross_entropy_error(y, t)
            assert float(loss) == pytest.approx(1.406704775046942, rel=4 * lib.eps)

    def test_labels_pick_one_element_of_each_row(self, lib: Library) -> None:
        y = 0.01 + np.arange(50).reshape(5, 10) / 100
        picked = [y[0, 2], y[1, 7], y[2, 0], y[3, 9], y[4, 4]]
        loss = cross_entropy_error(lib.asarray(y), lib.asarray([2, 7, 0, 9, 4]))
        assert float(loss) == pytest.approx(-np.log(np.add(picked, 1e-7)).mean(), rel=8 * lib.eps)

    def test_binary_cross_entropy(self, lib: Library) -> None:
        for t, expected in ((1.0, 0.51083), (0.0, 0.91629)):
            loss = binary_cross_entropy_error(lib.asarray(0.6), lib.asarray(t))
            assert float(loss) == pytest.approx(expected, abs=5e-6)

    def test_sigmoid_slope(self, lib: Library) -> None:
        """0.25 at 0; the book's formula rounds to 0 from 17 or 37 on, and the slope does not."""
        assert float(sigmoid_grad(lib.asarray(0.0))) == 0.25
        flat = 17.0 if lib.dtype == "float32" else 37.0
        for z, vanishes in ((flat - 1, False), (flat, True)):
            s = sigmoid(lib.asarray(z))
            assert (float((1 - s) * s) == 0) == vanishes
            assert float(sigmoid_grad(lib.asarray(z))) == pytest.approx(np.exp(-z), rel=1e-6)

    def test_functions_of_the_chapter(self, lib: Library) -> None:
        result = lib.to_numpy(function_1(lib.asarray([5.0, 10.0])))
        np.testing.assert_allclose(result, [0.75, 2.0], rtol=4 * lib.eps)
        assert function_1(10) == 2.0
        assert float(function_2(lib.asarray([3.0, 4.0]))) == 25
        assert float(function_2(lib.asarray([[3.0, 4.0], [1.0, 2.0]]))) == 30


class TestActivations:
    @pytest.mark.parametrize(
        ("f", "shape"),
        [(f, shape) for f in ACTIVATIONS for shape in [(5,), (3, 4), (2, 3, 4), (0, 4)]]
        + [(f, ()) for f in ELEMENTWISE],
    )
    def test_against_the_formula(
        self, lib: Library, f: Callable[..., Any], shape: tuple[int, ...]
    ) -> None:
        x = lib.asarray(np.random.default_rng(0).normal(0, 5, shape))
        result = f(x)
        host = lib.to_numpy(x)
        assert result.dtype == x.dtype
        assert result.shape == shape
        expected = reference(f, host) if host.size else host
        # Near log 1 only the absolute error is small.
        atol = 8 * lib.eps if f is log_softmax else 0
        np.testing.assert_allclose(lib.to_numpy(result), expected, rtol=8 * lib.eps, atol=atol)

    @pytest.mark.parametrize("f", ACTIVATIONS)
    def test_far_out(self, lib: Library, f: Callable[..., Any]) -> None:
        """Also without a warning, which the suite would make an error."""
        x = lib.asarray([-1e4, -1000.0, -100.0, -20.0, 0.0, 20.0, 100.0, 1000.0, 1e4])
        np.testing.assert_allclose(
            lib.to_numpy(f(x)),
            reference(f, lib.to_numpy(x)),
            rtol=8 * lib.eps,
            atol=float(np.finfo(lib.dtype).tiny),
        )

    def test_infinite(self, lib: Library) -> None:
        x = lib.asarray([-np.inf, np.inf, np.nan])
        for f, expected in (
            (sigmoid, [0, 1, np.nan]),
            (sigmoid_grad, [0, 0, np.nan]),
            (relu, [0, np.inf, np.nan]),
        ):
            np.testing.assert_array_equal(lib.to_numpy(f(x)), expected)

    @pytest.mark.parametrize("f", ACTIVATIONS)
    @pytest.mark.parametrize("dtype", ["bool", "uint8", "int32", "int64"])
    def test_integers_are_promoted(self, lib: Library, f: Callable[..., Any], dtype: str) -> None:
        numbers = np.array([[0, 1, 200], [3, 0, 1]]).astype(dtype)
        result = lib.to_numpy(f(lib.asarray(numbers)))
        expected = lib.to_numpy(f(lib.asarray(numbers, "float64")))
        np.testing.assert_array_equal(result, expected, strict=True)

    @pytest.mark.parametrize("f", ACTIVATIONS)
    def test_argument_is_left_alone(self, f: Callable[..., Any]) -> None:
        x = np.array([[1.0, -2.0], [0.0, 3.0]])
        x.flags.writeable = False
        f(x)

    def test_numbers_and_lists(self) -> None:
        assert sigmoid(0) == 0.5
        assert step_function(0.5) == 1
        assert step_function(0) == 0
        np.testing.assert_array_equal(softmax([0, 0]), [0.5, 0.5])
        np.testing.assert_array_equal(relu([[-1, 2.5]]), [[0, 2.5]])


SCORES = arrays(
    np.float64,
    st.tuples(st.integers(1, 3), st.integers(1, 6)),
    elements=st.floats(-1e4, 1e4, width=32),
)


@given(x=SCORES)
def test_softmax_gives_probabilities(lib: Library, x: np.ndarray) -> None:
    p = lib.to_numpy(softmax(lib.asarray(x)))
    assert p.min() >= 0
    np.testing.assert_allclose(p.sum(axis=-1), 1, rtol=8 * lib.eps)
    np.testing.assert_array_equal(x[p == 1], x.max(axis=-1)[(p == 1).any(axis=-1)])


@given(x=SCORES)
def test_softmax_against_the_formula(lib: Library, x: np.ndarray) -> None:
    tiny = float(np.finfo(lib.dtype).tiny)
    # Rounding the difference to the maximum, d, alone moves exp(d) by a factor 1 + |d| eps.
    spread = 8 + float(np.ptp(x, axis=-1).max())
    p, log_p = (lib.to_numpy(f(lib.asarray(x))) for f in (softmax, log_softmax))
    np.testing.assert_allclose(p, reference(softmax, x), rtol=spread * lib.eps, atol=tiny)
    np.testing.assert_allclose(log_p, reference(log_softmax, x), rtol=4 * lib.eps, atol=8 * lib.eps)


@given(x=SCORES, shift=st.integers(-1000, 1000))
def test_softmax_of_shifted_scores(lib: Library, x: np.ndarray, shift: int) -> None:
    whole = np.round(x)  # so that adding the shift is exact
    for f in (softmax, log_softmax):
        np.testing.assert_array_equal(
            lib.to_numpy(f(lib.asarray(whole + shift))), lib.to_numpy(f(lib.asarray(whole)))
        )


@st.composite
def batches(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Scores (N, C) and labels (N,), N often being C."""
    n, c = draw(st.integers(1, 5)), draw(st.integers(1, 5))
    scores = draw(arrays(np.float64, (n, c), elements=st.floats(-1e4, 1e4, width=32)))
    return scores, draw(arrays(np.int64, n, elements=st.integers(0, c - 1)))


@given(batch=batches())
def test_cross_entropy_forms_of_the_targets_agree(
    lib: Library, batch: tuple[np.ndarray, np.ndarray]
) -> None:
    scores, labels = batch
    one_hot = np.eye(scores.shape[1])[labels]
    z = lib.asarray(scores)
    for loss, y in ((cross_entropy_error, softmax(z)), (softmax_cross_entropy, z)):
        by_label = float(loss(y, lib.asarray(labels)))
        assert by_label == pytest.approx(float(loss(y, lib.asarray(one_hot))), rel=4 * lib.eps)
        one_by_one = [float(loss(y[i, :], int(label))) for i, label in enumerate(labels)]
        assert by_label == pytest.approx(np.mean(one_by_one), rel=8 * lib.eps, abs=8 * lib.eps)


@given(batch=batches(), weight=st.floats(0, 1))
def test_cross_entropy_soft_targets_mix_the_losses(
    lib: Library, batch: tuple[np.ndarray, np.ndarray], weight: float
) -> None:
    scores, labels = batch
    one_hot = np.eye(scores.shape[1])[labels]
    uniform = np.full(scores.shape, 1 / scores.shape[1])
    z = lib.asarray(scores)
    ends = [float(softmax_cross_entropy(z, lib.asarray(t))) for t in (one_hot, uniform)]
    mixed = lib.asarray(weight * one_hot + (1 - weight) * uniform)
    assert float(softmax_cross_entropy(z, mixed)) == pytest.approx(
        weight * ends[0] + (1 - weight) * ends[1], rel=16 * lib.eps, abs=16 * lib.eps
    )


@given(batch=batches())
def test_cross_entropy_against_the_formula(
    lib: Library, batch: tuple[np.ndarray, np.ndarray]
) -> None:
    scores, labels = batch
    picked = reference(log_softmax, scores)[np.arange(len(labels)), labels]
    loss = softmax_cross_entropy(lib.asarray(scores), lib.asarray(labels))
    assert float(loss) == pytest.approx(-picked.mean(), rel=8 * lib.eps, abs=8 * lib.eps)


class TestCrossEntropy:
    def test_as_many_samples_as_classes(self, lib: Library) -> None:
        y = np.array([[0.2, 0.3, 0.5], [0.1, 0.1, 0.8], [0.4, 0.35, 0.25]])
        loss = cross_entropy_error(lib.asarray(y), lib.asarray([1, 2, 0]))
        expected = -np.log(np.array([0.3, 0.8, 0.4]) + 1e-7).mean()
        assert float(loss) == pytest.approx(expected, rel=8 * lib.eps)

    def test_one_sample_has_one_label_and_a_batch_of_one_has_a_row(self, lib: Library) -> None:
        y = lib.asarray(Y1)
        for sample, t in ((y, lib.asarray(np.array(2))), (y[None, :], lib.asarray([2]))):
            assert float(cross_entropy_error(sample, t)) == pytest.approx(0.5108254, rel=1e-6)

    def test_stable_far_out(self, lib: Library) -> None:
        z = lib.asarray([[1e4, -1e4], [-1e4, 1e4]])
        assert float(softmax_cross_entropy(z, lib.asarray([0, 1]))) == 0
        assert float(softmax_cross_entropy(z, lib.asarray([1, 0]))) == 2e4

    def test_softmax_loss_is_the_chapters(self, lib: Library) -> None:
        z = lib.asarray([[0.3, 2.9, 4.0], [1.0, 0.0, -1.0]])
        t = lib.asarray([0, 2])
        p = lib.to_numpy(softmax(z)).astype(np.float64)
        expected = -np.log(p[[0, 1], [0, 2]] + 1e-7).mean()
        assert float(softmax_loss(z, t)) == pytest.approx(expected, rel=8 * lib.eps)
        assert float(softmax_loss(z, t)) < float(softmax_cross_entropy(z, t))


@given(
    z=arrays(np.float64, (3, 4), elements=st.floats(-15, 15, width=32)),
    t=arrays(np.float64, (3, 4), elements=st.floats(0, 1, width=32)),
)
def test_sigmoid_cross_entropy_is_that_of_the_sigmoid(
    lib: Library, z: np.ndarray, t: np.ndarray
) -> None:
    v = z.astype(np.longdouble)
    terms = t * np.log1p(np.exp(-v)) + (1 - t) * np.log1p(np.exp(v))
    expected = float(terms.sum(axis=-1).mean())
    from_scores = sigmoid_cross_entropy(lib.asarray(z), lib.asarray(t))
    assert float(from_scores) == pytest.approx(expected, rel=16 * lib.eps)
    from_probabilities = binary_cross_entropy_error(sigmoid(lib.asarray(z)), lib.asarray(t))
    # 1 − p keeps few digits of a small probability.
    assert float(from_probabilities) == pytest.approx(expected, rel=np.exp(15) * lib.eps)


class TestOtherLosses:
    def test_sigmoid_cross_entropy_far_out(self, lib: Library) -> None:
        for z, t, expected in ((-1000, 1, 1000), (1000, 1, 0), (1000, 0, 1000), (-1e4, 0, 0)):
            loss = sigmoid_cross_entropy(lib.asarray(float(z)), lib.asarray(float(t)))
            assert float(loss) == expected

    def test_certain_and_right_costs_nothing(self, lib: Library) -> None:
        y = lib.asarray([[1.0, 0.0], [0.0, 1.0]])
        assert float(binary_cross_entropy_error(y, y)) == 0

    def test_sums_over_all_elements(self, lib: Library) -> None:
        y, t = np.random.default_rng(0).normal(size=(2, 3, 4))
        square = float(((y - t) ** 2).sum())
        for loss, expected in ((sum_squared_error, square / 2), (mean_squared_error, square / 12)):
            result = loss(lib.asarray(y), lib.asarray(t))
            assert float(result) == pytest.approx(expected, rel=16 * lib.eps)


@pytest.mark.parametrize("loss", LOSSES)
class TestTypes:
    def test_the_type_of_the_first_argument_decides(
        self, lib: Library, loss: Callable[..., Any]
    ) -> None:
        y = lib.asarray([[0.25, 0.75], [0.5, 0.5]])
        for t in (y, lib.asarray([[0, 1], [1, 0]]), lib.asarray([[0.0, 1.0]] * 2, "float64")):
            assert loss(y, t).dtype == y.dtype

    def test_integers_are_promoted(self, lib: Library, loss: Callable[..., Any]) -> None:
        y, t = np.array([[1, 0], [0, 1]]), np.array([[0.25, 0.75], [1.0, 0.0]])
        if loss is binary_cross_entropy_error:
            t = y
        result = loss(lib.asarray(y), lib.asarray(t))
        expected = loss(lib.asarray(y, "float64"), lib.asarray(t))
        assert lib.to_numpy(result).dtype == np.float64
        assert float(result) == float(expected)

    def test_arguments_are_left_alone(self, loss: Callable[..., Any]) -> None:
        y, t = np.array([[0.25, 0.75]]), np.array([[0.0, 1.0]])
        y.flags.writeable = t.flags.writeable = False
        loss(y, t)

    def test_lists(self, loss: Callable[..., Any]) -> None:
        assert loss([0.25, 0.75], [0, 1]) == loss(np.array([0.25, 0.75]), np.array([0.0, 1.0]))


class TestRefused:
    @pytest.mark.parametrize("loss", [cross_entropy_error, softmax_cross_entropy, softmax_loss])
    @pytest.mark.parametrize(
        "t", [[[0], [1]], [0, 1, 2], 1, np.eye(3), [0, 3], [-1, 0], np.full((2, 3), np.nan)]
    )
    def test_targets(self, lib: Library, loss: Callable[..., Any], t: Any) -> None:
        with refused("t"):
            loss(lib.asarray([[0.2, 0.3, 0.5], [0.1, 0.1, 0.8]]), lib.asarray(t))

    @pytest.mark.parametrize("loss", [cross_entropy_error, softmax_cross_entropy, softmax_loss])
    @pytest.mark.parametrize("t", [[0.0, 1.0], [True, False]])
    def test_labels_that_are_no_integers(
        self, lib: Library, loss: Callable[..., Any], t: Any
    ) -> None:
        with pytest.raises(TypeError, match=r"^t holds labels of the type"):
            loss(lib.asarray([[0.2, 0.3, 0.5], [0.1, 0.1, 0.8]]), lib.asarray(t))

    @pytest.mark.parametrize(
        ("loss", "name"),
        [(cross_entropy_error, "y"), (softmax_cross_entropy, "z"), (softmax_loss, "X")],
    )
    @pytest.mark.parametrize("shape", [(0, 3), (2, 0), (), (2, 3, 4)])
    def test_outputs(
        self, lib: Library, loss: Callable[..., Any], name: str, shape: tuple[int, ...]
    ) -> None:
        y = lib.asarray(np.ones(shape))
        with refused(name):
            loss(y, y)

    @pytest.mark.parametrize("f", [softmax, log_softmax])
    @pytest.mark.parametrize("shape", [(), (0,), (2, 0)])
    def test_scores_without_classes(
        self, lib: Library, f: Callable[..., Any], shape: tuple[int, ...]
    ) -> None:
        with refused("x"):
            f(lib.asarray(np.ones(shape)))

    @pytest.mark.parametrize(
        "loss",
        [sum_squared_error, mean_squared_error, binary_cross_entropy_error, sigmoid_cross_entropy],
    )
    def test_shapes_that_differ(self, lib: Library, loss: Callable[..., Any]) -> None:
        name = "z" if loss is sigmoid_cross_entropy else "y"
        # Notes print y with 10 elements and t with 9; (3, 1) and (3,) would broadcast.
        for y, t in (((10,), (9,)), ((3, 1), (3,)), ((3,), ())):
            with refused("t"):
                loss(lib.asarray(np.ones(y)), lib.asarray(np.ones(t)))
        with refused(name):
            loss(lib.asarray(np.ones(0)), lib.asarray(np.ones(0)))

    @pytest.mark.parametrize("loss", LOSSES)
    def test_mixed_libraries(self, loss: Callable[..., Any]) -> None:
        y, t = np.array([0.5, 0.5]), array_api_strict.asarray([0.0, 1.0])
        with pytest.raises(TypeError, match=r"is a numpy.ndarray and t is a array_api_strict.Arr"):
            loss(y, t)

    @pytest.mark.parametrize("f", ACTIVATIONS)
    @pytest.mark.parametrize(
        ("x", "message"),
        [
            (None, "x must be an array, not builtins.NoneType"),
            ("text", "x must be an array, not builtins.str"),
            (["text"], "x has the type <U4; it must hold real numbers"),
            (np.array([1j]), "x has the type complex128; it must hold real numbers"),
        ],
    )
    def test_no_real_numbers(self, f: Callable[..., Any], x: Any, message: str) -> None:
        with pytest.raises(TypeError, match=message):
            f(x)

    @pytest.mark.parametrize("loss", LOSSES)
    def test_the_argument_is_named(self, loss: Callable[..., Any]) -> None:
        first = {softmax_loss: "X", softmax_cross_entropy: "z", sigmoid_cross_entropy: "z"}
        with pytest.raises(TypeError, match=f"{first.get(loss, 'y')} must be an array, not"):
            loss(None, [0.0, 1.0])
        with pytest.raises(TypeError, match="t must be an array, not"):
            loss([0.5, 0.5], None)


class TestTorch:
    """PyTorch's arrays, which no backend makes, pass through the plain functions."""

    @pytest.mark.parametrize("f", ACTIVATIONS)
    def test_activations(self, f: Callable[..., Any]) -> None:
        torch = pytest.importorskip("torch")
        x = np.array([[-1000, 0.5, 3], [20, -3, 0]], dtype=np.float32)
        result = f(torch.asarray(x))
        assert isinstance(result, torch.Tensor)
        np.testing.assert_allclose(result.numpy(), f(x), rtol=1e-6, atol=1e-38, strict=True)

    @pytest.mark.parametrize("loss", LOSSES)
    def test_losses(self, loss: Callable[..., Any]) -> None:
        torch = pytest.importorskip("torch")
        y = np.array([[0.2, 0.3, 0.5], [0.1, 0.1, 0.8]], dtype=np.float32)
        targets = [np.eye(3, dtype=np.float32)[[2, 0]]]
        if loss in (cross_entropy_error, softmax_cross_entropy, softmax_loss):
            targets.append(np.array([2, 0]))
        for t in targets:
            result = loss(torch.asarray(y), torch.asarray(t))
            assert result.dtype == torch.float32
            assert float(result) == pytest.approx(float(loss(y, t)), rel=1e-6)
        with pytest.raises(TypeError, match=r"torch.Tensor and t is a numpy.ndarray"):
            loss(torch.asarray(y), targets[0])


class TestOneHot:
    def test_each_label_is_a_row(self, lib: Library) -> None:
        labels = lib.asarray(np.array([[2, 0], [1, 1]]))
        result = one_hot(labels, 3, dtype=lib.dtype)
        expected = np.eye(3, dtype=lib.dtype)[[[2, 0], [1, 1]]]
        np.testing.assert_array_equal(lib.to_numpy(result), expected, strict=True)

    def test_one_label_and_none(self) -> None:
        np.testing.assert_array_equal(one_hot(np.array(1), 3), [0, 1, 0])
        assert one_hot(np.array([], dtype=int), 3).shape == (0, 3)

    @pytest.mark.parametrize("dtype", ["float64", np.float64])
    def test_type(self, dtype: Any) -> None:
        assert one_hot(np.array([0]), 2).dtype == np.float32
        assert one_hot(np.array([0]), 2, dtype=dtype).dtype == np.float64
        with refused("dtype"):
            one_hot(np.array([0]), 2, dtype="int8")

    def test_small_integers_do_not_wrap_around(self) -> None:
        row = one_hot(np.array([200], dtype=np.uint8), 300)
        np.testing.assert_array_equal(np.flatnonzero(row), [200])

    @pytest.mark.parametrize("labels", [[0, 3], [-1]])
    def test_labels_out_of_range(self, lib: Library, labels: list[int]) -> None:
        with refused("labels"):
            one_hot(lib.asarray(labels), 3)

    @pytest.mark.parametrize("num_classes", [0, 2.5, True, "3"])
    def test_number_of_classes(self, num_classes: Any) -> None:
        with refused("num_classes"):
            one_hot(np.array([0]), num_classes)

    @pytest.mark.parametrize("labels", [np.array([0.0, 1.0]), np.array([True]), [0, 1]])
    def test_no_array_of_integers(self, labels: Any) -> None:
        with pytest.raises(TypeError, match="labels"):
            one_hot(labels, 3)


def test_the_chapters_functions_promote() -> None:
    assert function_2(np.array([100, 100], dtype=np.int8)) == 20_000
    assert function_2([3.0, 4.0]) == 25
    np.testing.assert_allclose(function_1(np.array([200], dtype=np.uint8)), [420])
    np.testing.assert_allclose(function_1([200]), [420])


@pytest.mark.filterwarnings("ignore:the matrix subclass")
def test_matrices_are_arrays() -> None:
    # Of np.matrix, * and ** are matrix products.
    y, t = np.array([[0.2, 0.8], [0.6, 0.4]]), np.array([[0.0, 1.0], [1.0, 0.0]])
    for function in (sum_squared_error, cross_entropy_error, mean_squared_error):
        assert function(np.matrix(y), np.matrix(t)) == function(y, t)
    np.testing.assert_array_equal(sigmoid(np.matrix(y)), sigmoid(y))
    with pytest.raises(TypeError, match=r"x is a masked array; fill it first: x.filled\(...\)"):
        sigmoid(np.ma.MaskedArray(y))


@pytest.mark.parametrize("function", [binary_cross_entropy_error, sigmoid_cross_entropy])
@pytest.mark.parametrize("target", [255.0, -0.5, np.nan])
def test_targets_between_0_and_1(function: Any, target: float) -> None:
    with refused("t"):
        function(np.array([0.5, 0.5]), np.array([1.0, target]))


def test_a_target_of_0_asks_nothing_of_what_is_impossible() -> None:
    z = np.array([0.0, -np.inf])
    assert softmax_cross_entropy(z, np.array([1.0, 0.0])) == softmax_cross_entropy(z, 0) == 0

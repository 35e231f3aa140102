"""Random compositions of the rules against 150 digits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mpmath
import numpy as np
from exact import SMOOTH, Exact, Smooth, power, to_float, to_mp
from hypothesis import HealthCheck, assume, event, given, settings
from hypothesis import strategies as st

from dlfs_gpu.differences.perturbation import difference_gradient

Step = tuple[str, Callable[[Any], Any]]


class Program:
    """A function composed of random steps, and the same in 150 digits.

    Parameters
    ----------
    draw : callable
        Hypothesis' choice.
    exact : Exact
        The argument, moved; the steps keep within their domains at all its points.
    dtype : type
    """

    def __init__(self, draw: Any, exact: Exact, dtype: type) -> None:
        self.draw = draw
        self.exact = exact
        self.dtype = dtype
        self.eps = float(np.finfo(dtype).eps)
        self.steps: list[Step] = []

    def run(self, x: Any) -> Any:
        """Apply the function to an array."""
        for _, step in self.steps:
            x = step(x)
        return x

    def constant(self, shape: tuple[int, ...]) -> np.ndarray:
        """Draw constants: small multiples of 1/4."""
        numbers = self.draw(
            st.lists(st.integers(-8, 8), min_size=int(np.prod(shape)), max_size=int(np.prod(shape)))
        )
        return (np.array(numbers).reshape(shape) / 4).astype(self.dtype)

    def kink(self) -> Any:
        """Draw a constant near a value that occurs, so that the step may lead across it."""
        exact = self.exact
        index = self.draw(st.integers(0, exact.base.size - 1))
        point = self.draw(st.integers(0, exact.moved.shape[0] - 1))
        part = self.draw(st.sampled_from([0.0, 0.5, 0.25, 1.0, -0.5, 3.0]))
        value = exact.base.flat[index] + part * exact.change[point].flat[index]
        return self.dtype(float(value))

    def lift(self, c: Any) -> Exact:
        return Exact.constant(np.broadcast_to(c, self.exact.shape), self.exact)

    def add(self, name: str, step: Callable[[Any], Any], exact: Exact) -> None:
        self.steps.append((name, step))
        self.exact = exact

    def names(self) -> list[str]:
        """Return the steps that may follow."""
        low, high = self.exact.range()
        small = max(abs(low), abs(high)) < 30
        smooth = [name for name, f in SMOOTH.items() if f.low < low and high < f.high]
        names = ["scale", "shift", "maximum", "minimum", "clip", "abs", "where", "reversed"]
        names += ["arrange", "broadcast", "max", "mean", "cumsum", "times itself", "matmul"]
        if small:
            names += ["cube", "prod", "var", "outer", "softmax", "sigmoid"]
        if low > 0.05 and high < 30:
            names += ["root", "norm", "over"]
        if small and self.far_from_jumps():
            names += ["floor", "rint", "sign", "step"]
        return smooth + names

    def far_from_jumps(self) -> bool:
        """Say whether no value is so near a multiple of 1/2 that rounding might decide."""
        margin = 1e3 * self.eps
        exact = self.exact
        values = [to_float(exact.base * 2), to_float(exact.moved * 2)]
        scales = [exact.size + 0.1, exact.size + exact.reach + 0.1]
        return all(
            bool(np.all(np.abs(v - np.round(v)) > margin * s))
            for v, s in zip(values, scales, strict=True)
        )

    def grow(self) -> None:
        """Draw a step."""
        name = self.draw(st.sampled_from(self.names()))
        event(name)
        exact = self.exact
        if name in SMOOTH:
            self.add(name, getattr(np, name), exact.smooth(SMOOTH[name]))
        else:
            getattr(self, name.replace(" ", "_") + "_")()

    def scale_(self) -> None:
        c = self.constant(self.exact.shape[-1:])
        self.add("scale", lambda x: c * x, self.lift(c) * self.exact)

    def shift_(self) -> None:
        c = self.constant(self.exact.shape[-1:])
        self.add("shift", lambda x: x - c, self.exact - self.lift(c))

    def reversed_(self) -> None:
        c = self.constant(())
        self.add("reversed", lambda x: float(c) - x, self.lift(c) - self.exact)

    def maximum_(self) -> None:
        c = self.kink()
        self.add("maximum", lambda x: np.maximum(x, c), self.exact.maximum(self.lift(c)))

    def minimum_(self) -> None:
        c = self.kink()
        exact = -((-self.exact).maximum(-self.lift(c)))
        self.add("minimum", lambda x: np.minimum(c, x), exact)

    def clip_(self) -> None:
        low, high = sorted((self.kink(), self.kink()))
        exact = self.exact.maximum(self.lift(low))
        exact = -((-exact).maximum(-self.lift(high)))
        self.add("clip", lambda x: np.clip(x, low, high), exact)

    def abs_(self) -> None:
        self.add("abs", abs, self.exact.maximum(-self.exact))

    def where_(self) -> None:
        """Choose continuously: 2x − c above c, and x below."""
        c, exact = self.kink(), self.exact
        above = to_float(exact.base - float(c)) > 0, to_float(exact.moved - float(c)) > 0
        double = exact + exact - self.lift(c)
        self.add(
            "where",
            lambda x: np.where(x > c, x + x - c, x),
            double.where(*above, exact, exact - self.lift(c)),
        )

    def step_(self) -> None:
        exact, c = self.exact, 0.5
        above = to_float(exact.base) > c, to_float(exact.moved) > c
        cube = exact * exact * exact
        self.add(
            "step",
            lambda x: np.where(x > c, x * x * x, -x),
            cube.where(*above, -exact, exact - self.lift(c)),
        )

    def floor_(self) -> None:
        self.add("floor", np.floor, self.exact.stepped(mpmath.floor))

    def rint_(self) -> None:
        self.add("rint", np.rint, self.exact.stepped(mpmath.nint))

    def sign_(self) -> None:
        self.add("sign", np.sign, self.exact.stepped(mpmath.sign))

    def cube_(self) -> None:
        n = self.draw(st.integers(2, 6))
        self.add("cube", lambda x: x**n, self.exact.smooth(power(n, -30, 30)))

    def root_(self) -> None:
        p = self.draw(st.sampled_from([0.5, 1.5, -0.5, -2, 2.25, -1]))
        self.add("root", lambda x: x**p, self.exact.smooth(power(p, 0.05, 30)))

    def over_(self) -> None:
        exact = self.exact
        self.add("over", lambda x: 1.5 / x, self.lift(1.5) * exact.smooth(SMOOTH["reciprocal"]))

    def times_itself_(self) -> None:
        exact = self.exact.arranged(lambda a: a[..., ::-1])
        self.add("times itself", lambda x: x * x[..., ::-1], self.exact * exact)

    def matmul_(self) -> None:
        c = self.constant((self.exact.shape[-1], 2))
        exact, matrix = self.exact, to_mp(c)
        summed = Exact(
            exact.base @ matrix,
            np.stack([m @ matrix for m in exact.moved]),
            exact.size @ np.abs(c).astype(float),
            np.stack([r @ np.abs(c).astype(float) for r in exact.reach]),
            self.eps,
        )
        self.add("matmul", lambda x: x @ c, summed)

    def mean_(self) -> None:
        count = self.exact.shape[-1]
        exact = self.exact.arranged(lambda a: np.sum(a, axis=-1, keepdims=True))
        self.add("mean", lambda x: x.mean(axis=-1, keepdims=True), exact.smooth(_over(count)))

    def cumsum_(self) -> None:
        exact = self.exact.arranged(lambda a: np.cumsum(a, axis=-1))
        self.add("cumsum", lambda x: np.cumsum(x, axis=-1), exact)

    def arrange_(self) -> None:
        arrange = self.draw(st.sampled_from(ARRANGEMENTS))
        self.add("arrange", arrange, self.exact.arranged(arrange))

    def broadcast_(self) -> None:
        column = self.exact.arranged(lambda a: a[..., :1])
        self.add("broadcast", lambda x: x + x[..., :1], self.exact + column)

    def max_(self) -> None:
        self.add("max", lambda x: np.max(x, axis=-1, keepdims=True), self._max(self.exact))

    def _columns(self, exact: Exact) -> list[Exact]:
        def column(k: int) -> Exact:
            return exact.arranged(lambda a: a[..., k : k + 1])

        return [column(k) for k in range(exact.shape[-1])]

    def _max(self, exact: Exact) -> Exact:
        largest, *others = self._columns(exact)
        for column in others:
            largest = largest.maximum(column)
        return largest

    def prod_(self) -> None:
        product, *others = self._columns(self.exact)
        for column in others:
            product = product * column
        self.add("prod", lambda x: np.prod(x, axis=-1, keepdims=True), product)

    def var_(self) -> None:
        count = self.exact.shape[-1]
        total = self.exact.arranged(lambda a: np.sum(a, axis=-1, keepdims=True))
        deviation = self.exact - total.smooth(_over(count))
        squares = (deviation * deviation).arranged(lambda a: np.sum(a, axis=-1, keepdims=True))
        self.add("var", lambda x: x.var(axis=-1, keepdims=True), squares.smooth(_over(count)))

    def norm_(self) -> None:
        squares = self.exact * self.exact
        total = squares.arranged(lambda a: np.sum(a, axis=-1, keepdims=True))
        self.add(
            "norm",
            lambda x: np.linalg.norm(x, axis=-1, keepdims=True),
            total.smooth(SMOOTH["sqrt"]),
        )

    def outer_(self) -> None:
        flat = self.exact.arranged(lambda a: a.reshape(-1))
        product = flat.arranged(lambda a: a[:2, None]) * flat.arranged(lambda a: a[None, :])
        self.add("outer", lambda x: np.outer(x.ravel()[:2], x), product)

    def softmax_(self) -> None:
        def softmax(x: Any) -> Any:
            e = np.exp(x - np.max(x, axis=-1, keepdims=True))
            return e / np.sum(e, axis=-1, keepdims=True)

        e = (self.exact - self._max(self.exact)).smooth(SMOOTH["exp"])
        total = e.arranged(lambda a: np.sum(a, axis=-1, keepdims=True))
        self.add("softmax", softmax, e * total.smooth(SMOOTH["reciprocal"]))

    def sigmoid_(self) -> None:
        e = (-self.exact).smooth(SMOOTH["exp"]) + self.lift(1.0)
        exact = e.smooth(SMOOTH["reciprocal"])
        self.add("sigmoid", lambda x: 1 / (1 + np.exp(-x)), exact)


def _over(count: int) -> Any:
    """Return division by a whole number."""
    return Smooth(lambda x: x / count, lambda x: 0 * x + 1 / count, lambda x: 0 * x)


ARRANGEMENTS: list[Callable[[Any], Any]] = [
    lambda x: x.T,
    lambda x: x.reshape(-1),
    lambda x: x[..., ::-1],
    lambda x: x[..., None],
    lambda x: np.concatenate([x, x], axis=-1),
    lambda x: np.stack([x, x], axis=0),
    lambda x: np.roll(x, 1, axis=-1),
    lambda x: np.repeat(x, 2, axis=-1),
    lambda x: np.take(x, [0, 0], axis=-1),
    lambda x: np.broadcast_to(x, (2, *x.shape)),
    lambda x: np.sum(x, axis=0, keepdims=True),
    lambda x: np.atleast_2d(x)[..., 0],
]

SHAPES = [(1,), (2,), (3,), (2, 2), (1, 3)]


@st.composite
def cases(draw: Any, dtype: type) -> tuple[np.ndarray, float, Program]:
    shape = draw(st.sampled_from(SHAPES))
    eighths = st.integers(-24, 24).map(lambda k: k / 8)
    anything = st.floats(-3, 3, width=32).filter(lambda x: x == 0 or abs(x) > 1e-3)
    count = int(np.prod(shape))
    numbers = draw(st.lists(st.one_of(eighths, anything), min_size=count, max_size=count))
    x = np.array(numbers, dtype=dtype).reshape(shape)
    h = dtype(draw(st.sampled_from([0.5, 0.1, 1e-2, 1e-4, 1e-6, 1e-8])))
    eye = np.eye(count, dtype=dtype).reshape(count, *shape) * h
    program = Program(draw, Exact.start(x, np.concatenate([eye, -eye])), dtype)
    for _ in range(draw(st.integers(1, 5))):
        program.grow()
        low, high = program.exact.range()
        assume(max(abs(low), abs(high)) < 1e6 and program.exact.base.size < 50)
    program.add("sum", np.sum, program.exact.arranged(np.sum))
    return x, float(h), program


def check(case: tuple[np.ndarray, float, Program], tolerance: float) -> None:
    x, h, program = case
    gradient = difference_gradient(program.run, x, h, "central")
    change, reach = program.exact.change, program.exact.reach
    assume(bool(np.isfinite(reach).all()))
    count = x.size
    expected = to_float((change[:count] - change[count:]) / (2 * mpmath.mpf(h)))
    # Changes below the smallest number of the type are nothing.
    allowed = (tolerance * (reach[:count] + reach[count:]) + np.finfo(x.dtype).tiny) / (2 * h)
    error = np.abs(gradient.reshape(-1) - expected)
    names = [name for name, _ in program.steps]
    assert (error <= allowed).all(), (names, x, h, (error / allowed).max() * tolerance)


ready = settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))


class TestCompositions:
    """The central difference is right to some units of rounding of the terms it consists of."""

    @ready
    @given(cases(np.float32))
    def test_float32(self, case: tuple[np.ndarray, float, Program]) -> None:
        check(case, 1e-6)

    @ready
    @given(cases(np.float64))
    def test_float64(self, case: tuple[np.ndarray, float, Program]) -> None:
        check(case, 1e-14)

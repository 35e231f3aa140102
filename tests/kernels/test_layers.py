"""Updates by layers.cu and products.cu, run on the CPU, against array operations in float64."""

from __future__ import annotations

import copy
import re
from typing import Any, Literal, get_args

import numpy as np
import pytest

from dlfs_gpu.kernels import KernelWarning, layers, products, report
from dlfs_gpu.kernels.layers import Layers
from dlfs_gpu.kernels.products import Products
from dlfs_gpu.models import MultiLayerNet
from dlfs_gpu.optimizers import SGD, AdaGrad, Adam, Momentum, Nesterov, RMSprop
from dlfs_gpu.training.update import Update
from kernels.emulated import EmulatorError, require
from kernels.fake_cupy import FakeCupy
from kernels.problems import EPS, ActivationName, error, make_problem, make_sure, updated

# Inputs, hidden units, classes; samples. None, one and several hidden layers; fewer columns than a
# block takes, and more; more samples than groups; more classes than lanes.
SHAPES: dict[str, tuple[tuple[int, list[int], int], int]] = {
    "no hidden layer": ((20, [], 3), 5),
    "small": ((20, [7], 33), 5),
    "wide": ((5, [300], 9), 3),
    "deep": ((9, [8, 17, 3], 4), 70),
    "many classes": ((6, [5, 4], 70), 130),
    "least": ((1, [1, 1], 1), 1),
}
LR = 0.1
UPDATES = 3
Kind = Literal["layers", "products"]


@pytest.fixture(params=get_args(Kind))
def kind(request: pytest.FixtureRequest, cupy: FakeCupy, monkeypatch: pytest.MonkeyPatch) -> Kind:
    """Kernels that take any network, or up to 32 classes."""
    cupy.attributes["CooperativeLaunch"] = 0
    if request.param == "layers":
        monkeypatch.setattr(products, "_MOST_MULTIPLICATIONS", {"float32": 0, "float64": 0})
    kind: Kind = request.param
    return kind


class Run:
    """A network trained for some updates, on one backend.

    Attributes
    ----------
    losses : list of array
        As they came.
    params : dict of array
        All on the host.
    """

    def __init__(
        self,
        backend: str,
        shape: str = "deep",
        activation: ActivationName = "sigmoid",
        dtype: str = "float32",
        optimizer: Any = None,
        updates: int = UPDATES,
    ) -> None:
        (inputs, hidden, classes), batch = SHAPES[shape]
        rng = np.random.default_rng(0)
        network = MultiLayerNet(
            inputs, hidden, classes, activation, dtype=dtype, backend=backend, seed=0
        )
        upload = network.backend.asarray
        for key, param in network.params.items():
            drawn = rng.normal(0, 0.5, param.shape).astype(np.float32)
            network.params[key] = upload(drawn, dtype)
        x = upload(rng.normal(size=(40, inputs)).astype(np.float32), dtype)
        t = upload(rng.integers(classes, size=40))
        indices = upload(rng.integers(40, size=(updates, batch)))
        self.network = network
        self.update = Update(network, optimizer or SGD(LR), x, t, batch)
        self.losses = [network.backend.to_numpy(part) for part in self.update.run(indices)]

    @property
    def params(self) -> dict[str, Any]:
        return {k: self.network.backend.to_numpy(p) for k, p in self.network.params.items()}

    @property
    def bits(self) -> bytes:
        return b"".join(array.tobytes() for array in (*self.losses, *self.params.values()))


def assert_near(run: Run, desired: Run, tolerance: float) -> None:
    np.testing.assert_allclose(
        np.concatenate(run.losses), np.concatenate(desired.losses), rtol=tolerance
    )
    for key, param in run.params.items():
        assert error(param, desired.params[key]) < tolerance


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("activation", ["sigmoid", "tanh", "relu"])
@pytest.mark.parametrize("shape", SHAPES)
def test_updates(
    cupy: FakeCupy, kind: Kind, shape: str, activation: ActivationName, dtype: str
) -> None:
    run = Run("cupy", shape, activation, dtype)
    used = kind if SHAPES[shape][0][-1] <= 32 else "layers"
    assert [str(status) for status in report()] == [f"{used} on cuda:0: passed"]
    assert len(run.losses) == 1
    assert_near(run, Run("numpy", shape, activation, "float64"), 20 * EPS[dtype])
    cupy.order = 5
    assert Run("cupy", shape, activation, dtype).bits == run.bits


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("cls", [Momentum, Nesterov, AdaGrad, RMSprop, Adam])
def test_other_optimizers(cupy: FakeCupy, kind: Kind, cls: type[Any], dtype: str) -> None:
    run = Run("cupy", "deep", dtype=dtype, optimizer=cls(LR), updates=5)
    assert [str(status) for status in report()] == [
        f"{used} on cuda:0: passed" for used in (kind, "step")
    ]
    assert [len(part) for part in run.losses] == [5]
    assert_near(run, Run("numpy", "deep", dtype="float64", optimizer=cls(LR), updates=5), 1e-5)


class Halved(Momentum):
    """Another optimizer."""

    def update(self, params: Any, grads: Any) -> None:
        super().update(params, {key: grad / 2 for key, grad in grads.items()})


@pytest.mark.parametrize("change", ["subclass", "replaced"])
def test_optimizers_that_have_no_kernel(cupy: FakeCupy, kind: Kind, change: str) -> None:
    def make_optimizer() -> Any:
        if change == "subclass":
            return Halved(LR)
        optimizer = Momentum(LR)
        optimizer.update = Halved(LR).update  # type: ignore[method-assign]
        return optimizer

    run = Run("cupy", optimizer=make_optimizer())
    assert [str(status) for status in report()] == [f"{kind} on cuda:0: passed"]
    assert [len(part) for part in run.losses] == UPDATES * [1]
    assert_near(run, Run("numpy", dtype="float64", optimizer=make_optimizer()), 1e-5)


def test_a_broken_step_is_not_used(cupy: FakeCupy) -> None:
    cupy.mutations = [("param += OPTIMIZER", "param -= OPTIMIZER")]
    with pytest.warns(KernelWarning, match=r"the step kernel .*the step of W1 differs"):
        run = Run("cupy", optimizer=Momentum(LR))
    assert_near(run, Run("numpy", dtype="float64", optimizer=Momentum(LR)), 1e-5)


def test_state_put_back(cupy: FakeCupy) -> None:
    """What an optimizer keeps may be replaced between updates."""
    runs = []
    for backend, dtype in (("cupy", "float32"), ("numpy", "float64")):
        run = Run(backend, dtype=dtype, optimizer=Momentum(LR))
        state = copy.deepcopy(vars(run.update.optimizer))
        indices = run.network.backend.asarray(np.arange(210).reshape(3, 70) % 40)
        list(run.update.run(indices))
        vars(run.update.optimizer).update(state)
        run.losses = [run.network.backend.to_numpy(part) for part in run.update.run(indices)]
        runs.append(run)
    run, desired = runs
    assert_near(run, desired, 1e-5)


def test_many_updates(kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    """Graphs of ten updates, and what is left; in blocks between which training can be stopped."""
    run = Run("cupy", "small", updates=26)
    assert [len(part) for part in run.losses] == [26]
    assert_near(run, Run("numpy", "small", dtype="float64", updates=26), 1e-5)
    monkeypatch.setattr(layers, "_MOST_UPDATES", 12)
    parts = Run("cupy", "small", updates=26)
    assert [len(part) for part in parts.losses] == [12, 12, 2]
    assert parts.bits == run.bits
    monkeypatch.setattr(layers, "_MOST_PRODUCTS", 1)
    assert [len(part) for part in Run("cupy", "small").losses] == [1, 1, 1]


def test_copies_have_no_kernels(kind: Kind) -> None:
    """Kernels and graphs cannot be copied, nor pickled."""
    update = Run("cupy").update
    assert update._launcher is not None
    assert copy.copy(update)._launcher is None


def test_another_learning_rate(kind: Kind) -> None:
    runs = [Run("cupy", updates=20), Run("numpy", dtype="float64", updates=20)]
    for run in runs:
        run.update.optimizer.lr = 0.01
        indices = run.network.backend.asarray(np.arange(10 * 70).reshape(10, 70) % 40)
        run.losses = [run.network.backend.to_numpy(part) for part in run.update.run(indices)]
    run, desired = runs
    assert_near(run, desired, 1e-5)


@pytest.mark.parametrize("activation", ["sigmoid", "tanh", "relu"])
def test_sure_and_saturated_networks_lose_no_digits(
    cupy: FakeCupy, kind: Kind, activation: ActivationName
) -> None:
    problem = make_problem(activation=activation, scale=6)
    indices = make_sure(problem)[None, :5]
    lr = 1e11  # which makes changes of what the gradient is, some 1e-11
    expected, expected_losses = updated(problem, indices, lr)
    assert 0 < expected_losses[0] < 1e-7
    network = problem.network()
    data = cupy.asarray(problem.x), cupy.asarray(problem.labels)
    (losses,) = Update(network, SGD(lr), *data, 5).run(cupy.asarray(indices))
    np.testing.assert_allclose(losses.get(), expected_losses, rtol=1e-4)
    for key, param in network.params.items():
        start = problem.params[key]
        assert error(param.get() - start, expected[key] - start) < 1e-4


def test_nan_comes_through(cupy: FakeCupy, kind: Kind) -> None:
    run = Run("cupy")
    run.network.params["W2"][0, 0] = np.nan
    (losses,) = run.update.run(cupy.asarray(np.zeros((2, 70), int)))
    assert np.isnan(losses.get()).all()


@pytest.mark.parametrize("change", ["parameter", "order", "layer"])
def test_what_changes_between_updates_counts(cupy: FakeCupy, kind: Kind, change: str) -> None:
    runs = []
    for backend, dtype in (("cupy", "float32"), ("numpy", "float64")):
        run = Run(backend, dtype=dtype, optimizer=Momentum(LR))
        upload, params = run.network.backend.asarray, run.network.params
        if change == "layer":
            run.network.layers[1].backward = lambda dout: 0 * dout
        else:
            order = np.asfortranarray if change == "order" else np.ascontiguousarray
            params["W2"] = upload(order(2 * run.params["W2"]))
        cupy.launched.clear()
        indices = upload(np.arange(70)[None] % 40)
        run.losses = [run.network.backend.to_numpy(part) for part in run.update.run(indices)]
        runs.append(run)
        if backend == "cupy":
            assert bool(cupy.launched) == (change == "parameter")
    run, desired = runs
    assert_near(run, desired, 1e-5)


Proof = Literal["numbers", "thread", "address"]
# The old text, the new, and what catches it.
MUTATIONS: dict[Kind, dict[str, tuple[str, str, list[Proof]]]] = {
    "layers": {
        "a barrier removed": (
            "            __syncthreads();\n            if (group < step)",
            "            if (group < step)",
            ["thread"],
        ),
        "an index off by one": ("n * inputs + i]", "n * inputs + i + 1]", ["address"]),
        "a sum without the last column": ("j < width && n", "j < width - 1 && n", ["numbers"]),
        "a minibatch counted twice": ("losses[(*update)++]", "losses[*update += 2]", ["numbers"]),
    },
    "products": {
        "a barrier removed": ("    __syncthreads();\n", "", ["numbers"]),
        "a row read too many": ("(BY_COLUMN ? m.rows", "(BY_COLUMN ? m.rows + 1", ["address"]),
        "a bias left out": ("if (i <= inputs && j", "if (i < inputs && j", ["numbers"]),
        "a minibatch not counted": ("counts[0] = done + 1", "counts[0] = done", ["numbers"]),
    },
}
CASES: list[tuple[Kind, str, Proof]] = [
    (kind, name, proof)
    for kind, mutations in MUTATIONS.items()
    for name, (*_, proofs) in mutations.items()
    for proof in proofs
]


def catches(cupy: FakeCupy, kind: Kind, proof: Proof) -> bool:
    """Say whether kernels fail a proof."""
    if proof != "numbers":
        cupy.sanitizer = proof
        require(proof)
    problem = make_problem((20, 7, 6))
    params, indices = problem.uploaded, np.random.default_rng(1).integers(40, size=(2, 5))
    data = cupy.asarray(problem.x), cupy.asarray(problem.labels)
    kernels = (Products if kind == "products" else Layers)(["sigmoid"], params, *data, 5)
    try:
        losses = kernels.run(cupy.asarray(indices), LR)
    except EmulatorError as caught:
        return re.search("Sanitizer|runtime error", str(caught)) is not None
    wanted, expected_losses = updated(problem, indices, LR)
    arrays, expected = [*params, losses], [*wanted.values(), expected_losses]
    return not all(error(a, b) < 1e-6 for a, b in zip(arrays, expected, strict=True))


@pytest.mark.parametrize(("kind", "name", "proof"), CASES)
def test_a_broken_kernel_is_caught(cupy: FakeCupy, kind: Kind, name: str, proof: Proof) -> None:
    cupy.mutations = [MUTATIONS[kind][name][:2]]
    assert catches(cupy, kind, proof)


@pytest.mark.parametrize("proof", get_args(Proof))
@pytest.mark.parametrize("kind", get_args(Kind))
def test_the_kernels_themselves_are_not(cupy: FakeCupy, kind: Kind, proof: Proof) -> None:
    assert not catches(cupy, kind, proof)

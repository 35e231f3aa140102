"""The library's own layers, losses and optimizers are what the protocols say; mypy reads this."""

from __future__ import annotations

from typing import Any

import numpy as np

from dlfs_gpu.layers import Affine, Dropout, Identity, Relu, Sigmoid, Tanh
from dlfs_gpu.losses import MeanSquaredError, SigmoidWithLoss, SoftmaxWithLoss, SumSquaredError
from dlfs_gpu.optimizers import OPTIMIZERS, Optimizer
from dlfs_gpu.protocols import (
    ColumnDifferencing,
    Differencing,
    Layer,
    Linear,
    LineDifferencing,
    Loss,
)

AFFINE = Affine(np.eye(2))
LAYERS: list[Layer] = [AFFINE, Dropout(), Identity(), Relu(), Sigmoid(), Tanh()]
FOLLOWED: list[Differencing] = [AFFINE, Dropout(), Identity(), Relu(), Sigmoid(), Tanh()]
LINEAR: list[Linear] = [AFFINE]
LOSSES: list[Loss] = [MeanSquaredError(), SigmoidWithLoss(), SoftmaxWithLoss(), SumSquaredError()]
BY_COLUMN: list[ColumnDifferencing] = [MeanSquaredError(), SigmoidWithLoss(), SoftmaxWithLoss()]
BY_LINE: list[LineDifferencing] = [SoftmaxWithLoss()]
KNOWN: list[Optimizer] = [kind() for kind in OPTIMIZERS.values()]


def test_all_that_is_declared_is_there() -> None:
    held: list[tuple[Any, list[Any]]] = [
        (Layer, LAYERS), (Differencing, FOLLOWED), (Linear, LINEAR), (Loss, LOSSES),
        (ColumnDifferencing, BY_COLUMN), (LineDifferencing, BY_LINE), (Optimizer, KNOWN),
    ]  # fmt: skip
    for protocol, things in held:
        declared = {name for name in vars(protocol) if not name.startswith("_")}
        assert declared
        for thing in things:
            assert declared <= set(dir(thing)), (protocol, thing)

"""Chapter 4 of *Deep Learning from Scratch* on NumPy or an NVIDIA GPU (CuPy).

Numerical gradients fast and exact enough to train with, beside the chapter's losses, layers,
networks, optimizers and training loop, under the book's names.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dlfs_gpu._validation import ArgumentError, DataError
    from dlfs_gpu.backend import Backend, BackendError, get_backend, use_backend
    from dlfs_gpu.data import (
        MinibatchSampler,
        load_csv,
        load_digits,
        load_fashion_mnist,
        load_idx,
        load_mnist,
    )
    from dlfs_gpu.differences import Differenced, with_difference
    from dlfs_gpu.differences.comparison import GradientReport
    from dlfs_gpu.estimator import NetworkClassifier, NetworkRegressor
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
    from dlfs_gpu.gradient import (
        default_step,
        gradient_descent,
        numerical_diff,
        numerical_gradient,
        tangent_line,
    )
    from dlfs_gpu.gradient_check import check_gradient, check_gradients
    from dlfs_gpu.layers import Affine, Dropout, Identity, Relu, Sigmoid, Tanh
    from dlfs_gpu.losses import MeanSquaredError, SigmoidWithLoss, SoftmaxWithLoss, SumSquaredError
    from dlfs_gpu.model_files import load_model, save_model
    from dlfs_gpu.models import MultiLayerNet, SimpleNet, TwoLayerNet, simpleNet
    from dlfs_gpu.network import Network
    from dlfs_gpu.optimizers import SGD, AdaGrad, Adam, Momentum, Nesterov, RMSprop
    from dlfs_gpu.training import History, Trainer

__all__ = [
    "SGD",
    "AdaGrad",
    "Adam",
    "Affine",
    "ArgumentError",
    "Backend",
    "BackendError",
    "DataError",
    "Differenced",
    "Dropout",
    "GradientReport",
    "History",
    "Identity",
    "MeanSquaredError",
    "MinibatchSampler",
    "Momentum",
    "MultiLayerNet",
    "Nesterov",
    "Network",
    "NetworkClassifier",
    "NetworkRegressor",
    "RMSprop",
    "Relu",
    "Sigmoid",
    "SigmoidWithLoss",
    "SimpleNet",
    "SoftmaxWithLoss",
    "SumSquaredError",
    "Tanh",
    "Trainer",
    "TwoLayerNet",
    "binary_cross_entropy_error",
    "check_gradient",
    "check_gradients",
    "cross_entropy_error",
    "default_step",
    "function_1",
    "function_2",
    "get_backend",
    "gradient_descent",
    "identity_function",
    "load_csv",
    "load_digits",
    "load_fashion_mnist",
    "load_idx",
    "load_mnist",
    "load_model",
    "log_softmax",
    "mean_squared_error",
    "numerical_diff",
    "numerical_gradient",
    "one_hot",
    "relu",
    "relu_grad",
    "save_model",
    "sigmoid",
    "sigmoid_cross_entropy",
    "sigmoid_grad",
    "simpleNet",
    "softmax",
    "softmax_cross_entropy",
    "softmax_loss",
    "step_function",
    "sum_squared_error",
    "tangent_line",
    "use_backend",
    "with_difference",
]


# Where these names are; the estimators last, because scikit-learn takes a second.
_MODULES = (
    "backend",
    "data",
    "differences",
    "functions",
    "gradient",
    "gradient_check",
    "layers",
    "losses",
    "models",
    "model_files",
    "optimizers",
    "training",
    "_validation",
    "estimator",
)


def __getattr__(name: str) -> Any:
    """Import what is first asked for: the command line is there, and interrupted, without it."""
    if name in __all__:
        for module in _MODULES:
            names = vars(importlib.import_module(f"{__name__}.{module}"))
            if name in names:
                return globals().setdefault(name, names[name])
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__

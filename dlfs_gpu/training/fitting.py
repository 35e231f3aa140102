"""What estimators for scikit-learn share: parameters, training, and moving arrays in and out."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Iterator, Mapping
from typing import Any, get_args

import numpy as np
from array_api_compat import device, is_cupy_array
from sklearn import get_config
from sklearn.base import BaseEstimator
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from dlfs_gpu._validation import (
    ArgumentError,
    Array,
    check_choice,
    check_count,
    check_fraction,
    check_not_negative,
    check_positive,
    is_finite,
    namespace_of,
)
from dlfs_gpu.backend import Backend, to_numpy
from dlfs_gpu.data.minibatches import MinibatchSampler
from dlfs_gpu.models import ACTIVATIONS, MultiLayerNet
from dlfs_gpu.network import Network
from dlfs_gpu.optimizers import make_optimizer
from dlfs_gpu.training.update import GradientKind, Update

# Samples in a minibatch for batch_size="auto", at most.
_AUTO_BATCH = 200


class NetworkEstimator(BaseEstimator):  # type: ignore[misc]
    """What `NetworkClassifier` and `NetworkRegressor` share.

    Subclasses say what the targets are, which network has them, and how it is scored.
    """

    _out_activation: str

    def __init__(
        self,
        hidden_layer_sizes: Any = (100,),
        activation: str = "relu",
        *,
        optimizer: Any = "adam",
        alpha: float = 0.0001,
        batch_size: int | str = "auto",
        learning_rate_init: float = 0.001,
        max_iter: int = 200,
        shuffle: bool = True,
        random_state: Any = None,
        tol: float = 1e-4,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 10,
        warm_start: bool = False,
        verbose: bool = False,
        gradient: GradientKind = "backprop",
        dropout_ratio: float = 0.0,
        dtype: Any = None,
        backend: str | Backend | None = None,
    ) -> None:
        self.hidden_layer_sizes = hidden_layer_sizes
        self.activation = activation
        self.optimizer = optimizer
        self.alpha = alpha
        self.batch_size = batch_size
        self.learning_rate_init = learning_rate_init
        self.max_iter = max_iter
        self.shuffle = shuffle
        self.random_state = random_state
        self.tol = tol
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.warm_start = warm_start
        self.verbose = verbose
        self.gradient = gradient
        self.dropout_ratio = dropout_ratio
        self.dtype = dtype
        self.backend = backend

    @property
    def coefs_(self) -> list[Array]:
        """Weights of each layer, (inputs, outputs): the network's own arrays."""
        return [param for key, param in self._fitted_params().items() if key.startswith("W")]

    @property
    def intercepts_(self) -> list[Array]:
        """Biases of each layer, (outputs,): the network's own arrays."""
        return [param for key, param in self._fitted_params().items() if key.startswith("b")]

    def _fitted_params(self) -> Mapping[str, Array]:
        if not hasattr(self, "network_"):
            raise AttributeError(f"this {type(self).__name__} has not been fitted")
        params: Mapping[str, Array] = self.network_.params
        return params

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "network_")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.array_api_support = True
        return tags

    def __getstate__(self) -> dict[str, Any]:
        if hasattr(self, "network_"):
            _forget_batch(self.network_)
        state: dict[str, Any] = super().__getstate__()
        return state

    def _check_parameters(self) -> None:
        """Raise ArgumentError for the first parameter that is not what it must be."""
        self._hidden_sizes()
        check_choice("activation", self.activation, ACTIVATIONS)
        self._new_optimizer()
        check_not_negative("alpha", self.alpha)
        self._mini_batch_size(1)
        check_count("max_iter", self.max_iter)
        check_not_negative("tol", self.tol)
        check_positive("validation_fraction", self.validation_fraction)
        check_fraction("validation_fraction", self.validation_fraction)
        check_count("n_iter_no_change", self.n_iter_no_change)
        for name in ("shuffle", "early_stopping", "warm_start", "verbose"):
            value = getattr(self, name)
            if not isinstance(value, bool | np.bool):
                raise ArgumentError(name, f"is {value!r}; it must be True or False")
        check_choice("gradient", self.gradient, get_args(GradientKind))
        check_random_state(self.random_state)
        # The network checks dropout_ratio, dtype and backend.

    def _refuse_early_stopping(self) -> None:
        if self.early_stopping:
            raise ArgumentError("early_stopping", "is True; partial_fit never stops early")

    def _hidden_sizes(self) -> list[int]:
        sizes = self.hidden_layer_sizes
        try:
            sizes = [sizes] if isinstance(sizes, int | np.integer) else list(sizes)
        except TypeError:
            raise ArgumentError(
                "hidden_layer_sizes", f"is {sizes!r}; it must be a list of sizes"
            ) from None
        return [check_count("hidden_layer_sizes", size) for size in sizes]

    def _mini_batch_size(self, samples: int) -> int:
        if isinstance(self.batch_size, str):
            check_choice("batch_size", self.batch_size, ("auto",))
            return min(_AUTO_BATCH, samples)
        return min(check_count("batch_size", self.batch_size), samples)

    def _new_optimizer(self) -> Any:
        lr = check_positive("learning_rate_init", self.learning_rate_init)
        if isinstance(self.optimizer, str):
            return make_optimizer(self.optimizer, lr=lr)
        return copy.deepcopy(make_optimizer(self.optimizer))

    def _goes_on(self) -> bool:
        """Say whether `fit` starts where the last one ended."""
        return bool(self.warm_start) and hasattr(self, "network_")

    def _start(self, X: Array, outputs: int) -> None:
        """Make a network for X, and set what is known of a fit before the first update."""
        self._rng = check_random_state(self.random_state)
        backend = self.backend
        if backend is None:
            backend = "cupy" if is_cupy_array(X) else "numpy"
        dtype = self.dtype
        if dtype is None:
            dtype = "float32" if X.dtype == namespace_of(X).float32 else "float64"
        sizes = self._hidden_sizes()
        stack = MultiLayerNet(
            X.shape[1],
            sizes,
            outputs,
            self.activation,
            1.0,
            dropout_ratio=self.dropout_ratio,
            seed=self._draw_seed(),
            dtype=dtype,
            backend=backend,
        )
        self.network_ = self._with_loss(stack)
        for W in self.coefs_:
            W *= math.sqrt(2 / sum(W.shape))
        self._optimizer = self._new_optimizer()
        self._origin = origin_of(X)
        self.n_iter_ = 0
        self.n_layers_ = len(sizes) + 2
        self.n_outputs_ = outputs
        self.out_activation_ = self._out_activation
        self.loss_curve_: list[float] = []
        self.validation_scores_: Any = None

    def _draw_seed(self) -> int:
        return int(self._rng.randint(2**31 - 1))

    def _fit(self, X: Array, t: np.ndarray, outputs: int) -> None:
        """Train on X, and targets on the host, from the start or from where the last fit ended."""
        if not self._goes_on():
            self._start(X, outputs)
        x, validation = self._moved(X), None
        if self.early_stopping:
            self.validation_scores_ = self.validation_scores_ or []
            rows, held_out = train_test_split(
                np.arange(len(t)),
                test_size=self.validation_fraction,
                random_state=self._draw_seed(),
                stratify=self._strata(t),
            )
            validation = _take(x, held_out), t[held_out]
            x, t = _take(x, rows), t[rows]
        if not self._train(x, t, self.max_iter, validation):
            warnings.warn(
                f"{self.max_iter} iterations, max_iter, are done, and training has not converged",
                ConvergenceWarning,
                stacklevel=3,
            )

    def _train(
        self,
        x: Array,
        t: np.ndarray,
        epochs: int,
        validation: tuple[Array, np.ndarray] | None = None,
    ) -> bool:
        """Train until nothing is gained any more, and say whether that was before `epochs` ended.

        With validation data, end with the weights that scored best on them, also if interrupted.
        """
        network = self.network_
        x, t = network._check(x, self._moved(t))
        size = self._mini_batch_size(x.shape[0])
        network.weight_decay_lambda = self.alpha / size
        update = Update(network, self._optimizer, x, t, size, self.gradient)
        best, waited = -math.inf, 0
        best_params: dict[str, Array] = {}
        try:
            for minibatches in self._minibatches(x.shape[0], size, epochs):
                self.loss_ = self._epoch(update, minibatches)
                self.loss_curve_.append(self.loss_)
                self.n_iter_ += 1
                score, shown = -self.loss_, f"iteration {self.n_iter_}  loss {self.loss_:.6f}"
                if validation is not None:
                    score = self._validation_score(*validation)
                    self.validation_scores_.append(score)
                    shown += f"  validation score {score:.6f}"
                if self.verbose:
                    print(shown)
                waited = waited + 1 if score < best + self.tol else 0
                if score > best:
                    best = score
                    if validation is not None:
                        best_params = {key: _copy(param) for key, param in network.params.items()}
                if waited > self.n_iter_no_change:
                    return True
        finally:
            for key, param in best_params.items():
                network.params[key][...] = param
        return False

    def _minibatches(self, samples: int, size: int, epochs: int) -> Iterator[Array]:
        """Yield the rows of the minibatches of each epoch, (updates, size).

        An epoch has as many updates as it takes to see every sample. Where the last of them has
        room, it takes the first samples of the next epoch.
        """
        count = math.ceil(samples / size)
        sampler = MinibatchSampler(samples, size, seed=self._draw_seed(), replacement=False)
        for epoch in range(epochs):
            if self.shuffle:
                rows = sampler.draw(count)
            else:
                rows = (np.arange(count * size) + epoch * count * size).reshape(-1, size) % samples
            yield self.network_.backend.asarray(rows)

    def _epoch(self, update: Update, minibatches: Array) -> float:
        """Do the updates of an epoch and return the mean of their losses."""
        quiet = np.errstate(over="ignore", invalid="ignore", divide="ignore")
        with quiet, update.threads():
            losses = list(update.run(minibatches))
        xp = namespace_of(minibatches)
        loss = float(xp.mean(xp.concat(losses)))
        if not (math.isfinite(loss) and all(map(is_finite, self.network_.params.values()))):
            del self.network_  # which would answer, but with nonsense
            raise ArgumentError(
                "learning_rate_init",
                f"is {self.learning_rate_init}, with which training diverged: after "
                f"{self.n_iter_ + 1} iterations the loss or a weight is not finite",
            )
        return loss

    def _moved(self, x: Array) -> Array:
        """Return an array of any library on the network's backend."""
        backend = self.network_.backend
        return backend.asarray(x if backend.name == "cupy" and is_cupy_array(x) else on_host(x))

    def _scores(self, X: Array, method: str) -> tuple[Array, Array]:
        """Return the network's scores on its backend, and X as it was checked."""
        check_is_fitted(self)
        X = validate_data(self, X, reset=False)
        self._refuse_other_library(X, method)
        return self.network_.scores(self._moved(X)), X

    def _refuse_other_library(self, X: Array, method: str) -> None:
        # Without dispatch everything becomes a NumPy array before it gets here.
        if get_config()["array_api_dispatch"] and origin_of(X) != self._origin:
            raise ValueError(
                f"Inputs passed to {type(self).__name__}.{method}() must use the same namespace "
                "and the same device as those passed to fit(), which were "
                f"{' on '.join(self._origin)}"
            )

    def _with_loss(self, stack: MultiLayerNet) -> Network:
        raise NotImplementedError

    def _strata(self, t: np.ndarray) -> np.ndarray | None:
        raise NotImplementedError

    def _validation_score(self, x: Array, t: np.ndarray) -> float:
        raise NotImplementedError


def _forget_batch(network: Network) -> None:
    """Let layers hold a sample of zeros, not the last batch, which no copy or file should have."""
    asarray, sizes = network.backend.asarray, network.sizes
    network.loss(*(asarray(np.zeros(size), network.dtype) for size in (sizes[0], sizes[-1])))
    for layer in network.layers:
        if hasattr(layer, "grads"):
            layer.grads = {}


def on_host(x: Any) -> np.ndarray:
    """Return an array of any library, or a list, in NumPy."""
    if isinstance(x, np.ndarray) or is_cupy_array(x) or not hasattr(x, "__dlpack__"):
        return to_numpy(x)
    return np.from_dlpack(x, device="cpu")


def in_library_of(like: Array, x: Array) -> Array:
    """Return a NumPy or CuPy array in the library, and on the device, of another."""
    if is_cupy_array(like) and is_cupy_array(x):
        return x
    if isinstance(like, np.ndarray):
        return to_numpy(x)
    return namespace_of(like).asarray(to_numpy(x), device=device(like))


def origin_of(x: Array) -> tuple[str, str]:
    """Return library and device in words, which can be pickled and compared."""
    return namespace_of(x).__name__, str(device(x))


def _take(x: Array, rows: np.ndarray) -> Array:
    xp = namespace_of(x)
    return xp.take(x, xp.asarray(rows), axis=0)


def _copy(x: Array) -> Array:
    return namespace_of(x).asarray(x, copy=True)

"""Networks as estimators for scikit-learn: ``fit``, ``predict``, pipelines, grid search.

Parameters with the names of scikit-learn's `MLPClassifier` mean what they mean there. There is no
``sample_weight``: one drawn minibatch is no copy of another that holds a sample twice, so that
weights could not be what scikit-learn's checks ask of them.
"""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Iterator, Mapping, MutableMapping
from typing import Any, get_args

import numpy as np
from array_api_compat import device, is_cupy_array
from sklearn import get_config
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import r2_score
from sklearn.model_selection import train_test_split
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
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
from dlfs_gpu.backend import Backend, get_backend, to_numpy
from dlfs_gpu.data.minibatches import MinibatchSampler
from dlfs_gpu.functions import log_softmax
from dlfs_gpu.losses import MeanSquaredError
from dlfs_gpu.models import ACTIVATIONS, MultiLayerNet
from dlfs_gpu.network import Network
from dlfs_gpu.optimizers import make_optimizer
from dlfs_gpu.training.update import GradientKind, Update

# Samples in a minibatch for batch_size="auto", at most.
_AUTO_BATCH = 200


class _NetworkEstimator(BaseEstimator):  # type: ignore[misc]
    """What classifier and regressor share: parameters, training, and the way in and out.

    Subclasses say what the targets are, which network has them, and how it is scored.
    """

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
            # Layers hold the last batch, which is nothing that a copy or a file should have.
            network = self.network_
            network.scores(network.backend.asarray(np.zeros(network.sizes[0]), network.dtype))
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
            "relu" if self.activation.lower() == "relu" else "sigmoid",
            dropout_ratio=self.dropout_ratio,
            seed=self._draw_seed(),
            dtype=dtype,
            backend=backend,
        )
        self.network_ = self._with_loss(stack)
        self._optimizer = self._new_optimizer()
        self._origin = _origin(X)
        self.n_iter_ = 0
        self.n_layers_ = len(sizes) + 2
        self.n_outputs_ = outputs
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
        optimizer = _WeightDecay(self._optimizer, self.alpha / size)
        update = Update(network, optimizer, x, t, size, self.gradient)
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
            losses = [update(minibatches[k, ...]) for k in range(minibatches.shape[0])]
        xp = namespace_of(minibatches)
        loss = float(xp.mean(xp.stack([xp.asarray(loss) for loss in losses])))
        if not (math.isfinite(loss) and all(map(is_finite, self.network_.params.values()))):
            raise ArgumentError(
                "learning_rate_init",
                f"is {self.learning_rate_init}, with which training diverged: after "
                f"{self.n_iter_ + 1} iterations the loss or a weight is not finite",
            )
        return loss

    def _moved(self, x: Array) -> Array:
        """Return an array of any library on the network's backend."""
        backend = self.network_.backend
        return backend.asarray(x if backend.name == "cupy" and is_cupy_array(x) else _on_host(x))

    def _scores(self, X: Array, method: str) -> tuple[Array, Array]:
        """Return the network's scores on its backend, and X as it was checked."""
        check_is_fitted(self)
        X = validate_data(self, X, reset=False)
        self._refuse_other_library(X, method)
        return self.network_.scores(self._moved(X)), X

    def _refuse_other_library(self, X: Array, method: str) -> None:
        # Without dispatch everything becomes a NumPy array before it gets here.
        if get_config()["array_api_dispatch"] and _origin(X) != self._origin:
            raise ValueError(
                f"Inputs passed to {type(self).__name__}.{method}() must use the same namespace "
                f"and the same device as those passed to fit(): {_origin(X)} is not {self._origin}"
            )

    def _with_loss(self, stack: MultiLayerNet) -> Network:
        raise NotImplementedError

    def _strata(self, t: np.ndarray) -> np.ndarray | None:
        raise NotImplementedError

    def _validation_score(self, x: Array, t: np.ndarray) -> float:
        raise NotImplementedError


class NetworkClassifier(ClassifierMixin, _NetworkEstimator):  # type: ignore[misc]
    """A network that classifies: `MultiLayerNet`, with softmax and cross entropy.

    Parameters
    ----------
    hidden_layer_sizes : sequence of int, or int
        Sizes of the hidden layers, none or more.
    activation : {"relu", "sigmoid", "tanh"}
        After each hidden layer.
    optimizer : str or object with ``update(params, grads)``
        One of `dlfs_gpu.optimizers` by its name, or an object, of which each fit uses a copy.
    alpha : float
        Weight decay: ½·alpha·ΣW² / `batch_size` is added to the loss of a minibatch.
    batch_size : int or "auto"
        Samples in a minibatch, all if there are fewer; 200 for "auto".
    learning_rate_init : float
        Learning rate of an optimizer given by name.
    max_iter : int
        Epochs at most. An epoch has as many updates as it takes to see every sample.
    shuffle : bool
        Whether samples are shuffled before each epoch.
    random_state : int, RandomState or None
        Of weights, minibatches, dropout, and the choice of validation data. Equal seeds draw
        equal numbers on every backend.
    tol, n_iter_no_change : float, int
        Training ends when for more than `n_iter_no_change` epochs the loss, or the score of the
        validation data, has not been better than the best by `tol`.
    early_stopping : bool
        Judge by validation data held out of the training data, and end with the weights that
        scored best on them.
    validation_fraction : float
        Share that is held out, above 0 and below 1.
    warm_start : bool
        Let `fit` go on with the network and the optimizer as the last fit left them.
    verbose : bool
        Print the loss of each epoch.
    gradient : {"backprop", "difference", "batched", "loop"}
        Backpropagation, or central differences as by `Network.numerical_gradient`.
    dropout_ratio : float
        Share of the hidden units dropped while training, at least 0 and less than 1.
    dtype : {"float32", "float64"}, optional
        Of the network; by default float32 if X has that, and otherwise float64.
    backend : {"auto", "numpy", "cupy"} or Backend, optional
        Where to train; by default CuPy if X is a CuPy array, and otherwise NumPy.

    Attributes
    ----------
    classes_ : array, shape (classes,)
        Labels, in the library of y.
    n_features_in_ : int
    feature_names_in_ : ndarray of str
        Only where X has names of columns that are strings.
    n_iter_ : int
        Epochs done, those of fits before with `warm_start` or `partial_fit` included.
    n_layers_, n_outputs_ : int
        Layers, those of inputs and outputs included; outputs.
    out_activation_ : str
        "softmax".
    loss_ : float
        Mean loss of the last epoch's minibatches, without weight decay.
    loss_curve_ : list of float
        That of each epoch.
    validation_scores_ : list of float or None
        Accuracy on the validation data after each epoch.
    coefs_, intercepts_ : list of array
        The network's weights and biases.
    network_ : MultiLayerNet

    Notes
    -----
    With ``sklearn.set_config(array_api_dispatch=True)`` X and y may be CuPy arrays, which stay on
    the GPU, or those of another array API library, which are trained on in NumPy; answers are of
    the library of X. Methods raise ArgumentError, a ValueError, for parameters that are not the
    above; and ValueError and TypeError for data, as other estimators do.
    """

    def fit(self, X: Any, y: Any) -> NetworkClassifier:
        """Train on samples X, (N, features), and labels y, (N,): numbers, strings or booleans.

        Raises
        ------
        ArgumentError
            If y has only one class, or with `warm_start` others than before, or if training
            diverges.
        """
        self._check_parameters()
        X, y = validate_data(self, X, y, reset=not self._goes_on())
        check_classification_targets(y)
        labels = _on_host(y)
        classes = np.unique(labels)
        if not self._goes_on():
            self._set_classes(classes, y)
        elif not np.array_equal(classes, _on_host(self.classes_)):
            raise ArgumentError("y", "has other classes than before, and warm_start is True")
        self._fit(X, np.searchsorted(classes, labels), len(classes))
        return self

    def partial_fit(self, X: Any, y: Any, classes: Any = None) -> NetworkClassifier:
        """Train for one epoch of the samples given.

        Parameters
        ----------
        X, y : array_like
            As for `fit`; not every class must be there.
        classes : array_like, shape (classes,)
            All labels; may be left out after the first call.

        Raises
        ------
        ArgumentError
            If `classes` are missing, or others than before, or y has a label that is none of
            them, or `early_stopping` is on.
        """
        self._check_parameters()
        first = not hasattr(self, "network_")
        if self.early_stopping:
            raise ArgumentError("early_stopping", "is True; partial_fit never stops early")
        if first and classes is None:
            raise ArgumentError("classes", "is None; the first call to partial_fit must name all")
        X, y = validate_data(self, X, y, reset=first)
        check_classification_targets(y)
        given = None if classes is None else np.unique(_on_host(classes))
        known = given if first else _on_host(self.classes_)
        if given is not None and not np.array_equal(given, known):
            raise ArgumentError("classes", "are others than in the first call to partial_fit")
        labels = _on_host(y)
        unknown = np.setdiff1d(labels, known)
        if len(unknown):
            raise ArgumentError("y", f"has the label {unknown[0]!r}, which is none of classes")
        if first:
            self._set_classes(known, y)
            self._start(X, len(known))
        self._train(self._moved(X), np.searchsorted(known, labels), 1)
        return self

    def predict(self, X: Any) -> Array:
        """Return the likeliest label of each sample, (N,)."""
        scores, X = self._scores(X, "predict")
        indices = _in_library_of(X, namespace_of(scores).argmax(scores, axis=1))
        if _origin(self.classes_) == _origin(X):
            return namespace_of(X).take(self.classes_, indices)
        labels = _on_host(self.classes_)[_on_host(indices)]
        # Only NumPy has strings.
        return _in_library_of(X, labels) if labels.dtype.kind in "biuf" else labels

    def predict_proba(self, X: Any) -> Array:
        """Return the probability of each class, (N, classes), in the order of `classes_`."""
        scores, X = self._scores(X, "predict_proba")
        return _in_library_of(X, self.network_.loss_layer.predict(scores))

    def predict_log_proba(self, X: Any) -> Array:
        """Return the logarithm of the probabilities, (N, classes); exact where they are 0."""
        scores, X = self._scores(X, "predict_log_proba")
        return _in_library_of(X, log_softmax(scores))

    def _set_classes(self, classes: np.ndarray, y: Array) -> None:
        if len(classes) < 2:
            raise ArgumentError("y", "has only one class; a classifier needs two or more")
        self.classes_ = _in_library_of(y, classes)
        self.out_activation_ = "softmax"

    def _with_loss(self, stack: MultiLayerNet) -> Network:
        return stack

    def _strata(self, t: np.ndarray) -> np.ndarray | None:
        return t

    def _validation_score(self, x: Array, t: np.ndarray) -> float:
        return self.network_.accuracy(x, self._moved(t))


class _WeightDecay:
    """Adds the slope of ½λΣW² to gradients before an optimizer sees them.

    `Network` can do that too, but not in `FusedGradient`, which takes half the time.
    """

    def __init__(self, optimizer: Any, decay: float) -> None:
        self.optimizer = optimizer
        self.decay = decay

    def update(self, params: MutableMapping[str, Array], grads: Mapping[str, Array]) -> None:
        """Update the parameters with gradients of the loss, which are changed."""
        if self.decay:
            for key, grad in grads.items():
                if grad.ndim > 1:
                    grad += self.decay * params[key]
        self.optimizer.update(params, grads)


def _on_host(x: Array) -> np.ndarray:
    """Return an array of any library as NumPy's."""
    if isinstance(x, list | tuple | np.ndarray) or is_cupy_array(x):
        return to_numpy(x)
    return np.from_dlpack(x, device="cpu")


def _in_library_of(like: Array, x: Array) -> Array:
    """Return a NumPy or CuPy array in the library, and on the device, of another."""
    if is_cupy_array(like) and is_cupy_array(x):
        return x
    host = to_numpy(x)
    return (
        host
        if isinstance(like, np.ndarray)
        else namespace_of(like).asarray(host, device=device(like))
    )


def _origin(x: Array) -> tuple[str, str]:
    """Return library and device in words, which can be pickled and compared."""
    return namespace_of(x).__name__, str(device(x))


def _take(x: Array, rows: np.ndarray) -> Array:
    xp = namespace_of(x)
    return xp.take(x, xp.asarray(rows), axis=0)


def _copy(x: Array) -> Array:
    return namespace_of(x).asarray(x, copy=True)

"""Networks as estimators for scikit-learn: ``fit``, ``predict``, pipelines, grid search.

Parameters with the names of scikit-learn's `MLPClassifier` mean what they mean there. There is no
``sample_weight``: with minibatches drawn at random, a weight of 2 does not train as the same
sample given twice does, which is what scikit-learn's checks ask of weights.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import ClassifierMixin, RegressorMixin
from sklearn.metrics import r2_score
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import validate_data

from dlfs_gpu._validation import ArgumentError, Array, as_float, namespace_of
from dlfs_gpu.backend import to_numpy
from dlfs_gpu.functions import log_softmax
from dlfs_gpu.losses import MeanSquaredError
from dlfs_gpu.models import MultiLayerNet
from dlfs_gpu.network import Network
from dlfs_gpu.training.fitting import NetworkEstimator, in_library_of, on_host, origin_of


class NetworkClassifier(ClassifierMixin, NetworkEstimator):  # type: ignore[misc]
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
        Mean loss of the last epoch's minibatches, with weight decay.
    loss_curve_ : list of float
        That of each epoch.
    validation_scores_ : list of float or None
        Accuracy on the validation data after each epoch.
    coefs_, intercepts_ : list of array
        The network's weights and biases.
    network_ : MultiLayerNet

    Notes
    -----
    First weights are normal with the variance 2 / (inputs + outputs) of the layer [1]_, and so
    small that data need not have been scaled for training to begin well.

    With ``sklearn.set_config(array_api_dispatch=True)`` X and y may be CuPy arrays, which stay on
    the GPU, or those of another array API library, which are trained on in NumPy; answers are of
    the library of X. Methods raise ArgumentError, a ValueError, for parameters that are not the
    above; and ValueError and TypeError for data, as other estimators do.

    References
    ----------
    .. [1] X. Glorot and Y. Bengio, "Understanding the difficulty of training deep feedforward
       neural networks", AISTATS 2010.
    """

    _out_activation = "softmax"

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
        labels = on_host(y)
        classes = np.unique(labels)
        if not self._goes_on():
            self._set_classes(classes, y)
        elif not np.array_equal(classes, on_host(self.classes_)):
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
        self._refuse_early_stopping()
        if first and classes is None:
            raise ArgumentError("classes", "is None; the first call to partial_fit must name all")
        X, y = validate_data(self, X, y, reset=first)
        check_classification_targets(y)
        known = np.unique(on_host(classes)) if first else on_host(self.classes_)
        if classes is not None and not np.array_equal(np.unique(on_host(classes)), known):
            raise ArgumentError("classes", "are others than in the first call to partial_fit")
        labels = on_host(y)
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
        indices = in_library_of(X, namespace_of(scores).argmax(scores, axis=1))
        if origin_of(self.classes_) == origin_of(X):
            return namespace_of(X).take(self.classes_, indices)
        labels = on_host(self.classes_)[on_host(indices)]
        # Only NumPy has strings.
        return in_library_of(X, labels) if labels.dtype.kind in "biuf" else labels

    def predict_proba(self, X: Any) -> Array:
        """Return the probability of each class, (N, classes), in the order of `classes_`."""
        scores, X = self._scores(X, "predict_proba")
        return in_library_of(X, self.network_.loss_layer.predict(scores))

    def predict_log_proba(self, X: Any) -> Array:
        """Return the logarithm of the probabilities, (N, classes); exact where they are 0."""
        scores, X = self._scores(X, "predict_log_proba")
        return in_library_of(X, log_softmax(scores))

    def _set_classes(self, classes: np.ndarray, y: Array) -> None:
        if len(classes) < 2:
            raise ArgumentError("y", "has only one class; a classifier needs two or more")
        self.classes_ = in_library_of(y, classes)

    def _with_loss(self, stack: MultiLayerNet) -> Network:
        return stack

    def _strata(self, t: np.ndarray) -> np.ndarray | None:
        return t

    def _validation_score(self, x: Array, t: np.ndarray) -> float:
        return self.network_.accuracy(x, self._moved(t))


class NetworkRegressor(RegressorMixin, NetworkEstimator):  # type: ignore[misc]
    """A network whose outputs are numbers, trained on their mean squared error.

    Parameters
    ----------
    hidden_layer_sizes, activation, optimizer, alpha, batch_size, learning_rate_init, max_iter, \
shuffle, random_state, tol, early_stopping, validation_fraction, n_iter_no_change, warm_start, \
verbose, gradient, dropout_ratio, dtype, backend
        As for `NetworkClassifier`.

    Attributes
    ----------
    n_features_in_, feature_names_in_, n_iter_, n_layers_, n_outputs_, loss_, loss_curve_, coefs_, \
intercepts_
        As for `NetworkClassifier`; the loss is twice that of scikit-learn's `MLPRegressor`.
    out_activation_ : str
        "identity".
    validation_scores_ : list of float or None
        R² on the validation data after each epoch.
    network_ : Network
        With `MeanSquaredError`.

    Notes
    -----
    Targets are fitted as they are: where they are far from 0, or large, scale them
    (`sklearn.compose.TransformedTargetRegressor`). For arrays, and errors, see
    `NetworkClassifier`.
    """

    _out_activation = "identity"

    def fit(self, X: Any, y: Any) -> NetworkRegressor:
        """Train on samples X, (N, features), and targets y, (N,) or (N, outputs).

        Raises
        ------
        ArgumentError
            If training diverges, or y has other outputs than before, with `warm_start`.
        """
        self._check_parameters()
        X, t = self._targets(X, y, first=not self._goes_on())
        self._fit(X, t, t.shape[1])
        return self

    def partial_fit(self, X: Any, y: Any) -> NetworkRegressor:
        """Train for one epoch of the samples given, as for `fit`.

        Raises
        ------
        ArgumentError
            Further: if `early_stopping` is on.
        """
        self._check_parameters()
        self._refuse_early_stopping()
        first = not hasattr(self, "network_")
        X, t = self._targets(X, y, first)
        if first:
            self._start(X, t.shape[1])
        self._train(self._moved(X), t, 1)
        return self

    def predict(self, X: Any) -> Array:
        """Return the outputs, of the shape that y had: (N,) or (N, outputs)."""
        scores, X = self._scores(X, "predict")
        return in_library_of(X, scores[:, 0] if self._is_flat else scores)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    def _targets(self, X: Any, y: Any, first: bool) -> tuple[Array, np.ndarray]:
        """Return X as it was checked, and targets on the host, (N, outputs)."""
        X, y = validate_data(self, X, y, reset=first, multi_output=True, y_numeric=True)
        t = as_float(on_host(y), "y")
        if first:
            self._is_flat = t.ndim == 1
        t = t.reshape(len(t), -1)
        if not first and t.shape[1] != self.n_outputs_:
            raise ArgumentError(
                "y", f"has {t.shape[1]} outputs for each sample; before it had {self.n_outputs_}"
            )
        return X, t

    def _with_loss(self, stack: MultiLayerNet) -> Network:
        return Network(stack.layers, MeanSquaredError())

    def _strata(self, t: np.ndarray) -> np.ndarray | None:
        return None

    def _validation_score(self, x: Array, t: np.ndarray) -> float:
        return float(r2_score(t, to_numpy(self.network_.scores(x))))

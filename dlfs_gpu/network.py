"""A stack of layers with a loss: predict, loss, accuracy, and gradients three ways (4.5)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, get_args

from dlfs_gpu._validation import (
    Array,
    array_namespace,
    as_float,
    check_targets,
    check_unit_targets,
    is_finite,
    namespace_of,
)
from dlfs_gpu.backend import get_backend, memory_budget
from dlfs_gpu.differences.stack import difference_gradients
from dlfs_gpu.gradient import Method, check_step, numerical_gradient
from dlfs_gpu.layers import Affine, Dropout
from dlfs_gpu.losses import SigmoidWithLoss, SoftmaxWithLoss, as_one_hot

GradientMethod = Literal["loop", "batched", "difference"]

# Samples at once when accuracies are computed, so that whole data sets need little memory.
_EVALUATION_BATCH = 10_000


class Network:
    """A stack of layers and a loss.

    Parameters
    ----------
    layers : sequence
        Layers of `dlfs_gpu.layers`, or others with their ``forward``, their ``backward`` to train
        by backpropagation, and their ``difference`` and ``base`` for numerical gradients. The
        parameters of `Affine` layers become ``params["W1"]``, ``params["b1"]`` and so on; arrays
        put there later, in place or not, are used.
    loss : optional
        Loss layer, `SoftmaxWithLoss` by default.
    weight_decay_lambda : float
        Adds ½λΣW² over all weights, not biases, to the loss (6.4.2).

    Attributes
    ----------
    params : dict of str to array
    layers : list
    loss_layer
    backend : Backend
        Where the parameters are, and where inputs must be.

    Raises
    ------
    ValueError
        If no layer is an `Affine`; if a layer or a parameter is there twice, since layers keep
        what they saw last; or if `weight_decay_lambda` is negative or not finite.
    TypeError
        If the parameters are of different libraries or types.

    Notes
    -----
    Methods take x of shape (N, I) or one sample (I,), and targets t as one-hot or soft (N, C) or
    integer labels (N,), or those of one sample. They raise ValueError for shapes that do not fit,
    labels out of range and numbers that are not finite, and TypeError for arrays of another
    library than the parameters'. Nothing is moved between host and device.
    """

    def __init__(
        self,
        layers: Sequence[Any],
        loss: Any = None,
        weight_decay_lambda: float = 0.0,
    ) -> None:
        if not (math.isfinite(weight_decay_lambda) and weight_decay_lambda >= 0):
            raise ValueError(
                f"weight_decay_lambda is {weight_decay_lambda}; it must be 0 or more, and finite"
            )
        self.layers = list(layers)
        self.loss_layer = SoftmaxWithLoss() if loss is None else loss
        self.weight_decay_lambda = weight_decay_lambda
        self._affine = [layer for layer in self.layers if isinstance(layer, Affine)]
        if not self._affine:
            raise ValueError("layers holds no Affine layer, so there is nothing to train")
        self.params: dict[str, Array] = {}
        for number, layer in enumerate(self._affine, 1):
            self.params[f"W{number}"] = layer.W
            if layer.b is not None:
                self.params[f"b{number}"] = layer.b
        self._refuse_sharing()
        xp = array_namespace(**self.params)
        for key, param in self.params.items():
            if param.dtype != self.dtype:
                raise TypeError(
                    f"W1 has the type {self.dtype} and {key} {param.dtype}; all must have the same"
                )
        self.backend = get_backend("cupy" if xp.__name__.endswith("cupy") else "numpy")

    @property
    def dtype(self) -> Any:
        """Type of the parameters, to which inputs are converted."""
        return self.params["W1"].dtype

    @property
    def sizes(self) -> list[int]:
        """Features of the input, of each hidden layer, and of the output."""
        weights = [self.params[f"W{number}"] for number, _ in enumerate(self._affine, 1)]
        return [weights[0].shape[0], *(W.shape[1] for W in weights)]

    def scores(self, x: Array) -> Array:
        """Return the output of the last layer, (N, C) or (C,), with dropout off."""
        batch, single = self._inputs(x)
        out = self.evaluate(batch)
        return out[0, ...] if single else out

    def predict(self, x: Array) -> Array:
        """Return what the loss makes of `scores`, (N, C) or (C,): probabilities by default."""
        return self.loss_layer.predict(self.scores(x))

    def loss(self, x: Array, t: Array) -> Array:
        """Return the mean loss, of shape (), weight decay included, with dropout off."""
        return self.mean_loss(*self.check(x, t), training=False)

    def accuracy(self, x: Array, t: Array) -> float:
        """Return the share of samples whose largest score is at the target.

        With one output, the share whose prediction is on the same side of ½ as the target.
        """
        x, t = self.check(x, t)
        return self.share_right(x, t)

    def gradient(self, x: Array, t: Array) -> dict[str, Array]:
        """Return the gradient of the loss by backpropagation, with dropout on (chapter 5)."""
        return self.loss_and_gradient(*self.check(x, t))[1]

    def numerical_gradient(
        self,
        x: Array,
        t: Array,
        h: float | None = None,
        method: GradientMethod = "difference",
        *,
        max_memory: int | None = None,
        threads: int | None = None,
        progress: bool = False,
    ) -> dict[str, Array]:
        """Return the gradient of the loss by central differences of all parameters (4.5.2).

        Dropout is on, as in `gradient`.

        Parameters
        ----------
        x, t : array
            Batch and targets.
        h : float, optional
            Step. By default 1e-4 for ``"difference"``, which loses no digits at any h, and
            `dlfs_gpu.default_step` for the others.
        method : {"difference", "batched", "loop"}
            All give the same difference. ``"difference"`` follows each change through the layers
            (`dlfs_gpu.differences`); ``"batched"`` evaluates the loss for many perturbed copies
            at a time; ``"loop"``, the chapter's, for one.
        max_memory : int, optional
            Bytes to use for work in flight: 256 MiB by default, half of the free memory on a GPU.
        threads : int, optional
            Threads that ``"difference"`` uses on the CPU; they do not change the result.
        progress : bool
            Show a progress bar for ``"batched"`` and ``"loop"``.

        Returns
        -------
        dict of str to array
            With the keys, shapes and types of ``params``.

        Raises
        ------
        ValueError
            Further: if h is not positive and finite, or lost in rounding; if `max_memory` is too
            small; if dropout is on and not frozen, for ``"batched"`` and ``"loop"``.
        TypeError
            Further: if a layer has no `difference` and the method is ``"difference"``.
        """
        if method not in get_args(GradientMethod):
            choices = ", ".join(get_args(GradientMethod))
            raise ValueError(f"method is {method!r}; it must be one of {choices}")
        x, t = self.check(x, t)
        if method == "difference":
            h = 1e-4 if h is None else check_step(h)
            smallest = math.sqrt(namespace_of(x).finfo(x.dtype).smallest_normal)
            if h < smallest:
                raise ValueError(
                    f"h is {h}; below {smallest:.1e} changes are lost to underflow in {x.dtype}"
                )
            gradient = self.loss_and_differences(x, t, h, max_memory, threads)[1]
            for key, values in gradient.items():
                if not is_finite(values):
                    raise ValueError(
                        f"the difference of the loss is NaN or infinite in {key}: the network's "
                        f"numbers overflow in {x.dtype}"
                    )
            return gradient
        self.refuse_random_dropout()
        return {
            key: self._evaluated_differences(key, x, t, h, method, max_memory, progress)
            for key in self.params
        }

    def loss_and_gradient(self, x: Array, t: Array) -> tuple[Array, dict[str, Array]]:
        """Return loss and gradient of one pass each way, for arrays that `check` has seen."""
        loss = self.mean_loss(x, t, training=True)
        return loss, self.backward(self.loss_layer.backward())

    def backward(self, dout: Array) -> dict[str, Array]:
        """Return the gradient, given that of the scores, (N, C), just after a forward pass."""
        for layer in reversed(self.layers):
            dout = layer.backward(dout)
        grads = {}
        for number, layer in enumerate(self._affine, 1):
            grads[f"W{number}"] = layer.dW
            if self.weight_decay_lambda:
                grads[f"W{number}"] = layer.dW + self.weight_decay_lambda * layer.W
            if layer.b is not None:
                grads[f"b{number}"] = layer.db
        return grads

    def loss_and_differences(
        self,
        x: Array,
        t: Array,
        h: float = 1e-4,
        max_memory: int | None = None,
        threads: int | None = None,
    ) -> tuple[Array, dict[str, Array]]:
        """Return loss and ``"difference"`` gradient, for arrays that `check` has seen.

        The pass before is in float64. Rounded, an input of `Relu` that a change takes across the
        kink would be wrong by a share of the change itself, not of the input.
        """
        xp = namespace_of(x)
        wide = self.params_in_float64()
        loss = self.mean_loss(xp.astype(x, xp.float64, copy=False), t, training=True, **wide)
        loss = xp.astype(loss, x.dtype, copy=False)
        self.hand_out(self.params)
        gradients = difference_gradients(
            self.layers, self.loss_layer, h, max_memory=max_memory, threads=threads
        )
        decay = self.weight_decay_lambda
        grads = {}
        for number, (layer, (dW, db)) in enumerate(zip(self._affine, gradients, strict=True), 1):
            if decay:
                # Of ½λW² the central difference is λW, at any h.
                dW = dW + decay * layer.W
            grads[f"W{number}"] = dW
            if layer.b is not None:
                grads[f"b{number}"] = db
        return loss, grads

    def forward(self, x: Array, training: bool, **replaced: Array) -> Array:
        """Return the output of the last layer for a batch.

        Parameters
        ----------
        x : array, shape (N, I)
        training : bool
            Whether dropout is on.
        **replaced
            Arrays to use instead of those in ``params``, of their shape or stacked, (K, *shape),
            which gives (K, N, C).
        """
        self.hand_out({**self.params, **replaced})
        for layer in self.layers:
            if isinstance(layer, Dropout):
                layer.train_flg = training
            x = layer.forward(x)
        return x

    def mean_loss(self, x: Array, t: Array, training: bool, **replaced: Array) -> Array:
        """Return the loss, () or (K,), for arrays that `check` has seen; see `forward`."""
        loss = self.loss_layer.forward(self.forward(x, training, **replaced), t)
        if self.weight_decay_lambda:
            xp = namespace_of(loss)
            for layer in self._affine:
                squares = xp.sum(layer.W * layer.W, axis=(-2, -1))
                loss = loss + 0.5 * self.weight_decay_lambda * squares
        return loss

    def params_in_float64(self) -> dict[str, Array]:
        """Return the parameters in float64; those that are so already, themselves."""
        xp = array_namespace(**self.params)
        return {key: xp.astype(p, xp.float64, copy=False) for key, p in self.params.items()}

    def hand_out(self, params: dict[str, Array]) -> None:
        """Give the layers their parameters, arrays with the keys of ``params``."""
        for number, layer in enumerate(self._affine, 1):
            layer.W = params[f"W{number}"]
            if layer.b is not None:
                b = params[f"b{number}"]
                layer.b = b if b.ndim == 1 else b[:, None, :]

    def evaluate(self, x: Array) -> Array:
        """Return `scores` of a batch that `check` has seen, a block of samples at a time."""
        n: int = x.shape[0]
        blocks = [
            self.forward(x[start : min(start + _EVALUATION_BATCH, n), ...], training=False)
            for start in range(0, n, _EVALUATION_BATCH)
        ]
        return blocks[0] if len(blocks) == 1 else namespace_of(x).concat(blocks)

    def share_right(self, x: Array, t: Array) -> float:
        """Return the accuracy on arrays that `check` has seen; NaN is never right."""
        xp = namespace_of(x)
        scores = self.evaluate(x)
        if scores.shape[-1] == 1 and t.ndim == 2:
            right = (self.loss_layer.predict(scores) >= 0.5) == (t >= 0.5)
        else:
            labels = t if t.ndim == 1 else xp.argmax(t, axis=-1)
            right = (xp.argmax(scores, axis=-1) == labels)[:, None]
        right = right & ~xp.any(xp.isnan(scores), axis=-1, keepdims=True)
        return int(xp.sum(xp.astype(right, xp.int64))) / int(x.shape[0])

    def check(self, x: Array, t: Array) -> tuple[Array, Array]:
        """Return batch and targets ready for the network, or raise what the class says."""
        batch, single = self._inputs(x)
        shape = (self.sizes[-1],) if single else (batch.shape[0], self.sizes[-1])
        if isinstance(self.loss_layer, SoftmaxWithLoss):
            t = check_targets(t, shape, batch, "the output")
        else:
            t = as_float(t, "t")
            array_namespace(x=batch, t=t)
            if t.shape != shape:
                raise ValueError(f"t has shape {t.shape}; it must be {shape}")
            t = namespace_of(t).astype(t, batch.dtype, copy=False)
            if isinstance(self.loss_layer, SigmoidWithLoss):
                check_unit_targets(t)
            _check_finite("t", t)
        return batch, t[None, ...] if single else t

    def freeze_dropout(self) -> None:
        """Make every `Dropout` layer keep its mask, so that losses can be compared."""
        for layer in self.layers:
            if isinstance(layer, Dropout):
                layer.frozen = True

    def refuse_random_dropout(self) -> None:
        """Raise ValueError if a `Dropout` layer draws a new mask at every pass."""
        for layer in self.layers:
            if isinstance(layer, Dropout) and layer.dropout_ratio > 0 and not layer.frozen:
                raise ValueError(
                    "the network has a Dropout layer that draws a new mask at every pass, so "
                    "losses cannot be compared; network.freeze_dropout() makes it keep one"
                )

    def _refuse_sharing(self) -> None:
        """Raise ValueError if a layer or a parameter is there twice."""
        seen: dict[int, str] = {}
        named = {f"layers[{k}]": layer for k, layer in enumerate(self.layers)}
        for name, thing in {**named, **self.params}.items():
            if id(thing) in seen:
                raise ValueError(
                    f"{name} is {seen[id(thing)]} again; each layer and each parameter must be an "
                    "object of its own"
                )
            seen[id(thing)] = name

    def _inputs(self, x: Array) -> tuple[Array, bool]:
        """Return x as a batch (N, I) in the parameters' type, and whether it was one sample."""
        W = self.params["W1"]
        x = as_float(x)
        try:
            xp = array_namespace(x=x, W1=W)
        except TypeError:
            raise TypeError(
                f"x is a {type(x).__module__.split('.')[0]} array, but the network is on the "
                f"backend {self.backend.name!r}: pass network.backend.asarray(x)"
            ) from None
        if x.ndim not in (1, 2) or x.shape[-1] != W.shape[0]:
            raise ValueError(
                f"x has shape {x.shape}; it must be (N, {W.shape[0]}) or ({W.shape[0]},)"
            )
        if x.shape[0] == 0:
            raise ValueError(f"x has shape {x.shape}: the batch is empty")
        x = xp.astype(x, W.dtype, copy=False)
        _check_finite("x", x)
        return (x, False) if x.ndim == 2 else (x[None, ...], True)

    def _evaluated_differences(
        self,
        key: str,
        x: Array,
        t: Array,
        h: float | None,
        method: Method,
        max_memory: int | None,
        progress: bool,
    ) -> Array:
        """Return central differences for one parameter by evaluating the loss."""
        param = self.params[key]
        budget = None
        if method == "batched":
            t = as_one_hot(t, self.sizes[-1], self.dtype)
            # A copy of the parameter comes with all the layers' outputs for it.
            own, outputs = math.prod(param.shape), 3 * x.shape[0] * sum(self.sizes[1:])
            budget = memory_budget(param, max_memory)
            needed = (own + outputs) * namespace_of(x).finfo(x.dtype).bits // 8
            if budget < needed:
                raise ValueError(
                    f"max_memory is {budget} bytes; one moved copy of {key} takes {needed}"
                )
            budget = budget * own // (own + outputs)
        try:
            return numerical_gradient(
                lambda moved: self.mean_loss(x, t, training=True, **{key: moved}),
                param,
                h,
                method=method,
                max_memory=budget,
                progress=progress,
            )
        finally:
            self.hand_out(self.params)


def _check_finite(name: str, array: Array) -> None:
    if not is_finite(array):
        raise ValueError(
            f"{name} holds NaN or infinity in {array.dtype}; every number must be finite"
        )

"""A stack of layers with a loss: predict, loss, accuracy, and gradients three ways (4.5)."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from typing import Any, get_args

from dlfs_gpu._validation import (
    ArgumentError,
    Array,
    array_namespace,
    as_float,
    check_choice,
    check_count,
    check_finite,
    check_not_negative,
    check_positive,
    is_finite,
    namespace_of,
)
from dlfs_gpu.backend import get_backend, memory_budget, run_in_chunks
from dlfs_gpu.differences.network_loss import evaluated_differences, network_differences
from dlfs_gpu.gradient import GradientMethod
from dlfs_gpu.losses import SoftmaxWithLoss
from dlfs_gpu.parameters import Parameters, check_together, has_weights, lasting
from dlfs_gpu.processes import ALONE, Processes
from dlfs_gpu.protocols import Layer, Loss

_EVALUATION_BATCH = 10_000  # samples at once when scores are computed, at most


class Network:
    """A stack of layers and a loss.

    Parameters
    ----------
    layers : sequence of dlfs_gpu.protocols.Layer
        Layers of `dlfs_gpu.layers`, or others. Those that have ``params`` are trained: the first
        layer's W becomes ``params["W1"]``, and so on.
    loss : dlfs_gpu.protocols.Loss, optional
        Loss layer, `SoftmaxWithLoss` by default.
    weight_decay_lambda : float
        Adds ½λΣW² over all parameters of two dimensions and more, not biases, to the loss (6.4.2).

    Attributes
    ----------
    layers : list
    loss_layer
    backend : Backend
        Where the parameters are, and where inputs must be.

    Raises
    ------
    ArgumentError
        If no layer has parameters; if a layer is there twice, or two parameters share memory; or
        if `weight_decay_lambda` is negative or not finite.
    TypeError
        If the parameters are of different libraries or types.

    Notes
    -----
    Methods take x of shape (N, I) or one sample (I,), and targets t as one-hot or soft (N, C) or
    integer labels (N,), or those of one sample. They raise ArgumentError for shapes that do not
    fit, labels out of range and numbers that are not finite, and TypeError for arrays of another
    library than the parameters'. Nothing is moved between host and device.

    Layers keep what they saw last, so threads that use one network take turns.
    """

    def __init__(
        self,
        layers: Sequence[Layer],
        loss: Loss | None = None,
        weight_decay_lambda: float = 0.0,
    ) -> None:
        self.layers: list[Any] = list(layers)
        self.loss_layer: Any = SoftmaxWithLoss() if loss is None else loss
        self.weight_decay_lambda = check_not_negative("weight_decay_lambda", weight_decay_lambda)
        for position, layer in enumerate(self.layers):
            if any(layer is other for other in self.layers[:position]):
                problem = f"holds the layer {position} twice; each must be an object of its own"
                raise ArgumentError("layers", problem)
        if not self.params:
            raise ArgumentError("layers", "holds no layer with parameters; nothing can be trained")
        xp = array_namespace(**self.params)
        check_together(self.params)
        self.backend = get_backend("cupy" if xp.__name__.endswith("cupy") else "numpy")
        self._lock = threading.RLock()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._lock = threading.RLock()

    @property
    def params(self) -> Parameters:
        """The layers' parameters by name; what is put here is put into the layers."""
        return Parameters(self.layers)

    @property
    def dtype(self) -> Any:
        """Type of the parameters, to which inputs are converted."""
        return next(iter(self.params.values())).dtype

    @property
    def sizes(self) -> list[int]:
        """Features of the input, of each hidden layer, and of the output, by the weights W."""
        weights = [W for key, W in self.params.items() if key.startswith("W") and W.ndim == 2]
        return [W.shape[0] for W in weights[:1]] + [W.shape[1] for W in weights]

    def scores(self, x: Array) -> Array:
        """Return the output of the last layer, (N, C) or (C,), with dropout off."""
        with self._lock:
            batch, single = self._inputs(x)
            out = self._evaluate(batch)
        return out[0, ...] if single else out

    def predict(self, x: Array) -> Array:
        """Return what the loss makes of `scores`, (N, C) or (C,): probabilities by default."""
        return self.loss_layer.predict(self.scores(x))

    def loss(self, x: Array, t: Array) -> Array:
        """Return the mean loss, of shape (), weight decay included, with dropout off."""
        with self._lock:
            return self._loss(*self._check(x, t), training=False)

    def accuracy(self, x: Array, t: Array) -> float:
        """Return the share of samples whose largest score is at the target.

        With one output, the share whose prediction is on the same side of ½ as the target.
        """
        with self._lock:
            return self._accuracy(*self._check(x, t))

    def gradient(self, x: Array, t: Array) -> dict[str, Array]:
        """Return the gradient of the loss by backpropagation, with dropout on (chapter 5)."""
        return self.loss_and_gradient(x, t)[1]

    def loss_and_gradient(self, x: Array, t: Array) -> tuple[Array, dict[str, Array]]:
        """Return the loss, with dropout on, and its gradient by backpropagation."""
        with self._lock:
            return self._loss_and_gradient(*self._check(x, t))

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
        comm: Any = None,
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
            (`dlfs_gpu.differences`), or, where one has no `difference`, through its ``forward``,
            called with a `dlfs_gpu.Differenced` array; ``"batched"`` evaluates the loss for many
            perturbed copies at a time; ``"loop"``, the chapter's, for one.
        max_memory : int, optional
            Bytes to use for work in flight: by default half of the free memory, on the host
            256 MiB at most.
        threads : int, optional
            Threads that ``"difference"`` uses on the CPU; they do not change the result.
        progress : bool
            Show a progress bar for ``"batched"`` and ``"loop"``.
        comm : mpi4py.MPI.Intracomm, optional
            Processes that share the work: each takes some parameters, and all return the gradient
            that one alone would, to the last bit. All must call with the same network and
            arguments. BLAS has one thread in each unless an environment variable says otherwise.

        Returns
        -------
        dict of str to array
            With the keys, shapes and types of ``params``.

        Raises
        ------
        ArgumentError
            Further: if h is not positive and finite, or lost in rounding; if `max_memory` is too
            small; if dropout is on and not frozen, for ``"batched"`` and ``"loop"``; if `comm` is
            no communicator, or something is not the same on all its processes.
        TypeError
            Further: if the method is ``"difference"``, and the ``forward`` of a layer that has no
            `difference` does something that has no rule.
        """
        method = check_choice("method", method, get_args(GradientMethod))
        processes = Processes(comm)
        with self._lock, processes.threads():
            x, t = self._check(x, t)
            if processes.size > 1:
                same = {"method": method, "h": h, "max_memory": max_memory, "threads": threads}
                same |= {"x": x, "t": t, **self.params}
                for k, attributes in enumerate(lasting(self.layers)):
                    same |= {f"layers[{k}].{name}": value for name, value in attributes.items()}
                processes.require_same(same)
            if method != "difference":
                self._refuse_random()
                rest = h, method, max_memory, progress, processes
                grads = {key: evaluated_differences(self, key, x, t, *rest) for key in self.params}
                return self._with_decay(grads)
            h = 1e-4 if h is None else check_positive("h", h)
            if threads is not None:
                check_count("threads", threads)
            smallest = math.sqrt(namespace_of(x).finfo(x.dtype).smallest_normal)
            if h < smallest:
                problem = f"is {h}; below {smallest:.1e} changes are lost to underflow in {x.dtype}"
                raise ArgumentError("h", problem)
            gradient = self._loss_and_differences(x, t, h, max_memory, threads, processes)[1]
        if not is_finite(*gradient.values()):
            key = next(key for key, values in gradient.items() if not is_finite(values))
            problem = f"overflows in {x.dtype}: its loss has no finite difference in {key}"
            raise ArgumentError("network", problem)
        return gradient

    def freeze_dropout(self) -> None:
        """Make every layer that draws at random keep what it draws next."""
        for layer in self.layers:
            if hasattr(layer, "frozen"):
                layer.frozen = True

    def _loss_and_gradient(self, x: Array, t: Array) -> tuple[Array, dict[str, Array]]:
        """Return what `loss_and_gradient` does, for arrays that `_check` has seen."""
        loss = self._loss(x, t, training=True)
        return loss, self._backward(self.loss_layer.backward())

    def _backward(self, dout: Array) -> dict[str, Array]:
        """Return the gradient, given that of the scores, (N, C), just after a forward pass."""
        for layer in reversed(self.layers):
            dout = layer.backward(dout)
        return self._with_decay(self.params.collect([getattr(a, "grads", {}) for a in self.layers]))

    def _loss_and_differences(
        self,
        x: Array,
        t: Array,
        h: float = 1e-4,
        max_memory: int | None = None,
        threads: int | None = None,
        processes: Processes = ALONE,
    ) -> tuple[Array, dict[str, Array]]:
        """Return loss and ``"difference"`` gradient, for arrays that `_check` has seen."""
        loss, gradients = network_differences(self, x, t, h, max_memory, threads, processes)
        return self._loss_with_decay(loss), self._with_decay(self.params.collect(gradients))

    def _with_decay(self, grads: dict[str, Array]) -> dict[str, Array]:
        """Return gradients of the loss, weight decay added: of ½λW² any difference is λW too."""
        decay = self.weight_decay_lambda
        if decay:
            weights = (key for key, grad in grads.items() if grad.ndim > 1)
            grads |= {key: grads[key] + decay * self.params[key] for key in weights}
        return grads

    def _forward(self, x: Array, training: bool, way: Callable[..., Array] | None = None) -> Array:
        """Return the output of the last layer for a batch (N, I), with dropout on or off.

        Another way than a layer's ``forward`` gets the layer and its input.
        """
        for layer in self.layers:
            if hasattr(layer, "train_flg"):
                layer.train_flg = training
            x = layer.forward(x) if way is None else way(layer, x)
        return x

    def _loss(self, x: Array, t: Array, training: bool) -> Array:
        """Return the loss, (), for arrays that `_check` has seen."""
        return self._loss_with_decay(self.loss_layer.forward(self._forward(x, training), t))

    def _loss_with_decay(self, loss: Array) -> Array:
        """Return the loss, weight decay added."""
        if not self.weight_decay_lambda:
            return loss
        weights = (param for param in self.params.values() if param.ndim > 1)
        squares = sum(namespace_of(W).sum(W * W) for W in weights)
        return loss + 0.5 * self.weight_decay_lambda * squares

    def _evaluate(self, x: Array) -> Array:
        """Return `scores` of a batch that `_check` has seen."""
        return namespace_of(x).concat(self._by_blocks(x, lambda scores, rows: scores))

    def _accuracy(self, x: Array, t: Array) -> float:
        """Return the accuracy on arrays that `_check` has seen; NaN is never right."""
        xp = namespace_of(x)

        def count(scores: Array, rows: slice) -> int:
            if scores.shape[-1] == 1 and t.ndim == 2:
                right = (self.loss_layer.predict(scores) >= 0.5) == (t[rows, ...] >= 0.5)
            else:
                labels = t[rows, ...] if t.ndim == 1 else xp.argmax(t[rows, ...], axis=-1)
                right = (xp.argmax(scores, axis=-1) == labels)[:, None]
            right &= ~xp.any(xp.isnan(scores), axis=-1, keepdims=True)
            return int(xp.count_nonzero(right))

        return float(sum(self._by_blocks(x, count)) / x.shape[0])

    def _mean_loss(self, x: Array, t: Array) -> float:
        """Return the loss of arrays that `_check` has seen, weight decay left out, dropout off."""

        def total(scores: Array, rows: slice) -> float:
            return float(self.loss_layer.forward(scores, t[rows, ...])) * int(scores.shape[0])

        return float(sum(self._by_blocks(x, total)) / x.shape[0])

    def _by_blocks(self, x: Array, use: Callable[[Array, slice], Any]) -> list[Any]:
        """Return what is made of the scores of a block of samples at a time, and of its rows."""
        made: list[Any] = []

        def run(start: int, stop: int) -> None:
            scores = self._forward(x[start:stop, ...], training=False)
            made.append(use(scores, slice(start, stop)))

        row = 4 * max([x.shape[1], *self.sizes]) * namespace_of(x).finfo(x.dtype).bits // 8
        with self._lock:
            at_once = min(_EVALUATION_BATCH, memory_budget(x, None) // row)
            run_in_chunks(run, x.shape[0], max(1, at_once))
        return made

    def _check(self, x: Array, t: Array) -> tuple[Array, Array]:
        """Return batch and targets ready for the network, or raise what the class says."""
        batch, single = self._inputs(x)
        outputs = self._outputs(batch)
        t = self.loss_layer.check(t, (outputs,) if single else (batch.shape[0], outputs), batch)
        return batch, t[None, ...] if single else t

    def _outputs(self, x: Array) -> int:
        """Return the number of scores for each sample."""
        for layer in reversed(self.layers):
            if has_weights(layer):
                return int(layer.params["W"].shape[1])
            if not hasattr(layer, "lipschitz"):
                break
        with self._lock:  # Of other layers, only trying tells.
            return int(self._forward(x[:1, ...], training=False).shape[-1])

    def _inputs(self, x: Array) -> tuple[Array, bool]:
        """Return x as a batch (N, I) in the parameters' type, and whether it was one sample."""
        x = as_float(x)
        key, param = next(iter(self.params.items()))
        try:
            xp = array_namespace(x=x, **{key: param})
        except TypeError:
            raise TypeError(
                f"x is a {type(x).__module__.split('.')[0]} array, but the network is on the "
                f"backend {self.backend.name!r}: pass network.backend.asarray(x)"
            ) from None
        features = self.sizes[0] if has_weights(self.layers[0]) else x.shape[-1] if x.ndim else 0
        if x.ndim not in (1, 2) or x.shape[-1] != features:
            raise ArgumentError(
                "x", f"has shape {tuple(x.shape)}; it must be (N, {features}) or ({features},)"
            )
        if math.prod(x.shape) == 0:
            raise ArgumentError("x", f"has shape {tuple(x.shape)}: the batch is empty")
        x = xp.astype(x, self.dtype, copy=False)
        check_finite("x", x)
        return (x, False) if x.ndim == 2 else (x[None, ...], True)

    def _refuse_random(self) -> None:
        """Raise ArgumentError if a layer draws at random in every pass: losses then differ."""
        for layer in self.layers:
            if not getattr(layer, "frozen", True):
                problem = f"has a {type(layer).__name__} layer that draws anew at every pass; "
                raise ArgumentError("network", problem + "network.freeze_dropout() mends that")

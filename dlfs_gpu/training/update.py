"""One update of a network: minibatch, loss, gradient, optimizer."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any, Literal, get_args

from array_api_compat import is_cupy_array

from dlfs_gpu._validation import Array, check_choice, namespace_of
from dlfs_gpu.functions import labels_of
from dlfs_gpu.kernels import kernels_mode
from dlfs_gpu.machine.threads import blas_threads
from dlfs_gpu.network import Network
from dlfs_gpu.optimizers import is_plain_sgd
from dlfs_gpu.processes import ALONE, Processes
from dlfs_gpu.training.compiled import compiled_parts
from dlfs_gpu.training.fused import FusedGradient, Parts, replaceable
from dlfs_gpu.training.launches import Launcher

GradientKind = Literal["backprop", "difference", "batched", "loop"]


class Update:
    """Updates of a network by minibatches gathered from a data set.

    Parameters
    ----------
    network : Network
    optimizer
        What updates the parameters.
    x, t : array
        Data set and targets, checked by the network.
    mini_batch_size : int
        Samples in each minibatch.
    gradient : {"backprop", "difference", "batched", "loop"}
        Backpropagation, or central differences by the methods of
        `dlfs_gpu.Network.numerical_gradient`.
    processes : Processes
        They share numerical gradients; backpropagation, each does for itself.

    Raises
    ------
    ArgumentError
        If `gradient` is none of these, or dropout makes the losses of one minibatch differ.
    """

    def __init__(
        self,
        network: Network,
        optimizer: Any,
        x: Array,
        t: Array,
        mini_batch_size: int,
        gradient: GradientKind = "backprop",
        processes: Processes = ALONE,
    ) -> None:
        self.network = network
        self.optimizer = optimizer
        self.x = x
        self.t = t
        self.mini_batch_size = mini_batch_size
        self.processes = processes
        self.gradient = check_choice("gradient", gradient, get_args(GradientKind))
        if self.gradient in ("batched", "loop"):
            network._refuse_random()
        self._labels = labels_of(t) if self.gradient == "backprop" else None
        self._fused: FusedGradient | None = None
        self._launcher: Launcher | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Return all but what can be made anew, of which not all can be copied."""
        state = vars(self) | {"_fused": None, "_launcher": None}
        state.pop("_compiled", None)
        return state

    def run(self, indices: Array) -> Iterator[Array]:
        """Update the network on one minibatch after another, without waiting for the device.

        Parameters
        ----------
        indices : array of int64, shape (U, mini_batch_size)
            Rows of the data set, on its device.

        Yields
        ------
        array, shape (K,)
            Losses of the next K minibatches before their updates: of several, where CUDA kernels
            do these, or else of one.
        """
        done, losses = 0, self._launched(indices)
        while losses is not None:
            yield losses
            done += losses.shape[0]
            losses = self._launched(indices[done:, ...]) if done < indices.shape[0] else None
        xp = namespace_of(self.x)
        for k in range(done, indices.shape[0]):
            yield xp.reshape(xp.asarray(self(indices[k, ...])), (1,))

    def _launched(self, indices: Array) -> Array | None:
        """Do the first updates by kernels; return None where there are none for them."""
        with self.network._lock:
            launcher = self._ready_launcher()
            return launcher and launcher.update(indices, self.optimizer)

    def _ready_launcher(self) -> Launcher | None:
        """Return kernels for the network as it is, or None if it may not have any."""
        labels, network = self._labels, self.network
        may = labels is not None and is_cupy_array(self.x) and kernels_mode() != "off"
        # The kernels know no weight decay.
        if not may or network.weight_decay_lambda or not replaceable(network):
            return None
        if self._launcher is None or not self._launcher.suits(network):
            self._launcher = Launcher(network, self.x, labels, self.mini_batch_size)
        return self._launcher

    def __call__(self, indices: Array) -> Array:
        """Update the network on one minibatch; by backpropagation without waiting for the device.

        Parameters
        ----------
        indices : array of int64, shape (mini_batch_size,)
            Rows of the data set, on its device.

        Returns
        -------
        array, shape ()
            Loss of the minibatch before the update.
        """
        network, optimizer = self.network, self.optimizer
        with network._lock:
            if self._labels is None or not replaceable(network):
                loss, grads = self._loss_and_gradient(indices)
                optimizer.update(network.params, grads)
                return loss
            launcher = self._ready_launcher()
            if launcher is not None:
                losses = launcher.update(indices[None, ...], optimizer)
                if losses is not None:
                    return losses[0, ...]
                launched = launcher.gradient(indices)
                if launched is not None:
                    loss, grads = launched
                    optimizer.update(network.params, grads)
                    return loss
            fused = self._fused
            parts = Parts() if kernels_mode() == "off" else self._compiled
            if fused is None or fused.layers != network.layers or fused.parts != parts:
                fused = FusedGradient(network, self.x, self._labels, self.mini_batch_size, parts)
                self._fused = fused
            if not is_plain_sgd(optimizer):
                loss = fused(indices)
                optimizer.update(network.params, fused.grads)
                return loss
            # Plain SGD only adds what is there: the factor −lr comes with the mean's 1/N.
            loss = fused(indices, -optimizer.lr)
            for k, layer in enumerate(fused.layers[::2], 1):
                layer.params["W"] += fused.grads[f"W{k}"]
                layer.params["b"] += fused.grads[f"b{k}"]
            return loss

    @functools.cached_property
    def _compiled(self) -> Parts:
        """The parts of updates that compiled loops do: from beginning to end the same."""
        return compiled_parts(self.x, self.mini_batch_size, self.network.sizes)

    def threads(self) -> AbstractContextManager[None]:
        """Return a context for many updates, in which BLAS takes the threads that serve them."""
        return blas_threads(self.network.sizes, self.mini_batch_size)

    def _loss_and_gradient(self, indices: Array) -> tuple[Array, Any]:
        """Return loss and gradient as the network gives them; a subclass's own ways count."""
        network = self.network
        xp = namespace_of(self.x)
        x, t = xp.take(self.x, indices, axis=0), xp.take(self.t, indices, axis=0)
        if self.gradient == "backprop":
            if overridden(network, "loss_and_gradient"):
                return network.loss_and_gradient(x, t)
            if overridden(network, "gradient", "loss"):
                return network.loss(x, t), network.gradient(x, t)
            return network._loss_and_gradient(x, t)
        if overridden(network, "numerical_gradient", "loss"):
            return network.loss(x, t), network.numerical_gradient(x, t, method=self.gradient)
        if self.gradient == "difference":
            return network._loss_and_differences(x, t, processes=self.processes)
        comm = self.processes.comm
        grads = network.numerical_gradient(x, t, method=self.gradient, comm=comm)
        return network._loss(x, t, training=True), grads


def overridden(network: Network, *names: str) -> bool:
    """Say whether a subclass or an object has its own version of one of these methods."""
    return any(
        name in vars(network) or getattr(type(network), name) is not getattr(Network, name)
        for name in names
    )

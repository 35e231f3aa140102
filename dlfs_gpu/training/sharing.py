"""Training by many processes: updates and evaluations that are the same on any number of them.

A minibatch is cut into shards, as many as its size says. Each process does some, and the gradients
of all shards, weighted by their samples, are added in one binary tree over the shards. A process
adds up the branches of which it has all shards. Then each gets all branches of its share of the
parameters, adds these up, and all gather the total: two gradients' worth of numbers go out of each
process and come in, however many there are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, get_args

import numpy as np

from dlfs_gpu._validation import ArgumentError, Array, check_choice, namespace_of
from dlfs_gpu.backend import to_numpy
from dlfs_gpu.data.minibatches import MinibatchSampler
from dlfs_gpu.differences.stack import has_difference
from dlfs_gpu.network import Network
from dlfs_gpu.parameters import lasting
from dlfs_gpu.processes import Processes, length
from dlfs_gpu.protocols import is_linear
from dlfs_gpu.training.fused import FusedGradient, replaceable
from dlfs_gpu.training.update import GradientKind, Update, overridden

# Shards of a minibatch, and samples in one where a minibatch makes more shards of that size.
_SHARDS = 8
_SHARD_SAMPLES = 256
# Parts of a data set that are evaluated each for itself.
_PIECES = 64

Branch = tuple[int, int]
"""The shards from the first up to the second."""


class SharedUpdate(Update):
    """Updates by backpropagation that many processes do together.

    Parameters
    ----------
    network, optimizer, x, t, mini_batch_size, gradient, processes
        As for `Update`.

    Raises
    ------
    ArgumentError
        Further: if there are more processes than shards, or a minibatch cannot be cut because its
        samples may depend on each other.
    """

    def __init__(
        self,
        network: Network,
        optimizer: Any,
        x: Array,
        t: Array,
        mini_batch_size: int,
        gradient: GradientKind,
        processes: Processes,
    ) -> None:
        super().__init__(network, optimizer, x, t, mini_batch_size, gradient, processes)
        _refuse_what_cannot_be_cut(network)
        shards = min(mini_batch_size, max(_SHARDS, mini_batch_size // _SHARD_SAMPLES))
        if processes.size > shards:
            raise ArgumentError(
                "comm",
                f"has {processes.size} processes; a minibatch of {mini_batch_size} is cut into "
                f"{shards} shards, and each must have one",
            )
        self._bounds = [k * mini_batch_size // shards for k in range(shards + 1)]
        self._shares = processes.shares(shards, 1)
        self._branches = [_branches((0, shards), share) for share in self._shares]
        self._ways: dict[int, FusedGradient] = {}

    def __call__(self, indices: Array) -> Array:
        """Do what `Update` does, in all processes together."""
        network = self.network
        with network._lock:
            total = self._total(indices)
            xp, grads, start = namespace_of(total), {}, 0
            for key, param in network.params.items():
                end = start + math.prod(param.shape)
                grads[key] = xp.reshape(total[start:end], param.shape)
                start = end
            self.optimizer.update(network.params, grads)
        return xp.asarray(total[-1, ...], copy=True)  # which does not keep the others

    def _launched(self, indices: Array) -> Array | None:
        """Return None: the kernel does whole minibatches."""
        return None

    def _total(self, indices: Array) -> Array:
        """Return the gradient of a minibatch, all parameters in a row, and its loss."""
        processes, bounds = self.processes, self._bounds
        own, branches = self._shares[processes.rank], self._branches[processes.rank]
        self._pass_over(bounds[own.start])
        sums = [_added(branch, lambda part: self._shard(indices, part)) for branch in branches]
        self._pass_over(bounds[-1] - bounds[own.stop])
        if processes.size == 1:
            return sums[0]
        shares = processes.shares(sums[0].shape[0], 1)
        counts = [len(of_one) for of_one in self._branches]
        rows = processes.exchange(namespace_of(sums[0]).stack(sums), counts, shares)
        order = [branch for of_one in self._branches for branch in of_one]
        known = {branch: rows[k, :] for k, branch in enumerate(order)}
        return processes.gather(_added((0, len(bounds) - 1), known.get), shares)

    def _shard(self, indices: Array, branch: Branch) -> Array | None:
        """Return a shard's part of the total; None for a branch of several."""
        first, last = branch
        if last - first > 1:
            return None
        rows = indices[self._bounds[first] : self._bounds[last]]
        share = rows.shape[0] / self.mini_batch_size
        if self._labels is None or not replaceable(self.network):
            loss, grads = self._loss_and_gradient(rows)
        else:
            way = self._ways.get(rows.shape[0])
            if way is None or way.layers != self.network.layers:
                way = FusedGradient(self.network, self.x, self._labels, rows.shape[0])
                self._ways[rows.shape[0]] = way
            loss, grads = way(rows), way.grads
        xp = namespace_of(self.x)
        flat = [xp.reshape(grads[key], (-1,)) for key in self.network.params]
        return xp.concat([*flat, xp.reshape(xp.asarray(loss), (1,))]) * share

    def _pass_over(self, samples: int) -> None:
        """Let layers that draw at random draw what samples of other processes need."""
        features = self.x.shape[1]
        for layer in self.network.layers:
            if is_linear(layer):
                features = layer.params["W"].shape[1]
            if hasattr(layer, "pass_over"):
                layer.pass_over(samples, features)


def make_update(
    network: Network,
    optimizer: Any,
    x: Array,
    t: Array,
    mini_batch_size: int,
    gradient: GradientKind,
    processes: Processes,
) -> Update:
    """Return updates that processes do together; by backpropagation, or by `Update` itself."""
    gradient = check_choice("gradient", gradient, get_args(GradientKind))
    by_samples = processes.comm is not None and gradient == "backprop"
    kind = SharedUpdate if by_samples else Update
    return kind(network, optimizer, x, t, mini_batch_size, gradient, processes)


def start_together(
    update: Update,
    sampler: MinibatchSampler,
    data: Mapping[str, tuple[Array, Array] | None],
    settings: Mapping[str, Any],
) -> None:
    """Give all processes what the first one starts with.

    Parameters
    ----------
    update : Update
        Of which the network's parameters and what it draws from, and the optimizer, become those of
        the first process.
    sampler : MinibatchSampler
        It too.
    data : mapping of str to (x, t)
    settings : mapping of str to Any
        What must be the same already.

    Raises
    ------
    ArgumentError
        If data or settings are not the same on all processes.
    """
    processes, network, optimizer = update.processes, update.network, update.optimizer
    if processes.size == 1:
        return
    things: dict[str, Any] = {
        "network": (
            network.backend.name,
            network.dtype,
            network.sizes,
            [type(layer).__name__ for layer in (*network.layers, network.loss_layer)],
            network.weight_decay_lambda,
        ),
        "optimizer": type(optimizer).__name__,
    }
    for part, arrays in data.items():
        things |= dict(zip((f"x_{part}", f"t_{part}"), arrays or (None, None), strict=True))
    processes.require_same(things | dict(settings))
    own = lasting(network.layers)
    params, state, drawing, kept = processes.from_root(
        lambda: (
            {key: to_numpy(param) for key, param in network.params.items()},
            vars(optimizer),
            vars(sampler),
            own,
        )
    )
    for key, param in network.params.items():
        param[...] = namespace_of(param).asarray(params[key])
    vars(optimizer).update(state)
    vars(sampler).update(drawing)
    for layer, attributes in zip(network.layers, kept, strict=True):
        for name, value in attributes.items():
            setattr(layer, name, value)


def accuracy(network: Network, x: Array, t: Array, processes: Processes) -> float:
    """Return the accuracy on data that the network has checked."""
    if processes.comm is None:
        return network._accuracy(x, t)

    def right(part: slice) -> float:
        return round(network._accuracy(x[part, ...], t[part, ...]) * length(part))

    return sum(_of_pieces(right, x.shape[0], processes)) / int(x.shape[0])


def mean_loss(network: Network, x: Array, t: Array, processes: Processes) -> float:
    """Return the loss, weight decay left out, of data that the network has checked."""
    if processes.comm is None:
        return network._mean_loss(x, t)

    def total(part: slice) -> float:
        return network._mean_loss(x[part, ...], t[part, ...]) * length(part)

    return sum(_of_pieces(total, x.shape[0], processes)) / int(x.shape[0])


def _of_pieces(value: Callable[[slice], float], samples: int, processes: Processes) -> list[float]:
    """Return a value of each of the pieces that so many samples are cut into."""
    count = min(_PIECES, samples)
    bounds = [k * samples // count for k in range(count + 1)]
    shares = processes.shares(count, 1)
    own = range(count)[shares[processes.rank]]
    values = np.array([value(slice(*bounds[k : k + 2])) for k in own], dtype=np.float64)
    found: list[float] = processes.gather(values, shares).tolist()
    return found


def _refuse_what_cannot_be_cut(network: Network) -> None:
    if overridden(network, "loss_and_gradient", "gradient", "loss"):
        name = type(network).__name__
        problem = f"is a {name} with a gradient of its own, of whole minibatches; comm cuts them"
        raise ArgumentError("network", problem)
    for layer in (*network.layers, network.loss_layer):
        name = type(layer).__name__
        if not has_difference(layer):
            raise ArgumentError(
                "network",
                f"has {name}, which has no `difference`: one sample may depend on the others of "
                "its minibatch, and comm cuts that; gradient='difference' does not",
            )
        if hasattr(layer, "frozen") and (layer.frozen or not hasattr(layer, "pass_over")):
            problem = f"has {name}, which draws for whole minibatches; comm cuts them"
            raise ArgumentError("network", problem)


def _branches(branch: Branch, share: slice) -> list[Branch]:
    """Return the largest branches within a branch that have no shards but those of a share."""
    first, last = branch
    if last <= share.start or share.stop <= first:
        return []
    if share.start <= first and last <= share.stop:
        return [branch]
    return [part for half in _halves(branch) for part in _branches(half, share)]


def _added(branch: Branch, known: Callable[[Branch], Array | None]) -> Array:
    """Return the sum over a branch: what is known of it, or else that of one half and the other."""
    total = known(branch)
    if total is None:
        left, right = (_added(half, known) for half in _halves(branch))
        total = left + right
    return total


def _halves(branch: Branch) -> tuple[Branch, Branch]:
    first, last = branch
    middle = (first + last) // 2
    return (first, middle), (middle, last)

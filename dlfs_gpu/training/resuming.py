"""What a checkpoint says of a training, and going on from there."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

from dlfs_gpu._validation import ArgumentError, Array
from dlfs_gpu.machine.versions import versions
from dlfs_gpu.models import MultiLayerNet, TwoLayerNet
from dlfs_gpu.network import Network
from dlfs_gpu.optimizers import OPTIMIZERS, make_optimizer
from dlfs_gpu.parameters import lasting
from dlfs_gpu.training.checkpoint import with_arrays
from dlfs_gpu.training.early_stopping import Best, EarlyStopping
from dlfs_gpu.training.history import History
from dlfs_gpu.training.inputs import Inputs
from dlfs_gpu.training.update import Update
from dlfs_gpu.training.updates import Updates


def training_state(
    updates: Updates, inputs: Inputs, early: EarlyStopping, history: History, epoch: int
) -> dict[str, Any]:
    """Return what a training, with so many updates in an epoch, is and has come to."""
    network, optimizer = updates.update.network, updates.update.optimizer
    best = early.best_at_end if history.stopped == "diverged" else early.best
    return {
        "origin": _origin(updates.update),
        "data": inputs.digests,
        "network": _network_state(network, early.last or network.params),
        "optimizer": {"is": _class_name(optimizer), "attributes": dict(vars(optimizer))},
        "minibatches": updates.sampler.rng,
        "best": vars(best),
        "history": history._state(epoch) | {"best_iteration": best.iteration},
    }


def restore(
    saved: Mapping[str, Any], updates: Updates, inputs: Inputs, early: EarlyStopping
) -> History:
    """Make a new training what a `training_state` says, and return its history.

    Raises
    ------
    ArgumentError
        If the data are others.

    Warns
    -----
    UserWarning
        To the caller's caller, if last digits may differ from those on the machine of the state.
    """
    network, optimizer = updates.update.network, updates.update.optimizer
    for name, digest in saved["data"].items():
        if inputs.digests[name] != digest:
            raise ArgumentError(f"x_{name}", f"and t_{name} are not those of the checkpoint")
    changes = [
        f"{what} {saved['origin'].get(what)} and not {value}"
        for what, value in _origin(updates.update).items()
        if value != saved["origin"].get(what)
    ]
    if changes:
        warnings.warn(
            f"the checkpoint comes from {', '.join(changes)}: what follows may differ in the last "
            "bits",
            stacklevel=3,
        )
    saved = with_arrays(saved, network.backend.asarray)
    _put_network_state(saved["network"], network)
    vars(optimizer).update(saved["optimizer"]["attributes"])
    updates.sampler.rng = saved["minibatches"]
    early.best = early.best_at_end = Best(**saved["best"])
    history = History(**saved["history"])
    updates.done = history.losses.shape[0]
    return history


def network_like(state: Mapping[str, Any], network: Network | None, backend: str) -> Network:
    """Return the network given, if it is one like that of a state, or else a new one.

    Raises
    ------
    ArgumentError
        If it is another, or is not given and cannot be built.
    """
    if network is None and state["activation"] is not None:
        inputs, *hidden, outputs = state["sizes"]
        network = MultiLayerNet(
            inputs,
            hidden,
            outputs,
            state["activation"],
            0.0,
            dropout_ratio=0.5 if "Dropout" in state["is"] else 0.0,
            dtype=state["dtype"],
            backend=backend,
        )
    given = None if network is None else _description(network)
    if network is None or given != state["is"]:
        raise ArgumentError("network", f"is {given}; the checkpoint's is {state['is']}")
    return network


def optimizer_like(state: Mapping[str, Any], optimizer: Any) -> Any:
    """Return the optimizer given, if it is one like that of a state, or else a new one.

    Raises
    ------
    ArgumentError
        If it is another, or is not given and is none of this library's.
    """
    if optimizer is None and state["is"].lower() in OPTIMIZERS:
        return make_optimizer(state["is"])
    given = None if optimizer is None else _class_name(optimizer)
    if given != state["is"]:
        raise ArgumentError("optimizer", f"is {given}; the checkpoint's is {state['is']}")
    return optimizer


def _origin(update: Update) -> dict[str, str]:
    """Return on what it may depend how the results of a training are rounded."""
    backend = update.network.backend
    way = "alone" if update.processes.comm is None else "by MPI"
    return {"training": way, "backend": backend.name, "device": backend.device} | versions()


def _network_state(network: Network, params: Mapping[str, Array]) -> dict[str, Any]:
    """Return what a network is and keeps, with these parameters."""
    known = type(network) in (MultiLayerNet, TwoLayerNet)
    return {
        "is": _description(network),
        "sizes": network.sizes,
        "dtype": _type_name(network.dtype),
        # No other network is built again.
        "activation": vars(network)["activation"] if known else None,
        "weight_decay_lambda": network.weight_decay_lambda,
        "params": dict(params),
        "lasting": lasting(network.layers),
    }


def _put_network_state(state: Mapping[str, Any], network: Network) -> None:
    """Make a network what `_network_state` says."""
    for key, param in network.params.items():
        param[...] = state["params"][key]
    network.weight_decay_lambda = state["weight_decay_lambda"]
    for layer, attributes in zip(network.layers, state["lasting"], strict=True):
        for name, value in attributes.items():
            setattr(layer, name, value)


def _description(network: Network) -> list[str]:
    """Return what two networks must have in common for the state of one to fit the other."""
    return [
        *map(_class_name, (*network.layers, network.loss_layer)),
        *(
            f"{key} {_type_name(param.dtype)} {tuple(param.shape)}"
            for key, param in network.params.items()
        ),
    ]


def _class_name(thing: Any) -> str:
    """Return the name of an object's class, which another's own class cannot have."""
    module, name = type(thing).__module__, type(thing).__qualname__
    return name if module.startswith("dlfs_gpu.") else f"{name} (not of dlfs_gpu)"


def _type_name(dtype: Any) -> str:
    return str(dtype).rpartition(".")[2]

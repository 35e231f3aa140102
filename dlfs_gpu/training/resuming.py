"""What a checkpoint says of network and optimizer, and finding them again."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

from dlfs_gpu._validation import ArgumentError, Array
from dlfs_gpu.machine.versions import versions
from dlfs_gpu.models import MultiLayerNet, TwoLayerNet
from dlfs_gpu.network import Network
from dlfs_gpu.optimizers import OPTIMIZERS, make_optimizer


def network_state(network: Network, params: Mapping[str, Array]) -> dict[str, Any]:
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
        "lasting": [
            {name: getattr(layer, name) for name in getattr(layer, "lasting", ())}
            for layer in network.layers
        ],
    }


def network_like(state: Mapping[str, Any], network: Network | None, backend: str) -> Network:
    """Return the network given, if it is one like that of a `network_state`, or else a new one.

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


def put_network_state(state: Mapping[str, Any], network: Network) -> None:
    """Make a network what `network_state` says."""
    for key, param in network.params.items():
        param[...] = state["params"][key]
    network.weight_decay_lambda = state["weight_decay_lambda"]
    for layer, lasting in zip(network.layers, state["lasting"], strict=True):
        for name, value in lasting.items():
            setattr(layer, name, value)


def optimizer_state(optimizer: Any) -> dict[str, Any]:
    """Return what an optimizer is and keeps."""
    return {"is": _class_name(optimizer), "attributes": dict(vars(optimizer))}


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


def origin(network: Network) -> dict[str, str]:
    """Return on what it may depend how the results of a network are rounded."""
    return {"backend": network.backend.name, "device": network.backend.device} | versions()


def warn_of_other_origin(old: Mapping[str, str], new: Mapping[str, str]) -> None:
    """Warn the caller's caller that last digits may differ, if the origins do."""
    changes = [
        f"{what} {old.get(what)} and not {value}"
        for what, value in new.items()
        if value != old.get(what)
    ]
    if changes:
        warnings.warn(
            f"the checkpoint comes from {', '.join(changes)}: what follows may differ in the last "
            "bits",
            stacklevel=3,
        )


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

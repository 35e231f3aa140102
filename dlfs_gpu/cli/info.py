"""The command ``info``."""

from __future__ import annotations

import platform

import typer

from dlfs_gpu.backend import Backend, get_backend
from dlfs_gpu.cli.settings import BackendOption
from dlfs_gpu.kernels import kernels_mode, report
from dlfs_gpu.machine.versions import versions
from dlfs_gpu.models import MultiLayerNet
from dlfs_gpu.training import Trainer


def info(backend: BackendOption = None) -> None:
    """Show versions, backend, device, memory, and kernels."""
    chosen = get_backend(backend)
    rows = versions() | {
        "python": f"{platform.python_version()} on {platform.platform()}",
        "backend": chosen.name,
        "why": chosen.reason,
        "device": chosen.device,
        "free memory": f"{chosen.free_memory() / 2**30:.1f} GiB",
        "kernels": _kernels(chosen),
    }
    for name, value in rows.items():
        typer.echo(f"{name:18}{value}")


def _kernels(backend: Backend) -> str:
    """Return what came of the kernels in gradients and updates of small networks, one for each."""
    if kernels_mode() == "off":
        return "off"
    x, t = backend.asarray([[0.1, 0.2, 0.3, 0.4]], "float32"), backend.asarray([1])
    for hidden, classes in (([3], 2), ([3, 3], 2), ([3], 33)):
        network = MultiLayerNet(4, hidden, classes, seed=0, backend=backend)
        network.numerical_gradient(x, t)
        Trainer(network, x, t, mini_batch_size=1, iterations=1, verbose=False).train()
    return "; ".join(map(str, report())) or "none: Numba is not installed"

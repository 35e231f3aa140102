"""The command ``gradcheck``."""

from __future__ import annotations

import typer

from dlfs_gpu._validation import check_count
from dlfs_gpu.backend import get_backend
from dlfs_gpu.cli.data import load_data
from dlfs_gpu.cli.network import make_network
from dlfs_gpu.cli.settings import GradcheckSettings, command_with
from dlfs_gpu.gradient_check import check_gradients
from dlfs_gpu.kernels import kernels_mode, use_kernels
from dlfs_gpu.processes import Processes, world


@command_with(GradcheckSettings)
def gradcheck(settings: GradcheckSettings, given: frozenset[str]) -> None:
    """Check backpropagation by numerical gradients.

    Exits with 1 if one is wrong.
    """
    count = check_count("mini_batch_size", settings.mini_batch_size)
    processes = Processes(world() if settings.mpi else None)
    processes.deal_gpus()
    backend = get_backend(settings.backend)
    data = processes.from_root(lambda: load_data(settings, backend))
    network = make_network(settings, data, backend)
    network.freeze_dropout()
    x, t = data.x_train[:count], data.t_train[:count]
    with use_kernels(settings.kernels or kernels_mode()):
        report = check_gradients(
            network, x, t, h=settings.h, method=settings.method, comm=processes.comm
        )
    if processes.rank == 0:
        typer.echo(report)
    if not report.ok:
        raise typer.Exit(1)

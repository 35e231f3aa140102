"""Updates by several optimizers on a GPU, beside PyTorch's: ``python -m benchmarks.optimizers``.

Each time is the least of some runs of many updates, whose minibatches are gathered from images that
are 80 % zeros, as MNIST's are.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from typing import Any

from benchmarks.conftest import Place
from dlfs_gpu.backend import get_backend
from dlfs_gpu.data.minibatches import MinibatchSampler
from dlfs_gpu.optimizers import SGD, Adam, Momentum
from dlfs_gpu.training.update import Update

_WORKS = (
    ((784, 50, 10), 100),
    ((784, 512, 512, 10), 100),
    ((784, 1024, 10), 1000),
    ((784, 2048, 2048, 2048, 10), 1000),
)
_IMAGES, _UPDATES, _RUNS, _LR = 20_000, 200, 4, 1e-3


def least_time(run: Callable[[], object], synchronize: Callable[[], object]) -> float:
    """Return the seconds of an update in the fastest of some runs, after one that is not timed."""
    times = []
    for _ in range(_RUNS + 1):
        synchronize()
        start = time.perf_counter()
        run()
        synchronize()
        times.append((time.perf_counter() - start) / _UPDATES)
    return min(times[1:])


def ours(place: Place, sizes: tuple[int, ...], batch: int) -> dict[str, float]:
    """Return the seconds of an update by each optimizer."""
    x, t = place.images(_IMAGES), place.labels(_IMAGES)
    rows = place.backend.asarray(MinibatchSampler(_IMAGES, batch, seed=0).draw(_UPDATES))
    times = {}
    for optimizer in (SGD(_LR), Momentum(_LR), Adam(_LR)):
        update = Update(place.network(sizes), optimizer, x, t, batch)
        times[f"dlfs_gpu, {type(optimizer).__name__}"] = least_time(
            lambda update=update: list(update.run(rows)),  # type: ignore[misc]
            place.backend.synchronize,
        )
    return times


def theirs(place: Place, sizes: tuple[int, ...], batch: int) -> dict[str, float]:
    """Return the same for PyTorch's, eager, or nothing where it is not installed."""
    try:
        import torch
    except ImportError:
        return {}
    device = "cuda" if place.backend.name == "cupy" else "cpu"
    arrays = place.images(_IMAGES), place.labels(_IMAGES)
    x, t = (torch.as_tensor(place.backend.to_numpy(array), device=device) for array in arrays)
    drawn = MinibatchSampler(_IMAGES, batch, seed=0).draw(_UPDATES)
    rows = torch.as_tensor(drawn, device=device)
    activation = torch.nn.Sigmoid if len(sizes) == 3 else torch.nn.ReLU
    modules: list[Any] = []
    for n, m in itertools.pairwise(sizes):
        modules += [torch.nn.Linear(n, m), activation()]
    model = torch.nn.Sequential(*modules[:-1]).to(device)
    loss_of = torch.nn.CrossEntropyLoss()
    times = {}
    for name, optimizer in (
        ("SGD, momentum", torch.optim.SGD(model.parameters(), _LR, momentum=0.9)),
        ("Adam", torch.optim.Adam(model.parameters(), _LR)),
        ("Adam, fused", torch.optim.Adam(model.parameters(), _LR, fused=True)),
    ):

        def run(optimizer: Any = optimizer) -> None:
            for batch_rows in rows:
                optimizer.zero_grad(set_to_none=True)
                loss_of(model(x[batch_rows]), t[batch_rows]).backward()
                optimizer.step()

        wait = torch.cuda.synchronize if device == "cuda" else lambda: None
        times[f"PyTorch, {name}"] = least_time(run, wait)
    return times


def main() -> None:
    """Print a table for each network."""
    place = Place(get_backend(None), "float32")
    print(place.backend.device)
    for sizes, batch in _WORKS:
        print(f"\n| {'-'.join(map(str, sizes))}, batch {batch:,} | time |\n|---|---|")
        for name, seconds in (ours(place, sizes, batch) | theirs(place, sizes, batch)).items():
            print(f"| {name} | {seconds * 1e6:.1f} µs |")


if __name__ == "__main__":
    main()

"""The parts of the comparison: training, sizes, gradients, scaling."""

from __future__ import annotations

import datetime
import itertools
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import machine
from benchmarks.harness import Comparison, Judge, Result, Row
from benchmarks.peers import chapter, dlfs
from benchmarks.work import Work

PEERS = ("torch", "jax", "dezero")

TRAINING = (
    Row("the chapter's way", "benchmarks.peers.chapter:Training", "numpy"),
    Row("dlfs_gpu, NumPy", "benchmarks.peers.dlfs:Training", "numpy"),
    Row("dlfs_gpu, CuPy", "benchmarks.peers.dlfs:Training", "cupy", "GPU"),
    Row("PyTorch eager", "benchmarks.peers.pytorch:EagerTraining", "torch"),
    Row("PyTorch eager", "benchmarks.peers.pytorch:EagerTraining", "torch", "GPU"),
    Row("torch.compile", "benchmarks.peers.pytorch:CompiledTraining", "torch"),
    Row("torch.compile", "benchmarks.peers.pytorch:CompiledTraining", "torch", "GPU"),
    Row("JAX jit", "benchmarks.peers.xla:StepTraining", "jax"),
    Row("JAX jit", "benchmarks.peers.xla:StepTraining", "jax", "GPU"),
    Row("JAX scan", "benchmarks.peers.xla:ScanTraining", "jax"),
    Row("JAX scan", "benchmarks.peers.xla:ScanTraining", "jax", "GPU"),
    Row("DeZero", "benchmarks.peers.dezero:Training", "dezero"),
)
GRADIENTS = (
    Row("the chapter's loop", "benchmarks.peers.chapter:LoopGradient", "numpy"),
    Row("dlfs_gpu batched", "benchmarks.peers.dlfs:BatchedGradient", "numpy"),
    Row("dlfs_gpu batched", "benchmarks.peers.dlfs:BatchedGradient", "cupy", "GPU"),
    Row("dlfs_gpu difference", "benchmarks.peers.dlfs:DifferenceGradient", "numpy"),
    Row("dlfs_gpu difference", "benchmarks.peers.dlfs:DifferenceGradient", "cupy", "GPU"),
    Row("torch.func.vmap", "benchmarks.peers.pytorch:VmapGradient", "torch"),
    Row("torch.func.vmap", "benchmarks.peers.pytorch:VmapGradient", "torch", "GPU"),
    Row("jax.vmap", "benchmarks.peers.xla:VmapGradient", "jax"),
    Row("jax.vmap", "benchmarks.peers.xla:VmapGradient", "jax", "GPU"),
)

# Float32 rows end up 1e-6 apart, 1e-5 where a ReLU's input lands on the other side of 0.
LOSS_TOLERANCE = 1e-4
# The step at which rounding and truncation balance in float32.
_FLOAT32_STEP = 2.0**-7
# Wide and deep networks diverge at 0.1, and then rounding alone decides the losses.
_SMALL_LR = 0.01


@dataclass(frozen=True)
class Setting:
    """What to run on.

    Attributes
    ----------
    data : Path
        Folder of `benchmarks.work.write_data`.
    source : str
        What that wrote.
    peers : collection of str
        Packages to compare with.
    quick : bool
        Fewer works and rounds.
    """

    data: Path
    source: str
    peers: Collection[str] = PEERS
    quick: bool = False

    def rows(self, rows: Sequence[Row]) -> list[Row]:
        """Return those of the rows that were asked for and have their device here."""
        packages = {"numpy", "cupy", *self.peers}
        return [
            row
            for row in rows
            if row.package in packages and (row.device == "CPU" or machine.gpu() is not None)
        ]

    def rounds(self, full: int) -> int:
        """Return how many rounds to time."""
        return max(3, full // 6) if self.quick else full


def training(setting: Setting) -> list[dict[str, Any]]:
    """Time an update of the chapter's network."""
    work = Work(setting.data)
    with Comparison(setting.rows(TRAINING)) as comparison:
        return [_trained(comparison, work, setting.rounds(30))]


def sizes(setting: Setting) -> list[dict[str, Any]]:
    """Time an update of smaller and larger batches, and of wider and deeper networks."""
    work = Work(setting.data)
    wide = replace(work, sizes=(784, 1024, 10), lr=_SMALL_LR)
    deep = replace(work, sizes=(784, 512, 512, 10), activation="relu", lr=_SMALL_LR)
    works = [replace(wide, batch=1000), deep]
    if not setting.quick:
        batches = [replace(work, batch=batch) for batch in (10, 100, 1000, 10_000)]
        widths = [replace(wide, sizes=(784, hidden, 10)) for hidden in (256, 1024, 2048)]
        works = [*batches, *widths, *works]
    with Comparison(setting.rows(TRAINING)) as comparison:
        return [_trained(comparison, work, setting.rounds(10)) for work in works]


def gradients(setting: Setting) -> list[dict[str, Any]]:
    """Time numerical gradients, and take their errors at two steps: two entries for each work."""
    shallow = Work(setting.data)
    works = [(shallow, setting.rounds(10))]
    if not setting.quick:
        works.append((replace(shallow, sizes=(784, 512, 512, 10), activation="relu"), 3))
    entries = []
    with Comparison(setting.rows(GRADIENTS)) as comparison:
        for work, rounds in works:
            timed = comparison.measure(work, rounds, gradient_judge(work))
            coarse = replace(work, h=_FLOAT32_STEP)
            judged = comparison.measure(coarse, 0, gradient_judge(coarse))
            entries += [entry(work, timed), entry(coarse, judged)]
    return entries


def scaling(setting: Setting) -> list[dict[str, Any]]:
    """Measure time and peak memory of dlfs_gpu as batch, hidden size and data grow."""
    entries = []
    for series, works in _growing(Work(setting.data), every=3 if setting.quick else 1).items():
        subject = "DifferenceGradient" if series == "gradient" else "Training"
        rows = [r for r in (*TRAINING, *GRADIENTS) if r.peer.endswith(f"dlfs:{subject}")]
        with Comparison(setting.rows(rows)) as comparison:
            for work in works:
                results = comparison.measure(work, setting.rounds(5), _unjudged, memory=True)
                images = work.batch if series == "gradient" else work.samples
                entries.append(
                    {
                        "series": series,
                        "data_bytes": images * (4 * work.sizes[0] + 8),
                        "nonzeros": int(np.count_nonzero(work.minibatch()[0])),
                        **entry(work, results),
                    }
                )
    return entries


SECTIONS: dict[str, Callable[[Setting], list[dict[str, Any]]]] = {
    "training": training,
    "sizes": sizes,
    "gradients": gradients,
    "scaling": scaling,
}


def run(name: str, setting: Setting) -> dict[str, Any]:
    """Run a section, and return its results as they are written to the file."""
    started = datetime.datetime.now(datetime.UTC)
    works = SECTIONS[name](setting)
    return {
        "date": started.isoformat(timespec="seconds"),
        "data": setting.source,
        "quick": setting.quick,
        "versions": machine.versions(("dlfs_gpu", "numpy", "cupy", "jaxlib", *PEERS)),
        "works": works,
    }


def loss_judge(work: Work) -> Judge:
    """Return a judge of losses: the largest deviation from the chapter's own, in float64."""
    peer = chapter.Training(work, "CPU")
    expected = peer.values(peer.run(peer.job(0)))
    return lambda _, losses: float(np.max(np.abs(losses - expected) / expected))


def gradient_judge(work: Work) -> Judge:
    """Return a judge of derivatives: the error's norm over that of the float64 gradient."""
    expected = dlfs.reference_gradient(work)

    def judge(elements: Any, values: Any) -> float:
        right = expected[elements]
        return float(np.linalg.norm(values - right) / np.linalg.norm(right))

    return judge


def entry(work: Work, results: Sequence[Result]) -> dict[str, Any]:
    """Return a work and its results as they are written to the file.

    Times are in seconds for one update or gradient; a speedup is over the first row.
    """
    baseline = results[0]
    return {
        "work": {
            "name": work.name,
            "sizes": work.sizes,
            "activation": work.activation,
            "batch": work.batch,
            "samples": work.samples,
            "lr": work.lr,
            "h": work.h,
            "parameters": work.parameters,
        },
        "rows": [_row(result, baseline) for result in results],
    }


def _trained(comparison: Comparison, work: Work, rounds: int) -> dict[str, Any]:
    results = comparison.measure(work, rounds, loss_judge(work), LOSS_TOLERANCE)
    return entry(work, results)


def _growing(work: Work, every: int) -> dict[str, list[Work]]:
    """Return series of growing works, or every so-manyth of each."""
    batches = (10, 32, 100, 320, 1000, 3200, 10_000)[::every]
    widths = (25, 50, 100, 200, 400, 800, 1600)[::every]
    samples = (7500, 15_000, 30_000, 60_000, 120_000)[::every]
    sides = (25, 50, 100, 200, 400)[::every]
    return {
        "batch": [replace(work, batch=n) for n in batches],
        "hidden": [replace(work, sizes=(784, n, 10), lr=_SMALL_LR) for n in widths],
        "data": [replace(work, samples=n) for n in samples],
        "gradient": [
            replace(work, sizes=(784, hidden, 10), batch=batch)
            for hidden, batch in itertools.product(sides, sides)
        ],
    }


def _unjudged(*_: Any) -> float:
    return 0.0


def _row(result: Result, baseline: Result) -> dict[str, Any]:
    row: dict[str, Any] = {
        "row": result.row.name,
        "device": result.row.device,
        "status": result.status,
    }
    if result.status == "ok":
        row |= {
            "deviation": result.deviation,
            "agrees": result.agrees,
            "first_block_seconds": result.first_seconds,
            "peak_bytes": result.peak_bytes,
        }
        if result.seconds:
            row |= {
                "units_per_block": result.units,
                "median": result.median,
                "quartiles": result.quartiles,
                "seconds": result.seconds,
            }
            if baseline.status == "ok":
                row["speedup"] = result.speedup(baseline)
    return row

"""The parts of the benchmarks: training, gradients, functions, scaling."""

from __future__ import annotations

import datetime
import json
import subprocess
import sys
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import machine
from benchmarks.comparison import Comparison, Competitor, Result, Task
from benchmarks.peers import chapter, dlfs
from benchmarks.work import Array, Job, Work

PEERS = ("torch", "jax", "dezero")


TRAINING = (
    Competitor("the chapter's way", "benchmarks.peers.chapter:training", "numpy", has_gpu=False),
    Competitor("dlfs_gpu", "benchmarks.peers.dlfs:training", "numpy"),
    Competitor("dlfs_gpu, arrays", "benchmarks.peers.dlfs:array_training", "numpy", has_gpu=False),
    Competitor("PyTorch eager", "benchmarks.peers.pytorch:eager_training", "torch"),
    Competitor("torch.compile", "benchmarks.peers.pytorch:compiled_training", "torch"),
    Competitor("JAX jit", "benchmarks.peers.xla:step_training", "jax"),
    Competitor("JAX scan", "benchmarks.peers.xla:scan_training", "jax"),
    Competitor("DeZero", "benchmarks.peers.dezero:training", "dezero", has_gpu=False),
)
_EVALUATING = (
    Competitor("the chapter's loop", "benchmarks.peers.chapter:gradient", "numpy", 200, False),
    Competitor("dlfs_gpu batched", "benchmarks.peers.dlfs:batched_gradient", "numpy", 1000),
    Competitor("torch.func.vmap", "benchmarks.peers.pytorch:vmap_gradient", "torch", 1000),
    Competitor("jax.vmap", "benchmarks.peers.xla:vmap_gradient", "jax", 1000),
)
GRADIENTS = (
    *_EVALUATING,
    Competitor("dlfs_gpu difference", "benchmarks.peers.dlfs:network_gradient", "numpy"),
)
FUNCTIONS = (
    *_EVALUATING,
    Competitor("dlfs_gpu loop", "benchmarks.peers.dlfs:loop_gradient", "numpy", 200, False),
    Competitor("dlfs_gpu difference", "benchmarks.peers.dlfs:function_gradient", "numpy"),
)

# Float32 losses end up 1e-6 apart, 1e-5 where a ReLU's input lands on the other side of 0.
_LOSS_TOLERANCE = 1e-4
# The step at which rounding and truncation balance in float32, and how far gradients are off
# there at most: at smaller steps they may be all rounding.
_FLOAT32_STEP = 2.0**-7
_GRADIENT_TOLERANCE = 0.5
# Wide and deep networks diverge at 0.1, and then rounding alone decides the losses.
_SMALL_LR = 0.01


@dataclass(frozen=True)
class Plan:
    """What to compare, and on what.

    Attributes
    ----------
    data : Path
        Folder of `benchmarks.work.write_data`.
    source : str
        What that wrote.
    gpu : bool
        Whether there is a GPU.
    peers : collection of str
        Packages to compare with.
    quick : bool
        Fewer works and rounds.
    """

    data: Path
    source: str
    gpu: bool = False
    peers: Collection[str] = PEERS
    quick: bool = False

    def choose(self, competitors: Sequence[Competitor]) -> list[Competitor]:
        """Return the competitors that were asked for, on each device that they can use here."""
        chosen = []
        for competitor in competitors:
            if competitor.package in ("numpy", *self.peers):
                chosen.append(competitor)
                if self.gpu and competitor.has_gpu:
                    chosen.append(replace(competitor, name=f"{competitor.name}, GPU", gpu=True))
        return chosen

    def rounds(self, full: int) -> int:
        """Return how many rounds to time."""
        return max(3, full // 6) if self.quick else full


def training(plan: Plan) -> list[dict[str, Any]]:
    """Time an update of the chapter's network, and of other batches, widths and depths."""
    work = Work(plan.data)
    wide = replace(work, sizes=(784, 1024, 10), lr=_SMALL_LR)
    deep = replace(work, sizes=(784, 512, 512, 10), activation="relu", lr=_SMALL_LR)
    works = [replace(wide, batch=1000), deep]
    if not plan.quick:
        batches = [replace(work, batch=batch) for batch in (10, 1000, 10_000)]
        widths = [replace(wide, sizes=(784, hidden, 10)) for hidden in (256, 1024, 2048)]
        works = [*batches, *widths, *works]
    entries = []
    with Comparison(plan.choose(TRAINING)) as comparison:
        for each, rounds in [(work, 30), *((other, 10) for other in works)]:
            results = comparison.measure(updates(each), plan.rounds(rounds))
            entries.append(entry(f"One update of {each.name}", each, results))
    return entries


def gradients(plan: Plan) -> list[dict[str, Any]]:
    """Time numerical gradients of all parameters, and take their errors at two steps."""
    work = Work(plan.data)
    deep = replace(work, sizes=(784, 512, 512, 10), activation="relu")
    with Comparison(plan.choose(GRADIENTS)) as comparison:
        entries = [_differentiated(comparison, work, plan.rounds(3))]
        if not plan.quick:
            entries.append(_differentiated(comparison, deep, 3))
    return entries


def functions(plan: Plan) -> list[dict[str, Any]]:
    """Time numerical gradients of plain code as a function of W1, and take their errors."""
    work = Work(plan.data, only_w1=True)
    with Comparison(plan.choose(FUNCTIONS)) as comparison:
        return [_differentiated(comparison, work, plan.rounds(3))]


def scaling(plan: Plan) -> list[dict[str, Any]]:
    """Have pytest-benchmark measure dlfs_gpu as batch, hidden size and data grow."""
    path = plan.data / "scaling.json"
    suite = Path(__file__).parent / "bench_scaling.py"
    options = [f"--benchmark-json={path}", "-k=float32", "-q"]
    if plan.quick:
        options.append("--benchmark-max-time=0.1")
    subprocess.run([sys.executable, "-m", "pytest", suite, *options], check=True)
    benchmarks = json.loads(path.read_text(encoding="utf-8"))["benchmarks"]
    return [{**each["extra_info"], "median": each["stats"]["median"]} for each in benchmarks]


SECTIONS: dict[str, Callable[[Plan], list[dict[str, Any]]]] = {
    "training": training,
    "gradients": gradients,
    "functions": functions,
    "scaling": scaling,
}


def run(name: str, plan: Plan) -> dict[str, Any]:
    """Run a section, and return its results as they are written to the file."""
    started = datetime.datetime.now(datetime.UTC)
    entries = SECTIONS[name](plan)
    return {
        "date": started.isoformat(timespec="seconds"),
        "data": plan.source,
        "quick": plan.quick,
        "versions": machine.versions(("dlfs_gpu", "numpy", "cupy", "jaxlib", *PEERS)),
        "entries": entries,
    }


def updates(work: Work) -> Task:
    """Return the task to train, judged by the losses: the largest deviation from the chapter's."""
    job = work.minibatches
    expected = chapter.training(work, gpu=False)(job(0))
    return Task(
        work,
        lambda block, _: job(block),
        unit=1,
        title="losses off by",
        error=lambda _, losses: float(np.max(np.abs(losses - expected) / expected)),
        tolerance=_LOSS_TOLERANCE,
    )


def differences(work: Work) -> Task:
    """Return the task to differentiate, judged by the error's norm over the float64 gradient's."""
    expected = dlfs.reference_gradient(work)

    def error(elements: Job, values: Array) -> float:
        right = expected[elements]
        return float(np.linalg.norm(values - right) / np.linalg.norm(right))

    tolerance = _GRADIENT_TOLERANCE if work.h == _FLOAT32_STEP else np.inf
    title = f"error at h = {work.h:.2g}"
    return Task(work, work.elements, work.parameters, title, error, tolerance)


def entry(title: str, work: Work, results: Sequence[Result]) -> dict[str, Any]:
    """Return a work and its results as they are written to the file.

    Times are in seconds for one update or gradient; a speedup is over the first competitor.
    """
    described = {**asdict(work), "parameters": work.parameters}
    del described["data"]
    rows = [{**asdict(result), **_summary(result, results[0])} for result in results]
    return {"title": title, "work": described, "results": rows}


def _differentiated(comparison: Comparison, work: Work, rounds: int) -> dict[str, Any]:
    coarse = replace(work, h=_FLOAT32_STEP)
    judged = comparison.measure(differences(coarse), 0)
    results = comparison.measure(differences(work), rounds)
    for result, other in zip(results, judged, strict=True):
        result.errors |= other.errors
        if other.status != "ok":
            result.status = other.status
    what = "elements of W1" if work.only_w1 else "parameters"
    title = f"Numerical gradient of {work.name}: {work.parameters:,} {what}"
    return entry(title, work, results)


def _summary(result: Result, baseline: Result) -> dict[str, Any]:
    """Return median, quartiles and speedup, the median over rounds, of what was timed."""
    if result.status != "ok" or not result.seconds:
        return {}
    summary: dict[str, Any] = {
        "median": float(np.median(result.seconds)),
        "quartiles": np.quantile(result.seconds, [0.25, 0.75]).tolist(),
    }
    if baseline.status == "ok":
        ratios = np.divide(baseline.seconds, result.seconds)
        summary["speedup"] = float(np.median(ratios))
    return summary

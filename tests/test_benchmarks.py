"""The benchmarks are honest: same work, results compared, faults named, nothing hidden."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import charts, machine, optimizers, report, scaling, sections
from benchmarks import work as work_module
from benchmarks.comparison import Comparison, Competitor, Result, Task
from benchmarks.peers import chapter, dlfs
from benchmarks.work import Array, Do, Job, Work, write_data
from dlfs_gpu.backend import use_backend

ROOT = Path(__file__).parents[1]

pytestmark = pytest.mark.once


def slow(work: Work, gpu: bool) -> Do:
    """The library, held up."""
    do = dlfs.training(work, gpu)

    def held_up(job: Job) -> Array:
        time.sleep(0.3)
        return do(job)

    return held_up


def hasty(work: Work, gpu: bool) -> Do:
    """Trains at another rate than it was told to."""
    return chapter.training(replace(work, lr=2 * work.lr), gpu)


def diverging(work: Work, gpu: bool) -> Do:
    return lambda job: np.full(len(job), np.nan)


def raising(work: Work, gpu: bool) -> Do:
    """Fails when it is timed."""
    do, first = chapter.training(work, gpu), work.minibatches(0)

    def fail_later(job: Job) -> Array:
        if not np.array_equal(job, first):
            raise RuntimeError("no memory left\nfor this")
        return do(job)

    return fail_later


def dying(work: Work, gpu: bool) -> Do:
    """Takes its process down when it is timed."""
    do = raising(work, gpu)

    def die_later(job: Job) -> Array:
        try:
            return do(job)
        except RuntimeError:
            os._exit(3)

    return die_later


CHAPTER = Competitor("the chapter's way", "benchmarks.peers.chapter:training", "numpy")
LIBRARY = Competitor("dlfs_gpu", "benchmarks.peers.dlfs:training", "numpy")


def fake(name: str) -> Competitor:
    return Competitor(name, f"{__name__}:{name}", "numpy")


@pytest.fixture
def work(tmp_path: Path) -> Work:
    """A small network on a few images."""
    rng = np.random.default_rng(0)
    images = rng.integers(256, size=(150, 784)) * (rng.random((150, 784)) < 0.2)
    np.save(tmp_path / "images.npy", images.astype(np.uint8))
    np.save(tmp_path / "labels.npy", rng.integers(10, size=150))
    return Work(tmp_path, sizes=(784, 5, 10), batch=10)


def compare(task: Task, *competitors: Competitor, rounds: int = 2) -> dict[str, Result]:
    with Comparison(competitors, pause=0) as comparison:
        return {result.name: result for result in comparison.measure(task, rounds)}


def chosen(work: Work, competitors: tuple[Competitor, ...]) -> list[Competitor]:
    """Those on the CPU, but for the one that takes long to compile."""
    plan = sections.Plan(work.data, "random")
    return [each for each in plan.choose(competitors) if each.name != "torch.compile"]


def test_all_competitors_train_alike(work: Work) -> None:
    deep = replace(work, sizes=(784, 6, 4, 10), activation="relu", lr=0.01)
    with Comparison(chosen(work, sections.TRAINING), pause=0) as comparison:
        for each in (work, deep):
            for result in comparison.measure(sections.updates(each), 1):
                if result.status != "not installed":
                    assert result.status == "ok", result.name
                    assert result.errors["losses off by"] < 1e-5, result.name
                    assert len(result.seconds) == 1, result.name


@pytest.mark.parametrize(
    ("competitors", "only_w1"), [(sections.GRADIENTS, False), (sections.FUNCTIONS, True)]
)
def test_gradients_are_judged_by_float64_differences(
    work: Work, competitors: tuple[Competitor, ...], only_w1: bool
) -> None:
    work = replace(work, only_w1=only_w1)
    results = compare(sections.differences(work), *chosen(work, competitors), rounds=1)
    errors = {name: result.errors.get("error at h = 0.0001") for name, result in results.items()}
    for name, error in errors.items():
        if error is None:
            assert results[name].status.startswith("not installed")
        elif name == "the chapter's loop":
            assert error < 1e-5
        elif name == "dlfs_gpu difference":
            assert error < 1e-6
        else:
            assert 1e-3 < error < 100, name
    table = report.tables({"entries": [sections.entry("", work, list(results.values()))]})
    assert "extrapolated from 200 elements" in table


def test_a_slowed_one_shows_as_slower(work: Work) -> None:
    results = compare(sections.updates(work), LIBRARY, fake("slow"), rounds=3)
    entry = sections.entry("", work, list(results.values()))
    assert entry["results"][1]["median"] > 0.3 / work.updates
    assert entry["results"][1]["speedup"] < 1


def test_times_are_paired_by_round(work: Work) -> None:
    a = Result("a", seconds=[1.0, 2.0, 4.0])
    b = Result("b", seconds=[0.5, 0.5, 2.0])
    _, row = sections.entry("", work, [a, b])["results"]
    assert (row["median"], row["quartiles"], row["speedup"]) == (0.5, [0.5, 1.25], 2.0)


def test_one_that_fails_is_named_and_leaves_the_others_running(
    work: Work, capfd: pytest.CaptureFixture[str]
) -> None:
    missing = Competitor("missing", "no_such_module:training", "no_such_module")
    fakes = [fake(name) for name in ("hasty", "diverging", "raising", "dying")]
    with Comparison([CHAPTER, missing, *fakes, LIBRARY], pause=0) as comparison:
        task = sections.updates(work)
        results = {result.name: result for result in comparison.measure(task, 2)}
        again = {result.name: result.status for result in comparison.measure(task, 0)}
    assert again["dying"] == "ok", "a process that died is started again for the next work"
    assert {name: result.status for name, result in results.items()} == {
        "the chapter's way": "ok",
        "missing": "not installed",
        "hasty": "failed: its results are not the same",
        "diverging": "failed: NaN or infinity among its results",
        "raising": "failed: RuntimeError: no memory left",
        "dying": "failed: its process died",
        "dlfs_gpu": "ok",
    }
    assert "for this" in capfd.readouterr().err
    table = report.tables({"entries": [sections.entry("", work, list(results.values()))]})
    for name, result in results.items():
        (line,) = (line for line in table.splitlines() if line.startswith(f"| {name} "))
        assert (result.status in line) == (result.status != "ok")


def test_work_is_the_same_for_all_and_new_in_each_block(work: Work) -> None:
    again = replace(work)
    for mine, theirs in zip(work.weights(), again.weights(), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    np.testing.assert_array_equal(work.minibatches(1), again.minibatches(1))
    assert not np.array_equal(work.minibatches(1), work.minibatches(2))
    assert work.minibatches(1).shape == (work.updates, 10)
    assert work.parameters == 784 * 5 + 5 + 5 * 10 + 10
    assert replace(work, only_w1=True).parameters == 784 * 5
    assert len(set(work.elements(0, 300))) == 300


def test_generated_data_is_shaped_like_mnist(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DLFS_GPU_DATA", raising=False)
    monkeypatch.setattr(work_module, "_SAMPLES", 1000)
    assert write_data(tmp_path) == "generated"
    x, t = Work(tmp_path).images()
    assert (type(x), x.shape, str(x.dtype)) == (np.ndarray, (1000, 784), "float32")
    assert (t.shape, str(t.dtype)) == ((1000,), "int64")
    assert (x.min(), x.max()) == (0, 1)
    assert 0.15 < np.mean(x > 0) < 0.25
    assert set(t) == set(range(10))


def test_mnist_is_used_where_it_is(
    tmp_path: Path, mnist_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DLFS_GPU_DATA", str(mnist_dir))
    assert write_data(tmp_path) == "MNIST"
    assert Work(tmp_path).images()[1][:5].tolist() == [5, 0, 4, 1, 9]


@pytest.mark.parametrize(
    ("described", "name"),
    [
        ({"gpu": None, "cpu": "AMD EPYC", "cores": 2}, "amd-epyc-2-cores"),
        ({"gpu": None, "cpu": "Intel(R) Xeon(R) CPU @ 2.20GHz", "cores": 4}, "intel-xeon-4-cores"),
        ({"gpu": "NVIDIA H200, 140 GiB", "cpu": "Any", "cores": 16}, "nvidia-h200"),
    ],
)
def test_machines_name_their_results(described: dict[str, Any], name: str) -> None:
    assert machine.file_name(described) == name


@pytest.mark.parametrize(
    ("seconds", "text"), [(2.5e-4, "250 µs"), (0.0135, "13.5 ms"), (13.2, "13.2 s"), (0, "0 µs")]
)
def test_durations_are_readable(seconds: float, text: str) -> None:
    assert report.duration(seconds) == text


def run(*arguments: Any) -> str:
    environment = {**os.environ, "DLFS_GPU_DATA": "", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-m", *map(str, arguments)]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_command_runs_without_peers_and_keeps_earlier_sections(tmp_path: Path) -> None:
    scaling = {
        "name": "dlfs_gpu, numpy",
        "series": "batch",
        "size": 10,
        "median": 1e-3,
        "peak_bytes": 10**6,
    }
    earlier = {"date": "2000-01-01", "data": "MNIST", "versions": {}, "entries": [scaling]}
    out = tmp_path / "machine.json"
    out.write_text(json.dumps({"sections": {"scaling": earlier}}))
    printed = run("benchmarks", "--quick", "--only", "gradients", "--peers", "--out", out)
    results = json.loads(out.read_text())
    assert results["machine"]["cores"] >= 1
    assert results["sections"]["scaling"] == earlier
    section = results["sections"]["gradients"]
    assert section["data"] == "generated"
    assert "numpy" in section["versions"]
    rows = section["entries"][0]["results"]
    assert [row["name"] for row in rows] == [
        "the chapter's loop",
        "dlfs_gpu batched",
        "dlfs_gpu difference",
    ]
    assert all(len(row["seconds"]) == 3 for row in rows)
    assert report.tables(section) in printed
    assert report.tables(section) in (tmp_path / "machine.md").read_text()
    for name in ("machine.png", "machine-scaling.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")


def test_the_committed_results_are_in_step_with_their_tables(tmp_path: Path) -> None:
    for path in (ROOT / "benchmarks" / "results").glob("*.json"):
        results = report.load(path)
        assert path.with_suffix(".md").read_text() == report.document(results)
        charts.draw(results, tmp_path / path.name)


def test_the_suites_run() -> None:
    # But for thousands of samples or units.
    printed = run("pytest", "benchmarks", "--benchmark-disable", "-q", "-k", "float32 and not 000")
    assert "passed" in printed


def test_optimizers(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(optimizers, "_WORKS", (((784, 3, 10), 5),))
    monkeypatch.setattr(optimizers, "_IMAGES", 20)
    monkeypatch.setattr(optimizers, "_UPDATES", 2)
    with use_backend("numpy"):
        optimizers.main()
    printed = capsys.readouterr().out
    assert "| 784-3-10, batch 5 | time |" in printed
    for name in ("SGD", "Momentum", "Adam"):
        assert re.search(rf"^\| dlfs_gpu, {name} \| [\d.]+ µs \|$", printed, re.MULTILINE)


def test_scaling_is_of_times_in_one_round_and_fitted_to_shares() -> None:
    rounds = [
        {1: dict.fromkeys(scaling.WORKS, 2.0), 2: dict.fromkeys(scaling.WORKS, 1.0)},
        {1: dict.fromkeys(scaling.WORKS, 8.0), 2: dict.fromkeys(scaling.WORKS, 6.0)},
    ]
    assert "| 5 s | 0.62 (0.50 to 0.75) |" in scaling.table(rounds)
    shares = {"work": [3 + 8 / count for count in (1, 2, 4, 8)]}
    assert scaling.shares_table(shares).endswith("| 3 s | 8 s |")

"""The benchmarks' harness is honest: same work, synchronised, faults named, nothing hidden."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import charts, machine, report, sections
from benchmarks import work as work_module
from benchmarks.harness import Comparison, Device, Job, PeerError, Result, Row, Worker, timed
from benchmarks.peers import chapter, dlfs
from benchmarks.work import Work, write_data

ROOT = Path(__file__).parents[1]


class Slow(dlfs.Training):
    """The library, held up."""

    def run(self, job: Job) -> Any:
        time.sleep(0.3)
        return super().run(job)


class Hasty(dlfs.Training):
    """Trains at another rate than it was told to."""

    def __init__(self, work: Work, device: Device) -> None:
        super().__init__(replace(work, lr=2 * work.lr), device)


class Diverging(dlfs.Training):
    """Gives NaN."""

    def run(self, job: Job) -> Any:
        return [np.nan for _ in super().run(job)]


class Raising(chapter.Training):
    """Fails when it is timed."""

    def run(self, job: Job) -> Any:
        if not np.array_equal(job, self.job(0)):
            raise RuntimeError("no memory left\nfor this")
        return super().run(job)


class Dying(Raising):
    """Takes its process down."""

    def run(self, job: Job) -> Any:
        try:
            return super().run(job)
        except RuntimeError:
            os._exit(3)


class Recording(chapter.Training):
    """Notes what is done to it, and when the clock is read."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def run(self, job: Job) -> Any:
        self.calls.append("run")
        return "losses"

    def synchronize(self) -> None:
        self.calls.append("synchronize")

    def clock(self) -> float:
        self.calls.append("clock")
        return len(self.calls)


def row(name: str, peer: str, package: str = "numpy") -> Row:
    return Row(name, peer, package)


BASELINE = row("the chapter's way", "benchmarks.peers.chapter:Training")
LIBRARY = row("dlfs_gpu, NumPy", "benchmarks.peers.dlfs:Training")


def fake(peer: type) -> Row:
    return row(peer.__name__, f"{peer.__module__}:{peer.__name__}")


@pytest.fixture
def work(tmp_path: Path) -> Work:
    """A small network on a few images."""
    rng = np.random.default_rng(0)
    images = rng.integers(256, size=(150, 784)) * (rng.random((150, 784)) < 0.2)
    np.save(tmp_path / "images.npy", images.astype(np.uint8))
    np.save(tmp_path / "labels.npy", rng.integers(10, size=150))
    return Work(tmp_path, sizes=(784, 5, 10), batch=10, samples=200)


def train(work: Work, *rows: Row, rounds: int = 2) -> list[Result]:
    with Comparison(rows, pause=0) as comparison:
        judge = sections.loss_judge(work)
        return comparison.measure(work, rounds, judge, sections.LOSS_TOLERANCE)


def here(rows: tuple[Row, ...], work: Work) -> list[Row]:
    """Those rows that can run here, but for the one that takes long to compile."""
    rows_here = sections.Setting(work.data, "").rows(rows)
    return [
        row
        for row in rows_here
        if row.name != "torch.compile" and (row.device == "CPU" or row.package == "cupy")
    ]


def test_all_rows_train_alike(work: Work) -> None:
    deep = replace(work, sizes=(784, 6, 4, 10), activation="relu", lr=0.01)
    with Comparison(here(sections.TRAINING, work), pause=0) as comparison:
        results = [
            result
            for each in (work, deep)
            for result in comparison.measure(each, 1, sections.loss_judge(each), 1e-5)
        ]
    for result in results:
        assert result.status in ("ok", "not installed"), result.row
        if result.status == "ok":
            assert result.agrees, result.row
            assert len(result.seconds) == 1, result.row


def test_gradients_are_judged_by_float64_differences(work: Work) -> None:
    with Comparison(here(sections.GRADIENTS, work), pause=0) as comparison:
        results = comparison.measure(work, 1, sections.gradient_judge(work))
    errors = {r.row.name: r.deviation for r in results if r.status == "ok"}
    assert errors["the chapter's loop"] < 1e-5
    assert errors["dlfs_gpu difference"] < 1e-6
    assert 1e-3 < errors["dlfs_gpu batched"] < 100
    for name in ("torch.func.vmap", "jax.vmap"):
        assert 1e-3 < errors.get(name, 1) < 100, name


def test_a_part_of_a_gradient_is_extrapolated_and_says_so(work: Work) -> None:
    with Comparison(sections.GRADIENTS[:1], pause=0) as comparison:
        (result,) = comparison.measure(work, 1, sections.gradient_judge(work))
    assert result.units == 200 / work.parameters
    works = [sections.entry(work, [result])] * 2
    assert "extrapolated from 200 parameters" in report.tables("gradients", {"works": works})


def test_a_slowed_row_shows_as_slower(work: Work) -> None:
    fast, slow = train(work, LIBRARY, fake(Slow), rounds=3)
    assert slow.median > fast.median
    assert slow.speedup(fast) < 1
    assert slow.agrees


def test_timing_waits_before_and_after() -> None:
    peer = Recording()
    seconds, results = timed(peer, np.zeros((1, 1), np.int64), clock=peer.clock)
    assert peer.calls == ["synchronize", "clock", "run", "synchronize", "clock"]
    assert seconds == 3
    assert results == "losses"


def test_repeats_are_waited_for_once() -> None:
    peer = Recording()
    timed(peer, np.zeros((1, 1), np.int64), 2, clock=peer.clock)
    assert peer.calls == ["synchronize", "clock", "run", "run", "synchronize", "clock"]


def test_the_first_block_is_not_timed(work: Work) -> None:
    (result,) = train(work, LIBRARY, rounds=2)
    assert len(result.seconds) == 2
    assert result.first_seconds > 0


def test_a_row_that_trains_otherwise_is_flagged(work: Work) -> None:
    results = train(work, BASELINE, fake(Hasty))
    assert [result.agrees for result in results] == [True, False]
    lines = report.tables("training", {"works": [sections.entry(work, results)]}).splitlines()
    assert ["NOT THE SAME TRAINING" in line for line in lines[2:4]] == [False, True]


def test_a_peer_that_is_missing_is_listed(work: Work) -> None:
    missing = row("Other", "no_such_module:Peer", package="no_such_module")
    results = train(work, BASELINE, missing, LIBRARY)
    assert [result.status for result in results] == ["ok", "not installed", "ok"]
    table = report.tables("training", {"works": [sections.entry(work, results)]})
    assert "Other" in table
    assert "not installed" in table


def test_a_peer_that_fails_leaves_the_others_running(
    work: Work, capfd: pytest.CaptureFixture[str]
) -> None:
    results = train(work, fake(Raising), fake(Dying), fake(Diverging), LIBRARY, BASELINE)
    assert [result.status for result in results] == [
        "failed: RuntimeError: no memory left",
        "crashed: exit code 3",
        "failed: NaN or infinity among its results",
        "ok",
        "ok",
    ]
    assert "for this" in capfd.readouterr().err


def test_a_worker_that_died_is_started_again_for_the_next_work(work: Work) -> None:
    with Comparison([fake(Dying)], pause=0) as comparison:
        (dead,) = comparison.measure(work, 1, lambda *_: 0.0)
        (alive,) = comparison.measure(work, 0, lambda *_: 0.0)
    assert dead.status.startswith("crashed")
    assert alive.status == "ok"


def test_a_worker_that_does_not_answer_is_given_up(work: Work) -> None:
    worker = Worker(fake(Slow))
    try:
        worker.ask("setup", work)
        with pytest.raises(PeerError, match="no answer within 0 s"):
            worker.ask("first", timeout=0.01)
    finally:
        worker.close()


def test_peak_memory_counts_the_data_and_what_grows(work: Work) -> None:
    with Comparison([LIBRARY], pause=0) as comparison:
        peaks = []
        for samples in (200, 2000):
            grown = replace(work, samples=samples)
            (result,) = comparison.measure(grown, 0, lambda *_: 0.0, memory=True)
            peaks.append(result.peak_bytes or 0)
    images = 1800 * 784 * 4
    assert images < peaks[1] - peaks[0] < 1.2 * images


def test_times_are_paired_by_round() -> None:
    a = Result(BASELINE, seconds=[1.0, 2.0, 4.0])
    b = Result(LIBRARY, seconds=[0.5, 0.5, 2.0])
    assert (a.median, a.quartiles) == (2.0, (1.5, 3.0))
    assert b.speedup(a) == 2.0


def test_work_is_the_same_for_all_and_new_in_each_block(work: Work) -> None:
    again = replace(work)
    np.testing.assert_array_equal(work.flat_weights(), again.flat_weights())
    np.testing.assert_array_equal(work.minibatches(1), again.minibatches(1))
    assert not np.array_equal(work.minibatches(1), work.minibatches(2))
    assert work.minibatches(1).shape == (work.updates, 10)
    assert len(work.flat_weights()) == work.parameters == 784 * 5 + 5 + 5 * 10 + 10
    assert len(set(work.elements(0, 300))) == 300


def test_generated_data_is_shaped_like_mnist(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DLFS_GPU_DATA", raising=False)
    monkeypatch.setattr(work_module, "_SAMPLES", 1000)
    assert write_data(tmp_path) == "generated"
    x, t = Work(tmp_path, samples=1500).images()
    assert (x.shape, str(x.dtype)) == ((1500, 784), "float32")
    assert (t.shape, str(t.dtype)) == ((1500,), "int64")
    assert (x.min(), x.max()) == (0, 1)
    assert 0.15 < np.mean(x > 0) < 0.25
    np.testing.assert_array_equal(x[:500], x[1000:])
    assert set(t) == set(range(10))


def test_mnist_is_used_where_it_is(
    tmp_path: Path, mnist_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DLFS_GPU_DATA", str(mnist_dir))
    assert write_data(tmp_path) == "MNIST"
    _, t = Work(tmp_path, samples=5).images()
    assert t.tolist() == [5, 0, 4, 1, 9]


@pytest.mark.parametrize(
    ("described", "slug"),
    [
        ({"gpu": None, "cpu": "AMD EPYC", "cores": 2}, "amd-epyc-2-cores"),
        ({"gpu": None, "cpu": "Intel(R) Xeon(R) CPU @ 2.20GHz", "cores": 4}, "intel-xeon-4-cores"),
        ({"gpu": "NVIDIA H200, 580.65", "cpu": "Any", "cores": 16}, "nvidia-h200"),
    ],
)
def test_machines_name_their_results(described: dict[str, Any], slug: str) -> None:
    assert machine.slug(described) == slug


@pytest.mark.parametrize(
    ("seconds", "text"), [(2.5e-4, "250 µs"), (0.0135, "13.5 ms"), (13.2, "13.2 s"), (0, "0 µs")]
)
def test_durations_are_readable(seconds: float, text: str) -> None:
    assert report.duration(seconds) == text


def test_the_command_runs_without_peers_and_keeps_earlier_sections(tmp_path: Path) -> None:
    out = tmp_path / "results.json"
    out.write_text(json.dumps({"sections": {"earlier": {"date": "2000-01-01"}}}))
    environment = {**os.environ, "DLFS_GPU_DATA": "", "CUDA_VISIBLE_DEVICES": ""}
    command = ["-m", "benchmarks", "--quick", "--only", "gradients", "--peers=", "--out"]
    run = subprocess.run(
        [sys.executable, *command, out],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert "dlfs_gpu difference" in run.stdout
    results = json.loads(out.read_text())
    assert results["machine"]["cores"] >= 1
    assert results["sections"]["earlier"] == {"date": "2000-01-01"}
    assert results["sections"]["gradients"]["data"] == "generated"
    assert "numpy" in results["sections"]["gradients"]["versions"]
    rows = results["sections"]["gradients"]["works"][0]["rows"]
    assert all(len(row["seconds"]) == 3 for row in rows if row["status"] == "ok")


def test_an_unknown_peer_is_refused() -> None:
    run = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--peers", "torch,numpie"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 2
    assert "'numpie' is not one of 'torch', 'jax', 'dezero'" in run.stderr


def test_charts_are_drawn_beside_the_results(work: Work, tmp_path: Path) -> None:
    results = train(work, BASELINE, LIBRARY)
    for result in results:
        result.peak_bytes = 10**7
    works = [sections.entry(work, results)]
    grown = [
        {"series": series, "data_bytes": 10**6, "nonzeros": 1000, **works[0]}
        for series in ("batch", "hidden", "data", "gradient")
    ]
    names = {"training": works, "sizes": works, "gradients": works, "scaling": grown}
    described = {
        "machine": machine.describe(),
        "sections": {name: {"date": "2000-01-01", "works": w} for name, w in names.items()},
    }
    path = tmp_path / "machine.json"
    report.save(path, described)
    assert report.load(path) == json.loads(json.dumps(described))
    charts.draw(described, path)
    for name in ("machine.png", "machine-scaling.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")

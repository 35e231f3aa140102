"""How much memory this process can take: what the system has, and its limits."""

import os
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dlfs_gpu import MultiLayerNet, backend
from dlfs_gpu.losses import SoftmaxWithLoss
from dlfs_gpu.machine import memory
from dlfs_gpu.machine.memory import free_host_memory
from dlfs_gpu.processes import ALONE
from dlfs_gpu.training import Trainer
from dlfs_gpu.training.sharing import mean_loss

GIB = 2**30


def group(folder: Path, **files: object) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name.replace("memory_", "memory.", 1)).write_text(f"{content}\n")


@pytest.fixture
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty tree of control groups; the process is in the group a/b of it."""
    monkeypatch.setattr(memory, "_GROUP_FILES", tmp_path)
    monkeypatch.setattr(memory, "_GROUPS", tmp_path / "own")
    (tmp_path / "own").write_text("9:name=systemd:/\n4:memory:/a/b\n1:cpu:/a\n0::/a/b\n")
    return tmp_path


def test_without_limits(groups: Path) -> None:
    unlimited = free_host_memory()
    assert unlimited > 0
    group(groups / "a", memory_max="max", memory_current=GIB, memory_stat="inactive_file 0")
    assert free_host_memory() == pytest.approx(unlimited, rel=0.5)


@pytest.mark.parametrize("place", ["a/b", "a", ""])
def test_a_control_group(groups: Path, place: str) -> None:
    """Its own limit, one above it, or that of a container, which sees its group at the root."""
    stat = "anon 5\ninactive_file 1000000\nactive_file 7"
    group(groups / place, memory_max=9_000_000, memory_current=3_000_000, memory_stat=stat)
    assert free_host_memory() == 7_000_000
    group(groups / place, memory_current=30_000_000)
    assert free_host_memory() == 0


def test_a_control_group_of_the_first_version(groups: Path) -> None:
    group(
        groups / "memory" / "a",
        memory_limit_in_bytes=9_000_000,
        memory_usage_in_bytes=3_000_000,
        memory_stat="inactive_file 0",
    )
    assert free_host_memory() == 6_000_000


def limited(script: str, size: int) -> subprocess.CompletedProcess[str]:
    """Run a script in an address space that has room for about `size` bytes more."""
    prelude = (
        "import resource, numpy as np, dlfs_gpu\n"
        "from dlfs_gpu import backend\n"
        "used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        f"resource.setrlimit(resource.RLIMIT_AS, (used + {size},) * 2)\n"
    )
    return subprocess.run(
        [sys.executable, "-c", prelude + script],
        capture_output=True, text=True, timeout=120, check=False,
        env={**os.environ, "PYTHONPATH": str(Path(backend.__file__).parents[1])},
    )  # fmt: skip


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says how much is used")
class TestAddressSpace:
    def test_it_is_known(self) -> None:
        done = limited(
            "print(backend.get_backend('numpy').free_memory())\n"
            "print(backend.memory_budget(np.ones(1), None))",
            2**27,
        )
        free, budget = map(int, done.stdout.split())
        assert 2**26 < free <= 2**27
        assert 2**25 < budget <= 2**26

    def test_wide_networks_are_evaluated_and_differentiated_in_it(self) -> None:
        done = limited(
            "net = dlfs_gpu.MultiLayerNet(4, [20_000], 3, seed=0, backend='numpy')\n"
            "x, t = np.ones((2000, 4), np.float32), np.zeros(2000, int)\n"
            "net.accuracy(x, t), net.numerical_gradient(x[:2], t[:2])",
            2**27,
        )
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("free", "budget"), [(0, 2**24), (10**8, 5 * 10**7), (600_000_000, 2**28)])
def test_the_budget_is_half_of_what_is_free(groups: Path, free: int, budget: int) -> None:
    group(groups, memory_max=free, memory_current=0, memory_stat="inactive_file 0")
    backend._host_budget.cache_clear()
    try:
        assert backend.memory_budget(np.ones(1), None) == budget
    finally:
        backend._host_budget.cache_clear()


class TestEvaluation:
    """Scores of all samples are not kept to count the right ones, or for the validation loss."""

    network = MultiLayerNet(1, [], 500, seed=0, backend="numpy")
    x, t = np.ones((40_000, 1), np.float32), np.arange(40_000) % 500

    def test_takes_little_memory(self) -> None:
        """The loss of all at once: 4 times 80 MB."""
        loss = self.network.loss(self.x, self.t)
        trainer = Trainer(
            self.network, self.x[:1], self.t[:1], self.x, self.t, mini_batch_size=1, iterations=1,
            x_val=self.x, t_val=self.t, verbose=False,
        )  # fmt: skip
        tracemalloc.start()
        try:
            history = trainer.train()
            assert tracemalloc.get_traced_memory()[1] < 2**27
        finally:
            tracemalloc.stop()
        assert history.val_loss[0] == pytest.approx(float(loss), rel=1e-6)

    def test_goes_on_with_less_where_memory_is_short(self, monkeypatch: pytest.MonkeyPatch) -> None:
        x, t = self.x[:5000], self.t[:5000]
        loss = mean_loss(self.network, x, t, ALONE)
        forward, sizes = SoftmaxWithLoss.forward, []

        def short(layer: SoftmaxWithLoss, scores: Any, t: Any) -> Any:
            sizes.append(len(scores))
            if len(scores) > 1500:
                raise MemoryError
            return forward(layer, scores, t)

        monkeypatch.setattr(SoftmaxWithLoss, "forward", short)
        assert mean_loss(self.network, x, t, ALONE) == pytest.approx(loss, rel=1e-6)
        assert sizes == [5000, 2500, 1250, 1250, 1250, 1250]

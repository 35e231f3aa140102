"""What importing the package costs."""

import json
import subprocess
import sys

HEAVY = {"cupy", "matplotlib", "numba", "pooch", "scipy", "sklearn", "tqdm", "typer"}

CODE = """
import json, sys, time
start = time.perf_counter()
import dlfs_gpu
seconds = time.perf_counter() - start
print(json.dumps({"seconds": seconds, "names": dir(dlfs_gpu), "modules": sorted(sys.modules)}))
"""


def test_nothing_heavy_is_imported() -> None:
    """In a new interpreter. ``pytest -s`` shows the time, which tests don't judge."""
    command = [sys.executable, "-c", CODE]
    report = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    print(f"import dlfs_gpu took {report['seconds']:.3f} s")
    assert "numerical_gradient" in report["names"]
    assert HEAVY.isdisjoint(report["modules"])

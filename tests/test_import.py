"""What importing the package costs, and what it gives."""

import ast
import importlib
import json
import subprocess
import sys
from pathlib import Path

import dlfs_gpu

HEAVY = {"cupy", "matplotlib", "numba", "pooch", "scipy", "sklearn", "tqdm", "typer"}

CODE = """
import json, sys, time
start = time.perf_counter()
import dlfs_gpu
assert "numpy" not in sys.modules
for name in set(dlfs_gpu.__all__) - {"NetworkClassifier", "NetworkRegressor"}:
    getattr(dlfs_gpu, name)
seconds = time.perf_counter() - start
print(json.dumps({"seconds": seconds, "names": dir(dlfs_gpu), "modules": sorted(sys.modules)}))
"""


def test_nothing_heavy_is_imported() -> None:
    """In a new interpreter. ``pytest -s`` shows the time, which tests don't judge."""
    command = [sys.executable, "-c", CODE]
    report = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    print(f"all but the estimators took {report['seconds']:.3f} s")
    assert "numerical_gradient" in report["names"]
    assert HEAVY.isdisjoint(report["modules"])


def test_names_are_what_type_checkers_are_told() -> None:
    tree = ast.parse(Path(dlfs_gpu.__file__).read_text())
    told = {
        alias.name: node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module and "dlfs_gpu" in node.module
        for alias in node.names
    }
    assert sorted(told) == sorted(dlfs_gpu.__all__)
    for name, module in told.items():
        assert getattr(dlfs_gpu, name) is getattr(importlib.import_module(module), name)

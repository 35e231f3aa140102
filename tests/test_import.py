"""What importing the package costs, what it gives, and that its modules import one way."""

import ast
import json
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import dlfs_gpu

HEAVY = {"cupy", "matplotlib", "numba", "pooch", "scipy", "sklearn", "tqdm", "typer"}

CODE = """
import json, sys, time
start = time.perf_counter()
import dlfs_gpu
assert "numpy" not in sys.modules
for name in set(dir(dlfs_gpu)) - {"NetworkClassifier", "NetworkRegressor"}:
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


def test_all_names_can_be_imported() -> None:
    names: dict[str, object] = {}
    exec("from dlfs_gpu import *", names)
    assert {"Trainer", "numerical_gradient", "NetworkClassifier"} < names.keys()
    assert set(dir(dlfs_gpu)) < names.keys()


def imported(path: Path) -> set[str]:
    """Names that a module imports, also in functions and for type checkers."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names} | {str(node.module)}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return names


def test_modules_import_one_way() -> None:
    """A circle is a CycleError, which names the modules."""
    folder = Path(dlfs_gpu.__file__).parent
    modules = {
        ".".join(path.relative_to(folder.parent).with_suffix("").parts): path
        for path in folder.rglob("*.py")
    }
    modules = {name.removesuffix(".__init__"): path for name, path in modules.items()}
    graph = {}
    for name, path in modules.items():
        names = imported(path)
        # What holds a module is imported before it, but by what it holds itself.
        names |= {other.rpartition(".")[0] for other in names}
        graph[name] = {
            other for other in names & modules.keys() if not f"{name}.".startswith(f"{other}.")
        }
    assert "dlfs_gpu.gradient" in graph["dlfs_gpu.network"]
    TopologicalSorter(graph).prepare()

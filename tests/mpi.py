"""Running MPI programs: those of `mpi_programs`, and the command line."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import dlfs_gpu

_FOLDERS = (Path(sys.executable).parent, *os.environ.get("PATH", "").split(os.pathsep))
MPIEXEC = shutil.which("mpiexec", path=os.pathsep.join(map(str, _FOLDERS)))

needs_mpi = pytest.mark.skipif(
    MPIEXEC is None or importlib.util.find_spec("mpi4py") is None,
    reason="mpiexec or mpi4py is missing: pip install mpi4py mpich",
)

ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": str(Path(dlfs_gpu.__file__).parents[1]),
    # Open MPI refuses these by default: root, and more processes than cores.
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
}


def start(count: int, *arguments: object, cwd: Path, **environment: str) -> subprocess.Popen[str]:
    """Start Python with arguments in so many processes."""
    return subprocess.Popen(
        [str(MPIEXEC), "-n", str(count), sys.executable, *map(str, arguments)],
        cwd=cwd,
        env=ENVIRONMENT | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    )


def run(
    count: int, *arguments: object, cwd: Path, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run Python with arguments in so many processes, to the end."""
    process = start(count, *arguments, cwd=cwd, **environment)
    try:
        out, err = process.communicate(timeout=120)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)

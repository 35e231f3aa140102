"""The command line: ``python -m benchmarks``."""

from __future__ import annotations

import argparse
import importlib.util
import tempfile
from pathlib import Path

from benchmarks import machine, report, sections
from benchmarks.work import write_data


def main() -> None:
    """Run the sections asked for; print, write and draw the results of each as it ends."""
    from benchmarks import charts  # not at the top, which every competitor's process imports

    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Compare dlfs_gpu with the chapter's own code and with other libraries: "
        "each in a process of its own, on the same data, weights and minibatches, in turn. "
        "MNIST is read from the folder that DLFS_GPU_DATA names; without, data of its shape is "
        "generated.",
    )
    parser.add_argument(
        "--only",
        choices=sections.SECTIONS,
        nargs="+",
        default=list(sections.SECTIONS),
        help="sections to run (default: all)",
    )
    parser.add_argument(
        "--peers",
        choices=sections.PEERS,
        nargs="*",
        default=sections.PEERS,
        help="packages to compare with (default: all)",
    )
    parser.add_argument(
        "--quick", action="store_true", help="fewer works and rounds: under three minutes"
    )
    parser.add_argument(
        "--out",
        type=Path,
        help="JSON file for the results, which tables and charts are put beside; sections not run "
        "are kept (default: benchmarks/results/MACHINE.json, or MACHINE-quick.json)",
    )
    arguments = parser.parse_args()

    here = machine.describe()
    file_name = machine.file_name(here) + ("-quick" if arguments.quick else "") + ".json"
    out = arguments.out or Path(__file__).parent / "results" / file_name
    print(*(f"{key}: {value}" for key, value in here.items() if value), sep="\n", end="\n\n")
    with tempfile.TemporaryDirectory() as folder:
        source = write_data(Path(folder))
        print(f"data: {source}\n")
        has_gpu = here["gpu"] is not None
        plan = sections.Plan(Path(folder), source, has_gpu, arguments.peers, arguments.quick)
        results = report.load(out)
        results["machine"] = here
        for name in arguments.only:
            if name == "scaling" and importlib.util.find_spec("pytest_benchmark") is None:
                print("scaling: pytest-benchmark is not installed\n")
                continue
            section = sections.run(name, plan)
            print(report.tables(section))
            results["sections"][name] = section
            report.save(out, results)
            charts.draw(results, out)
    print(f"results: {out}")


if __name__ == "__main__":
    main()

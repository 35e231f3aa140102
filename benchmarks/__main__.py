"""The command line: ``python -m benchmarks``."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from benchmarks import machine, report, sections
from benchmarks.work import write_data


def main() -> None:
    """Run the sections asked for; print, write and draw the results of each as it ends."""
    from benchmarks import charts  # not at the top, which every worker imports

    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Compare dlfs_gpu with the chapter's own code and with other libraries: "
        "each in a process of its own, on the same data, weights and minibatches, in turn. "
        "MNIST is read from the folder that DLFS_GPU_DATA names; without, data of its shape is "
        "generated.",
    )
    parser.add_argument(
        "--only", choices=sections.SECTIONS, nargs="+", help="sections to run (default: all)"
    )
    parser.add_argument(
        "--peers",
        type=_peers,
        default=sections.PEERS,
        metavar="NAME,...",
        help=f"packages to compare with (default: {','.join(sections.PEERS)})",
    )
    parser.add_argument(
        "--quick", action="store_true", help="fewer works and rounds: under three minutes"
    )
    parser.add_argument(
        "--out",
        type=Path,
        help="JSON file for the results, which charts are put beside; sections not run are kept "
        "(default: benchmarks/results/MACHINE.json, or MACHINE-quick.json)",
    )
    arguments = parser.parse_args()

    here = machine.describe()
    file_name = machine.slug(here) + ("-quick" if arguments.quick else "") + ".json"
    out = arguments.out or Path(__file__).parent / "results" / file_name
    print(*(f"{key}: {value}" for key, value in here.items() if value), sep="\n", end="\n\n")
    with tempfile.TemporaryDirectory() as folder:
        source = write_data(Path(folder))
        print(f"data: {source}\n")
        setting = sections.Setting(Path(folder), source, arguments.peers, arguments.quick)
        results = report.load(out)
        results["machine"] = here
        for name in arguments.only or sections.SECTIONS:
            section = sections.run(name, setting)
            print(report.tables(name, section))
            results["sections"][name] = section
            report.save(out, results)
            charts.draw(results, out)
    print(f"results: {out}")


def _peers(text: str) -> list[str]:
    names = [name for name in text.split(",") if name]
    for name in names:
        if name not in sections.PEERS:
            raise argparse.ArgumentTypeError(
                f"{name!r} is not one of {', '.join(map(repr, sections.PEERS))}"
            )
    return names


if __name__ == "__main__":
    main()

"""The chapter's report: its numbers, its files, and its page in a browser."""

from __future__ import annotations

import base64
import json
import math
import shutil
import subprocess
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pooch
import pytest

from dlfs_gpu._validation import ArgumentError
from dlfs_gpu.backend import BackendError, get_backend
from dlfs_gpu.chapter4 import SECTIONS, Report, run_chapter4, runner
from dlfs_gpu.chapter4.model import Between, Check, Plot, Section, error_of


@pytest.fixture(autouse=True)
def _no_mnist(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Hide MNIST, wherever it may be."""
    monkeypatch.delenv("DLFS_GPU_DATA", raising=False)
    monkeypatch.setattr(pooch, "os_cache", lambda name: tmp_path / "no-cache" / name)


@pytest.fixture
def replace_sections(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def replace(*entries: Check | Plot) -> None:
        section = Section("A title", "An <introduction>.", entries)
        monkeypatch.setattr(runner, "SECTIONS", {"only": lambda backend: section})

    return replace


@pytest.mark.parametrize("backend", ["numpy", "cupy"])
def test_every_number_comes_out_right(tmp_path: Path, backend: str) -> None:
    try:
        get_backend(backend)
    except BackendError as error:
        pytest.skip(str(error).splitlines()[0])
    result = run_chapter4(tmp_path, backend=backend)
    wrong = [(name, check.name, check.computed) for name, check in result.checks if not check.ok]
    assert wrong == []
    assert result.ok
    assert list(result.sections) == list(SECTIONS)
    _check_files(tmp_path, result)

    # It is as large as the chapter, and each thing stands once.
    checks = [check for _, check in result.checks]
    assert len({check.name for check in checks}) == len(checks) >= 75
    plots = [plot.name for section in result.sections.values() for plot in section.plots]
    assert len(plots) == len(set(plots))
    assert set(plots) >= {
        "ln-x", "step-and-sigmoid", "tangents", "secant", "surface", "gradient-field",
        "descent-path", "training-loss", "training-accuracy", "regression-descent", "activations",
        "overfitting",
    }  # fmt: skip
    sources = ("book", "notes", "slides")
    assert all(check.printed_in.startswith(sources) for check in checks if check.printed_in)
    sources = ("the book's code: ", "the notes: ", "the slides: ")
    mistakes = [check.mistake for check in checks if check.mistake]
    assert len(mistakes) >= 25
    assert all(mistake.startswith(sources) for mistake in mistakes)


@pytest.mark.once
def test_training_on_mnist_follows_the_sources_log(tmp_path: Path, mnist_dir: Path) -> None:
    result = run_chapter4(tmp_path, backend="numpy", data_dir=mnist_dir, only="training")
    assert [f"{check.name}: {check.computed}" for _, check in result.checks if not check.ok] == []
    log = [check for _, check in result.checks if check.printed_in == "notes"]
    assert len(log) == 17
    assert "on MNIST" in result.sections["training"].introduction
    assert "MNIST is not at hand" not in str(result)


def test_data_are_read_only_where_they_are_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DLFS_GPU_DATA", str(tmp_path / "nowhere"))
    result = run_chapter4(tmp_path / "a", backend="numpy", only="losses")
    assert result.ok
    assert "digits" not in str(result)
    with pytest.raises(ArgumentError) as caught:
        run_chapter4(tmp_path / "b", data_dir=Path("nowhere"), only="losses")
    assert caught.value.argument == "data_dir"
    assert not (tmp_path / "b").exists()


def test_training_says_that_mnist_is_not_there(tmp_path: Path) -> None:
    result = run_chapter4(tmp_path, backend="numpy", only="training")
    assert "on the embedded digits" in result.sections["training"].introduction
    assert "MNIST is not at hand" in (tmp_path / "index.html").read_text(encoding="utf-8")
    assert "MNIST is not at hand" in str(result)


def test_a_wrong_number_fails_the_report(
    tmp_path: Path, replace_sections: Callable[..., None]
) -> None:
    replace_sections(
        Check("right", 1.0, 1.0),
        Check("wrong", 1.0, 1.5, 0.1),
        Check("broken", 1.0, ZeroDivisionError("division by zero"), note="1 < 2"),
    )
    result = run_chapter4(tmp_path, backend="numpy")
    assert not result.ok
    assert [check.ok for _, check in result.checks] == [True, False, False]
    assert "WRONG in only: wrong: 1.5, expected 1.0" in str(result)
    assert "WRONG in only: broken: ZeroDivisionError: division by zero" in str(result)
    assert json.loads((tmp_path / "report.json").read_text())["ok"] is False
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert "2 of 3 checks come out wrong" in page
    assert "✗ wrong" in page
    assert "An &lt;introduction&gt;." in page
    assert "1 &lt; 2" in page


def test_page_says_where_a_value_is_printed_and_lists_mistakes(
    tmp_path: Path, replace_sections: Callable[..., None]
) -> None:
    replace_sections(
        Check("one", 1.0, 1.0, 0.1, printed_in="book 4.9", mistake="the notes: <two>"),
        Check("three", 3.0, 3.0),
    )
    run_chapter4(tmp_path, backend="numpy")
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert "printed: book 4.9, ± 0.1" in page
    assert page.count(">derived<") == 1
    assert "mistake in the notes: &lt;two&gt;" in page
    _, _, index = page.partition('<section id="index-of-errata">')
    assert '<a href="#only">one</a>: <span class="mistake">the notes: &lt;two&gt;</span>' in index
    assert "three" not in index


def test_summary_counts_checks_and_figures(
    tmp_path: Path, replace_sections: Callable[..., None]
) -> None:
    replace_sections(Check("right", 1, 1), Check("wrong", 1, 2))
    lines = str(run_chapter4(tmp_path, backend="numpy")).splitlines()
    assert lines[0].split() == ["section", "checks", "right", "figures"]
    assert lines[1].split() == ["only", "2", "1", "0"]
    assert lines[2].split() == ["all", "2", "1", "0"]


@pytest.mark.parametrize(
    ("expected", "computed", "tolerance", "ok"),
    [
        (0.5, 0.5, 0, True),
        (0.5, np.float64(0.5000001), 0, False),
        (0.5, 0.5000001, 1e-6, True),
        (0.5, math.nan, 1, False),
        (math.nan, math.nan, 0, True),
        (39760, 39760, 0, True),
        ([1, 2], np.array([1.0, 2.0]), 0, True),
        ([1, 2], np.array([1.0, 2.1]), 0.05, False),
        ([1, 1], 1, 0, False),
        ([[1], [2]], (np.array([1]), np.array([2])), 0, True),
        ("(2,)", "(2,)", 0, True),
        ("(2,)", "(3,)", 0, False),
        (Between(low=1), 1, 0, True),
        (Between(low=1), 0.9, 0, False),
        (Between(high=1), 1.1, 0, False),
        (Between(1, 2), math.nan, 0, False),
        (ValueError, 1.0, 0, False),
        (ValueError, None, 0, False),
    ],
)
def test_check_compares(expected: Any, computed: Any, tolerance: float, ok: bool) -> None:
    assert Check("a number", expected, computed, tolerance).ok is ok


@pytest.mark.parametrize(("raised", "ok"), [(ValueError("no"), True), (TypeError("no"), False)])
def test_check_expects_an_error(raised: Exception, ok: bool) -> None:
    def fail() -> None:
        raise raised

    check = Check("an error", ValueError, error_of(fail))
    assert check.ok is ok
    assert (check.expectation, check.computed) == ("ValueError", f"{type(raised).__name__}: no")


def test_an_error_fails_its_section_and_the_report_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def entries() -> Iterator[Check]:
        yield Check("right", 1, 1)
        raise ZeroDivisionError("of the library")

    sections = {
        "broken": lambda backend: Section("One", "", entries()),
        "whole": lambda backend: Section("Two", "", [Check("also right", 2, 2)]),
    }
    monkeypatch.setattr(runner, "SECTIONS", sections)
    result = run_chapter4(tmp_path, backend="numpy")
    assert [check.ok for _, check in result.checks] == [True, False, True]
    assert "WRONG in broken: what follows “right”: ZeroDivisionError: of the library" in str(result)


def test_error_of_what_raises_none() -> None:
    assert error_of(lambda: 1) is None


@pytest.mark.parametrize(
    ("between", "text"),
    [(Between(low=0.95), "≥ 0.95"), (Between(high=2), "≤ 2"), (Between(1, 2), "1 to 2")],
)
def test_between_is_written_as_one_reads_it(between: Between, text: str) -> None:
    assert str(between) == text


def test_unknown_section_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="epilogue") as caught:
        run_chapter4(tmp_path, only="epilogue")
    assert caught.value.argument == "only"


def test_folder_that_cannot_be_written_is_refused_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def entries() -> Iterator[Check]:
        pytest.fail("the work has begun")
        yield

    monkeypatch.setattr(
        runner, "SECTIONS", {"only": lambda backend: Section("A title", "", entries())}
    )
    occupied = tmp_path / "file"
    occupied.write_text("")
    with pytest.raises(OSError, match="nothing can be written"):
        run_chapter4(occupied / "out", backend="numpy")


def test_folder_without_mnist_is_refused_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for only in (None, "training"):
        with pytest.raises(FileNotFoundError, match=r"data_dir is .*, which lacks train-images"):
            run_chapter4(tmp_path / "out", data_dir=tmp_path, only=only)
    assert not (tmp_path / "out").exists()
    monkeypatch.setenv("DLFS_GPU_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"DLFS_GPU_DATA is .*, which lacks train-images"):
        run_chapter4(tmp_path / "out")
    assert not (tmp_path / "out").exists()


class _Page(HTMLParser):
    """Collects the links and images of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.images: list[dict[str, str]] = []
        self.addresses: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {key: value or "" for key, value in attrs}
        self.addresses += [found[key] for key in ("src", "srcset", "href") if key in found]
        if tag == "img":
            self.images.append(found)


def _check_files(folder: Path, result: Report) -> None:
    document = json.loads(
        (folder / "report.json").read_text(encoding="utf-8"), parse_constant=pytest.fail
    )
    assert document["ok"] is result.ok
    assert len(document["checks"]) == len(result.checks)
    for check in document["checks"]:
        assert {"section", "name", "expected", "computed", "printed_in", "mistake"} <= set(check)
        assert check["ok"] is True

    assert "np.float64" not in (folder / "index.html").read_text(encoding="utf-8")
    page = _Page(folder / "index.html")
    assert all(address.startswith(("data:", "#")) for address in page.addresses)
    plots = [plot for section in result.sections.values() for plot in section.plots]
    for image, plot in zip(page.images, plots, strict=True):
        assert image["alt"]
        embedded = base64.b64decode(image["src"].removeprefix("data:image/png;base64,"))
        assert embedded == (folder / f"{plot.name}.png").read_bytes() == plot.light
        assert plot.dark.startswith(b"\x89PNG")
        assert plot.dark != plot.light
    names = {f"{plot.name}.png" for plot in plots}
    assert {path.name for path in folder.iterdir()} == {"index.html", "report.json", *names}


def _browse(page: Path, tmp_path: Path) -> tuple[int, int, str]:
    """Open a page 390 pixels wide; return what the browser makes of it.

    That is the width of its content, that of the first cell of its tables, and the console's lines.
    """
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("Chromium is not installed")
    # Windows are at least 500 pixels wide, frames are not.
    frame = page.parent / "frame.html"
    frame.write_text(
        f'<iframe width="390" height="800" style="border: 0" src="{page.name}" onload="'
        "const cell = this.contentDocument.querySelector('td'); "
        "document.title = this.contentDocument.documentElement.scrollWidth + ' ' + "
        '(cell ? cell.offsetWidth : 0)"></iframe>'
    )
    command = [
        chromium, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic",
        "--no-first-run", "--disable-background-networking", "--disable-component-update",
        "--disable-sync", "--allow-file-access-from-files", "--hide-scrollbars",
        "--enable-logging=stderr", f"--user-data-dir={tmp_path / 'profile'}",
        "--virtual-time-budget=10000", "--dump-dom", frame.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    width, cell = done.stdout.partition("<title>")[2].partition("<")[0].split()
    console = "\n".join(line for line in done.stderr.splitlines() if "CONSOLE" in line)
    return int(width), int(cell), console


@pytest.mark.parametrize("name", ["descent", "errata"])
def test_page_fits_a_phone_and_has_no_console_errors(tmp_path: Path, name: str) -> None:
    run_chapter4(tmp_path / "out", backend="numpy", only=name)
    width, first_cell, console = _browse(tmp_path / "out" / "index.html", tmp_path)
    assert (width, console) == (390, "")
    assert first_cell > 300, "names have a line of their own"


def test_browser_would_show_a_page_that_is_too_wide_or_broken(tmp_path: Path) -> None:
    page = tmp_path / "index.html"
    page.write_text('<p style="width: 600px">wide</p><script>nonsense()</script>')
    width, _, console = _browse(page, tmp_path)
    assert width > 600
    assert "nonsense is not defined" in console

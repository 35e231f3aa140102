"""Files: whole or not there, one set or none, and errors that name them."""

import errno
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dlfs_gpu.files import (
    open_regular,
    output_folder,
    remove_abandoned,
    whole_file,
    whole_results,
)

NAMES = ("a", "b", "c")
needs_fifo = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes here")
not_root = pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0, reason="permissions do not bind root"
)


def full() -> OSError:
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def contents(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


class TestOpenRegular:
    def test_reads(self, tmp_path: Path) -> None:
        (tmp_path / "a").write_bytes(b"abc")
        with open_regular(tmp_path / "a") as file:
            assert file.read() == b"abc"

    def test_missing_and_folder(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match="nowhere"):
            open_regular(tmp_path / "nowhere")
        with pytest.raises(IsADirectoryError, match=tmp_path.name):
            open_regular(str(tmp_path))

    @needs_fifo
    def test_what_may_have_no_end(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe")
        for path in (tmp_path / "pipe", Path("/dev/zero")):
            with pytest.raises(OSError, match="regular") as caught:
                open_regular(path)
            assert caught.value.filename == str(path)


class TestWholeFile:
    def test_replaces_at_the_end(self, tmp_path: Path) -> None:
        path = tmp_path / "a.txt"
        path.write_text("old")
        with whole_file(path) as part:
            part.write_text("new")
            assert path.read_text() == "old"
        assert contents(tmp_path) == {"a.txt": "new"}

    def test_permissions_are_those_of_any_new_file(self, tmp_path: Path) -> None:
        (tmp_path / "usual").touch()
        with whole_file(tmp_path / "a") as part:
            part.touch()
        modes = {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
        assert len(modes) == 1

    @pytest.mark.parametrize("error", [full(), OSError("encoder error -2"), ValueError("a defect")])
    def test_a_failure_leaves_nothing(self, tmp_path: Path, error: Exception) -> None:
        def fail() -> None:
            with whole_file(tmp_path / "a.txt") as part:
                part.write_text("half")
                raise error

        with pytest.raises(type(error)):
            fail()
        assert contents(tmp_path) == {}

    def test_an_error_keeps_its_number_and_names_the_file(self, tmp_path: Path) -> None:
        path = tmp_path / "a.txt"

        def fail(error: OSError) -> None:
            with whole_file(path):
                raise error

        with pytest.raises(OSError, match="No space left on device") as caught:
            fail(full())
        assert caught.value.errno == errno.ENOSPC
        assert caught.value.filename == str(path)
        with pytest.raises(OSError, match="encoder error") as caught:
            fail(OSError("encoder error -2"))
        assert caught.value.filename == str(path)
        other = OSError(errno.ENOENT, "No such file", "another")
        with pytest.raises(FileNotFoundError) as caught:
            fail(other)
        assert caught.value is other

    def test_a_folder_that_is_not_there(self, tmp_path: Path) -> None:
        path = tmp_path / "nowhere" / "a.txt"
        with pytest.raises(FileNotFoundError) as caught, whole_file(path) as part:
            part.touch()
        assert caught.value.filename == str(path)

    def test_a_path_without_a_name(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        with pytest.raises(OSError, match=r"'\.'"), whole_file("") as part:
            part.touch()
        assert contents(tmp_path) == {}

    def test_two_writers_do_not_meet(self, tmp_path: Path) -> None:
        path = tmp_path / "a.txt"
        with whole_file(path) as one, whole_file(path) as two:
            one.write_text("1" * 10)
            two.write_text("2" * 20)
        assert contents(tmp_path) == {"a.txt": "1" * 10}

    def test_files_of_the_user_are_left_alone(self, tmp_path: Path) -> None:
        (tmp_path / "a.txt.part").write_text("the user's")
        with whole_file(tmp_path / "a.txt") as part:
            part.write_text("new")
        assert contents(tmp_path) == {"a.txt": "new", "a.txt.part": "the user's"}

    def test_nothing_is_replaced_before_it_is_on_the_disk(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(descriptor: int) -> None:
            raise OSError(errno.EIO, "Input/output error")

        monkeypatch.setattr(os, "fsync", fail)
        path = tmp_path / "a.txt"
        path.write_text("old")
        with pytest.raises(OSError, match=r"a\.txt"), whole_file(path) as part:
            part.write_text("new")
        assert contents(tmp_path) == {"a.txt": "old"}


class TestWholeResults:
    def test_all_are_replaced(self, tmp_path: Path) -> None:
        for name in (*NAMES, "other"):
            (tmp_path / name).write_text("old")
        with whole_results(tmp_path, NAMES) as part:
            (part / "a").write_text("new")
            with whole_file(part / "c") as half:
                half.write_text("new")
        assert contents(tmp_path) == {"a": "new", "c": "new", "other": "old"}

    def test_a_failure_replaces_nothing(self, tmp_path: Path) -> None:
        for name in NAMES:
            (tmp_path / name).write_text("old")

        def fail() -> None:
            with whole_results(tmp_path, NAMES) as part:
                (part / "a").write_text("new")
                with whole_file(part / "b"):
                    raise full()

        with pytest.raises(OSError, match="No space left") as caught:
            fail()
        assert caught.value.errno == errno.ENOSPC
        assert caught.value.filename == str(tmp_path / "b")
        assert contents(tmp_path) == dict.fromkeys(NAMES, "old")

    def test_a_full_disk_names_the_folder(self, tmp_path: Path) -> None:
        with pytest.raises(OSError, match="No space left") as caught, whole_results(tmp_path, "a"):
            raise full()
        assert caught.value.filename == str(tmp_path)

    def test_a_folder_that_was_removed_is_made_again(self, tmp_path: Path) -> None:
        with whole_results(tmp_path / "out", NAMES) as part:
            (part / "a").write_text("new")
        assert contents(tmp_path / "out") == {"a": "new"}

    @pytest.mark.parametrize("done", [0, 1, 2])
    def test_where_the_last_one_is_all_are_of_one_run(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, done: int
    ) -> None:
        for name in NAMES:
            (tmp_path / name).write_text("old")
        replace, count = os.replace, 0

        def die(source: Any, target: Any) -> None:
            nonlocal count
            if count == done:
                raise KeyboardInterrupt
            count += 1
            replace(source, target)

        monkeypatch.setattr(os, "replace", die)

        def write() -> None:
            with whole_results(tmp_path, NAMES) as part:
                for name in NAMES:
                    (part / name).write_text("new")

        with pytest.raises(KeyboardInterrupt):
            write()
        assert "c" not in contents(tmp_path)

    def test_what_a_killed_run_left_is_removed(self, tmp_path: Path) -> None:
        script = (
            "import os, sys; from pathlib import Path; from dlfs_gpu.files import whole_results\n"
            "with whole_results(Path(sys.argv[1]), ['a']) as part:\n"
            "    (part / 'a').write_text('half'); os._exit(9)"
        )
        assert subprocess.run([sys.executable, "-c", script, str(tmp_path)]).returncode == 9
        (left,) = tmp_path.iterdir()
        assert left.is_dir()
        (tmp_path / "a").write_text("the user's")
        remove_abandoned(tmp_path)
        assert contents(tmp_path) == {"a": "the user's"}

    def test_a_file_that_another_command_writes_is_left_alone(self, tmp_path: Path) -> None:
        with whole_file(tmp_path / "a") as part:
            part.write_text("new")
            remove_abandoned(tmp_path)
        assert contents(tmp_path) == {"a": "new"}
        with whole_file(tmp_path / "a") as part:
            part.touch()
            os.utime(part, (0, 0))
            remove_abandoned(tmp_path)
            assert not part.exists()
            part.touch()

    def test_a_single_file_is_there_all_the_time(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "a").write_text("old")
        replace = os.replace

        def look(source: Any, target: Any) -> None:
            assert (tmp_path / "a").read_text() == "old"
            replace(source, target)

        monkeypatch.setattr(os, "replace", look)
        with whole_results(tmp_path, ["a"]) as part:
            (part / "a").write_text("new")
        assert contents(tmp_path) == {"a": "new"}


class TestOutputFolder:
    def test_is_made(self, tmp_path: Path) -> None:
        folder = output_folder(tmp_path / "a" / "b")
        assert folder.is_dir()
        assert list(output_folder(folder).iterdir()) == []

    def test_a_folder_in_the_way(self, tmp_path: Path) -> None:
        (tmp_path / "b").mkdir()
        with pytest.raises(IsADirectoryError, match=r"out is .*, where b is a folder"):
            output_folder(tmp_path, ("a", "b"))

    @pytest.mark.parametrize("below", ["", "folder"])
    def test_a_file_in_the_way(self, tmp_path: Path, below: str) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(OSError, match=r"out is .* nothing can be written") as caught:
            output_folder(tmp_path / "file" / below)
        assert caught.value.errno in (errno.EEXIST, errno.ENOTDIR)

    @not_root
    def test_no_permission(self, tmp_path: Path) -> None:
        tmp_path.chmod(0o500)
        with pytest.raises(PermissionError, match="nothing can be written"):
            output_folder(tmp_path / "below")

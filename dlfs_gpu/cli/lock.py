"""One run at a time in a folder."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path

from dlfs_gpu.cli.errors import echo_error


class FolderLock:
    """Keeps other runs out of a folder inside a ``with`` block.

    The system lets go of it when the process ends, in whatever way. Where it cannot lock, as on
    some network drives, that is said, and nobody is kept out.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._descriptor: int | None = None

    def __enter__(self) -> FolderLock:
        self.take()
        return self

    def __exit__(self, *error: object) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def take(self) -> None:
        """Keep others out; of the folder that is there now, or is made, if the first is gone.

        Raises
        ------
        BlockingIOError
            If another run is in it.
        OSError
            If it cannot be made.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        if self._descriptor is not None and _is_still(self._descriptor, self.folder):
            return
        self.__exit__()
        try:
            self._descriptor = _locked(self.folder)
        except (BlockingIOError, FileExistsError):
            raise BlockingIOError(f"another run is at work in {self.folder}") from None
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            echo_error(f"{self.folder} cannot be locked: a second run in it is not noticed")


# As network drives say it.
_NO_LOCKS = (errno.EBADF, errno.EINVAL, errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP)

if sys.platform == "win32":

    def _locked(folder: Path) -> int:
        # Only its owner can open this file, and it is gone when its owner is.
        flags = os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_TEMPORARY | os.O_NOINHERIT
        return os.open(folder / ".dlfs_gpu-lock", flags)

    def _is_still(descriptor: int, folder: Path) -> bool:
        return True  # A folder with an open file cannot be removed.

else:
    import fcntl

    def _locked(folder: Path) -> int:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            raise
        return descriptor

    def _is_still(descriptor: int, folder: Path) -> bool:
        return os.path.samestat(os.fstat(descriptor), os.stat(folder))

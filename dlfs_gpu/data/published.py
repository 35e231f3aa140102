"""The two published sets: found or downloaded, and checked against their digests."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from dlfs_gpu.data.idx import Pair, parse_pair, unpack

DATA_VARIABLE = "DLFS_GPU_DATA"

_FILES = (
    "train-images-idx3-ubyte.gz",
    "train-labels-idx1-ubyte.gz",
    "t10k-images-idx3-ubyte.gz",
    "t10k-labels-idx1-ubyte.gz",
)


@dataclass(frozen=True)
class _Source:
    """Where a published set comes from; the digests of its files, in the order of `_FILES`."""

    title: str
    mirrors: tuple[str, ...]
    sha256: tuple[str, ...]
    unpacked_md5: tuple[str, ...] | None


_SOURCES = {
    "mnist": _Source(
        "MNIST",
        (
            "https://ossci-datasets.s3.amazonaws.com/mnist/",
            "https://storage.googleapis.com/cvdf-datasets/mnist/",
        ),
        (
            "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
            "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
            "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
            "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
        ),
        (
            "6bbc9ace898e44ae57da46a324031adb",
            "a25bea736e30d166cdddb491f175f624",
            "2646ac647ad5339dbf082846283269ea",
            "27ae3e4e09519cfbb04c329615203637",
        ),
    ),
    "fashion-mnist": _Source(
        "Fashion-MNIST",
        (
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
            "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
        ),
        (
            "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
            "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
            "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
            "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
        ),
        None,
    ),
}


def load_published(name: str, data_dir: str | os.PathLike[str] | None) -> tuple[Pair, Pair]:
    """Read a published set, to train and to test, from wherever it is or can be had.

    Parameters
    ----------
    name : {"mnist", "fashion-mnist"}
        The set.
    data_dir : path or None
        The folder that must hold it; `dlfs_gpu.load_mnist` says where else it is looked
        for, and what is raised.
    """
    if data_dir is None and (named := os.environ.get(DATA_VARIABLE)):
        try:
            return _read(name, _find(name, DATA_VARIABLE, named))
        except ValueError as error:
            raise ValueError(f"{DATA_VARIABLE} is {named}: {error}") from error
    if data_dir is not None:
        return _read(name, _find(name, "data_dir", data_dir))
    return _read(name, [_download(name, index) for index in range(len(_FILES))])


def cache_folder(name: str) -> Path:
    """Return the folder that a published set is downloaded to, whether it is there or not."""
    import pooch

    return Path(pooch.os_cache("dlfs_gpu")) / name


def _find(name: str, argument: str, data_dir: str | os.PathLike[str]) -> list[Path]:
    """Return the paths of the four files in a folder, which the error calls by `argument`."""
    folder = Path(data_dir).expanduser()
    # The packed name comes last, and so wins where both are there.
    found = {
        file: path
        for file in _FILES
        for path in (folder / file.removesuffix(".gz"), folder / file)
        if path.is_file()
    }
    if len(found) < len(_FILES):
        lacking = ", ".join(file for file in _FILES if file not in found)
        raise FileNotFoundError(
            f"{argument} is {folder}, which "
            + (f"lacks {lacking}" if folder.is_dir() else "is no folder")
            + f"; it must hold all four files of {_SOURCES[name].title}"
            + (", or be unset to have them downloaded" if argument == DATA_VARIABLE else "")
        )
    return list(found.values())


def _read(name: str, paths: list[Path]) -> tuple[Pair, Pair]:
    source = _SOURCES[name]
    contents = [_checked_content(source, index, path) for index, path in enumerate(paths)]
    train, test = (parse_pair(paths[i], contents[i], paths[i + 1], contents[i + 1]) for i in (0, 2))
    for path, (_, t) in ((paths[1], train), (paths[3], test)):
        if t.max() > 9:
            raise ValueError(f"{path} holds a label {t.max()}; labels must lie between 0 and 9")
    return train, test


def _download(name: str, index: int) -> Path:
    """Return the path of a file in the user's cache, where pooch puts it once it is checked."""
    import pooch

    source, file = _SOURCES[name], _FILES[index]
    folder = cache_folder(name)
    causes = []
    for mirror in source.mirrors:
        try:
            pooch.retrieve(mirror + file, source.sha256[index], file, folder, progressbar=True)
        except (OSError, ValueError) as error:
            causes.append(f"  {mirror}: {type(error).__name__}: {error}")
        else:
            return folder / file
    raise ConnectionError(
        "\n".join(
            [
                f"{source.title} is not here, and {file} cannot be downloaded:",
                *causes,
                f"Put {', '.join(_FILES)} into {folder}, or into a folder named by data_dir "
                f"(--data-dir) or {DATA_VARIABLE}. The embedded digits need no network: "
                "load_digits(), --data digits.",
            ]
        )
    )


def _checked_content(source: _Source, index: int, path: Path) -> bytes:
    """Return the unpacked content of a file, once a published digest has vouched for it."""
    data = path.read_bytes()
    found, expected = hashlib.sha256(data).hexdigest(), source.sha256[index]
    if found == expected:
        return unpack(path, data)
    for other in _SOURCES.values():
        if found == other.sha256[index]:
            raise ValueError(
                f"{path} is {other.title}'s, not {source.title}'s; name the folder of "
                f"{source.title} with data_dir (--data-dir), or unset {DATA_VARIABLE} to have it "
                "downloaded"
            )
    digest = "SHA-256"
    if source.unpacked_md5 is not None:
        content = unpack(path, data)
        digest = "MD5 of its unpacked content"
        found = hashlib.md5(content, usedforsecurity=False).hexdigest()
        expected = source.unpacked_md5[index]
        if found == expected:
            return content
    elif path.suffix != ".gz":
        raise ValueError(
            f"{path} is unpacked, and {source.title} can be checked only as the packed "
            f"{_FILES[index]}; load_idx(images, labels) reads files without that check"
        )
    raise ValueError(
        f"{path} is not {source.title}'s {_FILES[index]}: the {digest} is {found}, "
        f"and must be {expected}"
    )

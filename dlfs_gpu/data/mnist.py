"""MNIST and Fashion-MNIST: found or downloaded, checked against their digests, and read."""

from __future__ import annotations

import hashlib
import os
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dlfs_gpu._validation import Array, DataError
from dlfs_gpu.backend import Backend, get_backend
from dlfs_gpu.data.idx import load_idx
from dlfs_gpu.data.splits import Splits, to_backend
from dlfs_gpu.files import open_regular

DATA_VARIABLE = "DLFS_GPU_DATA"

# What a mirror may take for one file; the largest has 26 MB.
_LARGEST = 2**25  # bytes
_LONGEST = 600  # seconds

_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


@dataclass(frozen=True)
class _Published:
    """A published set, and the SHA-256 of its files; nobody has any of Fashion-MNIST's unpacked."""

    title: str
    mirrors: tuple[str, ...]
    sha256: dict[str, str]


_MNIST = _Published(
    "MNIST",
    (
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
    ),
    {
        f"{_FILES[0]}.gz": "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
        f"{_FILES[1]}.gz": "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
        f"{_FILES[2]}.gz": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
        f"{_FILES[3]}.gz": "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
        _FILES[0]: "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        _FILES[1]: "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        _FILES[2]: "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        _FILES[3]: "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    },
)

_FASHION_MNIST = _Published(
    "Fashion-MNIST",
    (
        "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
        "https://storage.googleapis.com/tensorflow/tf-keras-datasets/",
    ),
    {
        f"{_FILES[0]}.gz": "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
        f"{_FILES[1]}.gz": "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
        f"{_FILES[2]}.gz": "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
        f"{_FILES[3]}.gz": "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
    },
)


def load_mnist(
    normalize: bool = True,
    flatten: bool = True,
    one_hot_label: bool = False,
    *,
    data_dir: str | os.PathLike[str] | None = None,
    backend: str | Backend | None = None,
) -> Splits:
    """Load MNIST: 60,000 and 10,000 handwritten digits of 28 by 28 pixels [1]_.

    The four files, packed (.gz) or not, are taken from `data_dir`, or else from the folder named
    by the environment variable ``DLFS_GPU_DATA``; where neither is given, they are downloaded
    once to the user's cache folder. Wherever they come from, they are checked against the
    digests of the published ones before they are used.

    Parameters
    ----------
    normalize : bool, optional
        Give pixels as float32 between 0 and 1; otherwise as uint8 between 0 and 255.
    flatten : bool, optional
        Give images of shape (N, 784); otherwise (N, 1, 28, 28).
    one_hot_label : bool, optional
        Give labels as float32 of shape (N, 10); otherwise as int64 of shape (N,).
    data_dir : path, optional
        The folder that holds the four files.
    backend : str or Backend, optional
        Where to put the arrays, as for `dlfs_gpu.get_backend`.

    Returns
    -------
    (x_train, t_train), (x_test, t_test)

    Raises
    ------
    FileNotFoundError
        If the folder lacks some of the files.
    ConnectionError
        If no mirror gave a file; the message says which files to put where.
    OSError
        If a file cannot be read, or a downloaded one not be written.
    DataError
        If a file is not the published one; the message names it, and the digest found and the
        one expected.

    References
    ----------
    .. [1] Y. LeCun, L. Bottou, Y. Bengio, P. Haffner, "Gradient-Based Learning Applied to
       Document Recognition", Proceedings of the IEEE 86(11), 1998,
       https://doi.org/10.1109/5.726791
    """
    return _load(_MNIST, normalize, flatten, one_hot_label, data_dir, backend)


def load_fashion_mnist(
    normalize: bool = True,
    flatten: bool = True,
    one_hot_label: bool = False,
    *,
    data_dir: str | os.PathLike[str] | None = None,
    backend: str | Backend | None = None,
) -> Splits:
    """Load Fashion-MNIST: ten kinds of clothes in the layout of MNIST [1]_.

    The files are found, the arguments understood and the errors raised as by `load_mnist`, but
    local files must be packed: no digests of unpacked ones are known.

    References
    ----------
    .. [1] H. Xiao, K. Rasul, R. Vollgraf, "Fashion-MNIST: a Novel Image Dataset for Benchmarking
       Machine Learning Algorithms", 2017, https://arxiv.org/abs/1708.07747
    """
    return _load(_FASHION_MNIST, normalize, flatten, one_hot_label, data_dir, backend)


def cache_folder(name: str) -> Path:
    """Return the folder that "mnist" or "fashion-mnist" is downloaded to, be it there or not."""
    import pooch

    return Path(pooch.os_cache("dlfs_gpu")) / name


def _load(
    published: _Published,
    normalize: bool,
    flatten: bool,
    one_hot_label: bool,
    data_dir: str | os.PathLike[str] | None,
    backend: str | Backend | None,
) -> Splits:
    chosen = get_backend(backend)
    if data_dir is not None:
        paths = _find(published, "data_dir", Path(data_dir))
    elif named := os.environ.get(DATA_VARIABLE):
        paths = _find(published, DATA_VARIABLE, Path(named))
    else:
        paths = [_download(published, f"{file}.gz") for file in _FILES]

    def arrange(x: NDArray[np.uint8], t: NDArray[np.int64]) -> tuple[Array, Array]:
        shaped = x.reshape(len(x), -1) if flatten else x[:, np.newaxis]
        pixels = shaped / np.float32(255) if normalize else shaped
        return to_backend(chosen, pixels, t, 10, one_hot_label)

    return arrange(*load_idx(paths[0], paths[1])), arrange(*load_idx(paths[2], paths[3]))


def _find(published: _Published, argument: str, data_dir: Path) -> list[Path]:
    """Return the paths of the four files in a folder that `argument` names, once checked."""
    folder = data_dir.expanduser()
    # The packed file comes last, and so wins where both are there.
    found = {
        file: folder / name
        for file in _FILES
        for name in (file, f"{file}.gz")
        if name in published.sha256 and (folder / name).is_file()
    }
    if len(found) < len(_FILES):
        lacking = ", ".join(f"{file}.gz" for file in _FILES if file not in found)
        raise FileNotFoundError(
            f"{argument} is {folder}, which lacks {lacking}; it must be a folder of the four files "
            f"of {published.title}"
        )
    for path in found.values():
        with open_regular(path) as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        expected = published.sha256[path.name]
        if digest != expected:
            raise DataError(
                f"{path} is not {published.title}'s: its SHA-256 is {digest}; it must be {expected}"
            )
    return list(found.values())


def _download(published: _Published, file: str) -> Path:
    """Return the path of a file in the user's cache, where pooch puts it once it is checked."""
    import pooch
    import requests
    import urllib3

    folder = cache_folder(published.title.lower())
    causes = []
    for mirror in published.mirrors:
        url = mirror + file
        try:
            return Path(
                pooch.retrieve(url, published.sha256[file], file, folder, downloader=_fetch)
            )
        except (requests.RequestException, urllib3.exceptions.HTTPError, ValueError) as error:
            causes.append(f"  {mirror}: {type(error).__name__}: {error}\n")
    raise ConnectionError(
        f"{folder / file} is not there, or is damaged, and cannot be downloaded:\n"
        f"{''.join(causes)}Put {', '.join(f'{name}.gz' for name in _FILES)} into {folder}, or into "
        f"a folder named by data_dir or {DATA_VARIABLE}. The embedded digits need no network."
    )


def _fetch(url: str, path: str, _: object) -> None:
    """Download a file for pooch; ValueError if it is larger, or takes longer, than any may."""
    import requests
    from tqdm import tqdm

    end = time.monotonic() + _LONGEST
    with requests.get(url, stream=True, timeout=30) as response, open(path, "wb") as file:
        response.raise_for_status()
        size = response.headers.get("Content-Length", "")
        total = int(size) if size.isdecimal() else None
        with tqdm(total=total, unit="B", unit_scale=True, desc=os.path.basename(url)) as bar:
            # What has come so far: of a mirror that sends a byte a minute, read waits for a block.
            while block := response.raw.read1(2**20):
                file.write(block)
                bar.update(len(block))
                if file.tell() > _LARGEST or time.monotonic() > end:
                    raise ValueError(
                        f"more than {_LARGEST / 2**20:g} MiB, or not done in {_LONGEST:g} s"
                    )

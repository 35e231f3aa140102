"""The choice of backend, moving arrays, namespaces, and work in chunks."""

import copy
import importlib.machinery
import os
import pickle
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import array_api_strict
import numpy as np
import pytest
from errors import refused
from hypothesis import given
from hypothesis import strategies as st
from libraries import Library

from dlfs_gpu import backend as module
from dlfs_gpu._validation import array_namespace, namespace_of
from dlfs_gpu.backend import (
    Backend,
    BackendError,
    get_backend,
    memory_budget,
    run_in_chunks,
    use_backend,
)


class FakePool:
    """A memory pool with 7 bytes cached and 20 in use."""

    def __init__(self) -> None:
        self.limit = 0
        self.times_freed = 0

    def free_bytes(self) -> int:
        return 7

    def used_bytes(self) -> int:
        return 20

    def get_limit(self) -> int:
        return self.limit

    def free_all_blocks(self) -> None:
        self.times_freed += 1


class FakeCupy(ModuleType):
    """What the backend uses of CuPy, on the host; `ran` says what it was asked to run."""

    def __init__(self) -> None:
        super().__init__("cupy")
        self.__spec__ = importlib.machinery.ModuleSpec("cupy", None)
        self.ran: list[str] = []
        self.pool = FakePool()
        ran = self.ran

        class ndarray:  # noqa: N801
            __module__ = "cupy"

            def __init__(self, host: np.ndarray) -> None:
                self.host = host

            def __matmul__(self, other: "ndarray") -> "ndarray":
                ran.append("matmul")
                return ndarray(self.host @ other.host)

            def get(self) -> np.ndarray:
                return self.host

        class OutOfMemoryError(MemoryError):
            __module__ = "cupy.cuda.memory"

        self.ndarray = ndarray
        self.out_of_memory = OutOfMemoryError
        self.cuda = SimpleNamespace(
            runtime=SimpleNamespace(
                getDeviceCount=lambda: ran.append("count"),
                getDeviceProperties=lambda device: {
                    "name": b"Fake GPU",
                    "totalGlobalMem": 8 * 2**30,
                },
            ),
            Device=lambda: SimpleNamespace(id=0, mem_info=(100, 200)),
            get_current_stream=lambda: SimpleNamespace(synchronize=lambda: ran.append("wait")),
        )

    def asarray(self, x: Any, dtype: Any = None) -> Any:
        return self.ndarray(np.asarray(x, dtype))

    def exp(self, x: Any) -> Any:
        self.ran.append("exp")
        return self.ndarray(np.exp(x.host))

    def get_default_memory_pool(self) -> FakePool:
        return self.pool


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """No choice made by the environment, and the GPU not yet tried, before and after."""
    monkeypatch.delenv("DLFS_GPU_BACKEND", raising=False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    module._probe_gpu.cache_clear()
    yield monkeypatch
    module._probe_gpu.cache_clear()


@pytest.fixture
def cupy(fresh: pytest.MonkeyPatch) -> FakeCupy:
    fake = FakeCupy()
    fresh.setitem(sys.modules, "cupy", fake)
    fresh.setitem(sys.modules, "array_api_compat.cupy", fake)
    return fake


@pytest.fixture
def no_cupy(fresh: pytest.MonkeyPatch) -> None:
    fresh.setitem(sys.modules, "cupy", None)


def elsewhere(device: str) -> Backend:
    """A backend that can be told from others by its device."""
    return Backend("numpy", device, "made by a test")


@pytest.mark.usefixtures("no_cupy")
class TestChoice:
    def test_order(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert "nothing asked for" in get_backend().reason
        monkeypatch.setenv("DLFS_GPU_BACKEND", "")
        assert "nothing asked for" in get_backend().reason
        monkeypatch.setenv("DLFS_GPU_BACKEND", "numpy")
        assert get_backend().reason == "DLFS_GPU_BACKEND=numpy"
        with use_backend(elsewhere("scope")):
            assert get_backend().device == "scope"
            assert get_backend(elsewhere("argument")).device == "argument"
            assert get_backend("numpy").reason == "'numpy' was asked for"

    def test_scopes_nest_and_end(self) -> None:
        with use_backend(elsewhere("outer")) as outer:
            assert get_backend() is outer
            with use_backend(elsewhere("inner")) as inner:
                assert get_backend() is inner
            assert get_backend() is outer
        assert get_backend().reason.startswith("nothing asked for")

    def test_scope_ends_with_an_exception(self) -> None:
        with use_backend(elsewhere("outer")) as outer:
            with pytest.raises(ZeroDivisionError), use_backend(elsewhere("inner")):
                _ = 1 / 0
            with refused("backend"), use_backend("nupmy"):
                pass
            assert get_backend() is outer

    def test_threads_have_their_own(self) -> None:
        together = threading.Barrier(2, timeout=10)

        def work(name: str) -> list[str]:
            seen = [get_backend().device]
            with use_backend(elsewhere(name)):
                together.wait()
                seen.append(get_backend().device)
                together.wait()
            return [*seen, get_backend().device]

        with use_backend(elsewhere("main")), ThreadPoolExecutor(2) as pool:
            host = get_backend("numpy").device
            assert list(pool.map(work, ["a", "b"])) == [[host, "a", host], [host, "b", host]]
            assert get_backend().device == "main"

    @pytest.mark.parametrize("name", ["nupmy", "", "cuda", 3])
    def test_unknown_name(self, name: Any) -> None:
        with refused("backend"):
            get_backend(name)

    def test_names_in_any_case(self) -> None:
        assert get_backend("NumPy").name == "numpy"

    def test_unknown_name_in_the_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("DLFS_GPU_BACKEND", "gpu")
        with refused("DLFS_GPU_BACKEND"):
            get_backend()


class TestGpuThatWorks:
    @pytest.mark.parametrize(
        ("name", "asked"), [(None, "nothing"), ("auto", "'auto'"), ("cupy", "'cupy'")]
    )
    def test_is_taken(self, cupy: FakeCupy, name: str | None, asked: str) -> None:
        backend = get_backend(name)
        assert backend.name == "cupy"
        assert backend.device == "Fake GPU, 8 GiB"
        assert backend.reason.startswith(asked)
        assert backend.reason.endswith("; a kernel and a matrix product ran on the GPU")
        assert cupy.ran == ["count", "exp", "matmul"]

    def test_is_tried_once(self, cupy: FakeCupy) -> None:
        for name in ("auto", "cupy", None):
            get_backend(name)
        assert cupy.ran.count("count") == 1

    def test_is_not_tried_for_numpy(self, cupy: FakeCupy) -> None:
        assert get_backend("numpy").name == "numpy"
        assert cupy.ran == []

    def test_memory_and_stream(self, cupy: FakeCupy) -> None:
        backend = get_backend("cupy")
        x = backend.asarray([1.0])
        assert backend.free_memory() == 100 + 7
        assert memory_budget(x, None) == 53
        cupy.pool.limit = 50
        assert backend.free_memory() == 50 - 20
        backend.synchronize()
        assert cupy.ran[-1] == "wait"


def not_installed(cupy: FakeCupy, patch: pytest.MonkeyPatch, folder: Path) -> None:
    patch.setitem(sys.modules, "cupy", None)


def import_fails(cupy: FakeCupy, patch: pytest.MonkeyPatch, folder: Path) -> None:
    (folder / "cupy.py").write_text("raise ImportError('libcudart.so.13: no such file')\n")
    patch.delitem(sys.modules, "cupy")
    patch.syspath_prepend(str(folder))


def hidden(cupy: FakeCupy, patch: pytest.MonkeyPatch, folder: Path) -> None:
    patch.setenv("CUDA_VISIBLE_DEVICES", "")


def hidden_by_minus_one(cupy: FakeCupy, patch: pytest.MonkeyPatch, folder: Path) -> None:
    patch.setenv("CUDA_VISIBLE_DEVICES", "-1")


def no_driver(cupy: FakeCupy, patch: pytest.MonkeyPatch, folder: Path) -> None:
    def count() -> int:
        raise RuntimeError("cudaErrorInsufficientDriver: too old\nmore")

    cupy.cuda.runtime.getDeviceCount = count


def no_compiler(cupy: FakeCupy, patch: pytest.MonkeyPatch, folder: Path) -> None:
    def exp(x: Any) -> Any:
        raise OSError("libnvrtc.so.13: cannot open shared object file")

    patch.setattr(cupy, "exp", exp)


def wrong_numbers(cupy: FakeCupy, patch: pytest.MonkeyPatch, folder: Path) -> None:
    patch.setattr(cupy, "exp", lambda x: x)


@pytest.mark.parametrize(
    ("spoil", "cause", "remedy", "original"),
    [
        (not_installed, "CuPy is not installed", 'pip install "cupy-cuda13x[ctk]"', None),
        (
            import_fails,
            "cannot be imported (ImportError: libcudart.so.13: no such file)",
            "exactly one cupy package",
            ImportError,
        ),
        (hidden, "CUDA_VISIBLE_DEVICES hides every GPU", "Unset CUDA_VISIBLE_DEVICES", None),
        (hidden_by_minus_one, "CUDA_VISIBLE_DEVICES hides every GPU", "Unset", None),
        (
            no_driver,
            "no GPU was found (RuntimeError: cudaErrorInsufficientDriver: too old)",
            "Install the NVIDIA driver",
            RuntimeError,
        ),
        (
            no_compiler,
            "nothing runs on it (OSError: libnvrtc.so.13: cannot open shared object file)",
            'pip install "cupy-cuda13x[ctk]"',
            OSError,
        ),
        (wrong_numbers, "ArithmeticError: exp(x) @ x gave [[2.0, 3.0]", "[ctk]", ArithmeticError),
    ],
)
class TestGpuThatFails:
    def test_forced(
        self,
        spoil: Callable[..., None],
        cause: str,
        remedy: str,
        original: type[Exception] | None,
        cupy: FakeCupy,
        fresh: pytest.MonkeyPatch,
        tmp_path: Path,
    ) -> None:
        spoil(cupy, fresh, tmp_path)
        with pytest.raises(BackendError) as caught:
            get_backend("cupy")
        message = str(caught.value)
        assert message.startswith("backend asks for 'cupy', which cannot run here: ")
        assert cause in message
        assert remedy in message
        assert isinstance(caught.value.__cause__, original or type(None))
        fresh.setenv("DLFS_GPU_BACKEND", "cupy")
        with pytest.raises(BackendError, match="DLFS_GPU_BACKEND asks for 'cupy'"):
            get_backend()

    def test_auto_falls_back(
        self,
        spoil: Callable[..., None],
        cause: str,
        remedy: str,
        original: type[Exception] | None,
        cupy: FakeCupy,
        fresh: pytest.MonkeyPatch,
        tmp_path: Path,
    ) -> None:
        spoil(cupy, fresh, tmp_path)
        backend = get_backend("auto")
        assert backend.name == "numpy"
        assert backend.xp is np
        assert backend.reason.startswith("'auto' was asked for; ")
        assert cause in backend.reason


@pytest.fixture(params=["numpy", "cupy"])
def backend(request: pytest.FixtureRequest) -> Backend:
    try:
        return get_backend(request.param)
    except BackendError as error:
        pytest.skip(str(error).splitlines()[0])


class TestCopies:
    def test_of_a_backend(self, backend: Backend) -> None:
        for again in (copy.deepcopy(backend), pickle.loads(pickle.dumps(backend))):
            assert again == backend
            assert again.xp is backend.xp
            again.asarray([1.0])


class TestArrays:
    @pytest.mark.parametrize("dtype", [None, "float32", np.float64, np.dtype("int64")])
    def test_there_and_back(self, backend: Backend, dtype: Any) -> None:
        x = backend.asarray([[1, 2], [3, 4]], dtype)
        assert namespace_of(x) is backend.xp
        np.testing.assert_array_equal(
            backend.to_numpy(x), np.array([[1, 2], [3, 4]], dtype), strict=True
        )
        assert backend.asarray(x) is x
        backend.synchronize()

    def test_free_memory(self, backend: Backend) -> None:
        before = backend.free_memory()
        assert before > 0
        if backend.name == "numpy" and hasattr(os, "sysconf"):
            assert before <= os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")

    def test_device_arrays_do_not_reach_the_host_by_themselves(self, cupy: FakeCupy) -> None:
        x = get_backend("cupy").asarray([1.0, 2.0])
        with pytest.raises(TypeError, match=r"x is a cupy.ndarray: .* cupy.asnumpy\(x\)"):
            get_backend("numpy").asarray(x)
        np.testing.assert_array_equal(get_backend("numpy").to_numpy(x), [1, 2])


class TestNamespace:
    def test_of_arrays(self, lib: Library) -> None:
        x, y = lib.asarray([1.0]), lib.asarray([1])
        assert namespace_of(x) is lib.xp
        assert array_namespace(x=x, y=y) is lib.xp

    def test_of_numpy_scalars(self) -> None:
        assert array_namespace(x=np.float32(1), y=np.ones(2)) is np

    def test_mixed(self) -> None:
        arrays = {"x": np.ones(2), "W1": array_api_strict.ones(2)}
        message = (
            r"x is a numpy.ndarray and W1 is a array_api_strict.Array: .*"
            r"get_backend\(\).asarray\(...\) .* get_backend\(\).to_numpy\(...\)"
        )
        with pytest.raises(TypeError, match=message):
            array_namespace(**arrays)
        with pytest.raises(TypeError, match=r"W1 is a array_api_strict.Array and x is a numpy"):
            array_namespace(**dict(reversed(arrays.items())))

    def test_mixed_with_the_gpu(self, cupy: FakeCupy) -> None:
        with pytest.raises(TypeError, match=r"x is a numpy.ndarray and t is a cupy.ndarray"):
            array_namespace(x=np.ones(2), y=np.ones(2), t=get_backend("cupy").asarray([1]))

    @pytest.mark.parametrize("value", [[1, 2], None, "text", 1.5])
    def test_not_an_array(self, value: Any) -> None:
        with pytest.raises(
            TypeError, match=f"t must be an array, not builtins.{type(value).__name__}"
        ):
            array_namespace(x=array_api_strict.ones(2), t=value)


class TestMemoryBudget:
    def test_given_or_default(self) -> None:
        assert memory_budget(np.ones(1), None) == 256 * 2**20
        assert memory_budget(np.ones(1), 1000) == 1000
        assert type(memory_budget(np.ones(1), np.int64(5))) is int  # type: ignore[arg-type]

    @pytest.mark.parametrize("value", [0, -1, 1e9, "1GB", True])
    def test_refused(self, value: Any) -> None:
        with refused("max_memory"):
            memory_budget(np.ones(1), value)


class TestRunInChunks:
    @given(total=st.integers(0, 60), chunk=st.integers(1, 70), room=st.integers(1, 70))
    def test_each_item_is_done_once_and_in_order(self, total: int, chunk: int, room: int) -> None:
        done: list[int] = []

        def run(start: int, stop: int) -> None:
            if stop - start > room:
                raise MemoryError
            assert stop - start <= chunk
            done.extend(range(start, stop))

        run_in_chunks(run, total, chunk)
        assert done == list(range(total))

    def test_a_smaller_chunk_is_kept(self) -> None:
        asked: list[tuple[int, int]] = []

        def run(start: int, stop: int) -> None:
            asked.append((start, stop))
            if stop - start > 3:
                raise MemoryError

        run_in_chunks(run, 6, 8)
        assert asked == [(0, 6), (0, 3), (3, 6)]

    def test_one_item_without_room(self) -> None:
        asked: list[int] = []

        def run(start: int, stop: int) -> None:
            asked.append(stop - start)
            raise MemoryError("no room at all")

        with pytest.raises(MemoryError, match="no room at all"):
            run_in_chunks(run, 100, 9)
        assert asked == [9, 4, 2, 1]

    def test_other_errors_pass(self) -> None:
        def run(start: int, stop: int) -> None:
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            run_in_chunks(run, 100, 9)

    def test_a_failed_chunk_is_released_before_the_next_try(self) -> None:
        held: list[weakref.ref[np.ndarray]] = []

        def run(start: int, stop: int) -> None:
            assert all(reference() is None for reference in held)
            work = np.ones(stop - start)
            held.append(weakref.ref(work))
            if stop - start > 1:
                raise MemoryError

        run_in_chunks(run, 5, 4)
        assert len(held) == 2 + 5

    def test_only_the_gpu_has_a_pool_to_free(self, cupy: FakeCupy) -> None:
        errors = [cupy.out_of_memory(), MemoryError()]

        def run(start: int, stop: int) -> None:
            if errors:
                raise errors.pop()

        run_in_chunks(run, 8, 8)
        assert errors == []
        assert cupy.pool.times_freed == 1

    def test_progress(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        import tqdm

        updates: list[float] = []

        class Bar(tqdm.tqdm):  # type: ignore[misc]
            def update(self, n: float = 1) -> bool | None:
                updates.append(n)
                return super().update(n)  # type: ignore[no-any-return]

        monkeypatch.setattr(tqdm, "tqdm", Bar)
        run_in_chunks(lambda start, stop: None, 10, 4, "some work")
        assert updates == [4, 4, 2]
        assert "some work" in capsys.readouterr().err
        run_in_chunks(lambda start, stop: None, 10, 4)
        assert capsys.readouterr().err == ""

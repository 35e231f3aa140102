"""Minibatches: which samples come next."""

from functools import partial
from typing import Any

import numpy as np
import pytest

from dlfs_gpu import ArgumentError
from dlfs_gpu.data import MinibatchSampler


@pytest.mark.parametrize("replacement", [True, False])
class TestMinibatchSampler:
    def test_form_and_range(self, replacement: bool) -> None:
        indices = MinibatchSampler(7, 3, seed=0, replacement=replacement).draw(50)
        assert indices.shape == (50, 3)
        assert indices.dtype == np.int64
        assert set(indices.flat) == set(range(7))

    @pytest.mark.parametrize(("size", "mini_batch_size"), [(7, 3), (7, 7), (60000, 101), (5, 1)])
    def test_calls_may_be_cut_anywhere(
        self, size: int, mini_batch_size: int, replacement: bool
    ) -> None:
        make = partial(MinibatchSampler, size, mini_batch_size, seed=3, replacement=replacement)
        one, two = make(), make()
        cut = np.concatenate([one.draw(count) for count in (1, 2, 1, 5, 3)])
        np.testing.assert_array_equal(cut, two.draw(12))

    def test_seeds(self, replacement: bool) -> None:
        draws = [
            MinibatchSampler(1000, 10, seed=seed, replacement=replacement).draw(3).tolist()
            for seed in (0, 0, 1, None, None)
        ]
        assert draws[0] == draws[1]
        assert draws[0] != draws[2]
        assert draws[3] != draws[4]

    @pytest.mark.parametrize(
        ("size", "mini_batch_size", "argument"),
        [
            (0, 1, "size"),
            (-5, 1, "size"),
            (5.0, 1, "size"),
            (5, 0, "mini_batch_size"),
            (5, True, "mini_batch_size"),
            (5, 6, "mini_batch_size"),
        ],
    )
    def test_refused(
        self, size: Any, mini_batch_size: Any, argument: str, replacement: bool
    ) -> None:
        with pytest.raises(ArgumentError) as caught:
            MinibatchSampler(size, mini_batch_size, replacement=replacement)
        assert caught.value.argument == argument

    @pytest.mark.parametrize("count", [0, True, 2.0])
    def test_count_refused(self, count: Any, replacement: bool) -> None:
        with pytest.raises(ArgumentError) as caught:
            MinibatchSampler(5, 2, replacement=replacement).draw(count)
        assert caught.value.argument == "count"


@pytest.mark.parametrize(("size", "mini_batch_size"), [(10, 5), (10, 3), (7, 7), (9, 2)])
def test_without_replacement_each_run_holds_every_sample_once(
    size: int, mini_batch_size: int
) -> None:
    sampler = MinibatchSampler(size, mini_batch_size, seed=1, replacement=False)
    stream = np.concatenate([sampler.draw(count).ravel() for count in (1, 4, 2, size)])
    runs = stream[: len(stream) // size * size].reshape(-1, size)
    np.testing.assert_array_equal(np.sort(runs), np.tile(np.arange(size), (len(runs), 1)))
    assert len(np.unique(runs, axis=0)) == len(runs)


def test_with_replacement_a_run_misses_a_third() -> None:
    drawn = MinibatchSampler(60000, 100, seed=0).draw(600)
    assert len(np.unique(drawn)) / 60000 == pytest.approx(1 - np.exp(-1), abs=0.005)

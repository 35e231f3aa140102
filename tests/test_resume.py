"""Checkpoints: a training that was stopped, anywhere, equals one that never was."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from errors import refused
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from libraries import Library

from dlfs_gpu import ArgumentError, DataError, save_model
from dlfs_gpu.layers import Affine, Dropout, Identity, Sigmoid
from dlfs_gpu.losses import MeanSquaredError
from dlfs_gpu.models import MultiLayerNet, TwoLayerNet
from dlfs_gpu.network import Network
from dlfs_gpu.optimizers import OPTIMIZERS, SGD, Adam
from dlfs_gpu.training import History, Trainer
from dlfs_gpu.training import checkpoint as checkpoints
from dlfs_gpu.training import trainer as trainers
from dlfs_gpu.training.checkpoint import read_checkpoint, write_checkpoint
from dlfs_gpu.training.updates import Updates

FEATURES, CLASSES, EPOCH = 4, 3, 6
OPTIONS: dict[str, Any] = {
    "mini_batch_size": 5,
    "optimizer": "momentum",
    "iterations": 4 * EPOCH + 2,
    "seed": 0,
    "verbose": False,
}


def points(samples: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    t = rng.integers(CLASSES, size=samples)
    return np.eye(CLASSES, FEATURES)[t] + 0.5 * rng.standard_normal((samples, FEATURES)), t


TRAIN, TEST, VAL = points(30, 0), points(12, 1), points(9, 2)
DATA = (*TRAIN, *TEST)
VALIDATION: dict[str, Any] = {"x_val": VAL[0], "t_val": VAL[1]}


def network(**options: Any) -> MultiLayerNet:
    options = {"seed": 0, "backend": "numpy", **options}
    return MultiLayerNet(FEATURES, [5, 4], CLASSES, **options)


def trainer(net: Network | None = None, **options: Any) -> Trainer:
    return Trainer(net or network(), *DATA, **OPTIONS | options)


def resumed(path: Path, **options: Any) -> Trainer:
    return Trainer.resume(path, *DATA, verbose=False, **options)


def stop_after(learner: Trainer, updates: int) -> None:
    """Stop a training when it has done so many more updates."""
    done = 0

    def do(count: int, history: History, after: Callable[[Any], bool]) -> None:
        def count_them(loss: Any) -> bool:
            nonlocal done
            done += 1
            if done == updates:
                learner.stop()
            return after(loss)

        Updates.do(learner._updates, count, history, count_them)

    learner._updates.do = do  # type: ignore[method-assign]


def result(learner: Trainer) -> dict[str, Any]:
    """All that a training comes to, but for the time it took."""
    history = asdict(learner.history) | {"seconds": None, "_losses": None}
    arrays = {
        "losses": learner.history.losses,
        **learner.network.params,
        **{f"last {key}": param for key, param in learner._early.last.items()},
    }
    return history | {
        key: (str(array.dtype), array.shape, array.tobytes()) for key, array in arrays.items()
    }


class TestExactness:
    @pytest.mark.parametrize("gradient", ["backprop", "difference"])
    @pytest.mark.parametrize("optimizer", OPTIMIZERS)
    @pytest.mark.parametrize(
        ("net", "options"),
        [
            ({}, {}),
            ({"dropout_ratio": 0.3}, {}),
            ({"weight_decay_lambda": 0.01, "dtype": "float64"}, {}),
            ({"activation": "tanh"}, VALIDATION | {"patience": 100}),
            ({"dropout_ratio": 0.3}, VALIDATION | {"patience": 1}),
        ],
    )
    def test_stopped_and_resumed(
        self,
        tmp_path: Path,
        optimizer: str,
        gradient: str,
        net: dict[str, Any],
        options: dict[str, Any],
    ) -> None:
        """In the middle of epochs, at their ends, twice in one, and at the end of all."""
        options = options | {"optimizer": optimizer, "gradient": gradient}
        validation = {key: options[key] for key in VALIDATION.keys() & options.keys()}
        straight = trainer(network(**net), **options)
        straight.train()
        broken = trainer(network(**net), **options)
        path = tmp_path / "a"
        for updates in (4, 1, 1, 3, 6, 2):
            stop_after(broken, updates)
            broken.train()
            broken.save(path)
            broken = resumed(path, **validation)
        broken.train()
        assert result(broken) == result(straight)

    @settings(
        max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
    )
    @given(
        stops=st.lists(st.integers(1, 2 * EPOCH), max_size=6),
        resumes=st.lists(st.booleans(), min_size=6, max_size=6),
        iterations=st.integers(1, 4 * EPOCH),
        patience=st.sampled_from([None, 1, 2]),
        block=st.sampled_from([1, 4, 1000]),
    )
    def test_however_it_is_cut(
        self,
        tmp_path: Path,
        stops: list[int],
        resumes: list[bool],
        iterations: int,
        patience: int | None,
        block: int,
    ) -> None:
        """By stops, some with a checkpoint, and by blocks of updates."""
        options = VALIDATION | {"iterations": iterations, "patience": patience}
        net = {"dropout_ratio": 0.2}
        straight = trainer(network(**net), **options)
        straight.train()
        broken = trainer(network(**net), **options)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(trainers, "_BLOCK", block)
            for updates, resume in zip(stops, resumes, strict=False):
                stop_after(broken, updates)
                if broken.train().stopped != "interrupted":
                    break
                if resume:
                    broken.save(tmp_path / "a")
                    broken = resumed(tmp_path / "a", **VALIDATION)
            else:
                broken.train()
        assert result(broken) == result(straight)

    def test_from_a_callback(self, tmp_path: Path) -> None:
        """From every evaluation: those before, none twice, and all after it."""
        seen: list[int] = []

        def keep(learner: Trainer) -> None:
            seen.append(learner.history.iterations[-1])
            learner.save(tmp_path / str(seen[-1]))

        options = VALIDATION | {"patience": 10, "optimizer": "adam"}
        straight = trainer(callback=keep, **options)
        straight.train()
        assert seen == [0, 6, 12, 18, 24, 26]
        for iteration in seen:
            called: list[int] = []
            broken = resumed(
                tmp_path / str(iteration),
                callback=lambda learner, called=called: called.append(
                    learner.history.iterations[-1]
                ),
                **VALIDATION,
            )
            broken.train()
            assert result(broken) == result(straight)
            assert called == [later for later in seen if later > iteration or later == 26]

    def test_between_updates_when_it_is_time(self, tmp_path: Path) -> None:
        straight = trainer()
        straight.train()
        learner = trainer()
        kept: list[Path] = []

        def keep() -> None:
            kept.append(tmp_path / str(len(kept)))
            learner.save(kept[-1])
            learner._call_after(0.0, keep)

        learner._call_after(0.0, keep)
        learner.train()
        assert len(kept) == OPTIONS["iterations"], "due at once, so after each update"
        assert result(learner) == result(straight)
        for path in kept[::5]:
            broken = resumed(path)
            broken.train()
            assert result(broken) == result(straight)

    @pytest.mark.parametrize("iterations", [3, 4 * EPOCH])
    def test_divergence(self, tmp_path: Path, iterations: int) -> None:
        """Also where the end of all is in the middle of an epoch."""

        def keep(learner: Trainer) -> None:
            learner.save(tmp_path / "a")

        options = {"optimizer": "sgd", "optimizer_param": {"lr": 1e30}, "iterations": iterations}
        straight = trainer(network(activation="relu"), callback=keep, **options)
        assert straight.train().stopped == "diverged"
        broken = resumed(tmp_path / "a")
        assert broken.train().stopped == "diverged"
        assert result(broken) == result(straight)

    def test_after_the_end(self, tmp_path: Path) -> None:
        """Nothing is left to do; and asked again, as much more as in one process."""
        learner = trainer()
        learner.train()
        learner.save(tmp_path / "a")
        broken = resumed(tmp_path / "a")
        broken.train()
        assert result(broken) == result(learner)
        for each in (learner, broken):
            each.train()
        assert result(broken) == result(learner)
        assert learner.history.iterations[-1] == 2 * OPTIONS["iterations"]

    def test_early_stopping_has_the_best_weights_again(self, tmp_path: Path) -> None:
        learner = trainer(optimizer="adam", optimizer_param={"lr": 0.5}, patience=1, **VALIDATION)
        assert learner.train().stopped == "early"
        learner.save(tmp_path / "a")
        broken = resumed(tmp_path / "a", **VALIDATION)
        broken.train()
        assert result(broken) == result(learner)

    def test_seconds_add_up(self, tmp_path: Path) -> None:
        learner = trainer()
        stop_after(learner, 5)
        seconds = learner.train().seconds
        learner.save(tmp_path / "a")
        broken = resumed(tmp_path / "a")
        assert broken.history.seconds == seconds > 0
        assert broken.train().seconds > seconds

    def test_on_every_library(self, lib: Library, tmp_path: Path) -> None:
        if lib.name == "strict":
            pytest.skip("trainings on named backends only are saved")
        rng = np.random.default_rng(0)
        weights = [rng.standard_normal(shape) for shape in ((FEATURES, 5), (5, CLASSES))]
        data = [lib.asarray(x) for x in DATA]

        def net() -> Network:
            W1, W2 = map(lib.asarray, weights)
            b1, b2 = lib.asarray(np.zeros(5)), lib.asarray(np.zeros(CLASSES))
            return Network([Affine(W1, b1), Sigmoid(), Dropout(0.2, seed=1), Affine(W2, b2)])

        options = OPTIONS | {"optimizer": "adam"}
        straight = Trainer(net(), *data, **options)
        straight.train()
        broken = Trainer(net(), *data, **options)
        stop_after(broken, 7)
        broken.train()
        broken.save(tmp_path / "a")
        broken = Trainer.resume(tmp_path / "a", *data, network=net(), verbose=False)
        broken.train()
        assert broken.history.train_accuracy == straight.history.train_accuracy
        np.testing.assert_array_equal(broken.history.losses, straight.history.losses)
        for key, param in straight.network.params.items():
            np.testing.assert_array_equal(
                lib.to_numpy(broken.network.params[key]), lib.to_numpy(param), strict=True
            )


class TestWhatIsKept:
    def test_equal_trainings_make_equal_files(self, tmp_path: Path) -> None:
        for name in "ab":
            learner = trainer(network(dropout_ratio=0.5))
            learner.train()
            learner.history.seconds = 0.0
            learner.save(tmp_path / name)
        assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()

    def test_a_mask_that_is_frozen(self, tmp_path: Path) -> None:
        def net() -> MultiLayerNet:
            frozen = network(dropout_ratio=0.5)
            for layer in frozen.layers:
                if isinstance(layer, Dropout):
                    layer.frozen = True
            return frozen

        straight = trainer(net())
        straight.train()
        broken = trainer(net())
        stop_after(broken, 3)
        broken.train()
        broken.save(tmp_path / "a")
        broken = resumed(tmp_path / "a")
        broken.train()
        assert result(broken) == result(straight)

    def test_a_learning_rate_that_was_changed(self, tmp_path: Path) -> None:
        def slower(learner: Trainer) -> None:
            learner.optimizer.lr *= 0.5

        straight = trainer(callback=slower)
        straight.train()
        broken = trainer(callback=slower)
        stop_after(broken, EPOCH)
        broken.train()
        broken.save(tmp_path / "a")
        broken = resumed(tmp_path / "a", callback=slower)
        broken.train()
        assert result(broken) == result(straight)

    def test_own_parts(self, tmp_path: Path) -> None:
        """A layer, an optimizer, a network and a loss that no checkpoint could build."""

        class Noise:
            """Adds noise to its input while training, and counts."""

            lasting = ("rng", "count")

            def __init__(self) -> None:
                self.rng, self.count, self.train_flg = np.random.default_rng(5), 0, True

            def forward(self, x: Any) -> Any:
                if not self.train_flg:
                    return x
                self.count += 1
                return x + self.rng.normal(0, 0.01, x.shape)

            def backward(self, dout: Any) -> Any:
                return dout

        class Averaging:
            """Follows the mean of all gradients."""

            def __init__(self) -> None:
                self.sums: dict[str, Any] = {}
                self.steps, self.rate = 0, np.float64(0.5)

            def update(self, params: Any, grads: Any) -> None:
                self.steps += 1
                for key, grad in grads.items():
                    self.sums[key] = self.sums.get(key, 0.0) + grad
                    params[key] -= self.rate * self.sums[key] / self.steps

        class Own(Network):
            pass

        targets = np.eye(CLASSES)

        def net() -> Network:
            rng = np.random.default_rng(3)
            affine = Affine(rng.standard_normal((FEATURES, CLASSES)), np.zeros(CLASSES))
            return Own([Noise(), affine], MeanSquaredError(), weight_decay_lambda=0.01)

        data = (TRAIN[0], targets[TRAIN[1]], TEST[0], targets[TEST[1]])
        straight = Trainer(net(), *data, **OPTIONS | {"optimizer": Averaging()})
        straight.train()
        broken = Trainer(net(), *data, **OPTIONS | {"optimizer": Averaging()})
        stop_after(broken, 9)
        broken.train()
        broken.save(tmp_path / "a")
        with refused("network"):
            Trainer.resume(tmp_path / "a", *data, optimizer=Averaging())
        with refused("optimizer"):
            Trainer.resume(tmp_path / "a", *data, network=net())
        with refused("optimizer"):
            Trainer.resume(tmp_path / "a", *data, network=net(), optimizer=SGD())
        broken = Trainer.resume(
            tmp_path / "a", *data, network=net(), optimizer=Averaging(), verbose=False
        )
        broken.train()
        assert result(broken) == result(straight)
        assert broken.network.layers[0].count == straight.network.layers[0].count

    def test_names_that_this_library_has_too(self, tmp_path: Path) -> None:
        """Own classes are not mistaken for it."""
        own = type("Adam", (Adam,), {"__module__": "__main__"})
        trainer(optimizer=own()).save(tmp_path / "a")
        with refused("optimizer"):
            resumed(tmp_path / "a")
        net = network()
        net.layers[1] = type("Relu", (type(net.layers[1]),), {"__module__": "__main__"})()
        trainer(net).save(tmp_path / "b")
        with refused("network"):
            resumed(tmp_path / "b")

    def test_what_cannot_be_kept(self, tmp_path: Path) -> None:
        optimizer = SGD()
        optimizer.schedule = iter([0.1])  # type: ignore[attr-defined]
        with pytest.raises(TypeError, match=r"schedule is a list_iterator"):
            trainer(optimizer=optimizer).save(tmp_path / "a")
        assert list(tmp_path.iterdir()) == []

    def test_a_layer_that_draws_from_nobody_knows_where(self, tmp_path: Path) -> None:
        class Noise(Identity):
            frozen = False

        net = Network([Noise(), Affine(np.ones((FEATURES, CLASSES)))])
        with refused("network"):
            trainer(net).save(tmp_path / "a")
        assert list(tmp_path.iterdir()) == []

    def test_notes(self, tmp_path: Path) -> None:
        notes = {"name": "ж", "sizes": [1, (2, None)], "rates": {"lr": 0.1, "high": float("inf")}}
        trainer().save(tmp_path / "a", notes)
        assert read_checkpoint(tmp_path / "a")["notes"] == notes

    @pytest.mark.parametrize("bits", ["PCG64", "PCG64DXSM", "MT19937", "Philox", "SFC64"])
    def test_generators(self, tmp_path: Path, bits: str) -> None:
        """What they draw, and those that they spawn."""
        rng = np.random.Generator(getattr(np.random, bits)(3))
        rng.spawn(2)
        rng.random(5, dtype=np.float32)
        write_checkpoint(tmp_path / "a", {"rng": rng})
        again = read_checkpoint(tmp_path / "a")["rng"]
        for other in (again, rng):
            other.integers(7, size=3)
        assert again.random() == rng.random()
        assert again.spawn(1)[0].random() == rng.spawn(1)[0].random()

    def test_numbers_and_arrays(self, tmp_path: Path) -> None:
        state = {
            "a": np.float32(0.1), "b": np.array(2.5), "c": np.zeros((0, 3), ">i2"), "d": 2**200,
            "e": float("nan"), "f": [np.array([True]), {"": None}], "g": -0.0,
        }  # fmt: skip
        write_checkpoint(tmp_path / "a", state)
        again = read_checkpoint(tmp_path / "a")
        assert repr(again) == repr(state | {"c": np.zeros((0, 3), "i2")})
        assert type(again["a"]) is np.float32

    @pytest.mark.parametrize(
        "value", [{1: 2}, {1, 2}, 1j, b"a", object(), np.random.RandomState(0), Adam()]
    )
    def test_nothing_else(self, tmp_path: Path, value: Any) -> None:
        with pytest.raises(TypeError, match=r"a\[0\]\.b is a .* checkpoint cannot hold"):
            write_checkpoint(tmp_path / "a", {"a": [{"b": value}]})


class TestCallback:
    def test_after_each_evaluation(self) -> None:
        seen: list[tuple[int, int]] = []
        learner = trainer(
            callback=lambda learner: seen.append(
                (learner.history.iterations[-1], len(learner.history.test_accuracy))
            )
        )
        learner.train()
        assert seen == [(0, 1), (6, 2), (12, 3), (18, 4), (24, 5), (26, 6)]

    def test_may_stop(self) -> None:
        def stop(learner: Trainer) -> None:
            if learner.history.iterations[-1] == 12:
                learner.stop()

        learner = trainer(callback=stop)
        assert learner.train().iterations == [0, 6, 12]
        assert learner.history.stopped == "interrupted"
        assert learner.train().iterations == [0, 6, 12, 18, 24, 26]

    def test_an_exception_keeps_results(self, tmp_path: Path) -> None:
        def fail(learner: Trainer) -> None:
            if learner.history.iterations[-1] == 12:
                raise ZeroDivisionError

        straight = trainer()
        straight.train()
        learner = trainer(callback=fail)
        with pytest.raises(ZeroDivisionError):
            learner.train()
        assert learner.history.iterations == [0, 6, 12]
        assert learner.history.losses.shape == (12,)
        assert learner.history.stopped == "interrupted"
        learner.save(tmp_path / "a")
        for again in (learner, resumed(tmp_path / "a")):
            again.train()
            assert result(again) == result(straight)

    def test_an_exception_after_an_evaluation_that_was_taken_back(self) -> None:
        """Its weights are not the best any more."""
        learner = trainer(patience=100, optimizer_param={"lr": 0.02}, **VALIDATION)
        first = copy.deepcopy(dict(learner.network.params))
        stop_after(learner, 4)
        assert learner.train().best_iteration == 4

        def fail(*arguments: Any) -> None:
            raise ZeroDivisionError

        learner._updates.do = fail  # type: ignore[assignment, method-assign]
        with pytest.raises(ZeroDivisionError):
            learner.train()
        assert (learner.history.iterations, learner.history.best_iteration) == ([0], 0)
        for key, param in first.items():
            np.testing.assert_array_equal(learner.network.params[key], param)


class TestSaving:
    def test_in_the_middle_of_an_update(self, tmp_path: Path) -> None:
        """As from a signal handler, or another thread."""
        problems: list[BaseException] = []

        class Saving(SGD):
            def update(self, params: Any, grads: Any) -> None:
                try:
                    learner.save(tmp_path / "a")
                except RuntimeError as error:
                    problems.append(error)
                super().update(params, grads)

        learner = trainer(optimizer=Saving())
        learner.train()
        assert len(problems) == OPTIONS["iterations"]
        assert "stop" in str(problems[0])
        assert list(tmp_path.iterdir()) == []

    def test_leaves_training_alone(self, tmp_path: Path) -> None:
        learner, straight = trainer(network(dropout_ratio=0.5)), trainer(network(dropout_ratio=0.5))
        straight.train()
        stop_after(learner, 4)
        learner.train()
        learner.save(tmp_path / "a")
        learner.train()
        assert result(learner) == result(straight)


@pytest.mark.parametrize("dropout_ratio", [0, 0.2])  # 0 has buffers
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda thing: pickle.loads(pickle.dumps(thing))])
def test_copies_and_pickles_go_on(
    copied: Callable[[Trainer], Trainer], dropout_ratio: float
) -> None:
    made = network(dropout_ratio=dropout_ratio)
    learner = trainer(made, optimizer="adam", patience=100, **VALIDATION)
    learner.train()
    again = copied(learner)
    for each in (learner, again):
        each.train()
    assert result(again) == result(learner)
    assert again.history.iterations[-1] == 2 * OPTIONS["iterations"]


class TestRefusals:
    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        learner = trainer(patience=10, **VALIDATION)
        stop_after(learner, 4)
        learner.train()
        learner.save(tmp_path / "a")
        return tmp_path / "a"

    @pytest.mark.parametrize("name", ["x_train", "t_train", "x_test", "t_test", "x_val", "t_val"])
    def test_other_data(self, path: Path, name: str) -> None:
        data = dict(zip(("x_train", "t_train", "x_test", "t_test"), DATA, strict=True)) | VALIDATION
        data[name] = data[name].copy()
        data[name][-1] = data[name][0] if data[name].ndim > 1 else (data[name][-1] + 1) % CLASSES
        net = network(seed=5)
        before = copy.deepcopy(dict(net.params))
        with refused("x_" + name.partition("_")[2]):
            Trainer.resume(path, **data, network=net)
        for key, param in before.items():
            np.testing.assert_array_equal(net.params[key], param)

    def test_data_missing_or_too_many(self, path: Path) -> None:
        with refused("x_test"):
            Trainer.resume(path, *TRAIN, **VALIDATION)
        trainer().save(path)
        with refused("x_val"):
            resumed(path, **VALIDATION)

    @pytest.mark.parametrize(
        "other",
        [
            network(dtype="float64"),
            network(activation="tanh"),
            network(dropout_ratio=0.5),
            MultiLayerNet(FEATURES, [5, 5], CLASSES, backend="numpy"),
            Network(network().layers, MeanSquaredError()),
        ],
    )
    def test_another_network(self, path: Path, other: Network) -> None:
        with pytest.raises(ArgumentError, match=r"network is .*; the checkpoint's is .*Relu"):
            resumed(path, network=other, **VALIDATION)

    def test_another_file(self, path: Path) -> None:
        with pytest.raises(FileNotFoundError):
            resumed(path.parent / "gone")
        save_model(path, network())
        with pytest.raises(DataError, match="not a dlfs_gpu checkpoint"):
            resumed(path)

    @settings(
        max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
    )
    @given(data=st.data())
    def test_a_damaged_file(self, path: Path, data: st.DataObject) -> None:
        content = bytearray(path.read_bytes())
        flipped = data.draw(st.integers(0, 8 * len(content) - 1))
        content[flipped // 8] ^= 1 << flipped % 8
        damaged = path.parent / "damaged"
        damaged.write_bytes(content)
        with pytest.raises(DataError, match="damaged"):
            resumed(damaged, **VALIDATION)

    def test_on_another_machine(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """It goes on, and says that bits may differ."""
        state = read_checkpoint(path)
        state["origin"]["backend"] = "cupy"
        write_checkpoint(path, state)
        with pytest.warns(UserWarning, match=r"backend cupy and not numpy: .* last bits") as caught:
            learner = resumed(path, **VALIDATION)
        assert caught[0].filename == __file__
        assert learner.train().stopped == "finished"


def test_large_data_are_read_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    x, t = TRAIN
    whole = checkpoints.digest_of(x, t)
    monkeypatch.setattr(checkpoints, "_BLOCK", 100)
    assert checkpoints.digest_of(x, t) == whole
    assert checkpoints.digest_of(np.asfortranarray(x), t) == whole
    assert checkpoints.digest_of(x.astype(np.float32), t) != whole
    assert checkpoints.digest_of(x.reshape(-1, 2), t) != whole


def test_a_book_network_is_built_again(tmp_path: Path) -> None:
    learner = trainer(TwoLayerNet(FEATURES, 5, CLASSES, seed=0, backend="numpy"))
    learner.save(tmp_path / "a")
    assert resumed(tmp_path / "a").network.sizes == [FEATURES, 5, CLASSES]

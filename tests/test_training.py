"""Trainer: the chapter's recipe, histories, early stopping, interruption, and bad input."""

import csv
import itertools
import re
import threading
from pathlib import Path
from typing import Any

import array_api_strict
import numpy as np
import pytest
from libraries import Library

from dlfs_gpu.data import load_digits, load_mnist
from dlfs_gpu.layers import Affine, Sigmoid
from dlfs_gpu.models import MultiLayerNet, TwoLayerNet
from dlfs_gpu.network import Network
from dlfs_gpu.optimizers import SGD, Adam
from dlfs_gpu.protocols import Layer
from dlfs_gpu.training import History, Trainer
from dlfs_gpu.training.update import Update

FEATURES, CLASSES = 4, 3


def blobs(samples: int = 30, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Three clouds of points that can be told apart."""
    rng = np.random.default_rng(seed)
    t = np.arange(samples) % CLASSES
    return np.eye(CLASSES, FEATURES)[t] + 0.2 * rng.standard_normal((samples, FEATURES)), t


def small_network(**options: Any) -> MultiLayerNet:
    options = {"seed": 0, "dtype": "float64", "backend": "numpy", **options}
    return MultiLayerNet(FEATURES, [5], CLASSES, **options)


def trainer(network: Network | None = None, **options: Any) -> Trainer:
    """A quiet trainer on points, of 3 updates in an epoch, but for what is said."""
    options = {"mini_batch_size": 10, "verbose": False, "seed": 0, **options}
    return Trainer(network or small_network(), *blobs(), **options)


def state(network: Network) -> dict[str, np.ndarray]:
    return {key: network.backend.to_numpy(param).copy() for key, param in network.params.items()}


def assert_same(actual: dict[str, np.ndarray], desired: dict[str, np.ndarray]) -> None:
    assert actual.keys() == desired.keys()
    for key, param in desired.items():
        np.testing.assert_array_equal(actual[key], param, err_msg=key)


class TestHistory:
    def test_evaluations_at_the_start_after_each_epoch_and_at_the_end(self) -> None:
        history = trainer(x_test=blobs(12)[0], t_test=blobs(12)[1], iterations=7).train()
        assert history.iterations == [0, 3, 6, 7]
        assert len(history.train_accuracy) == len(history.test_accuracy) == 4
        assert history.losses.shape == (7,)
        assert history.val_loss == []
        assert (history.stopped, history.best_iteration) == ("finished", None)

    def test_what_they_say(self) -> None:
        network, data = small_network(), blobs(12, seed=1)
        start = network.accuracy(*blobs()), network.accuracy(*data)
        learner = trainer(network, x_test=data[0], t_test=data[1], epochs=40)
        first_rows = learner._updates.sampler.draw(1)[0]
        learner = trainer(network, x_test=data[0], t_test=data[1], epochs=40)
        first_loss = network.loss(blobs()[0][first_rows], blobs()[1][first_rows])
        history = learner.train()
        assert (history.train_accuracy[0], history.test_accuracy[0]) == start
        assert history.train_accuracy[-1] == network.accuracy(*blobs()) > start[0]
        assert history.test_accuracy[-1] == network.accuracy(*data)
        np.testing.assert_allclose(history.losses[0], first_loss, 1e-12)
        assert history.losses[-3:].mean() < history.losses[:3].mean()
        assert history.seconds > 0
        assert history.iterations_per_second == pytest.approx(120 / history.seconds)

    def test_is_empty_before_training(self) -> None:
        history = trainer().history
        assert history.losses.size == history.iterations_per_second == 0
        assert history.iterations == []

    def test_csv(self, tmp_path: Path) -> None:
        x, t = blobs(9)
        history = trainer(iterations=4, x_val=x, t_val=t).train()
        history.write_csv(tmp_path / "history.csv")
        with (tmp_path / "history.csv").open(newline="") as file:
            header, *rows = csv.reader(file)
        assert header == ["iteration", "loss", "train_accuracy", "test_accuracy", "val_loss"]
        assert [row[0] for row in rows] == ["0", "1", "2", "3", "4"]
        np.testing.assert_array_equal([float(row[1]) for row in rows[:4]], history.losses)
        assert rows[4][1] == ""
        assert [row[2] for row in rows] == [
            str(history.train_accuracy[0]), "", "", *map(str, history.train_accuracy[1:])
        ]  # fmt: skip
        assert {row[3] for row in rows} == {""}
        assert [row[4] != "" for row in rows] == [True, False, False, True, True]

    def test_csv_that_fails_leaves_what_was_there(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = tmp_path / "history.csv"
        path.write_text("old")
        history = History(iterations=[0], train_accuracy=[0.5])
        monkeypatch.setattr(csv, "writer", lambda file: file.write("half") and None)
        with pytest.raises(AttributeError):
            history.write_csv(path)
        assert path.read_text() == "old"
        assert list(tmp_path.iterdir()) == [path]


class TestTheBook:
    def test_argument_order_and_names(self) -> None:
        x, t = blobs()
        learner = Trainer(small_network(), x, t, x, t, 2, 10, "Adam", {"lr": 0.02}, 7, False)
        assert isinstance(learner.optimizer, Adam)
        assert learner.optimizer.lr == 0.02
        assert (learner.iter_per_epoch, learner.max_iter) == (3, 6)
        learner.train()
        assert len(learner.train_loss_list) == 6
        assert all(type(loss) is float for loss in learner.train_loss_list)
        assert len(learner.train_acc_list) == len(learner.test_acc_list) == 3
        assert learner.train_acc_list[-1] == learner.network.accuracy(x[:7], t[:7])
        assert learner.test_acc_list[-1] == learner.network.accuracy(x[:7], t[:7])

    def test_defaults(self) -> None:
        x, t = np.repeat(blobs()[0], 20, axis=0), np.repeat(blobs()[1], 20)
        learner = Trainer(small_network(), x, t, verbose=False)
        assert type(learner.optimizer) is SGD
        assert learner.optimizer.lr == 0.1
        assert (learner.iter_per_epoch, learner.max_iter) == (6, 120)

    def test_own_defaults_of_the_optimizer(self) -> None:
        assert trainer(optimizer="adam").optimizer.lr == 0.001

    def test_optimizers_may_be_objects(self) -> None:
        class Halving:
            """Halves every parameter."""

            def update(self, params: Any, grads: Any) -> None:
                assert params.keys() == grads.keys()
                for key in params:
                    params[key] *= 0.5

        optimizer = Adam(0.5)
        assert trainer(optimizer=optimizer).optimizer is optimizer
        network = small_network()
        before = network.params["W1"].copy()
        trainer(network, optimizer=Halving(), iterations=3).train()
        np.testing.assert_array_equal(network.params["W1"], before / 8)

    def test_targets_may_be_one_hot(self) -> None:
        by_label, by_vector = small_network(), small_network()
        x, t = blobs()
        for network, targets in ((by_label, t), (by_vector, np.eye(CLASSES)[t])):
            Trainer(
                network, x, targets, x, targets, 2, 10, verbose=False, seed=0
            ).train()  # fmt: skip
        assert_same(state(by_vector), state(by_label))

    @pytest.mark.once
    def test_mnist(self, mnist_dir: Path) -> None:
        """The chapter's recipe beside the log that its sources print."""
        source = {
            1200: (0.88015, 0.8839), 1800: (0.900133, 0.9031), 2400: (0.908633, 0.9124),
            3000: (0.915183, 0.9175), 3600: (0.92, 0.9224), 4200: (0.924433, 0.9264),
            4800: (0.928233, 0.9296), 5400: (0.931233, 0.9319), 6000: (0.9332, 0.9337),
            6600: (0.936717, 0.9374), 7200: (0.938533, 0.9392), 7800: (0.941383, 0.9403),
            8400: (0.942583, 0.942), 9000: (0.944717, 0.9436), 9600: (0.945733, 0.9449),
        }  # fmt: skip
        train, test = load_mnist(data_dir=mnist_dir)
        network = TwoLayerNet(784, 50, 10, seed=0)
        history = Trainer(
            network,
            *train,
            *test,
            optimizer_param={"lr": 0.1},
            iterations=10_000,
            seed=0,
            verbose=False,
        ).train()
        assert history.iterations == [*range(0, 10_000, 600), 10_000]
        accuracies = zip(history.train_accuracy, history.test_accuracy, strict=True)
        computed = dict(zip(history.iterations, accuracies, strict=True))
        for iteration, printed in source.items():
            assert computed[iteration] == pytest.approx(printed, abs=0.02), iteration
        assert history.test_accuracy[-1] >= 0.940


class TestRepeating:
    def run(self, seed: int = 0, **options: Any) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        network = small_network(seed=seed, dropout_ratio=0.3)
        history = trainer(network, seed=seed, optimizer="adam", epochs=4, **options).train()
        return history.losses, state(network)

    @pytest.mark.parametrize("gradient", ["backprop", "difference"])
    def test_same_seed_same_bits(self, gradient: str) -> None:
        (losses, params), (losses2, params2) = (self.run(gradient=gradient) for _ in range(2))
        np.testing.assert_array_equal(losses, losses2)
        assert_same(params, params2)

    def test_other_seed_other_numbers(self) -> None:
        assert (self.run(0)[0] != self.run(1)[0]).all()

    def test_types_agree(self) -> None:
        train, test = load_digits()
        accuracies = []
        for dtype in ("float32", "float64"):
            network = TwoLayerNet(64, 50, 10, seed=0, dtype=dtype)
            learner = Trainer(
                network,
                *train,
                *test,
                optimizer_param={"lr": 0.5},
                iterations=2000,
                verbose=False,
                seed=0,
            )
            accuracies.append(learner.train().test_accuracy[-1])
            assert learner.history.losses.dtype == dtype
        assert min(accuracies) >= 0.95
        assert accuracies[0] == pytest.approx(accuracies[1], abs=0.005)

    def test_libraries_agree(self, lib: Library) -> None:
        rng = np.random.default_rng(0)
        W1, W2 = rng.standard_normal((FEATURES, 5)), rng.standard_normal((5, CLASSES))

        def learn(library: Library) -> tuple[Network, History]:
            put = library.asarray
            layers: list[Layer] = [Affine(put(W1), put(np.zeros(5))), Sigmoid()]
            network = Network([*layers, Affine(put(W2), put(np.zeros(CLASSES)))])
            x, t = map(put, blobs())
            learner = Trainer(network, x, t, x, t, 30, 10, verbose=False, seed=0)
            return network, learner.train()

        network, history = learn(lib)
        expected, expected_history = learn(Library("numpy", "float64", np))
        assert history.train_accuracy == expected_history.train_accuracy
        for key, param in expected.params.items():
            np.testing.assert_allclose(
                lib.to_numpy(network.params[key]), param, 1000 * lib.eps, 1000 * lib.eps
            )

    def test_training_goes_on_where_it_ended(self) -> None:
        once, twice = small_network(), small_network()
        losses = trainer(once, optimizer="momentum", epochs=4).train().losses
        learner = trainer(twice, optimizer="momentum", epochs=2)
        assert learner.train().losses.shape == (6,)
        assert learner.train() is learner.history
        np.testing.assert_array_equal(learner.history.losses, losses)
        assert_same(state(twice), state(once))


class TestEarlyStopping:
    def validation(self) -> tuple[np.ndarray, np.ndarray]:
        (x, t), _ = load_digits(backend="numpy")
        return x[100:300], t[100:300]

    def noisy(self, **options: Any) -> tuple[Network, Trainer]:
        """A network large enough to learn wrong labels by heart."""
        (x, t), (x_test, t_test) = load_digits(backend="numpy")
        x_val, t_val = self.validation()
        t_train = t[:100].copy()
        t_train[::4] = (t_train[::4] + 1) % 10
        network = MultiLayerNet(64, [100], 10, seed=0, backend="numpy")
        arguments = {
            "x_test": x_test,
            "t_test": t_test,
            "mini_batch_size": 50,
            "optimizer": "adam",
            "optimizer_param": {"lr": 0.01},
            "epochs": 100,
            "x_val": x_val,
            "t_val": t_val,
            "patience": 5,
            "seed": 0,
            "verbose": False,
        }
        return network, Trainer(network, x[:100], t_train, **(arguments | options))

    def test_stops_and_restores_the_best(self) -> None:
        network, learner = self.noisy()
        params = dict(network.params)
        history = learner.train()
        assert history.stopped == "early"
        best = int(np.argmin(history.val_loss))
        assert best > 0
        assert history.best_iteration == history.iterations[best]
        assert len(history.val_loss) == best + 1 + 5
        assert (
            float(network.loss(*self.validation())) == history.val_loss[best] < history.val_loss[-1]
        )
        assert all(network.params[key] is param for key, param in params.items())

    def test_restores_the_best_when_all_updates_are_done(self) -> None:
        network, learner = self.noisy(patience=1000, epochs=30)
        history = learner.train()
        assert history.stopped == "finished"
        assert history.best_iteration in history.iterations[:-1]
        assert float(network.loss(*self.validation())) == min(history.val_loss)

    def test_never_looks_at_test_data(self) -> None:
        network, learner = self.noisy()
        history = learner.train()
        other_network, other = self.noisy(t_test=np.zeros(360, np.int64))
        assert other.train().best_iteration == history.best_iteration
        assert other.history.test_accuracy != history.test_accuracy
        assert_same(state(other_network), state(network))

    def test_a_start_that_was_best_is_restored(self) -> None:
        network = small_network()
        before = state(network)
        x, _ = blobs()
        worst = np.argmin(network.predict(x), axis=1)
        learner = Trainer(
            network,
            x,
            np.argmax(network.predict(x), axis=1),
            x_val=x,
            t_val=worst,
            patience=2,
            mini_batch_size=10,
            verbose=False,
        )
        history = learner.train()
        assert (history.best_iteration, history.iterations) == (0, [0, 3, 6])
        assert_same(state(network), before)

    def test_validation_without_patience_only_watches(self) -> None:
        network, learner = self.noisy(patience=None, epochs=30)
        history = learner.train()
        assert len(history.val_loss) == len(history.iterations) == 31
        assert history.best_iteration is None
        assert float(network.loss(*self.validation())) == history.val_loss[-1]


class TestEnding:
    def test_stop_from_another_thread(self) -> None:
        learner = trainer(iterations=300_000)
        timer = threading.Timer(0.2, learner.stop)
        timer.start()
        history = learner.train()
        timer.join()
        assert history.stopped == "interrupted"
        assert 0 < len(history.losses) == history.iterations[-1] < 300_000
        assert history.train_accuracy[-1] == learner.network.accuracy(*blobs())

    def test_stop_holds_for_one_training(self) -> None:
        learner = trainer(iterations=5)
        learner.stop()
        assert learner.train().iterations == [0]
        assert learner.train().iterations == [0, 3, 5]

    @pytest.mark.parametrize("activation", ["relu", "sigmoid"])
    @pytest.mark.parametrize("optimizer", ["sgd", "momentum"])
    def test_divergence(self, activation: str, optimizer: str) -> None:
        network = small_network(activation=activation, dtype="float32")
        history = trainer(
            network, optimizer=optimizer, optimizer_param={"lr": 1e38}, epochs=50
        ).train()
        assert history.stopped == "diverged"
        assert history.iterations[-1] < 150
        assert not np.isfinite(history.losses[-1])

    def test_divergence_ends_with_the_best_weights(self) -> None:
        x, t = blobs(9)
        network = small_network(dtype="float32")
        learner = trainer(
            network, optimizer_param={"lr": 1e38}, epochs=50, x_val=x, t_val=t, patience=10
        )
        history = learner.train()
        assert (history.stopped, history.best_iteration) == ("diverged", 0)
        assert float(network.loss(x, t)) == history.val_loss[0]

    def test_weights_that_overflow_in_the_last_update(self) -> None:
        # The loss, taken before it, is finite.
        network = small_network(dtype="float32")
        history = trainer(network, optimizer_param={"lr": 1e300}, iterations=1).train()
        assert history.stopped == "diverged"
        assert np.isfinite(history.losses).all()
        assert history.train_accuracy[-1] == 0, "NaN is no right answer"

    def test_an_exception_loses_nothing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        x, t = blobs(9)
        network = small_network(dtype="float32")
        # So large a rate that the start stays the best.
        learner = trainer(
            network, optimizer_param={"lr": 1e3}, epochs=50, x_val=x, t_val=t, patience=40
        )
        update, done = Update.__call__, itertools.count(1)

        def interrupted(self: Update, rows: Any) -> Any:
            if next(done) == 8:
                raise KeyboardInterrupt
            return update(self, rows)

        monkeypatch.setattr(Update, "__call__", interrupted)
        with pytest.raises(KeyboardInterrupt):
            learner.train()
        history = learner.history
        assert (history.stopped, len(history.losses)) == ("interrupted", 7)
        assert history.best_iteration is not None
        best = history.iterations.index(history.best_iteration)
        assert float(network.loss(x, t)) == history.val_loss[best] == min(history.val_loss)


class TestShown:
    def test_a_line_for_each_epoch(self, capfd: pytest.CaptureFixture[str]) -> None:
        x, t = blobs(9)
        history = trainer(iterations=7, verbose=True, x_test=x, t_test=t, x_val=x, t_val=t).train()
        out, err = capfd.readouterr()
        assert out == ""
        assert re.fullmatch(r"[ -~\n]*", err), "where there is no terminal there is no bar"
        lines = err.splitlines()
        assert [int(line.split()[1]) for line in lines] == [0, 3, 6, 7]
        assert lines[-1] == (
            f"iteration      7  loss {history.losses[-1]:.4f}"
            f"  train {history.train_accuracy[-1]:.4f}"
            f"  test {history.test_accuracy[-1]:.4f}  val_loss {history.val_loss[-1]:.4f}"
        )

    def test_of_many_epochs_some_forty(self, capfd: pytest.CaptureFixture[str]) -> None:
        history = trainer(epochs=401, verbose=True).train()
        shown = [int(line.split()[1]) for line in capfd.readouterr().err.splitlines()]
        assert len(history.iterations) == 402
        assert shown == [*range(0, 1203, 30), 1203]

    def test_quiet(self, capfd: pytest.CaptureFixture[str]) -> None:
        trainer(epochs=2).train()
        assert capfd.readouterr() == ("", "")


def with_value(x: np.ndarray, value: float) -> np.ndarray:
    x = x.astype(float)
    x[1, 2] = value
    return x


X, T = blobs()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"x_train": with_value(X, np.nan)}, ValueError, "x_train holds NaN or infinity"),
        ({"x_train": with_value(X, np.inf)}, ValueError, "x_train holds NaN or infinity"),
        ({"x_test": with_value(X, -np.inf), "t_test": T}, ValueError, "x_test holds NaN or inf"),
        ({"x_val": with_value(X, np.nan), "t_val": T}, ValueError, "x_val holds NaN or infinity"),
        (
            {"t_train": with_value(np.eye(CLASSES)[T], np.nan)},
            ValueError,
            "t_train holds NaN or infinity",
        ),
        ({"x_train": X[:, :3]}, ValueError, r"x_train has shape \(30, 3\); it must be \(N, 4"),
        (
            {"x_test": X[:, :3], "t_test": T},
            ValueError,
            r"x_test has shape \(30, 3\); it must be \(N, 4",
        ),
        ({"t_train": T[:7]}, ValueError, r"t_train has shape \(7,\); .*must have.* \(30,\)"),
        ({"t_train": T + 1}, ValueError, "t_train holds the label 3; .* 3 classes are 0 to 2"),
        ({"t_train": T - 1}, ValueError, "t_train holds the label -1"),
        ({"t_train": T * 1.0}, TypeError, "t_train: t holds"),
        ({"x_test": X}, ValueError, "^t_test is None"),
        ({"t_val": T}, ValueError, "^x_val is None"),
        ({"x_train": X[:0], "t_train": T[:0]}, ValueError, "x_train.* the batch is empty"),
        (
            {"x_train": array_api_strict.asarray(X), "t_train": array_api_strict.asarray(T)},
            TypeError,
            r"x_train.* backend 'numpy': pass network.backend.asarray\(x\)",
        ),
        ({"mini_batch_size": 31}, ValueError, "batch_size is 31; .* number of samples, 30"),
        ({"mini_batch_size": 0}, ValueError, "^mini_batch_size is 0"),
        ({"mini_batch_size": 2.5}, ValueError, "^mini_batch_size is 2.5"),
        ({"optimizer": "sgdm"}, ValueError, "^optimizer is 'sgdm'"),
        ({"optimizer_param": {"lr": 0}}, ValueError, "^lr is 0"),
        ({"optimizer_param": {"lr": -0.1}}, ValueError, "^lr is -0.1"),
        ({"optimizer_param": {"lr": np.nan}}, ValueError, "^lr is nan"),
        ({"optimizer_param": {"rate": 1}}, TypeError, "unexpected keyword argument 'rate'"),
        ({"gradient": "exact"}, ValueError, "gradient is 'exact'; it must be one of"),
        ({"epochs": 0}, ValueError, "epochs is 0; it must be a whole number, 1 or more"),
        ({"epochs": 1.5}, ValueError, "epochs is 1.5; it must be a whole number, 1 or more"),
        ({"iterations": 0}, ValueError, "iterations is 0; it must be a whole number, 1 or more"),
        ({"iterations": -5}, ValueError, "iterations is -5; it must be a whole number"),
        ({"patience": 3}, ValueError, "patience is 3, which needs validation data, but x_val is"),
        ({"patience": 0, "x_val": X, "t_val": T}, ValueError, "patience is 0; it must be a whole"),
        ({"patience": 1.5, "x_val": X, "t_val": T}, ValueError, "patience is 1.5; it must be a w"),
        (
            {"evaluate_sample_num_per_epoch": 0},
            ValueError,
            "evaluate_sample_num_per_epoch is 0; it must be a whole number",
        ),
    ],
)
def test_bad_input(options: dict[str, Any], error: type[Exception], message: str) -> None:
    network = small_network()
    before = state(network)
    arguments: dict[str, Any] = {
        "x_train": X,
        "t_train": T,
        "mini_batch_size": 10,
        "verbose": False,
    } | options
    with pytest.raises(error, match=message):
        Trainer(network, **arguments)
    assert_same(state(network), before)

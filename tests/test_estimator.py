"""The estimators: scikit-learn's own checks, MLPClassifier's arithmetic, array libraries."""

from __future__ import annotations

import copy
import math
import pickle
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import array_api_strict
import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import sklearn
from array_api_compat import device
from errors import refused
from libraries import Library
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import load_digits, load_iris
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score, train_test_split
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler
from sklearn.utils.estimator_checks import check_estimator

import dlfs_gpu
from dlfs_gpu import NetworkClassifier, NetworkRegressor

X, Y = load_iris(return_X_y=True)
X = (X - X.mean(axis=0)) / X.std(axis=0)

# Many tests train for a short time on purpose.
pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


@pytest.fixture(autouse=True)
def array_api_strict_as_it_was() -> Iterator[None]:
    """scikit-learn 1.6 sets an older standard for everybody."""
    yield
    array_api_strict.reset_array_api_strict_flags()


@pytest.fixture
def dispatch() -> Iterator[None]:
    with sklearn.config_context(array_api_dispatch=True):
        yield


def quick(cls: Any = NetworkClassifier, **parameters: Any) -> Any:
    return cls(**{"hidden_layer_sizes": (8,), "max_iter": 3, "random_state": 0} | parameters)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("cls", [NetworkClassifier, NetworkRegressor])
def test_scikit_learns_checks(cls: Any) -> None:
    results = check_estimator(cls(), on_fail="raise", on_skip=None)
    assert len(results) > 50
    for result in results:
        if result["status"] != "passed":
            assert result["status"] == "skipped"
            # What is skipped needs an array library that is not here, or a GPU.
            assert "array_api" in result["check_name"]
            assert not any(
                name in str(result["exception"]) for name in ("strict", "SCIPY", "numpy")
            )


def test_scikit_learn_is_imported_when_an_estimator_is_asked_for() -> None:
    code = (
        "import sys, dlfs_gpu; from dlfs_gpu import Trainer; assert 'sklearn' not in sys.modules; "
        "from dlfs_gpu import NetworkClassifier; assert 'sklearn' in sys.modules; "
        "import dlfs_gpu.estimator as e; assert NetworkClassifier is e.NetworkClassifier"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(AttributeError, match="Perceptron"):
        getattr(dlfs_gpu, "Perceptron")  # noqa: B009 - type checkers know better


def test_default_settings_read_digits() -> None:
    data = load_digits(return_X_y=True)
    x, x_test, t, t_test = train_test_split(*data, stratify=data[1], random_state=0)
    pipeline = make_pipeline(StandardScaler(), NetworkClassifier(random_state=0)).fit(x, t)
    assert pipeline.score(x_test, t_test) >= 0.96


@pytest.mark.parametrize(("activation", "theirs"), [("sigmoid", "logistic"), ("relu", "relu")])
def test_an_epoch_is_that_of_mlp_classifier(activation: str, theirs: str) -> None:
    shared: dict[str, Any] = {
        "hidden_layer_sizes": (7, 5), "alpha": 3.0, "learning_rate_init": 0.2, "batch_size": 50,
        "shuffle": False, "random_state": 0,
    }  # fmt: skip
    peer = MLPClassifier(activation=theirs, solver="sgd", momentum=0, **shared)
    peer.partial_fit(X, Y, classes=[0, 1, 2])
    own = NetworkClassifier(activation=activation, optimizer="sgd", **shared)
    own.partial_fit(X, Y, classes=[0, 1, 2])
    copy_weights(peer, own)
    peer.partial_fit(X, Y)
    own.partial_fit(X, Y)
    same_weights(peer, own)
    np.testing.assert_allclose(own.predict_proba(X), peer.predict_proba(X), rtol=1e-8)
    np.testing.assert_allclose(own.predict_log_proba(X), peer.predict_log_proba(X), rtol=1e-6)
    np.testing.assert_array_equal(own.predict(X), peer.predict(X))
    assert own.out_activation_ == peer.out_activation_
    assert own.n_layers_ == peer.n_layers_
    assert own.loss_ == pytest.approx(peer.loss_, rel=1e-8)
    assert own.n_iter_ == 2


def test_an_epoch_is_that_of_mlp_regressor() -> None:
    """Whose loss is half the mean squared error: at half the rate the whole does the same."""
    shared: dict[str, Any] = {"hidden_layer_sizes": (6,), "batch_size": 50, "shuffle": False}
    peer = MLPRegressor(solver="sgd", momentum=0, learning_rate_init=0.1, alpha=2.0, **shared)
    own = NetworkRegressor(optimizer="sgd", learning_rate_init=0.05, alpha=4.0, **shared)
    for estimator in (peer, own):
        estimator.partial_fit(X[:, :2], X[:, 2])
    copy_weights(peer, own)
    for estimator in (peer, own):
        estimator.partial_fit(X[:, :2], X[:, 2])
    same_weights(peer, own)
    np.testing.assert_allclose(own.predict(X[:, :2]), peer.predict(X[:, :2]), rtol=1e-8)
    assert own.out_activation_ == peer.out_activation_
    assert own.loss_ == pytest.approx(2 * peer.loss_, rel=1e-8)


def copy_weights(source: Any, target: Any) -> None:
    for name in ("coefs_", "intercepts_"):
        for theirs, own in zip(getattr(source, name), getattr(target, name), strict=True):
            own[...] = theirs


def same_weights(a: Any, b: Any) -> None:
    for name in ("coefs_", "intercepts_"):
        for first, second in zip(getattr(a, name), getattr(b, name), strict=True):
            np.testing.assert_allclose(first, second, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        ("hidden_layer_sizes", (10, 0)),
        ("hidden_layer_sizes", None),
        ("activation", "softplus"),
        ("optimizer", "lbfgs"),
        ("alpha", -1),
        ("batch_size", 0),
        ("batch_size", "all"),
        ("learning_rate_init", 0),
        ("max_iter", 0),
        ("shuffle", "no"),
        ("tol", math.nan),
        ("early_stopping", 1),
        ("validation_fraction", 0),
        ("validation_fraction", 1),
        ("n_iter_no_change", 0),
        ("warm_start", None),
        ("verbose", 2),
        ("gradient", "numerical"),
        ("dropout_ratio", 1),
        ("dtype", "float16"),
        ("backend", "tpu"),
    ],
)
def test_fit_refuses_parameters(parameter: str, value: Any) -> None:
    estimator = NetworkClassifier(**{parameter: value})
    with refused(parameter):
        estimator.fit(X, Y)
    with pytest.raises(NotFittedError):
        estimator.predict(X)


@pytest.mark.parametrize(
    "labels", [["b", "c", "a"], [30, 10, 20], [True, False, True], [0.0, 1.0, 0.0]]
)
def test_labels_of_any_kind(labels: list[Any]) -> None:
    y = np.array(labels)[Y]
    estimator = NetworkClassifier(random_state=0).fit(X, y)
    np.testing.assert_array_equal(estimator.classes_, np.unique(y))
    assert estimator.predict(X).dtype == y.dtype
    assert estimator.score(X, y) > 0.9
    assert estimator.n_outputs_ == len(set(labels))


def test_data_frames() -> None:
    frame = pd.DataFrame(X, columns=["a", "b", "c", "d"])
    estimator = quick().fit(frame, pd.Series(np.array(["x", "y", "z"])[Y], dtype="category"))
    assert list(estimator.feature_names_in_) == ["a", "b", "c", "d"]
    assert set(estimator.predict(frame)) <= {"x", "y", "z"}
    with pytest.raises(ValueError, match="feature names"):
        estimator.predict(frame[["b", "a", "c", "d"]])


def test_data_that_cannot_be_fitted() -> None:
    with refused("y") as caught:
        quick().fit(X, np.zeros(len(X)))
    assert "class" in str(caught.value)
    with pytest.raises(ValueError, match="class"):
        quick().fit(X[:1], Y[:1])
    with pytest.raises(TypeError, match=r"[Ss]parse"):
        quick().fit(scipy.sparse.csr_array(X), Y)
    with refused("x"), np.errstate(over="ignore"):
        quick(dtype="float32").fit(X * 1e300, Y)


def test_data_at_the_edge() -> None:
    constant = np.concatenate([X, np.full((len(X), 2), 7.0)], axis=1)
    assert np.all(np.isfinite(quick().fit(constant, Y).predict_proba(constant)))
    regressor = quick(NetworkRegressor).fit(X[:1], [2.0])
    assert regressor.predict(X).shape == (len(X),)
    with pytest.raises(ValueError, match=r"one class|least populated"):
        quick(early_stopping=True).fit(X[:51], Y[:51])


@pytest.mark.parametrize("cls", [NetworkClassifier, NetworkRegressor])
def test_training_that_diverges_leaves_nothing_to_predict_with(cls: Any) -> None:
    estimator = quick(cls, optimizer="sgd", learning_rate_init=1e200, max_iter=20)
    with refused("learning_rate_init"):
        estimator.fit(X, Y)
    with pytest.raises(NotFittedError):
        estimator.predict(X)


def test_training_ends_when_nothing_is_gained() -> None:
    estimator = NetworkClassifier(max_iter=500, tol=10, n_iter_no_change=4).fit(X, Y)
    assert estimator.n_iter_ == 1 + 5
    assert len(estimator.loss_curve_) == estimator.n_iter_
    assert estimator.loss_ == estimator.loss_curve_[-1]
    assert estimator.validation_scores_ is None


@pytest.mark.filterwarnings("error")
def test_training_that_does_not_converge_warns() -> None:
    with pytest.warns(sklearn.exceptions.ConvergenceWarning, match="max_iter"):
        quick().fit(X, Y)


@pytest.mark.parametrize("cls", [NetworkClassifier, NetworkRegressor])
def test_early_stopping_ends_with_the_best_weights(cls: Any) -> None:
    estimator = cls(
        early_stopping=True, validation_fraction=0.3, learning_rate_init=0.05, random_state=1
    ).fit(X, Y)
    scores = estimator.validation_scores_
    assert len(scores) == estimator.n_iter_ < 200
    assert max(scores) > 0.9
    held_out = train_test_split(
        np.arange(len(X)), test_size=0.3, random_state=second_seed(1),
        stratify=Y if cls is NetworkClassifier else None,
    )[1]  # fmt: skip
    assert estimator.score(X[held_out], Y[held_out]) == pytest.approx(max(scores))


def second_seed(random_state: int) -> int:
    """Return the second seed that an estimator draws: after the network's, the split's."""
    rng = np.random.RandomState(random_state)
    return int(rng.randint(2**31 - 1, size=2)[1])


def test_warm_start_goes_on() -> None:
    estimator = quick(warm_start=True, optimizer="adam").fit(X, Y)
    network, loss = estimator.network_, estimator.loss_
    estimator.fit(X, Y)
    assert estimator.network_ is network
    assert estimator.n_iter_ == len(estimator.loss_curve_) == 6
    assert estimator.loss_ < loss
    with refused("y"):
        estimator.fit(X[:100], Y[:100])
    with pytest.raises(ValueError, match="features"):
        estimator.fit(X[:, :3], Y)


def test_partial_fit() -> None:
    estimator = quick(optimizer=dlfs_gpu.Adam(0.02), batch_size=10)
    with refused("classes"):
        estimator.partial_fit(X, Y)
    estimator.partial_fit(X[:50], Y[:50], classes=[2, 1, 0])  # all are of one class
    for _ in range(20):
        estimator.partial_fit(X, Y)
    assert estimator.score(X, Y) > 0.9
    assert estimator.n_iter_ == 21
    with refused("y"):
        estimator.partial_fit(X, Y + 1)
    with refused("classes"):
        estimator.partial_fit(X, Y, classes=[0, 1])
    with refused("early_stopping"):
        quick(early_stopping=True).partial_fit(X, Y, classes=[0, 1, 2])


def test_optimizer_objects_are_left_as_they_are() -> None:
    optimizer = dlfs_gpu.Adam(lr=0.05)
    before = copy.deepcopy(vars(optimizer))
    first = quick(optimizer=optimizer).fit(X, Y)
    second = sklearn.base.clone(first).fit(X, Y)
    assert vars(optimizer) == before
    same_weights(first, second)


def test_equal_seeds_train_equally_by_differences() -> None:
    exact = quick(dtype="float64").fit(X, Y)
    by_difference = quick(dtype="float64", gradient="difference").fit(X, Y)
    np.testing.assert_allclose(by_difference.loss_curve_, exact.loss_curve_, rtol=1e-6)


def test_dropout_is_off_in_predictions() -> None:
    estimator = quick(dropout_ratio=0.5).fit(X, Y)
    np.testing.assert_array_equal(estimator.predict_proba(X), estimator.predict_proba(X))


def test_each_epoch_sees_every_sample() -> None:
    """Also where samples do not divide into minibatches."""
    estimator = quick(NetworkRegressor, batch_size=40)
    estimator._rng = np.random.RandomState(0)
    estimator.network_ = dlfs_gpu.TwoLayerNet(2, 2, 2, backend="numpy")
    epochs = list(estimator._minibatches(100, 40, 5))
    assert all(rows.shape == (3, 40) for rows in epochs)
    counts = np.bincount(np.concatenate(epochs).ravel(), minlength=100)
    assert set(counts) == {6}
    estimator.shuffle = False
    np.testing.assert_array_equal(
        np.concatenate([rows.ravel() for rows in estimator._minibatches(100, 40, 5)]),
        np.tile(np.arange(100), 6),
    )


def test_dtypes() -> None:
    assert quick().fit(X.astype(np.float32), Y).predict_proba(X).dtype == np.float32
    assert quick().fit(X.astype(np.int64), Y).coefs_[0].dtype == np.float64
    assert quick(dtype="float32").fit(X, Y).intercepts_[1].dtype == np.float32


@pytest.mark.parametrize("gradient", ["backprop", "difference"])
def test_copies_share_nothing_and_hold_no_data(gradient: str) -> None:
    estimator = quick(gradient=gradient, dropout_ratio=0.2, max_iter=1).fit(X, Y)
    expected = estimator.predict_proba(X)
    for twin in (pickle.loads(pickle.dumps(estimator)), copy.deepcopy(estimator)):
        np.testing.assert_array_equal(twin.predict_proba(X), expected)
        twin.partial_fit(X, Y)
        assert not np.array_equal(twin.predict_proba(X), expected)
        np.testing.assert_array_equal(estimator.predict_proba(X), expected)
    large = np.repeat(X, 100, axis=0)
    size = len(pickle.dumps(estimator))
    estimator.predict(large)
    assert len(pickle.dumps(estimator)) <= size + 100


def test_grid_search_in_other_processes() -> None:
    search = GridSearchCV(
        make_pipeline(StandardScaler(), NetworkClassifier(random_state=0, max_iter=100)),
        {"networkclassifier__learning_rate_init": [1e-6, 0.02]},
        n_jobs=2,
        cv=2,
    ).fit(X, Y)
    assert search.best_params_ == {"networkclassifier__learning_rate_init": 0.02}
    assert search.best_score_ > 0.9


def test_calibration() -> None:
    calibrated = CalibratedClassifierCV(NetworkClassifier(random_state=0), cv=3).fit(X, Y)
    assert calibrated.score(X, Y) > 0.9


@pytest.mark.skipif(
    tuple(map(int, sklearn.__version__.split(".")[:2])) < (1, 8),
    reason="it calibrates NumPy arrays alone",
)
def test_calibration_of_arrays_of_other_libraries(dispatch: None) -> None:
    x, y = array_api_strict.asarray(X), array_api_strict.asarray(Y)
    estimator = NetworkClassifier(random_state=0, learning_rate_init=0.02)
    calibrated = CalibratedClassifierCV(estimator, method="temperature", cv=3).fit(x, y)
    assert isinstance(calibrated.predict_proba(x), type(x))
    assert calibrated.score(x, y) > 0.9


def test_regression_with_several_outputs() -> None:
    estimator = NetworkRegressor(random_state=0, learning_rate_init=0.01)
    y = X[:, [0, 3]]
    assert estimator.fit(X, y).predict(X).shape == (len(X), 2)
    assert estimator.score(X, y) > 0.95
    assert estimator.n_outputs_ == 2
    assert estimator.fit(X, y[:, 0]).predict(X).shape == (len(X),)
    with refused("y"):
        estimator.partial_fit(X, y)


def test_verbose(capsys: pytest.CaptureFixture[str]) -> None:
    quick().fit(X, Y)
    assert not capsys.readouterr().out
    quick(verbose=True).fit(X, Y)
    assert len(capsys.readouterr().out.splitlines()) == 3


def test_arrays_of_any_library(lib: Library, dispatch: None) -> None:
    x, y = lib.asarray(X), lib.asarray(Y)
    pipeline = make_pipeline(MinMaxScaler(), NetworkClassifier(random_state=0, max_iter=20))
    pipeline.fit(x, y)
    host = make_pipeline(MinMaxScaler(), NetworkClassifier(random_state=0, max_iter=20))
    host.fit(X.astype(lib.dtype), Y)
    for method in ("predict", "predict_proba", "predict_log_proba"):
        answer = getattr(pipeline, method)(x)
        assert type(answer) is type(x)
        assert device(answer) == device(x)
        expected = getattr(host, method)(X.astype(lib.dtype))
        np.testing.assert_allclose(lib.to_numpy(answer), expected, rtol=1e4 * lib.eps)
    assert pipeline.score(x, y) == pytest.approx(host.score(X, Y))
    assert device(pipeline[-1].classes_) == device(y)
    estimator = pickle.loads(pickle.dumps(pipeline[-1]))
    np.testing.assert_array_equal(
        lib.to_numpy(estimator.predict(x)), lib.to_numpy(pipeline[-1].predict(x))
    )
    if lib.name != "numpy":
        with pytest.raises(ValueError, match="same namespace"):
            estimator.predict(X)
    truth = estimator.fit(x, y == 1).predict(x)
    assert lib.to_numpy(truth).dtype == np.bool
    early = NetworkClassifier(random_state=0, early_stopping=True, max_iter=5).fit(x, y)
    assert len(early.validation_scores_) == 5
    regressor = quick(NetworkRegressor).fit(x, x[:, :2])
    assert device(regressor.predict(x)) == device(x)
    assert math.isfinite(regressor.score(x, x[:, :2]))


def test_labels_may_be_strings_beside_arrays_of_another_library(
    lib: Library, dispatch: None
) -> None:
    y = np.array(["a", "b", "c"])[Y]
    estimator = NetworkClassifier(random_state=0).fit(lib.asarray(X), y)
    assert np.mean(estimator.predict(lib.asarray(X)) == y) > 0.9


def test_searches_take_arrays_of_other_libraries(dispatch: None) -> None:
    x, y = array_api_strict.asarray(X), array_api_strict.asarray(Y)
    estimator = NetworkClassifier(random_state=0, learning_rate_init=0.02)
    assert np.mean(cross_val_score(estimator, x, y, cv=3)) > 0.9
    search = GridSearchCV(make_pipeline(MinMaxScaler(), estimator), {}, cv=3).fit(x, y)
    assert search.best_score_ > 0.9
    assert isinstance(search.predict(x), type(x))

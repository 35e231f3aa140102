"""What the commands can be told: each setting once, with its option and its default."""

# Annotations are evaluated here, because typer reads the options in them.

import functools
import inspect
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from typer import Option

from dlfs_gpu.gradient import GradientMethod
from dlfs_gpu.kernels import KernelsMode
from dlfs_gpu.training.update import GradientKind

Settings = TypeVar("Settings")


def command_with(
    settings: type[Settings],
) -> Callable[[Callable[[Settings, frozenset[str]], None]], Callable[..., None]]:
    """Make a function of settings a command whose options are the fields of a dataclass.

    The function also gets the names of those settings that were really given.
    """

    def decorate(function: Callable[[Settings, frozenset[str]], None]) -> Callable[..., None]:
        @functools.wraps(function)
        def command(ctx: typer.Context, **values: Any) -> None:
            given = {
                name
                for name in values
                if "DEFAULT" not in getattr(ctx.get_parameter_source(name), "name", "DEFAULT")
            }
            function(settings(**values), frozenset(given))

        signature = inspect.signature(settings)
        context = inspect.Parameter("ctx", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)
        vars(command)["__signature__"] = signature.replace(
            parameters=[context, *signature.parameters.values()]
        )
        return command

    return decorate


def path_option(help: str) -> Any:
    """Return an option for a path, in which ``~`` is the user's folder."""
    return Option(parser=_path, metavar="PATH", help=help)


def data_option(help: str) -> Any:
    """Return an option for the name of data, or the path of a CSV file."""
    return Option(parser=os.path.expanduser, metavar="NAME", help=help)


def _path(text: str) -> Path:
    if not text:
        raise typer.BadParameter("it must not be empty")
    return Path(os.path.expanduser(text))


BackendOption = Annotated[
    str | None,
    Option("--backend", help="auto, numpy or cupy.  [default: DLFS_GPU_BACKEND or auto]"),
]
KernelsOption = Annotated[
    KernelsMode | None,
    Option(
        "--kernels",
        help="auto for compiled kernels where there are any, off for array operations alone.  "
        "[default: DLFS_GPU_KERNELS or auto]",
    ),
]
DataDirOption = Annotated[
    Path | None,
    path_option(
        "Folder of the files of mnist or fashion-mnist.  [default: DLFS_GPU_DATA, or downloaded]"
    ),
]


@dataclass(frozen=True, kw_only=True)
class NetworkSettings:
    """A network and its data."""

    data: Annotated[str, data_option("digits (embedded), mnist, fashion-mnist, or a CSV file.")] = (
        "digits"
    )
    data_dir: DataDirOption = None
    label_column: Annotated[str, Option(help="Column of the labels in CSV files.")] = "label"
    scale: Annotated[
        float, Option(help="What a CSV file's other columns are divided by; for pixels, 255.")
    ] = 1.0
    backend: BackendOption = None
    hidden: Annotated[
        str, Option(help="Sizes of the hidden layers, such as 50 or 512,512; '' for none.")
    ] = "50"
    activation: Annotated[
        str,
        Option(
            help="sigmoid, relu or tanh. First weights have the standard deviation 0.01 with one "
            "sigmoid layer, as in the chapter, else sqrt(2/n) for relu and sqrt(1/n) for the "
            "others, for n inputs of the layer.",
        ),
    ] = "sigmoid"
    weight_decay_lambda: Annotated[
        float, Option(help="Factor of half the sum of squared weights, a penalty in the loss.")
    ] = 0.0
    dropout_ratio: Annotated[float, Option(help="Share of hidden units dropped in training.")] = 0.0
    kernels: KernelsOption = None
    mpi: Annotated[
        bool, Option("--mpi", help="Share the work with the other processes of mpiexec.")
    ] = False
    seed: Annotated[
        int, Option(min=0, help="Of weights, minibatches, dropout and the validation split.")
    ] = 0
    dtype: Annotated[str, Option(help="float32 or float64.")] = "float32"


@dataclass(frozen=True, kw_only=True)
class TrainingSettings(NetworkSettings):
    """A training."""

    test_data: Annotated[
        Path | None, path_option("CSV file to test on.  [default: a fifth of --data]")
    ] = None
    gradient: Annotated[
        GradientKind,
        Option(help="By backpropagation, or central differences: difference; batched, loop: slow."),
    ] = "backprop"
    optimizer: Annotated[str, Option(help="sgd, momentum, nesterov, adagrad, rmsprop or adam.")] = (
        "sgd"
    )
    lr: Annotated[
        float | None, Option(help="Learning rate.  [default: 0.1 for sgd, else the optimizer's]")
    ] = None
    iterations: Annotated[int, Option(help="Number of updates.")] = 10_000
    mini_batch_size: Annotated[int, Option(help="Samples in a minibatch.")] = 100
    validation_split: Annotated[
        float, Option(help="Share of the training data held out for --patience.")
    ] = 0.0
    patience: Annotated[
        int | None,
        Option(
            help="Stop when the validation loss has not fallen for so many epochs, and keep the "
            "best weights."
        ),
    ] = None
    out: Annotated[
        Path | None,
        path_option("Folder for the results; old ones are replaced.  [default: runs/DATA-TIME]"),
    ] = None
    checkpoint_every: Annotated[
        float, Option(help="Seconds after which what is done is kept in --out; 0 for never.")
    ] = 30.0
    resume: Annotated[
        Path | None,
        path_option("Folder of a training that was killed or stopped, to go on with all settings."),
    ] = None


@dataclass(frozen=True, kw_only=True)
class GradcheckSettings(NetworkSettings):
    """A check of gradients."""

    mini_batch_size: Annotated[int, Option(help="Samples to check on, the first.")] = 100
    method: Annotated[GradientMethod, Option(help="How to compute the numerical gradients.")] = (
        "difference"
    )
    h: Annotated[
        float | None, Option("--step", help="Step h of the differences.  [default: by method]")
    ] = None


@dataclass(frozen=True, kw_only=True)
class PredictionSettings:
    """A trained network, and what to answer for."""

    model: Annotated[Path, path_option("model.safetensors of a training run.")]
    data: Annotated[
        str | None,
        data_option(
            "Data to answer for: all of a CSV file, or the test part of another set.  "
            "[default: what the model was trained on, if that is no CSV file]"
        ),
    ] = None
    data_dir: DataDirOption = None
    label_column: Annotated[
        str | None, Option(help="Column of the labels, if there are any.  [default: as trained]")
    ] = None
    scale: Annotated[
        float | None, Option(help="What CSV columns are divided by.  [default: as trained]")
    ] = None
    backend: BackendOption = None
    out: Annotated[
        Path | None, path_option("Folder for predictions.csv, which replaces one there.")
    ] = None

"""The command line: ``dlfs-gpu info | train | gradcheck | predict | chapter4``."""

from __future__ import annotations

import importlib.metadata
import io
import os
import platform
import signal
import sys
from pathlib import Path
from typing import Annotated, Any, TextIO

import typer
import typer.core

from dlfs_gpu.backend import BackendError, get_backend
from dlfs_gpu.cli import workflows
from dlfs_gpu.cli.sources import Source, load_data
from dlfs_gpu.network import GradientMethod
from dlfs_gpu.training.update import GradientKind

# Where the command line calls an argument by another name than its own.
_OPTIONS = {
    "batch_size": "--batch-size",
    "data_dir": "--data-dir",
    "dropout_ratio": "--dropout",
    "h": "--step",
    "hidden_size": "--hidden",
    "patience": "--early-stopping",
    "weight_decay_lambda": "--weight-decay",
} | {
    name: f"--{name}"
    for name in (
        "activation", "backend", "dtype", "iterations", "lr", "only", "optimizer", "out", "scale",
    )
}  # fmt: skip

# What bad arguments, files and machines raise.
_MENDABLE = (ArithmeticError, BackendError, MemoryError, OSError, TypeError, ValueError)


class _Commands(typer.core.TyperGroup):
    """The commands; errors a user can mend are one message and the exit status 2."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise typer.Exit(128 + signal.SIGINT) from None
        except _MENDABLE as error:
            if ctx.params["traceback"]:
                raise
            name, _, rest = (str(error) or type(error).__name__).partition(" ")
            message = f"{_OPTIONS.get(name, name)} {rest}".rstrip()
            typer.echo(f"dlfs-gpu: {message}", err=True)
            raise typer.Exit(2) from error


app = typer.Typer(
    cls=_Commands,
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"dlfs-gpu {_version('dlfs-gpu')}")
        raise typer.Exit


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
    traceback: Annotated[
        bool,
        typer.Option("--traceback", help="Show where an error comes from, to report a defect."),
    ] = False,
) -> None:
    """Chapter 4 of Deep Learning from Scratch on NumPy or an NVIDIA GPU."""


def _path(text: str) -> Path:
    if not text:
        raise typer.BadParameter("it must not be empty")
    return Path(text)


BackendOption = Annotated[
    str | None,
    typer.Option("--backend", help="auto, numpy or cupy.  [default: DLFS_GPU_BACKEND, or auto]"),
]
DataOption = Annotated[
    str, typer.Option("--data", help="digits (embedded), mnist, fashion-mnist, or a CSV file.")
]
DataDirOption = Annotated[
    Path | None,
    typer.Option(
        "--data-dir",
        parser=_path,
        metavar="PATH",
        help="Folder of the four files of mnist or fashion-mnist.  [default: DLFS_GPU_DATA, or "
        "downloaded]",
    ),
]
LabelOption = Annotated[
    str | None,
    typer.Option("--label-column", help="Column of the labels in CSV files.  [default: label]"),
]
ScaleOption = Annotated[
    float | None,
    typer.Option(
        "--scale", help="What the other columns of CSV files are divided by.  [default: 255]"
    ),
]
HiddenOption = Annotated[
    str,
    typer.Option(
        "--hidden", help="Sizes of the hidden layers, such as 50 or 512,512; '' for none."
    ),
]
ActivationOption = Annotated[
    str,
    typer.Option(
        "--activation",
        help="sigmoid, relu or tanh. First weights have the standard deviation 0.01 with one "
        "sigmoid layer, as in the chapter, else √(2/n) for relu and √(1/n) for the others.",
    ),
]
DecayOption = Annotated[
    float, typer.Option("--weight-decay", help="λ of the penalty ½λΣW² in the loss.")
]
DropoutOption = Annotated[float, typer.Option("--dropout", help="Share of hidden units dropped.")]
SeedOption = Annotated[
    int, typer.Option("--seed", min=0, help="Of weights, minibatches, masks and splits.")
]
DtypeOption = Annotated[str, typer.Option("--dtype", help="float32 or float64.")]


@app.command()
def info(backend: BackendOption = None) -> None:
    """Show versions, backend, device and memory."""
    chosen = get_backend(backend)
    names = ["dlfs-gpu", "numpy", "array-api-compat", "cupy-cuda12x", "cupy-cuda13x"]
    for name in names:
        typer.echo(f"{name:18}{_version(name)}")
    typer.echo(f"{'python':18}{platform.python_version()} on {platform.platform()}")
    typer.echo(f"{'backend':18}{chosen.name}")
    typer.echo(f"{'why':18}{chosen.reason}")
    typer.echo(f"{'device':18}{chosen.device}")
    typer.echo(f"{'free memory':18}{chosen.free_memory() / 2**30:.1f} GiB")


@app.command()
def train(
    data: DataOption = "digits",
    data_dir: DataDirOption = None,
    test_data: Annotated[
        str | None, typer.Option(help="CSV file to test on.  [default: a fifth of --data]")
    ] = None,
    label_column: LabelOption = None,
    scale: ScaleOption = None,
    backend: BackendOption = None,
    gradient: Annotated[
        GradientKind,
        typer.Option(
            help="By backpropagation, or central differences: numerical, or, slowly, batched or "
            "loop."
        ),
    ] = "backprop",
    hidden: HiddenOption = "50",
    activation: ActivationOption = "sigmoid",
    optimizer: Annotated[
        str, typer.Option(help="sgd, momentum, nesterov, adagrad, rmsprop or adam.")
    ] = "sgd",
    iterations: Annotated[int, typer.Option(help="Number of updates.")] = 10_000,
    batch_size: Annotated[int, typer.Option(help="Samples in a minibatch.")] = 100,
    lr: Annotated[
        float | None,
        typer.Option(help="Learning rate.  [default: 0.1 for sgd, else the optimizer's own]"),
    ] = None,
    weight_decay: DecayOption = 0.0,
    dropout: DropoutOption = 0.0,
    validation_split: Annotated[
        float, typer.Option(help="Share of the training data held out for early stopping.")
    ] = 0.0,
    early_stopping: Annotated[
        int | None,
        typer.Option(
            metavar="PATIENCE",
            help="Stop when the validation loss has not fallen for so many epochs, and keep the "
            "best weights.",
        ),
    ] = None,
    seed: SeedOption = 0,
    dtype: DtypeOption = "float32",
    out: Annotated[
        Path | None,
        typer.Option(
            parser=_path,
            metavar="PATH",
            help="Folder for the results, which replace those there.  [default: runs/DATA-TIME]",
        ),
    ] = None,
) -> None:
    """Train a network on digits, MNIST or a CSV file.

    Writes history.csv, summary.json, curves.png and model.safetensors. Ctrl-C, SIGTERM and SIGHUP
    end it early: the results are written all the same, and the exit status is 128 and the number
    of the signal, 130 for Ctrl-C. A second one ends it at once.
    """
    place = get_backend(backend)
    source = Source(data, test_data, label_column, scale)
    folder = out or workflows.default_folder(source)
    summary = workflows.train(
        load_data(source, data_dir, place),
        folder,
        backend=place,
        gradient=gradient,
        hidden=parse_sizes(hidden),
        activation=activation,
        optimizer=optimizer,
        iterations=iterations,
        batch_size=batch_size,
        lr=lr,
        weight_decay=weight_decay,
        dropout=dropout,
        validation_split=validation_split,
        patience=early_stopping,
        seed=seed,
        dtype=dtype,
    )
    typer.echo(workflows.describe(summary))
    typer.echo(f"results in {folder}")
    if summary["stopped"] == "diverged":
        raise FloatingPointError("training diverged: the loss is not finite any more; lower --lr")
    if summary["signal"] is not None:
        raise typer.Exit(128 + signal.Signals[summary["signal"]])


@app.command()
def gradcheck(
    data: DataOption = "digits",
    data_dir: DataDirOption = None,
    label_column: LabelOption = None,
    scale: ScaleOption = None,
    backend: BackendOption = None,
    hidden: HiddenOption = "50",
    activation: ActivationOption = "sigmoid",
    batch_size: Annotated[int, typer.Option(help="Samples to check on, the first.")] = 100,
    weight_decay: DecayOption = 0.0,
    dropout: DropoutOption = 0.0,
    method: Annotated[
        GradientMethod, typer.Option(help="How to compute the numerical gradients.")
    ] = "difference",
    h: Annotated[
        float | None,
        typer.Option("--step", help="Step h of the differences.  [default: by method]"),
    ] = None,
    seed: SeedOption = 0,
    dtype: DtypeOption = "float32",
) -> None:
    """Check backpropagation by numerical gradients.

    Exits with 1 if one is wrong.
    """
    place = get_backend(backend)
    source = Source(data, label_column=label_column, scale=scale)
    report = workflows.gradcheck(
        load_data(source, data_dir, place),
        backend=place,
        hidden=parse_sizes(hidden),
        activation=activation,
        batch_size=batch_size,
        weight_decay=weight_decay,
        dropout=dropout,
        method=method,
        h=h,
        seed=seed,
        dtype=dtype,
    )
    typer.echo(report)
    if not report.ok:
        raise typer.Exit(1)


@app.command()
def predict(
    model: Annotated[
        Path,
        typer.Option(parser=_path, metavar="PATH", help="model.safetensors of a training run."),
    ],
    data: Annotated[
        str | None,
        typer.Option(
            help="Data to answer for: all of a CSV file, or the test part of another set.  "
            "[default: the test part of what the model was trained on]"
        ),
    ] = None,
    data_dir: DataDirOption = None,
    label_column: Annotated[
        str | None,
        typer.Option(help="Column of the labels in CSV files.  [default: as in training]"),
    ] = None,
    scale: Annotated[
        float | None,
        typer.Option(
            help="What the other columns of CSV files are divided by.  [default: as in training]"
        ),
    ] = None,
    backend: BackendOption = None,
    out: Annotated[
        Path | None,
        typer.Option(
            parser=_path,
            metavar="PATH",
            help="Folder for confusion_matrix.png and predictions.csv, which replace those there.",
        ),
    ] = None,
) -> None:
    """Answer for data with a trained network.

    Prints accuracy and confusion matrix.
    """
    place = get_backend(backend)
    typer.echo(workflows.predict(model, data, data_dir, label_column, scale, place, out))
    if out is not None:
        typer.echo(f"results in {out}")


@app.command()
def chapter4(
    out: Annotated[
        Path,
        typer.Option(
            parser=_path,
            metavar="PATH",
            help="Folder for index.html, figures and report.json, which replace those there.",
        ),
    ],
    backend: BackendOption = None,
    data_dir: Annotated[
        Path | None,
        typer.Option(
            parser=_path,
            metavar="PATH",
            help="Folder of the files of MNIST, for the section training.  [default: "
            "DLFS_GPU_DATA, or where they were downloaded; where they are not, the digits are "
            "used]",
        ),
    ] = None,
    only: Annotated[
        str | None,
        typer.Option(
            metavar="SECTION",
            help="Recompute one alone: losses, derivatives, gradients, descent, networks, "
            "training, slides or errata.",
        ),
    ] = None,
) -> None:
    """Recompute the chapter's numbers and figures.

    Exits with 1 if a number comes out wrong.
    """
    from dlfs_gpu.chapter4 import run_chapter4

    report = run_chapter4(out, backend=backend, data_dir=data_dir, only=only)
    typer.echo(report)
    if not report.ok:
        raise typer.Exit(1)


def parse_sizes(text: str) -> list[int]:
    """Return the sizes in a text such as ``512,512``; none in an empty one.

    Raises
    ------
    ValueError
        If it is anything else.
    """
    try:
        return [int(part) for part in text.split(",")] if text.strip() else []
    except ValueError:
        raise ValueError(
            f"--hidden is {text!r}; it must be whole numbers with commas between, such as 512,512"
        ) from None


class _Unfailing:
    """A stream that loses what cannot be written, so that no training is lost with it."""

    def __init__(self, stream: TextIO | None) -> None:
        if stream is None:
            # Takes the number of the closed stream, which no file of ours then gets.
            stream = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
        if isinstance(stream, io.TextIOWrapper):
            # Help has letters that not every terminal has.
            stream.reconfigure(errors="replace")
        self._stream = stream
        self.failed = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except (OSError, ValueError):
            self.failed = True
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except (OSError, ValueError):
            self.failed = True


def main() -> None:
    """Run the command line; what cannot be printed makes the exit status 1."""
    out, err = _Unfailing(sys.stdout), _Unfailing(sys.stderr)
    sys.stdout, sys.stderr = out, err
    try:
        app(prog_name="dlfs-gpu")
    except SystemExit as ended:
        out.flush()
        if out.failed and not ended.code:
            typer.echo("dlfs-gpu: standard output cannot be written", err=True)
            sys.exit(1)
        raise

"""What a user can mend is told in one line, with the exit status 2; a defect is a traceback."""

from __future__ import annotations

import signal
from typing import Any

import typer
from typer.core import TyperCommand

from dlfs_gpu._validation import ArgumentError, DataError
from dlfs_gpu.backend import BackendError
from dlfs_gpu.processes import end_all, started_processes


class Command(TyperCommand):
    """A command; its parameters are called as the arguments of the library that they become."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command, and end with a message if the user's input is at fault."""
        try:
            self._refuse_repetition(ctx.params.get("mpi"))
            return super().invoke(ctx)
        except KeyboardInterrupt:
            end_all(lambda: None, 128 + signal.SIGINT)
            raise typer.Exit(128 + signal.SIGINT) from None
        except BrokenPipeError:
            raise  # typer ends without a word: nobody reads
        except ArgumentError as error:
            options = {param.name: param.opts[0] for param in self.params}
            options |= {"hidden_size_list": "--hidden", "comm": "--mpi"}
            message = f"{options.get(error.argument, error.argument)} {error.problem}"
        except (BackendError, DataError, MemoryError, OSError) as error:
            message = describe(error)
        end_all(lambda: echo_error(message), 2)
        raise typer.Exit(2)

    def _refuse_repetition(self, mpi: bool | None) -> None:
        """Raise ArgumentError if several processes are about to do the same, each for itself."""
        count = started_processes()
        if mpi is None and count > 1:
            raise ArgumentError(str(self.name), f"runs in one process; mpiexec has started {count}")
        if mpi is False and count > 1:
            problem = f"must be given: mpiexec has started {count} processes that would do the same"
            raise ArgumentError("mpi", problem)


def echo_error(message: str) -> None:
    """Print a message to standard error."""
    typer.echo(f"dlfs-gpu: {message}", err=True)


def describe(error: Exception) -> str:
    """Return what an error says, for people to read."""
    if isinstance(error, MemoryError):
        text = str(error) or "memory ran out"
        return f"{text}; smaller networks, minibatches and data need less"
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.filename}: {error.strerror}"
    return str(error)

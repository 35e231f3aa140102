"""Ending a training early, by Ctrl-C or from outside, without losing what it has done."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator
from typing import Any


@contextlib.contextmanager
def stop_on_signals(stop: Callable[[], None]) -> Iterator[list[signal.Signals]]:
    """Call `stop` on the first signal that asks to end, and yield a list that it will be in.

    The next one has the effect that it had before. Signals that are ignored, as under nohup, stay
    ignored.
    """
    received: list[signal.Signals] = []

    def handle(number: int, frame: Any) -> None:
        received.append(signal.Signals(number))
        restore()
        # Not by print, which fails when the signal comes in the middle of another one.
        with contextlib.suppress(OSError):
            os.write(
                sys.stderr.fileno(), b"\nstopping after this iteration; the results are kept\n"
            )
        stop()

    def restore() -> None:
        for number, handler in previous.items():
            signal.signal(number, handler)

    # Windows has no SIGHUP.
    names = [name for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
    found = {signal.Signals[name]: signal.getsignal(signal.Signals[name]) for name in names}
    previous = {n: handler for n, handler in found.items() if handler not in (signal.SIG_IGN, None)}
    for number in previous:
        signal.signal(number, handle)
    try:
        yield received
    finally:
        restore()

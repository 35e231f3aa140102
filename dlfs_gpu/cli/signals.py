"""Ending long work early, by Ctrl-C or from outside, without losing what it has done."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any


@contextlib.contextmanager
def stop_on_signals(stop: Callable[[], None]) -> Iterator[list[signal.Signals]]:
    """Call `stop` on the first signal that asks to end, and yield a list that it will be in.

    A second one does what it ever did. Signals that are ignored, as under nohup, stay so.
    """
    received: list[signal.Signals] = []
    if threading.current_thread() is not threading.main_thread():
        yield received
        return

    def handle(number: int, frame: Any) -> None:
        received.append(signal.Signals(number))
        restore()
        # Not by print: that fails when it is in the middle of another one. Where standard error
        # was closed at the start, 2 may be one of our files.
        if sys.__stderr__ is not None:
            with contextlib.suppress(OSError):
                os.write(2, b"\nstopping after this update; the results are kept\n")
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

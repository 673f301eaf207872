"""The last seconds of a run, in which it registers its results."""

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def ending() -> Iterator[None]:
    """While the block lasts, a first Ctrl-C or SIGTERM changes nothing and a second one raises `KeyboardInterrupt`.

    The block takes seconds, so a run with all results made ends with them registered.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread can handle signals
        return
    received = 0

    def end(number: int, frame: FrameType | None) -> None:
        nonlocal received
        received += 1
        if received > 1:
            raise KeyboardInterrupt
        print("the run is ending; a second Ctrl-C stops at once", file=sys.stderr, flush=True)

    before = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

"""A time limit for code that cannot be asked to stop: the model's."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class TimedOut(BaseException):
    """No ``Exception``: libraries that catch those would take it for a failure of their own."""


@contextmanager
def deadline(seconds: float | None) -> Iterator[None]:
    """Raise TimedOut in the block after so many seconds; None is no limit.

    Works by SIGALRM: in the main thread, not on Windows, and at the end of the operation that the
    processor is at, since nothing interrupts one in the middle. Within another it does nothing.
    """
    here = hasattr(signal, "SIGALRM") and threading.current_thread() is threading.main_thread()
    if seconds is None or not here or signal.getitimer(signal.ITIMER_REAL)[0] > 0:
        yield
        return

    def raise_it(number: int, frame: object) -> None:
        raise TimedOut

    before = signal.signal(signal.SIGALRM, raise_it)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)

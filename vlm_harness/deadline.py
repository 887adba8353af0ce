"""A time limit for code that cannot be cancelled otherwise, such as a model."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class TimedOut(BaseException):
    """The time limit was exceeded.

    Not an ``Exception``, so that libraries that catch every ``Exception`` do not swallow it.
    """


@contextmanager
def deadline(seconds: float | None) -> Iterator[None]:
    """Raise TimedOut in the block after ``seconds``; None means no limit.

    Uses SIGALRM, so it has no effect on Windows or outside the main thread. A native operation
    (such as a matrix product) is not interrupted: the exception is raised when it returns. Nested
    deadlines have no effect.
    """
    supported = hasattr(signal, "SIGALRM") and threading.current_thread() is threading.main_thread()
    if seconds is None or not supported or signal.getitimer(signal.ITIMER_REAL)[0] > 0:
        yield
        return

    def raise_timed_out(number: int, frame: object) -> None:
        raise TimedOut

    previous = signal.signal(signal.SIGALRM, raise_timed_out)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)

"""Ctrl-C and SIGTERM once: the batch is finished and written. Twice: at once. Nothing is lost."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Interrupts:
    """Turns signals into a ``KeyboardInterrupt``, after the batch where one is being computed."""

    def __init__(self) -> None:
        self._in_batch = False
        self._asked = False
        self._tell: Callable[[str], None] = lambda message: None

    def install(self, tell: Callable[[str], None]) -> None:
        """In the main thread; a person sends SIGINT, a cluster's scheduler SIGTERM."""
        self._tell = tell
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._handle)

    def _handle(self, number: int, frame: object) -> None:
        if self._in_batch and not self._asked:
            self._asked = True
            self._tell("stopping after this batch; Ctrl-C again stops at once")
            return
        raise KeyboardInterrupt

    @contextmanager
    def batch(self) -> Iterator[None]:
        """While a batch is computed and written.

        Raises:
            KeyboardInterrupt: at its end, where it was asked for meanwhile.
        """
        self._in_batch = True
        try:
            yield
        finally:
            self._in_batch = False
        if self._asked:
            raise KeyboardInterrupt

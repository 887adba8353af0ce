"""Ctrl-C and SIGTERM once: the batch is finished and written. Twice: at once. Nothing is lost."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager


class Interrupts:
    """Turns signals into a ``KeyboardInterrupt``, after the batch where one is being computed."""

    def __init__(self) -> None:
        self._until = ""
        self._asked = False

    def install(self) -> None:
        """In the main thread; a person sends SIGINT, a cluster's scheduler SIGTERM."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._handle)

    def _handle(self, number: int, frame: object) -> None:
        if self._until and not self._asked:
            self._asked = True
            message = f"\nstopping after {self._until}; Ctrl-C again stops at once\n"
            os.write(2, message.encode())  # a stream might be in the middle of another write
            return
        raise KeyboardInterrupt

    @contextmanager
    def held(self, until: str) -> Iterator[None]:
        """While something is done that is better finished: a batch is computed and written.

        Raises:
            KeyboardInterrupt: at its end, where it was asked for meanwhile.
        """
        self._until = until
        try:
            yield
        finally:
            self._until = ""
        if self._asked:
            raise KeyboardInterrupt
